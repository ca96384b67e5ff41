# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Bags as rerun recordings, .rrd, with a blueprint: images, attention, curves, decisions, the label.

An entity is called as its topic; a field of a result, as the topic with the field behind a full
stop, because a mirror of it may have the name with a slash. Timelines are `stamp`, when an image
was taken, and `received`, when the recorder got the message. A message without a stamp has that of
its neighbours on it, by the time at which it was received. A value that is not valid leaves a gap
in its curve.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hralign_ros.data.bag_files import Bag, BagReader, find_bags, RawMessage
from hralign_ros.data.bag_labels import LabelTables
from hralign_ros.data.bag_messages import MessageTypes
from hralign_ros.data.labels import Label
from hralign_ros.runtime.decision import Decision, Status
from hralign_ros.runtime.errors import DataError, FrameError, import_package, install_line
from hralign_ros.runtime.images import decode_message, stored_mosaic
from hralign_ros.runtime.labels import BY_HAND, DISCARD, FAILURE, SUCCESS
from hralign_ros.runtime.report import Report
import numpy as np

APPLICATION = 'hralign_ros'
STAMP, RECEIVED = 'stamp', 'received'
LABEL = '/label'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
_IMAGES = ('sensor_msgs/msg/Image', _COMPRESSED)
_RESULT = 'hralign_msgs/msg/SuccessProbability'
_NUMBER, _TRUTH = 'std_msgs/msg/Float64', 'std_msgs/msg/Bool'
_KINDS = (*_IMAGES, _RESULT, _NUMBER, _TRUTH)
# What is plotted of a result together: each field, and the flag that says whether it is valid.
PLOTS: Mapping[str, Mapping[str, str]] = {
    'probability': {
        'probability': 'probability_valid', 'decision_threshold': 'decision_threshold_valid',
        'progress': 'progress_valid', 'failure_probability': 'failure_valid'},
    'out-of-distribution score': {'ood_score': 'ood_valid', 'ood_threshold': 'ood_valid'}}
# Of a result, from taking the frames to handing it over [s].
LATENCY = 'processing_duration'
_QUALITY = 95
# How high a plot is, in lanes.
_PLOT_SHARE = 3
_MAGIC = {b'\xff\xd8': 'image/jpeg', b'\x89PNG': 'image/png'}
# Of lanes, by the field that they show; other values get a colour of rerun's.
_COLOURS: Mapping[str, Mapping[str, int]] = {
    'decision': {Decision.ABSTAIN.name: 0x9E9E9EFF, Decision.RUNNING.name: 0x1E88E5FF,
                 Decision.SUCCESS.name: 0x43A047FF, Decision.FAILURE.name: 0xE53935FF},
    'status': {'OK': 0x43A047FF}}


def import_rerun(module: str = 'rerun') -> Any:
    """
    Import rerun, or a module of it.

    :raises DataError: it is not installed.
    """
    return import_package(module, DataError, (
        f'pip install rerun-sdk, or {install_line("rerun")}; it needs Python 3.11 and numpy 2'))


def export_rerun(source: Path, output: Path, *, report: Report = print) -> list[Path]:
    """
    Write an .rrd file for each bag.

    labels.csv says how an episode ended, as in the import of bags: it lies in the folder of bags,
    or between it and the bag. A file of labels that cannot be read, and a bag that cannot be shown
    beside others that can, are reported and left out.

    :param source: folder with bags in it, or a bag.
    :param output: folder of the files; made where it is not there.
    :returns: the files.
    :raises DataError: rerun is not installed, there is no bag, two bags have one name, a file is
        there already, or no bag has anything that is shown.
    """
    import_rerun()
    bags = find_bags(source)
    paths = _paths(bags, output)
    tables = LabelTables(Path(source).absolute(), bags)
    types, written, said = MessageTypes(), [], set()
    for path, bag in paths.items():
        try:
            label = tables.of(bag).whole
        except DataError as error:
            label = Label()
            if str(error) not in said:
                report(f'{error}; the bags are shown without it')
            said.add(str(error))
        path.parent.mkdir(parents=True, exist_ok=True)
        conversion = _Conversion(bag, label, types)
        try:
            conversion.run(path)
        except DataError as error:
            path.unlink(missing_ok=True)
            if len(bags) == 1:
                raise
            report(f'{error}; skipped')
            continue
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        written.append(path)
        report(f'{path}: ' + conversion.summary())
    if not written:
        raise DataError(f'{source}: none of its {len(bags)} bags can be shown; the lines above '
                        'say why')
    return written


def _paths(bags: Sequence[Bag], output: Path) -> dict[Path, Bag]:
    """
    Name the file of each bag.

    :raises DataError: it is there already, or would be another bag's, too.
    """
    paths: dict[Path, Bag] = {}
    for bag in bags:
        path = output / f'{bag.name}.rrd'
        if path.exists():
            raise DataError(f'{path} is there already; name another folder, or delete it')
        other = paths.setdefault(path, bag)
        if other is not bag:
            raise DataError(f'{other.path} and {bag.path} would both be {path}; rename one of '
                            'them, or name a single bag as the source')
    return paths


