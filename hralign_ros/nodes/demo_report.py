# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The demo's report: ticks.csv in numbers, and a figure of what was seen and how it ran.

matplotlib is imported when something is drawn: where it is missing, there is ticks.csv at least.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass, field
import math
from pathlib import Path
import textwrap
from typing import Any

import cv2
from hralign_ros.nodes.interfaces import EncoderInfo
from hralign_ros.runtime.video import read_frames
import numpy as np

_COLUMNS = 6
_SIDE = 224
# Where a greater fraction of ticks is out of distribution, the next step is named.
MOST = 0.5


@dataclass
class Recording:
    """
    What the monitor has seen.

    :param rows: one for each tick, by column of ticks.csv: time, latency, processing and skew in
        seconds; drift_VIEW, 1 - cosine between this embedding of the view and the first one;
        probability, threshold, failure, progress, ood_score, ood_limit, NaN where there is none;
        decision, status.
    :param overlays: by view, seconds from the first tick and the attention image, uint8 [H, W, 3]
        RGB.
    :param images: the same of the camera images beside them.
    :param drops: dropped frames by view and cause.
    :param next_step: what to do where most ticks are out of distribution, a sentence.
    """

    view_names: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    overlays: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    images: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    info: EncoderInfo | None = None
    task: str = ''
    drops: Counter[str] = field(default_factory=Counter)
    next_step: str = ''


def write_ticks(recording: Recording, path: Path) -> None:
    """Write one line for each tick; there is at least one."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, recording.rows[0])
        writer.writeheader()
        writer.writerows({
            name: f'{value:.5f}' if isinstance(value, float) else value
            for name, value in row.items()} for row in recording.rows)


def read_ticks(path: Path) -> list[dict[str, Any]]:
    """Read what write_ticks wrote: all values are text."""
    with open(path, encoding='utf-8') as file:
        return list(csv.DictReader(file))


def out_fraction(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Tell which fraction of the ticks with a score is out of distribution; None: none has one."""
    scored = [row for row in rows if not math.isnan(float(row['ood_score']))]
    if not scored:
        return None
    return sum('OUT_OF_DISTRIBUTION' in row['status'] for row in scored) / len(scored)


def ood_sentence(rows: Sequence[Mapping[str, Any]], next_step: str) -> str:
    """
    Say which share of ticks is out of distribution, and where it is most of them what to do.

    :param next_step: a sentence.
    """
    fraction = out_fraction(rows)
    if fraction is None:
        if not any(row['decision'] for row in rows):
            return 'no tick has a result of the success head'
        return ('no tick has an out-of-distribution score: '
                + ('no task was set; give one with --task (make demo TASK=...)'
                   if all('NO_TASK' in row['status'] for row in rows if row['decision'])
                   else 'the bundle has no limit for it'))
    said = (f'{fraction:.0%} of the ticks are out of distribution (images unlike those that the '
            'bundle was made with)')
    return f'{said}: there every decision is ABSTAIN. {next_step}' if fraction > MOST else said


def draw_report(recording: Recording, path: Path) -> None:
    """
    Draw a recording: what the cameras saw, where attention went, how it ran.

    :param path: of the PNG to write.
    :raises ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    views = [view for view in recording.view_names if recording.overlays.get(view)]
    figure = Figure(figsize=(13, 2.15 * 2 * len(views) + 9.0), layout='constrained')
    ratios = [1.0] * (2 * len(views)) + [0.75] * 3 + [0.5]
    grid = figure.add_gridspec(len(ratios), _COLUMNS, height_ratios=ratios)
    for row, view in enumerate(views):
        for offset, (name, images) in enumerate((
                (view, recording.images.get(view, [])),
                ('attention', recording.overlays[view]))):
            chosen = np.linspace(0, len(images) - 1, min(_COLUMNS, len(images))).astype(int)
            for column, index in enumerate(chosen):
                seconds, image = images[index]
                axes = figure.add_subplot(grid[2 * row + offset, column])
                _show(axes, seconds, cv2.resize(
                    image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
                if column == 0:
                    axes.set_ylabel(name, fontsize=10)
    _draw_timelines(recording, figure, grid, 2 * len(views))
    info = recording.info
    about = f'{info.backbone} on {info.provider}, bundle {info.bundle_name}' if info else ''
    figure.suptitle(f"'{recording.task}'   {about}", fontsize=12)
    figure.savefig(path, dpi=90)


def draw_overview(
    played: Sequence[tuple[Path, Mapping[str, Any], Path]], path: Path, next_step: str = '',
) -> None:
    """
    Draw episodes below one another: images, probability over time, decision, and the truth.

    :param played: of each its folder, its episode.yaml and the ticks.csv of its replay.
    :param path: of the PNG to write.
    :param next_step: see Recording.
    :raises ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5 * len(played)), layout='constrained')
    grid = figure.add_gridspec(
        3 * len(played), _COLUMNS, height_ratios=[1.0, 1.0, 0.35] * len(played))
    for number, (folder, episode, ticks) in enumerate(played):
        rows = read_ticks(ticks)
        view = next(iter(episode['views'].values()))
        frames, seconds = read_frames(folder / view['file'], count=_COLUMNS)
        for column in range(_COLUMNS):
            _show(figure.add_subplot(grid[3 * number, column]), seconds[column], frames[column])
        times = np.array([float(row['time_s']) for row in rows])
        axes = figure.add_subplot(grid[3 * number + 1, :])
        if episode['success']:
            axes.axvspan(episode['success_frame'] / episode['fps'], times[-1], color='#e2f3ec',
                         label='accomplished')
        states = _draw_scores(axes, times, rows)
        last = ''
        for moment, row in zip(times, rows, strict=True):
            if row['decision'] != last and row['decision'] in ('SUCCESS', 'FAILURE'):
                axes.axvline(moment, color='black', linewidth=1.0)
                axes.text(moment, 1.02, row['decision'], fontsize=9, ha='center')
            last = row['decision'] or last
        axes.set_ylim(0, 1.12)
        axes.set_xlim(0, times[-1])
        truth = 'success' if episode['success'] else \
            f'failure: {str(episode["failure"]).replace("_", " ")}'
        axes.set_title(f"'{episode['task']}'   truth: {truth}   decisions: {', '.join(states)}",
                       fontsize=10)
        axes.legend(fontsize=8, loc='center left')
        below = figure.add_subplot(grid[3 * number + 2, :], sharex=axes)
        _draw_likeness(below, times, rows, next_step)
        axes.tick_params(labelbottom=False)
    figure.savefig(path, dpi=90)


