# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Decisions against tables and cases worked out by hand."""

from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.metrics.decisions import delays, rate, rule_of_three
import numpy as np
import pytest
from scipy import stats


def test_exact_intervals():
    found = rate(5, 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.0164, 0.1128), abs=1e-3)
    none, all_ = rate(0, 20), rate(20, 20)
    assert none.low == 0.0 and none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert all_.high == 1.0 and all_.low == pytest.approx(0.025 ** (1 / 20))


def test_an_interval_holds_what_it_guarantees():
    """Guards the guarantee: of repeated experiments at least 95 in 100 have the truth inside."""
    events = np.random.default_rng(0).binomial(60, 0.05, 500)
    inside = [rate(int(k), 60).low <= 0.05 <= rate(int(k), 60).high for k in events]
    assert np.mean(inside) >= 0.95


def test_the_rule_of_three():
    assert rule_of_three(0, 100) == pytest.approx(0.03, abs=1e-3)
    assert stats.poisson.cdf(4, rule_of_three(4, 10) * 10) == pytest.approx(0.05)


def test_delays_by_hand():
    found = delays([1.0, 1.0, 2.0, 3.0], [1.2, 1.6, np.nan, 2.0])
    assert (found.missed.events, found.early.events) == (1, 1)
    assert found.median_s == pytest.approx(0.4)


def test_no_decision_has_no_delay():
    found = delays([1.0], [np.nan])
    assert np.isnan(found.median_s) and found.missed.value == 1.0


def test_nothing_watched_is_no_rate():
    for wrong in (lambda: rate(0, 0), lambda: rate(3, 2), lambda: rule_of_three(0, 0),
                  lambda: delays([], [])):
        with pytest.raises(EvaluationError):
            wrong()
