# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train and measure everything that results/hralign.json says; go on with the same command.

    .venv-sim/bin/hralign simulate --output DATA --rounds 4
    python benchmarks/hralign.py --data DATA --runs RUNS
    python benchmarks/adaptation.py --data DATA          # speed, ranks; merged in at the end

Every run is a call of `hralign adapt` in a process of its own; one that is finished is not done
again. Variants differ from the first one in what their line says and in nothing else.
"""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

from hralign_ros.adapt.checkpoints import read_checkpoint
from hralign_ros.adapt.run import load_run, RUN, Run
from hralign_ros.adapt.train import BEST, LAST
from hralign_ros.data.manifest import DataSet, read_manifest
from hralign_ros.evaluate.adaptation_report import evaluate_adaptation, numbers
from hralign_ros.evaluate.suite import (
    compare,
    compare_policies,
    FROZEN_MEAN,
    group_runs,
    HUMAN_TO_ROBOT,
    measure,
    Measured,
    Variant,
)
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'results' / 'hralign.json'
SPEED = ROOT / 'results' / 'adaptation.json'
ADAPTED, QUERY = 'adapted', 'frozen, trained query'
SHUFFLED, RANDOM = 'shuffled pairs', 'random weights'
TASK_TEXT = f'E1 R@1 of the task in other scenes, {HUMAN_TO_ROBOT}, task text'
NEUTRAL = f'E1 R@1 of the task in other scenes, {HUMAN_TO_ROBOT}, neutral text'
SAME_SCENE = f'E1 R@1 {HUMAN_TO_ROBOT}, task text'
SAME_SCENE_NEUTRAL = f'E1 R@1 {HUMAN_TO_ROBOT}, neutral text'
GAP = 'E2 proxy A-distance, task text'
GAP_NEUTRAL = 'E2 proxy A-distance, neutral text'

# Variant -> (seeds, options of `hralign adapt`). The first four are the main comparison.
VARIANTS: dict[str, tuple[int, list[str]]] = {
    ADAPTED: (5, []),
    QUERY: (5, ['--trained', 'query', '--set', 'frozen_weight=0']),
    SHUFFLED: (3, ['--pairs', 'shuffled']),
    RANDOM: (3, ['--weights', 'random']),
    'third-person stream only': (3, ['--views', 'third_person']),
    "authors' initialisation": (3, ['--init', 'release']),
    'without the un-adapted negative': (3, ['--set', 'frozen_weight=0']),
    'batch 16, decoupled and masked': (3, ['--set', 'batch=16']),
    'batch 200, Eq. 6 as published': (3, [
        '--set', 'batch=200', '--set', 'decoupled=false', '--set', 'mask_same_task=false']),
    'cross-seed pairs': (3, ['--pairs', 'cross_seed']),
    'mean pooling': (3, ['--pooling', 'mean']),
    'co-training, no alignment': (3, ['--set', 'objective=video_text', '--set', 'batch=32']),
}
# Adapters in front of part of the backbone cost a hundred times as much a step: few, small ones.
POSITIONS: dict[str, tuple[int, list[str]]] = {
    f'{position} adapters, short': (3, [
        '--position', position, '--views', 'third_person', '--frames', '5', '--set', 'batch=16',
        '--set', 'steps=60', '--set', 'warm_up=10', '--set', 'validate_every=20'])
    for position in ('late', 'middle', 'early')}
MAIN = (ADAPTED, QUERY, SHUFFLED, RANDOM)


def main() -> None:
    """Do what is not done yet, then write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--data', required=True, type=Path)
    parser.add_argument('--runs', required=True, type=Path, help='folder of all runs')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time (%(default)s)')
    parser.add_argument('--only', nargs='+', default=[], help='these variants only')
    parser.add_argument('--positions', action='store_true', help='early and middle adapters too')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE',
                        help='a training setting of all runs')
    parser.add_argument('--stop', choices=('train', 'evaluate'), help='stop after this stage')
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    chosen = {**VARIANTS, **(POSITIONS if options.positions else {})}
    chosen = {name: chosen[name] for name in options.only or chosen}
    jobs = [(variant, seed, [*extra, *_settings(options.set)])
            for seed in range(5) for variant, (seeds, extra) in chosen.items() if seed < seeds]
    _train(options, jobs)
    if options.stop == 'train':
        return
    data = read_manifest(options.data)
    runs = {name: [load_run(_folder(options.runs, name, seed)) for seed in range(seeds)]
            for name, (seeds, _) in chosen.items()}
    results = _evaluate(data, runs, options)
    if options.stop == 'evaluate':
        return
    results['resume_identical'] = _resume(options)
    if SPEED.exists():
        speed = json.loads(SPEED.read_text(encoding='utf-8'))
        results.update(cached_step_speedup=speed['cached_step_speedup'],
                       two_rank_max_diff=speed['two_rank_max_diff'], adaptation=speed)
    for name in ('export_max_abs_diff', 'int8_cosine', 'int8_r1'):
        old = json.loads(options.output.read_text('utf-8')) if options.output.exists() else {}
        results[name] = old.get(name)
    options.output.write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    print(options.output)


