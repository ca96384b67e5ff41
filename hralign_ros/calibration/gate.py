# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The gate of every way to a bundle: scores that do not beat elapsed time decide nothing.

And what so many attempts can back: the largest score of n attempts bounds the expected rate of
false alarms by 1 / (n + 1), and with 90 % confidence only by 1 - 0.1 ** (1 / n).
"""

from collections.abc import Sequence
import math

from hralign_ros.runtime.tasks import Evidence
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Doubles = NDArray[np.float64]
# Rates that are offered where enough attempts back them, beside the smallest one that they do.
RATES = (0.01, 0.05, 0.1, 0.2)
CONFIDENCE = 0.9
# Attempts of each kind below which nothing can be said: told right by luck too often.
LEAST = 4
# One-sided.
_LOW = 0.05
_RESAMPLES = 1000


def measure_evidence(
    levels: Sequence[float] | Doubles, durations_s: Sequence[float] | Doubles,
    succeeds: Sequence[bool] | NDArray[np.bool_], *, seed: int = 0,
) -> Evidence | None:
    """
    Compare what scores tell of attempts with what their duration tells.

    Scores that only follow the time since an attempt began rise as far as it lasts, and tell
    successes from failures no better than the clock. Attempts are resampled, those that succeed
    and those that do not apart, for the lower bound; as few attempts may all be told right by
    luck, it is also lowered as if one more of the scarcer kind were told wrong.

    :param levels: of each attempt, the highest score that it holds long enough to be decided, by a
        model that was not fitted to it.
    :param durations_s: of each attempt.
    :returns: None where there are not LEAST attempts of each kind.
    """
    kinds = np.asarray(succeeds, np.bool_)
    fewest = int(min(kinds.sum(), (~kinds).sum()))
    if fewest < LEAST:
        return None

    def pairs(values: Sequence[float] | Doubles) -> Doubles:
        """Compare every success with every failure: 1 where it has more, half where the same."""
        values = np.asarray(values, np.float64)
        difference = values[kinds][:, None] - values[~kinds]
        return np.asarray((np.sign(difference) + 1.0) / 2.0)

    ours, clock = pairs(levels), pairs(durations_s)
    rng = np.random.default_rng(seed)
    drawn = [ours[rng.integers(len(ours), size=len(ours))][
        :, rng.integers(ours.shape[1], size=ours.shape[1])].mean() for _ in range(_RESAMPLES)]
    low = float(np.quantile(drawn, _LOW)) * fewest / (fewest + 1.0)
    return Evidence(round(float(ours.mean()), 4), round(low, 4), round(float(clock.mean()), 4),
                    len(kinds))


def offered_rates(attempts: int) -> tuple[float, ...]:
    """List the false-alarm rates that so many attempts of either kind can back, ascending."""
    if attempts < 1:
        return ()
    least = math.ceil(1e4 / (attempts + 1.0)) / 1e4
    return tuple(sorted({least, *(rate for rate in RATES if rate > least)}))


def bound_with_confidence(attempts: int, rate: float, confidence: float = CONFIDENCE) -> float:
    """
    Bound, with a confidence, the rate of false alarms at the threshold of an expected rate.

    The threshold is the k-th largest of n scores; the rate beyond it is distributed as Beta(k, n -
    k + 1), whatever the distribution of the scores. For the largest that is 1 - 0.1 ** (1 / n).

    :param attempts: n.
    """
    largest = attempts - math.ceil((attempts + 1) * (1.0 - rate) - 1e-9) + 1
    return float(beta.ppf(confidence, largest, attempts - largest + 1))


def attempts_for(rate: float) -> int:
    """Count the attempts of either kind that back a rate of false alarms."""
    return math.ceil(1.0 / rate - 1.0 - 1e-9)
