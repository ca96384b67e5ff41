# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The page of `hralign success teach`: what the node will do, how sure that is, what to record."""

import base64
from collections.abc import Sequence
from io import BytesIO
import json
from pathlib import Path
from typing import Any

from hralign_ros.calibration.attempt_decisions import DWELL, RateRow, Scored
from hralign_ros.calibration.conformal import nonconformity_score
from hralign_ros.calibration.taught_task import TaughtTask, usual_row, verdict
from hralign_ros.calibration.teach import Taught
from hralign_ros.data.manifest import DataError
from hralign_ros.data.token_features import episode_videos, open_views
import jinja2
from matplotlib.figure import Figure
import numpy as np

PAGE, FIGURES = 'teach.html', 'teach.json'
_TEMPLATE = Path(__file__).with_name('teach.html.j2')
# Attempts shown that are told wrong, and frames of each.
_SHOWN, _FRAMES = 6, 4
_GOOD, _BAD = '#1b7f4d', '#b3362b'
# Fraction of a view's change that a proposed region holds.
_HELD = 0.9


def write_teach_page(taught: Taught, folder: Path, command: str = '') -> Path:
    """
    Write teach.html and teach.json into a folder.

    :returns: the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    regions = [_region(taught, view) for view in range(len(taught.manifest.views))]
    pages = [{
        'name': one.task.name, 'verdict': verdict(one), 'chosen': one.choice.recipe.name,
        'table': [_line(row) for row in one.table], 'usual': usual_row(one),
        'curves': _image(_curves(one)),
        'wrong': [{'title': title, 'image': _image(figure)}
                  for title, figure in _wrong(taught, one)],
        'losses': [(name, loss) for name, loss in _best(one).items()],
    } for one in taught.tasks]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(_TEMPLATE.read_text('utf-8')).render(
        taught=taught, tasks=pages, command=command, regions=[r for r in regions if r],
        changes=_image(_changes(taught, regions)),
        options=' '.join(f'--region {r["option"]}' for r in regions if r))
    (folder / FIGURES).write_text(json.dumps(figures(taught, command), indent=1) + '\n', 'utf-8')
    target = folder / PAGE
    target.write_text(page, 'utf-8')
    return target


def figures(taught: Taught, command: str = '') -> dict[str, Any]:
    """Give the figures of the page as plain values."""
    return {
        'command': command, 'robot': taught.robot, 'out_of_distribution_rate': taught.ood_rate,
        'encode_seconds': round(taught.seconds[0], 1), 'fit_seconds': round(taught.seconds[1], 1),
        'tasks': [{
            'task_id': one.task.task_id, 'name': one.task.name, 'verdict': verdict(one),
            'chosen': one.choice.recipe.name, 'failed': one.calibration.failed,
            'succeeded': one.calibration.succeeded,
            'evidence': vars(one.calibration.evidence) if one.calibration.evidence else None,
            'rates': [{**vars(row), 'delays_s': [round(d, 2) for d in row.delays_s]}
                      for row in one.table],
        } for one in taught.tasks]}


def _line(row: RateRow) -> dict[str, Any]:
    soon = sum(delay <= 1.0 for delay in row.delays_s) if row.delays_s else ''
    return {
        'rate': row.rate, 'sure': row.sure, 'threshold': row.threshold,
        'decided': f'{row.decided} of {row.successes}', 'soon': soon,
        'missed': row.successes - row.decided - row.early, 'early': row.early,
        'false': f'{row.false} of {row.failures}',
        'delay': f'{np.median(row.delays_s):.1f}' if row.delays_s else '',
        'stopped': f'{row.stopped} of {row.failures}', 'wrongly': row.wrongly_stopped}


def _best(one: TaughtTask) -> dict[str, float]:
    losses: dict[str, float] = {}
    for (name, _), loss in one.choice.badness.items():
        losses[name] = min(loss, losses.get(name, np.inf))
    return losses


def _curves(one: TaughtTask) -> Figure:
    """Draw the probability of every attempt over its time."""
    figure = Figure(figsize=(9, 3.2), layout='constrained')
    row = usual_row(one)
    for axes, good, title in zip(
            figure.subplots(1, 2, sharey=True), (True, False),
            ('attempts that succeed', 'attempts that fail'), strict=True):
        for scored in one.scored:
            a = scored.attempt
            if a.succeeds != good:
                continue
            axes.plot(a.time_s, scored.probability, color=_GOOD if good else _BAD, alpha=0.5,
                      linewidth=1)
            if good and (a.done == 1).any():
                at = int((a.done == 1).argmax())
                axes.plot(a.time_s[at], scored.probability[at], 'o', color=_GOOD, markersize=3)
        if row:
            axes.axhline(row.threshold, color='black', linewidth=1, linestyle='--')
        axes.set(title=title, xlabel='time since the start [s]', ylim=(-0.02, 1.02))
    figure.axes[0].set_ylabel('probability of success')
    return figure


def _wrong(taught: Taught, one: TaughtTask) -> list[tuple[str, Figure]]:
    """Show the attempts that are told wrong most, or least well where none is told wrong."""
    row = usual_row(one)
    limit = row.threshold if row else 0.5

    def badness(scored: Scored) -> float:
        # What it holds as long as a decision takes.
        a, p = scored.attempt, scored.probability
        part = a.done == 1 if a.succeeds else np.ones(len(p), np.bool_)
        held = nonconformity_score(a.stamps[part], p[part], DWELL)
        return limit - held if a.succeeds else held - limit

    worst = sorted(one.scored, key=badness, reverse=True)[:_SHOWN]
    shown = []
    for scored in worst:
        a = scored.attempt
        said = ('is told wrong' if badness(scored) > 0 else 'is told right, but only just'
                if badness(scored) > -0.2 else 'is told right')
        kind = 'succeeds' if a.succeeds else 'fails'
        figure = _strip(taught, scored)
        if figure is not None:
            shown.append((f'{a.episode.episode_id} {kind}, and {said}: probability at most '
                          f'{scored.probability.max():.2f}', figure))
    return shown


def _strip(taught: Taught, scored: Scored) -> Figure | None:
    """Draw some frames of an attempt, a row for each view; None: its videos are gone."""
    a = scored.attempt
    last = len(a.time_s) - 1
    rows = sorted({0, last // 2, int(scored.probability.argmax()), last})
    try:
        views = open_views(episode_videos(a.episode), taught.data.folder)
        frames = {view: video.read(video.stamps[np.minimum(np.searchsorted(
            video.times - video.times[0], a.time_s[rows] - 1e-3), len(video.stamps) - 1)])
            for view, video in views.items()}
    except DataError:
        return None
    figure = Figure(figsize=(2.2 * _FRAMES, 1.9 * len(frames)), layout='constrained')
    axes = figure.subplots(len(frames), _FRAMES, squeeze=False)
    for line, (view, images) in zip(axes, frames.items(), strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, image, at in zip(line, images, rows, strict=False):
            axis.imshow(image)
            axis.set_title(f'{view}, {a.time_s[at]:.1f} s: {scored.probability[at]:.2f}',
                           fontsize=7)
    return figure


def _region(taught: Taught, view: int) -> dict[str, Any] | None:
    """Propose the smallest box around most of what changes in a view; None: nothing is seen."""
    rows, columns = taught.manifest.tokens.grid
    change = taught.proposed[view].reshape(rows, columns)
    if change.max() <= 0.0:
        return None
    box = [0, 0, columns, rows]

    def inside(some: Sequence[int]) -> float:
        return float(change[some[1]:some[3], some[0]:some[2]].sum())

    # Take off the side that holds least, as long as enough is left.
    while True:
        tries = [[*box[:side], box[side] + (1 if side < 2 else -1), *box[side + 1:]]
                 for side in range(4)]
        tries = [t for t in tries if t[0] < t[2] and t[1] < t[3]
                 and inside(t) >= _HELD * float(change.sum())]
        if not tries:
            break
        box = max(tries, key=inside)
    edges = [box[0] / columns, box[1] / rows, box[2] / columns, box[3] / rows]
    name = taught.manifest.views[view]
    return {'view': name, 'edges': edges,
            'option': f'{name}=' + ','.join(f'{edge:.2f}' for edge in edges)}


def _changes(taught: Taught, regions: Sequence[dict[str, Any] | None]) -> Figure:
    """Draw how much each part of the images changes, on a frame, with the proposed regions."""
    episode = taught.data.episodes[0]
    videos = open_views(episode_videos(episode), taught.data.folder)
    shown = [r for r in regions if r and r['view'] in videos]
    figure = Figure(figsize=(4.2 * max(1, len(shown)), 3.4), layout='constrained')
    for axis, region in zip(figure.subplots(1, max(1, len(shown)), squeeze=False)[0], shown,
                            strict=False):
        image = videos[region['view']].read(videos[region['view']].stamps[-1:])[0]
        view = taught.manifest.views.index(region['view'])
        height, width = image.shape[:2]
        axis.imshow(image)
        axis.imshow(taught.proposed[view].reshape(taught.manifest.tokens.grid), cmap='magma',
                    alpha=0.45, extent=(0, width, height, 0), interpolation='bilinear')
        left, top, right, bottom = (edge * side for edge, side in zip(
            region['edges'], (width, height, width, height), strict=True))
        axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color='cyan')
        axis.set_title(region['view'])
        axis.set_axis_off()
    return figure


def _image(figure: Figure) -> str:
    """Turn a figure into the address of an image."""
    content = BytesIO()
    figure.savefig(content, format='png', dpi=110)
    return f'data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}'
