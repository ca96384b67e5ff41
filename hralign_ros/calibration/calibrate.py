# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make a bundle of a trained success head: graphs, prompts, calibration, thresholds.

All numbers are fitted to the calibration split, which nothing was trained on, through the text
encoder that the bundle carries. Tasks never seen get the prompts of the fallback task, and a
calibration fitted to the validation tasks, of which training saw nothing either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hralign_ros.calibration.conformal import (
    conformal_threshold,
    decided,
    nonconformity_score,
)
from hralign_ros.calibration.gate import measure_evidence
from hralign_ros.calibration.maps import choose, Fitted
from hralign_ros.calibration.scorer import all_ticks, Scored, Scorer
from hralign_ros.data.manifest import DataError
from hralign_ros.export.card import trained_license
from hralign_ros.export.parity import masked_graph, success_inputs
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.success import OUTPUTS
from hralign_ros.runtime.bundle import load_bundle, OodSpec, SuccessSpec, SuccessTraining
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.schema import parse
from hralign_ros.runtime.tasks import (
    Calibration,
    EVEN,
    Evidence,
    FALLBACK,
    Task,
    TaskTable,
    USUAL_RATE,
)
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.devices import choose_device
from hralign_ros.training.success_clips import (
    load_recordings,
    open_data,
    Recording,
    without_stills,
)
from hralign_ros.training.success_run import (
    check_runs,
    SuccessRun,
    trained_on,
)
import numpy as np

