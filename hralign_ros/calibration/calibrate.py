# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make a bundle of a trained success head: graphs, prompts, calibration, thresholds.

All numbers are fitted to the calibration split, which nothing was trained on, through the text
encoder that the bundle carries. Tasks never seen get the prompts of the fallback task, and a
calibration fitted to the validation tasks, of which training saw nothing either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hralign_ros.calibration.beside import licensed_as, prepare_beside, write_beside
from hralign_ros.calibration.calibrated import Calibrated, CalibrationMap, calibrations_of
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
from hralign_ros.runtime.bundle import load_bundle, OodSpec, SuccessSpec
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import (
    EVEN,
    Evidence,
    FALLBACK,
    load_tasks,
    NEVER,
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
    training_of,
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
# Likewise from which its own evidence is taken, that its scores tell more than elapsed time;
# below, that of its family is, or else of all tasks together.
OWN_EVIDENCE = 10
# Tag of an episode that names the family of its task: instructions of one form.
_FAMILY = 'family:'


def calibrate(
    run: SuccessRun, data: Path, bundle: Path, output: Path, *, beside: str = '',
    workers: int | str = 1,
    store: Path | None = None, device: str = 'auto', command: str = '',
    metrics: Mapping[str, Any] | None = None, report: Report = print,
) -> Path:
    """
    Calibrate a run and write a bundle with it.

    :param bundle: that the run was trained for; its other files are taken over.
    :param output: folder of the new bundle.
    :param beside: name of the head, where it stands beside the bundle's own and scores only the
        tasks that it was trained on; empty: it takes the place of the bundle's own.
    :param device: auto, cpu or cuda.
    :raises HralignError: another bundle, too little data to calibrate with, or `output` is a
        folder of something else.
    """
    chosen = choose_device(device)
    require_replaceable(Path(output))
    check_runs([run], bundle)
    if beside:
        run = prepare_beside(run, bundle, beside)
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
    if beside:
        return write_beside(
            run, found, bundle, output, beside, command=command, metrics=metrics, report=report)
    if not run.options.use_prompts:
        report('FAILURE will not be decided: without failure prompts a head does that beside '
               'another one alone (--beside)')
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
    source, options = load_bundle(base), run.options
    manifest = source.manifest
    modes = tuple(f'mode {k + 1}' for k in range(options.modes)) if options.use_prompts else ()

    def task(task_id: str, name: str) -> Task:
        return Task(task_id, name, (), modes, calibrations_of(found, task_id),
                    prompts=run.prompts[task_id])

    tasks = TaskTable(tuple(task(*known) for known in run.texts.items()),
                      task(FALLBACK, FALLBACK))
    # Heads of single tasks, or beside its own, were for tasks that the new one knows or not.
    heads = {task.head for task in load_tasks(source).everyone}
    graphs = {name: graph for name, graph in graphs_of(source).items() if name not in heads}
    graphs['success.onnx'], parity = masked_graph(run.head, success_inputs(
        run.head, len(manifest.views), options.length, options.modes, manifest.text.dim,
        float(options.use_prompts)), OUTPUTS)
    success = SuccessSpec(
        modes=options.modes, prompt_length=options.prompt_length, trained=True,
        grounded=run.head.grounding is not None,
        dwell_s=round(DecisionRules().dwell * 1e-9, 6), training=training_of(run),
        command=command,
        metrics=metrics or {})
    # Of what is left out nothing is told, either.
    gone = {licensed_as(file) for file in manifest.heads}
    parts = {part.replace(', success head', ''): terms
             for part, terms in manifest.licenses.items() if part not in gone}
    parity_of = {file: found for file, found in manifest.metrics['parity_max_abs_diff'].items()
                 if file not in heads}
    provenance = {what: told for what, told in manifest.provenance.items() if what != 'taught'}
    write_bundle(output, replace(
        manifest, success=success, heads={},
        licenses={**parts, 'success head': trained_license(run.record['data']['licenses'])},
        ood=OodSpec(round(found.ood_threshold, 6), 'squared Mahalanobis distance of a view from '
                    'the training views, per dimension'),
        provenance=provenance, metrics={**manifest.metrics, 'parity_max_abs_diff': {
            **parity_of, 'success.onnx': parity}}), graphs, tasks)
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
    pooled = _evidence(scored, fitted)
    # They can only close the gate: of a dozen families one passes by luck where all together do
    # not.
    families = _evidence_of_families(scored, fitted) if pooled and pooled.suffices else {}
    for family, of_family in families.items():
        report(f'  family {family}: {of_family}' + (
            '' if of_family.suffices else '; no threshold, as that is not more than the clock '
            'tells'))
    by_task: dict[str, list[Scored]] = {}
    for s in scored:
        by_task.setdefault(s.task_id, []).append(s)
    told: dict[str, Evidence | None] = {}
    for task, some in by_task.items():
        succeeding = sum(bool(s.done.any()) for s in some)
        told[task] = _evidence(some, fitted) \
            if min(succeeding, len(some) - succeeding) >= OWN_EVIDENCE \
            else families.get(_family(some[0]), pooled)
    may = [s for s in scored if (own_evidence := told[s.task_id]) is None or own_evidence.suffices]
    # By task, of attempts that never succeed and of those that do: one's rate says nothing of the
    # other's, so each has to keep the guarantee.
    levels: dict[str, tuple[list[float], list[float]]] = {}
    # Of all tasks, for those that nobody knows, and of those that may be decided, which alone can
    # raise an alarm.
    everything: tuple[list[float], list[float]] = ([], [])
    together: tuple[list[float], list[float]] = ([], [])
    for s in scored:
        if not s.done[0]:
            level = nonconformity_score(s.stamps, fitted.apply(s.scores), dwell, s.done)
            levels.setdefault(s.task_id, ([], []))[int(s.done.any())].append(level)
            everything[int(s.done.any())].append(level)
            if (own_evidence := told[s.task_id]) is None or own_evidence.suffices:
                together[int(s.done.any())].append(level)
    maps = {}
    failure, of_everyone = _fit_failure(may), _fit_failure(scored)
    for task in ('', *sorted({s.task_id for s in scored})):
        own = levels.get(task, ([], []))
        of_task, evidence = by_task.get(task, []), told.get(task, pooled)
        enough = min(len(some) for some in own) >= OWN_THRESHOLDS
        rest_on = own if enough else together if task else everything
        thresholds: dict[float, float] = {}
        for alpha in ALPHAS:
            either = [conformal_threshold(some, alpha) for some in rest_on]
            known = [threshold for threshold in either if threshold is not None]
            if len(known) == len(either):
                thresholds[alpha] = max(*known, EVEN)
        if evidence is not None and not evidence.suffices:
            thresholds = {}
        maps[task] = CalibrationMap(
            fitted, thresholds, len(rest_on[0]), len(rest_on[1]), enough, evidence,
            *(failure if task else of_everyone))
        if task:
            report(f'  {task}: {_in_figures(of_task, maps[task])}')
    return maps


def _family(scored: Scored) -> str:
    """Name the family of an episode's task; '': its episode names none."""
    return next((tag.removeprefix(_FAMILY) for tag in scored.recording.episode.tags
                 if tag.startswith(_FAMILY)), '')


def _evidence_of_families(scored: Sequence[Scored], fitted: Fitted) -> dict[str, Evidence]:
    """
    Measure what scores tell of each family that has enough attempts for it.

    Of hundreds of tasks most have a few attempts. All together they may tell more than the clock
    where one family does not: which way a dial is turned.
    """
    found = {family: _evidence([s for s in scored if _family(s) == family], fitted)
             for family in sorted({_family(s) for s in scored} - {''})}
    return {family: evidence for family, evidence in found.items() if evidence is not None}


def _evidence(scored: Sequence[Scored], fitted: Fitted) -> Evidence | None:
    """Measure what scores tell of how attempts end."""
    dwell = DecisionRules().dwell
    return measure_evidence(
        [nonconformity_score(s.stamps, fitted.apply(s.scores), dwell) for s in scored],
        [float(s.stamps[-1] - s.stamps[0]) for s in scored], [bool(s.done.any()) for s in scored])


def _fit_failure(scored: Sequence[Scored]) -> tuple[float, float | None]:
    """
    Set the risk above which FAILURE may be decided, of all tasks together.

    :returns: NEVER where risks tell no more of how attempts end than the clock, or too few succeed
        to bound how often one of those is called failed; and the rate of the bound.
    """
    dwell = DecisionRules().failure_dwell
    levels = [max(nonconformity_score(s.stamps, risk, dwell) for risk in s.risks.T)
              for s in scored]
    succeeds = [bool(s.done.any()) for s in scored]
    evidence = measure_evidence(
        levels, [float(s.stamps[-1] - s.stamps[0]) for s in scored],
        [not one for one in succeeds])
    if evidence is None or not evidence.suffices:
        return NEVER, None
    # What is too short for a FAILURE bounds nothing.
    threshold = conformal_threshold([
        level for level, s, one in zip(levels, scored, succeeds, strict=True)
        if one and s.stamps[-1] - s.stamps[0] >= dwell], USUAL_RATE)
    return (NEVER, None) if threshold is None else (max(threshold, EVEN), USUAL_RATE)


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
    if map_.evidence is not None and not map_.evidence.suffices:
        report(f'  all together: {map_.evidence}; no threshold of theirs, as that is not more '
               'than the clock tells')
        return
    lacking = [f'{alpha:g}' for alpha in ALPHAS if alpha not in map_.thresholds]
    report(f'  thresholds rest on {map_.never_succeeding} attempts that never succeed and '
           f'{map_.succeeding} '
           'that do' + (f'; too few for an alpha of {", ".join(lacking)}: 1 / alpha - 1 of either '
                        'kind are needed, so decisions will be ABSTAIN there' if lacking else ''))
