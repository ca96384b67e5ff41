# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train success heads on the simulated table, and measure whether they read the instruction.

    simulate=".venv-sim/bin/hralign data simulate --world tabletop --no-humans --output"
    $simulate STILLS --rounds 0 --stills 8000
    $simulate DATA --rounds 1 --split train
    $simulate DATA --resume --rounds 2 --split calibration
    $simulate DATA --resume --rounds 1 --split validation test_seen test_instruction test_lab
    hralign bundle add-fine --data DATA --output BUNDLE
    python -m benchmarks.success.tabletop --data DATA --also STILLS --bundle BUNDLE --runs RUNS

Every run is a call of `hralign success train`; one that is finished is not done again. Splits that
the data lack are left out. `--instructions N` of `data simulate` makes a smaller set.
"""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
import os
from pathlib import Path

from benchmarks.pages import kept, ROOT, write_results
from benchmarks.success.recipes import Recipes
from benchmarks.success.runs import finished, train
from benchmarks.success.tabletop_tables import headline
from hralign_ros.calibration.calibrate import fit_maps
from hralign_ros.calibration.scorer import Scorer
from hralign_ros.data.instructions import STILL
from hralign_ros.data.manifest import read_manifest
from hralign_ros.evaluation.metrics.names import METRICS
from hralign_ros.evaluation.report import Measured
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.evaluation.success_events import (
    measure_alarms,
    measure_cameras,
    measure_delays,
)
from hralign_ros.evaluation.success_ticks import (
    attempts,
    fraction_over,
    measure_detection,
    measure_ends,
    ScoreRecording,
    SEEN,
    SPLITS,
    time_alone,
    TIME_ONLY,
    uncalibrated,
)
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.resources import default_bundle
from hralign_ros.simulation.tabletop_scene import mistakes, Scene
from hralign_ros.simulation.tabletop_tasks import instructions
from hralign_ros.training.success_clips import load_recordings, open_data, Recording
import numpy as np

# Many tasks have few attempts each: more tasks in a batch than elsewhere.
_SPLITS = f'--split-file={ROOT / "config/splits_tabletop.yaml"}'
_WIDE = (_SPLITS, '--tasks-per-step=32', '--clips-per-task=4')
_ALL = ('--all-texts', '--video-text=1')
_HINDSIGHT = (*_WIDE, *_ALL, '--hindsight=1')
# A grounded head's batch is half stills, so that it has fewer attempts. Without failure prompts,
# as a head beside another one has to be.
_SMALL = (_SPLITS, '--tasks-per-step=16', '--clips-per-task=2', *_ALL, '--hindsight=1',
          '--noise=0.25', '--steps=2500', '--no-use-prompts')
_GROUNDED = (*_SMALL, '--grounded')
GROUNDED = 'grounded'
VARIANTS: dict[str, tuple[str, ...]] = {
    'texts of the batch': _WIDE,
    'all texts': (*_WIDE, *_ALL),
    'all texts, hindsight': _HINDSIGHT,
    GROUNDED: _GROUNDED,
    'the same, not grounded': _SMALL,
    'grounded, without pointing': (*_GROUNDED, '--pointing=0'),
    'grounded, without attempts': (*_GROUNDED, '--grounding=0'),
}
# Splits of instructions that were trained.
_KNOWN = (SEEN, 'test_lab', 'test_view', 'test_embodiment')
# Instructions beside the right one, at most.
_OTHERS = 7
_PRINTED = ('auroc', 'auroc_at_end', 'fpr_at_95_recall', 'instruction_accuracy',
            'false_alarm_rate', 'missed_success_rate', 'early_success_rate')


def other_instructions(recording: Recording) -> list[str]:
    """List what else could have been asked for with the things on an attempt's table."""
    episode = recording.episode
    goal = {one.task_id: one.goal for one in instructions()}[episode.task_id]

    def named(kind: str) -> tuple[str, ...]:
        return tuple(tag.removeprefix(kind) for tag in episode.tags if tag.startswith(kind))

    scene = Scene(goal.family, named('thing:'), named('part:'))
    return [other.texts[0] for some in mistakes(goal, scene).values() for other in some][:_OTHERS]


def measure_choice(
    found: Measured, name: str, heads: Sequence[Scorer], recordings: Sequence[Recording],
    split: str,
) -> None:
    """Measure how often the right one scores highest of what the scene allows, at the end."""
    good = [(recording, others) for recording in attempts(recordings) if recording.done[-1]
            and len(others := other_instructions(recording)) > 1]
    if not good:
        return

    def right(head: Scorer, recording: Recording, others: Sequence[str]) -> bool:
        seen = head.trace_of(recording).end
        own = head.score(seen).scores[-1]
        # The fallback task's prompts, as for any text that is no task.
        return bool(own > max(
            head.score(seen, instruction=('', text)).scores[-1] for text in others))

    found.add('instruction_accuracy', name, split, fraction_over(
        np.array([[right(head, *one) for one in good] for head in heads]),
        [recording.episode.task_id for recording, _ in good]),
        chance=float(np.mean([1 / (1 + len(others)) for _, others in good])),
        seeds=[head.run.options.seed for head in heads], gallery='same_scene')


