# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Samplers: which frames of a clip a training step may see."""

from hralign_ros.data.manifest import DataError
from hralign_ros.data.samplers import random_frames, SAMPLERS, segment_frames, window_frames
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

COUNTS, LENGTHS = st.integers(1, 300), st.integers(1, 12)


@given(st.sampled_from(sorted(SAMPLERS)), COUNTS, LENGTHS, st.integers(0, 2**32))
def test_indices(name, count, length, seed):
    """Guards what every sampler guarantees: type, number, order, range, and the same by seed."""
    def draw():
        return SAMPLERS[name](count, length, np.random.default_rng(seed))

    indices = draw()
    assert indices.dtype == np.int64 and indices.shape == (length,)
    assert (np.diff(indices) >= 0).all() and indices[0] >= 0 and indices[-1] < count
    assert np.array_equal(indices, draw())


@given(COUNTS, LENGTHS, st.integers(0, 2**32))
def test_random_frames_are_distinct(count, length, seed):
    """Guards the five frames: none twice where there are enough."""
    if count >= length:
        indices = random_frames(count, length, np.random.default_rng(seed))
        assert len(set(indices.tolist())) == length


@given(COUNTS, LENGTHS, st.integers(0, 2**32))
def test_one_frame_in_each_segment(count, length, seed):
    """Guards coverage: frame i lies in the i-th of equal parts."""
    indices = segment_frames(count, length, np.random.default_rng(seed))
    part = count / length
    assert (indices + 1 > np.arange(length) * part).all()
    assert (indices < np.arange(1, length + 1) * part).all()


def test_every_frame_can_be_drawn():
    """Guards the ends of the clip, and that frames are drawn about equally often."""
    rng = np.random.default_rng(0)
    for name in ('random', 'segment'):
        drawn = np.concatenate([SAMPLERS[name](20, 5, rng) for _ in range(4000)])
        share = np.bincount(drawn, minlength=20) / 4000
        assert np.abs(share - 0.25).max() < 0.03, name


def test_the_released_window():
    """Guards the release's indices: 0, 4, 9, 14, 19 from every start that there is room for."""
    rng = np.random.default_rng(0)
    drawn = [window_frames(24, 5, rng) for _ in range(200)]
    assert {tuple(w - w[0]) for w in drawn} == {(0, 4, 9, 14, 19)}
    assert {int(w[0]) for w in drawn} == {0, 1, 2, 3, 4}


def test_the_window_at_another_rate():
    """Guards its two seconds: at 30 Hz the frames lie three times as far apart."""
    window = window_frames(58, 5, np.random.default_rng(0), rate_hz=30)
    assert window.tolist() == [0, 12, 27, 42, 57]


def test_a_clip_shorter_than_the_window():
    """Guards short human clips: from the start, the last frame repeated."""
    for seed in range(5):
        window = window_frames(12, 5, np.random.default_rng(seed))
        assert window.tolist() == [0, 4, 9, 11, 11]


@pytest.mark.parametrize('name', SAMPLERS)
@pytest.mark.parametrize('count, length', [(0, 5), (5, 0), (-1, 5)])
def test_nothing_to_draw(name, count, length):
    """Guards the message for an empty clip."""
    with pytest.raises(DataError, match='1 or more'):
        SAMPLERS[name](count, length, np.random.default_rng(0))


def test_a_rate_of_zero():
    """Guards against a division of nothing."""
    with pytest.raises(DataError, match='rate_hz'):
        window_frames(9, 5, np.random.default_rng(0), rate_hz=0)
