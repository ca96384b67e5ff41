# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train and measure everything that results/hralign.json says; the same command resumes.

    .venv-sim/bin/hralign data simulate --output DATA --rounds 4 --no-failures
    python -m benchmarks.encoder.measure --data DATA --runs RUNS --positions --footage VIDEOS

Every run is a call of `hralign encoder train` in a process of its own; one that is finished is not
done again. Variants differ from the one above them in what their line says and in nothing else.
What results/adaptation.json has (benchmarks/encoder/adaptation.py) is taken in too.
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
import json
from multiprocessing import get_context
import os
from pathlib import Path
import sys
from typing import Any

from benchmarks.encoder.run_checks import export, human_is_untouched, resumes_exactly
from benchmarks.pages import kept, write_results
from benchmarks.runs import folder_of, Job, run_all
from hralign_ros.cli.main import make_parser
from hralign_ros.cli.options import changed
from hralign_ros.data.manifest import DataSet, read_manifest, write_manifest
from hralign_ros.evaluation.bootstrap import plain
from hralign_ros.evaluation.encoder import evaluate_adaptation
from hralign_ros.evaluation.encoder_measure import (
    FROZEN_MEAN,
    group_runs,
    measure,
    POLICY,
    RunInputs,
    Variant,
)
from hralign_ros.evaluation.metrics.names import HUMAN_TO_ROBOT, MAIN_RETRIEVAL, ROBOT_TO_HUMAN
from hralign_ros.evaluation.report import Measured
from hralign_ros.training.alignment_options import AdaptOptions
from hralign_ros.training.alignment_run import load_run, Run
from hralign_ros.training.run_folder import RUN
import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'results' / 'hralign.json'
SPEED = ROOT / 'results' / 'adaptation.json'
ADAPTED, QUERY = 'adapted', 'frozen, trained query'
SHUFFLED, RANDOM = 'shuffled pairs', 'random weights'
BASE = ['--pairs', 'cross_scene', '--partners', '4']
_THIRD = ['--view', 'third_person']
# Whatever pairs are trained on, the best step is chosen on the same ones.
_CHOSEN = ['--partners', '1', '--validation-pairs', 'cross_scene']
_PUBLISHED = ['--no-decoupled', '--no-mask-same-task']
_QUERY = ['--trained', 'query', '--frozen-weight=0']
THIRD, THIRD_QUERY = 'third-person stream only', 'third-person stream only, trained query'
# Variant -> (seeds, options of `hralign encoder train` beside BASE; the last of a repeated option
# counts).
VARIANTS: dict[str, tuple[int, list[str]]] = {
    ADAPTED: (5, []),
    QUERY: (5, _QUERY),
    # The cheaper base of all that follow, which differ from it in what their line says.
    THIRD: (3, _THIRD),
    THIRD_QUERY: (3, [*_THIRD, *_QUERY]),
    SHUFFLED: (2, [*_THIRD, '--pairs', 'shuffled', *_CHOSEN]),
    RANDOM: (2, [*_THIRD, '--weights', 'random']),
    "authors' initialisation": (2, [*_THIRD, '--init', 'release']),
    'without the un-adapted negative': (2, [*_THIRD, '--frozen-weight=0']),
    # As many pairs are seen as otherwise; warm-up and average reach over as many.
    'batch 16, 240 steps': (2, [
        *_THIRD, '--batch=16', '--steps=240', '--average=0.985', '--warm-up=20',
        '--validate-every=40']),
    'batch 200, Eq. 6 not decoupled, not masked, 20 steps': (2, [
        *_THIRD, '--batch=200', '--steps=20', '--average=0.83', '--warm-up=2',
        '--validate-every=4', *_PUBLISHED]),
    'same-trajectory pairs': (2, [*_THIRD, '--pairs', 'same_motion', *_CHOSEN]),
    'same-trajectory pairs, by scene': (2, [
        *_THIRD, '--pairs', 'same_motion', *_CHOSEN, '--by-scene']),
    'cross-seed pairs of one scene': (2, [*_THIRD, '--pairs', 'cross_seed', *_CHOSEN]),
    'mean pooling': (2, [*_THIRD, '--pooling', 'mean']),
    'attention without a floor': (2, [*_THIRD, '--attention-floor', '0']),
    'trained query without a floor': (2, [*_THIRD, '--attention-floor', '0', *_QUERY]),
    'own texts, Eq. 6 not decoupled, not masked, no floor': (2, [
        *_THIRD, '--attention-floor', '0', '--negatives=own', *_PUBLISHED]),
    # As many videos a step as there are clips in 32 pairs.
    'co-training, no alignment': (2, [*_THIRD, '--objective=video_text']),
}
# Adapters in front of part of the backbone cost a hundred times as much a step: few, small ones,
# on few clips.
POSITIONS: dict[str, tuple[int, list[str]]] = {
    f'{position} adapters, short': (3, [
        '--position', position, *_THIRD, '--frames', '5', '--batch=16', '--steps=30',
        '--validate-every=10', '--average=0.9'])
    for position in ('late', 'middle', 'early')}
