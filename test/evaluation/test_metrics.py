# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What holds for all metrics."""

from pathlib import Path
import pkgutil
import subprocess
import sys

from hralign_ros.evaluation import metrics
from hralign_ros.evaluation.metrics.names import METRICS
from hralign_ros.evaluation.metrics.probes import proprio_probe
from hralign_ros.evaluation.metrics.retrieval import retrieval
from hralign_ros.evaluation.metrics.spread import linear_cka, spread
import numpy as np
from support.metric_cases import ids, noise


def test_nothing_is_changed():
    x, gallery = noise(20, 8), noise(20, 8, seed=1)
    before = x.copy(), gallery.copy()
    retrieval(lambda rows, text: x[rows], lambda rows, text: gallery[rows],
              text=np.zeros(20, int), identity=ids(20), tasks=ids(20))
    linear_cka(x, gallery, clusters=ids(20))
    spread(x, clusters=ids(20))
    proprio_probe(x, gallery, episodes=ids(20))
    assert np.array_equal(x, before[0]) and np.array_equal(gallery, before[1])


def test_the_page_explains_every_metric():
    page = (Path(__file__).parents[2] / 'docs/reference/evaluation.md').read_text('utf-8')
    assert [name for name in METRICS if f'`{name}`' not in page] == []


def test_metrics_without_torch():
    """Guards the layering at run time: numbers can be recomputed where there is no torch."""
    names = [f'hralign_ros.evaluation.metrics.{one.name}'
             for one in pkgutil.iter_modules(metrics.__path__)]
    program = (f'import sys, hralign_ros.evaluation.report, {", ".join(names)}\n'
               'print("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.stdout.strip() == 'False', done.stderr
