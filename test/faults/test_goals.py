# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Faults in the middle of a goal of ~/wait_for_success: whoever waits is never left alone."""

from collections.abc import Callable
from pathlib import Path
import signal
import time
from typing import Any

from lifecycle_msgs.msg import Transition
import pytest
from support.goals import ABORTED, CANNOT_TELL, Goal, Planner, SUCCEEDED, SUCCESS
from support.harness import Harness
from support.robot import Cameras, good, Row, TASK

PATIENCE = 'wait_for_success.give_up_after_s'


class Stage:
    """A node that never decides, whose cameras stream, and a goal that waits for it."""

    def __init__(self, harness: Harness, bundle: Path) -> None:
        self.harness, self.bundle = harness, bundle
        self.cameras = Cameras(harness)
        self.start(dwell_s='60.0')
        self.cameras.start()
        self.planner = Planner(harness)
        self.goal: Goal = self.planner.send(TASK)
        harness.wait(lambda: self.goal.feedback, 'feedback', self.process)

    def start(self, **parameters: str) -> None:
        """Start the node."""
        self.harness.infos.clear()
        self.process = self.harness.start_active(
            bundle=str(self.bundle), threads='1',
            # However slow this machine is.
            wait_for_success__give_up_after_s='600.0', **parameters)

    def told(self, said: str) -> tuple[float, str]:
        """Wait for an answer that says so; tell after how long it came [s], and the message."""
        began = time.monotonic()
        status, result = self.goal.answer()
        assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
        assert said in result.message
        return time.monotonic() - began, result.message

    def close(self) -> None:
        """End the cameras, then the node; that must end well."""
        self.cameras.end()
        self.planner.close()
        assert self.process.stop() == 0, self.process.output
        assert 'Traceback' not in self.process.output, self.process.output


@pytest.fixture
def stage(harness: Harness, bundle: Path) -> Any:
    """Give a goal that waits."""
    made = Stage(harness, bundle)
    yield made
    made.close()


def test_both_cameras_are_lost(stage: Stage, rows: list[Row]) -> None:
    """After give_up_after_s the goal ends with the reason; the next one is served."""
    assert stage.harness.set_parameters(**{PATIENCE: 1.0}).successful
    stage.cameras.sends.update(dict.fromkeys(stage.cameras.sends, lambda shot: []))
    took, message = stage.told('no required camera is fresh')
    stage.cameras.sends.update(dict.fromkeys(stage.cameras.sends, good))
    assert stage.harness.set_parameters(dwell_s=0.3, **{PATIENCE: 600.0}).successful
    status, result = stage.planner.ask(TASK)
    assert (status, result.outcome) == (SUCCEEDED, SUCCESS)
    rows.append(Row('both cameras are lost while a goal waits, give_up_after_s 1',
                    f'ends the goal with CANNOT_TELL, {took:.1f} s after the last image',
                    f'result: {message}'[:160]))


def test_deactivated(stage: Stage, rows: list[Row]) -> None:
    """The goal is answered; while inactive another one is refused, and after it one is served."""
    assert stage.harness.transition(Transition.TRANSITION_DEACTIVATE)
    took, message = stage.told('deactivated or shut down')
    status, result = stage.planner.ask(TASK)
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'activate it first' in result.message
    assert stage.harness.transition(Transition.TRANSITION_ACTIVATE)
    assert stage.harness.set_parameters(dwell_s=0.3).successful
    assert stage.planner.ask(TASK)[0] == SUCCEEDED
    rows.append(Row('deactivated while a goal waits', 'ends the goal with CANNOT_TELL',
                    f'result: {message}'))


@pytest.mark.parametrize('transition', [
    Transition.TRANSITION_ACTIVE_SHUTDOWN, signal.SIGINT, signal.SIGTERM])
def test_shut_down(stage: Stage, rows: list[Row], transition: int) -> None:
    """The goal is answered before the node goes, and the process ends with code 0."""
    if isinstance(transition, signal.Signals):
        stage.process.process.send_signal(transition)
        _, message = stage.told('shut down')
    else:
        assert stage.harness.transition(transition)
        _, message = stage.told('deactivated or shut down')
    assert stage.process.stop() == 0
    name = getattr(transition, 'name', 'the transition shutdown')
    rows.append(Row(f'{name} while a goal waits', 'ends the goal with CANNOT_TELL, then itself '
                    'with code 0', f'result: {message}'))


@pytest.mark.parametrize('end', [signal.SIGINT, signal.SIGKILL])
def test_restarted(stage: Stage, rows: list[Row], end: signal.Signals) -> None:
    """
    The node that comes back serves the next goal of the same client.

    A node that was killed answers nobody: the client sees that the server has gone, or gives up
    on its own.
    """
    stage.process.process.send_signal(end)
    if end == signal.SIGINT:
        stage.told('shut down')
    stage.process.wait()
    stage.start()
    status, result = stage.planner.ask(TASK)
    assert (status, result.outcome) == (SUCCEEDED, SUCCESS)
    assert stage.goal.over is (end == signal.SIGINT)
    answer = 'ends the goal with CANNOT_TELL' if end == signal.SIGINT \
        else 'no answer comes, as the process is gone'
    rows.append(Row(f'{end.name} while a goal waits, and started again',
                    f'{answer}; serves the next goal', ''))


def test_before_it_is_active(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """Unconfigured and inactive the node answers, and says what to do first."""
    process = harness.start(bundle=str(bundle))
    planner = Planner(harness)
    then: tuple[Callable[[], bool], ...] = (
        lambda: harness.transition(Transition.TRANSITION_CONFIGURE), lambda: True)
    for step in then:
        status, result = planner.ask(TASK)
        assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
        assert 'activate it first' in result.message
        assert step()
    planner.close()
    assert process.stop() == 0 and 'Traceback' not in process.output, process.output
    rows.append(Row('a goal for a node that is not active', 'answers at once with CANNOT_TELL',
                    f'result: {result.message}'))


def test_refused_right_before_the_end(harness: Harness, bundle: Path) -> None:
    """
    Guards an answer that was given and not fetched yet when SIGINT came.

    The node ended at once as no goal was waiting, and the client of the one just refused hung.
    """
    process = harness.start_active(bundle=str(bundle), threads='1')
    planner = Planner(harness)
    goal = planner.send('fold the shirt')
    process.process.send_signal(signal.SIGINT)
    status, result = goal.answer()
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'does not know' in result.message
    planner.close()
    assert process.stop() == 0 and 'Traceback' not in process.output, process.output
