# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which frames of a clip a training step sees."""

from collections.abc import Callable

from hralign_ros.data.manifest import DataError
import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Sampler = Callable[[int, int, np.random.Generator], Indices]

# The released window: 20 frames at 10 Hz, whatever the rate of the frames it is taken from.
WINDOW_FRAMES = 20
WINDOW_RATE_HZ = 10.0
# From the first of its frames to the last.
WINDOW_S = (WINDOW_FRAMES - 1) / WINDOW_RATE_HZ


def random_frames(count: int, length: int, rng: np.random.Generator) -> Indices:
    """
    Choose frames anywhere in the clip, each at most once where there are enough.

    :param count: frames there are.
    :param length: frames wanted.
    :returns: int64 [length], sorted, 0 to count - 1.
    :raises DataError: count or length is below 1.
    """
    _check(count, length)
    return np.sort(rng.choice(count, length, replace=count < length)).astype(np.int64)


def segment_frames(count: int, length: int, rng: np.random.Generator) -> Indices:
    """
    Choose one frame at random in each of `length` equal parts of the clip.

    :param count: frames there are.
    :param length: frames wanted; beyond count some come twice.
    :returns: int64 [length], sorted, 0 to count - 1.
    :raises DataError: count or length is below 1.
    """
    _check(count, length)
    at = (np.arange(length) + rng.random(length)) * (count / length)
    # The product may round up to count itself.
    return np.minimum(at.astype(np.int64), count - 1)


def window_frames(
    count: int, length: int, rng: np.random.Generator, *, rate_hz: float = WINDOW_RATE_HZ,
) -> Indices:
    """
    Choose frames of a two-second window that starts anywhere in the clip.

    For five frames at 10 Hz these are start + 0, 4, 9, 14, 19. A clip that is shorter than the
    window is taken from its start, with its last frame repeated.

    :param count: frames there are.
    :param length: frames wanted.
    :param rate_hz: of the frames there are.
    :returns: int64 [length], sorted, 0 to count - 1.
    :raises DataError: count or length is below 1, or rate_hz is not above 0.
    """
    _check(count, length)
    if not rate_hz > 0:
        raise DataError(f'rate_hz is {rate_hz}; needed is a rate above 0')
    steps = np.floor(np.linspace(0, WINDOW_FRAMES - 1, length))
    offsets = np.rint(steps * (rate_hz / WINDOW_RATE_HZ)).astype(np.int64)
    start = rng.integers(max(count - int(offsets[-1]), 1))
    return np.minimum(start + offsets, count - 1)


SAMPLERS: dict[str, Sampler] = {
    'random': random_frames, 'segment': segment_frames, 'window': window_frames}


def _check(count: int, length: int) -> None:
    if count < 1 or length < 1:
        raise DataError(f'{length} frames of a clip of {count}; both must be 1 or more')
