# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Intervals and paired tests against figures from the literature and by hand."""

from hralign_ros.evaluation.success_rates import compare, mcnemar, rate
import pytest


def outcomes(both, only_first, only_second, neither):
    """Make two policies' outcomes with so many pairs of each kind."""
    pairs = [(True, True)] * both + [(True, False)] * only_first \
        + [(False, True)] * only_second + [(False, False)] * neither
    return ({i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)})


@pytest.mark.parametrize(('successes', 'n', 'low', 'high'), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    (29, 29, 0.8830, 1.0)])
def test_wilsons_interval(successes, n, low, high):
    """Guards the intervals with the examples of Newcombe (1998), also at both ends."""
    found = rate(successes, n)
    assert found.value == successes / n
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_of_a_paired_difference():
    """Guards with the example of Newcombe (1998), method 10."""
    found = compare(*outcomes(36, 12, 2, 0))
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=1e-3)
    assert (found.pairs, found.only_first, found.only_second) == (50, 12, 2)


def test_mcnemars_test():
    """Guards the p-value: the binomial distribution by hand; no pair that differs says nothing."""
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(3, 1) == pytest.approx(2 * 5 / 16)
    assert mcnemar(2, 2) == 1.0 and mcnemar(0, 0) == 1.0


def test_only_common_starts_are_compared():
    found = compare({1: True, 2: True, 3: False}, {2: False, 3: False, 4: True})
    assert (found.pairs, found.only_first, found.only_second) == (2, 1, 0)
    with pytest.raises(ValueError, match='no start in common'):
        compare({1: True}, {2: True})
    with pytest.raises(ValueError, match='0 successes of 0'):
        rate(0, 0)


def test_two_that_are_the_same():
    """Guards the interval where all pairs agree: it holds 0 and has a width."""
    found = compare(*outcomes(5, 0, 0, 5))
    assert found.low < 0.0 < found.high and found.p_value == 1.0