# Every which of the training pairs they see.
_POSITIONS_PART = 6
MAIN = (ADAPTED, QUERY)
# Ablations that are about what is left of the arm in the embedding.
PROBED = (THIRD, THIRD_QUERY, 'mean pooling', 'attention without a floor',
          'trained query without a floor', 'co-training, no alignment')
PROBES = ('action_r2', 'proprioception_r2', POLICY)
# What results keep of R@1 and proxy A-distance; of all others, everything.
_RETRIEVALS = [*({'gallery': gallery, 'direction': HUMAN_TO_ROBOT, 'text': text}
                 for gallery in ('other_scenes', 'own_pair') for text in ('task', 'neutral')),
               {**MAIN_RETRIEVAL, 'direction': ROBOT_TO_HUMAN},
               {**MAIN_RETRIEVAL, 'query': 'shuffled'}]
_WANTED = {
    'retrieval_r1': _RETRIEVALS, 'proxy_a_distance': [{'text': 'task'}, {'text': 'neutral'}],
    'action_r2': [{}], 'proprioception_r2': [{}], POLICY: [{}]}


def main() -> None:
    """Do what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--data', required=True, type=Path)
    parser.add_argument('--runs', required=True, type=Path, help='folder of all runs')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time (%(default)s)')
    parser.add_argument('--only', nargs='+', default=[], help='these variants only')
    parser.add_argument('--positions', action='store_true', help='early and middle adapters too')
    parser.add_argument('--footage', type=Path, help='folder of real videos, for the parity of '
                        'the exported graphs')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='a training setting of all runs')
    parser.add_argument('--stop', choices=('train', 'evaluate'), help='stop after this stage')
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = {name: VARIANTS[name] for name in options.only or VARIANTS}
    _train(options, options.data, chosen)
    part = _part(options.data, options.runs / 'part') if options.positions else None
    if part:
        _train(options, part, POSITIONS)
    if options.stop == 'train':
        return
    data = read_manifest(options.data)
    runs = _load(options, chosen)
    results = _evaluate(data, runs, options)
    if part:
        results['positions'], rows = _positions(read_manifest(part), _load(options, POSITIONS))
        results['rows'] += rows
    if options.stop == 'evaluate':
        return
    results['resume_identical'] = resumes_exactly(
        options.data, options.runs, [*BASE, *_THIRD])
    results |= export(data, runs[ADAPTED][0], options.runs, options.footage)
    if SPEED.exists():
        speed = json.loads(SPEED.read_text(encoding='utf-8'))
        results.update(cached_step_speedup=speed['cached_step_speedup'],
                       two_rank_max_diff=speed['two_rank_max_diff'], adaptation=speed)
    write_results(options.output, results)


def _load(
    options: argparse.Namespace, chosen: Mapping[str, tuple[int, list[str]]],
) -> dict[str, list[Run]]:
    return {name: [load_run(folder_of(options.runs, name, seed)) for seed in range(seeds)]
            for name, (seeds, _) in chosen.items()}


def _part(data: Path, folder: Path) -> Path:
    """Make a small data set of the same files, third-person only."""
    everything = read_manifest(data)
    kept = [e for e in everything.episodes if e.human_video and (
        e.split in ('validation', 'test_task') or (
            e.split == 'train' and (e.seed or 0) % _POSITIONS_PART == 0))]
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / 'videos'
    if not link.exists():
        link.symlink_to((data / 'videos').resolve())
    write_manifest(folder, [replace(
        e, **{name: {view: value for view, value in getattr(e, name).items() if view != 'wrist'}
              for name in ('robot_videos', 'robot_offset_s', 'geometry')}) for e in kept])
    return folder


def _settings(texts: Sequence[str]) -> list[str]:
    return [f'--{name.replace("_", "-")}={value}'
            for name, _, value in (text.partition('=') for text in texts)]


def _train(
    options: argparse.Namespace, data: Path, chosen: Mapping[str, tuple[int, list[str]]],
) -> None:
    """Run what is not finished, a few at a time, one thread each."""
    def command(variant: str, seed: int, extra: list[str]) -> list[str]:
        return [sys.executable, '-m', 'hralign_ros.cli', 'encoder', 'train', '--data', str(data),
                '--output', str(folder_of(options.runs, variant, seed)), '--variant', variant,
                '--resume', '--seed', str(seed), *BASE, *extra]

    jobs = [(variant, seed, [*extra, *_settings(options.set)])
            for seed in range(5) for variant, (seeds, extra) in chosen.items() if seed < seeds]
    # What is needed most comes first.
    jobs.sort(key=lambda job: job[0] not in (ADAPTED, QUERY))
    run_all([Job(f'{job[0]}, seed {job[1]}', folder_of(options.runs, *job[:2]), command(*job))
             for job in jobs if not _finished(
                 folder_of(options.runs, *job[:2]), command(*job)[3:])], options.jobs)


def _finished(folder: Path, command: list[str]) -> bool:
    """
    Tell whether a run is there, and that it is what the table says today.

    :raises SystemExit: it is of other options.
    """
    if not (folder / RUN).exists():
        return False
    wanted = changed(AdaptOptions(), vars(make_parser().parse_args(command)))
    found = load_run(folder).options
    if found != wanted:
        raise SystemExit(f'{folder} is of other options than {" ".join(command)}: remove it')
    return True


def _evaluate(
    data: DataSet, runs: Mapping[str, list[Run]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the main variants in full, the others by R@1 and gap, a few by the probes too."""
    commands = [some[0].record['command'] for some in runs.values()]
    folders = {name: [run.folder for run in some] for name, some in runs.items()}
    main = {name: folders[name] for name in MAIN if name in folders}
    beside = {name: some for name, some in folders.items() if name not in MAIN}
    splits = ['test_seen', 'test_view', 'test_distractor', 'test_embodiment']
    with ProcessPoolExecutor(options.jobs, get_context('spawn'), torch.set_num_threads, (1,)) \
            as pool:
        parts = {
            'main': pool.submit(_in_full, options.data, main, options.runs / 'report', commands),
            'ablations': pool.submit(_in_brief, options.data, beside, ['test_task']),
            'probes': pool.submit(
                _in_brief, options.data, {n: beside[n] for n in PROBED if n in beside},
                ['test_task'], probes=True),
            'others': pool.submit(_in_brief, options.data, main, splits),
            'wrist': pool.submit(
                _in_brief, options.data, {n: main[n] for n in (ADAPTED, QUERY) if n in main},
                ['test_task'], view='wrist')}
        found, ablations, probes, others, wrist = (part.result() for part in parts.values())
    best = max((FROZEN_MEAN, QUERY), key=lambda name: (
        found.find('retrieval_r1', name, 'test_task', **MAIN_RETRIEVAL) or {})['value'])
    names = [FROZEN_MEAN, *main]
    return {
        'rows': [*_rows(found, names), *_rows(others, names),
                 *_rows(wrist, names, view='wrist'), *_rows(ablations, beside),
                 *(row for row in _rows(probes, beside) if row['metric'] in PROBES)],
        'comparisons': [
            *_compared(found, 'retrieval_r1', ADAPTED, best),
            *_compared(found, 'retrieval_r1', ADAPTED, FROZEN_MEAN)[:1],
            *(_compared(found, POLICY, ADAPTED, other)[1] for other in (FROZEN_MEAN, QUERY)),
            *(_compared(ablations, 'retrieval_r1', name, base)[1] for name in beside
              if (base := _base(name)) != name and base in beside)],
        'main': {name: {'best_steps': [run.record['best_step'] for run in runs[name]]}
                 for name in main},
        'ablations': {name: _training(runs[name]) for name in beside},
        'human_token_maps_bit_identical': human_is_untouched(
            data, load_run(runs[ADAPTED][0].folder)),
        'training': {
            'pairs': runs[ADAPTED][0].record['data'], 'seconds': [
                run.record['seconds'] for run in runs[ADAPTED]],
            'peak_rss_mb': max(run.record['peak_rss_mb'] for run in runs[ADAPTED])},
        'data': _counts(data),
        'commands': ['hralign data simulate --output DATA --rounds 4 --no-failures',
                     'python -m benchmarks.encoder.measure --data DATA --runs RUNS --positions '
                     '--footage VIDEOS',
                     'python -m benchmarks.encoder.adaptation', *commands],
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'warning': 'Simulated pairs; nothing of this was measured on RH20T or on a robot.'}


