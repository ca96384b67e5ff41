# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Training runs of a second, from a seed: pairs or recordings, features in memory, a model.

As a program it trains, for tests that need a process to kill or several of them:
support.tiny_run OUTPUT KIND ... [--kill-in-step N] [--gradients]; a KIND is one of KINDS.
"""

import argparse
from dataclasses import replace
import os
from pathlib import Path
import signal

from hralign_ros.data.pairs import Clip, Pair
from hralign_ros.models.adapters import adapters_of
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training.alignment_losses import alignment_loss
from hralign_ros.training.alignment_objective import AlignmentObjective
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import average_gradients, joined
from hralign_ros.training.loop import train
import numpy as np
from support import tiny_success
import torch
from torch import nn
from torch.nn import functional

CHANNELS, FRAMES, SIDE, TEXT_DIM = 32, 6, 3, 12
OPTIONS = TrainOptions(
    steps=24, batch=8, length=3, sampler='random', learning_rate=1e-2, warm_up=4,
    adapter_rate=1.0, weight_decay=1e-4, by_scene=False, average=0.3, validate_every=6,
    checkpoint_every=5, patience=0)


def make_clip(name, domain, view, number, task):
    return Clip(name, view, f'e{number:03d}', f'task{task}', f'do the task {task}', 'scene',
                domain if domain == 'human' else 'panda')


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
    return HRAlign(adapters_of(CHANNELS, 'conv'), nn.Identity(), TEXT_DIM, CHANNELS, **options)


def make_objective(options=OPTIONS, *, model=None, pairs=None, report=print):
    return AlignmentObjective(
        options, model or make_model(), pairs or make_pairs(), make_pairs(12, start=40),
        make_cache(), make_texts(), report)


def run(output, options=OPTIONS, *, model=None, pairs=None, report=print, **more):
    model = model or make_model()
    objective = make_objective(options, model=model, pairs=pairs, report=report)
    return train(objective, Path(output), report=report, device='cpu', **more), model


# What is trained, in all its forms that ranks have to agree in.
KINDS = {
    'align': make_objective,
    'align, own negatives': lambda: make_objective(replace(OPTIONS, negatives='own')),
    'video_text': lambda: make_objective(replace(OPTIONS, objective='video_text')),
    'success': tiny_success.make_objective,
    'success, video clusters': lambda: tiny_success.make_objective(replace(
        tiny_success.OPTIONS, cluster_on='video', human_prompt=True, newest_path=True)),
    'success, grounded': lambda: tiny_success.make_objective(
        replace(tiny_success.OPTIONS, grounded=True, split_file='splits.yaml', stills_per_step=8,
                texts_per_still=3),
        stills=tiny_success.make_stills(12), grounding=tiny_success.make_grounding(),
        recordings=[tiny_success.with_fine(recording, tiny_success.make_scene(i, moved=i % 3)[0])
                    for i, recording in enumerate(tiny_success.make_recordings())])}


def first_gradients(objective, ranks):
    """Give loss and gradients of the first step."""
    objective.to(torch.device('cpu'))
    # Away from where it starts, so that every layer has a gradient.
    torch.manual_seed(7)
    for parameter in objective.parameters().values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    objective.prepare(0, ranks)
    loss, _ = objective.loss(objective.batches.load(0, ranks), 0, ranks)
    loss.backward()
    parameters = objective.parameters()
    average_gradients(parameters.values(), ranks)
    return {'loss': loss.detach(), **{n: p.grad for n, p in parameters.items()}}


def train_kind(kind, folder, *, kill_in_step=None):
    objective = KINDS[kind]()
    compute = objective.loss

    def kill(batch, step, ranks):
        if step + 1 == kill_in_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute(batch, step, ranks)

    objective.loss = kill
    train(objective, folder, device='cpu')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('output', type=Path)
    parser.add_argument('kinds', nargs='+')
    parser.add_argument('--kill-in-step', type=int)
    parser.add_argument('--gradients', action='store_true')
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with joined(torch.device('cpu')) as ranks:
        for kind in chosen.kinds:
            train_kind(kind, chosen.output / kind, kill_in_step=chosen.kill_in_step)
            values = first_gradients(KINDS[kind](), ranks) if chosen.gradients else {}
            if ranks.first:
                torch.save(values, chosen.output / kind / 'gradients.pt')


if __name__ == '__main__':
    main()


def loss_of(human, frozen, adapted, **options):
    """Compute Eq. 6 of features [M, C] of any norm, all pooled alike."""
    human, frozen, adapted = (functional.normalize(x, dim=1) for x in (human, frozen, adapted))
    cosines = human @ adapted.T
    return alignment_loss(cosines, cosines.T, (human * frozen).sum(1), **options)


def streams_of(model, human, robot, text):
    """Pool human, frozen and adapted robot clips [B, T, C, rows, columns], each [B, C]."""
    return (model.pooled(model.frozen_maps(human), text),
            model.pooled(model.frozen_maps(robot), text),
            model.pooled(model.adapted_maps(robot), text))
