# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attempts in one lab, drawn: a block is pushed into a corner, or stops on its way or beside it.

Two fixed cameras see it; in the wrist camera's image left and right are exchanged.
"""

from hralign_ros.data.manifest import Episode, write_manifest
from hralign_ros.runtime.video import write_video
import numpy as np

FRAMES, SIDE, RATE_HZ = 16, 64, 5
TASK = 'push the block into the corner'
_GOAL, _TABLE, _BLOCK = (44, 44), (150, 140, 120), (40, 60, 230)


def draw(rng, kind):
    """Draw an attempt: images of both views, uint8 [F, H, W, 3], and the step of success."""
    begin = np.array([6, 6]) + rng.integers(-3, 4, 2)
    arrives = int(rng.integers(7, 11))
    goal = np.array(_GOAL if kind != 'near_miss' else (44, 14))
    light = rng.normal(0.0, 3.0)
    images = []
    for step in range(FRAMES):
        fraction = min(step / arrives, 1.0 if kind != 'stops_early' else 0.5)
        x, y = (begin + fraction * (goal - begin)).astype(int)
        image = np.full((SIDE, SIDE, 3), np.array(_TABLE) + light)
        image[y:y + 16, x:x + 16] = _BLOCK
        images.append(np.clip(image + rng.normal(0.0, 2.0, image.shape), 0, 255).astype(np.uint8))
    return {'third_person': images, 'wrist': [i[:, ::-1].copy() for i in images]}, arrives


def make_lab(folder, count=6, *, seed=0, flags=False, views=('third_person', 'wrist'), task=TASK):
    """Write `count` successes and as many failures, and their manifest; return the episodes."""
    episodes = []
    for number in range(count):
        for kind in ('', ('stops_early', 'near_miss')[number % 2]):
            rng = np.random.default_rng([seed, number, len(kind)])
            images, arrives = draw(rng, kind)
            name = f'{seed:03d}-{number:03d}-{kind or "success"}'
            files = {}
            for view in views:
                files[view] = f'videos/{name}_{view}.mp4'
                write_video(folder / files[view], images[view], RATE_HZ, quality=16)
            episodes.append(Episode(
                episode_id=name, task_id='push', task_text=task, scene='lab', camera='c',
                embodiment='kinova', source='folder', license_id='MIT', success=not kind,
                failure=kind, robot_videos=files, time_s=[i / RATE_HZ for i in range(FRAMES)],
                success_flags=[not kind and i >= arrives for i in range(FRAMES)]
                if flags else ()))
    write_manifest(folder, episodes)
    return episodes
