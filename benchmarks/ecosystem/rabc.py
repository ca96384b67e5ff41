# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a policy gains by weights from our labels, on demonstrations of which half are bad.

    python -m benchmarks.ecosystem.rabc WORK
    python -m benchmarks.ecosystem.rabc WORK --only-tables

In one simulated lab as many attempts fail as succeed, and nobody says which. They become a
LeRobot data set, which `hralign data label` labels with the shipped bundle, and with one that was
taught on ten and ten further attempts of the lab. Policies learn from all of them alike, by the
weights of RA-BC out of either file, from those that are said to be SUCCESS, and from those that
truly are. All policies of a training seed meet the same starts. What is in WORK is not made again,
so a run that was stopped goes on. Needs `make sim`; writes results/rabc.json, the table of
docs/how_to/lerobot.md and rabc_gain_points of results/ecosystem.json.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
import shutil
from typing import Any

from benchmarks.ecosystem.measure import record
from benchmarks.pages import rewrite, ROOT, table, write_results
from benchmarks.policy.closed_loop import processor, rounded, simulated
from hralign_ros.data.channels import FILE_NAME as CHANNELS
from hralign_ros.data.importing import import_data
from hralign_ros.data.lerobot_export import export_lerobot
from hralign_ros.data.lerobot_label_files import FILE_NAME as PROGRESS
from hralign_ros.data.lerobot_labels import label_lerobot
from hralign_ros.data.manifest import Episode, read_manifest, write_manifest
from hralign_ros.data.rollouts import FILE_NAME as ROLLOUTS
from hralign_ros.data.rollouts import read_rollouts
from hralign_ros.evaluation.success_rates import compare, rate
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.decision import Decision
import numpy as np
from pyarrow import parquet

RESULTS = ROOT / 'results/rabc.json'
PAGE = ROOT / 'docs/how_to/lerobot.md'
TASKS = ('lift', 'pick-can')
FIRST_SEED, LESSONS_SEED = 100_000, 2000
LESSONS = 10
VIEWS = {'third_person': 'observation.images.third_person', 'wrist': 'observation.images.wrist'}


@dataclass(frozen=True)
class Row:
    """
    What a policy learns from.

    :param title: for the table.
    :param chosen: 'all' attempts, the 'good' ones, or those that a 'taught' bundle or the
        'shipped' one calls SUCCESS.
    :param weights: of whose labels; '': all frames alike.
    :param signal: of them.
    """

    title: str
    chosen: str = 'all'
    weights: str = ''
    signal: Any = 'progress'


ROWS = {
    'uniform': Row('all, alike'),
    'shipped': Row('all, RA-BC, progress by the shipped bundle', weights='shipped'),
    'taught': Row('all, RA-BC, probability of success by the taught bundle', weights='taught',
                  signal='success'),
    'filtered': Row('those that the taught bundle calls SUCCESS', chosen='taught'),
    'good': Row('those that succeed, by the simulator', chosen='good'),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('work', type=Path)
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=TASKS[:1])
    parser.add_argument('--count', type=int, default=20, help='attempts of each kind')
    parser.add_argument('--training-seeds', nargs='+', type=int, default=[0, 1])
    parser.add_argument('--episodes', type=int, default=40)
    parser.add_argument('--only-tables', action='store_true')
    given = parser.parse_args(arguments)
    for seed in given.training_seeds if not given.only_tables else ():
        for task in given.tasks:
            folder = given.work / task
            prepare(folder, task, given.count)
            policies = [train(folder, row, seed) for row in ROWS]
            simulated('policy', 'evaluate', *map(str, policies), '--task', task, '--arm', 'panda',
                      '--lab', 'lab-1', '--output', str(folder / f'attempts/{seed}'),
                      '--episodes', str(given.episodes), '--first-seed', str(FIRST_SEED),
                      '--resume')
    found = gather(given.work, given.episodes)
    write_results(RESULTS, found)
    rewrite(PAGE, RESULTS, tables)
    gain = found['gain_points']
    record('python -m benchmarks.ecosystem.rabc WORK', facts={
        'rabc_gain_points': gain['value'], 'rabc_gain_points_interval': gain['interval']})
    return 0


