# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Success heads measured tick by tick: detection, calibration, instructions and failure modes.

Detection compares several ways to score, each with one or more seeds, on the same ticks. All else
is about one way, calibrated, as success_deciders has it. What its decisions do over time is in
success_events.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hralign_ros.calibration.calibrate import ALPHA
from hralign_ros.calibration.scorer import random_ticks, Scored, Scorer, ticks
from hralign_ros.calibration.traces import Trace
from hralign_ros.data.manifest import Episode
from hralign_ros.data.splits import SPLITS as ALL_SPLITS
from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    rate,
    seed_mean,
    without_interval,
)
from hralign_ros.evaluation.metrics.calibration import brier_parts, calibrated, with_prevalence
from hralign_ros.evaluation.metrics.detection import detection
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success_deciders import CalibratedScorer, decided_on, SuccessModel
from hralign_ros.runtime.report import Report
from hralign_ros.training.success_clips import Recording
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, normalized_mutual_info_score

Doubles = NDArray[np.float64]
# How a recording is scored; what stands in for a trained head in controls and baselines.
ScoreRecording = Callable[[Recording], Scored]
SPLITS = tuple(split for split in ALL_SPLITS if split.startswith('test_'))
# What failures of the simulated table are tagged with.
CAUSES = ('language', 'motion')
ANY = 'any'
SEEN, VIEW, TASK = 'test_seen', 'test_view', 'test_task'
# The ticks that detection and calibration are measured on: one random and the last of an attempt.
ENDS = 'random_and_last'
TIME_ONLY = 'time alone'
_DRAWS = 500
# Random ticks of an attempt, as a sample of all of them.
_EACH = 8
# Permutations that chance is averaged over.
_SHUFFLES = 100


def undecided(
    ours: Sequence[SuccessModel], recordings: Mapping[str, Sequence[Recording]],
) -> list[str]:
    """Say of which attempts there are no numbers about decisions, by split."""
    found = []
    for split, some in recordings.items():
        every = attempts(some)
        known = decided_on(ours, every, ALPHA)[0]
        if len(known) < len(every):
            found.append(f'{split}: {len(every) - len(known)} of {len(every)} attempts have no '
                         f'threshold for {ALPHA:.0%}, as too few episodes were calibrated with: '
                         'nothing is decided on them, and they are in no number about decisions.')
    return found


def uncalibrated(one: SuccessModel) -> ScoreRecording:
    """Score recordings by what a model says before calibration."""
    return lambda recording: one(recording).scored


def time_alone(recording: Recording) -> Scored:
    """Score a tick by its time since the start of the episode: the control without eyes."""
    zeros = np.zeros((recording.frames, 1), np.float32)
    trace = Trace(recording, zeros, zeros[:, 0], zeros[:, 0], zeros[:, 0],
                  np.zeros((recording.frames, 1), bool))
    return Scored(trace, recording.episode.task_id, recording.features.time_s.astype(np.float64),
                  recording.done,
                  np.zeros((recording.frames, 0)))


def stream_of(recording: Recording) -> str:
    """Tell which kind of stream an episode is; '' for an attempt."""
    tags = [tag for tag in recording.episode.tags if tag.startswith('stream:')]
    return tags[0].removeprefix('stream:') if tags else ''


def attempts(recordings: Sequence[Recording]) -> list[Recording]:
    """Leave out streams that are no attempts."""
    return [recording for recording in recordings if not stream_of(recording)]


def clusters_of(recordings: Sequence[Recording], ticks_each: int = 1) -> NDArray[np.str_]:
    """Name the clusters of the bootstrap: task and scene, [recordings x ticks_each]."""
    names = [f'{f.episode.task_id} {f.episode.scene}' for f in recordings]
    if len(set(names)) < 2:
        names = [f.episode.episode_id for f in recordings]
    return np.repeat(names, ticks_each)


