# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The evaluation of success heads: E8 to E14, tick by tick on whole episodes.

Detection compares several ways to score, each with one or more seeds, on the same ticks. All else
is about one way, calibrated: what its probabilities mean and what its decisions do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from zlib import crc32

from hralign_ros.data.manifest import Episode
from hralign_ros.evaluate.bootstrap import Estimate, EvaluationError, seed_mean
from hralign_ros.evaluate.metrics.e8_detection import detection
from hralign_ros.evaluate.metrics.e9_calibration import calibrated
from hralign_ros.evaluate.metrics.e11_events import (  # noqa: I100
    delays,
    Rate,
    rate,
    rule_of_three,
)
from hralign_ros.evaluate.metrics.e12_order import confusion, value_order_correlations
from hralign_ros.evaluate.report import row
from hralign_ros.success.alarms import decided
from hralign_ros.success.calibrate import ALPHAS, Calibrated
from hralign_ros.success.clips import Film, rearranged
from hralign_ros.success.scorer import Scored, Scorer, ticks
from hralign_ros.success.traces import Trace
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score

Report = Callable[[str], None]
Row = dict[str, Any]
Doubles = NDArray[np.float64]
# How a film is scored; what stands in for a trained head in controls and baselines.
Judge = Callable[[Film], Scored]
# What every split is called here, and where it comes from.
SPLITS = {
    'seen tasks': 'test_seen', 'held-out views': 'test_view',
    'held-out distractors': 'test_distractor', 'held-out tasks': 'test_task',
    'held-out embodiment': 'test_embodiment'}
SEEN, VIEW, TASK = 'seen tasks', 'held-out views', 'held-out tasks'
TIME_ONLY = 'time alone'
SURE = 0.9
ALPHA = 0.05
_DRAWS = 500
DELAYS_S = (0.25, 0.5, 1.0)


@dataclass
class Measured:
    """
    What was found, ready for a report.

    :param values: Estimate by (metric, variant, split).
    :param tables: rows per episode, by name.
    """

    rows: list[Row] = field(default_factory=list)
    controls: list[Row] = field(default_factory=list)
    values: dict[tuple[str, str, str], Estimate] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)

    def add(
        self, metric: str, variant: str, split: str, estimate: Estimate, *, better: str = '',
        chance: float | None = None, seeds: Sequence[int] = (), note: str = '',
        control: bool = False,
    ) -> None:
        """Note a value."""
        self.values[metric, variant, split] = estimate
        (self.controls if control else self.rows).append(row(
            metric, variant, split, estimate, better=better, chance=chance, seeds=seeds,
            note=note))


class Calibration:
    """A scorer with its curves: probabilities of ticks, whichever views took part in each."""

    def __init__(self, scorer: Scorer, found: Calibrated) -> None:
        self.scorer, self.found = scorer, found
        self._seen: dict[tuple[str, bool], Trace] = {}

    @property
    def seed(self) -> int:
        """Return the seed that the head was trained with."""
        return self.scorer.run.options.seed

    def __call__(self, film: Film) -> Scored:
        """Score a film as it is, for its own instruction."""
        key = film.episode.episode_id, film.human
        if key not in self._seen:
            self._seen[key] = self.scorer.watch(film)
        return self.scorer.judge(self._seen[key])

    def probability(self, scored: Scored) -> Doubles:
        """Map raw scores to probabilities [F]; NaN where no curve is for the views there."""
        live, names = scored.trace.live, np.array(self.scorer.views)
        result = np.full(len(live), np.nan)
        for views in np.unique(live, axis=0):
            curve = self.found.curve(scored.task_id, names[views])
            if curve is not None:
                rows = (live == views).all(1)
                result[rows] = curve.fitted.apply(scored.scores[rows])
        return result

    def threshold(self, scored: Scored, alpha: float = ALPHA) -> float:
        """Return what SUCCESS needs, with all views; above 1 where it is not known."""
        curve = self.found.curve(scored.task_id, self.scorer.views)
        return 2.0 if curve is None else curve.thresholds.get(alpha, 2.0)

    def decision(self, scored: Scored, alpha: float = ALPHA) -> int | None:
        """Return the row at which SUCCESS is decided."""
        probability = np.nan_to_num(self.probability(scored), nan=0.0)
        return decided(scored.stamps, probability, self.threshold(scored, alpha))


