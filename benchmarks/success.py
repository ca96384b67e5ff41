# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train and measure everything that results/success.json says; go on with the same command.

    simulate=".venv-sim/bin/hralign simulate --purpose success --no-humans --output"
    $simulate DATA --rounds 4 --only train
    $simulate DATA --rounds 2 --only test_task
    $simulate DATA --rounds 7 --only calibration validation
    $simulate DATA --rounds 1 --only test_embodiment
    $simulate DATA --rounds 5 --only test_view test_distractor
    $simulate DATA --rounds 8 --only test_seen
    $simulate FAST --rounds 1 --hz 30 --no-failures --only test_seen
    python benchmarks/success.py --data DATA --runs RUNS --fast FAST --footage VIDEOS

DVD and the ablations with human video need DATA with human recordings (without --no-humans) and
--humans ADAPTATION. The shipped head alone: --only shipped --measure shipped.

Every run is a call of `hralign train-success` in a process of its own; one that is finished is not
done again. Variants differ from the first one in what their line says and in nothing else.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
import json
import os
from pathlib import Path
from typing import Any

from dvd import DvdJudge, REFERENCES, references, train_dvd
from hralign_ros.calibration.scorer import Scorer
from hralign_ros.data.features import build_store, FeatureStore
from hralign_ros.data.manifest import read_manifest
from hralign_ros.evaluation.bootstrap import Estimate
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.evaluation.success_events import measure_delays
from hralign_ros.evaluation.success_report import evaluate_success, MOST, OURS, spread
from hralign_ros.evaluation.success_suite import (
    attempts,
    Judge,
    measure_detection,
    measure_modes,
    Measured,
    SEEN,
    SPLITS,
    TASK,
    TIME_ONLY,
    VIEW,
)
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.training.success_clips import load_recording, Recording
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import (
    assign_splits,
    load_recordings,
    make_head,
    open_data,
    recordings_key,
    SuccessRun,
)
import numpy as np
from success_footage import play_footage
from success_recipes import (
    ABLATIONS,
    BASELINES,
    BCE,
    DVD,
    LEFT_OUT,
    ROBOTS,
    SHIPPED,
    SHIPPED_RUNS,
    VARIANTS,
)
from success_runs import finished, train
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'results' / 'success.json'
# What benchmarks/add_task.py has written.
ADD_TASK = ROOT / 'results' / 'add_task.json'
FPR95 = 'E8 false positives at 95 % recall'
# What the other stages write.
OF_OTHERS = ('ablations', 'left_out', 'ablations_measured', 'shipped')
STAGES = ('all', 'ablations', 'shipped')
_SIMULATE = 'hralign simulate --purpose success --no-humans --output'
SIMULATE = (f'{_SIMULATE} DATA --rounds 4 --only train',
            f'{_SIMULATE} DATA --rounds 2 --only test_task',
            f'{_SIMULATE} DATA --rounds 7 --only calibration validation',
            f'{_SIMULATE} DATA --rounds 1 --only test_embodiment',
            f'{_SIMULATE} DATA --rounds 5 --only test_view test_distractor',
            f'{_SIMULATE} DATA --rounds 8 --only test_seen',
            f'{_SIMULATE} FAST --rounds 1 --hz 30 --no-failures --only test_seen')
# What is said of the shipped head, by its name in the results.
OF_SHIPPED = {
    'auroc': 'E8 AUROC', 'fpr95': FPR95, 'average_precision': 'E8 average precision',
    'ece': 'E9 ECE', 'ece_any': 'E9 ECE of any tick', 'false_alarms': 'E10 false alarms at 5%',
    'missed': 'E11 missed successes', 'early': 'E11 successes decided too early',
    'delay_s': 'E11 median delay [s]'}
# Delays at the rate of a camera, or a little more: Meta-World 32 Hz, robosuite 40.
FAST = 'seen tasks, 30 Hz'