def measure_detection(
    found: Measured, variants: Mapping[str, Sequence[tuple[int, ScoreRecording]]],
    recordings: Mapping[str, Sequence[Recording]], *, report: Report = print,
) -> None:
    """
    Measure detection of several variants: one random and the last tick of every attempt.

    :param variants: by name, seeds with how they score; TIME_ONLY is a control.
    :param recordings: by split.
    """
    for split, some in recordings.items():
        chosen = attempts(some)
        if not any(f.done[-1] for f in chosen) or all(f.done[-1] for f in chosen):
            report(f'{split}: left out, no successes or no failures')
            continue
        for name, scores_of in variants.items():
            rows, done = [], np.zeros(0, bool)
            for seed, score_recording in scores_of:
                scores, done, _ = ticks([score_recording(recording) for recording in chosen], 0)
                rows.append(scores)
                found.tables.setdefault('ticks', []).extend(
                    {'variant': name, 'split': split, 'seed': seed,
                     'episode': recording.episode.episode_id, 'kind': recording.episode.failure,
                     'random_tick': float(a), 'random_tick_done': bool(p),
                     'last_tick': float(b), 'last_tick_done': bool(q)}
                    for recording, a, b, p, q in zip(
                        chosen, scores[::2], scores[1::2], done[::2], done[1::2], strict=True))
            measured = detection(np.stack(rows), done, clusters_of(chosen, 2), draws=_DRAWS)
            seeds = [seed for seed, _ in scores_of]
            for metric, value in measured.items():
                found.add(metric, name, split, value, seeds=seeds, control=name == TIME_ONLY,
                          chance=float(done.mean()) if metric == 'average_precision' else None)
        report(f'{split}: {len(chosen)} attempts, AUROC ' + ', '.join(
            f'{row["variant"]} {row["value"]:.3f}' for row in found.select('auroc')
            if row['split'] == split))


def measure_ends(
    found: Measured, variants: Mapping[str, Sequence[tuple[int, ScoreRecording]]],
    recordings: Mapping[str, Sequence[Recording]],
) -> None:
    """
    Measure how failures are told from successes by the last ticks; those of each cause apart.

    Of attempts that are tagged with a cause: in a language failure the arm does something else
    well, so that the instruction alone tells. Without any there is nothing new: nothing is
    measured.

    :param variants: as for measure_detection.
    :param recordings: by split.
    """
    for split, some in recordings.items():
        every = attempts(some)
        if not any(tag.startswith('cause:') for f in every for tag in f.episode.tags):
            continue
        for cause in (ANY, *CAUSES):
            chosen = [f for f in every if f.done[-1] or (
                not f.done.any() and (cause == ANY or f'cause:{cause}' in f.episode.tags))]
            done = np.array([bool(f.done[-1]) for f in chosen])
            if not done.any() or done.all():
                continue
            for name, scores_of in variants.items():
                scores = np.array([
                    [score(recording).scores[-1] for recording in chosen]
                    for _, score in scores_of])
                measured = detection(scores, done, clusters_of(chosen), draws=_DRAWS)
                found.add('auroc_at_end', name, split, measured['auroc'], cause=cause,
                          seeds=[seed for seed, _ in scores_of], control=name == TIME_ONLY,
                          note=f'{int((~done).sum())} failures')


