# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From one bag to videos, and to what is known of each episode in it.

The bag is read twice: first for what lies when, then for what is taken. A few images are in memory
at a time; of states and commands, all numbers.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
import math
from pathlib import Path
import re
from typing import Any

from hralign_ros.data.bag_files import Bag, BagReader, MessageTypes, RawMessage
from hralign_ros.data.bag_series import Series
from hralign_ros.data.manifest import DataError, REFERENCE_VIEW
from hralign_ros.runtime.errors import FrameError
from hralign_ros.runtime.images import decode_message, stored_mosaic
from hralign_ros.runtime.video import RecordingWriter
import numpy as np
from numpy.typing import NDArray

# What cameras may be called where a bag's topics are not named.
VIEWS = (REFERENCE_VIEW, 'wrist')
_IMAGE, _COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
_IMAGES = (_IMAGE, _COMPRESSED)
_JOINTS = 'sensor_msgs/msg/JointState'
_OURS = ('hralign_msgs/msg/SuccessProbability', 'hralign_msgs/msg/TaskEmbedding')
_SECOND = 1_000_000_000
# Stamps and times of arrival that differ by more than this are of two clocks [ns].
_ONE_CLOCK = 2 * _SECOND
# A state that is older says nothing about an image [s].
_OLD_S = 0.5
_STARTS, _DISCARD = 'start', 'discard'
_ANSWERS = {'success': True, 'failure': False}


@dataclass(frozen=True)
class BagOptions:
    """
    What is taken of bags.

    :param views: topic by view; empty: the topics that have the names of VIEWS in them.
    :param proprio: topics of the robot's own state, each TOPIC or TOPIC:FIELD; empty:
        /joint_states, or the only topic of joint states.
    :param actions: topics of commands.
    :param cut: 'bag': a bag is an episode, but for labels that say when one begins and ends;
        'messages': what the messages of an encoder name as one.
    :param label_topic: instead: a message of this topic ends an episode and says how: a String
        (success, failure, discard; start begins one), or a Bool; '': none.
    :param hz: images a second of a view, at most; None: all.
    :param stamp_source: 'header', or 'arrival' where headers have no stamps.
    :param quality: of images that are not JPEG, see `RecordingWriter`.
    """

    views: Mapping[str, str] = field(default_factory=dict)
    proprio: Sequence[str] = ()
    actions: Sequence[str] = ()
    cut: str = 'bag'
    label_topic: str = ''
    hz: float | None = None
    stamp_source: str = 'header'
    quality: int = 0

    def __post_init__(self) -> None:
        for view in self.views:
            if not re.fullmatch(r'\w[\w-]*', view) or view == 'human':
                raise DataError(f"'{view}' cannot be the name of a robot's view; letters, digits, "
                                '_ and - can')
        if self.hz is not None and not 0.0 < self.hz < math.inf:
            raise DataError(f'{self.hz} images a second are not possible')


@dataclass
class _Found:
    """
    What lies in a bag when.

    :param images: stamp and time of arrival of each image, by topic [ns].
    :param told: of each episode that an encoder names: its first and last stamp, and its task.
    :param labels: time and text of each message of the label topic.
    """

    images: 'dict[str, array[int]]' = field(
        default_factory=lambda: defaultdict(lambda: array('q')))
    told: dict[int, tuple[int, int, Counter[str]]] = field(default_factory=dict)
    labels: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Part:
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


