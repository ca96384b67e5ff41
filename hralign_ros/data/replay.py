# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A recording, played to the runtime as the node would have seen it.

Frame by frame with its own times, so that what looks back sees what it would have seen.
"""

from collections.abc import Iterator
from pathlib import Path

from hralign_ros.data.features import Videos
from hralign_ros.data.manifest import DataError, REFERENCE_VIEW
from hralign_ros.data.token_features import open_views, ViewVideo
from hralign_ros.runtime.decision import DecisionRules, DEFAULT_RULES
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Tick
from hralign_ros.runtime.video import newest_at
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
# So many frames are in memory at a time.
_BLOCK = 64
_SECOND = 1_000_000_000


class Recording:
    """
    The views of one episode that a bundle knows.

    :ivar times: float64 [F] of the frames of the reference view, or of the first that there is
        [s]; other views have their newest frame by then.
    :raises DataError: no view is one of the bundle's, or they do not go together.
    """

    def __init__(self, encoder: Encoder, videos: Videos, root: Path) -> None:
        recordings = open_views(videos, root)
        known = [view for view in encoder.manifest.views if view in recordings]
        if not known:
            raise DataError(f'views {", ".join(recordings) or "none"}; the bundle has '
                            f'{", ".join(encoder.manifest.views)}')
        reference = REFERENCE_VIEW if REFERENCE_VIEW in known else known[0]
        self.times: Doubles = recordings[reference].times
        self._encoder = encoder
        self._videos: dict[str, ViewVideo] = {view: recordings[view] for view in known}
        self._stamps = {view: video.stamps[newest_at(video.times, self.times, video.path.name)]
                        for view, video in self._videos.items()}

    @property
    def views(self) -> tuple[str, ...]:
        """Name the views that are played, in the bundle's order."""
        return tuple(self._videos)

    def rows(self, hz: float | None) -> NDArray[np.int64]:
        """
        Choose frames at an even rate, the first and the last among them.

        :param hz: at most so many a second; None: all.
        :returns: int64, ascending.
        """
        count = len(self.times)
        if hz is None or count < 3:
            return np.arange(count)
        since = self.times - self.times[0]
        # Of each period the frame nearest to its beginning.
        wanted = np.arange(int(since[-1] * hz + 0.5) + 1) / hz
        after = np.searchsorted(since, wanted).clip(1, count - 1)
        nearer = after - (wanted - since[after - 1] <= since[after] - wanted)
        return np.unique(np.append(nearer, count - 1))

    def play(
        self, task: str, *, rules: DecisionRules = DEFAULT_RULES, hz: float | None = None,
    ) -> Iterator[tuple[int, Tick]]:
        """
        Step a new episode through the frames.

        :param task: the instruction.
        :param hz: see `rows`.
        :yields: the row of `times`, and what the node would have said.
        :raises DataError: a frame cannot be read.
        """
        episode, rows = self._encoder.start_episode(task, rules), self.rows(hz)
        for start in range(0, len(rows), _BLOCK):
            some = rows[start:start + _BLOCK]
            images = {view: video.read(self._stamps[view][some])
                      for view, video in self._videos.items()}
            for place, row in enumerate(some.tolist()):
                since = float(self.times[row] - self.times[0])
                yield row, episode.step({view: frames[place] for view, frames in images.items()},
                                        _SECOND + round(since * _SECOND))
