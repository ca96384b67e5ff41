# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Rules that clips keep whatever the stamps are."""

from hralign_ros.runtime.memory import EpisodeMemory, FrameSet
import numpy as np
import pytest

hypothesis = pytest.importorskip('hypothesis', reason='hypothesis is not installed')
st = hypothesis.strategies


@hypothesis.settings(deadline=None, derandomize=True, database=None, max_examples=100)
@hypothesis.given(
    length=st.integers(1, 6), period=st.integers(1, 300), more=st.integers(0, 20),
    stride=st.integers(1, 300),
    gaps=st.lists(st.one_of(st.integers(1, 40), st.integers(1, 10_000)), min_size=1, max_size=50))
def test_clips(length, period, more, stride, gaps):
    """Guards every guarantee about clips at once, for any camera and any sizes."""
    capacity = 2 * length + more
    memory = EpisodeMemory(length=length, period=period, capacity=capacity, stride=stride)
    stamps = []
    for stamp in np.cumsum(gaps).tolist():
        memory.add(FrameSet(stamp, np.array([stamp]), np.array([True]),
                            np.zeros((1, 1, 1), np.float32)))
        stamps.append(stamp)
        for clip in (memory.newest_clip(), memory.spread_clip()):
            chosen = [frame.stamp for frame in clip]
            assert 1 <= len(chosen) <= length
            assert chosen == sorted(set(chosen)) and set(chosen) <= set(stamps)
            assert chosen[-1] == stamp
        recent = [frame.stamp for frame in memory.newest_clip()]
        assert stamp - recent[0] <= (length - 1) * period + period // 2
        if length > 1:
            assert memory.spread_clip()[0].stamp == stamps[0]
        reach = (length - 1) * period + period // 2
        assert len(memory) <= capacity + reach // max(1, period // 16) + 3
