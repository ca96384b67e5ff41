# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Closed-loop success of policies that differ in nothing but the parts of an embedding they get.

    python -m benchmarks.policy.closed_loop WORK [--demonstrations 20 10 50]
    python -m benchmarks.policy.closed_loop WORK --only-tables

WORK is a folder for demonstrations, policies and attempts; what is there is not made again, so a
run that was stopped goes on, more seeds or rows add to it, and two runs may share it that differ
in their tasks or training seeds. Demonstrations and attempts run in
.venv-sim (`make sim`). Every policy of a task meets the same starts, which no demonstration has.
Writes results/closed_loop.json and the tables of docs/results/policy.md.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
import os
from pathlib import Path
import platform
import shutil
import subprocess
from typing import Any

from benchmarks.elsewhere import clean_environment
from benchmarks.pages import rewrite, ROOT, table, write_results
from hralign_ros.data.rollouts import FILE_NAME as ROLLOUTS
from hralign_ros.data.rollouts import read_rollouts
from hralign_ros.evaluation.success_rates import compare, rate
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.policy import read_policy

RESULTS = ROOT / 'results/closed_loop.json'
PAGE = ROOT / 'docs/results/policy.md'
# Column -> task and arm.
TASKS = {'lift': ('lift', 'panda'), 'pick-can': ('pick-can', 'panda'),
         'lift-ur5e': ('lift', 'ur5e'), 'pick-can-ur5e': ('pick-can', 'ur5e')}
FIRST_SEED = 100_000
# What is changed in the lab -> how the lab is called then.
SHIFTS = {'camera moved by 3 cm': 'lab-1@3cm', 'camera moved by 3 degrees': 'lab-1@3deg',
          'other light': 'lab-1@light', 'other table': 'lab-1@table',
          'things that lie about': 'lab-1@distractors'}
SHIFTED_ROWS = ('default', 'spatial', 'keypoints', 'mean', 'clip')
_KNOWN = ('tool.x', 'tool.y', 'tool.z', 'gripper.width', 'object.x', 'object.y', 'object.z')


@dataclass(frozen=True)
class Row:
    """
    What a policy is given.

    :param title: for the table.
    :param parts: of the embedding; none: no camera.
    :param known: the position of the object beside.
    :param adapters: False: those of the bundle are off.
    """

    title: str
    parts: tuple[str, ...] = ()
    known: bool = False
    adapters: bool = True


ROWS = {
    'clip': Row('`clip`: attention, five frames', ('clip',)),
    'task': Row('`task`: attention, newest frame', ('task',)),
    'mean': Row('`mean`', ('mean',)),
    'spatial': Row('`spatial`', ('spatial',)),
    'keypoints': Row('`keypoints`', ('keypoints',)),
    'keypoints+mean': Row('`keypoints`, `mean`', ('keypoints', 'mean')),
    'default': Row('`spatial`, `keypoints`, `task` (the default)',
                   ('spatial', 'keypoints', 'task')),
    'blind': Row('no camera'),
    'known': Row('no camera, position of the object known', known=True),
    'spatial-off': Row('`spatial`, adapters off', ('spatial',), adapters=False),
    'mean-off': Row('`mean`, adapters off', ('mean',), adapters=False),
    'default-off': Row('`spatial`, `keypoints`, `task`, adapters off',
                       ('spatial', 'keypoints', 'task'), adapters=False),
}
# The second is what the first is compared with.
PAIRS = (*((row, 'clip') for row in ('default', 'spatial', 'keypoints', 'task', 'mean')),
         ('spatial', 'mean'), ('default', 'known'), ('spatial', 'spatial-off'),
         ('mean', 'mean-off'), ('default', 'default-off'))


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('work', type=Path)
    parser.add_argument('--tasks', nargs='+', choices=tuple(TASKS),
                        default=tuple(TASKS))
    parser.add_argument('--demonstrations', nargs='+', type=int, default=[20])
    parser.add_argument('--rows', nargs='+', choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument('--training-seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--episodes', type=int, default=40)
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--shifts', action='store_true', help='try policies of 20 demonstrations '
                        'that are there in labs in which something is changed')
    parser.add_argument('--only-tables', action='store_true')
    given = parser.parse_args(arguments)
    if given.shifts:
        shift(given)
    elif not given.only_tables:
        make(given)
    write_results(RESULTS, gather(given.work, given.episodes))
    rewrite(PAGE, RESULTS, tables)
    return 0