def time_alone(film: Film) -> Scored:
    """Score a tick by its time since the start of the episode: the control without eyes."""
    zeros = np.zeros((film.frames, 1), np.float32)
    trace = Trace(film, zeros, zeros[:, 0], zeros[:, 0], zeros[:, 0],
                  np.zeros((film.frames, 1), bool))
    return Scored(trace, film.episode.task_id, film.features.time_s.astype(np.float64), film.done)


def stream_of(film: Film) -> str:
    """Tell which kind of stream an episode is; '' for an attempt."""
    tags = [tag for tag in film.episode.tags if tag.startswith('stream:')]
    return tags[0].removeprefix('stream:') if tags else ''


def attempts(films: Sequence[Film]) -> list[Film]:
    """Leave out streams that are no attempts."""
    return [film for film in films if not stream_of(film)]


def _clusters(films: Sequence[Film]) -> NDArray[np.str_]:
    """Name what is drawn together: attempts of one task in one scene; twice, for two ticks."""
    names = [f'{f.episode.task_id} {f.episode.scene}' for f in films]
    if len(set(names)) < 2:
        names = [f.episode.episode_id for f in films]
    return np.repeat(names, 2)


def measure_detection(
    found: Measured, variants: Mapping[str, Sequence[tuple[int, Judge]]],
    films: Mapping[str, Sequence[Film]], *, controls: Sequence[str] = (TIME_ONLY,),
    report: Report = print,
) -> None:
    """
    E8 for several variants: one random tick and the last tick of every attempt.

    :param variants: by name, seeds with their judges.
    :param films: by split.
    """
    for split, some in films.items():
        chosen = attempts(some)
        if not any(f.done[-1] for f in chosen) or all(f.done[-1] for f in chosen):
            report(f'{split}: left out, no successes or no failures')
            continue
        for name, judges in variants.items():
            rows, done = [], np.zeros(0, bool)
            for seed, judge in judges:
                scores, done, _ = ticks([judge(film) for film in chosen], 0)
                rows.append(scores)
                found.tables.setdefault('ticks', []).extend(
                    {'variant': name, 'split': split, 'seed': seed,
                     'episode': film.episode.episode_id, 'kind': film.episode.failure,
                     'random_tick': float(a), 'random_tick_done': bool(p),
                     'last_tick': float(b), 'last_tick_done': bool(q)}
                    for film, a, b, p, q in zip(
                        chosen, scores[::2], scores[1::2], done[::2], done[1::2], strict=True))
            measured = detection(np.stack(rows), done, _clusters(chosen), draws=_DRAWS)
            seeds = [seed for seed, _ in judges]
            for metric, value, better, chance in (
                    ('E8 AUROC', measured.auroc, 'higher', 0.5),
                    ('E8 average precision', measured.average_precision, 'higher',
                     measured.prevalence),
                    ('E8 false positives at 95 % recall', measured.fpr95, 'lower', 0.95)):
                found.add(metric, name, split, value, better=better, chance=chance, seeds=seeds,
                          control=name in controls)
        report(f'{split}: {len(chosen)} attempts, ' + ', '.join(
            f'{name} {found.values["E8 AUROC", name, split].value:.3f}' for name in variants))


def measure_calibration(
    found: Measured, name: str, ours: Sequence[Calibration],
    films: Mapping[str, Sequence[Film]],
) -> dict[str, tuple[Doubles, NDArray[np.bool_]]]:
    """E9; returns probabilities and labels of all seeds' ticks, by split, to be drawn."""
    drawn = {}
    for split, some in films.items():
        chosen = attempts(some)
        if not chosen:
            continue
        rows, done = [], np.zeros(0, bool)
        for one in ours:
            scored = [one(film) for film in chosen]
            probability, done, _ = ticks(
                [replace(s, scores=one.probability(s)) for s in scored], 0)
            rows.append(probability)
        stack = np.stack(rows)
        if not np.isfinite(stack).all():
            continue
        result = calibrated(stack, done, _clusters(chosen), draws=_DRAWS)
        seeds = [one.seed for one in ours]
        note = f'prevalence {result.prevalence:.3f}'
        for metric, value in (('E9 ECE', result.ece), ('E9 Brier score', result.brier),
                              ('E9 negative log-likelihood', result.nll)):
            found.add(metric, name, split, value, better='lower', seeds=seeds, note=note)
        drawn[split] = (stack.ravel(), np.tile(done, len(rows)))
    return drawn