def _base(name: str) -> str:
    """Return what an ablation differs from."""
    return THIRD_QUERY if 'query' in name else THIRD


def _compared(found: Measured, metric: str, one: str, other: str) -> list[dict[str, Any]]:
    """Compare two variants on the same queries and seeds: ratio, and difference."""
    return [{'metric': metric, 'comparison': kind, 'variant': one, 'compared_with': other,
             'split': 'test_task', **{key: value for key, value in plain(estimate).items()
                                      if key in ('value', 'low', 'high', 'n')}}
            for kind, estimate in zip(('ratio', 'difference'), found.compare(
                metric, one, other, 'test_task'), strict=True)]


_Folders = Mapping[str, Sequence[Path]]


def _grouped(folders: _Folders) -> list[Variant]:
    return group_runs([load_run(folder) for some in folders.values() for folder in some])


def _in_full(data: Path, folders: _Folders, output: Path, commands: list[str]) -> Measured:
    """Measure variants in all forms and write their report; runs in a process of its own."""
    return evaluate_adaptation(
        read_manifest(data), [run for v in _grouped(folders) for run in v.runs], output,
        splits=['test_task'], commands=commands)


def _in_brief(
    data: Path, folders: _Folders, splits: list[str], *, view: str = 'third_person',
    probes: bool = False,
) -> Measured:
    """Measure variants by R@1 and gap; runs in a process of its own."""
    return measure(
        RunInputs(read_manifest(data)), [Variant(FROZEN_MEAN, ()), *_grouped(folders)],
        splits=splits, view=view, full=False, probes=probes)