def measure_calibration(
    found: Measured, name: str, ours: Sequence[SuccessModel],
    recordings: Mapping[str, Sequence[Recording]],
) -> dict[str, tuple[Doubles, NDArray[np.bool_]]]:
    """
    Measure calibration on one random and the last tick of each attempt, and on random ticks.

    The latter are what a node publishes, of which fewer are accomplished.

    :returns: random ticks of the first seed by split, probabilities and labels, for the figure.
    """
    samples = {}
    for split, some in recordings.items():
        every = attempts(some)
        chosen = [recording for recording in every if all(
            np.isfinite(one(recording).probability).all() for one in ours)]
        # Of one attempt there is no interval.
        if len(chosen) < 2:
            continue
        without = f'; {len(every) - len(chosen)} attempts are UNCALIBRATED, and left out' \
            if len(chosen) < len(every) else ''
        rows, any_rows = [], []
        for one in ours:
            said = [replace(judged.scored, scores=judged.probability)
                    for judged in map(one, chosen)]
            probability, done, _ = ticks(said, 0)
            rows.append(probability)
            probability, any_done, _ = random_ticks(said, 0, _EACH)
            any_rows.append(probability)
        stack, any_stack = np.stack(rows), np.stack(any_rows)
        seeds, clusters = [one.seed for one in ours], clusters_of(chosen, 2)
        published = calibrated(any_stack, any_done, clusters_of(chosen, _EACH), draws=_DRAWS)
        for metric in ('expected_calibration_error', 'brier_score'):
            found.add(metric, name, split, published[metric], seeds=seeds, ticks='random',
                      note=f'prevalence {any_done.mean():.3f}{without}')
        prevalence = float(done.mean())
        note = f'prevalence {prevalence:.3f}{without}'
        parts = ', '.join(f'{part} {value:.3f}' for part, value in brier_parts(
            stack, done).items())
        for metric, value in calibrated(stack, done, clusters, draws=_DRAWS).items():
            found.add(metric, name, split, value, seeds=seeds, ticks=ENDS,
                      note=f'{note}; {parts}' if metric == 'brier_score' else note)
        if 0.0 < prevalence < 1.0:
            shifted = np.stack([with_prevalence(row, prevalence) for row in stack])
            found.add('expected_calibration_error', name, split,
                      calibrated(shifted, done, clusters, draws=_DRAWS)[
                          'expected_calibration_error'],
                      seeds=seeds, note=note, ticks=ENDS, prevalence='known')
        samples[split] = any_stack[0], any_done
    return samples


def over_seeds(values: Sequence[float], n: int) -> Estimate:
    """Average over seeds, with Student's interval where there are several."""
    finite = [v for v in values if np.isfinite(v)]
    if len(finite) > 1:
        return replace(seed_mean(finite), n=n)
    return without_interval(finite[0] if finite else float('nan'), n)


def fraction_over(
    events: NDArray[np.bool_], clusters: Sequence[str] | NDArray[np.str_],
) -> Estimate:
    """
    Return how often something happened, with an interval that is wide enough.

    Attempts of one task are alike, and of few events resampling sees too little: of the interval
    over clusters (and seeds) and the exact one of independent attempts, the outer ends.

    :param events: bool [S, n] of S seeds on the same attempts.
    :param clusters: [n].
    """
    value, count = float(events.mean()), events.shape[1]
    exact = rate(round(value * count), count)
    if len(set(clusters)) < 2:
        return replace(exact, value=value)
    samples = cluster_mean(events.astype(np.float64), list(clusters), draws=_DRAWS)
    return replace(samples, low=max(min(samples.low, exact.low), 0.0),
                   high=min(max(samples.high, exact.high), 1.0), n=count)


def measure_confusion(
    found: Measured, name: str, one: CalibratedScorer, recordings: Sequence[Recording],
) -> tuple[Doubles, list[str]]:
    """
    Measure for which of all known instructions the last tick of a success scores highest.

    :returns: fraction of each task's videos that score highest for each instruction, rows and
        columns in the order of the names that come second.
    :raises EvaluationError: there is no success of a task that the run knows.
    """
    texts = one.scorer.run.texts
    good = [recording for recording in attempts(recordings) if recording.done[-1]
            and recording.episode.task_id in texts]
    if not good:
        raise EvaluationError('no success of a task that the run knows')
    names = sorted(texts)
    truth = [recording.episode.task_id for recording in good]
    scores = np.array([
        [one.scorer.score(seen, instruction=(task, texts[task])).scores[-1] for task in names]
        for seen in (one.scorer.trace_of(recording).end for recording in good)])
    best = [names[column] for column in scores.argmax(1)]
    right = sum(a == b for a, b in zip(truth, best, strict=True))
    found.add('instruction_accuracy', name, SEEN, rate(right, len(good)), chance=1 / len(names))
    return confusion_matrix(truth, best, labels=names, normalize='true'), names


