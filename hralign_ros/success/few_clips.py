# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Curve and thresholds of one task from few clips, which are sure of little and say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.tasks import Task
from hralign_ros.success.alarms import alarm_level, conformal_threshold
from hralign_ros.success.calibrate import ALPHAS
from hralign_ros.success.calibration import fit_few
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# No threshold is lower: what is less likely than not is no SUCCESS. Clips that are told apart with
# ease would have one next to 0, and the first failure a little unlike them alarms.
EVEN = 0.5


@dataclass(frozen=True, eq=False)
class TaskClip:
    """
    A clip as the head sees it, tick by tick.

    :param video: float32 [F, D], from the graph, by all the views that there are.
    :param time_s: float64 [F].
    :param done: float32 [F]: 1, 0, or NaN where it is not known.
    :param by_views: the same as `video` by the views that took part; empty: all of the bundle's.
    """

    name: str
    video: Floats
    time_s: Doubles
    done: Floats
    by_views: Mapping[frozenset[str], Floats] = field(default_factory=dict)

    @property
    def succeeds(self) -> bool:
        """Tell whether the task is accomplished in it."""
        return bool((self.done == 1).any())


def calibrate_few(
    views: frozenset[str], clips: Sequence[tuple[TaskClip, Doubles]], shared: Task,
) -> dict[str, Any]:
    """
    Fit a curve and thresholds to clips and their scores by these views; as in tasks.yaml.

    A threshold rests on the clips alone where there are enough of both kinds for its rate.
    Otherwise it is no lower than any of them would need, nor than those of the shared task for
    that rate; where that has none, neither has this one. What is not known to be accomplished is
    not: a SUCCESS there counts as too early.

    :param clips: of either kind two or more, each with scores [F] of prompts that were not fitted
        to it.
    """
    known_ticks = [~np.isnan(c.done) for c, _ in clips]
    fitted = fit_few([s[rows] for (_, s), rows in zip(clips, known_ticks, strict=True)],
                     [c.done[rows] == 1 for (c, _), rows in zip(clips, known_ticks, strict=True)])
    dwell = DecisionRules().dwell
    # Of failures, and of successes before they are one.
    levels: tuple[list[float], list[float]] = [], []
    for c, s in clips:
        stamps = np.round(c.time_s * 1e9).astype(np.int64)
        first = int((c.done == 1).argmax()) if c.succeeds else len(stamps)
        if first and stamps[first - 1] - stamps[0] >= dwell:  # else too short to show anything
            levels[int(c.succeeds)].append(alarm_level(
                stamps[:first], fitted.apply(s[:first]), dwell))
    thresholds, sources = {}, {}
    highest = EVEN
    # From the most frequent alarm: a rarer one never has a lower threshold, whatever it rests on.
    for alpha in sorted(ALPHAS, reverse=True):
        own = [threshold for some in levels
               if (threshold := conformal_threshold(some, alpha)) is not None]
        known = [c.thresholds[alpha] for c in shared.calibrations.values()
                 if alpha in c.thresholds]
        if len(own) == len(levels):
            sources[alpha] = 'own'
        elif known:
            sources[alpha], own = 'own and shared', [*levels[0], *levels[1], *known]
        else:
            continue
        highest = thresholds[alpha] = max(*own, highest)
    return {
        'views': sorted(views), 'method': fitted.method, **fitted.parameters,
        'rows': fitted.count, 'episodes': fitted.episodes, 'never_succeeding': len(levels[0]),
        'succeeding': len(levels[1]),
        'thresholds_from': ', '.join(f'{a}: {sources[a]}' for a in sorted(sources)),
        'thresholds': [{'alpha': a, 'probability': float(thresholds[a])}
                       for a in sorted(thresholds)]}
