# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Confidence intervals: that they cover, that they pair, that they respect clusters."""

from hralign_ros.evaluation import bootstrap
from hralign_ros.evaluation.bootstrap import EvaluationError
import numpy as np
import pytest
from scipy import stats


def names(count, each=1):
    return np.repeat([f'c{i:03d}' for i in range(count)], each)


def test_intervals_cover_the_truth():
    """Guards the 95 %: of 300 samples with known mean 0, about 95 % of the intervals hold it."""
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        values = generator.normal(size=(40, 1)) + 0.3 * generator.normal(size=(40, 5))
        estimate = bootstrap.cluster_mean(values.ravel(), names(40, 5), draws=400, seed=seed)
        covered += estimate.low <= 0.0 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_clips_of_one_episode_are_not_independent():
    """Guards against narrow intervals: copies of a clip must add no certainty."""
    values = np.random.default_rng(0).normal(size=30)
    once = bootstrap.cluster_mean(values, names(30))
    copied = bootstrap.cluster_mean(np.repeat(values, 10), names(30, 10))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert (once.n, copied.n, copied.clusters) == (30, 300, 30)


def test_mean_of_unequal_clusters_is_the_mean_of_rows():
    estimate = bootstrap.cluster_mean([1, 1, 1, 5], ['a', 'a', 'a', 'b'])
    assert estimate.value == 2.0 and estimate.low == 1.0 and estimate.high == 5.0


def test_pairs_cancel_what_they_share():
    """Guards the pairing: a constant gain over a noisy baseline has an interval of no width."""
    baseline = np.random.default_rng(0).normal(size=50) * 10
    estimate = bootstrap.paired_difference(baseline + 0.5, baseline, names(50))
    assert estimate.value == pytest.approx(0.5)
    assert estimate.low == pytest.approx(0.5) and estimate.high == pytest.approx(0.5)
    with pytest.raises(EvaluationError, match='cannot be paired'):
        bootstrap.paired_difference(baseline, baseline[:-1], names(50))


def test_a_baseline_may_have_no_seeds():
    a = np.stack([np.full(10, 1.0), np.full(10, 3.0)])
    estimate = bootstrap.paired_difference(a, np.ones(10), names(10))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 0.0, 2.0)


def test_seeds_widen_the_interval():
    """Guards claims over seeds: where seeds differ and clips do not, the interval shows it."""
    values = np.repeat([[0.0], [0.2], [0.4], [0.6], [0.8]], 20, axis=1)
    estimate = bootstrap.cluster_mean(values, names(20))
    assert estimate.value == pytest.approx(0.4)
    assert estimate.low < 0.25 and estimate.high > 0.55
    # And the other way round.
    values = np.repeat(np.linspace(0, 1, 20)[None], 5, axis=0)
    estimate = bootstrap.cluster_mean(values, names(20))
    alone = bootstrap.cluster_mean(values[0], names(20))
    assert estimate.high - estimate.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_ratio():
    a, b = np.array([1, 1, 1, 0.0]), np.array([1, 0, 0, 0.0])
    estimate = bootstrap.paired_ratio(a, b, names(4))
    assert estimate.value == 3.0 and estimate.low == 1.0 and estimate.high == np.inf
    assert bootstrap.plain(estimate)['high'] is None


def test_student_interval_over_seeds():
    """Two seeds 0 and 2: mean 1, error 1, t(0.975, 1) = 12.7062."""
    estimate = bootstrap.seed_mean([0.0, 2.0])
    assert estimate.value == 1.0 and estimate.n == 2
    assert estimate.high == pytest.approx(1 + 12.7062, abs=1e-3)
    with pytest.raises(EvaluationError, match='at least 2'):
        bootstrap.seed_mean([0.3])


def test_jackknife_of_a_mean_is_student():
    """With a block per row the jackknife's error of a mean is the textbook one, exactly."""
    values = np.random.default_rng(0).normal(size=12)
    estimate = bootstrap.jackknife(lambda rows: float(values[rows].mean()), names(12))
    student = bootstrap.seed_mean(values)
    assert (estimate.low, estimate.high) == pytest.approx((student.low, student.high))


def test_jackknife_leaves_out_whole_clusters_once():
    clusters, seen = names(7, 3), []
    bootstrap.jackknife(lambda rows: float(seen.append(rows.copy()) or 0), clusters, blocks=3)
    left_out = [set(range(21)) - set(rows.tolist()) for rows in seen[1:]]
    assert len(left_out) == 3 and sorted(i for part in left_out for i in part) == list(range(21))
    for part in left_out:
        assert all({i // 3 * 3, i // 3 * 3 + 1, i // 3 * 3 + 2} <= part for i in part)


def test_median():
    estimate = bootstrap.resample(lambda rows: float(np.median(np.arange(9)[rows])), names(9))
    assert estimate.value == 4 and 0 <= estimate.low < 4 < estimate.high <= 8


def test_equal_seed_equal_interval():
    values = np.random.default_rng(0).normal(size=30)
    first = bootstrap.cluster_mean(values, names(30), seed=3)
    assert first == bootstrap.cluster_mean(values, names(30), seed=3)
    assert first != bootstrap.cluster_mean(values, names(30), seed=4)


@pytest.mark.parametrize(('values', 'clusters', 'message'), [
    ([], [], 'nothing to measure'),
    ([1.0, np.nan], ['a', 'b'], 'not finite'),
    ([1.0, 2.0], ['a', 'a'], 'at least 2 clusters'),
    ([1.0, 2.0], ['a'], 'one for each'),
    ([[1.0, 2.0], [1.0, np.nan]], ['a', 'b'], 'not finite'),
    ([[1.0, 2.0], [1.0, 2.0]], ['a', 'a'], 'at least 2 clusters'),
])
def test_what_is_refused(values, clusters, message):
    with pytest.raises(EvaluationError, match=message):
        bootstrap.cluster_mean(values, clusters)


def test_join_labels():
    assert bootstrap.join_labels(['a', 'b'], ['x', 'y']).tolist() == ['a | x', 'b | y']
    with pytest.raises(EvaluationError, match='joined'):
        bootstrap.join_labels(['a'], ['x', 'y'])


def test_exact_intervals():
    found = bootstrap.rate(5, 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.0164, 0.1128), abs=1e-3)
    none, all_ = bootstrap.rate(0, 20), bootstrap.rate(20, 20)
    assert none.low == 0.0 and none.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert all_.high == 1.0 and all_.low == pytest.approx(0.025 ** (1 / 20))


def test_an_interval_holds_what_it_guarantees():
    """Guards the guarantee: of repeated experiments at least 95 in 100 have the truth inside."""
    events = np.random.default_rng(0).binomial(60, 0.05, 500)
    found = [bootstrap.rate(int(k), 60) for k in events]
    inside = [one.low <= 0.05 <= one.high for one in found]
    assert np.mean(inside) >= 0.95


def test_the_rule_of_three():
    assert bootstrap.rule_of_three(0, 100) == pytest.approx(0.03, abs=1e-3)
    assert stats.poisson.cdf(4, bootstrap.rule_of_three(4, 10) * 10) == pytest.approx(0.05)


def test_nothing_watched_is_no_rate():
    for wrong in (lambda: bootstrap.rate(0, 0), lambda: bootstrap.rate(3, 2),
                  lambda: bootstrap.rule_of_three(0, 0)):
        with pytest.raises(EvaluationError):
            wrong()
