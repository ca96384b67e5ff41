# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A small data set with every split that adaptation and its evaluation need, and runs on it.

Each is made once per test session. Images are drawn: a task is a path, a scene a ground, a
motion a place on it; human and robot differ in colour.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hralign_ros.data.manifest import Episode, read_manifest, write_manifest
from hralign_ros.runtime.video import write_video
from hralign_ros.training.alignment_options import AdaptOptions, TrainOptions
from hralign_ros.training.alignment_run import adapt
import numpy as np
import timm
import torch

FRAMES, SIDE, RATE_HZ = 8, 48, 10
# Task -> split, number of scenes, number of seeds in each.
TASKS = {
    'open-box': ('train', 2, 3), 'shut-box': ('train', 2, 3), 'lift-cup': ('validation', 2, 2),
    'push-bar': ('test_task', 3, 2), 'pull-bar': ('test_task', 3, 2)}
BACKBONE = 'timm:test_resnet'
_HELD = []


def _folder():
    _HELD.append(TemporaryDirectory(prefix='hralign_ros_small_'))
    return Path(_HELD[-1].name)


@cache
def weights_of(backbone):
    """Write a file of weights of one of timm's networks, as if somebody had trained them."""
    torch.manual_seed(0)
    path = _folder() / 'weights.pth'
    torch.save(timm.create_model(backbone.removeprefix('timm:')).state_dict(), path)
    return str(path)


OPTIONS = AdaptOptions(
    backbone=BACKBONE, weights=weights_of(BACKBONE), frames=4, variant='adapted',
    train=TrainOptions(
        steps=6, batch=4, length=3, warm_up=1, learning_rate=1e-3, adapter_rate=1.0,
        average=0.0, validate_every=3, checkpoint_every=6, patience=0, select='loss'))
# Runs by name; those of one variant differ in their seed.
RUNS = {
    'adapted': OPTIONS,
    'again': replace(OPTIONS, train=replace(OPTIONS.train, seed=1)),
    'query': replace(OPTIONS, trained='query', variant='query only'),
    'shuffled': replace(OPTIONS, pairs='shuffled', variant='shuffled pairs'),
    'mean': replace(OPTIONS, pooling='mean', variant='adapted, mean'),
    'vit': replace(
        OPTIONS, backbone='timm:test_vit', weights=weights_of('timm:test_vit'),
        views=('third_person',), variant='vit')}


def draw_image(task, scene, motion, step, human, wrist):
    """Draw one frame."""
    rng = np.random.default_rng([scene, 1])
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = rng.integers(30, 120, 3)
    across, along = 4 + 9 * motion, 2 + 4 * step
    at = {0: (across, along), 1: (across, 34 - along), 2: (along, across), 3: (34 - along, across),
          4: (along, along)}[task]
    y, x = np.clip(at, 0, SIDE - 12)
    image[y:y + 12, x:x + 12] = (230, 180, 150) if human else (40, 90, 230)
    return image[:, ::-1] if wrist else image


@cache
def data_folder():
    """Write videos and manifest; return the folder."""
    root = _folder()
    episodes = []
    for number, (task, (split, scenes, seeds)) in enumerate(TASKS.items()):
        for scene in range(scenes):
            for seed in range(seeds):
                name = f'{task}_{scene}_{seed}'
                files = {}
                for view in ('third_person', 'wrist', 'human'):
                    files[view] = f'videos/{name}_{view}.mp4'
                    write_video(root / files[view], (
                        draw_image(number, scene, seed, i, view == 'human', view == 'wrist')
                        for i in range(FRAMES)), RATE_HZ)
                human = files.pop('human')
                steps = np.arange(FRAMES)
                episodes.append(Episode(
                    episode_id=name, task_id=task, task_text=task.replace('-', ' the '),
                    scene=f'{split}-{scene}', camera='c', embodiment='panda', source='metaworld',
                    license_id='MIT', split=split, seed=seed, success=True, robot_videos=files,
                    human_video=human, human_from=name, time_s=list(steps / RATE_HZ),
                    actions=[[float(np.sin(number + i)), float(seed)] for i in steps],
                    proprio=[[0.1 * i, float(seed), float(number)] for i in steps]))
    # A failure of a training task, with a human clip that must not be paired with it.
    episodes.append(replace(episodes[0], episode_id='failed', success=False, human_from='failed'))
    write_manifest(root, episodes)
    return root


@cache
def data():
    return read_manifest(data_folder())


@cache
def lines(name):
    """Train a run; return its folder, the run, and what it reported."""
    told = []
    folder = _folder() / name
    made = adapt(data_folder(), folder, RUNS[name], command='hralign encoder train',
                 report=told.append)
    return folder, made, told


def run(name):
    return lines(name)[1]