@dataclass
class _Conversion:
    """From one bag to one recording."""

    bag: Bag
    label: Label
    types: MessageTypes
    # Kind of each topic that was logged, in the order in which they occur.
    topics: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rr = import_rerun()
        self._recording = self.rr.RecordingStream(APPLICATION, recording_id=self.bag.name)
        # Stamp minus time of arrival of the last message with a stamp; first and last stamp [ns].
        self._behind = 0
        self._first = self._last = 0
        # The times that are set [ns].
        self._stamp = self._received = 0
        # What a curve or a lane shows now, by entity, and since which stamp [ns].
        self._shown: dict[str, tuple[str, int]] = {}

    def run(self, path: Path) -> None:
        """
        Write the recording.

        :raises DataError: nothing in the bag is shown.
        """
        self._recording.save(path)
        with TemporaryDirectory() as scratch:
            reader = BagReader(self.bag, Path(scratch))
            for message in reader.messages(lambda topic, kind: kind in _KINDS):
                self._take(message)
        if not self.topics:
            raise DataError(
                f'{self.bag.path}: there is nothing in it that is shown; shown are '
                f'{", ".join(_KINDS)}, and there are {", ".join(sorted(reader.topics.values()))}')
        for name, text in reader.cut_off.items():
            self.bad[f'{name}: {text}'] = 1
        self._label()
        self._recording.send_recording_name(self.bag.name)
        self._recording.send_blueprint(make_blueprint(self.topics, set(self._shown)))
        self._recording.disconnect()

    def summary(self) -> str:
        """Say what was written."""
        text = ', '.join(f'{count} of {topic}' for topic, count in self.counts.items())
        return text + ''.join(f'; {count} left out ({why})' for why, count in self.bad.items())

    def _take(self, message: RawMessage) -> None:
        try:
            decoded = self.types.decode(message)
            if message.kind in _IMAGES:
                shown = self._image(message, decoded)
        except (DataError, FrameError) as error:
            why = f'{message.topic}: {error}'
            self.bad[why] = self.bad.get(why, 0) + 1
            return
        self.topics.setdefault(message.topic, message.kind)
        self.counts[message.topic] = self.counts.get(message.topic, 0) + 1
        stale = message.kind == _RESULT and Status(decoded.status) & Status.STALE_VIEW
        self._set_time(message, message.kind in (*_IMAGES, _RESULT) and not stale)
        if message.kind in _IMAGES:
            self._recording.log(message.topic, shown)
        elif message.kind == _RESULT:
            self._result(message.topic, decoded)
        elif message.kind == _NUMBER:
            self._recording.log(message.topic, self.rr.Scalars(decoded.data))
        else:
            self._state(message.topic, str(decoded.data))

    def _set_time(self, message: RawMessage, stamped: bool) -> None:
        """Set both times; an old stamp under a new result is not when it was said."""
        stamp = message.stamp if stamped else 0
        if stamp:
            self._behind = stamp - message.received
            if message.kind in _IMAGES:
                self._first = min(self._first or stamp, stamp)
                self._last = max(self._last, stamp)
        self._at(stamp or message.received + self._behind, message.received)

    def _at(self, stamp: int, received: int) -> None:
        self._stamp, self._received = stamp, received
        for timeline, time in ((STAMP, stamp), (RECEIVED, received)):
            # As numbers they would be seconds, which are too coarse.
            self._recording.set_time(timeline, timestamp=np.datetime64(time, 'ns'))

    def _image(self, message: RawMessage, decoded: Any) -> Any:
        """
        Make what rerun shows of an image.

        :raises FrameError: it cannot be used.
        """
        if message.kind == _COMPRESSED and not stored_mosaic(decoded.format):
            data = bytes(decoded.data)
            for magic, media_type in _MAGIC.items():
                if data.startswith(magic):
                    return self.rr.EncodedImage(contents=data, media_type=media_type)
        return self.rr.Image(decode_message(decoded)).compress(jpeg_quality=_QUALITY)

    def _result(self, topic: str, result: Any) -> None:
        for fields in PLOTS.values():
            for name, flag in fields.items():
                self._number(f'{topic}.{name}', getattr(result, name), getattr(result, flag))
        duration = getattr(result, LATENCY)
        self._number(f'{topic}.{LATENCY}', duration.sec + duration.nanosec * 1e-9, True)
        self._state(f'{topic}.decision', _decision(result.decision))
        self._state(f'{topic}.status', _status(result.status))
        episode = f'{result.episode_id.sec}.{result.episode_id.nanosec:09d}'
        self._state(f'{topic}.task', f'{result.task} ({episode})' if result.task else '')

    def _number(self, entity: str, value: float, valid: bool) -> None:
        """Go on with a curve, or leave a gap in it."""
        shown, since = self._shown.get(entity, ('', 0))
        if valid:
            self._recording.log(entity, self.rr.Scalars(value))
            self._shown[entity] = 'curve', self._stamp
        elif shown == 'curve':
            self._in_order(since, entity, self.rr.Clear(recursive=False), soon=True)
            self._shown[entity] = 'gap', since

    def _state(self, entity: str, value: str) -> None:
        """Go on with a lane; what has not changed needs no second entry."""
        shown, since = self._shown.get(entity, (None, 0))
        colours = _COLOURS.get(entity.rpartition('.')[2])
        if shown is None and colours:
            self._recording.log(entity, self.rr.StateConfiguration(
                values=list(colours), colors=np.array(list(colours.values()), np.uint32)),
                static=True)
        if shown != value:
            self._shown[entity] = value, max(self._stamp, since + 1)
            self._in_order(since, entity, self.rr.StateChange(state=value or None))

    def _in_order(self, since: int, entity: str, what: Any, *, soon: bool = False) -> None:
        """
        Log something behind what the entity showed before.

        A stale result lies where it was received, and the image of the next one may be older.

        :param since: stamp of what it showed before.
        :param soon: directly behind it, and not at the time that is set.
        """
        stamp, received = self._stamp, self._received
        self._at(since + 1 if soon else max(stamp, since + 1), received)
        self._recording.log(entity, what)
        self._at(stamp, received)

    def _label(self) -> None:
        """Show how the episode ended, where labels.csv says so."""
        label = self.label
        if not label.discard and label.success is None:
            return
        outcome = DISCARD if label.discard else SUCCESS if label.success else FAILURE
        # A bag without images has only the time of its last message.
        end = self._last or self._stamp
        since_s = label.success_s if label.success else label.failed_s
        if since_s is not None and self._last:
            # A time behind the last image is a slip, and may be too large for a stamp.
            end = self._first + round(min(since_s * 1e9, self._last - self._first))
        self._at(end, end - self._behind)
        by, note = label.word('by', BY_HAND), label.word('note')
        said = ': '.join(filter(None, (f'{outcome}, says {by}', note)))
        self._recording.log(LABEL, self.rr.StateChange(state=outcome), self.rr.TextLog(said))
        self.topics[LABEL] = ''
        self._recording.send_property(
            'label', self.rr.AnyValues(success=outcome, by=by, note=note))


