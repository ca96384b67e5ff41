# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Images and sentences on which an export is checked and its query scaled."""

from pathlib import Path

import cv2
from hralign_ros.runtime.resources import find_share
import numpy as np
from numpy.typing import NDArray

SAMPLE_TASKS = (
    'pick up the can and place it in the bin',
    'put the marker in the cup',
    'open the top drawer',
    'close the drawer',
    'move the cup to the left of the plate',
    'stack the red block on the blue block',
    'turn on the faucet',
    'unplug the charger',
    'wipe the table with the towel',
    'put the lid on the pot',
    'insert the peg into the hole',
    'press the button',
    'fold the cloth in half',
    'pour water from the bottle into the bowl',
    'hang the mug on the rack',
    'sort the fruit into the basket',
)


def sample_images(per_video: int = 12) -> list[NDArray[np.uint8]]:
    """
    Take frames of the demo episode, alternating its views, evenly over its length.

    :returns: uint8 [H, W, 3] RGB images.
    :raises FileNotFoundError: the demo episode is not there.
    """
    folder = find_share('demo/can')
    views = [_frames(folder / f'{name}.mp4', per_video) for name in ('wrist', 'third_person')]
    return [image for pair in zip(*views, strict=True) for image in pair]


def _frames(path: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read `count` frames evenly from a video, RGB."""
    video = cv2.VideoCapture(str(path))
    total = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if not video.isOpened() or total < count:
        raise FileNotFoundError(f'{path}: no video of at least {count} frames')
    wanted = set(np.linspace(0, total - 1, count).astype(int).tolist())
    frames = []
    for index in range(total):
        found, frame = video.read()
        if found and index in wanted:
            frames.append(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8))
    video.release()
    return frames
