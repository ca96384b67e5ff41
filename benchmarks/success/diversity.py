# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Transfer against diversity: as many attempts, stills and steps, of few or of many instructions.

    python -m benchmarks.success.diversity --data DATA --stills STILLS --bundle BUNDLE --runs RUNS

The subsets are nested. A still tells of instructions of its subset alone. What is measured are
instructions, labs and arms that no subset has.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
import os
from pathlib import Path
import sys

from benchmarks.pages import kept, ROOT, write_results
from benchmarks.runs import Job, run_all
from benchmarks.success.tabletop import GROUNDED, VARIANTS
from hralign_ros.calibration.scorer import Scored, Scorer
from hralign_ros.data.instructions import NOT_SO, SO, STILL
from hralign_ros.data.manifest import Episode, read_manifest, write_manifest
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success_ticks import measure_detection
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.training.run_folder import RUN
from hralign_ros.training.success_clips import load_recordings, open_data, Recording
from hralign_ros.training.success_run import load_success_run
import matplotlib.pyplot as plt
import numpy as np

SPLITS = {'test_instruction': 'held-out instructions', 'test_lab': 'held-out labs',
          'test_embodiment': 'held-out arms'}
_DONE = 'done:'


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the subsets, train and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--stills', type=Path, required=True)
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--runs', type=Path, required=True)
    parser.add_argument('--instructions', type=int, nargs='+', default=[40, 120, 480])
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--at-a-time', type=int, default=1)
    parser.add_argument('--output', type=Path, default=ROOT / 'results/diversity.json')
    options = parser.parse_args(arguments)
    sizes = make_subsets(options.data, options.stills, options.runs, options.instructions)
    jobs, runs = [], {}
    for count in options.instructions:
        folder = options.runs / f'of-{count}'
        for seed in range(options.seeds):
            run = runs[count, seed] = options.runs / f'{count}-{seed}'
            if not (run / RUN).exists():
                jobs.append(Job(f'{count} instructions, seed {seed}', run, [
                    sys.executable, '-m', 'hralign_ros.cli', 'success', 'train', '--output',
                    str(run), *VARIANTS[GROUNDED], f'--seed={seed}', f'--steps={options.steps}',
                    '--data', str(folder / 'attempts'), '--bundle', str(options.bundle),
                    '--features', str(options.data / 'features'), '--resume',
                    '--also', str(folder / 'stills')]))
    run_all(sorted(jobs, key=lambda job: job.name[-1]), options.at_a_time)
    loaded = {key: load_success_run(folder) for key, folder in runs.items()}
    first = next(iter(loaded.values()))
    data, store = open_data(options.data, options.bundle, first.options, basis=first.basis)
    recordings = {split: load_recordings(data, store, [split]) for split in SPLITS}
    encoder, found = Encoder.load(options.bundle, provider='cpu'), Measured()
    measure_detection(found, {
        str(count): [(seed, _scores(Scorer(loaded[count, seed], encoder)))
                     for seed in range(options.seeds)]
        for count in options.instructions}, recordings)
    rows = [row for row in kept(found.rows) if row['metric'] == 'auroc']
    for row in rows:
        print(row['split'], row['variant'], row['value'], row['low'], row['high'])
    write_results(options.output, {
        'rows': rows, 'sizes': sizes, 'steps': options.steps, 'seeds': options.seeds,
        'command': 'python -m benchmarks.success.diversity --data DATA --stills STILLS --bundle '
                   f'BUNDLE --runs RUNS --seeds {options.seeds} --steps {options.steps}',
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()]})
    draw(rows, options.instructions, ROOT / 'docs/images/diversity.png')


def _scores(scorer: Scorer) -> Callable[[Recording], Scored]:
    return lambda recording: scorer.score(scorer.trace_of(recording))


def make_subsets(
    data: Path, stills: Path, output: Path, counts: Sequence[int],
) -> dict[str, dict[str, int]]:
    """
    Write a folder of attempts and one of stills for each number of instructions.

    :returns: what is in each.
    """
    attempts, scenes = (
        [e for e in read_manifest(folder).episodes if e.split == 'train'
         and (STILL in e.tags) == still] for folder, still in ((data, False), (stills, True)))
    rng = np.random.default_rng(0)
    # Those of attempts first, so that the smallest subset has attempts at all of its own.
    texts = [str(t) for t in rng.permutation(sorted({e.task_text for e in attempts}))]
    texts += [str(t) for t in rng.permutation(
        sorted({e.task_text for e in scenes} - set(texts)))]
    chosen = {count: set(texts[:count]) for count in counts}
    least = [min(sum(e.task_text in some for e in of) for some in chosen.values())
             for of in (attempts, scenes)]
    sizes = {}
    for count, some in chosen.items():
        folder, size = output / f'of-{count}', {'instructions': len(some)}
        for name, of, number, source in (
                ('attempts', attempts, least[0], data), ('stills', scenes, least[1], stills)):
            picked = _in_turns([e for e in of if e.task_text in some], number, rng)
            size[name] = len(picked)
            _write(folder / name, source, [_told(e, some.__contains__) for e in picked])
        sizes[str(count)] = size
        print(count, size)
    return sizes


def _in_turns(
    episodes: Iterable[Episode], number: int, rng: np.random.Generator,
) -> list[Episode]:
    """Draw one of each instruction, then another of each: successes and failures in turns."""
    piles: dict[str, list[Episode]] = {}
    for episode in episodes:
        piles.setdefault(episode.task_text, []).append(episode)
    for place, pile in enumerate(piles.values()):
        mixed = [pile[i] for i in rng.permutation(len(pile))]
        both = [[e for e in mixed if bool(e.success) == kind] for kind in (False, True)]
        pile.clear()
        while any(both):
            # The last is taken first.
            side = both[(len(pile) + place) % 2] or both[(len(pile) + place + 1) % 2]
            pile.append(side.pop())
    picked: list[Episode] = []
    while len(picked) < number:
        picked += [pile.pop() for pile in piles.values() if pile]
    return picked[:number]


def _told(episode: Episode, known: Callable[[str], bool]) -> Episode:
    """Leave out what tells of other instructions."""
    return replace(episode, tags=[
        tag for tag in episode.tags
        if not tag.startswith((SO, NOT_SO, _DONE)) or known(tag.split(':', 1)[1])])


def _write(folder: Path, source: Path, episodes: Sequence[Episode]) -> None:
    """Write a manifest beside links to what the source has."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ('videos', 'things.parquet', 'instructions.json'):
        link = folder / name
        if not link.is_symlink():
            link.symlink_to((source / name).resolve())
    write_manifest(folder, episodes)


def draw(rows: Sequence[dict], counts: Sequence[int], path: Path) -> None:
    """Draw AUROC over the number of instructions."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for split, label in SPLITS.items():
        some = {int(row['variant']): row for row in rows if row['split'] == split}
        values = np.array([[some[c]['value'], some[c]['low'], some[c]['high']] for c in counts])
        axes.errorbar(counts, values[:, 0], np.abs(values[:, 1:] - values[:, :1]).T,
                      marker='o', capsize=3, label=label)
    axes.set_xscale('log')
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel('instructions, in as many attempts and stills')
    axes.set_ylabel('AUROC')
    axes.legend(loc='upper left')
    figure.savefig(path, dpi=110, bbox_inches='tight')


if __name__ == '__main__':
    main()
