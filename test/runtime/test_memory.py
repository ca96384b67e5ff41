# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What an episode remembers: bounded, chosen by stamp, hardly changed by a dropped frame."""

from hralign_ros.runtime.memory import (
    assemble,
    EpisodeMemory,
    FrameSet,
    latest,
    NewestClip,
    ThinnedFrames,
)
import numpy as np
import pytest

MS = 1_000_000
SECOND = 1000 * MS
LENGTH, PERIOD, CAPACITY, STRIDE = 5, 200 * MS, 32, 100 * MS
START = 1_700_000_000 * SECOND
# Frames of the embedding's clip are kept a sixteenth of a period apart at least.
RECENT = (LENGTH - 1) * 16 + 8 + 2


def frame(stamp, views=1):
    return FrameSet(stamp, np.full(views, stamp), np.ones(views, bool),
                    np.zeros((views, 1, 1), np.float32))


def memory(stamps=(), **changes):
    options = {'length': LENGTH, 'period': PERIOD, 'capacity': CAPACITY, 'stride': STRIDE}
    made = EpisodeMemory(**{**options, **changes})
    for stamp in stamps:
        made.add(frame(stamp))
    return made


def camera(rate, seconds, start=START):
    """Stamps of a camera of so many frames a second."""
    return [start + round(i * SECOND / rate) for i in range(round(rate * seconds))]


def stamps_of(frames):
    return [f.stamp for f in frames]


@pytest.mark.parametrize('rate', [10, 15, 25, 30, 60, 100, 1000])
def test_newest_clip_is_a_period_apart(rate):
    """Guards the embedding's clip: T frames, `period` apart to half a frame, ending now."""
    stamps = camera(rate, 3.0)
    clip = stamps_of(memory(stamps).newest_clip())
    assert len(clip) == LENGTH and clip[-1] == stamps[-1]
    wanted = [stamps[-1] - i * PERIOD for i in reversed(range(LENGTH))]
    # Half a frame, or half of what frames of a fast camera are thinned to.
    off = max(SECOND / rate, PERIOD / 16 + SECOND / rate) / 2
    assert max(abs(a - b) for a, b in zip(clip, wanted, strict=True)) <= off + 1


@pytest.mark.parametrize('count', range(1, 5))
def test_a_young_episode_gives_a_short_clip(count):
    """Guards against padding by repetition: what is not there yet is not in the clip."""
    stamps = [START + i * PERIOD for i in range(count)]
    made = memory(stamps)
    assert stamps_of(made.newest_clip()) == stamps
    assert stamps_of(made.spread_clip()) == stamps


def test_the_first_frames_of_a_fast_camera():
    """Guards against a clip of five frames that all show the same instant."""
    clip = stamps_of(memory(camera(30, 0.2)).newest_clip())
    assert len(clip) <= 2


def test_clips_of_a_single_frame():
    """Guards bundles with T = 1, which the manifest allows: the clip is the newest frame."""
    made = memory(camera(30, 2.0), length=1)
    assert stamps_of(made.newest_clip()) == stamps_of(made.spread_clip()) == [made.newest.stamp]


def test_frames_far_apart_are_not_taken_for_a_period():
    """Guards a camera that stood still: frames older than the clip's reach are not in it."""
    made = memory([START, START + 10 * SECOND])
    assert stamps_of(made.newest_clip()) == [START + 10 * SECOND]
    assert stamps_of(made.spread_clip()) == [START, START + 10 * SECOND]


def test_an_empty_memory():
    """Guards the state before the first frame."""
    made = memory()
    assert made.newest is None and len(made) == 0
    assert made.newest_clip() == [] and made.spread_clip() == []


@pytest.mark.parametrize('back', [0, 1, SECOND])
def test_stamps_that_are_not_newer(back):
    """Guards the order of time: a repeated or older frame is refused, and changes nothing."""
    made = memory([START])
    with pytest.raises(ValueError, match='not newer'):
        made.add(frame(START - back))
    assert stamps_of(made.spread_clip()) == [START] and len(made) == 1


@pytest.mark.parametrize('changes', [
    {'length': 0}, {'period': 0}, {'stride': 0}, {'capacity': 2 * LENGTH - 1}])
def test_senseless_sizes(changes):
    """Guards against a memory that cannot hold a clip."""
    with pytest.raises(ValueError, match='capacity'):
        memory(**changes)


def test_memory_stays_bounded():
    """Guards the robot's memory over an episode of ten hours of frames, two hundred thousand."""
    made = memory()
    most = 0
    for i in range(200_000):
        made.add(frame(START + i * 180 * MS))
        most = max(most, len(made))
    assert most <= CAPACITY + RECENT
    clip = stamps_of(made.spread_clip())
    assert len(clip) == LENGTH and clip[0] == START


def test_a_fast_camera_stays_bounded():
    """Guards the same against a camera of a thousand frames a second."""
    made = memory()
    most = 0
    for i in range(20_000):
        made.add(frame(START + i * MS))
        most = max(most, len(made))
    assert most <= CAPACITY + RECENT


