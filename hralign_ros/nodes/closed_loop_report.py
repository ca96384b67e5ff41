# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What came of attempts over ROS: in sentences, as one picture of all, and as a moving one of one.

matplotlib and Pillow are imported when something is drawn.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math
from pathlib import Path
from typing import Any

import cv2
from hralign_ros.nodes.attempt_driver import LINGER_S, Seen, VIEWS
from hralign_ros.runtime.images import Image
import numpy as np

Row = Mapping[str, Any]
# A success that is decided so long after the truth, or before it, is on time [s].
ON_TIME_S = 1.0
_COLUMNS = 4
_COLOURS = {'success': (0, 140, 60), 'failure': (200, 60, 30), '': (90, 90, 90)}
_STRIP = 84
_RATE_HZ = 10


@dataclass
class Picture:
    """
    What is drawn of an attempt.

    :param row: of attempts.jsonl.
    :param curve: seconds and probability, NaN where there was none.
    :param frames: seconds and the images of VIEWS beside each other, uint8 [H, W, 3] RGB.
    """

    row: Row
    curve: list[tuple[float, float]] = field(default_factory=list)
    frames: list[tuple[float, Image]] = field(default_factory=list)

    @classmethod
    def of(cls, row: Row, seen: Seen) -> 'Picture':
        """Take what is needed of what was seen."""
        start = seen.truths[0][0] if seen.truths else 0
        views = [dict(seen.images(view)) for view in VIEWS]
        both = sorted(set.intersection(*map(set, views)))
        return cls(row, [((stamp - start) * 1e-9, probability)
                         for stamp, _, probability, _ in seen.ticks],
                   [((stamp - start) * 1e-9, np.hstack([one[stamp] for one in views]))
                    for stamp in both])