def prepare(folder: Path, task: str, count: int) -> None:
    """Record attempts, teach, make a LeRobot data set and label it."""
    for name, number, first in (('demonstrations', count, 0), ('lessons', LESSONS, LESSONS_SEED)):
        if not (folder / name / 'manifest.parquet').exists():
            simulated('data', 'simulate-demonstrations', '--output', str(folder / name), '--task',
                      task, '--episodes', str(number), '--failing', str(number), '--first-seed',
                      str(first), '--resume')
    from hralign_ros.calibration.teach import teach
    from hralign_ros.training.devices import cap_threads

    cap_threads()
    taught, data = folder / 'bundle', folder / 'lerobot'
    if not (taught / 'bundle.yaml').exists():
        teach(default_bundle(), folder / 'lessons', taught)
    attempts = read_manifest(folder / 'demonstrations')
    if not data.exists():
        export_lerobot(attempts.only(replace(e, success=None, success_flags=(), failure='')
                                     for e in attempts.episodes), data)
    for name, bundle in (('shipped', default_bundle()), ('taught', taught)):
        if not labels(folder, name).exists():
            label_lerobot(data, bundle, views={}, output=labels(folder, name),
                          folder=folder / 'computed', provider='cpu')
    if not (data / 'manifest.parquet').exists():
        import_data('lerobot', data, views={camera: view for view, camera in VIEWS.items()})
    shutil.copy(folder / 'demonstrations' / CHANNELS, data)
    if len(read_manifest(data).episodes) != len(attempts.episodes):
        raise SystemExit(f'{data}: not every attempt of {attempts.folder} is there')


def labels(folder: Path, name: str) -> Path:
    """Name the file of labels by a bundle."""
    return folder / (f'lerobot/{PROGRESS}' if name == 'shipped' else f'{name}.parquet')


def truth(folder: Path) -> dict[str, bool]:
    """Tell of each episode of the LeRobot data set whether it truly succeeds."""
    # Both are in the order of the first one's names.
    return {f'episode_{number:06d}': bool(episode.success) for number, episode in enumerate(
        read_manifest(folder / 'demonstrations').episodes)}


def decided(folder: Path, name: str) -> dict[str, bool]:
    """Tell of each episode whether a bundle calls it SUCCESS."""
    frames = parquet.read_table(labels(folder, name), columns=['episode_index', 'decision'])
    numbers, decisions = (column.to_numpy() for column in frames.columns)
    return {f'episode_{number:06d}': bool(
        (decisions[numbers == number] == int(Decision.SUCCESS)).any())
        for number in np.unique(numbers)}


def train(folder: Path, name: str, seed: int) -> Path:
    """Train a policy unless it is there; return its folder."""
    from hralign_ros.export.policy import write_policy
    from hralign_ros.training.policy_options import PolicyOptions
    from hralign_ros.training.policy_run import train_policy

    row, policy = ROWS[name], folder / 'policies' / f'{name}.{seed}'
    if not (policy / 'policy.yaml').exists():
        print(f'training {policy}', flush=True)
        write_policy(train_policy(
            choose(folder, row.chosen), default_bundle(), PolicyOptions(seed=seed),
            weights=labels(folder, row.weights) if row.weights else None, weights_of=row.signal,
            features=folder / 'features', command='python -m benchmarks.ecosystem.rabc'), policy)
    return policy


def choose(folder: Path, chosen: str) -> Path:
    """Make a data set of some of the episodes; the labels of the simulator are not in it."""
    data, output = read_manifest(folder / 'lerobot'), folder / f'chosen-{chosen}'
    if not (output / 'manifest.parquet').exists():
        kept = {'good': truth}.get(chosen, lambda one: decided(one, chosen))(folder) \
            if chosen != 'all' else {}
        episodes: list[Episode] = [e for e in data.episodes if kept.get(e.episode_id, not kept)]
        output.mkdir(exist_ok=True)
        if not (output / 'videos').is_symlink():
            (output / 'videos').symlink_to((folder / 'lerobot/videos').resolve())
        shutil.copy(folder / 'lerobot' / CHANNELS, output)
        write_manifest(output, episodes)
    return output


