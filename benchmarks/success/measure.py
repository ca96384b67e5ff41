# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train and measure everything that results/success.json says; go on with the same command.

    simulate=".venv-sim/bin/hralign data simulate --purpose success --no-humans --output"
    $simulate DATA --rounds 4 --split train
    $simulate DATA --resume --rounds 2 --split test_task
    $simulate DATA --resume --rounds 7 --split calibration validation
    $simulate DATA --resume --rounds 1 --split test_embodiment
    $simulate DATA --resume --rounds 5 --split test_view test_distractor
    $simulate DATA --resume --rounds 8 --split test_seen
    $simulate FAST --rounds 1 --hz 30 --no-failures --split test_seen
    python -m benchmarks.success.measure --data DATA --runs RUNS --fast FAST --footage VIDEOS

DVD and the ablations with human video need DATA with human recordings (without --no-humans) and
--humans ADAPTATION. The shipped head alone: --only shipped --measure shipped.

Every run is a call of `hralign success train` in a process of its own; one that is finished is not
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

from benchmarks.pages import kept, write_results
from benchmarks.success.dvd import DvdJudge, REFERENCES, references, train_dvd
from benchmarks.success.footage import play_footage
from benchmarks.success.recipes import (
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
from benchmarks.success.runs import finished, train
from hralign_ros.calibration.scorer import Scorer
from hralign_ros.data.manifest import read_manifest
from hralign_ros.data.token_features import build_tokens, TokenFeatures
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success import evaluate_success, MOST, OURS, spread
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.evaluation.success_events import measure_delays
from hralign_ros.evaluation.success_ticks import (
    attempts,
    measure_detection,
    measure_modes,
    ScoreRecording,
    SEEN,
    TASK,
    TIME_ONLY,
)
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.training.success_clips import (
    assign_splits,
    load_recording,
    load_recordings,
    open_data,
    Recording,
)
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_run import (
    make_head,
    recordings_key,
    SuccessRun,
)
import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'results' / 'success.json'
# What the other stages write.
OF_OTHERS = ('ablations', 'left_out', 'ablations_measured', 'shipped')
STAGES = ('all', 'ablations', 'shipped')
_SIMULATE = 'hralign data simulate --purpose success --no-humans --output'
SIMULATE = (f'{_SIMULATE} DATA --rounds 4 --split train',
            f'{_SIMULATE} DATA --resume --rounds 2 --split test_task',
            f'{_SIMULATE} DATA --resume --rounds 7 --split calibration validation',
            f'{_SIMULATE} DATA --resume --rounds 1 --split test_embodiment',
            f'{_SIMULATE} DATA --resume --rounds 5 --split test_view test_distractor',
            f'{_SIMULATE} DATA --resume --rounds 8 --split test_seen',
            f'{_SIMULATE} FAST --rounds 1 --hz 30 --no-failures --split test_seen')
# Delays at the rate of a camera, or a little more: Meta-World 32 Hz, robosuite 40.
FAST = 'test_seen_30hz'


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
    write_results(output, {**before, **found})


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
    others: dict[str, list[tuple[int, ScoreRecording]]] = {
        name: [(one.run.options.seed, _score(one)) for one in some]
        for name, some in scorers.items()}
    if options.humans:
        others[DVD] = [(0, _dvd(options, main_runs[0]))]
    words = ['python -m benchmarks.success.measure --data DATA --runs RUNS',
             *(['--fast FAST'] if options.fast else []),
             *(['--footage VIDEOS'] if options.footage else []),
             f'--perturbed {options.perturbed}',
             *(['--humans ADAPTATION'] if options.humans else [])]
    commands = [*SIMULATE, ' '.join(words)]
    found, ours = evaluate_success(
        data, store, main_runs, options.bundle, options.runs / 'report', others=others,
        commands=commands, perturbed_frames=options.perturbed)
    seen = load_recordings(data, store, [SEEN])
    if options.fast:
        # Scorers of their own: these remember recordings by name, and the names are the same.
        again = [CalibratedScorer(Scorer(one.scorer.run, encoder), one.found) for one in ours]
        measure_delays(found, OURS, again, _fast(options, main_runs[0], store), FAST)
    results: dict[str, Any] = {'rows': kept(found.rows), 'tables': _tables(found)}
    if options.footage:
        results |= _footage(ours[0], attempts(seen), options)
    results |= {
        'seeds': len(main_runs),
        'main_variants': [OURS, *(name for name in BASELINES if name in others), TIME_ONLY],
        'seeds_of': {OURS: len(main_runs), **{name: len(some) for name, some in others.items()}},
        'training': _training(main_runs[0]),
        'seconds': [run.record['seconds'] for run in main_runs],
        'calibration_never_succeeding': max(
            map_.never_succeeding for map_ in ours[0].found.maps.values()),
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
    recordings = {split: load_recordings(data, store, [split]) for split in (SEEN, TASK)}
    trained = data.of_split('train').episodes
    found = Measured()
    measure_detection(
        found, {name: [(one.run.options.seed, _score(one)) for one in some]
                for name, some in scorers.items()},
        {split: spread(attempts(some), MOST) for split, some in recordings.items()})
    for name, some in scorers.items():
        measure_modes(found, name, some, recordings[SEEN], SEEN, trained)
    robots = {name: [Scorer(run, encoder) for run in runs[name]] for name in (*ROBOTS, SHIPPED)
              if name in runs}
    results = {'seeds_of': {name: len(some) for name, some in scorers.items()},
               'rows': kept(found.rows)}
    return {'ablations': results, 'left_out': left_out(
        {**robots, OURS: scorers[OURS]}, options.data, store),
        'ablations_measured': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def left_out(
    heads: Mapping[str, Sequence[Scorer]], folder: Path, store: TokenFeatures,
) -> list[dict[str, Any]]:
    """
    Score each robot's attempts by heads that never saw it, and by heads that saw both.

    The encoder below was adapted on one of them, and is the same for all.

    :param heads: by name, one for each seed.
    :param folder: of the data set; scored are seeds that no head was trained on.
    """
    every = read_manifest(folder)
    data = assign_splits(every, SuccessOptions(all_robots=True))
    data = data.only([e for e in data.episodes if e.embodiment in LEFT_OUT])
    recordings = attempts(load_recordings(data, store, [SEEN]))
    found, rows = Measured(), []
    for robot, names in LEFT_OUT.items():
        here = [recording for recording in recordings if recording.episode.embodiment == robot]
        if all(heads.get(name) for name in names):
            measure_detection(found, {name: [
                (one.run.options.seed, _score(one)) for one in heads[name]] for name in names},
                {robot: here})
        auroc = [found.find('auroc', name, robot) for name in names]
        if not all(auroc):
            continue
        trained = assign_splits(every, heads[names[1]][0].run.options).of_split('train')
        rows.append({
            'robot': robot, 'attempts': len(here), 'successes': int(sum(f.done[-1] for f in here)),
            'tasks': len({f.episode.task_id for f in here}),
            'in_training': sum(e.embodiment == robot for e in trained.episodes),
            'metric': 'auroc',
            **{when: {'heads': row['variant'], 'seeds': len(row['seeds']),
                      **{key: row[key] for key in ('value', 'low', 'high', 'n')}}
               for when, row in zip(('never_seen', 'trained_on'), auroc, strict=True) if row}})
    return rows


def shipped(
    runs: Mapping[str, Sequence[SuccessRun]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the shipped head by itself; the real videos are played to its bundle."""
    some = runs[SHIPPED]
    of_bundle = load_bundle(options.bundle).manifest.success.training
    if of_bundle is None or of_bundle.head_sha256 != some[0].head_sha256:
        raise SystemExit(
            f'{options.bundle} has another head than {some[0].folder}: run `hralign success '
            f'calibrate {some[0].folder} --data {options.data} --output {options.bundle}` first')
    data, store = open_data(
        options.data, options.bundle, some[0].options, basis=some[0].basis)
    command = ('python -m benchmarks.success.measure --data DATA --runs RUNS --footage VIDEOS '
               '--only shipped --measure shipped')
    found, ours = evaluate_success(
        data, store, some, options.bundle, options.runs / 'report_shipped', commands=[command],
        perturbed_frames=0)
    results: dict[str, Any] = {
        'seeds': len(some), 'rows': kept(found.rows), 'tables': _tables(found),
        'training': _training(some[0]),
        'calibration_never_succeeding': max(
            map_.never_succeeding for map_ in ours[0].found.maps.values()),
        'command': command, 'load_average': [round(x, 2) for x in os.getloadavg()],
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds')}
    if options.footage:
        results |= _footage(
            ours[0], attempts(load_recordings(data, store, [SEEN])), options)
    return {'shipped': results}


def _training(run: SuccessRun) -> dict[str, Any]:
    """Tell what a run was trained on, without the list of it."""
    return {**{key: value for key, value in run.record['data'].items() if key != 'trained_on'},
            'tasks': len(run.texts)}


def _score(scorer: Scorer) -> ScoreRecording:
    return lambda recording: scorer.score(scorer.trace_of(recording))


def _fast(
    options: argparse.Namespace, run: SuccessRun, store: TokenFeatures,
) -> list[Recording]:
    """Load the successes that were recorded at the rate of a camera."""
    data = assign_splits(read_manifest(options.fast), run.options).of_split(SEEN)
    return load_recordings(data, build_tokens(
        data, options.bundle, workers=options.jobs, basis=store.basis), [SEEN])


def _dvd(options: argparse.Namespace, run: SuccessRun) -> ScoreRecording:
    """Train the discriminator; human recordings of held-out tasks are those of `humans`."""
    # The heads look at no human recording, and it is all about them.
    how = replace(run.options, human_fraction=0.2)
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
    features = build_tokens(shown, options.bundle, folder=store.folder, basis=store.basis)
    known |= references(model, [recording for e in shown.episodes if (
        recording := load_recording(features, e, human=True))], how)
    return DvdJudge(model, known, replace(bundle.manifest.clip, length=how.length))


def _footage(
    one: CalibratedScorer, seen: Sequence[Recording], options: argparse.Namespace,
) -> dict[str, Any]:
    return play_footage(one, seen, sorted(options.footage.rglob('*.mp4')), options.bundle,
                        options.runs / 'bundle')


def _tables(found: Measured) -> dict[str, Any]:
    return {name: found.tables[name] for name in ('false_alarms_by_task', 'streams')
            if name in found.tables}


if __name__ == '__main__':
    main()
