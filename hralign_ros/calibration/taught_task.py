# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One task of a lab: what is fitted to its attempts, how it is calibrated, and what that decides.

Every figure comes from attempts left out, of which neither weights, nor the choice of what to fit,
nor the calibration map knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
import re

from hralign_ros.calibration.attempt_decisions import (
    attempt_levels,
    choose_threshold,
    DWELL,
    rate_table,
    RateRow,
    Scored,
)
from hralign_ros.calibration.conformal import conformal_threshold, nonconformity_score
from hralign_ros.calibration.gate import attempts_for, measure_evidence, offered_rates
from hralign_ros.calibration.maps import fit_few, Fitted, FLATTEST
from hralign_ros.data.manifest import DataError
from hralign_ros.models.taught_head import TaughtHead
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import (
    Calibration,
    EVEN,
    Evidence,
    NEVER,
    probability_of,
    same_rate,
    Task,
    USUAL_RATE,
)
from hralign_ros.training.attempts import Attempt, Attempts, TAIL_S, UNKNOWN_S, view_sets
from hralign_ros.training.taught_head import (
    Choice,
    choose,
    fit_ood,
    folds,
    left_out_scores,
    new_head,
    ood_scores,
    Recipe,
    RECIPES,
    regress,
    Rows,
    rows_of,
    write_weights,
)
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
_MODE = 'failed'
_FAILURE_DWELL = DecisionRules().failure_dwell


@dataclass(frozen=True, eq=False)
class TaughtTask:
    """
    What came of one task.

    :param head: fitted to all of its attempts.
    :param choice: what was fitted.
    :param scored: its attempts, with all views.
    :param table: by rate, ascending; empty where nothing can be decided.
    :param first_images: that the first image of an attempt tells how it ends; None: it does not.
    """

    task: Task
    head: TaughtHead
    views: frozenset[str]
    choice: Choice
    scored: tuple[Scored, ...]
    table: tuple[RateRow, ...]
    first_images: Evidence | None

    @property
    def calibration(self) -> Calibration:
        """Give the calibration with all views."""
        found = self.task.calibration(self.views)
        assert found is not None
        return found


def fit_task(
    manifest: Manifest, found: Attempts, own: Sequence[Attempt], task: Task,
    views: Sequence[int], regions: Floats, limits: Floats, report: Report = print, *,
    recipes: Sequence[Recipe] = RECIPES,
) -> TaughtTask:
    """
    Choose, fit and calibrate one task.

    :param found: all attempts of the lab, which the out-of-distribution model is of.
    :param own: those at this task.
    :param task: its names and prompts.
    :param views: indices of the views that are in all attempts.
    :param regions: float32 [V, N], 1 for tokens to look at.
    :param limits: of the out-of-distribution score of each view, see `ood_limits`.
    :param recipes: to choose from.
    """
    good = sum(a.succeeds for a in own)
    report(f"'{task.name}': {good} attempts that succeed, {len(own) - good} that fail")
    sets = view_sets([manifest.views[i] for i in views])
    if not manifest.success.trained:
        recipes = [recipe for recipe in recipes if not recipe.video]
    candidates = {recipe: rows_of(own, recipe, views, sets[0], manifest.tokens.grid, regions)
                  for recipe in recipes}
    choice = choose(own, candidates)
    report(f'    chosen: {choice.recipe.name}')
    head = new_head(manifest, found, sets)
    fit_ood(head, found.attempts, views)
    head.ood_limit.copy_(torch.from_numpy(limits))
    calibrations, scored = [], []
    for row, names in enumerate(sets):
        calibration, one = _fit_views(head, row, own, names, manifest, regions, choice,
                                      candidates if row == 0 else None)
        calibrations.append(calibration)
        scored.append(one)
    learned = any(one.risk is not None for one in scored[0])
    result = TaughtTask(replace(
        task, modes=(_MODE,) if learned else (), calibrations=tuple(calibrations),
        head=_head_file(task.task_id), ood_threshold=1.0,
        robot=own[0].episode.embodiment,
    ), head.eval(), sets[0], choice, tuple(scored[0]),
        rate_table(calibrations[0], scored[0], folds(own)), _first_images_tell(scored[0]))
    for line in verdict(result):
        report(f'    {line}')
    return result


def _head_file(task_id: str) -> str:
    """Name the file of a task's graph, whatever characters its id has."""
    plain = plain_name(task_id.casefold())
    return f'head.{plain}.onnx' if plain == task_id else \
        f'head.{plain}-{sha256(task_id.encode()).hexdigest()[:8]}.onnx'


def plain_name(text: str) -> str:
    """Leave letters, digits, - and _ of a text."""
    return re.sub(r'[^a-z0-9_-]+', '-', text.encode('ascii', 'ignore').decode()).strip('-_')[:64]


