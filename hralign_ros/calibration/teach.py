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
from hralign_ros.training.attempts import Attempt, Attempts, load_attempts, view_sets
from hralign_ros.training.taught_head import (
    Choice,
    choose,
    fit_final,
    fit_ood,
    folds,
    left_out_scores,
    new_head,
    ood_scores,
    Recipe,
    RECIPES,
    Rows,
    rows_of,
    write_weights,
)
import numpy as np
from numpy.typing import NDArray
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
_DWELL, _FAILURE_DWELL = DecisionRules().dwell, DecisionRules().failure_dwell


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

    :param threshold: of the probability.
    :param decided: successes called SUCCESS, not too early, of `successes`.
    :param early: successes called before the task is known to be accomplished.
    :param false: failures called SUCCESS, of `failures`.
    :param delays_s: from the first tick that is known to be accomplished to the call.
    :param stopped: failures called FAILURE; `wrongly_stopped`: successes called so.
    """

    rate: float
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
    """

    task: Task
    head: TaughtHead
    views: frozenset[str]
    choice: Choice
    scored: tuple[Scored, ...]
    table: tuple[RateRow, ...]

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
    looked_at = _regions(manifest, regions or {})
    began = time.monotonic()
    attempts = load_attempts(chosen, bundle, folder=store, workers=workers, report=report)
    encoded = time.monotonic()
    report(f'{len(attempts.attempts)} attempts encoded in {encoded - began:.0f} s')
    # Before the fits, which may take minutes.
    for key, name in names.items():
        _require_both(name, [a for a in attempts.attempts if slug(a.episode.task_text) == key])
    indices = [i for i, view in enumerate(manifest.views)
               if all(view in a.views for a in attempts.attempts)]
    if not indices:
        raise DataError('no view is in all attempts; teach those with the same cameras together')
    threads = torch.get_num_threads()
    try:
        # Beside a busy simulator torch's default threads wait for one another.
        torch.set_num_threads(min(2, threads))
        limit, rate = ood_limit(manifest, attempts, indices, report)
        taught = [fit_task(
            manifest, attempts,
            [a for a in attempts.attempts if slug(a.episode.task_text) == key],
            Task(ids[key], name,
                 _aliases(encoder, ids[key], name, aliases),
                 prompts=encoder.tasks.fallback.prompts),
            indices, looked_at, limit, report) for key, name in names.items()]
        graphs = {**graphs_of(encoder.bundle), **{
            one.task.head: _graph(one.head, manifest) for one in taught}}
    finally:
        torch.set_num_threads(threads)
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
    for text in sorted({e.task_text for e in chosen.episodes}):
        own = [e for e in chosen.episodes if e.task_text == text]
        _require(text, sum(e.success is True for e in own), sum(e.success is False for e in own))
    return chosen


def _require_both(name: str, own: Sequence[Attempt]) -> None:
    _require(name, sum(a.succeeds for a in own), sum(not a.succeeds for a in own))


def _require(name: str, good: int, bad: int) -> None:
    if min(good, bad) < LEAST:
        raise DataError(
            f"'{name}': {good} attempts that succeed and {bad} that fail; at least {LEAST} of "
            'each are needed, 10 of each decide in most labs. Failures that look nearly like a '
            'success teach most')


def _task_id(encoder: Encoder, name: str) -> str:
    """Choose the id of a task: that of the one that it is in the bundle, or a new one."""
    check_task(name)
    known = encoder.tasks.match(name)
    if known is not None:
        return known.task_id
    task_id = re.sub(r'[^a-z0-9_-]+', '-', slug(name).encode(
        'ascii', 'ignore').decode()).strip('-_')[:64]
    taken = {task.task_id for task in encoder.tasks.tasks} | {FALLBACK}
    if not task_id or task_id in taken:
        raise DataError(f"'{name}': its id would be '{task_id}', which is empty or another "
                        "task's; say the instruction in other words")
    return task_id


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
    change = np.mean(
        [np.square(a.tokens - a.tokens[:1]).sum(-1).mean(0) for a in attempts], axis=0)
    return np.asarray(change / np.maximum(change.max(1, keepdims=True), 1e-9), np.float32)


def ood_limit(
    manifest: Manifest, found: Attempts, views: Sequence[int], report: Report,
) -> tuple[float, float]:
    """
    Set the limit of the out-of-distribution score on attempts that the model was not fitted to.

    :returns: the limit, and the fraction of those attempts' ticks above it.
    """
    attempts = found.attempts
    fold = np.arange(len(attempts)) % min(_OOD_FOLDS, len(attempts))
    scores = []
    for k in range(int(fold.max()) + 1):
        head = new_head(manifest, found, [])
        fit_ood(head, [a for a, f in zip(attempts, fold, strict=True) if f != k], views)
        scores += [ood_scores(head, a, views)
                   for a, f in zip(attempts, fold, strict=True) if f == k]
    every = np.concatenate(scores)
    limit = float(np.quantile(every, 1.0 - _OOD_RATE)) * _OOD_MARGIN
    rate = float((every > limit).mean())
    report(f'out-of-distribution limit {limit:.2f}: {100 * rate:.1f} % of the ticks of attempts '
           'left out are above it')
    return limit, rate


