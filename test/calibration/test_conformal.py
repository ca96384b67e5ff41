# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The false-alarm guarantee: levels agree with the decision itself, thresholds keep their rate."""

from hralign_ros.calibration.conformal import conformal_threshold, decided, nonconformity_score
from hralign_ros.runtime.decision import Decider, Decision, DecisionRules, Status
import numpy as np
import pytest

MS = 1_000_000


def decides(stamps, probability, threshold, dwell):
    """Play a trace through the live decision."""
    decider = Decider(DecisionRules(dwell=dwell))
    return any(decider(int(stamp), probability=float(p), threshold=threshold) is Decision.SUCCESS
               for stamp, p in zip(stamps, probability, strict=True))


def test_a_level_is_where_the_decision_turns():
    """
    Guards the guarantee against a threshold that is calibrated for another rule than the live one.

    Random traces with uneven stamps: just below its level an episode sees SUCCESS, at it none.
    """
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 25))
        stamps = np.cumsum(rng.integers(1, 250, count)) * MS
        probability = rng.random(count)
        dwell = int(rng.integers(0, 500)) * MS
        level = nonconformity_score(stamps, probability, dwell)
        assert not decides(stamps, probability, level, dwell)
        if level > 0:
            assert decides(stamps, probability, level - 1e-9, dwell)


def test_a_replay_decides_as_the_node_does():
    """
    Guards misses and delays: they were measured without ABSTAIN and without FAILURE.

    Half a second of out-of-distribution images starts the dwell time again, an attempt that has
    failed in one mode for a second is a FAILURE and stays one, and a tick without a threshold
    decides nothing.
    """
    stamps = np.arange(20) * 200 * MS
    sure = np.where(np.arange(20) >= 5, 0.9, 0.1)
    assert decided(stamps, sure, 0.5) == 7
    out_of_distribution = np.zeros(20, np.int64)
    out_of_distribution[6:9] = int(Status.OUT_OF_DISTRIBUTION)
    assert decided(stamps, sure, 0.5, status=out_of_distribution) == 11
    assert decided(stamps, sure, 0.5,
                   status=out_of_distribution * 0 + int(Status.VIEW_MISSING)) == 7
    risks = np.zeros((20, 2))
    risks[:6, 1] = 0.95
    assert decided(stamps, sure, 0.5, risks=risks) is None
    risks[3] = 0.0
    assert decided(stamps, sure, 0.5, risks=risks) == 7
    thresholds = np.where(np.arange(20) < 10, np.nan, 0.5)
    assert decided(stamps, sure, thresholds) == 12
    assert decided(stamps, np.where(np.arange(20) == 6, np.nan, sure), 0.5) == 9


def test_a_level_of_a_success_is_of_what_comes_before_it():
    """Guards successes: below its level one is decided too early, at it in time or never."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        count = int(rng.integers(2, 25))
        stamps = np.cumsum(rng.integers(1, 250, count)) * MS
        probability = rng.random(count)
        done = np.arange(count) >= rng.integers(0, count)
        dwell = int(rng.integers(0, 500)) * MS
        level = nonconformity_score(stamps, probability, dwell, done)
        before = int(done.argmax())
        assert not decides(stamps[:before], probability[:before], level, dwell)
        if level > 0:
            assert decides(stamps[:before], probability[:before], level - 1e-9, dwell)


@pytest.mark.parametrize('alpha', [0.01, 0.05, 0.1])
def test_the_rate_is_kept(alpha):
    """Guards conformal prediction: over many draws the mean rate is alpha, never above."""
    rng = np.random.default_rng(1)
    rates = [float((rng.random(400) > conformal_threshold(rng.random(199), alpha)).mean())
             for _ in range(300)]
    assert np.mean(rates) == pytest.approx(alpha, abs=0.005)


def test_too_few_episodes_guarantee_nothing():
    """Guards small tasks: below 1 / alpha - 1 episodes no threshold can keep the guarantee."""
    assert conformal_threshold([0.1] * 18, 0.05) is None
    assert conformal_threshold([*[0.1] * 18, 0.9], 0.05) == 0.9
    assert conformal_threshold([], 0.1) is None
