# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is decided of attempts whose probabilities are known, and which thresholds they back.

By the node's own decider, tick by tick.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from hralign_ros.calibration.conformal import conformal_threshold, nonconformity_score
from hralign_ros.calibration.gate import bound_with_confidence
from hralign_ros.runtime.decision import Decider, Decision, DecisionRules, Status
from hralign_ros.runtime.tasks import Calibration, EVEN
from hralign_ros.training.attempts import Attempt, RATE_HZ
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
# In whole ticks: a camera that is faster than the recordings shows more moments to a shorter time.
_TICK = round(1e9 / RATE_HZ)
DWELL = -(-DecisionRules().dwell // _TICK) * _TICK
# Of attempts: levels, kinds (1: success) and rows of those that are long enough.
Levels = tuple[Doubles, NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Scored:
    """
    An attempt with the probabilities that heads not fitted to it gave.

    :param probability: float64 [F], of success.
    :param risk: float64 [F], of having failed; None: not learned.
    :param out: bool [F], out of distribution.
    """

    attempt: Attempt
    probability: Doubles
    risk: Doubles | None
    out: NDArray[np.bool_]


@dataclass(frozen=True)
class RateRow:
    """
    What a false-alarm rate costs, on attempts left out.

    :param sure: the rate of false alarms of failures is no higher, with 90 % confidence.
    :param threshold: of the probability.
    :param decided: successes called SUCCESS, not too early, of `successes`.
    :param early: successes called before the task is known to be accomplished.
    :param false: failures called SUCCESS, of `failures`.
    :param delays_s: from the first tick that is known to be accomplished to the call.
    :param stopped: failures called FAILURE; `wrongly_stopped`: successes called so.
    """

    rate: float
    sure: float
    threshold: float
    successes: int
    failures: int
    decided: int
    early: int
    false: int
    delays_s: tuple[float, ...]
    stopped: int
    wrongly_stopped: int


def _before(attempt: Attempt) -> int:
    """Count the ticks before the task may be accomplished: all of a failure's."""
    return int((attempt.done != 0).argmax()) if attempt.succeeds else len(attempt.time_s)


def attempt_levels(
    own: Sequence[Attempt], probabilities: Sequence[Doubles],
) -> Levels:
    """
    Say at which threshold each attempt would alarm: a failure at all, a success too early.

    :returns: levels, kinds (1: success) and rows of the attempts that are long enough.
    """
    found = []
    for i, (a, p) in enumerate(zip(own, probabilities, strict=True)):
        end = _before(a)
        if end and a.stamps[end - 1] - a.stamps[0] >= DWELL:
            found.append((nonconformity_score(a.stamps[:end], p[:end], DWELL),
                          int(a.succeeds), i))
    return (np.array([level for level, _, _ in found]),
            np.array([kind for _, kind, _ in found], np.int64),
            np.array([i for _, _, i in found], np.int64))


def choose_threshold(
    levels: Levels, rate: float,
    without: NDArray[np.bool_] | None = None,
) -> float | None:
    """
    Choose the threshold of a rate, which each kind of attempt has to keep.

    :param without: bool, attempts that it must not know; fewer may back the rate no more, and the
        highest of all is taken then.
    """
    chosen = [EVEN]
    for kind in (0, 1):
        used = levels[1] == kind
        if without is not None:
            used &= ~without[levels[2]]
        some = levels[0][used]
        threshold = conformal_threshold(some, rate)
        if threshold is None and without is None:
            return None
        chosen.append(float(some.max(initial=EVEN)) if threshold is None else threshold)
    return max(chosen)


def rate_table(
    calibration: Calibration, scored: Sequence[Scored], fold: NDArray[np.int64] | None = None,
) -> tuple[RateRow, ...]:
    """
    Say what each rate that can be decided costs on attempts that nothing was fitted to.

    :param fold: of each attempt, where thresholds are of these attempts: each is then decided by
        a threshold that does not know its fold.
    """
    good = sum(one.attempt.succeeds for one in scored)
    levels = attempt_levels([one.attempt for one in scored], [one.probability for one in scored])
    table = []
    for rate in calibration.rates:
        threshold = calibration.threshold(rate)
        assert threshold is not None
        count: Counter[str] = Counter()
        delays = []
        for i, one in enumerate(scored):
            a = one.attempt
            used = threshold if fold is None else choose_threshold(levels, rate, fold == fold[i])
            assert used is not None
            said, at = _decision(one, used, calibration.failure_threshold)
            if said is Decision.FAILURE:
                count['wrongly' if a.succeeds else 'stopped'] += 1
            elif said is Decision.SUCCESS and not a.succeeds:
                count['false'] += 1
            elif said is Decision.SUCCESS and at < _before(a):
                count['early'] += 1
            elif said is Decision.SUCCESS:
                count['decided'] += 1
                # Of an outcome alone nobody knows when the task was accomplished.
                if any(a.episode.success_flags):
                    first = int((a.done == 1).argmax())
                    delays.append(max(0.0, float(a.time_s[at] - a.time_s[first])))
        table.append(RateRow(
            rate, bound_with_confidence(calibration.failed, rate),
            threshold, good, len(scored) - good, count['decided'], count['early'],
            count['false'], tuple(delays), count['stopped'], count['wrongly']))
    return tuple(table)


def _decision(
    one: Scored, threshold: float, failure_threshold: float | None,
) -> tuple[Decision, int]:
    """Decide over an attempt as the node does; return what is decided, and at which tick."""
    decider = Decider()
    for row, stamp in enumerate(one.attempt.stamps.tolist()):
        said = decider(
            stamp, probability=float(one.probability[row]), threshold=threshold,
            modes=() if one.risk is None else (float(one.risk[row]),),
            status=Status.OUT_OF_DISTRIBUTION if one.out[row] else Status.OK,
            failure_threshold=failure_threshold, dwell=DWELL)
        if said in (Decision.SUCCESS, Decision.FAILURE):
            return said, row
    return Decision.RUNNING, len(one.probability)
