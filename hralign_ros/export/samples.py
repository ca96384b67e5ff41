# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Images and sentences on which an export is checked and its query scaled."""

from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.video import read_frames
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
    :raises DataError: its videos cannot be read.
    """
    folder = find_share('demo/can')
    views = [read_frames(folder / f'{name}.mp4', count=per_video)[0]
             for name in ('wrist', 'third_person')]
    return [image for pair in zip(*views, strict=True) for image in pair]