def _settings(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in ('--set', text)]


def _folder(runs: Path, variant: str, seed: int) -> Path:
    words = ''.join(c if c.isalnum() else '_' for c in variant)
    return runs / f'{words}-{seed}'


def _command(options: argparse.Namespace, variant: str, seed: int, extra: list[str]) -> list[str]:
    return [sys.executable, '-m', 'hralign_ros.cli', 'adapt', '--data', str(options.data),
            '--output', str(_folder(options.runs, variant, seed)), '--variant', variant,
            '--resume', '--set', f'seed={seed}', *extra]


def _train(options: argparse.Namespace, jobs: Sequence[tuple[str, int, list[str]]]) -> None:
    """Run what is not finished, a few at a time, one thread each."""
    options.runs.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not (_folder(options.runs, *job[:2]) / RUN).exists()]
    total, began = len(waiting), time.monotonic()
    running: list[tuple[subprocess.Popen[bytes], str]] = []
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    while waiting or running:
        while waiting and len(running) < options.jobs:
            variant, seed, extra = waiting.pop(0)
            with open(f'{_folder(options.runs, variant, seed)}.log', 'ab') as log:
                running.append((subprocess.Popen(
                    _command(options, variant, seed, extra), stdout=log,
                    stderr=subprocess.STDOUT, env=env), f'{variant}, seed {seed}'))
        for process, name in list(running):
            if process.poll() is not None:
                running.remove((process, name))
                if process.returncode:
                    raise SystemExit(f'{name} failed with code {process.returncode}: see its log')
                done = total - len(waiting) - len(running)
                minutes = (time.monotonic() - began) / 60
                print(f'{done}/{total}  {name}  {minutes:.0f} min, '
                      f'{minutes / done * (total - done):.0f} min left', flush=True)
        time.sleep(1.0)