def make(given: argparse.Namespace) -> None:
    """Record, train and try what is missing."""
    from hralign_ros.training.devices import cap_threads

    cap_threads()
    work = given.work
    for arm in sorted({TASKS[column][1] for column in given.tasks}):
        simulated('data', 'simulate-demonstrations', '--output', str(demonstrations(work, arm)),
                  '--task', *(TASKS[column][0] for column in given.tasks
                              if TASKS[column][1] == arm),
                  '--arm', arm, '--episodes', str(max(given.demonstrations)), '--resume')
    bundles = {True: given.bundle, False: work / 'adapters_off'}
    if any(not ROWS[row].adapters for row in given.rows):
        without_adapters(given.bundle, bundles[False])
    # One training seed after the other: what is stopped has all rows.
    for count in given.demonstrations:
        for seed in given.training_seeds:
            for task in given.tasks:
                for adapters, bundle in bundles.items():
                    chosen = [row for row in given.rows if ROWS[row].adapters == adapters]
                    folders = [train(work, bundle, task, count, row, seed) for row in chosen]
                    if folders:
                        simulated('policy', 'evaluate', *map(str, folders), '--bundle',
                                  str(bundle), '--output',
                                  str(work / f'attempts/{task}.{count}.{seed}'),
                                  '--episodes', str(given.episodes), '--first-seed',
                                  str(FIRST_SEED), '--resume')


def shift(given: argparse.Namespace) -> None:
    """Try policies where something has changed; one change after the other."""
    rows = [row for row in SHIFTED_ROWS if row in given.rows]
    for seed in given.training_seeds:
        for task in given.tasks:
            for lab in SHIFTS.values():
                simulated('policy', 'evaluate', *(str(
                    given.work / 'policies' / f'{task}.20.{row}.{seed}') for row in rows),
                    '--bundle', str(given.bundle), '--output',
                    str(given.work / f'shifted/{task}.20.{seed}'), '--lab', lab, '--episodes',
                    str(given.episodes), '--first-seed', str(FIRST_SEED), '--resume')


def demonstrations(work: Path, arm: str) -> Path:
    """Name the folder of an arm's demonstrations."""
    return work / ('demonstrations' if arm == 'panda' else f'demonstrations-{arm}')


def train(work: Path, bundle: Path, task: str, count: int, row: str, seed: int) -> Path:
    """Train a policy unless it is there; return its folder."""
    from hralign_ros.export.policy import write_policy
    from hralign_ros.training.policy_options import PolicyOptions
    from hralign_ros.training.policy_run import train_policy

    chosen, folder = ROWS[row], work / 'policies' / f'{task}.{count}.{row}.{seed}'
    if not (folder / 'policy.yaml').exists():
        print(f'training {folder.name}', flush=True)
        write_policy(train_policy(
            demonstrations(work, TASKS[task][1]), bundle, PolicyOptions(
                parts=chosen.parts, camera=bool(chosen.parts), episodes=count, seed=seed,
                proprio=_KNOWN if chosen.known else ()),
            task=TASKS[task][0], command='python -m benchmarks.policy.closed_loop'), folder)
    return folder


def simulated(*words: str) -> None:
    """
    Run a command in the virtual environment of the simulators.

    :raises SystemExit: it failed.
    """
    environment = clean_environment(
        PYTHONPATH=str(ROOT), MUJOCO_GL=os.environ.get('MUJOCO_GL', 'egl'), OMP_NUM_THREADS='1')
    done = subprocess.run(
        [str(ROOT / '.venv-sim/bin/python'), '-m', 'hralign_ros.cli', *words], env=environment,
        check=False)
    if done.returncode:
        raise SystemExit(f'hralign {" ".join(words[:2])} failed with code {done.returncode}')


