# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What alarms, misses and delays are measured of: whatever gives probabilities and decides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from hralign_ros.calibration.calibrate import ALPHA, Calibrated, CalibrationMap
from hralign_ros.calibration.conformal import decided
from hralign_ros.calibration.scorer import Scored, Scorer
from hralign_ros.runtime.decision import Status
from hralign_ros.training.success_clips import Recording
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


class SuccessModel(ABC):
    """
    What alarms, delays and calibration are measured of: a calibrated head, or a bundle.

    :ivar seed: that it was trained with.
    """

    seed: int

    @abstractmethod
    def __call__(self, recording: Recording) -> Scored:
        """Score a recording as it is, for its own instruction."""

    @abstractmethod
    def probability(self, scored: Scored) -> Doubles:
        """Return the probability of every tick [F]; NaN where there is none."""

    @abstractmethod
    def thresholds(self, scored: Scored, alpha: float = ALPHA) -> Doubles:
        """Return what SUCCESS needs in every tick [F]; NaN where there is no threshold."""

    @abstractmethod
    def status(self, scored: Scored) -> NDArray[np.int64]:
        """Return the status bits of every tick [F] that decisions look at."""

    @abstractmethod
    def thresholds_from(self, task_id: str) -> str:
        """Tell what a task's thresholds rest on."""

    def decides(self, scored: Scored, alpha: float = ALPHA) -> bool:
        """Tell whether any tick can be decided on: without a threshold decisions are ABSTAIN."""
        stopped = self.status(scored) & int(Status.UNKNOWN_TASK | Status.UNCALIBRATED) != 0
        return bool((np.isfinite(self.thresholds(scored, alpha)) & ~stopped).any())

    def decision(self, scored: Scored, alpha: float = ALPHA) -> int | None:
        """
        Return the row at which SUCCESS is decided, by the thresholds of the views there.

        As the node would by its defaults: ABSTAIN out of distribution, and FAILURE once one of its
        modes has been probable for long enough.
        """
        return decided(scored.stamps, self.probability(scored), self.thresholds(scored, alpha),
                       status=self.status(scored), risks=scored.risks)


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


class CalibratedScorer(SuccessModel):
    """A scorer with its calibration maps: probabilities of ticks, by the views of each."""

    def __init__(self, scorer: Scorer, found: Calibrated) -> None:
        self.scorer, self.found = scorer, found
        self.seed = scorer.run.options.seed

    def __call__(self, recording: Recording) -> Scored:
        """Score a recording as it is, for its own instruction."""
        return self.scorer.score(self.scorer.trace_of(recording))

    def probability(self, scored: Scored) -> Doubles:
        """Map raw scores to probabilities [F]; NaN where the views there have no map."""
        return self._by_views(scored, lambda map_, rows: map_.fitted.apply(scored.scores[rows]))

    def thresholds(self, scored: Scored, alpha: float = ALPHA) -> Doubles:
        """Return the thresholds of the views of every tick [F]; NaN where there is none."""
        return self._by_views(scored, lambda map_, _: map_.thresholds.get(alpha, np.nan))

    def _by_views(
        self, scored: Scored,
        value: Callable[[CalibrationMap, NDArray[np.bool_]], Doubles | float],
    ) -> Doubles:
        """Fill in values of the ticks [F] of each set of views that took part, by its map."""
        live, names = scored.trace.live, np.array(self.scorer.views)
        result = np.full(len(scored.scores), np.nan)
        for views in np.unique(live, axis=0):
            map_ = self.found.map_for(scored.task_id, names[views])
            if map_ is not None:
                rows = (live == views).all(1)
                result[rows] = value(map_, rows)
        return result

    def status(self, scored: Scored) -> NDArray[np.int64]:
        """Tell which ticks [F] are out of distribution."""
        return np.where(scored.trace.ood_score > self.found.ood_threshold,
                        int(Status.OUT_OF_DISTRIBUTION), 0)

    def thresholds_from(self, task_id: str) -> str:
        """Tell whose calibration episodes a task's thresholds rest on."""
        map_ = self.found.map_for(task_id, self.scorer.views)
        return 'own' if map_ is not None and map_.own else 'all tasks'