def _evaluate(
    data: DataSet, runs: Mapping[str, list[Run]], options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure the main variants in full, the others by R@1 and gap."""
    folder = options.runs / 'report'
    commands = [f'hralign adapt --data DATA --output RUN --variant "{name}" --set seed=SEED '
                + ' '.join(VARIANTS.get(name, POSITIONS.get(name, (0, [])))[1]) for name in runs]
    main_runs = [run for name in MAIN if name in runs for run in runs[name]]
    found = evaluate_adaptation(
        data, main_runs, folder, splits=['test_task'], commands=commands)
    others = measure(
        data, [Variant(FROZEN_MEAN, ()), *group_runs(main_runs)],
        splits=['test_seen', 'test_view', 'test_distractor', 'test_embodiment'], full=False,
        probes=False)
    wrist = measure(
        data, [Variant(FROZEN_MEAN, ()), *group_runs(
            [r for n in (ADAPTED, QUERY) if n in runs for r in runs[n]])],
        splits=['test_task'], view='wrist', full=False, probes=False)
    ablations = measure(
        data, group_runs([run for name, some in runs.items() if name not in MAIN[1:]
                          for run in some]),
        splits=['test_task'], full=False, probes=False)
    best = max((FROZEN_MEAN, QUERY),
               key=lambda name: found.values[TASK_TEXT, name, 'test_task'].value)
    ratio, difference = compare(found, ADAPTED, best, 'test_task')

    def of(where: Measured, variants: Sequence[str], splits: Sequence[str]) -> dict[str, Any]:
        return {split: {name: {
            'r1': numbers(where, TASK_TEXT, name, split),
            'r1_neutral_text': numbers(where, NEUTRAL, name, split),
            'r1_own_pair': numbers(where, SAME_SCENE, name, split),
            'r1_own_pair_neutral_text': numbers(where, SAME_SCENE_NEUTRAL, name, split),
            'proxy_a': numbers(where, GAP, name, split),
            'proxy_a_neutral_text': numbers(where, GAP_NEUTRAL, name, split)}
            for name in variants} for split in splits}

    main_names = [FROZEN_MEAN, *(name for name in MAIN if name in runs)]
    head = of(found, main_names, ['test_task'])['test_task']
    return {
        'r1_frozen': head[best]['r1'], 'r1_frozen_variant': best,
        'r1_adapted': head[ADAPTED]['r1'],
        'r1_ratio': _plain(ratio), 'r1_difference': _plain(difference),
        'proxy_a_frozen': head[FROZEN_MEAN]['proxy_a'],
        'proxy_a_adapted': head[ADAPTED]['proxy_a'],
        'test_task': head,
        'other_splits': of(others, main_names, [
            'test_seen', 'test_view', 'test_distractor', 'test_embodiment']),
        'wrist': of(wrist, [n for n in (FROZEN_MEAN, ADAPTED, QUERY) if n in main_names],
                    ['test_task']),
        'control_e6': {
            'adapted': numbers(found, 'E6 nearest-neighbour action error', ADAPTED, 'test_task'),
            'frozen_mean': numbers(
                found, 'E6 nearest-neighbour action error', FROZEN_MEAN, 'test_task'),
            'adapted_minus_frozen_mean': _plain(compare_policies(
                found, ADAPTED, FROZEN_MEAN, 'test_task'))},
        'ablations': {name: {
            'r1': numbers(ablations, TASK_TEXT, name, 'test_task'),
            'r1_neutral_text': numbers(ablations, NEUTRAL, name, 'test_task'),
            'r1_own_pair': numbers(ablations, SAME_SCENE, name, 'test_task'),
            'proxy_a': numbers(ablations, GAP, name, 'test_task'),
            'best_steps': [run.record['best_step'] for run in runs[name]],
            'seconds': [run.record['seconds']['train'] for run in runs[name]]}
            for name in runs if name not in MAIN[1:]},
        'human_features_bit_identical': _human_is_untouched(data, runs[ADAPTED][0]),
        'training': {
            'pairs': runs[ADAPTED][0].record['data'], 'seconds': [
                run.record['seconds'] for run in runs[ADAPTED]],
            'peak_rss_mb': max(run.record['peak_rss_mb'] for run in runs[ADAPTED])},
        'data': _counts(data),
        'commands': ['hralign simulate --output DATA --rounds 4',
                     'python benchmarks/hralign.py --data DATA --runs RUNS',
                     'python benchmarks/adaptation.py', *commands],
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'warning': 'Simulated pairs; nothing of this was measured on RH20T or on a robot.'}


def _plain(estimate: Any) -> dict[str, Any]:
    return {'value': round(estimate.value, 4), 'low': round(estimate.low, 4),
            'high': round(min(estimate.high, 1e9), 4), 'n': estimate.n}


def _counts(data: DataSet) -> dict[str, Any]:
    found: dict[str, dict[str, int]] = {}
    for episode in data.episodes:
        row = found.setdefault(episode.split, {'episodes': 0, 'pairs': 0})
        row['episodes'] += 1
        row['pairs'] += bool(episode.human_video)
    return found


def _human_is_untouched(data: DataSet, run: Run) -> bool:
    """Compare human token maps through the trained model with the backbone's own, bit by bit."""
    from hralign_ros.evaluate.suite import cached_features, split_items

    cache = cached_features(data, run, None, 1)
    items = split_items(data, cache, 'test_task', 'third_person')[:16]
    maps = torch.stack([torch.from_numpy(cache.clip(item.human).copy()).float()
                        for item in items])
    plain = run.backbone.back(run.options.position)(maps.flatten(0, 1))
    return torch.equal(run.model.frozen_maps(maps).flatten(0, 1), plain)


def _resume(options: argparse.Namespace) -> bool:
    """Kill a short run by SIGKILL in mid-epoch, go on, and compare with one left alone."""
    folder = options.runs / 'resume'
    short = ['--set', 'seed=0', '--set', 'steps=24', '--set', 'batch=16', '--set',
             'checkpoint_every=5', '--set', 'validate_every=12', '--views', 'third_person']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}

    def command(name: str) -> list[str]:
        return [sys.executable, '-m', 'hralign_ros.cli', 'adapt', '--data', str(options.data),
                '--output', str(folder / name), '--resume', *short]

    for name in ('whole', 'killed'):
        if (folder / name / RUN).exists():
            continue
        if name == 'killed':
            process = subprocess.Popen(command(name), env=env, stdout=subprocess.DEVNULL)
            while not (folder / name / LAST).exists() and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            if process.wait() != -signal.SIGKILL:
                raise SystemExit('the run to be killed ended by itself: make it longer')
        subprocess.run(command(name), env=env, check=True, stdout=subprocess.DEVNULL)
    same = []
    for file in (LAST, BEST):
        one, other = (read_checkpoint(folder / name / file).model for name in ('whole', 'killed'))
        same.append(all(torch.equal(one[key], other[key]) for key in one))
    return all(same)


if __name__ == '__main__':
    main()
