# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Cameras that die, lie or babble, one after the other on one robot that had decided SUCCESS.

Each time: the node says once what is wrong and once that it is over, results are of the cameras
that can be trusted, and within a second of the fault's end they are of both again.
"""

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.harness import VIEWS
from support.robot import (
    BOTH,
    Fault,
    good,
    HEIGHT,
    Message,
    NAN,
    RAISE,
    Robot,
    Row,
    SECOND,
    Sends,
    Shot,
    suffer,
    THIRD,
    WIDTH,
    WRIST,
)

Sent = list[tuple[Message, int]]
NONE: frozenset[str] = frozenset()
WITHOUT_WRIST, WITHOUT_THIRD = frozenset({THIRD}), frozenset({WRIST})
MILLISECOND = 1_000_000


def silent(shot: Shot) -> Sent:
    """Send nothing."""
    return []


def every(count: int, sends: Sends, otherwise: Sends = good) -> Sends:
    """Send so one time in some, and otherwise the other way."""
    return lambda shot: list((otherwise if shot.index % count else sends)(shot))


def late(nanoseconds: int) -> Sends:
    """Stamp by a clock that is behind; ahead where negative."""
    return lambda shot: [(shot.message(), shot.stamp - nanoseconds)]


def stamped(stamp: int) -> Sends:
    """Send everything under one stamp."""
    return lambda shot: [(shot.message(), stamp)]


def wrong(**fields: Any) -> Sends:
    """Get fields of the message wrong."""
    return lambda shot: [(shot.message(**fields), shot.stamp)]


def starting(*pixel: int) -> Sends:
    """Show images whose first pixel is this one."""
    def send(shot: Shot) -> Sent:
        image = shot.image.copy()
        image[0, 0] = pixel
        return [(shot.message(image), shot.stamp)]

    return send


def named(frame_id: str) -> Sends:
    """Say another frame_id."""
    def send(shot: Shot) -> Sent:
        message = shot.message()
        message.header.frame_id = frame_id
        return [(message, shot.stamp)]

    return send


class Repeating:
    """Send the first message again and again, under the stamp that it had."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[Message, int]] = {}

    def __call__(self, shot: Shot) -> Sent:
        return [self.first.setdefault(shot.view, (shot.message(), shot.stamp))]


class Frozen:
    """Send the first image again and again, under new stamps."""

    def __init__(self) -> None:
        self.first: dict[str, np.ndarray] = {}

    def __call__(self, shot: Shot) -> Sent:
        return [(shot.message(self.first.setdefault(shot.view, shot.image)), shot.stamp)]


def padded(shot: Shot) -> Sent:
    """Send rows with padding behind them."""
    rows = np.pad(shot.image.reshape(HEIGHT, -1), ((0, 0), (0, 32)), constant_values=9)
    return [(shot.message(step=rows.shape[1], data=array('B', rows.tobytes())), shot.stamp)]


def larger(shot: Shot) -> Sent:
    """Send at another resolution."""
    return [(shot.message(np.repeat(np.repeat(shot.image, 3, 0), 3, 1)), shot.stamp)]


def grey(shot: Shot) -> Sent:
    """Send mono8."""
    data = np.ascontiguousarray(shot.image[..., 0])
    return [(shot.message(encoding='mono8', step=WIDTH, data=array('B', data.tobytes())),
             shot.stamp)]


def wrist(sends: Sends) -> dict[str, Sends]:
    """Change the wrist camera only."""
    return {WRIST: sends}


def both(make: Callable[[], Sends]) -> dict[str, Sends]:
    """Change both cameras, each in its own way."""
    return {view: make() for view in VIEWS}


