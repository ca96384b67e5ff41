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

from hralign_ros.data.bag_episodes import ANSWERS, Cuts, DISCARD, nanoseconds, Part, STARTS
from hralign_ros.data.bag_files import Bag, BagReader, RawMessage
from hralign_ros.data.bag_messages import MessageTypes
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
        self.types = types
        self.reader = BagReader(bag, scratch)
        self.faults: list[tuple[str, str]] = []
        self.cuts = Cuts(cut=options.cut, label_topic=options.label_topic, spans=spans,
                         fault=self.fault)
        # Stamp and time of arrival of each image, by topic [ns].
        self.images: dict[str, array[int]] = defaultdict(lambda: array('q'))
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
        stamps = np.concatenate([stamps[stamps > 0] for stamps in usable.values()])
        parts = self.cuts.parts(int(stamps.min()), int(stamps.max()), self._image_time)
        for part in parts:
            self.cuts.choose(part, usable, reference, self.options.hz)
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
                    self.images[message.topic].extend((stamp, message.received))
                continue
            try:
                decoded = self.types.decode(message)
            except DataError as error:
                if message.topic == self.options.label_topic:
                    raise
                self.fault('bad_message', str(error))
                continue
            if message.topic == self.options.label_topic:
                self.cuts.labels.append((_time(decoded, message), _answer(decoded, message)))
            else:
                self.cuts.hear(decoded)
        for file, text in self.reader.cut_off.items():
            self.fault('cut_off', f'{file}: {text}; what comes before it is used')

    def _topics(self) -> dict[str, str]:
        """Find the topic of each view; the view of the reference camera first."""
        there = {topic for topic, kind in self.reader.topics.items()
                 if kind in _IMAGES and self.images.get(topic)}
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
        stamps, arrivals = np.array(self.images[topic], np.int64).reshape(-1, 2).T
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
        self, parts: Sequence[Part], topics: Mapping[str, str], series: Sequence[Series],
    ) -> None:
        """Write the videos, and gather the numbers."""
        plan: dict[str, dict[int, list[tuple[Part, str]]]] = defaultdict(
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
        self, uses: Sequence[tuple[Part, str]], row: int, ends: Mapping[tuple[str, str], int],
        writers: Mapping[tuple[str, str], RecordingWriter],
    ) -> None:
        """Finish the videos whose last image this was."""
        for part, view in uses:
            key = part.name, view
            if ends[key] == row and key in writers:
                writers[key].finish()

    def _file(self, part: Part, view: str) -> Path:
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
        self, part: Part, proprio: Sequence[Series], actions: Sequence[Series], cut_off: bool,
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
        self, part: Part, series: Sequence[Series], times: NDArray[np.int64], kind: str,
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


def _time(decoded: Any, message: RawMessage) -> int:
    """Return when a message was made, as far as it says it; else when it came [ns]."""
    header = getattr(decoded, 'header', None)
    return (nanoseconds(header.stamp) if header is not None else 0) or message.received


def _answer(decoded: Any, message: RawMessage) -> str:
    """Read what a message of the label topic says."""
    value = getattr(decoded, 'data', None)
    if isinstance(value, (bool, np.bool_)):
        return 'success' if value else 'failure'
    text = str(value).strip().lower()
    if text not in (*ANSWERS, DISCARD, STARTS):
        raise DataError(f"{message.topic}: a message says '{text}'; needed are success, failure, "
                        'discard or start in a std_msgs/String, or a std_msgs/Bool')
    return text