def main() -> None:
    """Do what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--data', required=True, type=Path)
    parser.add_argument('--humans', type=Path,
                        help='data set for adaptation, whose human recordings '
                        'of held-out tasks tell DVD what to do; without it DVD is left out')
    parser.add_argument('--runs', required=True, type=Path, help='folder of all runs')
    parser.add_argument('--bundle', type=Path, default=None, help='default: the shipped one')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time (%(default)s)')
    parser.add_argument('--only', nargs='+', default=[], help='these variants only')
    parser.add_argument('--seeds', type=int, default=99, help='at most so many of each variant')
    parser.add_argument('--fast', type=Path, help='successes recorded at 30 Hz, for the delay')
    parser.add_argument('--footage', type=Path, help='folder of real robot videos')
    parser.add_argument('--perturbed', type=int, default=200_000,
                        help='frames of perturbed streams (%(default)s)')
    parser.add_argument('--stop', choices=('train',), help='stop after this stage')
    parser.add_argument('--measure', nargs='+', choices=STAGES, default=list(STAGES),
                        help='what to write anew (all of these)')
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    options.bundle = options.bundle or default_bundle()
    torch.set_num_threads(1)
    table = {**VARIANTS, **ABLATIONS, **ROBOTS, **SHIPPED_RUNS}
    chosen = {name: (min(seeds, options.seeds), settings)
              for name, (seeds, settings) in table.items()
              if not options.only or name in options.only}
    train(options.runs, chosen, options.data, options.bundle, options.jobs)
    if options.stop == 'train':
        return
    runs = finished(options.runs, table, options.bundle)
    for stage, measure in zip(STAGES, (evaluate, ablations, shipped), strict=True):
        if stage in options.measure:
            write(measure(runs, options), stage, options.output)


def write(found: Mapping[str, Any], stage: str, output: Path) -> None:
    """Put what a stage has measured in place of what it measured before; keep the others'."""
    before = json.loads(output.read_text('utf-8')) if output.exists() else {}
    if stage == 'all':
        before = {key: before[key] for key in OF_OTHERS if key in before}
    results = {**before, **found}
    if ADD_TASK.exists():
        added = json.loads(ADD_TASK.read_text('utf-8'))
        results |= {key: added[key] for key in ('add_task_seconds', 'add_task_auroc_gap')}
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print(output)