@pytest.mark.parametrize('rate', [10, 25, 30, 60])
def test_spread_clip_is_even(rate):
    """Guards the success head's clip: first frame, newest frame, and the rest evenly between."""
    made = memory()
    for i, stamp in enumerate(camera(rate, 120.0)):
        made.add(frame(stamp))
        clip = stamps_of(made.spread_clip())
        assert clip[0] == START and clip[-1] == stamp
        assert clip == sorted(set(clip))
        seconds = (stamp - START) / SECOND
        if seconds < 1.0 or i % 7:
            continue
        assert len(clip) == LENGTH
        even = np.linspace(START, stamp, LENGTH)
        # At least half of the capacity is in use, so frames lie this far apart at most.
        apart = max(2.0 * (stamp - START) / CAPACITY, STRIDE) + SECOND / rate
        assert np.abs(np.array(clip) - even).max() <= apart


def clips_at(stamps, moments):
    """Feed stamps; return both clips at those moments."""
    made, found = memory(), {}
    for stamp in stamps:
        made.add(frame(stamp))
        if stamp in moments:
            found[stamp] = (stamps_of(made.newest_clip()), stamps_of(made.spread_clip()))
    return found


def shift(one, other):
    assert len(one) == len(other)
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('in_a_row', [1, None])
def test_dropped_frames_hardly_change_clips(seed, in_a_row):
    """
    Guards against clips that depend on how many frames were lost rather than on time.

    A fifth of the frames is dropped at random, singly or as it comes. A chosen frame then moves by
    no more than the longest gap; those of the episode's clip by the spacing of what is kept.
    """
    rng = np.random.default_rng(seed)
    full = camera(30, 40.0)
    dropped = rng.random(len(full)) < 0.2
    dropped[0] = False
    if in_a_row:
        dropped[1:] &= ~dropped[:-1]
    kept = [s for s, gone in zip(full, dropped, strict=True) if not gone]
    runs = np.diff(np.flatnonzero(~dropped)) - 1
    most = (in_a_row or runs.max()) * (SECOND / 30) + 2
    moments = {s for s in kept if s - START > 2 * SECOND}
    whole, holed = clips_at(full, moments), clips_at(kept, moments)
    for stamp in moments:
        assert shift(whole[stamp][0], holed[stamp][0]) <= most
        apart = 2.0 * (stamp - START) / CAPACITY + SECOND / 30
        assert shift(whole[stamp][1], holed[stamp][1]) <= max(apart, STRIDE)


def test_one_dropped_frame():
    """Guards the plainest case: one frame lost early moves no clip by more than one frame."""
    full = camera(30, 20.0)
    for lost in (1, 4, 5, 17, 100):
        kept = full[:lost] + full[lost + 1:]
        moments = set(kept[LENGTH * 6 + 1:])
        whole, holed = clips_at(full, moments), clips_at(kept, moments)
        assert max(shift(whole[s][0], holed[s][0]) for s in moments) <= SECOND / 30 + 2


@pytest.mark.parametrize('rate', [10, 12, 15, 20])
def test_a_slower_camera_sees_the_same_clip(rate):
    """Guards training at one frame rate and running at another."""
    fast, slow = camera(60, 30.0), camera(rate, 30.0)
    moments = [s for s in slow if s in set(fast) and s - START > 2 * SECOND]
    assert len(moments) > 20
    one, other = clips_at(fast, set(moments)), clips_at(slow, set(moments))
    for stamp in moments:
        assert shift(one[stamp][0], other[stamp][0]) <= SECOND / rate
        assert shift(one[stamp][1], other[stamp][1]) <= max(
            2.0 * (stamp - START) / CAPACITY, STRIDE) + SECOND / rate


def test_thinning_keeps_the_first_and_the_newest():
    """Guards the rule itself on a sequence that can be followed by hand."""
    frames = ThinnedFrames(10)
    seen = []
    for stamp in (1, 5, 9, 11, 15, 22, 30):
        frames.add(frame(stamp))
        seen.append(stamps_of(frames.frames))
    assert seen == [[1], [1, 5], [1, 9], [1, 11], [1, 11, 15], [1, 11, 22], [1, 11, 22, 30]]
    frames.thin()
    assert stamps_of(frames.frames) == [1, 22, 30] and frames.spacing == 20
    frames.forget_before(22)
    assert stamps_of(frames.frames) == [22, 30]
    frames.forget_before(99)
    assert frames.frames == []


@pytest.mark.parametrize('out', [None, np.full((2, 5, 3, 4), np.nan, np.float32)])
def test_assemble_pads_at_the_start(out):
    """
    Guards masks and ages: right-aligned, seconds before the newest, zeros where masked.

    An array that holds an older clip is written over entirely.
    """
    tokens = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4) + 1
    valid = [np.array([True, True]), np.array([True, False]), np.array([True, True])]
    stamps = [(100, 90), (300, 0), (500, 450)]
    frames = [FrameSet(max(s) * MS, np.array(s) * MS, v, tokens * (i + 1))
              for i, (s, v) in enumerate(zip(stamps, valid, strict=True))]
    clip = assemble(frames, length=5, live=np.array([True, True]), out=out)
    assert out is None or clip.tokens is out
    np.testing.assert_array_equal(clip.mask, [[0, 0, 1, 1, 1], [0, 0, 1, 0, 1]])
    np.testing.assert_allclose(
        clip.age, [[0, 0, 0.4, 0.2, 0.0], [0, 0, 0.41, 0, 0.05]], atol=1e-6)
    assert clip.stamps == (100 * MS, 300 * MS, 500 * MS)
    for slot, factor in ((2, 1), (3, 2), (4, 3)):
        np.testing.assert_array_equal(clip.tokens[0, slot], tokens[0] * factor)
    assert not clip.tokens[:, :2].any() and not clip.tokens[1, 3].any()
    assert (clip.tokens.dtype, clip.mask.dtype, clip.age.dtype) == (np.float32,) * 3


