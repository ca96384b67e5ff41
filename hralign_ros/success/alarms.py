# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
False alarms: a SUCCESS while the task is not accomplished.

Below which threshold an episode would see one, and the quantiles of that.
"""

from collections.abc import Sequence
from dataclasses import replace
import math

from hralign_ros.runtime.decision import decide, Decision, DecisionRules, DecisionState, Status
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def alarm_level(
    stamps: NDArray[np.int64], probability: Doubles, dwell: int,
    done: NDArray[np.bool_] | None = None,
) -> float:
    """
    Return the supremum of thresholds at which `decide` would decide SUCCESS too early, or wrongly.

    SUCCESS needs the probability above the threshold in consecutive results over at least the
    dwell time; so this is the largest minimum over any such stretch.

    :param stamps: int64 [F], ascending [ns].
    :param probability: [F].
    :param dwell: [ns].
    :param done: bool [F], the task is accomplished; a stretch counts that ends before it first
        is. None: it never is.
    :returns: 0 where there is less to look at than the dwell time.
    """
    if done is not None and done.any():
        before = int(done.argmax())
        stamps, probability = stamps[:before], probability[:before]
    ends = np.searchsorted(stamps, stamps + dwell, 'left')
    return max((float(probability[i:end + 1].min()) for i, end in enumerate(ends)
                if end < len(stamps)), default=0.0)


def decided(
    stamps: NDArray[np.int64], probability: Doubles, threshold: float,
    rules: DecisionRules | None = None,
) -> int | None:
    """
    Return the first row at which SUCCESS is decided: `decide`, tick by tick.

    :param stamps: int64 [F], ascending [ns].
    :param probability: [F].
    :param rules: all but the threshold; None: the defaults.
    """
    rules = replace(rules or DecisionRules(), threshold=threshold)
    state = DecisionState()
    for row, (stamp, value) in enumerate(zip(stamps, probability, strict=True)):
        state, decision = decide(state, rules, stamp=int(stamp), probability=float(value),
                                 modes=(), status=Status.OK)
        if decision is Decision.SUCCESS:
            return row
    return None


def conformal_threshold(levels: Sequence[float] | Doubles, alpha: float) -> float | None:
    """
    Choose the threshold that an episode exchangeable with these exceeds with chance alpha at most.

    Split conformal prediction: the ceil((n + 1)(1 - alpha))-th smallest level.

    :param levels: of episodes of one kind.
    :returns: None where there are too few of them for this alpha.
    """
    rank = math.ceil((len(levels) + 1) * (1.0 - alpha) - 1e-9)
    if rank > len(levels):
        return None
    return float(np.sort(np.asarray(levels, np.float64))[rank - 1])