def fit_task(
    manifest: Manifest, found: Attempts, own: Sequence[Attempt], task: Task,
    views: Sequence[int], regions: Floats, limit: float, report: Report = print, *,
    recipes: Sequence[Recipe] = RECIPES,
) -> TaughtTask:
    """
    Choose, fit and calibrate one task.

    :param found: all attempts of the lab, which the out-of-distribution model is of.
    :param own: those at this task.
    :param task: its names and prompts.
    :param views: indices of the views that are in all attempts.
    :param regions: float32 [V, N], 1 for tokens to look at.
    :param limit: of the out-of-distribution score, see `ood_limit`.
    :param recipes: to choose from.
    """
    good = sum(a.succeeds for a in own)
    report(f"'{task.name}': {good} attempts that succeed, {len(own) - good} that fail")
    sets = view_sets([manifest.views[i] for i in views])
    if not manifest.success.trained:
        recipes = [recipe for recipe in recipes if not recipe.video]
    choice = choose(own, views, sets[0], manifest.tokens.grid, regions, recipes, report)
    report(f'    chosen: {choice.recipe.name}')
    head = new_head(manifest, found, sets)
    fit_ood(head, found.attempts, views)
    calibrations, scored = [], []
    for row, names in enumerate(sets):
        calibration, one = _fit_views(
            head, row, own, names, manifest, regions, choice.recipe, choice.strength)
        calibrations.append(calibration)
        scored.append(one)
    learned = any(one.risk is not None for one in scored[0])
    result = TaughtTask(replace(
        task, modes=(_MODE,) if learned else (), calibrations=tuple(calibrations),
        head=f'head.{task.task_id}.onnx', ood_threshold=round(limit, 6),
        robot=own[0].episode.embodiment,
    ), head.eval(), sets[0], choice, tuple(scored[0]), rate_table(calibrations[0], scored[0]))
    for line in verdict(result):
        report(f'    {line}')
    return result


@torch.no_grad()
def score_attempts(one: TaughtTask, attempts: Sequence[Attempt]) -> list[Scored]:
    """Score attempts that nothing was fitted to, as the node will, while all views are there."""
    assert one.task.ood_threshold is not None
    there = torch.zeros(len(one.head.sets[0]))
    there += one.head.sets[0]
    views = np.flatnonzero(there.numpy()).tolist()
    found = []
    for a in attempts:
        tokens = torch.from_numpy(a.tokens)
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
    manifest: Manifest, regions: Floats, recipe: Recipe, strength: float,
) -> tuple[Calibration, list[Scored]]:
    """Fit a head's weights for one set of views, and what makes decisions of its scores."""
    grid = manifest.tokens.grid
    views = [manifest.views.index(view) for view in sorted(names)]
    rows = rows_of(own, recipe, views, names, grid, regions)
    fold = folds(own)
    scores = left_out_scores(own, rows, fold, strength)
    write_weights(head, row, 0, rows, recipe, views, grid, regions,
                  *fit_final(own, rows, strength))
    fitted = _fit_map(own, scores, 'done')
    evidence = _evidence(own, scores, _DWELL)
    probabilities = [fitted.apply(s) for s in scores]
    thresholds, (failed, succeeded) = _thresholds(own, probabilities)
    if fitted.parameters['scale'] <= FLATTEST:  # everything has one probability
        thresholds = {}
    risks, failure_threshold = _fit_failure(
        head, row, own, rows, fold, views, grid, regions, recipe, strength)
    return Calibration(
        tuple(view for view in manifest.views if view in names), fitted.method,
        {key: round(value, 6) for key, value in fitted.parameters.items()}, thresholds,
        failed=failed, succeeded=succeeded, rows=fitted.count, episodes=fitted.episodes,
        evidence=evidence, failure_threshold=failure_threshold,
    ), [Scored(a, p, r, np.zeros(len(p), np.bool_))
        for a, p, r in zip(own, probabilities, risks, strict=True)]


def _evidence(
    own: Sequence[Attempt], scores: Sequence[Doubles], dwell: int, *, failure: bool = False,
) -> Evidence | None:
    """Measure what scores of attempts left out tell of their outcome."""
    # Of a score that may be negative; 0 would be the level of what is too short to be decided.
    levels = [nonconformity_score(a.stamps, np.exp(s), dwell)
              for a, s in zip(own, scores, strict=True)]
    return measure_evidence(levels, [float(a.time_s[-1]) for a in own],
                            [a.succeeds != failure for a in own])


def _fit_map(own: Sequence[Attempt], scores: Sequence[Doubles], target: str) -> Fitted:
    known = [~np.isnan(getattr(a, target)) for a in own]
    return fit_few([s[k] for s, k in zip(scores, known, strict=True)],
                   [getattr(a, target)[k] == 1 for a, k in zip(own, known, strict=True)])


