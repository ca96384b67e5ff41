# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Small data sets to review: a folder of videos, as an import has left it."""

from hralign_ros.data.manifest import Episode, write_manifest
from hralign_ros.runtime.video import write_video
import numpy as np

FRAMES, RATE_HZ = 10, 5
TIMES = tuple(i / RATE_HZ for i in range(FRAMES))


def episode(number, **values):
    """Make a row of a folder of videos, which is not labelled."""
    name = f'pick up the cup/{number:03d}'
    return Episode(**{
        'episode_id': name, 'task_id': 'cup', 'task_text': 'pick up the cup', 'scene': 's',
        'camera': 'c', 'embodiment': 'panda', 'source': 'folder', 'license_id': 'MIT',
        'split': 'train', 'robot_videos': {
            view: f'{name}/{view}.mp4' for view in ('third_person', 'wrist')}, **values})


def write_data(root, episodes, rate_hz=RATE_HZ):
    """Write the manifest and the videos of its episodes."""
    for one in episodes:
        for row, file in enumerate(one.robot_videos.values()):
            write_video(root / file, (
                np.full((48, 64, 3), 20 * i + 40 * row, np.uint8) for i in range(FRAMES)), rate_hz)
    write_manifest(root, episodes)
    return root
