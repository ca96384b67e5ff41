# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From probabilities over time to decisions, as traces that can be followed by hand."""

from hralign_ros.runtime import decide, Decider, Decision, DecisionRules, DecisionState, Status
import pytest

MS = 1_000_000
# Any start: only differences may matter.
START = 1_700_000_000_000_000_000
A, R, S, F = Decision.ABSTAIN, Decision.RUNNING, Decision.SUCCESS, Decision.FAILURE
OK = Status.OK
RULES = DecisionRules(dwell=300 * MS, failure_threshold=0.6, failure_dwell=200 * MS)


def play(steps, rules=RULES, threshold=0.8):
    """Play (time in ms, probability, modes, status) and return the decisions."""
    decider = Decider(rules)
    return [decider(START + at * MS, probability=probability, threshold=threshold, modes=modes,
                    status=status)
            for at, probability, modes, status in steps]


def trace(*probabilities, every=100, modes=(), status=OK):
    return [(i * every, p, modes, status) for i, p in enumerate(probabilities)]


@pytest.mark.parametrize(('name', 'steps', 'decisions'), [
    ('stays below', trace(0.1, 0.5, 0.79, 0.8), [R, R, R, R]),
    ('dwell', trace(0.9, 0.9, 0.9, 0.9), [R, R, R, S]),
    ('above means above, not equal', trace(0.8, 0.8, 0.8, 0.8, 0.8), [R] * 5),
    ('interrupted dwell starts again', trace(0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9),
     [R, R, R, R, R, R, R, S]),
    ('latched', trace(0.9, 0.9, 0.9, 0.9, 0.1, 0.0), [R, R, R, S, S, S]),
    ('dwell counts time, not frames', trace(0.9, 0.9, every=300), [R, S]),
    ('many frames in a short time', trace(*[0.9] * 10, every=10), [R] * 10),
])
def test_success(name, steps, decisions):
    """Guards SUCCESS: above the threshold, for the dwell time, then for good."""
    assert play(steps) == decisions, name


@pytest.mark.parametrize('status', [
    Status.UNCALIBRATED, Status.NO_TASK, Status.UNKNOWN_TASK, Status.OUT_OF_DISTRIBUTION,
    Status.STALE_VIEW, Status.STALE_VIEW | Status.VIEW_MISSING])
def test_doubt_means_abstain(status):
    """Guards every status bit: none may stand beside SUCCESS, latched or not."""
    steps = trace(0.9, 0.9, 0.9, 0.9, 0.9)
    assert play([(*step[:3], status) for step in steps]) == [A] * 5
    steps.insert(5, (500, 0.9, (), status))
    steps.append((600, 0.1, (), OK))
    assert play(steps)[3:] == [S, S, A, S], 'latched comes back once the doubt is gone'


def test_a_missing_view_is_no_doubt():
    """Guards the one exception: the head is trained with views left out."""
    assert play(trace(0.9, 0.9, 0.9, 0.9, status=Status.VIEW_MISSING)) == [R, R, R, S]


@pytest.mark.parametrize('gap', [
    (200, 0.9, (), Status.STALE_VIEW), (200, None, (), OK)])
def test_dwell_starts_again_after_doubt(gap):
    """Guards against SUCCESS from time during which nothing was seen."""
    steps = trace(*[0.9] * 7)
    steps[2] = gap
    assert play(steps) == [R, R, A, R, R, R, S]


def test_the_failure_dwell_starts_again_too():
    """Guards the same for FAILURE."""
    steps = trace(*[0.1] * 6, modes=(0.9, 0.1))
    steps[1] = (100, 0.1, (0.9, 0.1), Status.OUT_OF_DISTRIBUTION)
    assert play(steps) == [R, A, R, R, F, F]


def test_no_threshold_no_decision():
    """Guards an uncalibrated bundle: it abstains whatever the probability or the time."""
    rules = DecisionRules(failure_threshold=0.1, failure_dwell=0, time_out=1)
    assert play(trace(0.99, 0.99, 0.99, modes=(1.0,)), rules, None) == [A] * 3


def test_no_probability_no_decision():
    """Guards the time before there is a task."""
    assert play(trace(None, None, 0.1)) == [A, A, R]


@pytest.mark.parametrize(('name', 'modes', 'decisions'), [
    ('one mode stays above', [(0.7, 0.3)] * 4, [R, R, F, F]),
    ('not above', [(0.6, 0.4)] * 4, [R, R, R, R]),
    ('another mode takes over', [(0.7, 0.3), (0.7, 0.3), (0.3, 0.7), (0.3, 0.7), (0.3, 0.7)],
     [R, R, R, R, F]),
    ('interrupted', [(0.7, 0.3), (0.5, 0.5), (0.7, 0.3), (0.7, 0.3), (0.7, 0.3)],
     [R, R, R, R, F]),
    ('no modes', [()] * 4, [R, R, R, R]),
    ('latched', [(0.7, 0.3)] * 3 + [(0.1, 0.1)] * 2, [R, R, F, F, F]),
])
def test_failure_modes(name, modes, decisions):
    """Guards FAILURE: one and the same mode, above its threshold for its dwell time."""
    steps = [(100 * i, 0.1, m, OK) for i, m in enumerate(modes)]
    assert play(steps) == decisions, name