def _rows(
    found: Measured, names: Collection[str], **conditions: str,
) -> list[dict[str, Any]]:
    """Gather what was measured of some variants."""
    return kept([row for row in found.rows if row['variant'] in names
                 and row['conditions'] in _WANTED.get(row['metric'], [])], **conditions)


def _training(runs: Sequence[Run]) -> dict[str, Any]:
    """Say what a variant's runs were trained on, and how long."""
    return {'seeds': len(runs), 'pairs': runs[0].record['data']['pairs'],
            'best_steps': [run.record['best_step'] for run in runs],
            'seconds': [run.record['seconds']['train'] for run in runs]}


def _positions(
    data: DataSet, runs: Mapping[str, list[Run]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure adapters at three places in the backbone, on their small data set."""
    variants = group_runs([run for some in runs.values() for run in some])
    found = measure(RunInputs(data), variants, splits=['test_task'], full=False, probes=False)
    return {name: _training(some) for name, some in runs.items()}, _rows(found, runs)


def _counts(data: DataSet) -> dict[str, Any]:
    found: dict[str, dict[str, int]] = {}
    for episode in data.episodes:
        row = found.setdefault(episode.split, {'episodes': 0, 'pairs': 0})
        row['episodes'] += 1
        row['pairs'] += bool(episode.human_video)
    return found


if __name__ == '__main__':
    main()
