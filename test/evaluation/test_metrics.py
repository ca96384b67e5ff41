# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What holds for all metrics."""

from pathlib import Path
import subprocess
import sys

from hralign_ros.evaluation import metrics
from hralign_ros.evaluation.metrics.names import METRICS
import numpy as np
from support.metric_cases import ids, noise


def test_nothing_is_changed():
    x, gallery = noise(20, 8), noise(20, 8, seed=1)
    before = x.copy(), gallery.copy()
    metrics.retrieval(x, gallery, identity=ids(20), task_q=ids(20), task_g=ids(20))
    metrics.linear_cka(x, gallery, clusters=ids(20))
    metrics.spread(x, clusters=ids(20))
    metrics.proprio_probe(x, gallery, episodes=ids(20))
    assert np.array_equal(x, before[0]) and np.array_equal(gallery, before[1])


def test_the_page_explains_every_metric():
    page = (Path(__file__).parents[2] / 'docs/evaluation.md').read_text('utf-8')
    assert [name for name in METRICS if f'`{name}`' not in page] == []


def test_metrics_without_torch():
    """Guards the layering at run time: numbers can be recomputed where there is no torch."""
    program = ('import sys, hralign_ros.evaluation.metrics, hralign_ros.evaluation.report\n'
               'print("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.stdout.strip() == 'False', done.stderr
