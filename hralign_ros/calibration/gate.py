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
from sklearn.metrics import roc_auc_score

Doubles = NDArray[np.float64]
# Rates that are offered where enough attempts back them, beside the smallest one that they do.
RATES = (0.01, 0.05, 0.1, 0.2)
CONFIDENCE = 0.9
# One-sided.
_LOW = 0.05
_RESAMPLES = 300


def measure_evidence(
    scores: Sequence[Doubles], times: Sequence[Doubles], done: Sequence[NDArray[np.floating]], *,
    seed: int = 0,
) -> Evidence | None:
    """
    Compare scores with the time since each attempt began.

    Attempts are resampled, those that succeed and those that do not apart, for the lower bound. As
    few attempts may all be told right by luck, the bound is also lowered as if one more attempt of
    the scarcer kind were told wrong.

    :param scores: of each attempt, by a model that was not fitted to it, [F].
    :param times: seconds since it began, [F].
    :param done: 1, 0, or NaN where it is not known, [F].
    :returns: None where there are not two attempts of each kind.
    """
    known = [~np.isnan(d) for d in done]
    kinds = np.array([bool((d == 1).any()) for d in done])
    fewest = int(min(kinds.sum(), (~kinds).sum()))
    if fewest < 2:
        return None
    flags = np.concatenate([d[k] == 1 for d, k in zip(done, known, strict=True)])
    owner = np.repeat(np.arange(len(done)), [int(k.sum()) for k in known])
    each = 1.0 / np.bincount(owner, minlength=len(done))[owner]
    rows, clock = (np.concatenate([x[k] for x, k in zip(some, known, strict=True)])
                   for some in (scores, times))

    def auroc(values: Doubles, counts: Doubles) -> float:
        return float(roc_auc_score(flags, values, sample_weight=each * counts[owner]))

    once = np.ones(len(done))
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_RESAMPLES):
        counts = np.zeros(len(done))
        for kind in (kinds, ~kinds):
            rows_of = np.flatnonzero(kind)
            counts += np.bincount(rng.choice(rows_of, len(rows_of)), minlength=len(done))
        drawn.append(auroc(rows, counts))
    low = float(np.quantile(drawn, _LOW)) * fewest / (fewest + 1.0)
    return Evidence(round(auroc(rows, once), 4), round(low, 4), round(auroc(clock, once), 4),
                    len(done))


def offered_rates(attempts: int) -> tuple[float, ...]:
    """List the false-alarm rates that so many attempts of either kind can back, ascending."""
    if attempts < 1:
        return ()
    least = math.ceil(1e4 / (attempts + 1.0)) / 1e4
    return tuple(sorted({least, *(rate for rate in RATES if rate > least)}))


def bound_with_confidence(attempts: int, confidence: float = CONFIDENCE) -> float:
    """
    Bound the rate of false alarms with a confidence.

    :param attempts: n, whose largest score is the threshold.
    """
    return float(1.0 - (1.0 - confidence) ** (1.0 / attempts))


def attempts_for(rate: float) -> int:
    """Count the attempts of either kind that back a rate of false alarms."""
    return math.ceil(1.0 / rate - 1.0 - 1e-9)
