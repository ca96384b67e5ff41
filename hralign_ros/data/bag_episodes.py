# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the episodes of a bag begin and end, and which images each of them has."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import math
from typing import Any

from hralign_ros.runtime.errors import DataError
import numpy as np
from numpy.typing import NDArray

# What a message of the label topic says.
STARTS, DISCARD = 'start', 'discard'
ANSWERS = {'success': True, 'failure': False}
_SECOND = 1_000_000_000


@dataclass
class Part:
    """
    An episode of a bag.

    :param name: '': the whole bag.
    :param start: first stamp [ns]; end: last one.
    :param frames: by view, which images of its topic are used: their numbers in the bag.
    :param stamps: by view, of those that were written [ns].
    """

    name: str
    start: int
    end: int
    task: str = ''
    success: bool | None = None
    discard: bool = False
    frames: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    stamps: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Cuts:
    """
    What tells where a bag is cut.

    :param cut: 'bag' or 'messages', see `BagOptions`.
    :param label_topic: '': none.
    :param spans: start and end of each episode by name, from the bag's first image [s]; the end
        may be infinite. Where there are any, nothing else cuts.
    :param fault: notes what is wrong, by kind and text.
    :ivar told: of each episode that an encoder names: its first and last stamp, and its task.
    :ivar labels: time of arrival [ns] and text of each message of the label topic.
    """

    cut: str
    label_topic: str
    spans: Mapping[str, Sequence[float]]
    fault: Callable[[str, str], None]
    told: dict[int, tuple[int, int, Counter[str]]] = field(default_factory=dict)
    labels: list[tuple[int, str]] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        """Note which images belong to the episode that a message of an encoder names."""
        stamps = [nanoseconds(stamp) for stamp in (
            message.header.stamp, *message.view_stamps, *getattr(message, 'clip_stamps', ()))]
        stamps = [stamp for stamp in stamps if stamp]
        if not stamps:
            return
        episode = nanoseconds(message.episode_id)
        first, last, tasks = self.told.get(episode, (stamps[0], stamps[0], Counter[str]()))
        if message.task:
            tasks[str(message.task)] += 1
        self.told[episode] = min(first, *stamps), max(last, *stamps), tasks

    def parts(self, first: int, last: int, image_time: Callable[[int], int]) -> list[Part]:
        """
        Cut the bag into episodes.

        :param first: stamp of the bag's first image [ns]; last: of its last one.
        :param image_time: from a time of arrival to one on the clock of images [ns].
        :raises DataError: nothing says where to cut, and it was asked for.
        """
        if self.spans:
            return [Part(
                name, first + round(start * _SECOND),
                last if math.isinf(end) else first + round(end * _SECOND),
                self._task_between(first, last))
                for name, (start, end) in sorted(self.spans.items())]
        if self.label_topic:
            return self._labelled(first, last, image_time)
        if self.cut == 'messages':
            parts = [Part('{}.{:09d}'.format(*divmod(identifier, _SECOND)), start, end,
                          _most_common(tasks))
                     for identifier, (start, end, tasks) in sorted(self.told.items())]
            if not parts:
                raise DataError('no message of an encoder in it names an episode; import it '
                                'without --cut messages')
            return parts
        several = [episode for episode in self.told.values()
                   if episode[1] - episode[0] > 2 * _SECOND]
        if len(several) > 1:
            self.fault('many_episodes', f'an encoder names {len(several)} episodes in it, and it '
                       'is taken for one; --cut messages takes each for itself')
        return [Part('', first, last, self._task_between(first, last))]

    def _task_between(self, start: int, end: int) -> str:
        tasks: Counter[str] = Counter()
        for first, last, said in self.told.values():
            if first <= end and last >= start:
                tasks += said
        return _most_common(tasks)

    def _labelled(
        self, first: int, last: int, image_time: Callable[[int], int],
    ) -> list[Part]:
        """Cut where the messages of the label topic say how an episode ended."""
        parts: list[Part] = []
        start = first
        for at, text in sorted(self.labels):
            at = image_time(at)
            if text != STARTS and at > start:
                parts.append(Part(f'{len(parts) + 1:03d}', start, at,
                                  self._task_between(start, at), ANSWERS.get(text),
                                  text == DISCARD))
            start = at + 1
        if not parts:
            raise DataError(f'no message on {self.label_topic} ends an episode')
        return parts

    def choose(
        self, part: Part, usable: Mapping[str, NDArray[np.int64]], reference: str,
        hz: float | None,
    ) -> None:
        """
        Choose the images of an episode: those of the other views nearest to the reference's.

        :param usable: by view, the stamps of its topic's images [ns]; 0: not to be used.
        :param reference: the view whose images are thinned out.
        :param hz: images a second of a view, at most; None: all.
        """
        inside = {view: np.flatnonzero((stamps >= part.start) & (stamps <= part.end)
                                       & (stamps > 0)) for view, stamps in usable.items()}
        inside = {view: rows for view, rows in inside.items() if len(rows)}
        for view in usable.keys() - inside.keys():
            self.fault('no_topic', f'view {view} has no image in '
                       f'{part.name or "it"}; the view is left out')
        if not inside:
            return
        if hz is None:
            part.frames = inside
            return
        lead = reference if reference in inside else next(iter(inside))
        times = usable[lead][inside[lead]]
        # A camera's images do not come to the microsecond.
        kept, period = [0], 0.9 * _SECOND / hz
        for row in range(1, len(times)):
            if times[row] - times[kept[-1]] >= period:
                kept.append(row)
        for view, rows in inside.items():
            stamps = usable[view][rows]
            after = np.searchsorted(stamps, times[kept]).clip(1, max(len(stamps) - 1, 1))
            after = after.clip(0, len(stamps) - 1)
            before = (after - 1).clip(0)
            closer = np.abs(times[kept] - stamps[before]) <= np.abs(stamps[after] - times[kept])
            part.frames[view] = rows[np.unique(np.where(closer, before, after))]


def nanoseconds(stamp: Any) -> int:
    """Return a message's stamp [ns]."""
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def _most_common(tasks: Counter[str]) -> str:
    return tasks.most_common(1)[0][0] if tasks else ''