def evaluate(
    runs: Mapping[str, Sequence[SuccessRun]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the main variant in full, all others by detection."""
    main_runs = runs[OURS]
    data, store = open_data(
        options.data, options.bundle, main_runs[0].options, basis=main_runs[0].basis)
    encoder = Encoder.load(options.bundle, provider='cpu')
    scorers = {name: [Scorer(run, encoder) for run in some]
               for name, some in runs.items() if name in VARIANTS and name != OURS}
    others: dict[str, list[tuple[int, Judge]]] = {
        name: [(one.run.options.seed, _judge(one)) for one in some]
        for name, some in scorers.items()}
    if options.humans:
        others[DVD] = [(0, _dvd(options, main_runs[0]))]
    words = ['python benchmarks/success.py --data DATA --runs RUNS',
             *(['--fast FAST'] if options.fast else []),
             *(['--footage VIDEOS'] if options.footage else []),
             f'--perturbed {options.perturbed}',
             *(['--humans ADAPTATION'] if options.humans else [])]
    commands = [*SIMULATE, ' '.join(words)]
    found, ours = evaluate_success(
        data, store, main_runs, options.bundle, options.runs / 'report', others=others,
        commands=commands, perturbed_frames=options.perturbed)
    seen = load_recordings(data, store, [SPLITS[SEEN]])
    if options.fast:
        # Scorers of their own: these remember recordings by name, and the names are the same.
        again = [CalibratedScorer(Scorer(one.scorer.run, encoder), one.found) for one in ours]
        measure_delays(found, OURS, again, _fast(options, main_runs[0], store), FAST)
    results: dict[str, Any] = _headline(found)
    results['detection'] = {
        split: {name: {short: _plain(found.values[metric, name, split]) for short, metric in (
            ('auroc', 'E8 AUROC'), ('fpr95', FPR95),
            ('average_precision', 'E8 average precision'))}
            for name in (OURS, *others, TIME_ONLY)}
        for split in dict.fromkeys(s for m, n, s in found.values if m == 'E8 AUROC')}
    results['calibration'] = {
        split: {short: _plain(found.values[metric, OURS, split]) for short, metric in (
            ('ece_any', 'E9 ECE of any tick'), ('ece', 'E9 ECE'), ('brier', 'E9 Brier score'),
            ('nll', 'E9 negative log-likelihood'))}
        for split in dict.fromkeys(s for m, n, s in found.values if m == 'E9 ECE')}
    results['tables'] = {name: rows for name, rows in found.tables.items()
                         if name in ('false_alarms_by_task', 'streams', 'cameras')}
    results['rows'] = {f'{r["metric"]} | {r["variant"]} | {r["split"]}': {
        key: r[key] for key in ('value', 'low', 'high', 'n', 'chance')}
        for r in found.rows if r['metric'][:3] in ('E10', 'E11', 'E12', 'E13', 'E14', 'Fai')
        and r['value'] is not None}
    if options.footage:
        results |= _footage(ours[0], attempts(seen), options)
    results |= {
        'seeds': len(main_runs),
        'main_variants': [OURS, *(name for name in BASELINES if name in others), TIME_ONLY],
        'seeds_of': {OURS: len(main_runs), **{name: len(some) for name, some in others.items()}},
        'training': _training(main_runs[0]),
        'seconds': [run.record['seconds'] for run in main_runs],
        'calibration_never_succeeding': max(
            curve.never for curve in ours[0].found.curves.values()),
        'commands': commands,
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'warning': 'Simulated episodes; nothing of this was measured on a robot.'}
    return results


def ablations(
    runs: Mapping[str, Sequence[SuccessRun]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure ablations by detection and by what their modes tell, and robots left out."""
    names = [name for name in (OURS, BCE, *ABLATIONS) if name in runs]
    first = runs[OURS][0]
    data, store = open_data(options.data, options.bundle, first.options, basis=first.basis)
    encoder = Encoder.load(options.bundle, provider='cpu')
    scorers = {name: [Scorer(run, encoder) for run in runs[name]] for name in names}
    recordings = {title: load_recordings(data, store, [SPLITS[title]]) for title in (SEEN, TASK)}
    trained = data.of_split('train').episodes
    found = Measured()
    measure_detection(
        found, {name: [(one.run.options.seed, _judge(one)) for one in some]
                for name, some in scorers.items()},
        {title: spread(attempts(some), MOST) for title, some in recordings.items()})
    wanted = {
        'auroc_seen': ('E8 AUROC', SEEN), 'auroc_held_out_tasks': ('E8 AUROC', TASK),
        'fpr95_seen': (FPR95, SEEN), 'average_precision_seen': ('E8 average precision', SEEN)}
    results: dict[str, Any] = {}
    for name, some in scorers.items():
        measure_modes(found, name, some, recordings[SEEN], SEEN, trained)
        told = {r['metric']: {key: r[key] for key in ('value', 'low', 'high', 'n', 'chance')}
                for r in found.rows if r['variant'] == name and r['metric'].startswith('Fail')
                and r['value'] is not None}
        results[name] = {'seeds': len(some), **{
            short: _plain(found.values[metric, name, split])
            for short, (metric, split) in wanted.items()
            if (metric, name, split) in found.values}, 'modes': told}
    robots = {name: [Scorer(run, encoder) for run in runs[name]] for name in (*ROBOTS, SHIPPED)
              if name in runs}
    return {'ablations': results, 'left_out': left_out(
        {**robots, OURS: scorers[OURS]}, options.data, store),
        'ablations_measured': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def left_out(
    heads: Mapping[str, Sequence[Scorer]], folder: Path, store: FeatureStore,
) -> list[dict[str, Any]]:
    """
    Judge each robot's attempts by heads that never saw it, and by heads that saw both.

    The encoder below was adapted on one of them, and is the same for all.

    :param heads: by name, one for each seed.
    :param folder: of the data set; judged are seeds that no head was trained on.
    """
    every = read_manifest(folder)
    data = assign_splits(every, SuccessOptions(all_robots=True))
    data = data.only([e for e in data.episodes if e.embodiment in LEFT_OUT])
    recordings = attempts(load_recordings(data, store, [SPLITS[SEEN]]))
    found, rows = Measured(), []
    for robot, names in LEFT_OUT.items():
        here = [recording for recording in recordings if recording.episode.embodiment == robot]
        if all(heads.get(name) for name in names):
            measure_detection(found, {name: [
                (one.run.options.seed, _judge(one)) for one in heads[name]] for name in names},
                {robot: here})
        if ('E8 AUROC', names[0], robot) not in found.values:
            continue
        trained = assign_splits(every, heads[names[1]][0].run.options).of_split('train')
        rows.append({
            'robot': robot, 'attempts': len(here), 'successes': int(sum(f.done[-1] for f in here)),
            'tasks': len({f.episode.task_id for f in here}),
            'in_training': sum(e.embodiment == robot for e in trained.episodes),
            **{when: {'heads': name, 'seeds': len(heads[name]),
                      **_plain(found.values['E8 AUROC', name, robot])}
               for when, name in zip(('never_seen', 'trained_on'), names, strict=True)}})
    return rows


def shipped(
    runs: Mapping[str, Sequence[SuccessRun]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the shipped head by itself; the real videos are played to its bundle."""
    some = runs[SHIPPED]
    of_bundle = load_bundle(options.bundle).manifest.document['success'].get('training') or {}
    if of_bundle.get('head_sha256') != some[0].head_sha256:
        raise SystemExit(
            f'{options.bundle} has another head than {some[0].folder}: run `hralign calibrate '
            f'{some[0].folder} --data {options.data} --output {options.bundle}` first')
    data, store = open_data(
        options.data, options.bundle, some[0].options, basis=some[0].basis)
    command = ('python benchmarks/success.py --data DATA --runs RUNS --footage VIDEOS '
               '--only shipped --measure shipped')
    found, ours = evaluate_success(
        data, store, some, options.bundle, options.runs / 'report_shipped', commands=[command],
        perturbed_frames=0)
    splits = [split for split in SPLITS if ('E8 AUROC', OURS, split) in found.values]
    results: dict[str, Any] = {
        'seeds': len(some), 'splits': {split: {
            short: _plain(found.values[metric, OURS, split])
            for short, metric in OF_SHIPPED.items() if (metric, OURS, split) in found.values}
            for split in splits},
        'tables': {name: rows for name, rows in found.tables.items()
                   if name in ('false_alarms_by_task', 'streams', 'cameras')},
        'time_alone': {split: _plain(found.values['E8 AUROC', TIME_ONLY, split])
                       for split in splits},
        'training': _training(some[0]),
        'calibration_never_succeeding': max(
            curve.never for curve in ours[0].found.curves.values()),
        'command': command, 'load_average': [round(x, 2) for x in os.getloadavg()],
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds')}
    if options.footage:
        results |= _footage(
            ours[0], attempts(load_recordings(data, store, [SPLITS[SEEN]])), options)
    return {'shipped': results}


def _training(run: SuccessRun) -> dict[str, Any]:
    """Tell what a run was trained on, without the list of it."""
    return {**{key: value for key, value in run.record['data'].items() if key != 'trained_on'},
            'tasks': len(run.texts)}


def _judge(scorer: Scorer) -> Judge:
    return lambda recording: scorer.judge(scorer.seen(recording))


def _fast(
    options: argparse.Namespace, run: SuccessRun, store: FeatureStore,
) -> list[Recording]:
    """Load the successes that were recorded at the rate of a camera."""
    data = assign_splits(read_manifest(options.fast), run.options).of_split(SPLITS[SEEN])
    # Its episodes are called like those recorded at 5 Hz, so they need a store of their own.
    return load_recordings(data, build_store(
        options.fast / 'features', data, options.bundle, workers=options.jobs,
        basis=store.basis), [SPLITS[SEEN]])


def _dvd(options: argparse.Namespace, run: SuccessRun) -> Judge:
    """Train the discriminator; human recordings of held-out tasks are those of `humans`."""
    # The heads look at no human recording, and it is all about them.
    how = replace(run.options, human_share=0.2)
    data, store = open_data(options.data, options.bundle, how, basis=run.basis)
    recordings = load_recordings(data, store, ['train'], humans=True)
    if not any(recording.human for recording in recordings):
        raise SystemExit(f'{options.data}: no human recording to train DVD on; leave out --humans')
    bundle = load_bundle(options.bundle)
    head = make_head(bundle.manifest, store.basis.matrix.shape[1], how)
    model = train_dvd(head, recordings, list(run.texts), how,
                      options.runs / f'dvd-{recordings_key(recordings)}-{how.steps}.pt')
    known = references(model, recordings, how)
    held_out = [e for e in assign_splits(read_manifest(options.humans), how).episodes
                if e.task_id not in known and e.human_video]
    few = [e for task in sorted({e.task_id for e in held_out})
           for e in [e for e in held_out if e.task_id == task][:REFERENCES]]
    shown = read_manifest(options.humans).only([replace(e, robot_videos={}) for e in few])
    build_store(store.folder.parent, shown, options.bundle, basis=store.basis)
    known |= references(model, [recording for e in shown.episodes if (
        recording := load_recording(store, e, human=True))], how)
    return DvdJudge(model, known, replace(bundle.manifest.clip, length=how.length))


def _footage(
    one: CalibratedScorer, seen: Sequence[Recording], options: argparse.Namespace,
) -> dict[str, Any]:
    return play_footage(one, seen, sorted(options.footage.rglob('*.mp4')), options.bundle,
                        options.runs / 'bundle')


def _plain(value: Estimate) -> dict[str, Any]:
    def number(x: float) -> float | None:
        return round(x, 4) if np.isfinite(x) else None
    return {'value': number(value.value), 'low': number(value.low), 'high': number(value.high),
            'n': value.n}


def _headline(found: Measured) -> dict[str, Any]:
    """Gather the figures that the results are known by."""
    def of(metric: str, split: str, variant: str = OURS) -> dict[str, Any] | None:
        value = found.values.get((metric, variant, split))
        return None if value is None else _plain(value)

    fpr = FPR95
    best = min((name for name in BASELINES if (fpr, name, TASK) in found.values),
               key=lambda name: found.values[fpr, name, TASK].value, default=None)
    # The last row is of all streams: distinct frames, each episode one segment.
    streams = found.tables['streams'][-1]
    cameras = [row for row in found.tables.get('cameras', []) if row['what'].startswith('no ')]
    alarms = found.values['E10 false alarms at 5%', OURS, SEEN]
    delay = found.values.get(('E11 median delay [s]', OURS, FAST)) or found.values[
        'E11 median delay [s]', OURS, SEEN]
    return {
        'auroc_held_out_tasks': of('E8 AUROC', TASK), 'auroc_seen_tasks': of('E8 AUROC', SEEN),
        'auroc_held_out_views': of('E8 AUROC', VIEW),
        'fpr95': of(fpr, TASK), 'fpr95_best_baseline': None if best is None else {
            **(of(fpr, TASK, best) or {}), 'variant': best},
        'auroc_time_only': of('E8 AUROC', TASK, TIME_ONLY),
        'ece_seen': of('E9 ECE', SEEN), 'ece_held_out_view': of('E9 ECE', VIEW),
        'ece_any_seen': of('E9 ECE of any tick', SEEN),
        'ece_any_held_out_view': of('E9 ECE of any tick', VIEW),
        'false_alarm_at_5pct': _plain(alarms), 'false_alarm_episodes': alarms.n,
        'idle_frames': streams['frames'], 'idle_success_events': streams['success_events'],
        'idle_segments': streams['segments'],
        'idle_bound_per_segment': streams['bound_per_segment'],
        'perturbed_frames': streams['perturbed_frames'],
        'perturbed_success_events': streams['perturbed_events'],
        'delay_ms_median': round(1000 * delay.value) if np.isfinite(delay.value) else None,
        'miss_rate': of('E11 missed successes', SEEN),
        'camera_loss_auroc_drop': max((row['auroc_loss'] for row in cameras), default=None)}


if __name__ == '__main__':
    main()