def _first_images_tell(scored: Sequence[Scored]) -> Evidence | None:
    """Measure what an attempt's first image tells of its end; None: no more than chance."""
    found = measure_evidence([s.probability[0] for s in scored], [0.0] * len(scored),
                             [s.attempt.succeeds for s in scored])
    return found if found is not None and found.suffices else None


@torch.no_grad()
def score_attempts(one: TaughtTask, attempts: Sequence[Attempt]) -> list[Scored]:
    """Score attempts that nothing was fitted to, as the node will, while all views are there."""
    assert one.task.ood_threshold is not None
    there = torch.zeros(len(one.head.sets[0]))
    there += one.head.sets[0]
    views = np.flatnonzero(there.numpy()).tolist()
    found = []
    for a in attempts:
        tokens = torch.from_numpy(a.tokens.astype(np.float32))
        seen = torch.stack([tokens, tokens - tokens[:1]], dim=1) * there[:, None, None]
        said = [one.head.score(x, there, v)
                for x, v in zip(seen, torch.from_numpy(a.video[one.views]), strict=True)]
        raw = np.array([float(score) for score, _ in said])
        found.append(Scored(
            a, probability_of(one.calibration.method, one.calibration.parameters, raw),
            np.array([float(failure) for _, failure in said]) if one.task.modes else None,
            ood_scores(one.head, a, views) > one.task.ood_threshold))
    return found


def _fit_views(
    head: TaughtHead, row: int, own: Sequence[Attempt], names: frozenset[str],
    manifest: Manifest, regions: Floats, choice: Choice,
    candidates: Mapping[Recipe, Rows] | None,
) -> tuple[Calibration, list[Scored]]:
    """
    Fit a head's weights for one set of views, and what makes decisions of its scores.

    :param candidates: from which the choice was made with these views; None: with other ones.
    """
    grid, recipe, strength = manifest.tokens.grid, choice.recipe, choice.strength
    views = sorted(manifest.views.index(view) for view in names)
    rows = candidates[recipe] if candidates else rows_of(
        own, recipe, views, names, grid, regions)
    fold = folds(own)
    scores = choice.scores if candidates else left_out_scores(own, rows, fold, strength)
    fitted = _fit_map(own, scores, 'done')
    write_weights(head, row, 0, rows, recipe, views, grid, regions, *regress(own, rows, strength))
    apart = _nested(own, candidates, fold) if candidates else None
    probabilities = apart or [fitted.apply(s) for s in scores]
    # Of too few sessions nobody can tell what a choice without one of them would be.
    evidence = None if candidates and apart is None else _evidence(own, probabilities, DWELL)
    levels = attempt_levels(own, probabilities)
    counts = [int((levels[1] == kind).sum()) for kind in (0, 1)]
    # Without evidence, or with a map that gives everything one probability, nothing separates.
    thresholds = {} if evidence is None or fitted.parameters['scale'] <= FLATTEST else {
        rate: threshold for rate in offered_rates(min(counts))
        if (threshold := choose_threshold(levels, rate)) is not None}
    risks, failure_threshold, failure_rate = _fit_failure(
        head, row, own, rows, fold, views, grid, regions, recipe, strength)
    return Calibration(
        tuple(view for view in manifest.views if view in names), fitted.method,
        {key: round(value, 6) for key, value in fitted.parameters.items()}, thresholds,
        failed=counts[0], succeeded=counts[1], rows=fitted.count, episodes=fitted.episodes,
        evidence=evidence, failure_threshold=failure_threshold, failure_rate=failure_rate,
        dwell_s=DWELL * 1e-9,
    ), [Scored(a, p, r, np.zeros(len(p), np.bool_))
        for a, p, r in zip(own, probabilities, risks, strict=True)]


def _nested(
    own: Sequence[Attempt], candidates: Mapping[Recipe, Rows], fold: NDArray[np.int64],
) -> list[Doubles] | None:
    """
    Give each attempt the probabilities of all that would be fitted and chosen without it.

    :returns: None where a fold left out leaves too few sessions to choose by.
    """
    found: list[Doubles] = [np.zeros(0)] * len(own)
    for k in range(int(fold.max()) + 1):
        apart = fold == k
        try:
            choice = choose(own, candidates, without=apart)
        except DataError:
            return None
        rest = np.flatnonzero(~apart).tolist()
        fitted = _fit_map([own[i] for i in rest], [choice.scores[i] for i in rest], 'done')
        rows = candidates[choice.recipe]
        a, b = regress(own, rows, choice.strength, without=apart)
        for i in np.flatnonzero(apart).tolist():
            found[i] = fitted.apply(rows.x[rows.owner == i] @ a + b)
    return found


