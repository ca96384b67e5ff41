# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Validation and evaluation of many pairs, made by repeating features: how much memory they take.

many_pairs.py PAIRS CHANNELS TEXTS [--lean]

Prints megabytes that were resident at most, beyond those before. --lean: as where all pooled
features are too large to be kept, however few there are here.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from hralign_ros.evaluation import embeddings
from hralign_ros.evaluation.metrics.retrieval import retrieval
from hralign_ros.evaluation.metrics.spread import linear_cka, spread
from hralign_ros.evaluation.metrics.task_separability import separability, task_distance_ratio
from hralign_ros.models.adapters import adapters_of
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training import alignment_validation
from hralign_ros.training.alignment_batches import Item, PairBatches
from hralign_ros.training.alignment_objective import validate
from hralign_ros.training.clip_features import ClipFeatures
import numpy as np
from support import tiny_run
from torch import nn

DISTINCT = 64


def peak_mb():
    """Give the most memory that was resident so far; getrusage would count the parent's in."""
    status = Path('/proc/self/status').read_text('ascii')
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]
               ) // 1024


class Repeated(dict):
    """Features of any clip, one of a few."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return super().__getitem__(f'h{int(name[1:-4]) % DISTINCT}.mp4')


def main():
    parser = argparse.ArgumentParser()
    for name in ('pairs', 'channels', 'texts'):
        parser.add_argument(name, type=int)
    parser.add_argument('--lean', action='store_true')
    chosen = parser.parse_args()
    if chosen.lean:
        alignment_validation._KEPT = embeddings._IN_MEMORY = 0
    rng = np.random.default_rng(0)
    features = ClipFeatures(Repeated({f'h{i}.mp4': {
        'maps': rng.random((2, 1, 1, chosen.channels), np.float32),
        'time_s': np.arange(2.0)} for i in range(DISTINCT)}), 'repeated')
    texts = {f'do the task {i}': rng.standard_normal(tiny_run.TEXT_DIM).astype(np.float32)
             for i in range(chosen.texts)} | {embeddings.NEUTRAL_TEXT: np.ones(
                 tiny_run.TEXT_DIM, np.float32)}

    def clip(domain, i):
        made = tiny_run.make_clip(f'{domain[0]}{i}.mp4', domain, 'third_person', i,
                                  i % chosen.texts)
        return replace(made, scene=f'scene{i // chosen.texts % 8}')

    def pairs(count):
        for i in range(count):
            human = clip('human', i)
            yield Item(human, {'third_person': replace(
                clip('robot', i + 1), task_id=human.task_id, task_text=human.task_text)})

    model = HRAlign(adapters_of(chosen.channels, 'conv'), nn.Identity(), tiny_run.TEXT_DIM,
                    chosen.channels)

    def measure(count):
        items = list(pairs(count))
        model.train()
        print(validate(model, PairBatches(items, features, texts, batch=1, length=2),
                       tiny_run.OPTIONS), peak_mb(), flush=True)
        model.eval()
        arrays = embeddings.encode_pairs(model, items, features, texts, length=2)
        found = retrieval(
            lambda rows, text: arrays.human[rows, text],
            lambda rows, text: arrays.robot[rows, text],
            text=arrays.text, identity=arrays.names, tasks=arrays.tasks, gallery_size=100, draws=1)
        print('R@1', found.recall[1].value, peak_mb(), flush=True)
        human, robot = arrays.neutral()
        labels = {'clusters': arrays.names}
        print('CKA', linear_cka(human, robot, **labels).value, peak_mb(), flush=True)
        print('rank', spread(robot, **labels)[0].value, peak_mb(), flush=True)
        print('distances', task_distance_ratio(
            robot, tasks=arrays.tasks, episodes=arrays.names).value, peak_mb(), flush=True)
        some = slice(10_000)
        print('neighbours', separability(
            robot[some], tasks=arrays.tasks[some], scenes=arrays.scenes[some],
            episodes=arrays.names[some])[0].value, peak_mb(), flush=True)

    # What libraries take once.
    measure(10 * chosen.texts)
    before = peak_mb()
    measure(chosen.pairs)
    print(peak_mb() - before)


if __name__ == '__main__':
    main()
