# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well a score tells ticks in which the task is accomplished from all others."""

from collections.abc import Callable

from hralign_ros.evaluation.bootstrap import Estimate, EvaluationError, Floats, Labels, resample
from hralign_ros.evaluation.metrics.rows import Bools
import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

RECALL = 0.95


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
    labels = np.asarray(done, bool)
    if rows.shape[1] != len(labels) or labels.all() or not labels.any():
        raise EvaluationError(
            f'{int(labels.sum())} of {len(labels)} rows are accomplished, {rows.shape[1]} have '
            'scores; needed are some of both kinds, and a score for each')
    if not np.isfinite(rows).all():
        raise EvaluationError('a score is not finite')

    def over(statistic: Callable[[Bools, Floats], float]) -> Estimate:
        def value(chosen: np.ndarray) -> float:
            truth = labels[chosen]
            if truth.all() or not truth.any():
                return float('nan')
            return float(np.mean([statistic(truth, row[chosen]) for row in rows]))
        return resample(value, clusters, draws=draws, seed=seed)

    return {name: over(statistic) for name, statistic in (
        ('auroc', roc_auc_score), ('average_precision', average_precision_score),
        ('fpr_at_95_recall', fpr_at_recall))}


def fpr_at_recall(done: Bools, scores: Floats, recall: float = RECALL) -> float:
    """Return the least fraction of false positives at which at least `recall` is found."""
    false, found, _ = roc_curve(done, scores, drop_intermediate=False)
    return float(false[np.argmax(found >= recall)])
