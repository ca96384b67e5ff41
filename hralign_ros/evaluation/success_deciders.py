# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What alarms, misses and delays are measured of: whatever gives probabilities and decides."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from hralign_ros.calibration.calibrate import ALPHA, Calibrated, CalibrationMap
from hralign_ros.calibration.conformal import decided
from hralign_ros.calibration.scorer import Scored, Scorer
from hralign_ros.runtime.decision import Status
from hralign_ros.training.success_clips import Recording
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class SuccessModel(Protocol):
    """What alarms, delays and calibration are measured of: a calibrated head, or a bundle."""

    @property
    def seed(self) -> int:
        """Return the seed that it was trained with."""

    def __call__(self, recording: Recording) -> Scored:
        """Score a recording for its own instruction."""

    def probability(self, scored: Scored) -> Doubles:
        """Return the probability of every tick [F]; NaN where there is none."""

    def threshold(self, scored: Scored, alpha: float = ALPHA) -> float:
        """Return what SUCCESS needs; above 1 where it is not known."""

    def thresholds_from(self, task_id: str) -> str:
        """Tell what a task's thresholds rest on."""

    def decides(self, scored: Scored, alpha: float = ALPHA) -> bool:
        """Tell whether there is a threshold, without which all decisions are ABSTAIN."""

    def decision(self, scored: Scored, alpha: float = ALPHA) -> int | None:
        """Return the row at which SUCCESS is decided."""


def decided_on(
    ours: Sequence[SuccessModel], recordings: Sequence[Recording], alpha: float,
) -> tuple[list[Recording], str]:
    """
    Take the recordings that decisions of this rate are made on; of others nothing is shown.

    :returns: those, and a note of how many are not among them.
    """
    some = [recording for recording in recordings
            if all(one.decides(one(recording), alpha) for one in ours)]
    return some, f'{len(recordings) - len(some)} attempts have no threshold, and are left out' \
        if len(some) < len(recordings) else ''


class CalibratedScorer:
    """A scorer with its calibration maps: probabilities of ticks, by the views of each."""

    def __init__(self, scorer: Scorer, found: Calibrated) -> None:
        self.scorer, self.found = scorer, found

    @property
    def seed(self) -> int:
        """Return the seed that the head was trained with."""
        return self.scorer.run.options.seed

    def __call__(self, recording: Recording) -> Scored:
        """Score a recording as it is, for its own instruction."""
        return self.scorer.score(self.scorer.trace_of(recording))

    def probability(self, scored: Scored) -> Doubles:
        """Map raw scores to probabilities [F]; NaN where the views there have no map."""
        result = np.full(len(scored.scores), np.nan)
        for rows, map_ in self._maps(scored):
            result[rows] = map_.fitted.apply(scored.scores[rows])
        return result

    def _maps(self, scored: Scored) -> Iterator[tuple[NDArray[np.bool_], CalibrationMap]]:
        """Give the ticks [F] of each set of views that took part, and the map of that set."""
        live, names = scored.trace.live, np.array(self.scorer.views)
        for views in np.unique(live, axis=0):
            map_ = self.found.map_for(scored.task_id, names[views])
            if map_ is not None:
                yield (live == views).all(1), map_

    def threshold(self, scored: Scored, alpha: float = ALPHA) -> float:
        """Return what SUCCESS needs, with all views; above 1 where it is not known."""
        map_ = self.found.map_for(scored.task_id, self.scorer.views)
        return 2.0 if map_ is None else map_.thresholds.get(alpha, 2.0)

    def thresholds_from(self, task_id: str) -> str:
        """Tell whose calibration episodes a task's thresholds rest on."""
        map_ = self.found.map_for(task_id, self.scorer.views)
        return 'own' if map_ is not None and map_.own else 'all tasks'

    def decides(self, scored: Scored, alpha: float = ALPHA) -> bool:
        """Tell whether there is a threshold for any of its ticks."""
        return any(alpha in map_.thresholds for _, map_ in self._maps(scored))

    def decision(self, scored: Scored, alpha: float = ALPHA) -> int | None:
        """
        Return the row at which SUCCESS is decided, by the thresholds of the views there.

        As the node would by its defaults: ABSTAIN out of distribution, and FAILURE once one of its
        modes has been probable for long enough.
        """
        thresholds = np.full(len(scored.scores), np.nan)
        for rows, map_ in self._maps(scored):
            thresholds[rows] = map_.thresholds.get(alpha, np.nan)
        out_of_distribution = scored.trace.ood_score > self.found.ood_threshold
        return decided(
            scored.stamps, self.probability(scored), thresholds,
            status=np.where(out_of_distribution, int(Status.OUT_OF_DISTRIBUTION), 0),
            risks=scored.risks)