@pytest.mark.parametrize('slow', [15, 10, 8, 6, 3])
def test_a_slower_camera_is_there_in_every_clip(slow):
    """
    Guards cameras of different rates: the slower one is in each newest frame set, at its own age.

    With 30 and 10 Hz half of all clips had no frame of the slower camera, 66 ms old at most, for
    all of theirs lay between two of it.
    """
    fast, made, last = 30, memory(), 0
    for i, stamp in enumerate(camera(fast, 5.0)):
        both = i * slow % fast < slow
        last = stamp if both else last
        made.add(FrameSet(stamp, np.array([stamp, stamp if both else 0]),
                          np.array([True, both]),
                          np.array([i, i if both else -1.0], np.float32)[:, None, None]),
                 hold=SECOND // 2)
        for clip in (made.newest_clip(), made.spread_clip()):
            assert all(f.valid.all() for f in clip) and clip[-1].stamps[1] == last
            for f in clip:
                assert f.tokens[1, 0, 0] == round((f.stamps[1] - START) * fast / SECOND)


def test_what_is_too_old_is_not_held():
    """Guards a dead camera: its last frame is held for `hold`, counted from its own stamp."""
    made = memory()
    made.add(frame(START, views=2))
    there = []
    for i in range(1, 8):
        made.add(FrameSet(START + i * 100 * MS, np.array([START + i * 100 * MS, 0]),
                          np.array([True, False]), np.zeros((2, 1, 1), np.float32)),
                 hold=300 * MS)
        there.append(bool(made.newest.valid[1]))
    assert there == [True] * 3 + [False] * 4
    assert made.newest.stamps[0] == made.newest.stamp


def test_assemble_leaves_out_a_dead_view():
    """Guards a dead camera: its old frames are masked too, not only the newest."""
    frames = [frame(START, views=2), frame(START + SECOND, views=2)]
    clip = assemble(frames, length=3, live=np.array([True, False]))
    np.testing.assert_array_equal(clip.mask, [[0, 1, 1], [0, 0, 0]])
    assert not clip.age[1].any()


def test_ages_are_exact_at_real_stamps():
    """Guards against nanoseconds of today's date being rounded before the difference is taken."""
    frames = [frame(START + 1), frame(START + 2 * MS)]
    clip = assemble(frames, length=2, live=np.array([True]))
    np.testing.assert_allclose(clip.age, [[0.001999999, 0.0]], atol=1e-9)


def seen(stamp, valid, seed, stamps=None):
    """Make a frame set of three views with numbers in it, in absent ones too."""
    rng = np.random.default_rng(seed)
    valid = np.array(valid)
    return FrameSet(stamp, np.where(valid, stamps or stamp, 0), valid,
                    rng.random((3, 2, 4), np.float32))


def test_a_clip_of_the_newest_frame_alone():
    """Guards the shortcut for parts of one frame: it is what the long way gives, every time."""
    made = NewestClip((3, LENGTH, 2, 4))
    for index, (valid, live) in enumerate((
            ([1, 1, 1], [1, 1, 1]), ([1, 0, 1], [1, 1, 1]), ([1, 1, 1], [0, 1, 1]),
            ([1, 1, 1], [1, 1, 1]))):
        frame_ = seen(START + index, np.array(valid, bool), index, [START - 5 * MS] * 3)
        alive = np.array(live, bool)
        short, long = made.assemble(frame_, alive), assemble([frame_], length=LENGTH, live=alive)
        assert short.stamps == long.stamps
        for one, other in ((short.tokens, long.tokens), (short.mask, long.mask),
                           (short.age, long.age)):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_the_latest_frame_of_each_view():
    """Guards parts of the newest frame while a view is missing from the last set."""
    frames = [seen(START, [True, True, False], 0), seen(START + 1, [True, False, True], 1),
              seen(START + 2, [False, False, True], 2)]
    everyone = np.ones(3, bool)
    found = latest(frames, everyone)
    assert found.stamp == START + 2 and found.valid.all()
    assert found.stamps.tolist() == [START + 1, START, START + 2]
    for view, index in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(found.tokens[view], frames[index].tokens[view])
    assert latest(frames, np.array([False, False, True])) is frames[2], 'nothing is copied'
    assert not latest(frames[2:], everyone).valid[:2].any(), 'there is none'
    half = latest(frames, np.array([False, True, True]))
    assert half.valid.tolist() == [False, True, True]
