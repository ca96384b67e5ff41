# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Teach a bundle the tasks of one robot in its own lab, from attempts that somebody recorded there.

What is fitted, and every figure that is told, comes from attempts left out. A task gets thresholds
only where its scores tell more than elapsed time, and only for rates that its attempts can back.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
import re
import time

from hralign_ros.calibration.conformal import conformal_threshold, nonconformity_score
from hralign_ros.calibration.gate import (
    attempts_for,
    bound_with_confidence,
    measure_evidence,
    offered_rates,
)
from hralign_ros.calibration.maps import fit_few, Fitted, FLATTEST
from hralign_ros.data.manifest import DataError, DataSet, read_manifest, slug
from hralign_ros.export.parity import masked_graph
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.taught_head import OUTPUTS, TaughtHead
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.decision import Decider, Decision, DecisionRules, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Report, silent
from hralign_ros.runtime.tasks import (
    Calibration,
    check_task,
    EVEN,
    Evidence,
    FALLBACK,
    normalise_task,
    probability_of,
    same_rate,
    Task,
    USUAL_RATE,
)
from hralign_ros.training.attempts import (
    Attempt,
    Attempts,
    load_attempts,
    RATE_HZ,
    view_sets,
)
from hralign_ros.training.taught_head import (
    Choice,
    choose,
    fit_ood,
    folds,
    left_out_scores,
    new_head,
    ood_distances,
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
from threadpoolctl import threadpool_limits
import torch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# Left, top, right, bottom of a part of an image, as fractions.
Region = tuple[float, float, float, float]
# Attempts of each kind without which nothing can be told.
LEAST = 2
# Fraction of a left-out attempt's ticks that may be called out-of-distribution; and by how much
# the limit is raised above that, since a day has more light than a recording session.
_OOD_RATE, _OOD_MARGIN = 0.01, 1.25
_OOD_FOLDS = 5
_MODE = 'failed'
# In whole ticks: a camera that is faster than the recordings shows more moments to a shorter time.
_TICK = round(1e9 / RATE_HZ)
DWELL = -(-DecisionRules().dwell // _TICK) * _TICK
_FAILURE_DWELL = DecisionRules().failure_dwell


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


@dataclass(frozen=True, eq=False)
class Taught:
    """
    What came of teaching.

    :param output: the bundle.
    :param regions: float32 [V, N] by which tokens may be looked at; `proposed`, float32 [V, N],
        how much each token changes within attempts, at most 1.
    :param ood_rate: fraction of ticks of attempts left out that are out of distribution.
    :param seconds: encoding, and fitting.
    """

    output: Path
    base: Path
    data: DataSet
    manifest: Manifest
    robot: str
    tasks: tuple[TaughtTask, ...]
    regions: Floats
    proposed: Floats
    ood_rate: float
    seconds: tuple[float, float]


def teach(
    bundle: Path, data: Path, output: Path, *, tasks: Sequence[str] = (),
    aliases: Sequence[str] = (),
    regions: Mapping[str, Region] | None = None, store: Path | None = None,
    workers: int | str = 1, report: Report = print,
) -> Taught:
    """
    Write a bundle that knows the tasks of some recordings, in the lab that these are from.

    :param bundle: to start from; all its other tasks stay as they are.
    :param data: folder of a manifest, whose episodes say how they ended.
    :param tasks: instructions or ids of the tasks to teach; (): all there are.
    :param aliases: other instructions that mean the same, where it is one task.
    :param regions: by view, the part of the image to look at.
    :param store: folder of features.
    :raises HralignError: too few attempts, or names or folders that do not do; before any work.
    """
    require_replaceable(Path(output))
    found = read_manifest(data)
    encoder = Encoder.load(bundle, provider='cpu')
    manifest = encoder.manifest
    chosen = _chosen(found, tasks, manifest)
    names = {slug(e.task_text): e.task_text for e in chosen.episodes}
    if aliases and len(names) > 1:
        raise DataError(f'aliases are given for {len(names)} tasks; teach one at a time, or leave '
                        'them out')
    for alias in aliases:
        known = encoder.tasks.match(check_task(alias))
        if known is not None and known is not encoder.tasks.match(next(iter(names.values()))):
            raise DataError(f"'{alias}' is what the bundle's task {known.task_id} is called by; "
                            'leave it out')
    ids = {key: _task_id(encoder, text) for key, text in names.items()}
    twice = [texts for task_id in set(ids.values())
             if len(texts := [names[key] for key in ids if ids[key] == task_id]) > 1]
    if twice:
        raise DataError(f"'{twice[0][0]}' and '{twice[0][1]}' are one task to the bundle; give "
                        'their attempts one instruction')
    looked_at = _regions(manifest, regions or {})
    began = time.monotonic()
    attempts = load_attempts(chosen, bundle, folder=store, workers=workers, report=report)
    encoded = time.monotonic()
    report(f'{len(attempts.attempts)} attempts encoded in {encoded - began:.0f} s')
    attempts, indices = _same_views(attempts, manifest, report)
    # Before the fits, which may take minutes.
    for key, name in names.items():
        own = [a for a in attempts.attempts if slug(a.episode.task_text) == key]
        _require(name, sum(a.succeeds for a in own), sum(not a.succeeds for a in own))
        folds(own)
    # Beside a busy simulator threads of a library wait for one another: with two a fit took 144 s,
    # with one 20.
    with threadpool_limits(1):
        limits, rate = ood_limits(manifest, attempts, indices, report)
        taught = [fit_task(
            manifest, attempts,
            [a for a in attempts.attempts if slug(a.episode.task_text) == key],
            Task(ids[key], name,
                 _aliases(encoder, ids[key], name, aliases),
                 prompts=encoder.tasks.fallback.prompts),
            indices, looked_at, limits, report) for key, name in names.items()]
        graphs = {**graphs_of(encoder.bundle), **{
            one.task.head: _graph(one.head, manifest) for one in taught}}
    new = {one.task.task_id for one in taught}
    others = tuple(task for task in encoder.tasks.tasks if task.task_id not in new)
    heads = {task.head for task in (*others, *(one.task for one in taught)) if task.head}
    graphs = {file: content for file, content in graphs.items()
              if not file.startswith('head.') or file in heads}
    write_bundle(output, manifest, graphs, replace(
        encoder.tasks, tasks=(*others, *(one.task for one in taught))))
    done = time.monotonic()
    report(f'fitted in {done - encoded:.0f} s; wrote {output}')
    return Taught(
        Path(output), Path(bundle), chosen, manifest, _robot(chosen), tuple(taught), looked_at,
        _changes(attempts.attempts), rate, (encoded - began, done - encoded))


def _chosen(data: DataSet, tasks: Sequence[str], manifest: Manifest) -> DataSet:
    """Take the episodes of the tasks that are asked for; check all that can be known so early."""
    wanted = {slug(task): task for task in tasks}
    there = {slug(e.task_text) for e in data.episodes} | {slug(e.task_id) for e in data.episodes}
    unknown = [task for key, task in wanted.items() if key not in there]
    if unknown:
        raise DataError(
            f"{data.folder}: no attempt at '{unknown[0]}'; there are attempts at "
            + ', '.join(sorted({f"'{e.task_text}'" for e in data.episodes})))
    chosen = data.only(e for e in data.episodes if not wanted or {
        slug(e.task_text), slug(e.task_id)} & set(wanted))
    robots = sorted({e.embodiment for e in chosen.episodes})
    if len(robots) > 1:
        raise DataError(f'{data.folder}: attempts of {", ".join(robots)}; a lab has one robot. '
                        'Teach each into a bundle of its own')
    for key in sorted({slug(e.task_text) for e in chosen.episodes}):
        own = [e for e in chosen.episodes if slug(e.task_text) == key]
        _require(own[0].task_text, sum(e.success is True for e in own),
                 sum(e.success is False for e in own))
    return chosen


def _same_views(
    found: Attempts, manifest: Manifest, report: Report,
) -> tuple[Attempts, list[int]]:
    """Choose the views that most attempts have, and the attempts that have all of those."""
    half = len(found.attempts) / 2
    views = [view for view in manifest.views
             if sum(view in a.views for a in found.attempts) > half]
    if not views:
        raise DataError('no view is in most of the attempts; teach those with the same cameras '
                        'together')
    kept = tuple(a for a in found.attempts if a.views >= set(views))
    lost = [a.episode.episode_id for a in found.attempts if not a.views >= set(views)]
    if lost:
        report(f'left out, as they lack {" or ".join(views)}: {", ".join(lost[:5])}'
               + (f' and {len(lost) - 5} more' if len(lost) > 5 else ''))
    unused = sorted({view for a in found.attempts for view in a.views} - set(views))
    if unused:
        report(f'not looked at, as most attempts lack it: {", ".join(unused)}')
    return replace(found, attempts=kept), [manifest.views.index(view) for view in views]


def _require(name: str, good: int, bad: int) -> None:
    if min(good, bad) < LEAST:
        raise DataError(
            f"'{name}': {good} attempts that succeed and {bad} that fail; at least {LEAST} of "
            'each are needed, 10 of each decide in most labs. Failures that look nearly like a '
            'success teach most')


def _task_id(encoder: Encoder, name: str) -> str:
    """Choose the id of a task: that of the one that it is in the bundle, or a new one."""
    known = encoder.tasks.match(check_task(name))
    if known is not None:
        return known.task_id
    plain = _plain(slug(name))
    # What plain letters do not tell apart, such as a language written in others, a hash does.
    if plain != slug(name) or plain in {task.task_id for task in encoder.tasks.tasks} \
            or plain in ('', FALLBACK) or encoder.tasks.match(plain) is not None:
        plain = f'{plain}-{sha256(slug(name).encode()).hexdigest()[:8]}'.lstrip('-')
    return plain


def _plain(text: str) -> str:
    """Leave letters, digits, - and _ of a text."""
    return re.sub(r'[^a-z0-9_-]+', '-', text.encode('ascii', 'ignore').decode()).strip('-_')[:64]


def _head_file(task_id: str) -> str:
    """Name the file of a task's graph, whatever characters its id has."""
    plain = _plain(task_id.casefold())
    return f'head.{plain}.onnx' if plain == task_id else \
        f'head.{plain}-{sha256(task_id.encode()).hexdigest()[:8]}.onnx'


def _aliases(
    encoder: Encoder, task_id: str, name: str, more: Sequence[str],
) -> tuple[str, ...]:
    """Keep what a task of the bundle is called by, and add to it."""
    before = next((task for task in encoder.tasks.tasks if task.task_id == task_id), None)
    texts = (*((before.name, *before.aliases) if before else ()), *more)
    kept = {normalise_task(text): check_task(text) for text in texts}
    kept.pop(normalise_task(name), None)
    return tuple(kept.values())


def _robot(data: DataSet) -> str:
    return data.episodes[0].embodiment


def _regions(manifest: Manifest, regions: Mapping[str, Region]) -> Floats:
    """Tell which tokens lie in the regions: float32 [V, N]."""
    rows, columns = manifest.tokens.grid
    inside = np.ones((len(manifest.views), rows, columns), np.float32)
    for view, (left, top, right, bottom) in regions.items():
        if view not in manifest.views:
            raise DataError(f'region of view {view}; the views of the bundle are '
                            f'{", ".join(manifest.views)}')
        if not (0.0 <= left < right <= 1.0 and 0.0 <= top < bottom <= 1.0):
            raise DataError(f'region of view {view} is {left},{top},{right},{bottom}; needed are '
                            'left, top, right, bottom as ascending fractions from 0 to 1')
        x, y = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        half = 0.5 / columns, 0.5 / rows
        inside[manifest.views.index(view)] = \
            ((y > top - half[1]) & (y < bottom + half[1]))[:, None] \
            * ((x > left - half[0]) & (x < right + half[0]))
    return inside.reshape(len(manifest.views), -1)


def _changes(attempts: Sequence[Attempt]) -> Floats:
    """Measure how much each token changes within attempts: float32 [V, N], at most 1 a view."""
    change = np.mean([np.square(a.tokens.astype(np.float32) - a.tokens[:1]).sum(-1).mean(0)
                      for a in attempts], axis=0)
    return np.asarray(change / np.maximum(change.max(1, keepdims=True), 1e-9), np.float32)


def ood_limits(
    manifest: Manifest, found: Attempts, views: Sequence[int], report: Report,
) -> tuple[Floats, float]:
    """
    Set each view's limit of the out-of-distribution score on attempts left out of the model.

    A wrist camera sees more than one that stands still: one limit for both would let the still one
    be moved, and the other one be covered.

    :returns: the limits of all views of the bundle, and the fraction of those attempts' ticks
        above them.
    """
    attempts = found.attempts
    fold = np.arange(len(attempts)) % min(_OOD_FOLDS, len(attempts))
    sessions: dict[str | int, int] = {}
    for i, a in enumerate(attempts):
        fold[i] = sessions.setdefault(a.episode.session or i, int(fold[i]))
    scores: list[Doubles] = [np.zeros(0)] * len(attempts)
    for k in range(int(fold.max()) + 1):
        head = new_head(manifest, found, [])
        fit_ood(head, [a for a, f in zip(attempts, fold, strict=True) if f != k], views)
        for i in np.flatnonzero(fold == k).tolist():
            scores[i] = ood_distances(head, attempts[i])

    def limits(some: Sequence[Doubles]) -> Floats:
        return np.asarray(np.quantile(
            np.concatenate(some), 1.0 - _OOD_RATE, axis=0) * _OOD_MARGIN, np.float32)

    # Each fold's by the limits that the others would have set.
    above = 0
    for k in range(int(fold.max()) + 1):
        others = limits([s for s, f in zip(scores, fold, strict=True) if f != k])
        above += sum(int((scores[i] > others)[:, list(views)].any(1).sum())
                     for i in np.flatnonzero(fold == k).tolist())
    rate = above / sum(len(s) for s in scores)
    report(f'{100 * rate:.1f} % of the ticks of attempts left out are out of distribution')
    return np.maximum(limits(scores), 1e-6), rate


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
    # Of whoever is left out neither weights, nor recipe, nor map may know.
    probabilities = _nested(own, candidates, fold) if candidates else [
        fitted.apply(s) for s in scores]
    evidence = _evidence(own, probabilities, DWELL)
    levels = _levels(own, probabilities)
    counts = [int((levels[1] == kind).sum()) for kind in (0, 1)]
    # Without evidence, or with a map that gives everything one probability, nothing separates.
    thresholds = {} if evidence is None or fitted.parameters['scale'] <= FLATTEST else {
        rate: threshold for rate in offered_rates(min(counts))
        if (threshold := _threshold(levels, rate)) is not None}
    risks, failure_threshold = _fit_failure(
        head, row, own, rows, fold, views, grid, regions, recipe, strength)
    return Calibration(
        tuple(view for view in manifest.views if view in names), fitted.method,
        {key: round(value, 6) for key, value in fitted.parameters.items()}, thresholds,
        failed=counts[0], succeeded=counts[1], rows=fitted.count, episodes=fitted.episodes,
        evidence=evidence, failure_threshold=failure_threshold, dwell_s=DWELL * 1e-9,
    ), [Scored(a, p, r, np.zeros(len(p), np.bool_))
        for a, p, r in zip(own, probabilities, risks, strict=True)]


def _nested(
    own: Sequence[Attempt], candidates: Mapping[Recipe, Rows], fold: NDArray[np.int64],
) -> list[Doubles]:
    """Give each attempt the probabilities of all that would be fitted and chosen without it."""
    found: list[Doubles] = [np.zeros(0)] * len(own)
    for k in range(int(fold.max()) + 1):
        apart = fold == k
        try:
            choice = choose(own, candidates, without=apart)
        except DataError:  # of too few sessions there is no choosing within a fold
            choice = choose(own, candidates)
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


def _before(attempt: Attempt) -> int:
    """Count the ticks before the task may be accomplished: all of a failure's."""
    return int((attempt.done != 0).argmax()) if attempt.succeeds else len(attempt.time_s)


def _levels(
    own: Sequence[Attempt], probabilities: Sequence[Doubles],
) -> tuple[Doubles, NDArray[np.int64], NDArray[np.int64]]:
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


def _threshold(
    levels: tuple[Doubles, NDArray[np.int64], NDArray[np.int64]], rate: float,
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


def _fit_failure(
    head: TaughtHead, row: int, own: Sequence[Attempt], rows: Rows, fold: NDArray[np.int64],
    views: Sequence[int], grid: tuple[int, int], regions: Floats, recipe: Recipe, strength: float,
) -> tuple[list[Doubles | None], float | None]:
    """
    Learn when an attempt has failed, where that tells more than elapsed time.

    :returns: the risk at each attempt's ticks, and the threshold that successes bound.
    """
    scores = left_out_scores(own, rows, fold, strength, 'failed')
    evidence = _evidence(own, [np.exp(np.clip(s, -20.0, 20.0)) for s in scores], _FAILURE_DWELL,
                         failure=True)
    # What is too short for a FAILURE bounds nothing.
    good = [i for i, a in enumerate(own)
            if a.succeeds and a.stamps[-1] - a.stamps[0] >= _FAILURE_DWELL]
    rate = next((r for r in offered_rates(len(good)) if r > USUAL_RATE - 1e-9), None)
    if evidence is None or not evidence.suffices or rate is None:
        return [None] * len(own), 1.0
    fitted = _fit_map(own, scores, 'failed')
    write_weights(head, row, 1, rows, recipe, views, grid, regions,
                  *regress(own, rows, strength, 'failed'))
    head.failure_scale[row] = torch.tensor(
        [fitted.parameters['scale'], fitted.parameters['shift']])
    risks = [fitted.apply(s) for s in scores]
    threshold = conformal_threshold([
        nonconformity_score(own[i].stamps, risks[i], _FAILURE_DWELL) for i in good], rate)
    return list(risks), None if threshold is None else max(EVEN, threshold)


def rate_table(
    calibration: Calibration, scored: Sequence[Scored], fold: NDArray[np.int64] | None = None,
) -> tuple[RateRow, ...]:
    """
    Say what each rate that can be decided costs on attempts that nothing was fitted to.

    :param fold: of each attempt, where thresholds are of these attempts: each is then decided by
        a threshold that does not know its fold.
    """
    good = sum(one.attempt.succeeds for one in scored)
    levels = _levels([one.attempt for one in scored], [one.probability for one in scored])
    table = []
    for rate in calibration.rates:
        threshold = calibration.threshold(rate)
        assert threshold is not None
        count: Counter[str] = Counter()
        delays = []
        for i, one in enumerate(scored):
            a = one.attempt
            used = threshold if fold is None else _threshold(levels, rate, fold == fold[i])
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
            if evidence and not evidence.suffices else 'too few attempts, or too short ones'))
    else:
        timed = all(any(s.attempt.episode.success_flags)
                    for s in result.scored if s.attempt.succeeds)
        lines.append(
            f'{row.decided} of {row.successes} successes decided, {row.early} '
            + ('early' if timed else 'more than 2 s before their end')
            + f', {row.false} of {row.failures} failures called SUCCESS ({evidence})')
        lines.append(
            f'decides at a false-alarm rate of {100 * row.rate:.3g} %: expected at most that, '
            f'with 90 % confidence at most {100 * row.sure:.3g} %')
        if result.task.modes and row.stopped + row.wrongly_stopped:
            lines.append(f'FAILURE is decided in {row.stopped} of {row.failures} failures, and '
                         f'wrongly in {row.wrongly_stopped} of {row.successes} successes')
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


def _graph(head: TaughtHead, manifest: Manifest) -> bytes:
    """Export a head, and compare the graph with it."""
    rng = np.random.default_rng(0)
    views, length = len(manifest.views), manifest.clip.length
    # As unlike one another as frames of a lab are.
    tokens = head.basis_mean.numpy() + rng.normal(
        0.0, 0.02, (views, length, *manifest.tokens.shape))
    return masked_graph(head, {
        'tokens': tokens.astype(np.float32), 'mask': np.ones((views, length), np.float32),
        'video': rng.standard_normal(manifest.text.dim).astype(np.float32) * 0.05,
    }, OUTPUTS, silent)[0]
