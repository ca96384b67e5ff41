# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Calibration error against cases worked out by hand, and against what is true by construction."""

from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.metrics.calibration import (
    brier_parts,
    calibrated,
    equal_mass,
    expected_error,
    with_prevalence,
)
import numpy as np
import pytest
from support.metric_cases import ids


def drawn(count, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 1.5, count)
    return p, rng.random(count) < p


def test_a_true_probability_has_no_error():
    """Guards the correction for chance: a plain ECE of 600 rows would be twice as much."""
    errors = [expected_error(*drawn(600, seed)) for seed in range(20)]
    plain = [np.mean([abs(p[m].mean() - y[m].mean()) for m in equal_mass(p)])
             for p, y in (drawn(600, seed) for seed in range(20))]
    assert np.mean(errors) < 0.75 * np.mean(plain) and np.mean(plain) > 0.035


def test_an_error_is_not_corrected_away():
    """
    Guards the figure that decides whether a head is trusted.

    What chance would have given was taken off every gap, also off those that are none of its
    doing: of an error of .1 in 860 rows, .06 was left.
    """
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth = np.minimum(rng.beta(0.5, 1.5, 860), 0.9)
        found.append(expected_error(truth + 0.1, rng.random(860) < truth))
    assert np.mean(found) == pytest.approx(0.1, abs=0.01)


def test_the_interval_holds_the_truth_and_the_value():
    """
    Guards intervals of a number that noise makes larger: they lay above the value itself.

    A draw of the data has the data's noise and its own.
    """
    inside = 0
    for seed in range(12):
        p, y = drawn(2000, seed)
        ece = calibrated(p, y, ids(2000), draws=60, seed=seed)['expected_calibration_error']
        assert ece.low <= ece.value <= ece.high
        inside += ece.low <= 0.006
    assert inside >= 8


def test_a_wrong_one_has_its_own():
    p, y = drawn(20000)
    assert expected_error(np.clip(p + 0.2, 0, 1), y) == pytest.approx(0.2, abs=0.02)


def test_brier_is_made_of_its_parts():
    p, y = drawn(3000)
    p = np.round(p, 1)  # all rows of a bin say the same
    parts = brier_parts(p[None], y)
    assert parts['uncertainty'] == pytest.approx(y.mean() * (1 - y.mean()))
    brier = calibrated(p, y, ids(3000), draws=5)['brier_score'].value
    assert brier == pytest.approx(np.mean((p - y) ** 2))
    assert brier == pytest.approx(
        parts['reliability'] - parts['resolution'] + parts['uncertainty'], abs=0.01)


def test_losses_by_hand():
    found = calibrated([0.8, 0.4], np.array([True, False]), ids(2), draws=5)
    assert found['brier_score'].value == pytest.approx((0.04 + 0.16) / 2)
    assert found['negative_log_likelihood'].value == pytest.approx(
        -(np.log(0.8) + np.log(0.6)) / 2)


def test_certainty_that_is_wrong_is_finite():
    found = calibrated([1.0, 0.0], np.array([False, True]), ids(2), draws=5)
    assert np.isfinite(found['negative_log_likelihood'].value)


def test_bins_are_of_equal_size():
    sizes = [len(members) for members in equal_mass(np.random.default_rng(0).random(100) ** 9)]
    assert sorted(set(sizes)) == [6, 7] and len(sizes) == 15


def test_what_is_no_probability_is_refused():
    with pytest.raises(EvaluationError, match='0 to 1'):
        calibrated([1.2], np.array([True]), ids(1))
    with pytest.raises(EvaluationError, match='2 probabilities for 1'):
        calibrated([0.2, 0.3], np.array([True]), ids(1))


def test_a_known_prevalence_takes_a_shift_away():
    """
    Guards the part of the error that is only a matter of how often attempts succeed.

    Of truthful probabilities, successes are kept three times as often as failures: every
    probability is then too low by the same log-odds, and one shift makes them right again.
    """
    p, y = drawn(6000, 3)
    kept = y | (np.random.default_rng(4).random(len(y)) < 1 / 3)
    p, y = p[kept], y[kept]
    assert expected_error(p, y) > 0.1
    shifted = with_prevalence(p, float(y.mean()))
    assert shifted.mean() == pytest.approx(y.mean(), abs=1e-6)
    assert expected_error(shifted, y) < 0.02
    assert (np.argsort(shifted, kind='stable') == np.argsort(p, kind='stable')).all()
    with pytest.raises(EvaluationError, match='prevalence'):
        with_prevalence(p, 1.0)
