# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether a probability means what it says."""

from dataclasses import replace

from hralign_ros.evaluation.bootstrap import Estimate, EvaluationError, Floats, Labels, resample
from hralign_ros.evaluation.metrics.rows import Bools
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr

BINS = 15
_TINY = 1e-7


def calibrated(
    probability: ArrayLike, done: ArrayLike, clusters: Labels, *, draws: int = 500, seed: int = 0,
) -> dict[str, Estimate]:
    """
    Measure how far probabilities are from frequencies.

    :param probability: [n], 0 to 1, or [S, n] of S training seeds on the same rows.
    :param done: bool [n].
    :param clusters: [n].
    :returns: by name: expected_calibration_error over bins of equal mass, less what chance alone
        gives (see `expected_error`); brier_score, the mean squared error; negative_log_likelihood,
        its mean, nats.
    :raises EvaluationError: a value is outside of 0 to 1, or shapes do not fit.
    """
    rows = np.atleast_2d(np.asarray(probability, np.float64))
    truth = np.asarray(done, bool)
    if rows.shape[1] != len(truth) or not len(truth):
        raise EvaluationError(f'{rows.shape[1]} probabilities for {len(truth)} labels')
    if not (np.isfinite(rows).all() and rows.min() >= 0 and rows.max() <= 1):
        raise EvaluationError('a probability is outside of 0 to 1')
    clipped = np.clip(rows, _TINY, 1 - _TINY)
    loss = -np.where(truth, np.log(clipped), np.log1p(-clipped)).mean(0)
    square = ((rows - truth) ** 2).mean(0)
    ece = resample(
        lambda chosen: float(np.mean([
            expected_error(row[chosen], truth[chosen]) for row in rows])),
        clusters, draws=draws, seed=seed, centred=True)
    return {
        'expected_calibration_error': replace(ece, low=max(ece.low, 0.0)),
        'brier_score': resample(
            lambda chosen: float(square[chosen].mean()), clusters, draws=draws, seed=seed),
        'negative_log_likelihood': resample(
            lambda chosen: float(loss[chosen].mean()), clusters, draws=draws, seed=seed)}


def brier_parts(probability: Floats, done: Bools, bins: int = BINS) -> dict[str, float]:
    """
    Return reliability, resolution and uncertainty, which make the Brier score up.

    It is reliability - resolution + uncertainty, up to the spread within bins.

    :param probability: [S, n].
    :param done: [n].
    """
    groups = [(members, row) for row in probability for members in equal_mass(row, bins)]
    base = float(done.mean())
    weight = [len(members) / probability.size for members, _ in groups]
    reliability = sum(w * float(row[m].mean() - done[m].mean()) ** 2
                      for w, (m, row) in zip(weight, groups, strict=True))
    resolution = sum(w * float(done[m].mean() - base) ** 2
                     for w, (m, _) in zip(weight, groups, strict=True))
    return {'reliability': reliability, 'resolution': resolution,
            'uncertainty': base * (1 - base)}


def with_prevalence(probability: ArrayLike, prevalence: float) -> Floats:
    """
    Shift probabilities by one number in log-odds so that their mean is a fraction that is known.

    What is left of the calibration error then is not that successes are more frequent here than
    they were where the probabilities were calibrated.

    :param probability: [n], 0 to 1.
    :param fraction: of successes among the rows, within 0 and 1.
    :raises EvaluationError: the fraction is 0 or 1, which no shift reaches.
    """
    if not 0.0 < prevalence < 1.0:
        raise EvaluationError(f'the prevalence is {prevalence}; needed is one within 0 and 1')
    odds = logit(np.clip(np.asarray(probability, np.float64), _TINY, 1 - _TINY))
    shift = brentq(lambda by: float(expit(odds + by).mean()) - prevalence, -60.0, 60.0)
    return np.asarray(expit(odds + shift), np.float64)


def equal_mass(probability: Floats, bins: int = BINS) -> list[np.ndarray]:
    """Sort rows into bins of as nearly equal size as can be; row numbers of each."""
    order = np.argsort(probability, kind='stable')
    return [part for part in np.array_split(order, min(bins, len(order))) if len(part)]


def expected_error(probability: Floats, done: Bools, bins: int = BINS) -> float:
    """
    Return the debiased expected calibration error (L1, bins of equal mass).

    In a bin of m rows the frequency scatters about its mean even where the probability is right,
    so gaps look larger than they are. By how much a gap of the observed size would look larger
    still (the mean of a folded normal) is taken off: about half of a gap that is chance alone,
    next to nothing of a large one. After Kumar et al., Verified Uncertainty Calibration, 2019.
    """
    total = 0.0
    for members in equal_mass(probability, bins):
        p = probability[members]
        gap = abs(float(p.mean() - done[members].mean()))
        # By the probabilities: the frequency of a small bin may be 0 or 1.
        scatter = float((p * (1 - p)).mean() / len(members)) ** 0.5
        total += len(members) / len(probability) * (2 * gap - _folded_mean(gap, scatter))
    return max(total, 0.0)


def _folded_mean(mean: float, spread: float) -> float:
    """Return the mean absolute value of a normal variable."""
    if spread == 0.0:
        return abs(mean)
    ratio = mean / spread
    return float(spread * np.sqrt(2 / np.pi) * np.exp(-ratio ** 2 / 2)
                 + mean * (1 - 2 * ndtr(-ratio)))