def _show(axes: Any, seconds: float, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f'{abs(seconds):.1f} s', fontsize=8)


def _draw_timelines(recording: Recording, figure: Any, grid: Any, first: int) -> None:
    """Draw latency, drift and probability over time, one above the other."""
    rows = recording.rows
    times = np.array([row['time_s'] for row in rows])
    latency = np.array([row['latency_s'] for row in rows]) * 1e3
    axes = figure.add_subplot(grid[first, :])
    axes.plot(times, latency, linewidth=0.8, label='acquisition to publish')
    axes.plot(times, [row['processing_s'] * 1e3 for row in rows], linewidth=0.8,
              label='processing')
    axes.set_ylabel('ms')
    axes.set_ylim(0, max(float(np.percentile(latency, 99)) * 1.3, 1.0))
    p50, p95 = np.percentile(latency, (50, 95))
    rate = (len(times) - 1) / max(times[-1] - times[0], 1e-9)
    axes.set_title(f'{len(times)} ticks, {rate:.1f} Hz, latency p50 {p50:.1f} ms, '
                   f'p95 {p95:.1f} ms', fontsize=9)
    axes.legend(fontsize=8, loc='upper right')

    axes = figure.add_subplot(grid[first + 1, :])
    for view in recording.view_names:
        axes.plot(times, [row[f'drift_{view}'] for row in rows], linewidth=1.0, label=view)
    axes.set_ylabel('1 - cosine')
    axes.set_title('embedding drift from the first frame', fontsize=9)
    axes.legend(fontsize=8, loc='upper right')

    axes = figure.add_subplot(grid[first + 2, :])
    states = _draw_scores(axes, times, rows)
    axes.set_ylim(0, 1)
    axes.set_ylabel('probability')
    axes.legend(fontsize=8, loc='upper left')
    axes.set_title(f'success: {"; ".join(sorted(states)) or "no result"}', fontsize=9)
    axes = figure.add_subplot(grid[first + 3, :])
    _draw_likeness(axes, times, rows, recording.next_step)
    axes.set_xlabel('s')


def _draw_likeness(
    axes: Any, times: np.ndarray, rows: Sequence[Mapping[str, Any]], next_step: str,
) -> None:
    """
    Draw the out-of-distribution score over time, relative to its limit: above 1 is out.

    A score may be below 0, and a limit too: the distance is measured by the limit's size.
    """
    score, limit = (np.array([float(row[name]) for row in rows])
                    for name in ('ood_score', 'ood_limit'))
    relative = 1.0 + (score - limit) / np.maximum(np.abs(limit), 1e-9)
    axes.axhline(1.0, color='black', linestyle='--', linewidth=1.0)
    axes.plot(times, relative, color='tab:orange', linewidth=1.0)
    axes.fill_between(times, 1.0, relative, where=relative > 1.0, color='tab:orange', alpha=0.3)
    finite = relative[np.isfinite(relative)]
    axes.set_ylim(min(0.0, finite.min(initial=0.0)), max(1.5, 1.1 * finite.max(initial=0.0)))
    axes.set_ylabel('score / limit', fontsize=8)
    fraction = out_fraction(rows)
    title = 'no out-of-distribution score' if fraction is None else \
        f'out of distribution in {fraction:.0%} of ticks; above 1 every decision is ABSTAIN'
    if fraction is not None and fraction > MOST and next_step:
        title = '\n'.join([title, *textwrap.wrap(next_step, 150)])
    axes.set_title(title, fontsize=9)


def _draw_scores(
    axes: Any, times: np.ndarray, rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Draw the scores of ticks over time; return the decisions, in the order they came."""
    for key, colour, line in (('probability', 'tab:green', '-'), ('threshold', 'tab:green', '--'),
                              ('failure', 'tab:red', '-'), ('progress', 'tab:gray', '-')):
        values = [float(row[key]) for row in rows]
        if not all(map(math.isnan, values)):
            axes.plot(times, values, line, color=colour, linewidth=1.0,
                      label='success' if key == 'probability' else key)
    return list(dict.fromkeys(
        f'{row["decision"]} ({row["status"]})' for row in rows if row['decision']))
