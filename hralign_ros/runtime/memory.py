# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What an episode remembers: token maps by acquisition stamp, in bounded space.

Two clips come out of one memory. The embedding uses the newest T frames, a period apart; the
success head uses T frames spread evenly over the episode so far. Both are chosen by stamp and
never by count, always hold the newest frame, and are padded at the start by the mask and never by
repetition; so a dropped frame hardly changes them. A view absent from a set keeps its
last frame, at that frame's age, as long as it is young enough: so a slower camera is not lost
between the frames of a faster one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameSet:
    """
    The tokens of one tick.

    :param stamp: acquisition time of the newest frame in it [ns].
    :param stamps: per view [ns], 0 where the view is absent; int64 [V].
    :param valid: which views are present; bool [V].
    :param tokens: float32 [V, N, C]; rows of absent views are meaningless.
    :param fine: fine tokens of the last view, float32 [M, R]; None: there are none.
    """

    stamp: int
    stamps: NDArray[np.int64]
    valid: NDArray[np.bool_]
    tokens: NDArray[np.float32]
    fine: NDArray[np.float32] | None = None


class ThinnedFrames:
    """
    Frame sets in order of time: the first one of every `spacing`, and always the newest one.

    Spacings are counted from the first stamp of all, so that a dropped frame moves its neighbour
    and nothing behind it. The newest is provisional: the next one takes its place unless it was
    the first of its spacing.
    """

    def __init__(self, spacing: int) -> None:
        self.spacing = spacing
        self.frames: list[FrameSet] = []
        self._origin: int | None = None

    def add(self, frame: FrameSet) -> None:
        """Append a frame that is newer than all others."""
        if self._origin is None:
            self._origin = frame.stamp
        if len(self.frames) >= 2 and self._bin(self.frames[-1]) == self._bin(self.frames[-2]):
            self.frames[-1] = frame
        else:
            self.frames.append(frame)

    def forget_before(self, stamp: int) -> None:
        """Forget frames older than a stamp."""
        first = next((i for i, f in enumerate(self.frames) if f.stamp >= stamp), len(self.frames))
        del self.frames[:first]

    def thin(self) -> None:
        """Double the spacing; keep the first of every spacing, and the newest."""
        self.spacing *= 2
        frames, newest = self.frames, self.frames[-1]
        self.frames = [frame for i, frame in enumerate(frames)
                       if i == 0 or self._bin(frame) != self._bin(frames[i - 1])
                       or frame is newest]

    def _bin(self, frame: FrameSet) -> int:
        """Count the spacings from the first stamp of all."""
        return (frame.stamp - (self._origin or 0)) // self.spacing


