# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A small data set of successes and failures as videos, in every split; made once per session.

A task is a place in the image, and a block that comes to rest there has accomplished it; a
failure stops on its way, or goes somewhere else.
"""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hralign_ros.data.manifest import Episode, write_manifest
from hralign_ros.data.splits import read_splits
from hralign_ros.runtime.video import write_video
import numpy as np

FRAMES, SIDE, RATE_HZ = 10, 64, 5
RULES = read_splits()
TASKS = {'left-corner': (4, 40), 'right-corner': (44, 40),
         sorted(RULES.validation_tasks)[0]: (24, 4), sorted(RULES.test_tasks)[0]: (44, 4)}
# Last digits of seeds: of training, calibration and test.
SEEDS = {0: 4, 8: 4, 9: 4}
_HELD = []


def draw_image(place, goal, step, kind, human, wrist, colour):
    image = np.full((SIDE, SIDE, 3), colour, np.uint8)
    share = min(step / 6, 1.0)
    if kind == 'stops_early':
        share = min(share, 0.4)
    x, y = np.array(place) + share * (np.array(goal) - place)
    if kind == 'wrong_place':
        y = place[1]
    x, y = int(x), int(y)
    image[y:y + 14, x:x + 14] = (230, 180, 150) if human else (40, 90, 230)
    return image[:, ::-1].copy() if wrist else image


@cache
def data_folder():
    """Write videos and manifest; return the folder."""
    _HELD.append(TemporaryDirectory(prefix='hralign_ros_success_'))
    root = Path(_HELD[-1].name)
    episodes = []
    for task, goal in TASKS.items():
        held_out = task in RULES.validation_tasks | RULES.test_tasks
        for digit, count in ({0: 3} if held_out else SEEDS).items():
            for number in range(count):
                for kind in ('', ('stops_early', 'wrong_place')[number % 2]):
                    episodes.append(_episode(root, task, goal, 10 * number + digit, kind))
    write_manifest(root, episodes)
    return root


def _episode(root, task, goal, seed, kind):
    name = f'{task}_{seed}_{kind or "expert"}'
    rng = np.random.default_rng([seed, len(task)])
    place, colour = (24 + int(rng.integers(-3, 4)), 24), int(rng.integers(60, 160))
    files = {}
    for view in ('third_person', 'wrist', *(['human'] if seed % 10 == 0 else [])):
        files[view] = f'videos/{name}_{view}.mp4'
        write_video(root / files[view], (
            draw_image(place, goal, i, kind, view == 'human', view == 'wrist', colour)
            for i in range(FRAMES)), RATE_HZ)
    human = files.pop('human', '')
    done = [not kind and i >= 6 for i in range(FRAMES)]
    return Episode(
        episode_id=name, task_id=task, task_text=task.replace('-', ' '), scene='train-000',
        camera='c', embodiment='panda', source='metaworld', license_id='MIT', split=RULES.of(
            task_id=task, scene='train-000', embodiment='panda', seed=seed, episode_id=name),
        seed=seed, success=not kind, failure=kind, robot_videos=files, human_video=human,
        human_from=name if human else '', time_s=[i / RATE_HZ for i in range(FRAMES)],
        success_flags=done, progress=[min(i / 6, 1.0) for i in range(FRAMES)] if not kind else [])
