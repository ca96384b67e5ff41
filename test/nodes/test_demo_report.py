# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the demo says of images that are out of distribution: in numbers, in words, in its picture.

Whoever played a video of a real robot saw ABSTAIN from end to end, and neither how far the images
were from those that the bundle knows, nor what to do about it.
"""

from pathlib import Path
from typing import Any

import cv2
from hralign_ros.nodes.demo_report import (
    _draw_likeness,
    draw_report,
    ood_sentence,
    out_fraction,
    read_ticks,
    Recording,
    write_ticks,
)
from hralign_ros.runtime import default_bundle, load_bundle
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
import pytest

NAN = float('nan')


def ticks(scores: list[float], limit: float = 1.5, **changes: Any) -> list[dict[str, Any]]:
    """Make rows of ticks.csv with these scores."""
    return [{
        'time_s': 0.1 * i, 'latency_s': 0.02, 'processing_s': 0.01, 'skew_s': 0.0,
        'drift_wrist': 0.0, 'probability': 0.2, 'threshold': 0.5, 'failure': 0.1,
        'progress': 0.3, 'ood_score': score, 'ood_limit': limit, 'decision': 'ABSTAIN',
        'status': 'OUT_OF_DISTRIBUTION' if score > limit else 'OK', **changes}
        for i, score in enumerate(scores)]


@pytest.mark.parametrize(('rows', 'fraction', 'said'), [
    (ticks([1.0, 1.1, 2.0, 1.2]), 0.25, '25% of the ticks'),
    (ticks([2.0, 2.0, 2.0, 1.0]), 0.75, 'every decision is ABSTAIN. Do this.'),
    # A tick whose success message did not come in time counts for neither side.
    ([*ticks([2.0]), *ticks([NAN], decision='', status='')], 1.0, '100% of the ticks'),
    (ticks([NAN], status='NO_TASK|UNCALIBRATED'), None, 'no task was set'),
    (ticks([NAN], status='UNCALIBRATED'), None, 'the bundle has no limit'),
    (ticks([NAN], decision='', status=''), None, 'no tick has a result'),
])
def test_the_share_in_a_sentence(rows: list[dict[str, Any]], fraction: float | None,
                                 said: str) -> None:
    """The next step is named where most ticks are out of distribution, and only there."""
    assert out_fraction(rows) == fraction
    sentence = ood_sentence(rows, 'Do this.')
    assert said in sentence
    assert ('Do this.' in sentence) == (fraction is not None and fraction > 0.5)


def test_the_next_step_depends_on_what_was_taught() -> None:
    """Who has taught nothing has to record; who has, to look at the cameras."""
    fallback = load_tasks(load_bundle(default_bundle())).of('fold the towel')
    assert 'hralign success teach' in fallback.when_unlike
    assert 'recorder' in fallback.when_unlike


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    """What is told at the end is read from ticks.csv, where a value that is not there is nan."""
    rows = [*ticks([2.0, 1.0]), *ticks([NAN], decision='', status='')]
    write_ticks(Recording(rows=rows), tmp_path / 'ticks.csv')
    assert out_fraction(read_ticks(tmp_path / 'ticks.csv')) == 0.5


@pytest.mark.parametrize('limit', [1.5, -0.5])
def test_one_is_the_limit(limit: float) -> None:
    """In the picture a score at its limit lies at 1, whatever the sign of the limit."""
    figure = pytest.importorskip('matplotlib.figure', reason='matplotlib is not installed')
    rows = ticks([limit, limit + abs(limit), limit - abs(limit), NAN], limit)
    axes = figure.Figure().add_subplot()
    _draw_likeness(axes, np.arange(4.0), rows, 'Do this.')
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 4]
    np.testing.assert_allclose(drawn[0], [1.0, 2.0, 0.0, NAN])
    assert 'out of distribution in 33% of ticks' in axes.get_title()
    assert 'Do this.' not in axes.get_title()
    assert axes.get_ylim()[1] > 2.0


def test_the_picture_names_the_next_step(tmp_path: Path) -> None:
    """A recording that is out of distribution throughout, and one without any score, are drawn."""
    figure = pytest.importorskip('matplotlib.figure', reason='matplotlib is not installed')
    axes = figure.Figure().add_subplot()
    _draw_likeness(axes, np.arange(2.0), ticks([3.0, 3.0]), 'Do this. ' * 40)
    title = axes.get_title()
    assert 'in 100% of ticks' in title and 'Do this.' in title
    assert max(map(len, title.splitlines())) <= 150
    for name, score in (('out', 3.0), ('none', NAN)):
        draw_report(Recording(view_names=['wrist'], rows=ticks([score] * 3), next_step='Do this.'),
                    tmp_path / f'{name}.png')
        assert cv2.imread(str(tmp_path / f'{name}.png')) is not None
