# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""~/wait_for_success as a task planner meets it: every goal gets an answer, and a true one."""

from collections.abc import Iterator
import math
import sys
from typing import Any

from hralign_ros.runtime import Decision
import pytest
from support.goals import (
    ABORTED,
    CANCELED,
    CANNOT_TELL,
    FAILURE,
    Planner,
    SUCCEEDED,
    SUCCESS,
    TIMED_OUT,
)
from support.harness import episode_of, Harness, stamp_of, VIEWS
from support.robot import Cameras
from support.tiny_bundle import write_tiny_bundle

CUP = 'pick up the cup'
# While the dwell time is so long, the task is never accomplished.
NEVER, SOON = 60.0, 0.3


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator['Stage']:
    """Give a node whose cameras stream, for all tests of this file."""
    bundle = tmp_path_factory.mktemp('bundle')
    # These two, however slow this machine is.
    write_tiny_bundle(bundle, VIEWS, ood_threshold=1e6)
    harness = Harness(tmp_path_factory.mktemp('waiting'))
    made = Stage(harness, bundle=str(bundle), wait_for_success__give_up_after_s='600.0')
    yield made
    made.cameras.end()
    assert made.process.stop() == 0, made.process.output
    assert 'Traceback' not in made.process.output, made.process.output
    harness.close()


class Stage:
    """The node, its cameras and a planner."""

    def __init__(self, harness: Harness, **parameters: str) -> None:
        self.harness = harness
        self.process = harness.start_active(task=f"'{CUP}'", **parameters)
        self.cameras = Cameras(harness)
        self.cameras.start()
        self.planner = Planner(harness)

    def decides(self, dwell: float, **others: float) -> None:
        """Set after how long SUCCESS is decided, and begin anew."""
        values = {'time_out_s': 0.0, 'alpha': 0.0, 'dwell_s': dwell, **others}
        assert self.harness.set_parameters(**values).successful
        self.harness.set_task(CUP)

    def result(self, decision: Decision) -> Any:
        """Wait for a result of the episode that is running now."""
        began = self.harness.now()
        return self.harness.wait(lambda: next(
            (m for m in self.harness.successes[-3:]
             if m.decision == decision and stamp_of(m) > began), None), decision.name)


def test_success(stage: Stage) -> None:
    """A goal begins its episode, tells how it goes, and ends SUCCEEDED when that is decided."""
    stage.decides(NEVER)
    before = episode_of(stage.result(Decision.RUNNING))
    goal = stage.planner.send(f'  {CUP} ')
    stage.harness.wait(lambda: any(
        one.probability_valid and one.progress_valid for one in goal.feedback), 'feedback')
    assert stage.harness.set_parameters(dwell_s=SOON).successful
    status, result = goal.answer()
    assert (status, result.outcome) == (SUCCEEDED, SUCCESS), result.message
    assert episode_of(result) > before
    assert result.probability_valid and result.probability > 0.5
    decided = stage.harness.wait(lambda: next(
        (m for m in stage.harness.successes if m.header.stamp == result.stamp), None), 'it')
    assert decided.decision == Decision.SUCCESS and decided.probability == result.probability
    assert episode_of(decided) == episode_of(result)
    first = next(m for m in stage.harness.successes if m.decision == Decision.SUCCESS
                 and episode_of(m) == episode_of(result))
    assert first.header.stamp == result.stamp, 'the result that decided'
    assert all(one.decision != Decision.FAILURE for one in goal.feedback)
    times = [one.elapsed for one in goal.feedback]
    assert times == sorted(times) and times[0] >= 0.0


def test_the_running_episode(stage: Stage) -> None:
    """Without an instruction the running episode is watched, and nothing begins."""
    stage.decides(NEVER)
    episode = episode_of(stage.result(Decision.RUNNING))
    goal = stage.planner.send()
    assert stage.harness.set_parameters(dwell_s=SOON).successful
    status, result = goal.answer()
    assert (status, result.outcome) == (SUCCEEDED, SUCCESS)
    assert episode_of(result) == episode


def test_what_was_decided_before_is_not_the_answer(stage: Stage) -> None:
    """
    Guards a planner that starts a policy and waits: the SUCCESS of the attempt before is not its.

    The policy's start is answered before the encoder has begun the episode, so a goal without an
    instruction may still meet the one before.
    """
    stage.decides(SOON)
    stage.result(Decision.SUCCESS)
    status, result = stage.planner.ask()
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'was decided before, SUCCESS' in result.message


def test_failure_is_not_succeeded(stage: Stage) -> None:
    """Guards who looks at the goal's status alone, as behaviour trees do: FAILURE is ABORTED."""
    stage.decides(NEVER, time_out_s=0.5)
    status, result = stage.planner.ask(CUP)
    assert (status, result.outcome) == (ABORTED, FAILURE)
    assert 'failed' in result.message


def test_a_time_out_ends_the_goal_alone(stage: Stage) -> None:
    """The episode goes on: the planner has waited enough, and nothing is known of the attempt."""
    stage.decides(NEVER)
    status, result = stage.planner.ask(CUP, time_out=0.5)
    assert (status, result.outcome) == (ABORTED, TIMED_OUT) and '0.5 s' in result.message
    assert episode_of(stage.result(Decision.RUNNING)) == episode_of(result)


