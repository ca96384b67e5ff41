# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What of action and proprioception can be read off features."""

from hralign_ros.evaluation.bootstrap import (
    cluster_bootstrap,
    Estimate,
    EvaluationError,
    Floats,
    Labels,
)
from hralign_ros.evaluation.metrics.rows import features_of, group_folds, labels_of, spread_of
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

# Ridge penalties per training row, on standardised inputs.
RIDGE_ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def action_probe(
    features: ArrayLike, actions: ArrayLike, *, episodes: Labels, folds: int = 5, seed: int = 0,
) -> Estimate:
    """
    Read the action off (z_t, z_{t+1}): linear inverse dynamics.

    :param features: [n, C], frames in the order of time within each episode.
    :param actions: [n, A], sent at each frame.
    :param episodes: [n].
    :returns: as proprio_probe.
    :raises EvaluationError: as proprio_probe, or no episode has more than 1 frame.
    """
    x = features_of('features', features)
    runs = labels_of('episodes', episodes, len(x))
    order = np.argsort(runs, kind='stable')
    first, last = order[:-1], order[1:]
    same = runs[first] == runs[last]
    first, last = first[same], last[same]
    if not first.size:
        raise EvaluationError('no episode has more than 1 frame')
    commands = features_of('actions', actions, len(x))
    return _ridge_probe(np.concatenate([x[first], x[last]], 1), commands[first], runs[first],
                        folds, seed)


def proprio_probe(
    features: ArrayLike, proprio: ArrayLike, *, episodes: Labels, folds: int = 5, seed: int = 0,
) -> Estimate:
    """
    Read proprioception (or any other target) off single frames.

    Ridge regression on standardised inputs (columns that hardly vary stay small); episodes are
    held out whole, standardisation is learned inside the fold, and the penalty is chosen by 3
    inner folds of other episodes. Targets that never change are left out.

    :param features: [n, C].
    :param proprio: [n, P].
    :param episodes: [n].
    :returns: R2: 1 - squared error / squared error of the training mean, on held-out episodes,
        mean over targets; below 0 where the mean would have been better.
    :raises EvaluationError: fewer episodes than folds, fewer than 3 to train on, no target that
        varies, or values that are not finite.
    """
    x = features_of('features', features)
    return _ridge_probe(x, features_of('proprio', proprio, len(x)),
                        labels_of('episodes', episodes, len(x)), folds, seed)


def _ridge_probe(
    x: Floats, y: Floats, runs: NDArray[np.str_], folds: int, seed: int,
) -> Estimate:
    varies = np.flatnonzero(y.std(0) > 1e-8 * (1.0 + np.abs(y).max(0)))
    if not varies.size:
        raise EvaluationError('no target varies: there is nothing to predict')
    y = y[:, varies]
    errors, baseline = np.empty_like(y), np.empty_like(y)
    for train, test in group_folds(runs, folds, seed):
        centre, width = x[train].mean(0), spread_of(x[train])
        mean, scale = y[train].mean(0), y[train].std(0)
        scale[scale == 0.0] = 1.0
        with threadpool_limits(1):
            predicted, _ = _ridge((x[train] - centre) / width, (y[train] - mean) / scale,
                                  runs[train], (x[test] - centre) / width, seed)
        errors[test] = (predicted * scale + mean - y[test]) ** 2
        baseline[test] = (mean - y[test]) ** 2
    # Sums [draws, 2, D] -> mean over targets [draws].
    return cluster_bootstrap(
        np.stack([errors, baseline], 1)[None], runs,
        lambda sums: np.asarray((1.0 - sums[:, 0] / sums[:, 1]).mean(-1)), seed=seed)


def _ridge(
    x: Floats, y: Floats, groups: NDArray[np.str_], test: Floats, seed: int,
) -> tuple[Floats, float]:
    """
    Predict test rows by ridge regression with the penalty of the least error on inner folds.

    x and y are standardised, so that no intercept is needed. Products are formed once and shared
    by all inner folds: of rows where there are fewer of them than of columns, else of columns,
    where an inner fold's training part is the whole minus its test part.

    :returns: predictions, and the penalty per training row.
    """
    few = len(x) < x.shape[1]
    product = x @ x.T if few else x.T @ x
    moment = y if few else x.T @ y
    losses = np.zeros(len(RIDGE_ALPHAS))
    for train, held in group_folds(groups, 3, seed):
        if few:
            inner, right = product[np.ix_(train, train)], y[train]
            part = product[np.ix_(held, train)]
        else:
            part = x[held]
            inner, right = product - part.T @ part, moment - part.T @ y[held]
        for i, alpha in enumerate(RIDGE_ALPHAS):
            predicted = part @ _solve(inner, right, alpha * len(train))
            losses[i] += ((predicted - y[held]) ** 2).sum()
    best = RIDGE_ALPHAS[int(losses.argmin())]
    weights = _solve(product, moment, best * len(x))
    return (test @ x.T if few else test) @ weights, best


def _solve(product: Floats, moment: Floats, penalty: float) -> Floats:
    damped = product.copy()
    damped.flat[::len(product) + 1] += penalty
    return np.asarray(linalg.solve(damped, moment, assume_a='pos', overwrite_a=True))
