# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The report on success heads: calibrate, measure, draw, write one folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hralign_ros.calibration.calibrate import ALPHA, fit_maps
from hralign_ros.calibration.scorer import Scorer
from hralign_ros.data.manifest import DataSet, SIMULATORS
from hralign_ros.data.token_features import TokenFeatures
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.figures import (
    bar_chart,
    heat_map,
    probability_traces,
    ProbabilityTrace,
    reliability_diagram,
)
from hralign_ros.evaluation.metrics.names import METRICS
from hralign_ros.evaluation.report import Measured, read_report, rows_for_card, write_report
from hralign_ros.evaluation.success_deciders import CalibratedScorer, SuccessModel
from hralign_ros.evaluation.success_events import (
    measure_alarms,
    measure_cameras,
    measure_delays,
    measure_order,
    measure_streams,
)
from hralign_ros.evaluation.success_ticks import (
    attempts,
    ENDS,
    measure_calibration,
    measure_confusion,
    measure_detection,
    measure_ends,
    measure_modes,
    ScoreRecording,
    SEEN,
    SPLITS,
    time_alone,
    TIME_ONLY,
    uncalibrated,
    undecided,
)
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Report
from hralign_ros.training.devices import choose_device
from hralign_ros.training.success_clips import load_recordings, Recording, without_stills
from hralign_ros.training.success_run import SuccessRun, trained_on
import numpy as np

OURS = 'failure prompts'
# Attempts of a split, at most, of which detection compares all heads.
MOST = 1000
SIMULATED = ('Simulated episodes: these figures say that the method works on this data, not how '
             'well it works on a real robot.')


def evaluate_success(
    data: DataSet, store: TokenFeatures, runs: Sequence[SuccessRun], bundle: Path, output: Path, *,
    others: Mapping[str, Sequence[tuple[int, ScoreRecording]]] | None = None,
    commands: Sequence[str] = (), perturbed_frames: int = 20_000, device: str = 'auto',
    report: Report = print,
) -> tuple[Measured, list[CalibratedScorer]]:
    """
    Evaluate runs that differ in their seed and write report.html, .json and .csv.

    :param data: with the splits that the runs were trained under.
    :param bundle: whose encoder and texts they were trained for.
    :param others: baselines and controls for detection, by name.
    :param perturbed_frames: see measure_streams.
    :param device: auto, cpu or cuda.
    :raises EvaluationError: no run, no test episode with features, or one that was trained on.
    """
    chosen = choose_device(device)
    if not runs:
        raise EvaluationError('at least one run is needed')
    data = without_stills(data, runs[0].options)
    recordings = {split: load_recordings(data, store, [split]) for split in SPLITS}
    recordings = {split: some for split, some in recordings.items() if some}
    if SEEN not in recordings:
        raise EvaluationError(f'{data.folder}: no episode of {SEEN} with features')
    for run in runs:
        both = trained_on(run, (recording for some in recordings.values() for recording in some))
        if both:
            raise EvaluationError(
                f'{len(both)} test episodes were trained on by {run.folder}, such as {both[0]}: '
                'the head would look better than it is. Train again with the splits as they are '
                'now, or import the data with those that it was trained with')
    encoder = Encoder.load(bundle, provider=chosen.provider)
    known, unknown = (load_recordings(data, store, [split])
                      for split in ('calibration', 'validation'))
    ours = [CalibratedScorer(scorer, fit_maps(scorer, known, unknown, report))
            for scorer in (Scorer(run, encoder, chosen.torch) for run in runs)]
    name, found = OURS, Measured()
    variants: dict[str, Sequence[tuple[int, ScoreRecording]]] = {
        name: [(one.seed, uncalibrated(one)) for one in ours], **(others or {}),
        TIME_ONLY: [(0, time_alone)]}
    # Many heads on the same ticks, or many variations of a recording: fewer attempts will do.
    fewer = {split: spread(attempts(some), MOST) for split, some in recordings.items()}
    measure_detection(found, variants, fewer, report=report)
    measure_ends(found, variants, recordings)
    drawn = measure_calibration(found, name, ours, recordings)
    for split, some in recordings.items():
        measure_alarms(found, name, ours, some, split)
        measure_delays(found, name, ours, some, split)
    report('streams, cameras, order, instructions, modes')
    measure_streams(found, name, ours[0], recordings[SEEN], perturbed_frames=perturbed_frames)
    measure_cameras(found, name, ours[0], fewer[SEEN])
    measure_order(found, name, ours[0], recordings[SEEN])
    try:
        table, tasks = measure_confusion(found, name, ours[0], recordings[SEEN])
    except EvaluationError as error:
        report(f'instructions left out: {error}')
        table, tasks = np.zeros((0, 0)), []
    modes, kinds = measure_modes(
        found, name, [one.scorer for one in ours], recordings[SEEN], SEEN,
        data.of_split('train').episodes)

    for metric in ('auroc', 'fpr_at_95_recall'):
        title = METRICS[metric].label
        found.draw(
            metric, bar_chart(found.select(metric), title=title), title,
            f'One random tick and the last tick of every attempt, of {MOST} a split at most; '
            'means over seeds, whiskers 95 % intervals.')
    found.draw(
        'reliability', reliability_diagram(drawn), 'Reliability',
        f'Random ticks, seed {ours[0].seed}, in bins of equal mass; lines: 95 % intervals as if '
        'ticks were independent; shaded: how often a probability is said.')
    found.draw(
        'traces', probability_traces(example_traces(ours[0], recordings[SEEN])),
        'Probability over time',
        f'Two successes and two failures of each kind of the test episodes, in the order of their '
        f'names; shaded: accomplished; dashed: the threshold for {ALPHA:.0%} false alarms.')
    if tasks:
        found.draw('instructions', heat_map(
            table, tasks, tasks, title='Video against instruction', across='instruction that '
            'scores highest at the end', down='task of the video'), 'Video against instruction',
            'Successes of seen tasks.')
    if kinds:
        found.draw('modes', heat_map(
            modes, kinds, [f'mode {k + 1}' for k in range(modes.shape[1])],
            title='Kind of failure and mode named', across='mode', down="simulator's kind"),
            'Failure modes', "All tasks together; a task's first mode need not be another's.")
    warnings = [SIMULATED] if (sources := {e.source for e in data.episodes}) & SIMULATORS else []
    warnings += undecided(ours, recordings)
    write_report(
        Path(output), found, report, title=f'Success head: {name}', warnings=warnings,
        commands=commands,
        data={
            'data set': data.folder.name, 'sources': ', '.join(sorted(sources)),
            'training episodes': runs[0].record['data']['episodes'],
            'training tasks': len(runs[0].texts),
            'calibration episodes': len(known),
            **{f'attempts, {split}': len(attempts(some)) for split, some in recordings.items()},
            'seeds': ', '.join(str(run.options.seed) for run in runs)})
    return found, ours


