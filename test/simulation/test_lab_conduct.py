# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How attempts in a lab go: shares of the ways, and what each of them changes."""

from collections import Counter

from hralign_ros.simulation.behaviour import EXPERT
from hralign_ros.simulation.lab_conduct import (
    CLUMSY,
    FAILURES,
    FAR,
    GOOD,
    kind_of,
    LIFT,
    make_conduct,
    NEAR,
    PLACE,
    PUSH,
    SUCCESSES,
)
import numpy as np
import pytest

ALL = (LIFT, PLACE, PUSH)


def draws(kind, moves, count=200):
    return [make_conduct(kind, moves, np.random.default_rng([i, 1])) for i in range(count)]


@pytest.mark.parametrize('wanted', [True, False])
def test_ten_attempts_in_a_row_are_a_fair_sample(wanted):
    """Guards small sets: ten seeds in a row, wherever they start, have each way in its share."""
    shares = SUCCESSES if wanted else FAILURES
    for first in (0, 7, 10000):
        counts = Counter(kind_of(first + i, wanted, PLACE) for i in range(10))
        assert all(abs(counts[kind] - 10 * share) < 1.5 for kind, share in shares.items()), counts
    many = Counter(kind_of(i, wanted, PLACE) for i in range(2000))
    assert all(many[kind] / 2000 == pytest.approx(share, abs=0.01)
               for kind, share in shares.items())


def test_what_makes_no_difference_is_not_drawn():
    """Guards the labels: nothing is held that could be dropped when a cube is pushed."""
    kinds = {kind_of(i, False, PUSH) for i in range(100)}
    assert kinds == set(FAILURES) - {'drops'}
    with pytest.raises(ValueError, match="'drops' of a push task; allowed: .*near_miss"):
        make_conduct('drops', PUSH, np.random.default_rng(0))
    with pytest.raises(ValueError, match="kind 'sleeps' of a lift task"):
        make_conduct('sleeps', LIFT, np.random.default_rng(0))


@pytest.mark.parametrize('moves', ALL, ids=['lift', 'place', 'push'])
def test_a_fault_begins_in_a_move_of_the_task(moves):
    """Guards faults that never come: stops and drops name moves which this arm makes."""
    for conduct in draws('stops_early', moves):
        assert conduct.stops[0] in moves[1:-1] and 0.0 <= conduct.stops[1] <= 1.0
    if moves is not PUSH:
        drops = draws('drops', moves)
        assert all(c.drops[0] in moves[moves.index('close') + 1:-1] for c in drops)
        assert {c.closes_again for c in drops} == {True, False}


@pytest.mark.parametrize('moves', ALL, ids=['lift', 'place', 'push'])
def test_good_attempts_have_no_fault(moves):
    """Guards successes: the hand is off by millimetres, and nothing else differs."""
    for conduct in [*draws(EXPERT, moves), *draws(CLUMSY, moves)]:
        assert np.linalg.norm(conduct.aside) < 0.005
        assert (conduct.place, conduct.stops, conduct.drops) == (GOOD, None, None)
        assert not conduct.never_closes and conduct.noise == 0.0


def test_near_misses_are_near():
    """Guards the hard failures: by centimetres at the thing, or just outside of the goal."""
    placed = draws('near_miss', PLACE)
    assert 0.4 < np.mean([c.place == NEAR for c in placed]) < 0.8
    for conduct in [*draws('near_miss', LIFT), *(c for c in placed if c.place == GOOD)]:
        assert 0.025 < np.linalg.norm(conduct.aside) < 0.055
    assert {c.place for c in draws('near_miss', PUSH)} == {NEAR}
    assert {c.place for c in draws('wrong_place', PLACE)} == {FAR, GOOD}
    assert min(np.linalg.norm(c.aside) for c in draws('wrong_place', LIFT)) > 0.07


def test_a_gripper_that_never_closes():
    """Guards no_grasp where nothing is gripped: there the closed gripper passes above."""
    assert all(c.never_closes for c in draws('no_grasp', PLACE))
    assert all(not c.never_closes and c.aside[2] > 0.04 for c in draws('no_grasp', PUSH))