class BagConversion:
    """
    The way of one bag into its folder.

    :param target: folder of its videos.
    :param spans: start and end of each episode by name, from the bag's first image [s], where
        labels say it; the end may be infinite.
    :param scratch: folder for what has to be unpacked.
    """

    def __init__(
        self, bag: Bag, target: Path, options: BagOptions, spans: Mapping[str, Sequence[float]],
        types: MessageTypes, scratch: Path,
    ) -> None:
        self.bag, self.target, self.options = bag, target, options
        self.spans, self.types = spans, types
        self.reader = BagReader(bag, scratch)
        self.faults: list[tuple[str, str]] = []
        self.found = _Found()
        # Arrival and stamp of the images of one topic: between the two clocks, if there are two.
        self.clock: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def run(self) -> dict[str, Any]:
        """
        Write the videos.

        :returns: what JSON can hold: `episodes`, of each `name`, `task`, `success`, `discard`,
            `cut_off`, `reference` (view), `views` (each with `file` below the target, and `stamps`
            [ns]), `proprio` and `actions` at the images of the reference view; `faults`.
        :raises DataError: nothing in it can be used.
        """
        self._look()
        topics = self._topics()
        usable = {view: self._usable(view, topic) for view, topic in topics.items()}
        reference = next(view for view in (REFERENCE_VIEW, *topics) if view in topics)
        parts = self._parts(usable)
        for part in parts:
            self._choose(part, usable, reference)
        parts = [part for part in parts if part.frames]
        if not parts:
            raise DataError('no episode in it has an image')
        proprio = [Series(spec) for spec in self._states()]
        actions = [Series(spec) for spec in self.options.actions]
        self._write(parts, topics, [*proprio, *actions])
        last = max(part.end for part in parts)
        return {
            'cut_off': dict(self.reader.cut_off), 'faults': self.faults,
            'topics': topics, 'proprio_names': [n for series in proprio for n in series.names],
            'action_names': [name for series in actions for name in series.names],
            'episodes': [self._described(
                part, proprio, actions, bool(self.reader.cut_off) and part.end == last)
                for part in parts if part.stamps]}

    def fault(self, kind: str, text: str) -> None:
        """Note what is wrong."""
        self.faults.append((kind, text))

    # The first look.

    def _look(self) -> None:
        """Read when images were taken, and what messages say of episodes."""
        def wanted(topic: str, kind: str) -> bool:
            return kind in _IMAGES or kind in _OURS or topic == self.options.label_topic

        arrival = self.options.stamp_source == 'arrival'
        for message in self.reader.messages(wanted):
            if message.kind in _IMAGES:
                if len(message.data) >= 12:
                    stamp = message.received if arrival else message.stamp
                    self.found.images[message.topic].extend((stamp, message.received))
                continue
            try:
                decoded = self.types.decode(message)
            except DataError as error:
                if message.topic == self.options.label_topic:
                    raise
                self.fault('bad_message', str(error))
                continue
            if message.topic == self.options.label_topic:
                self.found.labels.append((_time(decoded, message), _answer(decoded, message)))
            else:
                self._hear(decoded)
        for file, text in self.reader.cut_off.items():
            self.fault('cut_off', f'{file}: {text}; what comes before it is used')

    def _hear(self, message: Any) -> None:
        """Note which images belong to the episode that an encoder names."""
        stamps = [_nanoseconds(stamp) for stamp in (
            message.header.stamp, *message.view_stamps, *getattr(message, 'clip_stamps', ()))]
        stamps = [stamp for stamp in stamps if stamp]
        if not stamps:
            return
        first, last, tasks = self.found.told.setdefault(
            _nanoseconds(message.episode_id), (stamps[0], stamps[0], Counter()))
        if message.task:
            tasks[str(message.task)] += 1
        self.found.told[_nanoseconds(message.episode_id)] = (
            min(first, *stamps), max(last, *stamps), tasks)

    def _topics(self) -> dict[str, str]:
        """Find the topic of each view; the view of the reference camera first."""
        there = {topic for topic, kind in self.reader.topics.items()
                 if kind in _IMAGES and self.found.images.get(topic)}
        found: dict[str, str] = {}
        for view, topic in self.options.views.items():
            name = '/' + topic.strip('/')
            for candidate in (name, f'{name}/compressed', name.removesuffix('/compressed')):
                if candidate in there:
                    found.setdefault(view, candidate)
            if view not in found:
                self.fault('no_topic', f'no image on {name}; {_listed_images(there)}')
        if not self.options.views:
            for view in VIEWS:
                named = sorted(t for t in there if view in t.split('/'))
                if len({topic.removesuffix('/compressed') for topic in named}) == 1:
                    found[view] = named[0]
        if not found:
            reasons = '; '.join(f'{file}: {text}' for file, text in self.reader.cut_off.items())
            raise DataError(f'{reasons + "; " if reasons else ""}no view is found in it; '
                            f'{_listed_images(there)} (--view VIEW=TOPIC)')
        return dict(sorted(found.items(), key=lambda item: item[0] != REFERENCE_VIEW))

    def _usable(self, view: str, topic: str) -> NDArray[np.int64]:
        """Return the stamps of a topic's images; 0 of those that are not newer than all before."""
        stamps, arrivals = np.array(self.found.images[topic], np.int64).reshape(-1, 2).T
        if not stamps.any():
            raise DataError(f'the images on {topic} have no stamps; import them by the time of '
                            'arrival: --stamp-source arrival')
        newest = np.maximum.accumulate(stamps)
        fresh = np.concatenate([[True], stamps[1:] > newest[:-1]]) & (stamps > 0)
        if not fresh.all():
            self.fault('old_image', f'view {view}: {int((~fresh).sum())} of {len(fresh)} images '
                       'are not newer than the one before them; left out, as the node does')
        if self.clock is None:
            late = np.median(arrivals[fresh] - stamps[fresh])
            self.clock = (arrivals[fresh], stamps[fresh]) if abs(late) > _ONE_CLOCK else (
                np.empty(0, np.int64), np.empty(0, np.int64))
        return np.where(fresh, stamps, 0)

    def _image_time(self, received: int) -> int:
        """Turn a time of arrival into one on the clock of images."""
        if self.clock is None or not len(self.clock[0]):
            return received
        return int(np.interp(received, *self.clock))

    def _parts(self, usable: Mapping[str, NDArray[np.int64]]) -> list[_Part]:
        """Cut the bag into episodes."""
        all_stamps = np.concatenate([stamps[stamps > 0] for stamps in usable.values()])
        first, last = int(all_stamps.min()), int(all_stamps.max())
        if self.spans:
            return [_Part(
                name, first + round(start * _SECOND),
                last if math.isinf(end) else first + round(end * _SECOND),
                self._task_between(first, last))
                for name, (start, end) in sorted(self.spans.items())]
        if self.options.label_topic:
            return self._labelled_parts(first, last)
        if self.options.cut == 'messages':
            parts = [_Part('{}.{:09d}'.format(*divmod(identifier, _SECOND)), start, end,
                           _most_common(tasks))
                     for identifier, (start, end, tasks) in sorted(self.found.told.items())]
            if not parts:
                raise DataError('no message of an encoder in it names an episode; import it '
                                'without --cut messages')
            return parts
        several = [episode for episode in self.found.told.values()
                   if episode[1] - episode[0] > 2 * _SECOND]
        if len(several) > 1:
            self.fault('many_episodes', f'an encoder names {len(several)} episodes in it, and it '
                       'is taken for one; --cut messages takes each for itself')
        return [_Part('', first, last, self._task_between(first, last))]

    def _task_between(self, start: int, end: int) -> str:
        tasks: Counter[str] = Counter()
        for first, last, said in self.found.told.values():
            if first <= end and last >= start:
                tasks += said
        return _most_common(tasks)

    def _labelled_parts(self, first: int, last: int) -> list[_Part]:
        """Cut where the messages of the label topic say how an episode ended."""
        parts: list[_Part] = []
        start = first
        for at, text in sorted(self.found.labels):
            at = self._image_time(at)
            if text != _STARTS and at > start:
                parts.append(_Part(f'{len(parts) + 1:03d}', start, at,
                                   self._task_between(start, at), _ANSWERS.get(text),
                                   text == _DISCARD))
            start = at + 1
        if not parts:
            raise DataError(f'no message on {self.options.label_topic} ends an episode')
        return parts

    def _choose(
        self, part: _Part, usable: Mapping[str, NDArray[np.int64]], reference: str,
    ) -> None:
        """Choose the images of an episode: those of the other views nearest to the reference's."""
        inside = {view: np.flatnonzero((stamps >= part.start) & (stamps <= part.end)
                                       & (stamps > 0)) for view, stamps in usable.items()}
        inside = {view: rows for view, rows in inside.items() if len(rows)}
        for view in usable.keys() - inside.keys():
            self.fault('no_topic', f'view {view} has no image in '
                       f'{part.name or "it"}; the view is left out')
        if not inside:
            return
        if self.options.hz is None:
            part.frames = inside
            return
        lead = reference if reference in inside else next(iter(inside))
        times = usable[lead][inside[lead]]
        # A camera's images do not come to the microsecond.
        kept, period = [0], 0.9 * _SECOND / self.options.hz
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

    # The second.

    def _states(self) -> Sequence[str]:
        """Choose the topics of the robot's own state."""
        if self.options.proprio:
            return self.options.proprio
        joints = [topic for topic, kind in self.reader.topics.items() if kind == _JOINTS]
        if '/joint_states' in joints:
            return ('/joint_states',)
        return joints if len(joints) == 1 else ()

    def _write(
        self, parts: Sequence[_Part], topics: Mapping[str, str], series: Sequence[Series],
    ) -> None:
        """Write the videos, and gather the numbers."""
        plan: dict[str, dict[int, list[tuple[_Part, str]]]] = defaultdict(
            lambda: defaultdict(list))
        for part in parts:
            for view, rows in part.frames.items():
                for row in rows.tolist():
                    plan[topics[view]][row].append((part, view))
        ends = {(part.name, view): int(rows[-1])
                for part in parts for view, rows in part.frames.items()}
        counts: Counter[str] = Counter()
        bad: Counter[str] = Counter()
        broken: set[str] = set()
        writers: dict[tuple[str, str], RecordingWriter] = {}
        numbers = {one.topic for one in series}
        images = set(topics.values())
        self.reader.cut_off.clear()
        with ExitStack() as stack:
            for message in self.reader.messages(lambda topic, _: topic in images | numbers):
                if message.topic in numbers:
                    self._take(message, series, broken)
                if message.topic not in images or len(message.data) < 12:
                    continue
                row = counts[message.topic]
                counts[message.topic] += 1
                uses = plan[message.topic].pop(row, ())
                if not uses:
                    continue
                try:
                    decoded = self.types.decode(message)
                    image = decode_message(decoded)
                except (FrameError, DataError) as error:
                    bad[f'{message.topic}: {error}'] += 1
                    self._end(uses, row, ends, writers)
                    continue
                jpeg = bytes(decoded.data) if message.kind == _COMPRESSED else b''
                if not jpeg.startswith(b'\xff\xd8') or stored_mosaic(decoded.format):
                    jpeg = b''
                stamp = message.received if self.options.stamp_source == 'arrival' \
                    else message.stamp
                for part, view in uses:
                    key = part.name, view
                    if key not in writers:
                        writers[key] = stack.enter_context(RecordingWriter(
                            self._file(part, view), quality=self.options.quality))
                    stamps = part.stamps.setdefault(view, [])
                    try:
                        writers[key].add(
                            image, (stamp - (stamps[0] if stamps else stamp)) * 1e-9, jpeg)
                        stamps.append(stamp)
                    except DataError as error:
                        bad[str(error)] += 1
                self._end(uses, row, ends, writers)
        for text, count in bad.items():
            self.fault('bad_image', f'{count} images cannot be used: {text}')
        for text in sorted(broken):
            self.fault('no_state', text)

    def _end(
        self, uses: Sequence[tuple[_Part, str]], row: int, ends: Mapping[tuple[str, str], int],
        writers: Mapping[tuple[str, str], RecordingWriter],
    ) -> None:
        """Finish the videos whose last image this was."""
        for part, view in uses:
            key = part.name, view
            if ends[key] == row and key in writers:
                writers[key].finish()

    def _file(self, part: _Part, view: str) -> Path:
        return self.target / part.name / f'{view}.mp4'

    def _take(self, message: RawMessage, series: Sequence[Series], broken: set[str]) -> None:
        """Take the numbers of a message."""
        try:
            decoded = self.types.decode(message)
        except DataError as error:
            broken.add(str(error))
            return
        at = _time(decoded, message)
        received = self._image_time(message.received)
        # A stamp of a third clock says nothing here.
        at = received if abs(at - received) > _ONE_CLOCK else at
        for one in series:
            if one.topic == message.topic:
                try:
                    one.add(decoded, at)
                except DataError as error:
                    broken.add(f'{error}; this message is left out')

    # What is known of an episode.

    def _described(
        self, part: _Part, proprio: Sequence[Series], actions: Sequence[Series], cut_off: bool,
    ) -> dict[str, Any]:
        reference = REFERENCE_VIEW if REFERENCE_VIEW in part.stamps else next(iter(part.stamps))
        times = np.array(part.stamps[reference], np.int64)
        return {
            'name': part.name, 'task': part.task, 'success': part.success,
            'discard': part.discard, 'cut_off': cut_off, 'reference': reference,
            'views': {view: {
                'file': self._file(part, view).relative_to(self.target).as_posix(),
                'stamps': stamps} for view, stamps in part.stamps.items()},
            'proprio': self._at(part, proprio, times, 'no_state'),
            'actions': self._at(part, actions, times, 'late_action')}

    def _at(
        self, part: _Part, series: Sequence[Series], times: NDArray[np.int64], kind: str,
    ) -> list[list[float]]:
        """Give the numbers at each image; none where they are missing or too old."""
        columns = []
        of = f'{part.name}: ' if part.name else ''
        for one in series:
            if not len(one):
                self.fault('no_state', f'{of}no message on {one.topic}; nothing is kept of it')
                return []
            values, age = one.at(times)
            if -age.min() > _OLD_S:
                self.fault(kind, f'{of}{one.topic} begins {-age.min():.1f} s after the images; '
                           'its first numbers stand for what is before them')
            elif age.max() > _OLD_S and kind == 'no_state':
                self.fault(kind, f'{of}{one.topic} is up to {age.max():.1f} s older than an '
                           'image; nothing is kept of it')
                return []
            columns.append(values)
        return np.concatenate(columns, 1).astype(float).tolist() if columns else []


def _listed_images(there: set[str]) -> str:
    return f'there are images on {", ".join(sorted(there)) or "no topic"}'


def _most_common(tasks: Counter[str]) -> str:
    return tasks.most_common(1)[0][0] if tasks else ''


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def _time(decoded: Any, message: RawMessage) -> int:
    """Return when a message was made, as far as it says it; else when it came [ns]."""
    header = getattr(decoded, 'header', None)
    return (_nanoseconds(header.stamp) if header is not None else 0) or message.received


def _answer(decoded: Any, message: RawMessage) -> str:
    """Read what a message of the label topic says."""
    value = getattr(decoded, 'data', None)
    if isinstance(value, (bool, np.bool_)):
        return 'success' if value else 'failure'
    text = str(value).strip().lower()
    if text not in (*_ANSWERS, _DISCARD, _STARTS):
        raise DataError(f"{message.topic}: a message says '{text}'; needed are success, failure, "
                        'discard or start in a std_msgs/String, or a std_msgs/Bool')
    return text
