# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
False alarms: a SUCCESS while the task is not accomplished.

Below which threshold an episode would see one, and the quantiles of that.
"""

from collections.abc import Sequence
import math

from hralign_ros.runtime.decision import Decider, Decision, Status
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def nonconformity_score(
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
    :returns: 0 where the recording is shorter than the dwell time.
    """
    if done is not None and done.any():
        before = int(done.argmax())
        stamps, probability = stamps[:before], probability[:before]
    ends = np.searchsorted(stamps, stamps + dwell, 'left')
    return max((float(probability[i:end + 1].min()) for i, end in enumerate(ends)
                if end < len(stamps)), default=0.0)


def decided(
    stamps: NDArray[np.int64], probability: Doubles, threshold: float | Doubles, *,
    status: NDArray[np.int64] | None = None, risks: Doubles | None = None,
    failure_thresholds: Doubles | None = None,
) -> int | None:
    """
    Return the first row at which SUCCESS is decided: tick by tick, by the decider's defaults.

    :param stamps: int64 [F], ascending [ns].
    :param probability: [F], NaN where there is none.
    :param threshold: of all ticks, or of each [F], NaN where there is none.
    :param status: int64 [F], bits of each tick; None: all OK.
    :param risks: [F, K], the probability of having failed in each mode; None: modes are not asked.
    :param failure_thresholds: of risks, [F], NaN where there is none; None: the decider's own.
    """
    thresholds = np.broadcast_to(np.asarray(threshold, np.float64), len(stamps))
    decider = Decider()
    for row, stamp in enumerate(stamps.tolist()):
        decision = decider(
            stamp, probability=_number(probability[row]), threshold=_number(thresholds[row]),
            modes=() if risks is None else risks[row].tolist(),
            status=Status.OK if status is None else Status(int(status[row])),
            failure_threshold=None if failure_thresholds is None
            else _number(failure_thresholds[row]))
        if decision in (Decision.SUCCESS, Decision.FAILURE):
            return row if decision is Decision.SUCCESS else None
    return None


def _number(value: np.floating) -> float | None:
    return None if math.isnan(value) else float(value)


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
