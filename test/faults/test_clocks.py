# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Simulated time that starts over, stands still or leaps."""

from collections.abc import Iterator
from pathlib import Path
import time

from hralign_msgs.msg import TaskEmbedding
import pytest
from rosgraph_msgs.msg import Clock
from support.harness import episode_of, Harness, noise, stamp_of, VIEWS
from support.robot import machine, Row, SECOND

STEP = 50_000_000


class Bag:
    """A bag that is played: /clock and both cameras, in steps."""

    def __init__(self, harness: Harness, bundle: Path) -> None:
        machine()
        self.harness = harness
        self.process = harness.start(
            autostart='true', use_sim_time='true', bundle=str(bundle), threads='1')
        harness.wait(lambda: harness.infos, 'EncoderInfo', self.process)
        self.clock = harness.node.create_publisher(Clock, '/clock', 10)
        self.time = 1000 * SECOND
        self.index = 0

    def tick(self) -> None:
        """Tell the time."""
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.time, SECOND)
        self.clock.publish(message)
        self.harness.spin(0.02)

    def show(self) -> None:
        """Show both cameras, as of now."""
        self.index += 1
        for row, view in enumerate(VIEWS):
            self.harness.send(view, noise(2 * self.index + row), self.time)
        self.harness.spin(0.03)

    def play_until_embedded(self, since: int) -> tuple[TaskEmbedding, float]:
        """Play on until a set from then on is embedded; tell how long that took [s]."""
        began = self.harness.now()

        def seen() -> TaskEmbedding | None:
            self.time += STEP
            self.tick()
            self.show()
            # One of the time before a jump may still be on its way.
            return next((m for m in self.harness.embeddings
                         if since <= stamp_of(m) < since + 60 * SECOND), None)

        message = self.harness.wait(seen, 'an embedding in simulated time', self.process)
        return message, (self.harness.now() - began) / SECOND


@pytest.fixture
def bag(harness: Harness, bundle: Path) -> Iterator[Bag]:
    """Give a bag that is being played."""
    made = Bag(harness, bundle)
    made.play_until_embedded(made.time)
    yield made
    assert made.process.stop() == 0
    assert 'Traceback' not in made.process.output


def test_a_bag_that_starts_over(bag: Bag, rows: list[Row]) -> None:
    """/clock goes back: a new episode, and the next set is embedded; three times over."""
    worst, since = 0.0, time.monotonic()
    for start in (500, 400, 300):
        before = episode_of(bag.harness.embeddings[-1])
        bag.harness.embeddings.clear()
        bag.time = start * SECOND
        message, took = bag.play_until_embedded(bag.time)
        assert episode_of(message) > before
        worst = max(worst, took)
    assert 'jumped back' in bag.process.output
    busy = machine().busy(since)
    rows.append(Row('/clock goes back (a bag that loops)', 'begins a new episode',
                    'log: the clock jumped back or changed: a new episode begins', worst,
                    busy=busy))
    assert worst < 1.0 or busy


def test_a_clock_that_leaps_ahead(bag: Bag, rows: list[Row]) -> None:
    """/clock leaps by an hour: frames of the new time are embedded, in the same episode."""
    before = episode_of(bag.harness.embeddings[-1])
    bag.harness.embeddings.clear()
    bag.time += 3600 * SECOND
    since = time.monotonic()
    message, took = bag.play_until_embedded(bag.time)
    assert episode_of(message) == before
    busy = machine().busy(since)
    rows.append(Row('/clock leaps an hour ahead', 'continues', '', took, busy=busy))
    assert took < 1.0 or busy


def test_a_clock_that_stands_still(bag: Bag, rows: list[Row]) -> None:
    """
    /clock stops and its frames with it: STALE all the same, as real time goes on.

    By simulated time the last frame stays young for ever.
    """
    harness = bag.harness
    harness.successes.clear()
    result = harness.wait(
        lambda: next((s for s in harness.successes if s.status & s.STATUS_STALE_VIEW), None),
        'STALE', bag.process)
    assert result.decision == result.DECISION_ABSTAIN
    harness.embeddings.clear()
    since = time.monotonic()
    _, took = bag.play_until_embedded(bag.time)
    busy = machine().busy(since)
    rows.append(Row('/clock stops', 'no embedding; ~/success says STALE and ABSTAIN',
                    'camera wrist ERROR: the newest frame is old', took, busy=busy))
    assert took < 1.0 or busy


def test_no_clock_at_all(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """Frames of today are an age ahead of a clock that nobody sets, and that is what it says."""
    process = harness.start(
        autostart='true', use_sim_time='true', bundle=str(bundle), threads='1')
    harness.wait(lambda: harness.infos, 'EncoderInfo', process)

    def said() -> str:
        for row, view in enumerate(VIEWS):
            harness.send(view, noise(row), harness.now())
        harness.spin(0.05)
        status = harness.statuses.get('/encoder: camera wrist')
        return status.message if status and 'ahead of the clock' in status.message else ''

    text = harness.wait(said, 'the diagnosis', process)
    assert 'use_sim_time' in text
    assert not harness.embeddings
    rows.append(Row('use_sim_time, and nobody publishes /clock', 'no embedding',
                    f'camera wrist ERROR: {text}'))
    assert process.stop() == 0
