# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The gate: who may decide, and by which rates."""

from hralign_ros.calibration.gate import (
    attempts_for,
    bound_with_confidence,
    measure_evidence,
    offered_rates,
)
from hralign_ros.runtime.tasks import Calibration, Evidence, Task
import numpy as np
import pytest


def attempts(count, score, seed=0):
    """Draw attempts, every other one of which succeeds: levels, durations and outcomes."""
    rng = np.random.default_rng(seed)
    good = np.arange(count) % 2 == 1
    durations = rng.uniform(5.0, 9.0, count) + 2.0 * good
    return score(good, durations, rng), durations, good


def test_a_clock_does_not_pass():
    """
    Guards a bundle that knew less than a clock: its node said SUCCESS at 8 % on a failure.

    Levels that rise with time, as those of a head that only learned how long attempts take, are no
    evidence; nor are levels at random.
    """
    clock = measure_evidence(*attempts(40, lambda good, t, rng: t + rng.normal(0, 0.2, len(t))))
    chance = measure_evidence(*attempts(40, lambda good, t, rng: rng.normal(0, 1, len(t))))
    for one in (clock, chance):
        assert one is not None and not one.suffices
    assert clock.auroc == pytest.approx(clock.elapsed_auroc, abs=0.03)
    assert clock.elapsed_auroc > 0.7
    seen = measure_evidence(*attempts(40, lambda good, t, rng: 4 * good + rng.normal(
        0, 1, len(t))))
    assert seen.suffices and seen.auroc > 0.95 and seen.attempts == 40


def test_the_gate_is_seldom_passed_by_chance():
    """Of two hundred heads that know nothing, hardly one passes."""
    passed = sum(measure_evidence(*attempts(
        20, lambda good, t, rng: rng.normal(0, 1, len(t)), seed)).suffices for seed in range(200))
    assert passed <= 4


def test_a_few_attempts_told_right_are_weak_evidence():
    bounds = [measure_evidence(*attempts(
        n, lambda good, t, rng: good + rng.normal(0, 0.01, len(t)))) for n in (8, 20, 40)]
    assert [one.auroc for one in bounds] == [1.0, 1.0, 1.0]
    assert [one.auroc_low for one in bounds] == pytest.approx([4 / 5, 10 / 11, 20 / 21], abs=1e-4)
    assert measure_evidence([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [True, True, False]) is None


@pytest.mark.parametrize(('attempts', 'rates'), [
    (0, ()), (2, (0.3334,)), (10, (0.091, 0.1, 0.2)), (19, (0.05, 0.1, 0.2)),
    (200, (0.005, 0.01, 0.05, 0.1, 0.2))])
def test_rates_that_attempts_can_back(attempts, rates):
    assert offered_rates(attempts) == pytest.approx(rates)
    assert not rates or attempts_for(rates[0]) <= attempts


def test_bounds_with_confidence():
    """The figures of 10, 22 and 45 attempts."""
    assert [round(bound_with_confidence(n, 1 / (n + 1)), 3) for n in (10, 22, 45)] == [
        0.206, 0.099, 0.05]


@pytest.mark.parametrize(('attempts', 'rate'), [(10, 0.2), (50, 0.05), (200, 0.05)])
def test_bounds_below_the_largest_score(attempts, rate):
    """
    Guards who reads "with 90 % confidence": it said 1.1 % where 7.0 % is true.

    The bound of the largest of 200 scores was told of the tenth largest. Drawn scores exceed the
    bound that is told in every tenth case.
    """
    rng = np.random.default_rng(0)
    rank = int(np.ceil((attempts + 1) * (1 - rate) - 1e-9))
    beyond = 1.0 - np.sort(rng.random((4000, attempts)), axis=1)[:, rank - 1]
    said = bound_with_confidence(attempts, rate)
    assert (beyond > said).mean() == pytest.approx(0.1, abs=0.02)


def test_a_node_without_evidence_abstains():
    """Thresholds in a file change nothing where scores do not beat the clock."""
    good = Calibration(('a',), 'platt', {'scale': 1.0, 'shift': 0.0}, {0.1: 0.6, 0.2: 0.2},
                       failed=10, succeeded=10, evidence=Evidence(0.95, 0.9, 0.8, 20))
    assert good.rate(None) == 0.1 and good.threshold(0.1) == 0.6
    assert good.threshold(0.2) == 0.5, 'nothing less likely than not is a success'
    bad = Calibration(('a',), 'platt', {'scale': 1.0, 'shift': 0.0}, {0.1: 0.6},
                      evidence=Evidence(0.6, 0.4, 0.74, 20))
    assert bad.rates == () and bad.threshold(None) is None and bad.threshold(0.1) is None
    # Where failures last longer than successes, the clock is worse than chance.
    assert not Evidence(0.88, 0.33, 0.25, 6).suffices
    verdict = Task('t', 't', calibrations=(bad,)).verdict('a')
    assert 'elapsed time' in verdict and 'ABSTAIN' in verdict and '0.74' in verdict


def test_the_usual_rate_is_taken_where_it_is_backed():
    def rate(thresholds):
        return Calibration(('a',), 'platt', {'scale': 1.0, 'shift': 0.0}, thresholds).rate(None)

    assert rate({0.01: 0.9, 0.05: 0.8, 0.1: 0.7}) == 0.05
    assert rate({0.091: 0.9, 0.2: 0.7}) == 0.091
    assert rate({0.01: 0.9}) == 0.01 and rate({}) is None