@pytest.mark.parametrize('time_out', [sys.float_info.max, 1e-10])
def test_the_longest_and_the_shortest_time_out(stage: Stage, time_out: float) -> None:
    """
    Guards who says "for ever" by the largest float: nanoseconds of it are no number.

    The goal was taken, its episode began, and it never got an answer, not by a cancel either. One
    of less than a nanosecond was none.
    """
    stage.decides(NEVER)
    goal = stage.planner.send(CUP, time_out=time_out)
    if time_out > 1.0:
        stage.harness.wait(lambda: goal.feedback, 'feedback')
        assert goal.cancel()
    status, result = goal.answer()
    assert (status, result.outcome) == (
        (CANCELED, CANNOT_TELL) if time_out > 1.0 else (ABORTED, TIMED_OUT))


def test_cancelled(stage: Stage) -> None:
    """A cancel is taken and answered; the episode goes on, and the next goal is served."""
    stage.decides(NEVER)
    goal = stage.planner.send(CUP)
    stage.harness.wait(lambda: goal.feedback, 'feedback')
    assert goal.cancel()
    status, result = goal.answer()
    assert (status, result.outcome, result.message) == (CANCELED, CANNOT_TELL, 'cancelled')
    assert episode_of(stage.result(Decision.RUNNING)) == episode_of(result)
    assert not goal.cancel(), 'it is over'
    stage.decides(SOON)
    assert stage.planner.ask(CUP)[0] == SUCCEEDED


def test_a_goal_takes_over(stage: Stage) -> None:
    """The later goal is served, and the one before is told at once."""
    stage.decides(NEVER)
    first = stage.planner.send(CUP)
    second = stage.planner.send('lift the cup')
    status, result = first.answer()
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'another goal' in result.message and not second.over
    assert stage.harness.set_parameters(dwell_s=SOON).successful
    status, after = second.answer()
    assert (status, after.outcome) == (SUCCEEDED, SUCCESS)
    assert episode_of(after) > episode_of(result)


@pytest.mark.parametrize('how', ['set_task', 'start_episode'])
def test_somebody_begins_another_episode(stage: Stage, how: str) -> None:
    """A goal never answers for an episode that is not its own."""
    stage.decides(NEVER)
    goal = stage.planner.send(CUP)
    began = stage.harness.set_task(CUP) if how == 'set_task' else stage.harness.start_episode()
    status, result = goal.answer()
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'another episode' in result.message
    assert episode_of(began) > episode_of(result)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    'a rate without a threshold': ({'alpha': 0.02}, 'cup has thresholds for 0.05, 0.1'),
    'no number': ({'alpha': math.nan}, 'thresholds for 0.05, 0.1'),
    'a time-out that is none': ({'time_out': math.nan}, '0 or more'),
    'a negative time-out': ({'time_out': -1.0}, '0 or more'),
    'a task that is not known': ({'instruction': 'fold the shirt'}, "does not know 'fold the"),
    'a task that is not taught': ({'instruction': 'open the drawer'}, 'Not calibrated'),
    'too long': ({'instruction': 'x' * 513}, 'at most 512'),
    'another rate than that of the running episode': (
        {'instruction': '', 'alpha': 0.1}, 'decided by 0.05'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_decided_is_refused(stage: Stage, case: str) -> None:
    """The answer comes at once and says why; no episode begins, and the running goal goes on."""
    fields, said = REFUSED[case]
    stage.decides(NEVER)
    running = stage.planner.send(CUP)
    status, result = stage.planner.ask(**{'instruction': CUP, **fields})
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert result.message.startswith('refused: ') and said in result.message
    assert episode_of(result) == 0
    stage.result(Decision.RUNNING)
    assert not running.over
    assert running.cancel() and running.answer()[0] == CANCELED


def test_no_instruction(stage: Stage) -> None:
    """There is nothing to wait for while no instruction is set."""
    stage.decides(SOON)
    assert stage.harness.set_task('').accepted
    status, result = stage.planner.ask()
    assert (status, result.outcome) == (ABORTED, CANNOT_TELL)
    assert 'no instruction is set' in result.message


def test_alpha_holds_for_its_episode(stage: Stage) -> None:
    """The goal's rate decides its episode, in ~/success too, and no other one."""
    stage.decides(NEVER)
    goal = stage.planner.send(CUP, alpha=0.1)
    assert stage.result(Decision.RUNNING).decision_alpha == pytest.approx(0.1)
    # That of the running episode; it takes over.
    goal = stage.planner.send(alpha=0.1)
    assert stage.harness.set_parameters(dwell_s=SOON).successful
    status, result = goal.answer()
    assert (status, result.outcome) == (SUCCEEDED, SUCCESS)
    watched = stage.result(Decision.SUCCESS)
    assert watched.decision_alpha == pytest.approx(0.1)
    stage.harness.start_episode()
    assert stage.result(Decision.SUCCESS).decision_alpha == pytest.approx(0.05)


def test_the_node_serves_others_meanwhile(stage: Stage) -> None:
    """Guards the executor's one thread: a goal that waits takes none of it."""
    stage.decides(NEVER)
    goal = stage.planner.send(CUP)
    before = len(stage.harness.successes)
    for _ in range(3):
        assert stage.harness.set_parameters(dwell_s=NEVER).successful
        assert stage.harness.state() == 'active'
    stage.harness.wait(lambda: len(stage.harness.successes) > before + 3, 'results')
    assert goal.cancel()