def test_a_mode_that_is_overtaken_stays_above():
    """Guards low thresholds, which two modes pass at once: the first one's dwell goes on."""
    rules = DecisionRules(failure_threshold=0.3, failure_dwell=300 * MS)
    modes = [(0.5, 0.4), (0.4, 0.5), (0.5, 0.4), (0.4, 0.5)]
    steps = [(100 * i, 0.1, m, OK) for i, m in enumerate(modes)]
    assert play(steps, rules) == [R, R, R, F]


def test_what_calibration_ruled_out_no_parameter_brings_back():
    """Guards ~/info, which said that no mode decides FAILURE, while the node decided it."""
    decider = Decider(DecisionRules(failure_threshold=0.3, failure_dwell=0))
    assert [decider(START + i * 100 * MS, probability=0.1, threshold=0.8, modes=(0.6,), status=OK,
                    failure_threshold=1.0) for i in range(30)] == [R] * 30


def test_modes_can_be_turned_off():
    """Guards against failures from a head whose modes were never calibrated."""
    steps = trace(*[0.1] * 30, modes=(1.0, 0.0))
    assert play(steps, DecisionRules(failure_threshold=1.0)) == [R] * 30
    assert F in play(steps, DecisionRules()), 'by default, as in the node, they decide'


def test_an_unknown_task_may_be_allowed():
    """Guards allow_unknown_tasks: it takes one doubt away, and no other."""
    rules = DecisionRules(allow_unknown_tasks=True)
    assert play(trace(*[0.9] * 4, status=Status.UNKNOWN_TASK), rules) == [R, R, R, S]
    assert play(trace(*[0.9] * 4, status=Status.UNKNOWN_TASK | Status.OUT_OF_DISTRIBUTION),
                rules) == [A] * 4


def test_a_leap_of_the_clock_is_no_dwell():
    """
    Guards SUCCESS and FAILURE against a clock that is set an hour ahead.

    A high probability before the leap and one after it were an hour of high probability.
    """
    for threshold, rules, expected in (
            (0.8, DecisionRules(), S),
            (0.99, DecisionRules(failure_threshold=0.8, failure_dwell=300 * MS), F)):
        leap = [(stamp + (3_600_000 if i >= 2 else 0), 0.9, (0.9,), OK)
                for i, stamp in enumerate(range(0, 800, 100))]
        assert play(leap, rules, threshold) == [R, R, R, R, R, expected, expected, expected]
    # Slow cameras have to be waited for: that is what max_gap says.
    slow = [(stamp, 0.9, (), OK) for stamp in (0, 1500, 3000)]
    assert play(slow, DecisionRules()) == [R, R, R]
    assert play(slow, DecisionRules(max_gap=2000 * MS)) == [R, S, S]


def test_time_out():
    """Guards the time-out: so long after the first frame, not after the first probability."""
    rules = DecisionRules(time_out=300 * MS)
    assert play(trace(0.1, 0.1, 0.1, 0.1, 0.9), rules) == [R, R, R, F, F]
    steps = [(0, None, (), Status.NO_TASK), *trace(0.1, 0.1, 0.1, 0.1)[1:]]
    assert play(steps, rules) == [A, R, R, F]


def test_a_time_out_during_doubt_is_said_afterwards():
    """Guards against a decision in the dark, and against forgetting the time that went by."""
    rules = DecisionRules(time_out=200 * MS)
    steps = trace(0.1, 0.1, 0.1, 0.1)
    steps[2] = (200, 0.1, (), Status.STALE_VIEW)
    assert play(steps, rules) == [R, R, A, F]


def test_success_goes_before_failure():
    """Guards the order where both would be decided on the same frame."""
    rules = DecisionRules(dwell=300 * MS, failure_threshold=0.5,
                          failure_dwell=300 * MS, time_out=300 * MS)
    assert play(trace(*[0.9] * 4, modes=(0.9,)), rules)[-1] == S


def test_a_new_state_is_a_new_episode():
    """Guards the latch: it lives in the state and nowhere else."""
    assert play(trace(0.9, 0.9, 0.9, 0.9))[-1] == S
    assert play(trace(0.1))[-1] == R


def test_deciding_changes_nothing_given():
    """Guards replaying: the same state and input give the same answer again."""
    state = DecisionState(start=START, above_since=START)
    answers = [decide(state, RULES, stamp=START + 400 * MS, probability=0.9, threshold=0.8,
                      modes=(), status=OK) for _ in range(2)]
    assert answers[0] == answers[1] and state == DecisionState(START, START)


def test_an_interruption_is_no_dwell():
    """Guards STALE: what is repeated while nothing is seen interrupts a dwell, and no latch."""
    decider = Decider(RULES)

    def results(*times):
        return [decider(START + at * MS, probability=0.9, threshold=0.8) for at in times]
    assert results(0, 200) == [R, R]
    assert decider.interrupt() is A
    assert results(400, 600, 700) == [R, R, S]
    assert decider.interrupt() is A
    assert results(800) == [S]