def _estimate(value: Rate) -> Estimate:
    return Estimate(value.value, value.low, value.high, value.trials, value.trials,
                    method='clopper-pearson')


def measure_alarms(
    found: Measured, name: str, ours: Sequence[Calibration], films: Sequence[Film], split: str,
) -> None:
    """E10: how many attempts that never succeed are taken for a success, against the promise."""
    never = [film for film in films if not film.done.any()]
    if not never:
        return
    for alpha in ALPHAS:
        alarms = np.array([[one.decision(one(film), alpha) is not None for film in never]
                           for one in ours])
        # Seeds see the same episodes: the interval is that of one of them.
        share = rate(int(round(alarms.mean(0).sum())), len(never))
        found.add(f'E10 false alarms at {alpha:.0%}', name, split, replace(
            _estimate(share), value=float(alarms.mean())), better='lower', chance=alpha,
            seeds=[one.seed for one in ours])
        if alpha == ALPHA:
            tasks = np.array([film.episode.task_id for film in never])
            for task in np.unique(tasks):
                here = alarms[:, tasks == task]
                bound = rate(int(here[0].sum()), here.shape[1])
                found.tables.setdefault('false_alarms_by_task', []).append({
                    'split': split, 'task': str(task), 'episodes': here.shape[1],
                    'seed': ours[0].seed, 'false_alarms': bound.events, 'low': bound.low,
                    'high': bound.high, 'promise_inside': bound.low <= alpha <= bound.high,
                    'rate_all_seeds': float(here.mean())})


def measure_delays(
    found: Measured, name: str, ours: Sequence[Calibration], films: Sequence[Film], split: str,
) -> None:
    """E11: how late SUCCESS is decided where there is one, and how often it is not."""
    good = [film for film in attempts(films) if film.done[-1]]
    if not good:
        return
    per_seed = []
    for one in ours:
        first, when = [], []
        for film in good:
            scored = one(film)
            at = one.decision(scored)
            first.append(float(film.features.time_s[int(film.done.argmax())]))
            when.append(np.nan if at is None else float(film.features.time_s[at]))
            found.tables.setdefault('decisions', []).append({
                'split': split, 'seed': one.seed, 'episode': film.episode.episode_id,
                'done_s': first[-1], 'success_s': None if at is None else when[-1],
                'left_s': float(film.features.time_s[-1]) - first[-1]})
        per_seed.append(delays(first, when))
    seeds = [one.seed for one in ours]
    for metric, pick in (('E11 missed successes', lambda d: d.missed.value),
                         ('E11 successes decided too early', lambda d: d.early.value),
                         ('E11 median delay [s]', lambda d: d.median_s),
                         ('E11 delay, 90 % [s]', lambda d: d.p90_s)):
        values = [float(pick(d)) for d in per_seed]  # type: ignore[no-untyped-call]
        found.add(metric, name, split, _over_seeds(values, len(good)), better='lower',
                  seeds=seeds)


def _over_seeds(values: Sequence[float], n: int) -> Estimate:
    """Average over seeds, with Student's interval where there are several."""
    finite = [v for v in values if np.isfinite(v)]
    if len(finite) > 1:
        return replace(seed_mean(finite), n=n)
    return Estimate(finite[0] if finite else float('nan'), float('nan'), float('nan'), n, n)


def wrong_task(
    film: Film, tasks: Mapping[str, str],
) -> tuple[str, str]:
    """Choose an instruction that a film does not follow: always the same one for a film."""
    others = sorted(task for task in tasks if task != film.episode.task_id)
    task = others[crc32(film.episode.episode_id.encode()) % len(others)]
    return task, tasks[task]


def reversed_film(film: Film) -> Film | None:
    """Play what led to a success backwards; None where there is too little of it."""
    first = int(film.done.argmax())
    if not film.done.any() or first < 5:
        return None
    return rearranged(film, np.arange(first)[::-1].copy(), np.zeros(first, bool))