def for_card(report: Path) -> dict[str, list[dict[str, Any]]]:
    """Pick from a report.json what a bundle's card says; its first variant is meant."""
    rows = read_report(report)['rows']
    return rows_for_card(rows, rows[0]['variant'] if rows else '', (
        ('auroc', {}), ('expected_calibration_error', {'ticks': ENDS}),
        ('false_alarm_rate', {'alpha': ALPHA}), ('missed_success_rate', {})))


def spread(recordings: Sequence[Recording], most: int) -> list[Recording]:
    """Take at most so many recordings, evenly over their order."""
    rows = np.unique(np.linspace(0, len(recordings) - 1,
                                 min(most, len(recordings))).round().astype(int))
    return [recordings[row] for row in rows]


def example_traces(
    one: SuccessModel, recordings: Sequence[Recording], each: int = 2, alpha: float = ALPHA,
) -> list[ProbabilityTrace]:
    """Take attempts of every kind by their names, without regard to how they are scored."""
    by_kind: dict[str, list[Recording]] = {}
    for recording in sorted(attempts(recordings), key=lambda f: f.episode.seed or 0):
        kind = 'success' if recording.done[-1] else recording.episode.failure or 'undone again'
        by_kind.setdefault(kind, []).append(recording)
    traces = []
    for kind in sorted(by_kind, key=lambda k: (k != 'success', k)):
        for recording in by_kind[kind][:each * (2 if kind == 'success' else 1)]:
            judged = one(recording)
            at = judged.decision(alpha)
            times = recording.features.time_s
            done = float(times[int(recording.done.argmax())]) if recording.done.any() else None
            if done is not None and at is not None and not any(recording.episode.success_flags):
                # Of an outcome alone nobody knows that it was too early.
                done = min(done, float(times[at]))
            traces.append(ProbabilityTrace(
                f'{kind.replace("_", " ")}: {recording.episode.task_text}'[:46], times,
                # Above all probabilities where there is none.
                judged.probability, np.nan_to_num(judged.thresholds[alpha], nan=2.0)[-1],
                done, None if at is None else float(times[at])))
    return traces
