# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What calibration finds for a run, and how a bundle says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hralign_ros.calibration.maps import Fitted
from hralign_ros.runtime.tasks import Calibration, Evidence, FALLBACK, NEVER


@dataclass(frozen=True, eq=False)
class CalibrationMap:
    """
    How a task's raw scores become probabilities and decisions, with one set of views.

    :param thresholds: probability by false-alarm rate, which holds for attempts of either kind:
        no more of those that never succeed see a SUCCESS, and no more of those that do see one
        before.
    :param never_succeeding: episodes that never succeed, which thresholds rest on.
    :param succeeding: episodes that succeed, but not at once, behind the thresholds as well.
    :param own: they are all of this task.
    :param evidence: that scores tell more than elapsed time; without it there are no thresholds.
    :param failure_threshold: risk above which FAILURE may be decided; NEVER where risks tell no
        more than elapsed time, or too few attempts succeed to bound the rate.
    :param failure_rate: bound on the rate of FAILURE in attempts that succeed.
    """

    fitted: Fitted
    thresholds: Mapping[float, float]
    never_succeeding: int
    succeeding: int
    own: bool
    evidence: Evidence | None = None
    failure_threshold: float = NEVER
    failure_rate: float | None = None


@dataclass(frozen=True, eq=False)
class Calibrated:
    """
    All that calibration finds for a run.

    :param maps: by task id (FALLBACK for tasks never seen) and views, in the bundle's order.
    :param ood_threshold: OOD score above which a tick is out of distribution.
    :param trained: ids of the tasks that training knew.
    """

    ood_threshold: float
    trained: frozenset[str] = frozenset()
    maps: dict[tuple[str, tuple[str, ...]], CalibrationMap] = field(default_factory=dict)

    def map_for(self, task_id: str, views: Sequence[str]) -> CalibrationMap | None:
        """
        Look up the calibration map of a task, as the bundle will have it.

        The fallback task's where training did not know the task; none where it did, and there were
        no calibration episodes of it.
        """
        known = task_id if task_id in self.trained else FALLBACK
        return self.maps.get((known, tuple(views)))


def calibrations_of(found: Calibrated, task_id: str) -> tuple[Calibration, ...]:
    """Give a task's calibrations, one for each set of views, as a bundle says them."""
    return tuple(_calibration(views, map_) for (of, views), map_ in found.maps.items()
                 if of == task_id)


def _calibration(views: Sequence[str], map_: CalibrationMap) -> Calibration:
    """Say a calibration map as a bundle does."""
    fitted = map_.fitted
    return Calibration(
        tuple(views), fitted.method,
        {name: value if isinstance(value, list) else round(value, 6)
         for name, value in fitted.parameters.items()},
        # To the last digit: an isotonic map has many probabilities just above one another.
        {alpha: float(value) for alpha, value in map_.thresholds.items()},
        failed=map_.never_succeeding, succeeded=map_.succeeding, pooled=not map_.own,
        rows=fitted.count, episodes=fitted.episodes, evidence=map_.evidence,
        failure_threshold=map_.failure_threshold, failure_rate=map_.failure_rate)