def without_adapters(bundle: Path, output: Path) -> None:
    """Copy a bundle with the last layer of each adapter set to zero; the basis stays."""
    import onnx
    import yaml

    if (output / 'bundle.yaml').exists():
        return
    shutil.copytree(bundle, output, dirs_exist_ok=True)
    model = onnx.load(str(output / 'visual.onnx'))
    found = [one for one in model.graph.initializer
             if '.up.' in one.name and one.name.startswith('adapters.')]
    if not found:
        raise SystemExit(f'{bundle}: visual.onnx has no adapters to turn off')
    for one in found:
        one.CopyFrom(onnx.numpy_helper.from_array(0.0 * onnx.numpy_helper.to_array(one), one.name))
    data = model.SerializeToString()
    (output / 'visual.onnx').write_bytes(data)
    document = yaml.safe_load((output / 'bundle.yaml').read_text('utf-8'))
    document['files']['visual.onnx'] = {'bytes': len(data), 'sha256': sha256(data).hexdigest()}
    (output / 'bundle.yaml').write_text(yaml.safe_dump(document, sort_keys=False), 'utf-8')


def gather(work: Path, episodes: int) -> dict[str, Any]:
    """Count what is there; attempts of policies that were trained anew do not count."""
    outcomes = {key[:3]: found for key, found in _outcomes(work / 'attempts', work,
                                                           episodes).items()}
    shifted = _outcomes(work / 'shifted', work, episodes)
    cells = [{'task': task, 'demonstrations': count, 'row': row,
              **rounded(asdict(rate(sum(found.values()), len(found)))),
              'by_training_seed': [sum(found[key] for key in found if key[0] == seed)
                                   for seed in sorted({seed for seed, _ in found})]}
             for (task, count, row), found in sorted(
                 outcomes.items(), key=lambda one: (one[0][1], one[0][0],
                                                    list(ROWS).index(one[0][2])))]
    comparisons = [{'demonstrations': count, 'task': task, 'row': first, 'against': second,
                    **rounded(asdict(compare(
                        outcomes[task, count, first], outcomes[task, count, second])))}
                   for task, count in sorted({key[:2] for key in outcomes})
                   for first, second in PAIRS
                   if {(task, count, first), (task, count, second)} <= set(outcomes)]
    known = [read_policy(path.parent)
             for path in sorted((work / 'policies').glob('*.default.*/policy.yaml'))]
    return {
        'default_minus_today_points': _points(outcomes, 'default', 'clip'),
        'adapted_minus_frozen_points': _points(outcomes, 'spatial', 'spatial-off'),
        'adapted_minus_frozen_points_10': _points(outcomes, 'spatial', 'spatial-off', 10),
        'to_oracle_points': _points(outcomes, 'default', 'known'),
        'tasks': sorted({task for task, _, _ in outcomes}), 'episodes_a_cell': episodes,
        'bundle_sha256': sorted({spec.bundle_sha256 for spec in known}),
        'processor': processor(),
        'commands': ['python -m benchmarks.policy.closed_loop WORK --demonstrations 20 10'],
        'cells': cells, 'comparisons': comparisons,
        'shift_points': [
            {'shift': name, 'task': task, 'row': row,
             **rounded(asdict(rate(sum(found.values()), len(found)))),
             **{f'against_unchanged_{key}': value for key, value in rounded(asdict(
                 compare(found, outcomes[task, count, row]))).items()}}
            for (task, count, row, lab), found in sorted(shifted.items())
            for name, called in SHIFTS.items()
            if called == lab and (task, count, row) in outcomes]}


def _outcomes(
    folder: Path, work: Path, episodes: int,
) -> dict[tuple[str, int, str, str], dict[tuple[int, int], bool]]:
    """
    Read attempts of policies as they are now.

    :returns: by task, demonstrations, row and lab: by training seed and start, whether it
        succeeded. A training seed counts when all its attempts are there.
    """
    outcomes: dict[tuple[str, int, str, str], dict[tuple[int, int], bool]] = {}
    for path in sorted(folder.glob(f'*/{ROLLOUTS}')):
        for one in read_rollouts(path.parent):
            manifest = work / 'policies' / one.policy / 'policy.yaml'
            if one.seed >= FIRST_SEED + episodes or not manifest.exists() or sha256(
                    manifest.read_bytes()).hexdigest() != one.policy_sha256:
                continue
            name, count, row, seed = one.policy.split('.')
            outcomes.setdefault((name, int(count), row, one.lab), {})[
                int(seed), one.seed] = one.success
    for found in outcomes.values():
        for number in {number for number, _ in found}:
            if sum(one == number for one, _ in found) < episodes:
                for key in [key for key in found if key[0] == number]:
                    del found[key]
    return {key: found for key, found in outcomes.items() if found}