def measure_streams(
    found: Measured, name: str, one: Calibration, films: Sequence[Film], *, plain: float = 0.5,
) -> None:
    """
    E11: false SUCCESS decisions on streams in which nothing is accomplished.

    Idle, occluded and relit streams were rendered as such; wrong-task and reversed ones are
    successes under another instruction or played backwards. Beside them what the rule of one
    sample above `plain` would have done with the same probabilities.
    """
    streams: dict[str, list[Scored]] = {}
    for film in films:
        kind = stream_of(film)
        if kind and not film.done.any():
            streams.setdefault(kind, []).append(one(film))
        elif not kind and film.done.any():
            seen = one(film).trace
            streams.setdefault('wrong task', []).append(one.scorer.judge(
                seen, instruction=wrong_task(film, one.scorer.run.texts)))
            backwards = reversed_film(film)
            if backwards is not None:
                streams.setdefault('reversed', []).append(
                    one.scorer.judge(one.scorer.watch(backwards)))
    for kind, some in sorted(streams.items()):
        events = sum(one.decision(s) is not None for s in some)
        naive = sum(bool((np.nan_to_num(one.probability(s)) > plain).any()) for s in some)
        frames = sum(len(s.scores) for s in some)
        found.tables.setdefault('streams', []).append({
            'stream': kind, 'segments': len(some), 'frames': frames,
            'hours': round(sum(float(s.film.features.time_s[-1]) for s in some) / 3600, 4),
            'success_events': events, 'bound_per_segment': rule_of_three(events, len(some)),
            'events_one_sample': naive})
        for variant, count in ((name, events), (f'one sample above {plain}', naive)):
            found.add(f'E11 false SUCCESS per segment, {kind}', variant, SEEN,
                      _estimate(rate(count, len(some))), better='lower',
                      note=f'{frames} frames', control=variant != name)


