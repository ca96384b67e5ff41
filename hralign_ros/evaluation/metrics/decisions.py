# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How often decisions are wrong, and how late right ones are."""

from dataclasses import dataclass
import math

from hralign_ros.evaluation.bootstrap import EvaluationError
import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Rate:
    """
    A fraction of independent trials with its exact (Clopper-Pearson) 95 % interval.

    :param events: of `trials`.
    """

    events: int
    trials: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Give the fraction."""
        return self.events / self.trials


def rate(events: int, trials: int, level: float = 0.95) -> Rate:
    """
    Make a rate.

    :raises EvaluationError: no trial, or more events than trials.
    """
    if not 0 <= events <= trials or trials < 1:
        raise EvaluationError(f'{events} events in {trials} trials')
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, events, trials - events + 1) if events else 0.0
    high = stats.beta.ppf(1 - tail, events + 1, trials - events) if events < trials else 1.0
    return Rate(events, trials, float(low), float(high))


def rule_of_three(events: int, amount: float) -> float:
    """
    Bound a rate of rare events from above, with 95 % confidence.

    :param amount: independent segments, or hours, that were observed.
    :returns: events per unit; 3 / amount where none was seen.
    """
    if amount <= 0:
        raise EvaluationError(f'{amount} observed; needed is more than 0')
    return float(stats.chi2.ppf(0.95, 2 * (events + 1)) / 2 / amount)


@dataclass(frozen=True)
class Delays:
    """
    When SUCCESS was decided in episodes that do succeed.

    :param missed: never decided, or decided too early to be right.
    :param early: decided before the task was accomplished.
    :param median_s: from the first accomplished frame to the decision, of those in time; NaN
        where there is none.
    """

    missed: Rate
    early: Rate
    median_s: float
    p90_s: float


def delays(first_done_s: ArrayLike, decided_s: ArrayLike) -> Delays:
    """
    Measure decisions in successful episodes.

    :param first_done_s: [n], when the task was accomplished.
    :param decided_s: [n], when SUCCESS was decided; NaN for never.
    """
    first, decided = np.asarray(first_done_s, float), np.asarray(decided_s, float)
    if first.shape != decided.shape or not len(first):
        raise EvaluationError(f'{first.shape} and {decided.shape} cannot be paired')
    early = decided < first
    late = (decided - first)[~np.isnan(decided) & ~early]
    return Delays(
        rate(int(np.isnan(decided).sum()), len(first)), rate(int(early.sum()), len(first)),
        float(np.median(late)) if len(late) else math.nan,
        float(np.quantile(late, 0.9)) if len(late) else math.nan)