def by_family(recordings: Mapping[str, Sequence[Recording]]) -> dict[str, list[Recording]]:
    """Sort the attempts at known instructions by the form of those, of all splits."""
    found: dict[str, list[Recording]] = {}
    for recording in (one for split in _KNOWN for one in recordings.get(split, ())):
        tag, = (tag for tag in recording.episode.tags if tag.startswith('family:'))
        found.setdefault(tag.replace(':', ' '), []).append(recording)
    return dict(sorted(found.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0].strip())
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--also', type=Path, nargs='*', default=[], help='more to train on')
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--runs', type=Path, required=True)
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--variant', nargs='+', default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument('--split', nargs='+', default=['validation', *SPLITS])
    parser.add_argument('--at-a-time', type=int, default=1)
    parser.add_argument('--finished', action='store_true',
                        help='train nothing; measure the runs that are finished')
    parser.add_argument('--output', type=Path, default=ROOT / 'results/tabletop.json')
    options = parser.parse_args(arguments)
    bundle = options.bundle
    recipes: Recipes = {name: (options.seeds, VARIANTS[name]) for name in options.variant}
    if not options.finished:
        train(options.runs, recipes, options.data, bundle, options.at_a_time, also=options.also)
    runs = finished(options.runs, recipes, bundle)
    if not runs:
        raise SystemExit(f'{options.runs}: no finished run of {", ".join(options.variant)}')
    first = next(iter(runs.values()))[0]
    data, store = open_data(options.data, bundle, first.options, basis=first.basis)
    stills = sum(STILL in episode.tags and episode.split == 'train' for folder in (
        options.data, *options.also) for episode in read_manifest(folder, series=False).episodes)
    data = data.only(episode for episode in data.episodes if STILL not in episode.tags)
    loaded = {split: load_recordings(data, store, [split])
              for split in ('calibration', 'validation', *options.split)}
    known, unknown = loaded['calibration'], loaded['validation']
    recordings = {split: some for split in options.split if (some := loaded[split])}
    encoder = Encoder.load(bundle, provider='cpu')
    heads = {name: [CalibratedScorer(scorer, fit_maps(scorer, known, unknown))
                    for scorer in (Scorer(run, encoder) for run in some)]
             for name, some in runs.items()}
    variants: Mapping[str, Sequence[tuple[int, ScoreRecording]]] = {
        **{name: [(one.seed, uncalibrated(one)) for one in some]
           for name, some in heads.items()}, TIME_ONLY: [(0, time_alone)]}
    found = Measured()
    measure_detection(found, variants, recordings)
    families = by_family(recordings)
    measure_ends(found, variants, {**recordings, **families})
    for name, several in heads.items():
        for split, some in recordings.items():
            print(f'{name}, {split}: choice of instructions, decisions', flush=True)
            measure_choice(found, name, [one.scorer for one in several], some, split)
            # The thresholds for unknown tasks are fitted to it.
            if split != 'validation':
                measure_alarms(found, name, several, some, split)
                measure_delays(found, name, several, some, split)
        for family, some in families.items():
            measure_alarms(found, name, several, some, family)
            measure_delays(found, name, several, some, family)
        if SEEN in recordings:
            measure_cameras(found, name, several[0], recordings[SEEN])
    for row in found.rows:
        if row['metric'] in _PRINTED:
            print(f"{row['split']:18s} {row['variant']:22s} {METRICS[row['metric']].label} "
                  f"{' '.join(map(str, row['conditions'].values()))}: {row['value']:.3f} "
                  f"[{row['low']}, {row['high']}], n {row['n']}")
    words = ['python -m benchmarks.success.tabletop --data DATA --also STILLS --bundle BUNDLE',
             f'--runs RUNS --seeds {options.seeds} --variant',
             *(f'"{name}"' for name in options.variant), *(['--finished'] * options.finished)]
    rows = kept(found.rows)
    write_results(options.output, {
        **headline(rows, next(iter(runs))), 'rows': rows, 'training': {
            # Other heads take stills for attempts.
            name: {'attempts': (record := some[0].record)['data']['episodes'] - (
                0 if some[0].options.grounded else stills), 'stills': stills,
                   'goals': record['data'].get('goals', 0), 'seeds': len(some),
                   'steps': some[0].options.steps, 'seconds': round(record['seconds'])}
            for name, some in runs.items()},
        'instructions': len(first.texts),
        'commands': [' '.join(words)],
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'warning': 'Simulated episodes; nothing of this was measured on a robot.'})


if __name__ == '__main__':
    main()