def _points(
    outcomes: Mapping[tuple[str, int, str], Mapping[tuple[int, int], bool]], first: str,
    second: str, count: int = 20,
) -> dict[str, Any] | None:
    """Compare two rows on the attempts of all tasks, in points; None where one was not run."""
    both: list[dict[tuple[str, int, int], bool]] = [{}, {}]
    for place, row in enumerate((first, second)):
        for (task, number, name), made in outcomes.items():
            if (number, name) == (count, row):
                both[place] |= {(task, *key): success for key, success in made.items()}
    if not set(both[0]) & set(both[1]):
        return None
    found = compare(both[0], both[1])
    return {'value': round(100 * found.difference, 1),
            'interval': [round(100 * found.low, 1), round(100 * found.high, 1)],
            'pairs': found.pairs, 'p_value': float(f'{found.p_value:.2g}'),
            'demonstrations': count}


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Round for a file; p values to three digits."""
    return {name: (float(f'{value:.3g}') if name.endswith('p_value') else round(value, 4))
            if isinstance(value, float) else value for name, value in row.items()}


def processor() -> str:
    """Name this computer's processor."""
    lines = [line for line in Path('/proc/cpuinfo').read_text('utf-8').splitlines()
             if line.startswith('model name')] if Path('/proc/cpuinfo').exists() else []
    return lines[0].partition(':')[2].strip() if lines else platform.machine()


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw the page's tables, by the name of their mark."""
    cells = {(one['task'], one['demonstrations'], one['row']): one for one in results['cells']}
    columns = sorted({(count, task) for task, count, _ in cells},
                     key=lambda one: ((20, 10, 50).index(one[0]) if one[0] in (20, 10, 50)
                                      else one[0], one[1]))
    drawn = table(
        ['what the policy is given', *(f'{task}, {count}' for count, task in columns)],
        [[row.title, *(_cell(cells.get((task, count, name))) for count, task in columns)]
         for name, row in ROWS.items() if any(name == key[2] for key in cells)])
    compared = table(
        ['task, demonstrations', 'the first', 'against', 'points', 'pairs that differ', 'p'],
        [[f'{one["task"]}, {one["demonstrations"]}', _title(one['row']), _title(one['against']),
          f'{100 * one["difference"]:+.0f} [{100 * one["low"]:+.0f}, {100 * one["high"]:+.0f}]',
          f'{one["only_first"]} : {one["only_second"]} of {one["pairs"]}', f'{one["p_value"]:.2g}']
         for one in results['comparisons']])
    shifts = {(one['task'], one['row'], one['shift']): one
              for one in results.get('shift_points', ())}
    tasks = sorted({task for task, _, _ in shifts})
    changed = table(
        ['task', 'what the policy is given', *SHIFTS],
        [[task, ROWS[row].title, *(_shift(shifts.get((task, row, name))) for name in SHIFTS)]
         for task in tasks for row in SHIFTED_ROWS
         if any((task, row, name) in shifts for name in SHIFTS)])
    return {'closed_loop': drawn, 'compared': compared, 'shifts': changed}


def _shift(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ''
    low, high = 100 * one['against_unchanged_low'], 100 * one['against_unchanged_high']
    return (f'{100 * one["successes"] / one["n"]:.0f} % of {one["n"]} '
            f'({100 * one["against_unchanged_difference"]:+.0f} [{low:+.0f}, {high:+.0f}])')


def _title(row: str) -> str:
    return ROWS[row].title


def _cell(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return ''
    seeds = ', '.join(map(str, one['by_training_seed']))
    return (f'{100 * one["successes"] / one["n"]:.0f} [{100 * one["low"]:.0f}, '
            f'{100 * one["high"]:.0f}] % ({seeds})')


if __name__ == '__main__':
    raise SystemExit(main())
