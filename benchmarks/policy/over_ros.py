# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy on a simulated arm over ROS: success against that in one process, latency, decisions.

    python -m benchmarks.policy.over_ros WORK
    python -m benchmarks.policy.over_ros WORK --only-tables

WORK is the folder of benchmarks.policy.closed_loop, whose demonstrations are used; what is there
is not made again. Needs `make sim`; writes results/closed_loop_ros.json and the tables of
docs/results/closed_loop.md.

Decisions: a bundle is taught from attempts over ROS that the recorder node has recorded, of a
policy that mostly succeeds and of one that mostly fails; then both meet other scenes, with the
bundle as it is shipped and with the taught one.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from benchmarks.pages import rewrite, ROOT, table, write_results
from benchmarks.policy.closed_loop import (
    demonstrations,
    FIRST_SEED,
    processor,
    rounded,
    ROWS,
    simulated,
    TASKS,
)
from hralign_ros.data.rollouts import read_rollouts
from hralign_ros.evaluation.success_rates import compare, rate
from hralign_ros.nodes.closed_loop import ATTEMPTS
from hralign_ros.nodes.closed_loop_report import judge, summary
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.json_lines import read_lines
import numpy as np

RESULTS = ROOT / 'results/closed_loop_ros.json'
PAGE = ROOT / 'docs/results/closed_loop.md'
TAUGHT = 'lift'
# Scenes that are recorded, of the policy that succeeds and of the other; and those to try on.
RECORDED = {'default': (300_000, 11), 'clip': (300_100, 13)}
TRIED, TRIED_FROM = 30, 400_000
# Tried also with attempts that the encoder's decisions end.
ENDED = ('lift', 'lift-ur5e', 'pick-can')
WHEN = {'before': 'shipped', 'after': 'taught'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('work', type=Path)
    parser.add_argument('--tasks', nargs='+', choices=tuple(TASKS), default=tuple(TASKS))
    parser.add_argument('--episodes', type=int, default=50)
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--simulator', type=Path, default=ROOT / '.venv-sim/bin/arm_sim')
    parser.add_argument('--only-tables', action='store_true')
    given = parser.parse_args(arguments)
    folder = given.work / 'ros'
    if not given.only_tables:
        for column in given.tasks:
            policy = train(given, column, 'default')
            attempts(given, policy, folder / column, given.episodes, FIRST_SEED, given.bundle,
                     '--no-end-on-decision')
            if column in ENDED:
                attempts(given, policy, folder / f'{column}.ended', given.episodes, FIRST_SEED,
                         given.bundle)
            simulated('policy', 'evaluate', str(policy), '--bundle', str(given.bundle),
                      '--output', str(folder / f'{column}.process'), '--episodes',
                      str(given.episodes), '--first-seed', str(FIRST_SEED), '--resume')
        if TAUGHT in given.tasks:
            decisions(given)
    write_results(RESULTS, gather(folder))
    rewrite(PAGE, RESULTS, tables)
    return 0


def train(given: argparse.Namespace, column: str, row: str) -> Path:
    """Train a policy on 20 demonstrations unless it is there; return its folder."""
    from hralign_ros.export.policy import write_policy
    from hralign_ros.training.devices import cap_threads
    from hralign_ros.training.policy_options import PolicyOptions
    from hralign_ros.training.policy_run import train_policy

    folder: Path = given.work / 'ros/policies' / f'{column}.{row}'
    if not (folder / 'policy.yaml').exists():
        cap_threads()
        task, arm = TASKS[column]
        simulated('data', 'simulate-demonstrations', '--output',
                  str(demonstrations(given.work, arm)), '--task', task, '--arm', arm,
                  '--episodes', '20', '--resume')
        write_policy(train_policy(
            demonstrations(given.work, arm), given.bundle,
            PolicyOptions(parts=ROWS[row].parts, episodes=20), task=task,
            command='python -m benchmarks.policy.over_ros'), folder)
    return folder


def attempts(
    given: argparse.Namespace, policy: Path, output: Path, episodes: int, first_seed: int,
    bundle: Path, *words: str,
) -> None:
    """
    Make attempts over ROS, those that are missing.

    :raises SystemExit: it failed.
    """
    done = subprocess.run(
        [sys.executable, '-m', 'hralign_ros.nodes.closed_loop', str(policy), '--output',
         str(output), '--episodes', str(episodes), '--first-seed', str(first_seed), '--bundle',
         str(bundle), '--simulator', str(given.simulator), '--resume', *words], check=False)
    if done.returncode:
        raise SystemExit(f'the attempts in {output} failed with code {done.returncode}')


def decisions(given: argparse.Namespace) -> None:
    """Record attempts, teach a bundle from them, and try both bundles on other scenes."""
    folder = given.work / 'ros/teach'
    policies = {row: train(given, TAUGHT, row) for row in RECORDED}
    if not (folder / 'taught/bundle.yaml').exists():
        for row, (first, count) in RECORDED.items():
            attempts(given, policies[row], folder / f'recorded.{row}', count, first, given.bundle,
                     '--record', str(folder / 'bags'))
        for words in (('data', 'import', 'rosbag', str(folder / 'bags'), '--output',
                       str(folder / 'attempts'), '--robot', 'panda'),
                      ('success', 'teach', '--data', str(folder / 'attempts'), '--output',
                       str(folder / 'taught'), '--bundle', str(given.bundle))):
            subprocess.run([sys.executable, '-m', 'hralign_ros.cli', *words], check=True,
                           env={**os.environ, 'OMP_NUM_THREADS': '1'})
    for when, bundle in (('before', given.bundle), ('after', folder / 'taught')):
        for row, policy in policies.items():
            attempts(given, policy, folder / f'{when}.{row}', TRIED, TRIED_FROM, bundle)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read attempts over ROS, those of the policy, bundle and rules that were tried last."""
    rows = [row for _, row in read_lines(folder / ATTEMPTS)]
    return [row for row in rows if all(row.get(name) == rows[-1].get(name) for name in (
        'policy_sha256', 'bundle_sha256', 'end_on_decision', 'lab'))]


def gather(folder: Path) -> dict[str, Any]:
    """Count what is there."""
    columns, pairs = list(_columns(folder)), {}
    for column in TASKS:
        ours = {row['seed']: bool(row['success']) for row in rows_of(folder / column)}
        theirs = {one.seed: one.success for one in read_rollouts(folder / f'{column}.process')} \
            if (folder / f'{column}.process').exists() else {}
        pairs.update({(column, seed): (ours[seed], theirs[seed])
                      for seed in set(ours) & set(theirs)})
    all_rows = [row for column in TASKS for row in rows_of(folder / column)]
    document: dict[str, Any] = {
        'ros_minus_process_points': _points(pairs), **({
            'image_to_command_p50_ms': round(1e3 * summary(all_rows)['image_to_command_p50_s'], 1),
            'image_to_command_p99_ms': round(1e3 * summary(all_rows)['image_to_command_p99_s'], 1),
            'commands': summary(all_rows)['commands'],
            'commands_on_old_embedding': summary(all_rows)['commands_on_old_embedding'],
        } if all_rows else {}),
        'processor': processor(), 'commands_run': ['python -m benchmarks.policy.over_ros WORK'],
        'columns': columns, 'decisions': list(_decisions(folder / 'teach'))}
    taught = next((one for one in document['decisions'] if one['when'] == 'after'), None)
    if taught:
        document['success_within_1s'] = taught['on_time']
        document['success_false'] = taught['false'] + taught['early']
    return document


def _columns(folder: Path) -> Iterator[dict[str, Any]]:
    """Count by task and arm."""
    for column, (task, arm) in TASKS.items():
        rows = rows_of(folder / column)
        if not rows:
            continue
        process = {one.seed: one.success for one in read_rollouts(folder / f'{column}.process')}
        ours = {row['seed']: bool(row['success']) for row in rows}
        both = {seed: value for seed, value in ours.items() if seed in process}
        if not both:
            continue
        total, ended = summary(rows), rows_of(folder / f'{column}.ended')
        yield rounded({
            'column': column, 'task': task, 'arm': arm,
            **{f'ros_{name}': value for name, value in asdict(
                rate(sum(ours.values()), len(ours))).items()},
            'process_successes': sum(process[seed] for seed in both), 'process_n': len(both),
            **{f'difference_{name}': value for name, value in asdict(compare(
                both, {seed: process[seed] for seed in both})).items()},
            'image_to_command_p50_s': total['image_to_command_p50_s'],
            'image_to_command_p99_s': total['image_to_command_p99_s'],
            'ended_n': len(ended), 'ended_successes': sum(row['success'] for row in ended),
            'ended_too_early': sum(judge(row) in ('early', 'false') for row in ended),
            'commands': total['commands'],
            'commands_on_old_embedding': total['commands_on_old_embedding'],
            'periods_withheld': sum(total['withheld'].values()), 'withheld': total['withheld'],
            'real_time_factor_median': float(np.nanmedian(
                [row['real_time_factor'] or np.nan for row in rows])),
            'load_average_median': float(np.median([row['load_average'] for row in rows]))})


def _decisions(folder: Path) -> Iterator[dict[str, Any]]:
    """Count decisions before and after the bundle was taught, of both policies together."""
    for when in WHEN:
        rows = [row for policy in RECORDED for row in rows_of(folder / f'{when}.{policy}')]
        if not rows:
            continue
        total = summary(rows)
        saved = [row['limit_s'] - (row['decided_s'] - row['first_command_s'])
                 for row in rows if judge(row) in ('on_time', 'late')]
        yield rounded({
            'when': when, **{name: total[name] for name in (
                'attempts', 'successes', 'on_time', 'late', 'missed', 'early', 'false',
                'failures', 'out_of_distribution')},
            **{f'on_time_{name}': value for name, value in asdict(
                rate(total['on_time'], max(total['successes'], 1))).items()
               if name in ('low', 'high')},
            'seconds_saved': float(np.mean(saved)) if saved else 0.0,
            'limit_s': rows[0]['limit_s']})


def _points(pairs: Mapping[Any, tuple[bool, bool]]) -> dict[str, Any] | None:
    if not pairs:
        return None
    found = compare(*({key: both[place] for key, both in pairs.items()} for place in (0, 1)))
    return {'value': round(100 * found.difference, 1),
            'interval': [round(100 * found.low, 1), round(100 * found.high, 1)],
            'pairs': found.pairs, 'p_value': float(f'{found.p_value:.2g}')}


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw the page's tables, by the name of their mark."""
    drawn = table(
        ['task, arm', 'over ROS', 'in one process', 'difference, points', 'where decisions end an '
         'attempt', 'image to command '
         'p50, p99', 'commands', 'of them on an old embedding', 'periods held', 'real time, load'],
        [[f'{one["task"]}, {one["arm"]}',
          f'{one["ros_successes"]} of {one["ros_n"]} [{100 * one["ros_low"]:.0f}, '
          f'{100 * one["ros_high"]:.0f}] %', f'{one["process_successes"]} of {one["process_n"]}',
          f'{100 * one["difference_difference"]:+.0f} [{100 * one["difference_low"]:+.0f}, '
          f'{100 * one["difference_high"]:+.0f}]',
          f'{one["ended_successes"]} of {one["ended_n"]}, {one["ended_too_early"]} ended too early'
          if one['ended_n'] else '',
          f'{1e3 * one["image_to_command_p50_s"]:.0f}, '
          f'{1e3 * one["image_to_command_p99_s"]:.0f} ms', str(one['commands']),
          str(one['commands_on_old_embedding']), str(one['periods_withheld']),
          f'{one["real_time_factor_median"]:.2f}, {one["load_average_median"]:.1f}']
         for one in results['columns']])
    decided = table(
        ['bundle', 'attempts', 'accomplished', 'SUCCESS within 1 s', 'later', 'missed', 'early',
         'false', 'ticks out of distribution', 'saved of the time-out'],
        [[WHEN[one['when']], str(one['attempts']), str(one['successes']),
          f'{one["on_time"]} [{100 * one["on_time_low"]:.0f}, {100 * one["on_time_high"]:.0f}] %',
          str(one['late']), str(one['missed']), str(one['early']), str(one['false']),
          f'{100 * one["out_of_distribution"]:.0f} %',
          f'{one["seconds_saved"]:.1f} of {one["limit_s"]:g} s']
         for one in results['decisions']])
    return {'over_ros': drawn, 'decisions': decided}


if __name__ == '__main__':
    raise SystemExit(main())