class EpisodeMemory:
    """
    The frames of one episode.

    :param length: T, frames in a clip.
    :param period: time between the frames of the embedding's clip [ns].
    :param capacity: most frame sets kept for the success head, at least 2 T.
    :param stride: initial spacing of the frames kept for the success head [ns].
    """

    # Frames kept per period for the embedding's clip: the chosen frame is then at most a
    # thirty-second of a period beside the wanted time, or at the camera's own frame nearest to it.
    _RECENT_PER_PERIOD = 16

    def __init__(self, *, length: int, period: int, capacity: int, stride: int) -> None:
        if length < 1 or period < 1 or stride < 1 or capacity < 2 * length:
            raise ValueError(
                f'length {length}, period {period}, capacity {capacity}, stride {stride}: '
                'all must be positive and capacity at least twice the length')
        self._length = length
        self._period = period
        self._capacity = capacity
        self._recent = ThinnedFrames(max(1, period // self._RECENT_PER_PERIOD))
        self._episode = ThinnedFrames(stride)
        self._first_fine: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Count the distinct frame sets held."""
        return len({frame.stamp for frame in self._recent.frames + self._episode.frames})

    @property
    def newest(self) -> FrameSet | None:
        """Give the newest frame set, if there is any."""
        return self._episode.frames[-1] if self._episode.frames else None

    @property
    def first_fine(self) -> NDArray[np.float32] | None:
        """
        Give the fine tokens of the last view's first frame in the episode, float32 [M, R].

        They are kept for themselves: where that view comes late, clips of a longer episode begin
        with ever later frames of it. Zeros before it has one; None where frames have no fine
        tokens.
        """
        if self._first_fine is not None or self.newest is None or self.newest.fine is None:
            return self._first_fine
        return np.zeros_like(self.newest.fine)

    def add(self, frame: FrameSet, *, hold: int = 0) -> None:
        """
        Remember a frame set.

        :param hold: a view that is absent keeps its last frame that is at most so old [ns].
        :raises ValueError: it is not newer than the newest one.
        """
        if self.newest is not None:
            if frame.stamp <= self.newest.stamp:
                raise ValueError(
                    f'stamp {frame.stamp} is not newer than {self.newest.stamp}, the newest one')
            frame = _held(frame, self.newest, hold)
        if self._first_fine is None and frame.valid[-1]:
            self._first_fine = frame.fine
        self._recent.add(frame)
        reach = (self._length - 1) * self._period + self._period // 2
        self._recent.forget_before(frame.stamp - reach)
        self._episode.add(frame)
        while len(self._episode.frames) > self._capacity:
            self._episode.thin()

    def newest_clip(self) -> list[FrameSet]:
        """Choose at most T frames a period apart, ending with the newest, oldest first."""
        if not self._recent.frames:
            return []
        end = self._recent.frames[-1].stamp
        wanted = [end - i * self._period for i in reversed(range(self._length))]
        return _nearest(self._recent.frames, wanted, within=self._period // 2)

    def spread_clip(self) -> list[FrameSet]:
        """Choose at most T frames spread evenly over the episode so far, oldest first."""
        frames = self._episode.frames
        if self._length == 1:
            return frames[-1:]
        if len(frames) <= self._length:
            return list(frames)
        wanted = np.linspace(frames[0].stamp, frames[-1].stamp, self._length)
        return _nearest(frames, [int(t) for t in wanted], within=frames[-1].stamp)


def _held(frame: FrameSet, before: FrameSet, hold: int) -> FrameSet:
    """Fill absent views with those of the set before, where they are young enough."""
    kept = ~frame.valid & before.valid & (frame.stamp - before.stamps <= hold)
    if not kept.any():
        return frame
    return FrameSet(
        frame.stamp, np.where(kept, before.stamps, frame.stamps), frame.valid | kept,
        np.where(kept[:, None, None], before.tokens, frame.tokens),
        before.fine if kept[-1] else frame.fine)


def _nearest(frames: Sequence[FrameSet], wanted: Sequence[int], *, within: int) -> list[FrameSet]:
    """Choose for each wanted stamp the nearest frame, each at most once, in order of time."""
    stamps = np.array([frame.stamp for frame in frames], np.int64)
    chosen: list[int] = []
    for stamp in wanted:
        index = int(np.argmin(np.abs(stamps - stamp)))
        if abs(int(stamps[index]) - stamp) <= within and (not chosen or index > chosen[-1]):
            chosen.append(index)
    if not chosen or chosen[-1] != len(frames) - 1:
        chosen.append(len(frames) - 1)
    return [frames[i] for i in chosen]


@dataclass(frozen=True)
class Clip:
    """
    A clip as the graphs take it, padded at the start.

    :param tokens: float32 [V, T, N, C], zeros where masked.
    :param mask: float32 [V, T], 1 where there is a frame.
    :param age: float32 [V, T], seconds before the newest frame of the clip; 0 where masked.
    :param stamps: acquisition stamps of the clip's frame sets [ns], oldest first.
    :param fine: fine tokens of the last view's first frame in the episode and of its newest,
        float32 [2, M, R], zeros where that view is masked throughout; None: they were not asked
        for.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.float32]
    age: NDArray[np.float32]
    stamps: tuple[int, ...]
    fine: NDArray[np.float32] | None = None


def assemble(
    frames: Sequence[FrameSet], *, length: int, live: NDArray[np.bool_],
    out: NDArray[np.float32] | None = None, first_fine: NDArray[np.float32] | None = None,
) -> Clip:
    """
    Stack frame sets into a clip of fixed length.

    :param frames: 1 to `length` frame sets, oldest first.
    :param live: bool [V], views that may take part; the others are masked throughout.
    :param out: float32 [V, T, N, C], where the tokens are written instead of into a new array:
        megabytes that are mapped anew every tick cost more than their copy.
    :param first_fine: of the episode, see EpisodeMemory; None: fine tokens are not asked for.
    """
    views, count, channels = frames[-1].tokens.shape
    tokens = np.empty((views, length, count, channels), np.float32) if out is None else out
    mask = np.zeros((views, length), np.float32)
    age = np.zeros((views, length), np.float32)
    end = frames[-1].stamp
    padding = length - len(frames)
    tokens[:, :padding] = 0.0
    for slot, frame in enumerate(frames, start=padding):
        present = frame.valid & live
        for view in range(views):
            tokens[view, slot] = frame.tokens[view] if present[view] else 0.0
        mask[present, slot] = 1.0
        age[present, slot] = (end - frame.stamps[present]) * 1e-9
    return Clip(tokens, mask, age, tuple(frame.stamp for frame in frames),
                None if first_fine is None else _two_ends(first_fine, frames, live))


def _two_ends(
    first: NDArray[np.float32], frames: Sequence[FrameSet], live: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Put the fine tokens of the last view's newest frame behind those of its first."""
    for frame in reversed(frames):
        if frame.fine is not None and frame.valid[-1] and live[-1]:
            return np.stack([first, frame.fine])
    return np.zeros((2, *first.shape), np.float32)


class NewestClip:
    """
    Clips of one frame alone, one after the other in the same place.

    What lies before that frame is zeros once and for all: writing megabytes of them every tick
    costs as much as the graph that looks at the frame.

    :param shape: V, T, N and C.
    """

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._tokens = np.zeros(shape, np.float32)

    def assemble(self, frame: FrameSet, live: NDArray[np.bool_]) -> Clip:
        """Do what the function `assemble` does with this frame alone."""
        views, length = self._tokens.shape[:2]
        present = frame.valid & live
        mask = np.zeros((views, length), np.float32)
        age = np.zeros((views, length), np.float32)
        for view in range(views):
            self._tokens[view, -1] = frame.tokens[view] if present[view] else 0.0
        mask[present, -1] = 1.0
        age[present, -1] = (frame.stamp - frame.stamps[present]) * 1e-9
        return Clip(self._tokens, mask, age, (frame.stamp,))


def latest(frames: Sequence[FrameSet], live: NDArray[np.bool_]) -> FrameSet:
    """
    Give the newest frame of each live view as one set; nearly always that is the last set itself.

    :param frames: at least one, oldest first.
    :param live: bool [V], views that may take part; the others may have a frame all the same.
    """
    newest = frames[-1]
    for before in reversed(frames[:-1]):
        missing = live & ~newest.valid
        if not missing.any():
            break
        fill = missing & before.valid
        newest = FrameSet(
            newest.stamp, np.where(fill, before.stamps, newest.stamps), newest.valid | fill,
            np.where(fill[:, None, None], before.tokens, newest.tokens),
            before.fine if fill[-1] else newest.fine)
    return newest


@dataclass(frozen=True)
class Recent:
    """
    What an embedding is made of.

    :param tokens: of the newest frame of each view, float32 [V, N, C]; meaningless where
        not valid.
    :param valid: bool [V].
    :param newest: assembles a clip of that frame alone.
    :param clip: assembles the clip of the newest T frames. Both may write into one place: a clip
        holds until the next one is assembled.
    """

    tokens: NDArray[np.float32]
    valid: NDArray[np.bool_]
    newest: Callable[[], Clip]
    clip: Callable[[], Clip]
