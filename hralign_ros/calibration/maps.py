# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From raw scores to probabilities: four ways to fit that, and which one the data prefer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.tasks import Method, METHODS, probability_of
import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]
# What the runtime reads: plain numbers and lists.
Parameters = dict[str, Any]
_FOLDS = 5
_TINY = 1e-7
# The least that a probability rises with its score.
FLATTEST = 1e-3


@dataclass(frozen=True)
class Fitted:
    """
    A calibration.

    :param method: one of METHODS.
    :param parameters: as tasks.yaml has them.
    :param losses: mean negative log-likelihood on left-out episodes, by method.
    :param count: rows fitted to; `episodes` of them.
    """

    method: Method
    parameters: Parameters
    losses: Mapping[Method, float]
    count: int
    episodes: int

    def apply(self, scores: Doubles) -> Doubles:
        """Map raw scores to probabilities."""
        return probability_of(self.method, self.parameters, scores)


def fit(
    method: str, scores: Doubles, done: Flags, weights: Doubles | None = None,
) -> Parameters:
    """
    Fit one method.

    :param scores: raw scores [n].
    :param done: bool [n].
    :param weights: [n], how much each row counts; None: all the same.
    :raises DataError: all rows have the same label.
    """
    if done.all() or not done.any():
        raise DataError('calibration needs rows that are accomplished and rows that are not')
    # So that a row is a row on average: half of one is what keeps steps from 0 and 1.
    weights = np.ones(len(scores)) if weights is None else weights / weights.mean()
    if method == 'isotonic':
        return _isotonic(scores, done, weights)
    # Next to unregularised: the prior of a million rows at the identity would be as weak.
    model = LogisticRegression(C=1e6, max_iter=1000, fit_intercept=method != 'temperature')
    if method == 'beta':
        rows = _log_odds_parts(scores)
        model.fit(rows, done, weights)
        a, b = (max(float(x), 0.0) for x in model.coef_[0])
        return {'a': a, 'b': b, 'c': float(model.intercept_[0])}
    model.fit(scores[:, None], done, weights)
    shift = float(model.intercept_[0]) if method != 'temperature' else 0.0
    return {'scale': max(float(model.coef_[0, 0]), FLATTEST), 'shift': shift}


def fit_few(scores: Sequence[Doubles], done: Sequence[Flags]) -> Fitted:
    """
    Fit Platt's map to few clips, each counting as one however many ticks it has.

    With his targets (Platt, 1999): of n clips that show a label the map should say (n + 1) /
    (n + 2), not 1. The ticks of a clip are alike, so n are clips.

    :param scores: of each clip, raw [F].
    :param done: of each clip, bool [F].
    :raises DataError: all rows have the same label.
    """
    rows, flags = np.concatenate(scores), np.concatenate(done)
    if flags.all() or not flags.any():
        raise DataError('calibration needs rows that are accomplished and rows that are not')
    weights = np.concatenate([np.full(len(s), 1.0 / max(len(s), 1)) for s in scores])
    good, bad = sum(bool(d.any()) for d in done), sum(not d.all() for d in done)
    target = np.where(flags, (good + 1.0) / (good + 2.0), 1.0 / (bad + 2.0))
    model = LogisticRegression(C=1e6, max_iter=1000)
    model.fit(np.r_[rows, rows][:, None], np.r_[np.ones(len(rows)), np.zeros(len(rows))],
              np.r_[weights * target, weights * (1.0 - target)] / weights.mean())
    scale, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    if scale <= FLATTEST:  # they fall with success, or tell nothing: the same for all of them
        share = float(np.average(target, weights=weights))
        scale, shift = FLATTEST, math.log(share / (1.0 - share))
    return Fitted('platt', {'scale': scale, 'shift': shift}, {}, len(rows), len(scores))


def choose(
    scores: Doubles, done: Flags, episodes: NDArray[np.str_], *,
    weights: Doubles | None = None, methods: Sequence[Method] = METHODS, seed: int = 0,
) -> Fitted:
    """
    Fit the method that does best on episodes it was not fitted to.

    :param episodes: name of each row's episode [n]; rows of one stay together.
    :param weights: [n], how much each row counts; None: all the same.
    :raises DataError: all rows have the same label.
    """
    names, group = np.unique(episodes, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(names))[group] % _FOLDS
    weights = np.ones(len(scores)) if weights is None else weights
    losses: dict[Method, float] = {}
    for method in methods:
        total = 0.0
        for k in range(_FOLDS):
            apart = fold == k
            if not apart.any() or done[~apart].all() or not done[~apart].any():
                continue
            parameters = fit(method, scores[~apart], done[~apart], weights[~apart])
            total += weights[apart] @ _nll(
                probability_of(method, parameters, scores[apart]), done[apart])
        losses[method] = float(total / weights.sum())
    best = min(losses, key=lambda method: losses[method])
    return Fitted(best, fit(best, scores, done, weights), losses, len(done), len(names))


def _isotonic(scores: Doubles, done: Flags, weights: Doubles) -> Parameters:
    """
    Fit steps; each rises by a hair, and so does what is beyond the ends: there are no ties.

    A threshold could otherwise fall on the probability of many episodes at once.
    """
    steps = IsotonicRegression(out_of_bounds='clip').fit(
        scores, done.astype(float), weights).predict(scores)
    order = np.argsort(scores, kind='stable')
    scores, steps, weights = scores[order], steps[order], weights[order]
    starts = np.flatnonzero(np.r_[True, np.diff(steps) > 0])
    ends = np.r_[starts[1:], len(steps)] - 1
    counts = np.add.reduceat(weights, starts)
    mean = float(weights @ steps / weights.sum())
    # Never quite 0 or 1: half an observation of the mean is added to each step.
    level = np.maximum.accumulate((steps[starts] * counts + 0.5 * mean) / (counts + 0.5))
    knots = np.stack([scores[starts], scores[ends]], axis=1).ravel()
    levels = np.repeat(level, 2)
    far = 10.0 * max(float(np.ptp(scores)), 1.0)
    knots = np.r_[knots[0] - far, knots, knots[-1] + far]
    levels = np.r_[0.5 * levels[0], levels, 0.5 * (1.0 + levels[-1])]
    hair = 1e-6 * np.arange(len(levels)) / len(levels)
    knots, first = np.unique(knots, return_index=True)
    levels = np.clip((levels + hair)[first], 0.0, 1.0)
    return {'scores': [round(float(x), 7) for x in knots],
            'probabilities': [round(float(x), 9) for x in np.maximum.accumulate(levels)]}


def _log_odds_parts(scores: Doubles) -> Doubles:
    """Return ln p and -ln(1 - p) of the probability that a raw score is the log-odds of."""
    return np.stack([-np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores)], axis=1)


def _nll(probability: Doubles, done: Flags) -> Doubles:
    probability = np.clip(probability, _TINY, 1.0 - _TINY)
    return np.asarray(-np.where(done, np.log(probability), np.log1p(-probability)))
