# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a bundle says of the episode that is shown, computed beside the page and kept in memory."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Condition, Thread

from hralign_ros.data.manifest import DataError, DataSet, Episode, REFERENCE_VIEW
from hralign_ros.data.token_features import episode_videos, open_views, ViewVideo
from hralign_ros.runtime.decision import DEFAULT_RULES, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Tick
from hralign_ros.runtime.errors import first_line
from hralign_ros.runtime.video import newest_at
import numpy as np
from numpy.typing import NDArray

_SECOND = 1_000_000_000
# Frames that come sooner after the one before are left out [s]; they would say nothing new.
_PERIOD_S = 0.15
# Frames that are decoded at a time.
_BLOCK = 16


@dataclass(frozen=True)
class Trace:
    """
    The probability of success over time, as far as it is computed.

    :param times: of the ticks, on the clock of the episode's time_s [s].
    :param probability: of each; None: the bundle has none, for the reason in `note`.
    :param threshold: that the newest has to be above; None: there is none.
    :param proposal: time at which the task may have been accomplished; None: it never was.
    :param done: nothing more comes.
    :param note: what a person should know; '': nothing.
    """

    times: tuple[float, ...] = ()
    probability: tuple[float | None, ...] = ()
    threshold: float | None = None
    proposal: float | None = None
    done: bool = False
    note: str = ''


def propose(
    times: Sequence[float], probability: Sequence[float | None], threshold: float | None,
    dwell_s: float = DEFAULT_RULES.dwell / _SECOND,
) -> float | None:
    """
    Return when a probability first comes above a threshold and stays there for the dwell time.

    :param times: [F] [s], ascending.
    :param probability: [F].
    :returns: None: never, or there is no threshold.
    """
    since: float | None = None
    for time, value in zip(times, probability, strict=True):
        if value is None or threshold is None or value <= threshold:
            since = None
            continue
        since = time if since is None else since
        if time - since >= dwell_s - 1e-6:
            return since
    return None


class Traces:
    """
    Replays the episode that was asked for last through a bundle, in a thread of its own.

    :param data: episodes are named by their place in it.
    """

    def __init__(self, data: DataSet, encoder: Encoder) -> None:
        self._data, self._encoder = data, encoder
        self._traces: dict[int, Trace] = {}
        self._changed = Condition()
        self._wanted: int | None = None
        self._open = True
        self._thread = Thread(target=self._run, name='probability', daemon=True)
        self._thread.start()

    def trace(self, number: int) -> Trace:
        """
        Return what is known of an episode, and go on with it; one that waits begins anew.

        :raises IndexError: there is no such episode.
        """
        self._data.episodes[number]
        with self._changed:
            known = self._traces.get(number, Trace())
            if not known.done and self._wanted != number:
                self._wanted = number
                self._changed.notify_all()
        return known

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted is not None or not self._open)
                if not self._open:
                    return
                number = self._wanted
            assert number is not None

            def told(trace: Trace, number: int = number) -> bool:
                with self._changed:
                    self._traces[number] = trace
                    return self._open and self._wanted == number
            try:
                trace = replay(self._data, self._data.episodes[number], self._encoder, told)
            # Whatever it is, it is of this episode, and others are shown after it.
            except Exception as error:
                trace = Trace(done=True, note=f'no probability: {first_line(error)}')
            with self._changed:
                if trace is not None:
                    self._traces[number] = trace
                if self._wanted == number:
                    self._wanted = None


def replay(
    data: DataSet, episode: Episode, encoder: Encoder, told: Callable[[Trace], bool],
) -> Trace | None:
    """
    Replay an episode as the node would see it.

    :param told: gets what there is after each tick; returns whether to go on.
    :returns: None: it was stopped.
    :raises DataError: no view of the bundle can be read.
    :raises HralignError: the instruction or an image cannot be used, or a graph fails.
    """
    videos = episode_videos(episode)
    views: dict[str, ViewVideo] = {}
    broken = ''
    for view in encoder.manifest.views:
        if view in videos.files:
            try:
                views |= open_views(replace(videos, files={view: videos.files[view]}), data.folder)
            except DataError as error:
                broken = str(error)
    if not views:
        raise DataError(broken or f'its views are {", ".join(videos.files)}, and the bundle has '
                        f'{", ".join(encoder.manifest.views)}')
    reference = views.get(REFERENCE_VIEW) or next(iter(views.values()))
    times = thinned(reference.times)
    rows = {view: video.stamps[newest_at(video.times, times, video.path.name)]
            for view, video in views.items()}
    live = encoder.start_episode(episode.task_text)
    trace = Trace()
    flags: Counter[str] = Counter()
    for start in range(0, len(times), _BLOCK):
        frames = {view: video.read(rows[view][start:start + _BLOCK])
                  for view, video in views.items()}
        for row, time in enumerate(times[start:start + _BLOCK].tolist()):
            tick = live.step({view: images[row] for view, images in frames.items()},
                             _SECOND + round((time - float(times[0])) * _SECOND))
            flags.update(flag.name or '' for flag in Status if flag and flag in tick.status)
            trace = _with(trace, time, tick, flags)
            if not told(trace):
                return None
    return replace(trace, done=True)


def thinned(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out frames that come sooner than the rate: float64 [F] to [F'], the first stays."""
    kept = [0]
    for row in range(1, len(times)):
        if times[row] - times[kept[-1]] >= _PERIOD_S:
            kept.append(row)
    return times[kept]


def _with(trace: Trace, time: float, tick: Tick, flags: Mapping[str, int]) -> Trace:
    """Add a tick to a trace; flags: how often each was set."""
    times, probability = (*trace.times, time), (*trace.probability, tick.success.probability)
    return replace(
        trace, times=times, probability=probability, threshold=tick.threshold,
        proposal=propose(times, probability, tick.threshold),
        note=', '.join(f'{name} in {count / len(times):.0%} of ticks'
                       for name, count in sorted(flags.items())))
