# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Teach labs that nobody trained on, with few attempts, and try the heads on many fresh ones.

    python -m benchmarks.success.new_lab --lab TRAIN TEST --lab TRAIN TEST ... --other DATA ...

TRAIN and TEST are data sets of one robot in one lab, as `hralign data simulate-lab` makes them;
those of OTHER are of other labs and of moved cameras. Of each number of attempts some draws are
made; heads are fitted as `hralign success teach` does, and decide on all attempts of TEST by the
node's decider. Writes results/new_lab.json.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
import json
import os
from pathlib import Path
import time
from typing import Any

from benchmarks.pages import ROOT
from hralign_ros.calibration.attempt_decisions import rate_table, Scored
from hralign_ros.calibration.conformal import nonconformity_score
from hralign_ros.calibration.taught_task import (
    fit_task,
    score_attempts,
    TaughtTask,
    usual_row,
)
from hralign_ros.calibration.teach import ood_limits
from hralign_ros.data.manifest import DataSet, read_manifest, slug
from hralign_ros.evaluation.bootstrap import rate
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import silent
from hralign_ros.runtime.tasks import Task
from hralign_ros.training.attempts import Attempt, Attempts, label, load_attempts
from hralign_ros.training.taught_head import fit_ood, new_head, ood_scores, Recipe, RECIPES
import numpy as np
import torch

SOON_S = 1.0
# Attempts that are looked at upside down.
_TURNED = 20
# Number of attempts of each kind -> draws.
DRAWS = {5: 2, 10: 3, 50: 1, 200: 1}
# Those of which figures are kept for each task.
_BY_TASK = (10, 50)


def relabelled(attempts: Sequence[Attempt], *, times: bool) -> list[Attempt]:
    """Label attempts by the moment of success, or by their outcome alone."""
    made = []
    for a in attempts:
        flags = a.episode.success_flags if times else ()
        done, failed, timed = label(replace(a.episode, success_flags=flags), a.time_s)
        made.append(replace(a, done=done, failed=failed, timed=timed))
    return made


def draw(attempts: Sequence[Attempt], count: int, seed: int) -> list[Attempt]:
    """Draw so many attempts of each kind of each task; none of a task that has not enough."""
    rng = np.random.default_rng([seed, count])
    chosen = []
    for task in sorted({a.episode.task_id for a in attempts}):
        for good in (True, False):
            some = [a for a in attempts if a.episode.task_id == task and a.succeeds == good]
            if len(some) >= count:
                chosen += [some[i] for i in rng.choice(len(some), count, replace=False)]
    whole = [a for a in chosen if sum(
        b.episode.task_id == a.episode.task_id for b in chosen) == 2 * count]
    return whole


class Tally:
    """Counts of what was decided on fresh attempts."""

    def __init__(self) -> None:
        self.count: dict[str, int] = defaultdict(int)
        self.offered: list[float] = []
        self.delays: list[float] = []

    def add(self, one: TaughtTask, scored: Sequence[Scored]) -> None:
        """Count one head's decisions at the rate that a node takes."""
        row = usual_row(one)
        good = sum(s.attempt.succeeds for s in scored)
        self.count['successes'] += good
        self.count['failures'] += len(scored) - good
        self.count['heads'] += 1
        self.count['ticks'] += sum(len(s.out) for s in scored)
        self.count['out'] += int(sum(s.out.sum() for s in scored))
        if row is None:
            self.count['refused'] += 1
            return
        self.offered.append(row.rate)
        # By the simulator's own moment of success, without the tolerance of labels.
        strict = [replace(s, attempt=replace(s.attempt, done=exact(s.attempt))) for s in scored]
        for name, some in (('early', strict), ('early_by_more', scored)):
            found, = (r for r in rate_table(one.calibration, some) if r.rate == row.rate)
            self.count[name] += found.early
            if name == 'early':
                self.count['decided'] += found.decided
                self.count['soon'] += sum(d <= SOON_S + 1e-6 for d in found.delays_s)
                self.count['false'] += found.false
                self.count['stopped'] += found.stopped
                self.count['wrongly_stopped'] += found.wrongly_stopped
                self.delays += found.delays_s

    def figures(self) -> dict[str, Any]:
        """Give rates with their 95 % intervals (Clopper-Pearson), over attempts of all heads."""
        c = self.count
        return {
            'heads': c['heads'], 'refused_heads': c['refused'],
            'successes': c['successes'], 'failures': c['failures'],
            'offered_alpha': round(float(np.mean(self.offered)), 4) if self.offered else None,
            **{name: _rate(c[key], c[of]) for name, key, of in (
                ('decided_within_a_second', 'soon', 'successes'),
                ('decided', 'decided', 'successes'), ('early', 'early', 'successes'),
                ('early_by_more_than_the_tolerance', 'early_by_more', 'successes'),
                ('false_alarms', 'false', 'failures'), ('failures_stopped', 'stopped', 'failures'),
                ('successes_stopped', 'wrongly_stopped', 'successes'),
                ('out_of_distribution_ticks', 'out', 'ticks'))},
            'median_delay_s': round(float(np.median(self.delays)), 2) if self.delays else None}