def _evidence(
    own: Sequence[Attempt], scores: Sequence[Doubles], dwell: int, *, failure: bool = False,
) -> Evidence | None:
    """Measure what scores of attempts left out tell of their outcome."""
    levels = [nonconformity_score(a.stamps, s, dwell) for a, s in zip(own, scores, strict=True)]
    return measure_evidence(levels, [float(a.time_s[-1]) for a in own],
                            [a.succeeds != failure for a in own])


def _fit_map(own: Sequence[Attempt], scores: Sequence[Doubles], target: str) -> Fitted:
    known = [~np.isnan(getattr(a, target)) for a in own]
    return fit_few([s[k] for s, k in zip(scores, known, strict=True)],
                   [getattr(a, target)[k] == 1 for a, k in zip(own, known, strict=True)])


def _fit_failure(
    head: TaughtHead, row: int, own: Sequence[Attempt], rows: Rows, fold: NDArray[np.int64],
    views: Sequence[int], grid: tuple[int, int], regions: Floats, recipe: Recipe, strength: float,
) -> tuple[list[Doubles | None], float, float | None]:
    """
    Learn when an attempt has failed, where that tells more than elapsed time.

    :returns: the risk at each attempt's ticks, the threshold that successes bound, and the rate
        of false alarms that it was set for; None: FAILURE is not decided.
    """
    scores = left_out_scores(own, rows, fold, strength, 'failed')
    evidence = _evidence(own, [np.exp(np.clip(s, -20.0, 20.0)) for s in scores], _FAILURE_DWELL,
                         failure=True)
    # What is too short for a FAILURE bounds nothing.
    good = [i for i, a in enumerate(own)
            if a.succeeds and a.stamps[-1] - a.stamps[0] >= _FAILURE_DWELL]
    rate = next((r for r in offered_rates(len(good)) if r > USUAL_RATE - 1e-9), None)
    if evidence is None or not evidence.suffices or rate is None:
        return [None] * len(own), NEVER, None
    fitted = _fit_map(own, scores, 'failed')
    write_weights(head, row, 1, rows, recipe, views, grid, regions,
                  *regress(own, rows, strength, 'failed'))
    head.failure_scale[row] = torch.tensor(
        [fitted.parameters['scale'], fitted.parameters['shift']])
    risks = [fitted.apply(s) for s in scores]
    threshold = conformal_threshold([
        nonconformity_score(own[i].stamps, risks[i], _FAILURE_DWELL) for i in good], rate)
    assert threshold is not None, 'so many attempts back each rate that is offered'
    return list(risks), max(EVEN, threshold), rate


def usual_row(result: TaughtTask) -> RateRow | None:
    """Give the row of the rate that a node decides by unless told otherwise."""
    rate = result.calibration.rate(None)
    return next((row for row in result.table if rate is not None and same_rate(row.rate, rate)),
                None)


def verdict(result: TaughtTask) -> list[str]:
    """Say in words what the node will do, and what would make it better."""
    calibration, row = result.calibration, usual_row(result)
    evidence, lines = calibration.evidence, []
    if row is None:
        lines.append('ABSTAIN, always: ' + (
            f'scores do not tell more than elapsed time ({evidence})'
            if evidence and not evidence.suffices
            else 'too few attempts or sessions, or too short ones'))
    else:
        timed = all(s.attempt.timed for s in result.scored if s.attempt.succeeds)
        lines.append(
            f'{row.decided} of {row.successes} successes decided, {row.early} '
            + ('early' if timed else f'more than {TAIL_S + UNKNOWN_S:g} s before their end')
            + f', {row.false} of {row.failures} failures called SUCCESS ({evidence})')
        lines.append(
            f'decides at a false-alarm rate of {100 * row.rate:.3g} %: expected at most that, '
            f'with 90 % confidence at most {100 * row.sure:.3g} %')
        if result.task.modes and row.stopped + row.wrongly_stopped:
            at = calibration.failure_rate
            lines.append(f'FAILURE is decided in {row.stopped} of {row.failures} failures, and '
                         f'wrongly in {row.wrongly_stopped} of {row.successes} successes'
                         + (f'; expected at most in {100 * at:.3g} % of successes' if at else ''))
        if row.rate > USUAL_RATE + 1e-9:
            more = attempts_for(USUAL_RATE)
            lines.append(
                f'for {100 * USUAL_RATE:g} %: {max(0, more - calibration.succeeded)} more '
                f'successes and {max(0, more - calibration.failed)} more failures')
    if row is None or row.decided < 0.8 * row.successes:
        lines.append('what helps: more attempts of both kinds; the object larger in one view; a '
                     '--region around where it happens; the moment of success labelled')
    if result.first_images is not None:
        lines.append(
            f'WARNING: the first image already tells how an attempt ends (AUROC '
            f'{result.first_images.auroc:.2f}). Something differs between the two kinds that is '
            'no success: light, the order of recording. Record both kinds in turn')
    return lines
