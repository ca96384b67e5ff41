# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Calibration map and thresholds of one task from few clips: small samples, cautious results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import math

from hralign_ros.calibration.calibrate import ALPHA, ALPHAS
from hralign_ros.calibration.conformal import conformal_threshold, decided, nonconformity_score
from hralign_ros.calibration.maps import fit_few, Fitted, FLATTEST
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import Calibration, Task
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# No threshold is lower: what is less likely than not is no SUCCESS. Clips that are told apart with
# ease would have one next to 0, and the first failure a little unlike them alarms.
EVEN = 0.5
# By kind, failures and successes: the threshold at which each clip would alarm, and its name.
Levels = tuple[list[tuple[float, str]], list[tuple[float, str]]]


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
    views: frozenset[str], clips: Sequence[tuple[TaskClip, Doubles]], fallback: Task,
    report: Report = print,
) -> Calibration:
    """
    Fit a calibration map and thresholds to clips and their scores by these views.

    A threshold rests on the clips alone where there are enough of both kinds for its rate.
    Otherwise it is no lower than any of them would need, nor than those of the fallback task for
    that rate; where that has none, neither has this one. What is not known to be accomplished is
    not: a SUCCESS there counts as too early.

    :param clips: of either kind two or more, each with scores [F] of prompts that were not fitted
        to it.
    """
    ticks = [~np.isnan(c.done) for c, _ in clips]
    fitted = fit_few([s[rows] for (_, s), rows in zip(clips, ticks, strict=True)],
                     [c.done[rows] == 1 for (c, _), rows in zip(clips, ticks, strict=True)])
    levels = _levels(clips, fitted)
    # With a map that gives everything the same probability, no threshold separates anything.
    thresholds, sources = _thresholds(levels, fallback) if fitted.parameters['scale'] > FLATTEST \
        else ({}, {})
    where = ' + '.join(sorted(views))
    if ALPHA in thresholds:
        _report_missed(where, clips, fitted, thresholds[ALPHA], levels, report)
    else:
        why = 'scores do not rise with success' if fitted.parameters['scale'] <= FLATTEST else \
            f'{math.ceil(1 / ALPHA - 1)} clips of each kind are needed, longer than the dwell time'
        report(f'{where}: no threshold for an alpha of {ALPHA:g}, so decisions will be ABSTAIN '
               f'there: {why}')
    return Calibration(
        tuple(sorted(views)), fitted.method, fitted.parameters,
        {alpha: float(thresholds[alpha]) for alpha in sorted(thresholds)},
        failed=len(levels[0]), succeeded=len(levels[1]), rows=fitted.count,
        episodes=fitted.episodes, grounds={alpha: sources[alpha] for alpha in sorted(sources)})


def _stamps(clip: TaskClip) -> NDArray[np.int64]:
    return np.round(clip.time_s * 1e9).astype(np.int64)


def _levels(
    clips: Sequence[tuple[TaskClip, Doubles]], fitted: Fitted,
) -> Levels:
    """Score failures, and successes up to the moment of success."""
    dwell = DecisionRules().dwell
    levels: Levels = [], []
    for c, s in clips:
        stamps = _stamps(c)
        first = int((c.done == 1).argmax()) if c.succeeds else len(stamps)
        if first and stamps[first - 1] - stamps[0] >= dwell:  # else too short to show anything
            levels[int(c.succeeds)].append(
                (nonconformity_score(stamps[:first], fitted.apply(s[:first]), dwell), c.name))
    return levels


def _thresholds(
    levels: Levels, fallback: Task,
) -> tuple[dict[float, float], dict[float, str]]:
    """Choose thresholds by alpha, and say what each rests on."""
    thresholds, sources = {}, {}
    highest = EVEN
    # From the most frequent alarm: a rarer one never has a lower threshold, whatever it rests on.
    for alpha in sorted(ALPHAS, reverse=True):
        own = [threshold for some in levels if (threshold := conformal_threshold(
            [level for level, _ in some], alpha)) is not None]
        known = [c.thresholds[alpha] for c in fallback.calibrations
                 if alpha in c.thresholds]
        if len(own) == len(levels):
            sources[alpha] = 'own'
        elif known:
            sources[alpha], own = 'own and fallback', [
                *(level for some in levels for level, _ in some), *known]
        else:
            continue
        highest = thresholds[alpha] = max(*own, highest)
    return thresholds, sources


def _report_missed(
    where: str, clips: Sequence[tuple[TaskClip, Doubles]], fitted: Fitted, threshold: float,
    levels: Levels, report: Report,
) -> None:
    """Say what a threshold costs, and which clip it owes its height to."""
    good = [(c, s) for c, s in clips if c.succeeds]
    missed = sum(decided(_stamps(c), fitted.apply(s), threshold) is None for c, s in good)
    report(f'{where}: {len(clips)} clips; threshold for an alpha of {ALPHA:g}: {threshold:.2f}, '
           f'with which {missed} of the {len(good)} successes would be missed')
    highest, name = max(levels[1], default=(0.0, ''))
    if missed and highest >= threshold:
        report(f'  success {name} sets it: it scores as accomplished before its last seconds. '
               'If it continues long after the task is done, cut it, or raise success_tail_s')
