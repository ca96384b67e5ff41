# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well a score tells ticks in which the task is accomplished from all others."""

from hralign_ros.evaluation.bootstrap import (
    Estimate,
    EvaluationError,
    Floats,
    Labels,
    resample_weights,
)
from hralign_ros.evaluation.metrics.rows import Bools
import numpy as np
from numpy.typing import ArrayLike

RECALL = 0.95
NAMES = ('auroc', 'average_precision', 'fpr_at_95_recall')


def detection(
    scores: ArrayLike, done: ArrayLike, clusters: Labels, *, draws: int = 500, seed: int = 0,
) -> dict[str, Estimate]:
    """
    Measure detection; values are means over seeds, intervals over clusters.

    :param scores: [n], or [S, n] of S training seeds on the same rows.
    :param done: bool [n].
    :param clusters: name of each row's cluster, [n]; episodes or scenes.
    :returns: by name: auroc, area under the ROC curve, 0.5 is chance; average_precision, whose
        chance level is the prevalence; fpr_at_95_recall, the fraction of false positives where
        95 % of the positives are found.
    :raises EvaluationError: labels are all the same, or a score is not finite.
    """
    rows = np.atleast_2d(np.asarray(scores, np.float64))
    labels: Bools = np.asarray(done, bool)
    if rows.shape[1] != len(labels) or labels.all() or not labels.any():
        raise EvaluationError(
            f'{int(labels.sum())} of {len(labels)} rows are accomplished, {rows.shape[1]} have '
            'scores; needed are some of both kinds, and a score for each')
    if not np.isfinite(rows).all():
        raise EvaluationError('a score is not finite')

    def statistics(weights: Floats) -> Floats:
        found = np.mean([_curves(row, labels, weights) for row in rows], axis=0)
        # Of a draw that has one kind alone nothing is known.
        known = (weights @ labels > 0) & (weights @ ~labels > 0)
        return np.where(known[:, None], found, np.nan)

    return dict(zip(
        NAMES, resample_weights(statistics, clusters, draws=draws, seed=seed), strict=True))


def _curves(scores: Floats, done: Bools, weights: Floats) -> Floats:
    """
    Measure detection by many sets of weights at once: float64 [D, 3], see NAMES.

    scikit-learn's functions take one set at a time, and nearly all of an evaluation's time went
    into their checks of arguments.

    :param scores: [n].
    :param done: bool [n].
    :param weights: how much each row counts, [D, n].
    """
    order = np.argsort(-scores, kind='stable')
    # Rows of one score are above a threshold together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right = done[order]
    found = np.cumsum(weights[:, order] * right, axis=1)[:, last]
    false = np.cumsum(weights[:, order] * ~right, axis=1)[:, last]
    with np.errstate(divide='ignore', invalid='ignore'):
        recall, alarms = found / found[:, -1:], false / false[:, -1:]
        # Where no row is above a threshold yet, recall does not grow either.
        precision = np.nan_to_num(found / (found + false))
    start = np.zeros((len(weights), 1))
    step = np.diff(alarms, axis=1, prepend=start)
    middle = recall - np.diff(recall, axis=1, prepend=start) / 2
    at = np.argmax(recall >= RECALL, axis=1)
    return np.stack([
        (step * middle).sum(1), (np.diff(recall, axis=1, prepend=start) * precision).sum(1),
        np.take_along_axis(alarms, at[:, None], axis=1)[:, 0]], axis=1)