def sentences(rows: Sequence[Row]) -> list[str]:
    """Say in numbers what came of attempts."""
    if not rows:
        return ['no attempts']
    total = summary(rows)
    waited = total['image_to_command_p50_s'], total['image_to_command_p99_s']
    return [
        f'accomplished {total["successes"]} of {total["attempts"]}',
        f'SUCCESS within {ON_TIME_S:g} s of the truth {total["on_time"]}, later '
        f'{total["late"]}, missed {total["missed"]}; early {total["early"]}; in an attempt that '
        f'did not accomplish it {total["false"]} of {total["attempts"] - total["successes"]}; '
        f'FAILURE {total["failures"]}',
        f'{total["out_of_distribution"]:.0%} of ticks out of distribution',
        f'image to command p50 {waited[0] * 1e3:.0f} ms, p99 {waited[1] * 1e3:.0f} ms; '
        f'{total["commands"]} commands, '
        f'{total["commands_on_old_embedding"]} on an embedding older than allowed',
        'periods without a command: ' + (', '.join(
            f'{name} {count}' for name, count in sorted(total['withheld'].items())) or 'none')]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Count over attempts."""
    waited = [one for row in rows for one in row['image_to_command_s']] or [math.nan]
    withheld: Counter[str] = Counter()
    for row in rows:
        withheld.update(row['withheld'])
    judged = Counter(judge(row) for row in rows)
    return {
        'attempts': len(rows), 'successes': sum(row['success'] for row in rows),
        **{name: judged[name] for name in ('on_time', 'late', 'missed', 'early', 'false')},
        'failures': sum(row['decision'] == 'failure' for row in rows),
        'out_of_distribution': sum(row['out_of_distribution'] for row in rows)
        / max(sum(row['ticks'] for row in rows), 1),
        'commands': sum(row['commands'] for row in rows),
        'commands_on_old_embedding': sum(row['commands_on_old_embedding'] for row in rows),
        'image_to_command_p50_s': float(np.percentile(waited, 50)),
        'image_to_command_p99_s': float(np.percentile(waited, 99)),
        'withheld': dict(withheld)}


def judge(row: Row) -> str:
    """
    Say what a SUCCESS decision, or none, was worth.

    :returns: on_time, late, missed (the task was accomplished); early (before it was); false (it
        was not, or not in time, also where an early decision ended the attempt); '': nothing was
        decided, rightly.
    """
    truth = row['accomplished_s'] if row['success'] else None
    if row['decision'] != 'success':
        return 'missed' if truth is not None else ''
    if truth is None:
        return 'false'
    after = row['decided_s'] - truth
    return 'early' if after < 0.0 else 'on_time' if after <= ON_TIME_S else 'late'


def draw_report(pictures: Sequence[Picture], task: str, path: Path) -> None:
    """
    Draw all attempts: the last image in third person, and the probability below.

    :raises ImportError: matplotlib is not installed.
    """
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    lines = math.ceil(len(pictures) / _COLUMNS)
    figure, axes = pyplot.subplots(
        2 * lines, _COLUMNS, figsize=(3.2 * _COLUMNS, 3.5 * lines + 0.6), squeeze=False,
        height_ratios=[2.4, 1.0] * lines, layout='constrained')
    for axis in axes.ravel():
        axis.set_axis_off()
    for number, picture in enumerate(pictures):
        row = picture.row
        above, below = (axes[2 * (number // _COLUMNS) + place, number % _COLUMNS]
                        for place in (0, 1))
        colour = np.array(_COLOURS['success' if row['success'] else 'failure']) / 255.0
        if picture.frames:
            third = picture.frames[-1][1]
            above.imshow(third[:, :third.shape[1] // 2])
        above.set_title(f'{row["seed"]}: {_outcome(row)}', fontsize=8, color=colour)
        below.set_axis_on()
        below.set_ylim(-0.03, 1.03)
        below.tick_params(labelsize=6)
        if picture.curve:
            below.plot(*zip(*picture.curve, strict=True), color='0.25', linewidth=1)
        for name, style, mark in (('accomplished_s', '-', 'success'),
                                  ('decided_s', ':', row['decision'])):
            if row[name] is not None:
                below.axvline(row[name], linestyle=style, linewidth=1.5,
                              color=np.array(_COLOURS[mark]) / 255.0)
    figure.suptitle(f"'{task}'. Below: probability over seconds; solid: the truth, dotted: "
                    'what the encoder decided', fontsize=9)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _outcome(row: Row) -> str:
    worth = {'on_time': 'SUCCESS on time', 'late': 'SUCCESS late', 'missed': 'no SUCCESS',
             'early': 'SUCCESS too early', 'false': 'false SUCCESS', '': 'no SUCCESS'}[judge(row)]
    worth = 'FAILURE' if row['decision'] == 'failure' else worth
    return ('accomplished, ' if row['success'] else 'not accomplished, ') + worth


def animate(picture: Picture, task: str, path: Path) -> None:
    """
    Write an animated WebP of an attempt: both cameras, the probability and the decision.

    :raises ImportError: Pillow is not installed.
    """
    from PIL import Image as Pillow

    if not picture.frames:
        return
    frames = [Pillow.fromarray(_frame(picture, task, seconds, image))
              for seconds, image in picture.frames]
    # The last one is shown a while longer.
    times = [1000 // _RATE_HZ] * (len(frames) - 1) + [int(1000 * LINGER_S)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0,
                   quality=70, method=4)


def _frame(picture: Picture, task: str, seconds: float, image: Image) -> Image:
    """Draw one image of the animation."""
    row, width = picture.row, image.shape[1]
    strip = np.full((_STRIP, width, 3), 255, np.uint8)
    end = max(picture.frames[-1][0], 1e-3)
    left, right, top, bottom = 8, width - 8, 26, _STRIP - 8

    def place(when: float, value: float) -> tuple[int, int]:
        return (round(left + (right - left) * when / end),
                round(bottom - (bottom - top) * value))

    cv2.rectangle(strip, (left, top), (right, bottom), (215, 215, 215), 1)
    points = [place(when, value) for when, value in picture.curve
              if when <= seconds and not math.isnan(value)]
    for one, other in zip(points, points[1:], strict=False):
        cv2.line(strip, one, other, (40, 90, 200), 2, cv2.LINE_AA)
    decided = row['decided_s'] is not None and row['decided_s'] <= seconds
    there = row['accomplished_s'] is not None and row['accomplished_s'] <= seconds
    if there:
        x = place(row['accomplished_s'], 0.0)[0]
        cv2.line(strip, (x, top), (x, bottom), _COLOURS['success'], 1)
    newest = next((value for when, value in reversed(picture.curve) if when <= seconds), math.nan)
    said = row['decision'].upper() if decided else 'RUNNING' if not math.isnan(newest) else ''
    text = f"'{task}'  {seconds:4.1f} s" + (
        '' if math.isnan(newest) else f'  probability {newest:.2f}')
    cv2.putText(strip, text, (left, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1,
                cv2.LINE_AA)
    cv2.putText(strip, said, (width - 86, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                _COLOURS[row['decision'] if decided else ''], 1, cv2.LINE_AA)
    return np.vstack([image, strip])