ALPHAS = (0.01, 0.05, 0.1)
# What a node asks for unless told otherwise.
ALPHA = USUAL_RATE
# Fraction of in-distribution ticks that may be called out-of-distribution.
OOD_RATE = 0.02
# Episodes of a task, of either kind, from which its own thresholds are taken; below, those of all
# tasks together are. Of few episodes the quantile for 5 % is nearly the highest of all, which
# alarms too seldom and misses more.
OWN_THRESHOLDS = 100
# Likewise from which its own evidence is taken, that its scores tell more than elapsed time.
OWN_EVIDENCE = 10


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
    """

    fitted: Fitted
    thresholds: Mapping[float, float]
    never_succeeding: int
    succeeding: int
    own: bool
    evidence: Evidence | None = None


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


def calibrate(
    run: SuccessRun, data: Path, bundle: Path, output: Path, *, workers: int | str = 1,
    store: Path | None = None, device: str = 'auto', command: str = '',
    metrics: Mapping[str, Any] | None = None, report: Report = print,
) -> Path:
    """
    Calibrate a run and write a bundle with it.

    :param bundle: that the run was trained for; its other files are taken over.
    :param output: folder of the new bundle.
    :param device: auto, cpu or cuda.
    :raises HralignError: another bundle, too little data to calibrate with, or `output` is a
        folder of something else.
    """
    chosen = choose_device(device)
    require_replaceable(Path(output))
    check_runs([run], bundle)
    length = load_bundle(bundle).manifest.clip.length
    if run.options.length != length:
        raise TrainingError(
            f'{run.folder}: its clips have {run.options.length} frames, those of {bundle} '
            f'{length}; train with --length {length}')
    episodes, features = open_data(
        data, bundle, run.options, workers=workers, store=store, basis=run.basis, report=report)
    episodes = without_stills(episodes, run.options)
    scorer = Scorer(run, Encoder.load(bundle, provider=chosen.provider), chosen.torch)
    found = fit_maps(
        scorer, load_recordings(episodes, features, ['calibration']),
        load_recordings(episodes, features, ['validation']), report)
    return write_calibrated(run, found, bundle, output, command=command, metrics=metrics)


def write_calibrated(
    run: SuccessRun, found: Calibrated, base: Path, output: Path, *, command: str = '',
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """
    Write a bundle whose success head is a run's, with its calibration.

    :param base: the bundle that the run was trained for; its other files are taken over.
    :param output: folder of the new one; replaced only once everything is there.
    :raises TrainingError: another bundle than the one trained for.
    """
    check_runs([run], base)
    source, options, data = load_bundle(base), run.options, run.record['data']
    manifest = source.manifest
    modes = tuple(f'mode {k + 1}' for k in range(options.modes)) if options.use_prompts else ()

    def task(task_id: str, name: str) -> Task:
        return Task(task_id, name, (), modes, tuple(
            _calibration(views, map_) for (of, views), map_ in found.maps.items()
            if of == task_id), prompts=run.prompts[task_id])

    tasks = TaskTable(tuple(task(*known) for known in run.texts.items()),
                      task(FALLBACK, FALLBACK))
    graphs = graphs_of(source)
    graphs['success.onnx'], parity = masked_graph(run.head, success_inputs(
        run.head, len(manifest.views), options.length, options.modes, manifest.text.dim,
        float(options.use_prompts)), OUTPUTS)
    training = parse(SuccessTraining, {
        **{key: data[key] for key in (
            'episodes', 'successes', 'human_recordings', 'scenes', 'embodiments', 'sources',
            'licenses')},
        'tasks': len(run.texts), 'seed': options.seed, 'command': run.record['command'],
        'head_sha256': run.head_sha256, 'all_robots': options.all_robots,
        'leave_out': options.leave_out}, str(run.folder))
    success = SuccessSpec(
        modes=options.modes, prompt_length=options.prompt_length, trained=True,
        grounded=run.head.grounding is not None,
        dwell_s=round(DecisionRules().dwell * 1e-9, 6), training=training, command=command,
        metrics=metrics or {})
    parts = {part.replace(', success head', ''): terms
             for part, terms in manifest.licenses.items()}
    write_bundle(output, replace(
        manifest, success=success,
        licenses={**parts, 'success head': trained_license(data['licenses'])},
        ood=OodSpec(round(found.ood_threshold, 6), 'squared Mahalanobis distance of a view from '
                    'the training views, per dimension'),
        metrics={**manifest.metrics, 'parity_max_abs_diff': {
            **manifest.metrics['parity_max_abs_diff'], 'success.onnx': parity}}), graphs, tasks)
    return output


def fit_maps(
    scorer: Scorer, known: Sequence[Recording], unseen: Sequence[Recording],
    report: Report = print,
) -> Calibrated:
    """
    Calibrate for all views together and for each on its own.

    :param known: recordings of the calibration split.
    :param unseen: of tasks that the run was not trained on, for the fallback task's map.
    :raises DataError: there are none of the first kind.
    """
    views = scorer.views
    known = [recording for recording in known if recording.episode.task_id in scorer.run.texts]
    # A scene of validation may have tasks that training knew: those are no test of unknown ones.
    unseen = [recording for recording in unseen
              if recording.episode.task_id not in scorer.run.texts]
    both = trained_on(scorer.run, (*known, *unseen))
    if both:
        raise DataError(
            f'{len(both)} episodes of the calibration were trained on, such as {both[0]}: '
            'probabilities and thresholds would be better than they are. Train again, without '
            'the calibration and validation splits as they are now')
    if not any(recording.features.present.all() for recording in known):
        raise DataError('no calibration episode with features and all views')
    trained = frozenset(scorer.run.texts)
    lacking = sorted(trained - {recording.episode.task_id for recording in known})
    if lacking:
        report(f'UNCALIBRATED, as there is no calibration episode of them: {", ".join(lacking)}')
    found = Calibrated(0.0, trained)
    for combination in (views, *((view,) for view in views if len(views) > 1)):
        present = np.array([view in combination for view in views])
        there = [[recording for recording in recordings
                  if (recording.features.present | ~present).all()]
                 for recordings in (known, unseen)]
        report(f'calibrating {" + ".join(combination)}: {len(there[0])} of {len(known)} episodes')
        scored, outsiders = (
            [scorer.score(scorer.run_trace(recording, views=present)) for recording in recordings]
            for recordings in there)
        if combination == views:
            found = Calibrated(float(np.quantile(
                np.concatenate([s.trace.ood_score for s in scored]), 1.0 - OOD_RATE)), trained)
        step = float(np.median(np.concatenate([np.diff(s.stamps) for s in scored]))) * 1e-9
        if step > DecisionRules().dwell * 1e-9:
            report(f'  recordings have a frame every {step:.2f} s: at a higher rate a node raises '
                   'more false alarms than these thresholds guarantee; record at 5 Hz or more')
        maps = _maps(scored, scorer.run.options.seed, report)
        _report_guarantee(maps[''], report)
        for task, map_ in maps.items():
            if task:
                found.maps[task, tuple(combination)] = map_
        rows = np.concatenate([s.done for s in outsiders]) if outsiders else np.zeros(0, bool)
        if rows.any() and not rows.all():
            found.maps[FALLBACK, tuple(combination)] = _maps(
                outsiders, scorer.run.options.seed, report)['']
        else:
            report('  no map for tasks never seen: that needs validation episodes of such '
                   'tasks, both that succeed and that fail')
    return found


def _maps(scored: Sequence[Scored], seed: int, report: Report) -> dict[str, CalibrationMap]:
    """
    Fit one map to all ticks of all tasks, and thresholds by task and, under '', of all together.

    One map, since a task has some dozen calibration episodes; thresholds are each task's own
    where it has enough of them.
    """
    # All that a node would publish, and not the ends of attempts above all, where most successes
    # are: said of any tick, a probability would be too high.
    scores, done, episodes, weights = all_ticks(scored)
    fitted = choose(scores, done, episodes, weights=weights, seed=seed)
    report('  ' + ', '.join(f'{name} {loss:.4f}' for name, loss in fitted.losses.items())
           + f': {fitted.method}')
    dwell = DecisionRules().dwell
    # By task, of attempts that never succeed and of those that do: one's rate says nothing of the
    # other's, so each has to keep the guarantee.
    levels: dict[str, tuple[list[float], list[float]]] = {}
    for s in scored:
        if not s.done[0]:
            level = nonconformity_score(s.stamps, fitted.apply(s.scores), dwell, s.done)
            levels.setdefault(s.task_id, ([], []))[int(s.done.any())].append(level)
    together = ([x for never_succeeding, _ in levels.values() for x in never_succeeding],
                [x for _, succeeding in levels.values() for x in succeeding])
    maps = {}
    pooled = _evidence(scored, fitted)
    for task in ('', *sorted({s.task_id for s in scored})):
        own = levels.get(task, ([], []))
        of_task = [s for s in scored if s.task_id == task]
        kinds = [bool(s.done.any()) for s in of_task]
        evidence = _evidence(of_task, fitted) \
            if min(sum(kinds), len(kinds) - sum(kinds)) >= OWN_EVIDENCE else pooled
        enough = min(len(some) for some in own) >= OWN_THRESHOLDS
        rest_on = own if enough else together
        thresholds: dict[float, float] = {}
        for alpha in ALPHAS:
            either = [conformal_threshold(some, alpha) for some in rest_on]
            known = [threshold for threshold in either if threshold is not None]
            if len(known) == len(either):
                thresholds[alpha] = max(*known, EVEN)
        if evidence is not None and not evidence.suffices:
            thresholds = {}
        maps[task] = CalibrationMap(
            fitted, thresholds, len(rest_on[0]), len(rest_on[1]), enough, evidence)
        if task:
            report(f'  {task}: {_in_figures(of_task, maps[task])}')
    return maps


def _evidence(scored: Sequence[Scored], fitted: Fitted) -> Evidence | None:
    """Measure what scores tell of how attempts end."""
    dwell = DecisionRules().dwell
    return measure_evidence(
        [nonconformity_score(s.stamps, fitted.apply(s.scores), dwell) for s in scored],
        [float(s.stamps[-1] - s.stamps[0]) for s in scored], [bool(s.done.any()) for s in scored])


def _in_figures(scored: Sequence[Scored], map_: CalibrationMap) -> str:
    """Say what a task's scores tell, and what its threshold misses."""
    threshold = map_.thresholds.get(ALPHA)
    said = f'{map_.evidence or "AUROC not known: too few attempts"}; '
    if threshold is None:
        enough = map_.evidence is None or map_.evidence.suffices
        return said + ('no threshold: ABSTAIN' if enough else
                       'no threshold, as that is not more than the clock tells: ABSTAIN')
    good = [s for s in scored if s.done.any() and not s.done[0]]
    calls = [decided(s.stamps, map_.fitted.apply(s.scores), threshold) for s in good]
    early = sum(at is not None and at < int(s.done.argmax())
                for at, s in zip(calls, good, strict=True))
    return said + (f'threshold {threshold:.2f} for an alpha of {ALPHA:g}: {calls.count(None)} of '
                   f'{len(good)} successes missed, {early} early')


def _report_guarantee(map_: CalibrationMap, report: Report) -> None:
    """Say what thresholds rest on, and which rates nothing can be guaranteed for."""
    lacking = [f'{alpha:g}' for alpha in ALPHAS if alpha not in map_.thresholds]
    report(f'  thresholds rest on {map_.never_succeeding} attempts that never succeed and '
           f'{map_.succeeding} '
           'that do' + (f'; too few for an alpha of {", ".join(lacking)}: 1 / alpha - 1 of either '
                        'kind are needed, so decisions will be ABSTAIN there' if lacking else ''))


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
        rows=fitted.count, episodes=fitted.episodes, evidence=map_.evidence)