def _rate(count: int, of: int) -> dict[str, Any] | None:
    if not of:
        return None
    found = rate(count, of)
    return {'value': round(found.value, 4), 'count': count, 'of': of,
            'interval': [round(found.low, 4), round(found.high, 4)]}


def exact(a: Attempt) -> Any:
    """Say of each tick whether the task is accomplished, by the simulator."""
    if not a.succeeds:
        return a.done
    own = np.asarray(a.episode.time_s) - a.episode.time_s[0]
    at = np.maximum(np.searchsorted(own, a.time_s + 1e-3, 'right') - 1, 0)
    return np.asarray(a.episode.success_flags, np.float32)[at]


def fit_lab(
    manifest: Manifest, found: Attempts, views: Sequence[int],
    recipes: Sequence[Recipe] = RECIPES,
) -> list[TaughtTask]:
    """Fit heads for all tasks of a lab's attempts."""
    limits, _ = ood_limits(manifest, found, views, silent)
    regions = np.ones((len(manifest.views), manifest.tokens.count), np.float32)
    return [fit_task(
        manifest, found, [a for a in found.attempts if a.episode.task_id == task],
        Task(slug(task), task), views, regions, limits, silent, recipes=recipes)
        for task in sorted({a.episode.task_id for a in found.attempts})]


def by_clock(one: TaughtTask, train: Sequence[Attempt], test: Sequence[Attempt]) -> dict[str, int]:
    """Decide by the time since an attempt began, at the same rate."""
    row = usual_row(one)
    if row is None:
        return {}
    good, bad = ([float(a.time_s[-1]) for a in train if a.succeeds == kind]
                 for kind in (True, False))
    del good
    limit = sorted(bad)[min(len(bad) - 1, int(np.ceil((len(bad) + 1) * (1 - row.rate))) - 1)]
    soon = early = false = 0
    for a in test:
        late = np.flatnonzero(a.time_s > limit)
        if not len(late):
            continue
        if not a.succeeds:
            false += 1
            continue
        first = int((exact(a) == 1).argmax())
        early += late[0] < first
        soon += first <= late[0] and a.time_s[late[0]] - a.time_s[first] <= SOON_S
    return {'soon': soon, 'early': early, 'false': false}


def nearest_end_frame(
    one: TaughtTask, train: Sequence[Attempt], test: Sequence[Attempt],
) -> dict[str, int]:
    """Decide by the distance of the newest frame's tokens to the nearest end of a success."""
    row = usual_row(one)
    if row is None:
        return {}
    ends = {a.episode.episode_id: a.tokens[-1].ravel() for a in train if a.succeeds}

    def score(a: Attempt) -> Any:
        gallery = np.stack([end for name, end in ends.items() if name != a.episode.episode_id])
        x = a.tokens.reshape(len(a.tokens), -1)
        far = (x * x).sum(1)[:, None] + (gallery * gallery).sum(1) - 2 * x @ gallery.T
        return 1.0 / (1.0 + np.maximum(far, 0.0).min(1))

    levels = sorted(nonconformity_score(a.stamps, score(a), 300_000_000)
                    for a in train if not a.succeeds)
    limit = levels[min(len(levels) - 1, int(np.ceil((len(levels) + 1) * (1 - row.rate))) - 1)]
    soon = early = false = 0
    for a in test:
        s = score(a)
        above = np.flatnonzero((s[:-2] > limit) & (s[1:-1] > limit) & (s[2:] > limit))
        if not len(above):
            continue
        at = int(above[0]) + 2
        if not a.succeeds:
            false += 1
            continue
        first = int((exact(a) == 1).argmax())
        early += at < first
        soon += first <= at and a.time_s[at] - a.time_s[first] <= SOON_S
    return {'soon': soon, 'early': early, 'false': false}