def _decision(number: int) -> str:
    """Name a decision; one of a later version is its number."""
    try:
        return Decision(number).name
    except ValueError:
        return str(number)


def _status(number: int) -> str:
    """Name the bits of a status; those of a later version are a number."""
    names = [str(bit.name) for bit in Status if bit & number]
    rest = number & ~sum(Status)
    return ', '.join(names + ([str(rest)] if rest else [])) or 'OK'


def make_blueprint(topics: Mapping[str, str], shown: Set[str]) -> Any:
    """
    Lay out what a recording holds.

    :param topics: kind of each topic; that of LABEL is ''.
    :param shown: of the results' fields, the entities that have a value.
    """
    rrb = import_rerun('rerun.blueprint')
    images = [topic for topic, kind in topics.items() if kind in _IMAGES]
    rows = [[topic for topic in images if ('/attention/' in topic) is attention]
            for attention in (False, True)]
    results = [topic for topic, kind in topics.items() if kind == _RESULT]
    curves = [topic for topic, kind in topics.items() if kind == _NUMBER]
    lanes = [*(f'{topic}.{lane}' for topic in results for lane in ('decision', 'status', 'task')),
             *(topic for topic, kind in topics.items() if kind == _TRUTH),
             *([LABEL] if LABEL in topics else [])]
    plots = {name: [f'{topic}.{one}' for topic in results for one in fields
                    if f'{topic}.{one}' in shown] for name, fields in PLOTS.items()}
    plots['probability'] += curves
    plots['latency [s]'] = [f'{topic}.{LATENCY}' for topic in results]
    rr = import_rerun()
    whole = rrb.TimeAxis(view_range=rr.TimeRange(
        start=rr.TimeRangeBoundary.infinite(), end=rr.TimeRangeBoundary.infinite()))
    pictures = [rrb.Horizontal(*(rrb.Spatial2DView(origin=topic, name=topic) for topic in row))
                for row in rows if row]
    views = [rrb.TimeSeriesView(origin='/', contents=contents, name=name, axis_x=whole)
             for name, contents in plots.items() if contents]
    shares = [_PLOT_SHARE] * len(views)
    if lanes:
        views.insert(1, rrb.StateTimelineView(
            origin='/', contents=lanes, name='decisions', time_view=whole))
        shares.insert(1, len(lanes))
    parts = [rrb.Vertical(*pictures)] if pictures else []
    if views:
        parts.append(rrb.Vertical(*views, row_shares=shares))
    return rrb.Blueprint(
        rrb.Horizontal(*parts), rrb.TimePanel(timeline=STAMP), collapse_panels=True)
