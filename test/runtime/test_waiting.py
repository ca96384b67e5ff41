# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When a wait for a decision is over, told by a clock of the test's own."""

from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.tasks import Calibration, Task
from hralign_ros.runtime.text import TaskFeatures
from hralign_ros.runtime.waiting import Outcome, refusal, Wait
import numpy as np
import pytest

SECOND = 1_000_000_000
PATIENCE = 5 * SECOND
VIEWS = ('left', 'right')


def wait(time_out=0, now=SECOND):
    return Wait(7, time_out=time_out, now=now, elapsed=0)


def test_decisions_end_it():
    """What is decided first stays; a running attempt ends nothing."""
    one = wait()
    assert not one.result(Status.OK, Decision.RUNNING, SECOND) and one.ending is None
    assert one.result(Status.OK, Decision.SUCCESS, SECOND)
    assert not one.result(Status.OK, Decision.FAILURE, SECOND)
    assert one.ending.outcome == Outcome.SUCCESS
    other = wait()
    assert other.result(Status.VIEW_MISSING, Decision.FAILURE, SECOND)
    assert other.ending.outcome == Outcome.FAILURE


@pytest.mark.parametrize(('status', 'said'), [
    (None, 'none came'), (Status.STALE_VIEW | Status.VIEW_MISSING, 'no required camera'),
    (Status.OUT_OF_DISTRIBUTION, 'unlike'), (Status.OK, 'no threshold')])
def test_results_without_a_decision_end_it(status, said):
    """The reason of the last result is told."""
    one = wait()
    if status is not None:
        one.result(status, Decision.ABSTAIN, 4 * SECOND)
    assert not one.check(SECOND, PATIENCE - 1, PATIENCE)
    assert one.check(SECOND, PATIENCE, PATIENCE)
    assert one.ending.outcome == Outcome.CANNOT_TELL and said in one.ending.message


def test_patience_begins_anew_with_each_good_result():
    """A camera that comes and goes does not end it, as long as it comes again in time."""
    one = wait()
    for second in range(0, 40, 4):
        one.result(Status.STALE_VIEW, Decision.ABSTAIN, second * SECOND)
        assert not one.check(SECOND, (second + 3) * SECOND, PATIENCE)
        one.result(Status.OK, Decision.RUNNING, (second + 3) * SECOND)
    assert not one.check(SECOND, 1000 * SECOND, PATIENCE), 'the last one could be decided on'


def test_the_time_out_is_of_the_clock_of_stamps():
    """A slow simulation has its own time; before /clock comes it is 0, and does not count."""
    one = wait(time_out=2 * SECOND, now=0)
    one.result(Status.OK, Decision.RUNNING, 0)
    assert not one.check(100 * SECOND, SECOND, PATIENCE)
    assert not one.check(102 * SECOND - 1, 900 * SECOND, PATIENCE)
    assert one.since(102 * SECOND) == pytest.approx(2.0)
    assert one.check(102 * SECOND, 901 * SECOND, PATIENCE)
    assert one.ending.outcome == Outcome.TIMED_OUT


def features(calibrations=(), known=True, text='open the drawer'):
    task = Task('drawer', 'open the drawer', calibrations=tuple(calibrations))
    return TaskFeatures(text, task, known, np.zeros((1, 8), np.float32))


def calibration(*rates, views=VIEWS):
    return Calibration(views, 'platt', {'scale': 1.0, 'shift': 0.0}, dict.fromkeys(rates, 0.8))


@pytest.mark.parametrize(('task', 'rules', 'alpha', 'said'), [
    (features([calibration(0.05, 0.1)]), DecisionRules(), 0.0, ''),
    (features([calibration(0.05, 0.1)]), DecisionRules(), float(np.float32(0.1)), ''),
    (features([calibration(0.05, 0.1)]), DecisionRules(), 0.01, 'has thresholds for 0.05, 0.1'),
    (features([calibration(0.05)]), DecisionRules(alpha=0.1), 0.0, "node's alpha is 0.1"),
    (features([calibration(0.05)]), DecisionRules(alpha=0.1), 0.05, ''),
    (features([calibration(0.05)], known=False), DecisionRules(), 0.0, 'does not know'),
    (features([calibration(0.05)], known=False), DecisionRules(allow_unknown_tasks=True), 0.0, ''),
    (features([calibration()]), DecisionRules(), 0.0, 'No threshold is calibrated'),
    # One camera alone suffices: with the other gone, there may be a decision.
    (features([calibration(), calibration(0.1, views=('left',))]), DecisionRules(), 0.0, ''),
    (features(), DecisionRules(), 0.0, 'Not calibrated'),
    (features([calibration(0.05)], text=''), DecisionRules(), 0.0, 'no instruction is set')])
def test_who_waits_in_vain_is_told(task, rules, alpha, said):
    """A wait that cannot end with a decision does not begin."""
    told = refusal(task, VIEWS, rules, alpha)
    assert (said in told) if said else not told