def frozen(film: Film, view: int) -> Film:
    """Return a film in which a view shows the same picture from the middle on."""
    rows = np.repeat(np.arange(film.frames)[:, None], film.features.tokens.shape[1], axis=1)
    rows[:, view] = np.minimum(rows[:, view], film.frames // 2)
    return rearranged(film, rows, film.done)


def measure_cameras(
    found: Measured, name: str, one: Calibration, films: Sequence[Film], split: str = SEEN,
) -> None:
    """E14: what a camera that is gone, frozen or late does to detection and to confidence."""
    chosen = attempts(films)
    views = one.scorer.views
    # What is done to a film, and how it is watched.
    variations: dict[str, tuple[Callable[[Film], Film], dict[str, Any]]] = {
        'all views': (lambda film: film, {})}
    for number, view in enumerate(views):
        variations[f'no {view}'] = (
            lambda film: film, {'views': np.arange(len(views)) != number})
        variations[f'{view} frozen'] = (partial(frozen, view=number), {})
        for delay in DELAYS_S:
            variations[f'{view} {delay * 1000:.0f} ms late'] = (
                lambda film: film,
                {'delays': [delay * (i == number) for i in range(len(views))]})
    whole = float('nan')
    for what, (change, how) in variations.items():
        scored = [one.scorer.judge(one.scorer.watch(change(film), **how)) for film in chosen]
        ps = [one.probability(s) for s in scored]
        known = [np.isfinite(p).all() for p in ps]
        if not all(known):
            continue
        values, done, _ = ticks(
            [replace(s, scores=p) for s, p in zip(scored, ps, strict=True)], 0)
        auroc = float(roc_auc_score(done, values))
        whole = auroc if what == 'all views' else whole
        never = [p for s, p in zip(scored, ps, strict=True) if not s.done.any()]
        sure = rate(sum(bool((p > SURE).any()) for p in never), len(never))
        found.add('E14 AUROC', f'{name}, {what}', split, Estimate(
            auroc, float('nan'), float('nan'), len(values), len(chosen)), better='higher')
        found.add(f'E14 wrongly above {SURE}', f'{name}, {what}', split, _estimate(sure),
                  better='lower', note='attempts that never succeed, at any tick')
        found.tables.setdefault('cameras', []).append({
            'what': what, 'split': split, 'auroc': auroc, 'auroc_loss': whole - auroc,
            'sure_and_wrong': sure.value, 'sure_and_wrong_high': sure.high})


def measure_order(
    found: Measured, name: str, one: Calibration, films: Sequence[Film], split: str,
) -> None:
    """E12: rank correlation of progress and probability with time, forwards and backwards."""
    kinds: dict[str, list[Scored]] = {'successes': [], 'failures': [], 'reversed': []}
    for film in attempts(films):
        kinds['successes' if film.done[-1] else 'failures'].append(one(film))
        backwards = reversed_film(film)
        if backwards is not None:
            kinds['reversed'].append(one.scorer.judge(one.scorer.watch(backwards)))
    for kind, some in kinds.items():
        if not some:
            continue
        for what, values in (
                ('progress', [s.trace.progress.astype(np.float64) for s in some]),
                ('raw score', [s.scores for s in some])):
            each = value_order_correlations(values)
            spread = 1.96 * float(each.std()) / max(len(each), 1) ** 0.5
            found.add(f'E12 {what} against time, {kind}', name, split, Estimate(
                float(each.mean()), float(each.mean()) - spread, float(each.mean()) + spread,
                len(each), len(each), method='student'), better='' if kind != 'successes'
                else 'higher')


def measure_confusion(
    found: Measured, name: str, one: Calibration, films: Sequence[Film],
) -> tuple[Doubles, list[str]]:
    """E13: for which of all known instructions the last tick of a success scores highest."""
    texts = one.scorer.run.texts
    good = [film for film in attempts(films) if film.done[-1] and film.episode.task_id in texts]
    if not good:
        raise EvaluationError('no success of a task that the run knows')
    names = sorted({film.episode.task_id for film in good})
    scores = np.array([[one.scorer.judge(one(film).trace, instruction=(task, texts[task])).scores[
        -1] for task in names] for film in good])
    table, accuracy, chance = confusion(
        scores, [film.episode.task_id for film in good], names)
    share = rate(round(accuracy * len(good)), len(good))
    found.add('E13 right instruction of all', name, SEEN, _estimate(share), better='higher',
              chance=chance)
    return table, names


def measure_modes(
    found: Measured, name: str, ours: Sequence[Calibration], films: Sequence[Film], split: str,
    trained: Sequence[Episode],
) -> tuple[Doubles, list[str]]:
    """
    Compare the mode that the head names at the end of a failure with the simulator's kind.

    :param trained: episodes that the heads were trained on; those in which modes were found.
    :returns: share of each kind's episodes by mode, of the first seed, [kinds, K], and the kinds.
    """
    bad = [film for film in attempts(films) if not film.done.any() and film.episode.failure]
    kinds = sorted({film.episode.failure for film in bad})
    if len(kinds) < 2 or not ours[0].scorer.run.options.use_prompts:
        return np.zeros((0, 0)), []
    truth = np.array([kinds.index(film.episode.failure) for film in bad])
    informations, accuracies, chances = [], [], []
    table = np.zeros((len(kinds), ours[0].scorer.run.options.modes))
    rng = np.random.default_rng(0)
    for one in ours:
        named = np.array([int(one.scorer.modes(one(film).trace)[-1].argmax()) for film in bad])
        # A task's first mode need not be another's.
        informations.append(_within_tasks(bad, truth, named, normalized_mutual_info_score))
        chances.append(_within_tasks(bad, truth, rng.permutation(named),
                                     normalized_mutual_info_score))
        names = one.scorer.run.mode_kinds(
            {episode.episode_id: episode for episode in trained})
        accuracies.append(float(np.mean([
            names.get((film.episode.task_id, int(mode))) == film.episode.failure
            for film, mode in zip(bad, named, strict=True)])))
        if one is ours[0]:
            np.add.at(table, (truth, named), 1.0)
    seeds = [one.seed for one in ours]
    chance = float(np.mean(chances))
    found.add('Failure mode against kind, mutual information within tasks', name, split,
              _over_seeds(informations, len(bad)), better='higher',
              chance=chance if np.isfinite(chance) else None, seeds=seeds)
    most = float(np.mean([np.bincount(truth).max() / len(truth)]))
    found.add('Failure kind named right', name, split, _over_seeds(accuracies, len(bad)),
              better='higher', chance=most, seeds=seeds,
              note='a mode is called what most training failures of its task in it are')
    return table / np.maximum(table.sum(1, keepdims=True), 1), kinds


def _within_tasks(
    films: Sequence[Film], truth: NDArray[np.int64], named: NDArray[np.int64],
    score: Callable[..., float],
) -> float:
    tasks = np.array([film.episode.task_id for film in films])
    values, weights = [], []
    for task in np.unique(tasks):
        here = tasks == task
        if len(np.unique(truth[here])) > 1 and here.sum() >= 5:
            values.append(float(score(truth[here], named[here])))
            weights.append(int(here.sum()))
    return float(np.average(values, weights=weights)) if values else float('nan')
