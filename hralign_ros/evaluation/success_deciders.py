# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What alarms, misses and delays are measured of: whatever gives probabilities and decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hralign_ros.calibration.calibrate import ALPHA, ALPHAS
from hralign_ros.calibration.calibrated import Calibrated
from hralign_ros.calibration.conformal import decided
from hralign_ros.calibration.scorer import Scored, Scorer
from hralign_ros.runtime.decision import Status
from hralign_ros.training.success_clips import Recording
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Judged:
    """
    What a head or a bundle says of a recording, tick by tick.

    :param scored: with raw scores.
    :param probability: [F], NaN where there is none.
    :param thresholds: what SUCCESS needs, [F] by alpha; NaN where there is none.
    :param status: bits, int64 [F].
    :param ignored: bits that decisions do not look at.
    :param failure_thresholds: what FAILURE needs of a risk, [F]; NaN, or None: the decider's own.
    """

    scored: Scored
    probability: Doubles
    thresholds: Mapping[float, Doubles]
    status: NDArray[np.int64]
    ignored: Status = Status.OK
    failure_thresholds: Doubles | None = None

    def decides(self, alpha: float = ALPHA) -> bool:
        """Tell whether any tick can be decided on: without a threshold decisions are ABSTAIN."""
        stops = int((Status.UNKNOWN_TASK | Status.UNCALIBRATED) & ~self.ignored)
        return bool((np.isfinite(self.thresholds[alpha]) & (self.status & stops == 0)).any())

    def decision(self, alpha: float = ALPHA) -> int | None:
        """
        Return the row at which SUCCESS is decided, by the thresholds of the views there.

        As the node would by its defaults: ABSTAIN out of distribution, and FAILURE once one of its
        modes has been probable for long enough.
        """
        return decided(self.scored.stamps, self.probability, self.thresholds[alpha],
                       status=self.status & ~int(self.ignored), risks=self.scored.risks,
                       failure_thresholds=self.failure_thresholds)


class SuccessModel(Protocol):
    """A calibrated head, or a bundle."""

    seed: int

    def __call__(self, recording: Recording) -> Judged:
        """Judge a recording as it is, by its own instruction."""

    def thresholds_from(self, task_id: str) -> str:
        """Tell what a task's thresholds rest on."""


def decided_on(
    ours: Sequence[SuccessModel], recordings: Sequence[Recording], alpha: float,
) -> tuple[list[Recording], str]:
    """
    Take the recordings that decisions of this rate are made on; of others nothing is shown.

    :returns: those, and a note of how many are not among them.
    """
    some = [recording for recording in recordings
            if all(one(recording).decides(alpha) for one in ours)]
    return some, f'{len(recordings) - len(some)} attempts have no threshold, and are left out' \
        if len(some) < len(recordings) else ''


class CalibratedScorer:
    """
    A scorer with its calibration maps: probabilities of ticks, by the views of each.

    It remembers recordings by the names of their episodes, as the scorer does: `judge` is for
    those that were changed.
    """

    def __init__(self, scorer: Scorer, found: Calibrated) -> None:
        self.scorer, self.found = scorer, found
        self.seed = scorer.run.options.seed
        self._judged: dict[tuple[str, bool], Judged] = {}

    def __call__(self, recording: Recording) -> Judged:
        """Judge a recording as it is, by its own instruction, once."""
        key = recording.episode.episode_id, recording.human
        if key not in self._judged:
            self._judged[key] = self.judge(self.scorer.score(self.scorer.trace_of(recording)))
        return self._judged[key]

    def judge(self, scored: Scored) -> Judged:
        """Apply the map, and the thresholds, of the views that took part in each tick."""
        live, names = scored.trace.live, np.array(self.scorer.views)
        probability = np.full(len(scored.scores), np.nan)
        thresholds = {alpha: probability.copy() for alpha in ALPHAS}
        failure = probability.copy()
        for views in np.unique(live, axis=0):
            map_ = self.found.map_for(scored.task_id, names[views])
            if map_ is not None:
                rows = (live == views).all(1)
                probability[rows] = map_.fitted.apply(scored.scores[rows])
                for alpha, of_ticks in thresholds.items():
                    of_ticks[rows] = map_.thresholds.get(alpha, np.nan)
                failure[rows] = map_.failure_threshold
        return Judged(scored, probability, thresholds, np.where(
            scored.trace.ood_score > self.found.ood_threshold,
            int(Status.OUT_OF_DISTRIBUTION), 0), failure_thresholds=failure)

    def thresholds_from(self, task_id: str) -> str:
        """Tell whose calibration episodes a task's thresholds rest on."""
        map_ = self.found.map_for(task_id, self.scorer.views)
        return 'own' if map_ is not None and map_.own else 'all tasks'
