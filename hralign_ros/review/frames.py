# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The images of episodes as JPEG files, decoded when they are looked at and kept for a while."""

from collections import deque, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import BoundedSemaphore, Lock
from typing import Any

import cv2
from hralign_ros.data.manifest import DataError, DataSet, Episode, REFERENCE_VIEW
from hralign_ros.data.token_features import episode_videos, open_views, ViewVideo
from hralign_ros.runtime.video import nearest
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
# Of a longer episode frames are left out, evenly, so that a person gets through it.
_MOST_FRAMES = 1200
# Frames that are decoded at a time, and how wide they are sent.
_BLOCK, _WIDTH, _QUALITY = 48, 480, 85
_MOST_BYTES = 256 << 20
# Episodes whose frames are still decoded when another one is shown; those before are not looked
# at any more.
_RECENT = 3


class NotShownError(Exception):
    """An image of an episode that is not looked at any more."""


@dataclass(frozen=True, eq=False)
class Recording:
    """
    What there is to see of an episode.

    :param times: float64 [F] of the frames on the clock of the episode's time_s, F may be 0.
    :param views: what can be read, by view.
    :param stamps: by view, the frame in its file nearest to each of the times [F].
    :param broken: by view, why it cannot be shown.
    """

    times: Doubles
    views: Mapping[str, ViewVideo]
    stamps: Mapping[str, Doubles]
    broken: Mapping[str, str]


def open_recording(data: DataSet, episode: Episode) -> Recording:
    """Open the videos of an episode's robot, each by itself: one that is broken hides no other."""
    videos = episode_videos(episode)
    views: dict[str, ViewVideo] = {}
    broken: dict[str, str] = {}
    for view, file in videos.files.items():
        try:
            views |= open_views(replace(videos, files={view: file}), data.folder)
        except DataError as error:
            broken[view] = str(error).replace(f'{data.folder}/', '')
    reference = views.get(REFERENCE_VIEW) or next(iter(views.values()), None)
    times = np.zeros(0) if reference is None else reference.times
    if len(times) > _MOST_FRAMES:
        times = times[np.linspace(0, len(times) - 1, _MOST_FRAMES).round().astype(np.int64)]
    return Recording(times, views, {
        view: video.stamps[nearest(video.times, times)] for view, video in views.items()}, broken)


class EpisodeFrames:
    """
    The recordings of a data set's episodes; for any number of threads.

    :param data: episodes are named by their place in it.
    """

    def __init__(self, data: DataSet) -> None:
        self._data = data
        self._lock = Lock()
        self._recordings: OrderedDict[int, Recording] = OrderedDict()
        self._recent: deque[int] = deque(maxlen=_RECENT)
        self._blocks: OrderedDict[tuple[int, str, int], Sequence[bytes]] = OrderedDict()
        self._bytes = 0
        # Two at a time leave the page a core, and bound what is decoded in memory.
        self._decoders = BoundedSemaphore(2)
        self._busy: dict[tuple[int, str, int], Lock] = {}

    def show(self, number: int) -> Recording:
        """Open an episode, whose images will be asked for."""
        with self._lock:
            if number in self._recent:
                self._recent.remove(number)
            self._recent.append(number)
        return self._recording(number)

    def image(self, number: int, view: int, frame: int) -> bytes:
        """
        Return an image as a JPEG file.

        :param view: its place among the robot's videos of the episode.
        :raises DataError: it cannot be decoded.
        :raises LookupError: there is no such view, or frame.
        :raises NotShownError: other episodes have been shown since.
        """
        recording = self._recording(number)
        name = list(self._data.episodes[number].robot_videos)[view]
        if name not in recording.views or frame >= len(recording.times):
            raise KeyError(f'view {name}, frame {frame}')
        key = number, name, frame // _BLOCK
        with self._lock:
            busy = self._busy.setdefault(key, Lock())
        # Whoever asks for another frame of the block waits for it, and does not decode it again.
        with busy:
            with self._lock:
                block = self._blocks.get(key)
                if block is not None:
                    self._blocks.move_to_end(key)
            if block is None:
                block = self._decode(recording, *key)
        return block[frame % _BLOCK]

    def _recording(self, number: int) -> Recording:
        with self._lock:
            if number in self._recordings:
                self._recordings.move_to_end(number)
                return self._recordings[number]
        recording = open_recording(self._data, self._data.episodes[number])
        with self._lock:
            self._recordings[number] = recording
            while len(self._recordings) > 4 * _RECENT:
                self._recordings.popitem(last=False)
        return recording

    def _decode(self, recording: Recording, number: int, view: str, block: int) -> Sequence[bytes]:
        with self._decoders:
            with self._lock:
                if number not in self._recent:
                    raise NotShownError
            some = recording.stamps[view][block * _BLOCK:(block + 1) * _BLOCK]
            files = [_jpeg(image) for image in recording.views[view].read(some)]
        with self._lock:
            self._blocks[number, view, block] = files
            self._bytes += sum(map(len, files))
            while self._bytes > _MOST_BYTES and len(self._blocks) > 1:
                key, old = self._blocks.popitem(last=False)
                self._busy.pop(key, None)
                self._bytes -= sum(map(len, old))
        return files


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an image, uint8 [H, W, 3] RGB, no wider than a page shows it."""
    height, width = image.shape[:2]
    shown: Any = image
    if width > _WIDTH:
        size = _WIDTH, max(1, round(height * _WIDTH / width))
        shown = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode('.jpg', cv2.cvtColor(shown, cv2.COLOR_RGB2BGR),
                        [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