def measure_modes(
    found: Measured, name: str, scorers: Sequence[Scorer], recordings: Sequence[Recording],
    split: str, trained: Sequence[Episode],
) -> tuple[Doubles, list[str]]:
    """
    Compare the mode that the head names at the end of a failure with the simulator's kind.

    :param trained: episodes that the heads were trained on; those in which modes were found.
    :returns: fraction of each kind's episodes by mode, first seed, [kinds, K], and the kinds.
    """
    bad = [recording for recording in attempts(recordings) if not recording.done.any()
           and recording.episode.failure]
    kinds = sorted({recording.episode.failure for recording in bad})
    if len(kinds) < 2 or not scorers[0].run.options.use_prompts:
        return np.zeros((0, 0)), []
    failures = np.array([recording.episode.failure for recording in bad])
    tasks = np.array([recording.episode.task_id for recording in bad])
    truth = np.searchsorted(kinds, failures)
    informations, accuracies, chances = [], [], []
    table = np.zeros((len(kinds), scorers[0].run.options.modes))
    rng = np.random.default_rng(0)
    for one in scorers:
        named = np.array([int(one.modes(one.trace_of(recording))[-1].argmax())
                          for recording in bad])
        # A task's first mode need not be another's.
        informations.append(_information(tasks, truth, named))
        # Which modes a task's attempts are given stays as it is: only to whom is chance.
        chances.append(np.mean([_information(tasks, truth, _shuffled_within(tasks, named, rng))
                                for _ in range(_SHUFFLES)]))
        names = one.run.mode_kinds({episode.episode_id: episode for episode in trained})
        accuracies.append(float(np.mean([
            names.get((str(task), int(mode))) == failure
            for task, mode, failure in zip(tasks, named, failures, strict=True)])))
        if one is scorers[0]:
            np.add.at(table, (truth, named), 1.0)
    seeds = [one.run.options.seed for one in scorers]
    chance = float(np.mean(chances))
    found.add('failure_mode_information', name, split, over_seeds(informations, len(bad)),
              chance=chance if np.isfinite(chance) else None, seeds=seeds)
    usual = {task: _usual_kind(trained, task) for task in np.unique(tasks)}
    most = float(np.mean([usual[task] == failure
                          for task, failure in zip(tasks, failures, strict=True)]))
    found.add('failure_kind_accuracy', name, split, over_seeds(accuracies, len(bad)),
              chance=most, seeds=seeds)
    return table / np.maximum(table.sum(1, keepdims=True), 1), kinds


def _shuffled_within(
    tasks: NDArray[np.str_], named: NDArray[np.int64], rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Deal the modes of each task's attempts out among them."""
    result = named.copy()
    for task in np.unique(tasks):
        result[tasks == task] = rng.permutation(named[tasks == task])
    return result


def _usual_kind(trained: Sequence[Episode], task: str) -> str:
    """Name the most frequent failure of a task, or else of all."""
    failures = [(episode.task_id, episode.failure) for episode in trained if episode.failure]
    kinds = Counter(kind for of, kind in failures if of == task) or Counter(
        kind for _, kind in failures)
    return max(sorted(kinds), key=lambda kind: kinds[kind], default='')


def _information(
    tasks: NDArray[np.str_], truth: NDArray[np.int64], named: NDArray[np.int64],
) -> float:
    """Return the mutual information of modes and kinds, mean over the attempts of all tasks."""
    values, weights = [], []
    for task in np.unique(tasks):
        here = tasks == task
        if len(np.unique(truth[here])) > 1 and here.sum() >= 5:
            values.append(float(normalized_mutual_info_score(truth[here], named[here])))
            weights.append(int(here.sum()))
    return float(np.average(values, weights=weights)) if values else float('nan')