def _before(attempt: Attempt) -> int:
    """Count the ticks before the task may be accomplished: all of a failure's."""
    return int((attempt.done != 0).argmax()) if attempt.succeeds else len(attempt.time_s)


def _thresholds(
    own: Sequence[Attempt], probabilities: Sequence[Doubles],
) -> tuple[dict[float, float], tuple[int, int]]:
    """
    Choose thresholds by rate, and count the failures and successes behind them.

    Each kind has to keep the rate: no more failures see a SUCCESS, no more successes an early one.
    """
    levels: tuple[list[float], list[float]] = [], []
    for a, p in zip(own, probabilities, strict=True):
        end = _before(a)
        if end and a.stamps[end - 1] - a.stamps[0] >= _DWELL:
            levels[int(a.succeeds)].append(nonconformity_score(a.stamps[:end], p[:end], _DWELL))
    counts = len(levels[0]), len(levels[1])
    thresholds = {}
    for rate in offered_rates(min(counts)):
        either = [conformal_threshold(some, rate) for some in levels]
        if None not in either:
            thresholds[rate] = float(max(EVEN, *(t for t in either if t is not None)))
    return thresholds, counts


def _fit_failure(
    head: TaughtHead, row: int, own: Sequence[Attempt], rows: Rows, fold: NDArray[np.int64],
    views: Sequence[int], grid: tuple[int, int], regions: Floats, recipe: Recipe, strength: float,
) -> tuple[list[Doubles | None], float | None]:
    """
    Learn when an attempt has failed, where that tells more than elapsed time.

    :returns: the risk at each attempt's ticks, and the threshold that successes bound.
    """
    scores = left_out_scores(own, rows, fold, strength, 'failed')
    evidence = _evidence(own, scores, _FAILURE_DWELL, failure=True)
    good = [i for i, a in enumerate(own) if a.succeeds]
    rate = next((r for r in offered_rates(len(good)) if r > USUAL_RATE - 1e-9), None)
    if evidence is None or not evidence.suffices or rate is None:
        return [None] * len(own), 1.0
    fitted = _fit_map(own, scores, 'failed')
    write_weights(head, row, 1, rows, recipe, views, grid, regions,
                  *fit_final(own, rows, strength, 'failed'))
    head.failure_scale[row] = torch.tensor(
        [fitted.parameters['scale'], fitted.parameters['shift']])
    risks = [fitted.apply(s) for s in scores]
    threshold = conformal_threshold([
        nonconformity_score(own[i].stamps, risks[i], _FAILURE_DWELL) for i in good], rate)
    return list(risks), None if threshold is None else max(EVEN, threshold)


def rate_table(calibration: Calibration, scored: Sequence[Scored]) -> tuple[RateRow, ...]:
    """Say what each rate that can be decided costs on attempts that nothing was fitted to."""
    good = sum(one.attempt.succeeds for one in scored)
    table = []
    for rate in calibration.rates:
        threshold = calibration.threshold(rate)
        assert threshold is not None
        count: Counter[str] = Counter()
        delays = []
        for one in scored:
            a = one.attempt
            said, at = _decision(one, threshold, calibration.failure_threshold)
            if said is Decision.FAILURE:
                count['wrongly' if a.succeeds else 'stopped'] += 1
            elif said is Decision.SUCCESS and not a.succeeds:
                count['false'] += 1
            elif said is Decision.SUCCESS and at < _before(a):
                count['early'] += 1
            elif said is Decision.SUCCESS:
                count['decided'] += 1
                first = int((a.done == 1).argmax())
                delays.append(max(0.0, float(a.time_s[at] - a.time_s[first])))
        table.append(RateRow(
            rate, threshold, good, len(scored) - good, count['decided'], count['early'],
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
            failure_threshold=failure_threshold)
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
    fewest = min(calibration.failed, calibration.succeeded)
    if row is None:
        lines.append('ABSTAIN, always: ' + (
            f'scores do not tell more than elapsed time ({evidence})'
            if evidence and not evidence.suffices else 'too few attempts, or too short ones'))
        lines.append('what helps: attempts of both kinds with the object large in one view; a '
                     '--region around where it happens; failures that last as long as successes')
        return lines
    lines.append(f'{row.decided} of {row.successes} successes decided, {row.early} early, '
                 f'{row.false} of {row.failures} failures called SUCCESS ({evidence})')
    lines.append(
        f'decides at a false-alarm rate of {100 * row.rate:.3g} %: expected at most that, with '
        f'90 % confidence at most {100 * bound_with_confidence(fewest):.3g} %')
    if row.rate > USUAL_RATE + 1e-9:
        more = attempts_for(USUAL_RATE)
        lines.append(
            f'for {100 * USUAL_RATE:g} %: {max(0, more - calibration.succeeded)} more successes '
            f'and {max(0, more - calibration.failed)} more failures')
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