HOUR = 3600 * SECOND
FAULTS = (
    Fault('the wrist camera stops', wrist(silent), WITHOUT_WRIST, 'the newest frame is'),
    Fault('the third-person camera stops', {THIRD: silent}, WITHOUT_THIRD, 'the newest frame is'),
    Fault('both cameras stop', both(lambda: silent), NONE, 'no required view has a fresh frame'),
    Fault('a camera slows to 1 Hz', wrist(every(10, good, silent)), WITHOUT_WRIST,
          'the newest frame is'),
    Fault('a camera drops every other frame', wrist(every(2, silent)), BOTH),
    Fault('a camera is stuck: one image, new stamps', wrist(Frozen()), WITHOUT_WRIST,
          'the same image, to the bit'),
    Fault('both cameras are stuck', both(Frozen), NONE, 'the same image, to the bit'),
    Fault('a camera repeats its stamp', wrist(Repeating()), WITHOUT_WRIST, 'the same stamp'),
    Fault('both cameras repeat their stamps', both(Repeating), NONE,
          'no required view has a fresh frame'),
    Fault('a camera goes back by 20 s', wrist(late(20 * SECOND)), WITHOUT_WRIST, 'old when they'),
    Fault('a camera jumps an hour ahead', wrist(late(-HOUR)), WITHOUT_WRIST, 'ahead of the clock'),
    Fault('both cameras jump an hour ahead', both(lambda: late(-HOUR)), NONE,
          'no required view has a fresh frame'),
    Fault('one frame in ten comes from an hour ahead', wrist(every(10, late(-HOUR))), BOTH,
          'ahead of the clock'),
    Fault('a camera sends zero stamps', wrist(stamped(0)), WITHOUT_WRIST, 'without a stamp'),
    Fault('clocks of the cameras 80 ms apart', wrist(late(80 * MILLISECOND)), WITHOUT_WRIST,
          'ms are allowed'),
    Fault('clocks of the cameras 3 s apart', wrist(late(3 * SECOND)), WITHOUT_WRIST,
          'old when they come'),
    Fault('the resolution changes', wrist(larger), BOTH),
    Fault('the encoding changes to bgr8', wrist(wrong(encoding='bgr8')), BOTH),
    Fault('the encoding changes to mono8', wrist(grey), BOTH),
    Fault('the encoding changes to one not known', wrist(wrong(encoding='colour9')),
          WITHOUT_WRIST, "encoding 'colour9'"),
    Fault('the encoding is empty', wrist(wrong(encoding='')), WITHOUT_WRIST, "encoding ''"),
    Fault('rows get padding', wrist(padded), BOTH),
    Fault('the big-endian flag is set on 8-bit pixels', wrist(wrong(is_bigendian=1)), BOTH),
    Fault('the step is shorter than a row', wrist(wrong(step=3)), WITHOUT_WRIST, 'step is 3'),
    Fault('data is truncated', wrist(wrong(data=array('B', bytes(99)))), WITHOUT_WRIST,
          '99 bytes of data'),
    Fault('data is empty', wrist(wrong(data=array('B'))), WITHOUT_WRIST, '0 bytes of data'),
    Fault('an image says it is 100,000 pixels wide', wrist(wrong(width=100_000)), WITHOUT_WRIST,
          '100000'),
    Fault('an image of no size', wrist(wrong(height=0, width=0, step=0, data=array('B'))),
          WITHOUT_WRIST, 'view wrist'),
    Fault('every other image is truncated', wrist(every(2, wrong(data=array('B', bytes(99))))),
          BOTH, '99 bytes of data'),
    Fault('both cameras send broken images',
          both(lambda: wrong(data=array('B', bytes(99)))), NONE, '99 bytes of data'),
    Fault('both cameras give one frame_id', wrist(named(f'{THIRD}_optical_frame')), BOTH,
          'the same camera remapped'),
    Fault('frame_id is empty', wrist(named('')), BOTH, 'frame_id is empty'),
    Fault('frame_id is another one', wrist(named('elbow_camera')), BOTH),
    Fault('a flood of 200 Hz', {}, BOTH, rate=200.0),
    Fault('the model returns NaN', wrist(starting(*NAN)), NONE, 'not finite'),
    Fault('the session fails in mid-run', wrist(starting(*RAISE)), NONE, 'failed'),
    Fault('the session fails every other time', wrist(every(2, starting(*RAISE))), BOTH, 'failed'),
)


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_camera_fault(robot: Robot, rows: list[Row], fault: Fault) -> None:
    """The fault is said, bounded and forgotten; see `suffer` for what that means."""
    row = suffer(robot, fault)
    rows.append(row)
    assert row.recovery_s is not None and (row.recovery_s < 1.0 or row.busy)


def test_no_stamp_was_newer_than_its_pixels(robot: Robot) -> None:
    """
    Over all of the above: pixels were at most half a second older than their stamp.

    That half second is what it takes to tell a stuck camera from a still scene. A stamp that
    the camera itself sets too late or too early cannot be told by anybody.
    """
    robot.spin(0.0)
    assert len(robot.harness.embeddings) > 100
    for view in VIEWS:
        assert robot.lag(view) < 1.0