def out_of_distribution(
    manifest: Manifest, train: Attempts, test: Sequence[Attempt], turned: Sequence[Attempt],
    others: Mapping[str, Sequence[Attempt]], encoder: Encoder,
) -> dict[str, dict[str, int]]:
    """Count ticks that a lab's model calls out of distribution, by what was done to cameras."""
    views = list(range(len(manifest.views)))
    head = new_head(manifest, train, [])
    fit_ood(head, train.attempts, views)
    head.ood_limit.copy_(torch.from_numpy(ood_limits(manifest, train, views, silent)[0]))
    side = manifest.image_size
    black = encoder.encode_images({
        view: np.zeros((side, side, 3), np.uint8) for view in manifest.views})[0]
    dark = {'means': (head.pool.numpy() @ black).reshape(len(views), -1),
            'tokens': train.basis.apply(black)}

    def changed(some: Sequence[Attempt], change: Any) -> dict[str, int]:
        scores = [ood_scores(head, replace(a, **{
            name: np.ascontiguousarray(change(name, getattr(a, name)))
            for name in ('means', 'tokens')}), views) for a in some]
        every = np.concatenate(scores)
        return {'out': int((every > 1.0).sum()), 'ticks': len(every)}

    def covered(view: int) -> Any:
        def change(name: str, values: Any) -> Any:
            values = values.copy()
            values[:, view] = dark[name][view]
            return values
        return change

    def as_it_is(name: str, values: Any) -> Any:
        return values

    found = {'fresh attempts': changed(test, as_it_is),
             'cameras swapped': changed(test, lambda _, values: values[:, ::-1]),
             'upside down': changed(turned, as_it_is)}
    for view, name in enumerate(manifest.views):
        found[f'{name} covered'] = changed(test, covered(view))
    return found | {name: changed(some, as_it_is) for name, some in others.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--lab', nargs=2, type=Path, action='append', required=True,
                        metavar=('TRAIN', 'TEST'))
    parser.add_argument('--other', nargs='*', type=Path, default=[])
    parser.add_argument('--features', type=Path, required=True)
    parser.add_argument('--counts', nargs='+', type=int, default=list(DRAWS), choices=list(DRAWS),
                        help='attempts of each kind to learn from')
    parser.add_argument('--workers', type=int, default=1, help='processes that encode attempts')
    parser.add_argument('--output', type=Path, default=ROOT / 'results/new_lab.json')
    options = parser.parse_args(arguments)
    bundle = default_bundle()
    encoder = Encoder.load(bundle, provider='cpu')
    manifest = encoder.manifest
    views = list(range(len(manifest.views)))
    tallies: dict[str, Tally] = defaultdict(Tally)
    by_task: dict[int, dict[str, Tally]] = {
        count: defaultdict(Tally) for count in options.counts if count in _BY_TASK}
    baselines: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    out: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    chosen: dict[str, int] = defaultdict(int)
    seconds: list[float] = []
    fresh = 0
    for train_folder, test_folder in options.lab:
        features = options.features / train_folder.parent.name
        train = load_attempts(read_manifest(train_folder), bundle, folder=features,
                              workers=options.workers)
        data = read_manifest(test_folder)
        test = load_attempts(data, bundle, folder=features, workers=options.workers)
        fresh += len(test.attempts)
        for count in options.counts:
            for seed in range(DRAWS[count]):
                some = draw(train.attempts, count, seed)
                if not some:
                    continue
                for times in (False, True):
                    found = replace(train, attempts=tuple(relabelled(some, times=times)))
                    began = time.monotonic()
                    heads = fit_lab(manifest, found, views)
                    if count == 10:
                        seconds.append((time.monotonic() - began) / len(heads))
                    name = f'{count}+{count}, ' + ('moment labelled' if times else 'outcome alone')
                    for one in heads:
                        own = [a for a in test.attempts if slug(a.episode.task_id)
                               == one.task.task_id]
                        scored = score_attempts(one, own)
                        tallies[name].add(one, scored)
                        chosen[one.choice.recipe.name] += 1
                        if count in by_task:
                            labelled = name.split(', ')[1]
                            by_task[count][f'{train_folder.parent.name} {one.task.task_id}, '
                                           f'{labelled}'].add(one, scored)
                        if count == 10 and not times:
                            mine = [a for a in found.attempts if slug(a.episode.task_id)
                                    == one.task.task_id]
                            good = sum(a.succeeds for a in own)
                            for label_, told in (('elapsed time', by_clock(one, mine, own)),
                                                 ('nearest end of a success',
                                                  nearest_end_frame(one, mine, own))):
                                for key, value in told.items():
                                    baselines[label_][key] += int(value)
                                baselines[label_]['successes'] += good
                                baselines[label_]['failures'] += len(own) - good
                    print(f'{train_folder.parent.name} {name} draw {seed}: '
                          f'{time.monotonic() - began:.0f} s', flush=True)
                if count == 10 and not seed:
                    found = replace(train, attempts=tuple(relabelled(some, times=False)))
                    for recipe in RECIPES:
                        for one in fit_lab(manifest, found, views, [recipe]):
                            tallies[f'10+10, outcome alone, {recipe.name} only'].add(
                                one, score_attempts(one, [
                                    a for a in test.attempts
                                    if slug(a.episode.task_id) == one.task.task_id]))
        ten = replace(train, attempts=tuple(draw(train.attempts, 10, 0)))
        turned = load_attempts(_turned(data, manifest), bundle, folder=features)
        others = {}
        for folder in options.other:
            extra = load_attempts(read_manifest(folder), bundle, folder=features).attempts
            for scene in sorted({a.episode.scene for a in extra}):
                others[f'{scene} of {extra[0].episode.embodiment}'] = [
                    a for a in extra if a.episode.scene == scene]
        for key, counts in out_of_distribution(
                manifest, ten, test.attempts, turned.attempts, others, encoder).items():
            for part, value in counts.items():
                out[f'{train_folder.parent.name}: {key}'][part] += value
        # After each lab, so that little is lost.
        document = {
            'command': 'python -m benchmarks.success.new_lab --lab TRAIN TEST ... --other DATA '
                       f'--counts {" ".join(map(str, options.counts))}',
            'fresh_attempts': fresh,
            'results': {name: tally.figures() for name, tally in tallies.items()},
            **{f'by_task_{count}': {name: tally.figures() for name, tally in some.items()}
               for count, some in by_task.items()},
            'baselines_10': {name: {
                'decided_within_a_second': _rate(c['soon'], c['successes']),
                'early': _rate(c['early'], c['successes']),
                'false_alarms': _rate(c['false'], c['failures'])}
                for name, c in baselines.items()},
            'out_of_distribution': {name: _rate(c['out'], c['ticks']) for name, c in out.items()},
            'chosen': dict(chosen), 'fit_seconds_10_a_task': round(float(np.median(seconds)), 1),
            'load_average': [round(load, 1) for load in os.getloadavg()]}
        options.output.write_text(json.dumps(document, indent=1) + '\n', 'utf-8')
    print(json.dumps(document, indent=1))
    return 0


def _turned(data: DataSet, manifest: Manifest) -> DataSet:
    """Turn the cameras of some episodes upside down."""
    every = data.episodes[:: max(1, len(data.episodes) // _TURNED)]
    return data.only(replace(e, geometry={
        view: ViewGeometry(180, (0.0, 0.0, 1.0, 1.0)) for view in e.robot_videos
    }) for e in every)


if __name__ == '__main__':
    raise SystemExit(main())
