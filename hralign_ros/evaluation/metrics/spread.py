# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether human and robot features are alike, and whether features collapsed."""

import math

from hralign_ros.evaluation.bootstrap import (
    Estimate,
    EvaluationError,
    Floats,
    Ints,
    jackknife,
    Labels,
)
from hralign_ros.evaluation.metrics.rows import features_of, unit_rows
import numpy as np
from numpy.typing import ArrayLike


def linear_cka(human: ArrayLike, robot: ArrayLike, *, clusters: Labels) -> Estimate:
    """
    Return debiased linear CKA between features of the same pairs.

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with the unbiased estimator of HSIC, so that unrelated
    features give 0 also with more channels than clips. 1 where one is the other, rotated and
    scaled. The interval is a jackknife over clusters.

    :param human: [n, C].
    :param robot: [n, D], row i is the partner of human row i.
    :param clusters: [n].
    :raises EvaluationError: rows that do not match, fewer than 4 of them in any part, or features
        that do not vary.
    """
    h, r = features_of('human', human), features_of('robot', robot)
    if len(h) != len(r):
        raise EvaluationError(f'{len(h)} human and {len(r)} robot rows are not pairs')
    h, r = h - h.mean(0), r - r.mean(0)

    def cka(rows: Ints) -> float:
        x, y = h[rows], r[rows]
        scale = _unbiased_hsic(x, x) * _unbiased_hsic(y, y)
        if not scale > 0.0:
            raise EvaluationError('CKA of features that do not vary is not defined')
        return _unbiased_hsic(x, y) / math.sqrt(scale)

    return jackknife(cka, clusters)


def spread(features: ArrayLike, *, clusters: Labels) -> tuple[Estimate, Estimate]:
    """
    Tell whether features still use their space: the guards on collapse.

    Compare only at equal n: the effective rank grows with the number of clips. Intervals are
    jackknives over clusters.

    :param features: [n, C].
    :returns: effective rank, exp of the entropy of the centred features' normalised singular
        values: 1 where they vary along one line, at most min(n - 1, C); and variation,
        1 - |mean of the unit features|^2: 0 where all point the same way.
    :raises EvaluationError: fewer than 3 rows, or a feature that is zero.
    """
    x = features_of('features', features)
    if len(x) < 3:
        raise EvaluationError(f'{len(x)} features are too few to have a spread')
    unit = unit_rows('features', x)

    def rank(rows: Ints) -> float:
        centred = x[rows] - x[rows].mean(0)
        # Eigenvalues of the smaller Gram matrix: squares of the singular values.
        gram = centred @ centred.T if len(rows) < x.shape[1] else centred.T @ centred
        values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
        # What rounding leaves of a rank that is not there.
        values = values[values > values.max() * 1e-6]
        shares = values / values.sum()
        return math.exp(-float((shares * np.log(shares)).sum()))

    return jackknife(rank, clusters), jackknife(
        lambda rows: 1.0 - float((unit[rows].mean(0) ** 2).sum()), clusters)


def _unbiased_hsic(x: Floats, y: Floats) -> float:
    """
    Return the unbiased HSIC of two linear kernels without their diagonals (Song et al. 2012).

    The kernels are n x n; no more than the smaller of that and C x D is computed.
    """
    n = len(x)
    if n < 4:
        raise EvaluationError(f'debiased CKA needs at least 4 pairs, and a part has {n}')
    product = float(((x @ x.T) * (y @ y.T)).sum() if n < min(x.shape[1], y.shape[1])
                    else ((x.T @ y) ** 2).sum())
    diagonals = [(of * of).sum(1) for of in (x, y)]
    k, m = (of @ of.sum(0) - diagonal for of, diagonal in zip((x, y), diagonals, strict=True))
    product -= float(diagonals[0] @ diagonals[1])
    return float(product + k.sum() * m.sum() / ((n - 1) * (n - 2))
                 - 2.0 * float(k @ m) / (n - 2)) / (n * (n - 3))
