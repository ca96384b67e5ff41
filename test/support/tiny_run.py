# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A training run of a second, from a seed: pairs, a cache in memory, a model.

As a program it trains, for tests that need a process to kill or several of them:
tiny_run.py OUTPUT [--kill-in-step N] [--gradients FILE] [--objective NAME] [--negatives NAME]
"""

import argparse
from dataclasses import replace
import os
from pathlib import Path
import signal

from hralign_ros.data.pairs import Clip, Pair
from hralign_ros.models.adapters import late_adapters
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training.alignment_batches import make_items, PairBatches, VideoBatches
from hralign_ros.training.alignment_objective import batch_loss, video_batch_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.alignment_train import train
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import average_gradients, joined
import numpy as np
import torch
from torch import nn

CHANNELS, FRAMES, SIDE, TEXT_DIM = 32, 6, 3, 12
OPTIONS = TrainOptions(
    steps=24, batch=8, length=3, sampler='random', learning_rate=1e-2, warm_up=4,
    adapter_rate=1.0, weight_decay=1e-4, by_scene=False, average=0.3, validate_every=6,
    checkpoint_every=5, patience=0, device='cpu')


def make_clip(name, domain, view, number, task):
    return Clip(name, view, domain, f'e{number:03d}', f'task{task}', f'do the task {task}',
                'scene', 'cam', domain if domain == 'human' else 'panda')


def make_pairs(count=26, *, start=0, tasks=4, wrist=True, offset=0):
    """Pair human clip i with robot episode i + offset; every third has no wrist view."""
    pairs = []
    for i in range(start, start + count):
        human = make_clip(f'h{i}.mp4', 'human', 'third_person', i, i % tasks)
        j = start + (i - start + offset) % count
        pairs.append(Pair(human, make_clip(f'r{j}.mp4', 'robot', 'third_person', j, j % tasks)))
        if wrist and j % 3:
            pairs.append(Pair(human, make_clip(f'w{j}.mp4', 'robot', 'wrist', j, j % tasks)))
    return pairs


def make_entries(count=60, *, seed=0, dtype=np.float32, noise=0.3, alike=False):
    """
    Make maps in which a robot shows what its human shows, in other channels.

    What is shown has six dimensions. Values are not negative, as behind a ReLU. Where all are
    alike, every clip has the first frame of the first.
    """
    rng = np.random.default_rng(seed)
    content = rng.standard_normal((count, 6))
    entries = {}
    for prefix in ('h', 'r', 'w'):
        channels = rng.standard_normal((6, CHANNELS)) / 6 ** 0.5
        for i in range(count):
            shown = content[i] @ channels + noise * rng.standard_normal(
                (FRAMES, SIDE, SIDE, CHANNELS))
            entries[f'{prefix}{i}.mp4'] = {
                'maps': np.maximum(shown, 0).astype(dtype), 'time_s': np.arange(FRAMES) * 0.1}
    if alike:
        one = entries['h0.mp4']['maps'][:1].repeat(FRAMES, 0)
        entries = {name: {**entry, 'maps': one} for name, entry in entries.items()}
    return entries


def make_cache(count=60, **options):
    return ClipFeatures(make_entries(count, **options), 'tiny')


def make_texts(tasks=4):
    rng = np.random.default_rng(5)
    return {f'do the task {i}': rng.standard_normal(TEXT_DIM).astype(np.float32)
            for i in range(tasks)}


def make_model(seed=0, **options):
    torch.manual_seed(seed)
    return HRAlign(late_adapters(CHANNELS, 'conv'), nn.Identity(), TEXT_DIM, CHANNELS, **options)


def first_gradients(options, ranks):
    """Give loss and gradients of the first step."""
    model, items = make_model(), make_items(make_pairs(), make_cache())[0]
    common = {'length': options.length, 'sampler': options.sampler, 'seed': options.seed}
    # Away from the identity, so that every layer has a gradient.
    torch.manual_seed(7)
    for parameter in model.trained_parameters().values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    if options.objective == 'align':
        batches = PairBatches(items, make_cache(), make_texts(), batch=options.batch, **common)
        loss = batch_loss(model, batches.load(0, ranks), options, ranks)
    else:
        batches = VideoBatches(
            items, make_cache(), make_texts(), batch=2 * options.batch, **common)
        loss = video_batch_loss(model, batches.load(0, ranks), options, ranks)
    loss.backward()
    parameters = model.trained_parameters()
    average_gradients(parameters.values(), ranks)
    return {'loss': loss.detach(), **{n: p.grad for n, p in parameters.items()}}


def run(output, options=OPTIONS, *, model=None, pairs=None, report=print, **more):
    model = model or make_model()
    return train(options, model, pairs or make_pairs(), make_pairs(12, start=40), make_cache(),
                 make_texts(), Path(output), report=report, **more), model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('output')
    parser.add_argument('--kill-in-step', type=int)
    parser.add_argument('--gradients')
    parser.add_argument('--objective', default='align')
    parser.add_argument('--negatives', default='anchor')
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    options = replace(OPTIONS, objective=chosen.objective, negatives=chosen.negatives)
    model = make_model()
    if chosen.kill_in_step:
        steps = []

        def kill(module, *_):
            if module.training:
                steps.append(1)
                if len(steps) == chosen.kill_in_step:
                    os.kill(os.getpid(), signal.SIGKILL)

        model.adapters.register_forward_hook(kill)
    with joined(torch.device('cpu')) as ranks:
        if chosen.gradients:
            values = first_gradients(options, ranks)
            if ranks.first:
                torch.save(values, chosen.gradients)
        run(chosen.output, options, model=model)


if __name__ == '__main__':
    main()
