# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Alignment and collapse against cases worked out by hand or by another way of computing them."""

from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.metrics.spread import linear_cka, spread
import numpy as np
import pytest
from support.metric_cases import ids, noise


def test_cka_does_not_see_rotation_scale_or_shift():
    x = noise(60, 12)
    rotation = np.linalg.qr(noise(12, 12, seed=3))[0]
    found = linear_cka(x, 7.0 * x @ rotation + 5.0, clusters=ids(60))
    assert found.value == pytest.approx(1.0) and found.method == 'jackknife'
    assert found.high - found.low < 1e-6


def test_debiased_cka_of_unrelated_features_is_zero():
    """Guards the debiasing: with more channels than clips the plain one is near 1."""
    x, y = noise(60, 600), noise(60, 600, seed=1)
    centred = [v - v.mean(0) for v in (x, y)]
    cross, own = centred[0].T @ centred[1], [v.T @ v for v in centred]
    biased = (cross ** 2).sum() / np.sqrt((own[0] ** 2).sum() * (own[1] ** 2).sum())
    found = linear_cka(x, y, clusters=ids(60))
    assert biased > 0.8
    assert found.value == pytest.approx(0.0, abs=0.05)
    assert found.low <= 0.0 <= found.high


def test_cka_of_half_shared_variance():
    """Y = X + N of equal variance: HSIC d / sqrt(d * 4 d) = 1/2."""
    x = noise(400, 40)
    found = linear_cka(x, x + noise(400, 40, seed=1), clusters=ids(400))
    assert found.value == pytest.approx(0.5, abs=0.03)


def test_what_cka_refuses():
    x = noise(20, 4)
    with pytest.raises(EvaluationError, match='not pairs'):
        linear_cka(x, x[:-1], clusters=ids(20))
    with pytest.raises(EvaluationError, match='at least 4'):
        linear_cka(x[:4], x[:4], clusters=ids(4))
    with pytest.raises(EvaluationError, match='do not vary'):
        linear_cka(x, np.ones((20, 4)), clusters=ids(20))


def test_spread_of_known_features():
    """Vectors along 4 axes in equal share: rank 4 uncentred; symmetric, so centring keeps it."""
    axes = np.concatenate([np.eye(6)[:4], -np.eye(6)[:4]])
    rank, variation = spread(np.tile(axes, (5, 1)), clusters=ids(40))
    assert rank.value == pytest.approx(4.0)
    assert variation.value == pytest.approx(1.0)
    line = np.outer(np.linspace(1, 2, 30), [1.0, 2.0, 2.0])
    rank, variation = spread(line, clusters=ids(30))
    assert rank.value == pytest.approx(1.0)
    assert variation.value == pytest.approx(0.0, abs=1e-9)


def test_effective_rank_is_the_same_by_singular_values():
    for shape in ((30, 8), (8, 30)):
        x = noise(*shape) * np.linspace(1, 5, shape[1])
        values = np.linalg.svd(x - x.mean(0), compute_uv=False)
        shares = values[values > 1e-6 * values.max()]
        shares = shares / shares.sum()
        expected = np.exp(-(shares * np.log(shares)).sum())
        rank, _ = spread(x, clusters=ids(shape[0]))
        assert rank.value == pytest.approx(expected)