def gather(work: Path, episodes: int) -> dict[str, Any]:
    """
    Count what is there.

    Attempts of policies that were trained anew do not count, nor half a set of a training seed.
    """
    outcomes: dict[tuple[str, str], dict[tuple[str, int, int], bool]] = {}
    for path in sorted(work.glob(f'*/attempts/*/{ROLLOUTS}')):
        folder = path.parents[2]
        for one in read_rollouts(path.parent):
            manifest = folder / 'policies' / one.policy / 'policy.yaml'
            name, seed = one.policy.split('.')
            if one.seed < FIRST_SEED + episodes and manifest.exists() and sha256(
                    manifest.read_bytes()).hexdigest() == one.policy_sha256:
                outcomes.setdefault((folder.name, name), {})[
                    one.task_id, int(seed), one.seed] = one.success
    for found in outcomes.values():
        numbers = [number for _, number, _ in found]
        for key in [key for key in found if numbers.count(key[1]) < episodes]:
            del found[key]
    outcomes = {key: found for key, found in outcomes.items() if found}
    cells = [{'task': task, 'row': row, **rounded(asdict(rate(sum(found.values()), len(found)))),
              'by_training_seed': [sum(found[key] for key in found if key[1] == seed)
                                   for seed in sorted({key[1] for key in found})]}
             for row in ROWS for (task, name), found in sorted(outcomes.items()) if name == row]
    together = {row: {key: success for (_, name), found in outcomes.items() if name == row
                      for key, success in found.items()} for row in ROWS}
    tasks = sorted({task for task, _ in outcomes})
    return {
        'gain_points': points(together['shipped'], together['uniform']),
        'against_uniform': [
            {'row': row, 'task': task, **points(first, second)}
            for row in ROWS if row != 'uniform'
            for task, first, second in (
                *((task, outcomes.get((task, row), {}), outcomes.get((task, 'uniform'), {}))
                  for task in tasks), ('all', together[row], together['uniform']))
            if set(first) & set(second)],
        'labels': [{'task': task, **found_out(work / task)} for task in tasks],
        'tasks': tasks, 'processor': processor(),
        'commands': ['python -m benchmarks.ecosystem.rabc WORK'], 'cells': cells}


def points(
    first: Mapping[tuple[str, int, int], bool], second: Mapping[tuple[str, int, int], bool],
) -> dict[str, Any]:
    """Compare two rows on the same starts, in points of success rate."""
    found = compare(first, second)
    return {'value': round(100 * found.difference, 1),
            'interval': [round(100 * found.low, 1), round(100 * found.high, 1)],
            'pairs': found.pairs, 'p_value': float(f'{found.p_value:.2g}')}


def found_out(folder: Path) -> dict[str, Any]:
    """Tell what the labels know of a task's attempts: weights and decisions of good and bad."""
    from hralign_ros.training.policy_options import PolicyOptions
    from hralign_ros.training.sample_weights import read_weights

    good, episodes = truth(folder), read_manifest(folder / 'lerobot').episodes
    known: dict[str, Any] = {}
    for name, signal in (('shipped', 'progress'), ('taught', 'success')):
        weights = read_weights(labels(folder, name), episodes, chunk=PolicyOptions().chunk,
                               signal=signal)  # type: ignore[arg-type]
        said = decided(folder, name)
        for kind, wanted in (('good', True), ('bad', False)):
            own = [place for place, e in enumerate(episodes) if good[e.episode_id] == wanted]
            known[f'{name}_weight_{kind}'] = round(float(np.mean(np.concatenate(
                [weights[place] for place in own]))), 3)
            known[f'{name}_success_{kind}'] = sum(
                said[episodes[place].episode_id] for place in own)
            known[f'attempts_{kind}'] = len(own)
            known[f'frames_{kind}'] = sum(len(weights[place]) for place in own)
    return known


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Draw the page's table, by the name of its mark."""
    cells = {(one['task'], one['row']): one for one in results['cells']}
    against = {(one['task'], one['row']): one for one in results['against_uniform']}

    def cell(task: str, row: str) -> str:
        one = cells.get((task, row))
        return '' if one is None else (
            f'{one["successes"]} of {one["n"]} ({", ".join(map(str, one["by_training_seed"]))})')

    def gained(row: str) -> str:
        one = against.get(('all', row))
        return '' if one is None else (
            f'{one["value"]:+.0f} [{one["interval"][0]:+.0f}, {one["interval"][1]:+.0f}]')

    return {'rabc': table(
        ['the policy learns from', *results['tasks'], 'points against all alike'],
        [[row.title, *(cell(task, name) for task in results['tasks']), gained(name)]
         for name, row in ROWS.items()])}


if __name__ == '__main__':
    raise SystemExit(main())
