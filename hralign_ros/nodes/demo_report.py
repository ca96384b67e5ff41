# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The demo's report as one picture: what the cameras saw, where attention went, how it ran."""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
from matplotlib.figure import Figure
import numpy as np

if TYPE_CHECKING:
    from hralign_ros.nodes.demo_monitor import Recording

matplotlib.use('Agg')

_COLUMNS = 6
_SIDE = 224


def draw_report(recording: 'Recording', path: Path) -> None:
    """
    Draw a recording.

    :param path: of the PNG to write.
    """
    views = [view for view in recording.view_names if recording.shots.get(view)]
    figure = Figure(figsize=(13, 2.15 * 2 * len(views) + 7.5), layout='constrained')
    ratios = [1.0] * (2 * len(views)) + [0.75] * 3
    grid = figure.add_gridspec(len(ratios), _COLUMNS, height_ratios=ratios)
    for row, view in enumerate(views):
        for offset, (name, shots) in enumerate((
                (view, recording.pictures.get(view, [])),
                ('attention', recording.shots[view]))):
            chosen = np.linspace(0, len(shots) - 1, min(_COLUMNS, len(shots))).astype(int)
            for column, index in enumerate(chosen):
                seconds, picture = shots[index]
                axes = figure.add_subplot(grid[2 * row + offset, column])
                axes.imshow(cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(f'{seconds:.1f} s', fontsize=8)
                if column == 0:
                    axes.set_ylabel(name, fontsize=10)
    _draw_timelines(recording, figure, grid, 2 * len(views))
    info = recording.info
    about = f'{info.backbone} on {info.provider}, bundle {info.bundle_name}' if info else ''
    figure.suptitle(f"'{recording.task}'   {about}", fontsize=12)
    figure.savefig(path, dpi=90)


def _draw_timelines(
    recording: 'Recording', figure: Figure, grid: matplotlib.gridspec.GridSpec, first: int,
) -> None:
    """Draw latency, drift and probability over time, one above the other."""
    times = np.array([row.time for row in recording.rows])
    latency = np.array([row.latency for row in recording.rows]) * 1e3
    axes = figure.add_subplot(grid[first, :])
    axes.plot(times, latency, linewidth=0.8, label='acquisition to publish')
    axes.plot(times, [row.processing * 1e3 for row in recording.rows], linewidth=0.8,
              label='processing')
    axes.set_ylabel('ms')
    axes.set_ylim(0, max(float(np.percentile(latency, 99)) * 1.3, 1.0))
    p50, p95 = np.percentile(latency, (50, 95))
    rate = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
    axes.set_title(f'{len(times)} ticks, {rate:.1f} Hz, latency p50 {p50:.1f} ms, '
                   f'p95 {p95:.1f} ms', fontsize=9)
    axes.legend(fontsize=8, loc='upper right')

    axes = figure.add_subplot(grid[first + 1, :])
    for index, view in enumerate(recording.view_names):
        axes.plot(times, [row.drift[index] for row in recording.rows], linewidth=1.0, label=view)
    axes.set_ylabel('1 - cosine')
    axes.set_title('embedding drift from the first frame', fontsize=9)
    axes.legend(fontsize=8, loc='upper right')

    axes = figure.add_subplot(grid[first + 2, :])
    axes.plot(times, [row.probability for row in recording.rows], color='tab:green',
              linewidth=1.0)
    axes.set_ylim(0, 1)
    axes.set_ylabel('probability')
    axes.set_xlabel('s')
    states = sorted({f'{row.decision} ({row.status})' for row in recording.rows if row.decision})
    axes.set_title(f'success: {"; ".join(states) or "no result"}', fontsize=9)
