# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is fuzzed, and what may come out: each target makes a case of bytes and judges the outcome.

A target raises where the package broke a promise; what the package may raise it swallows. The
program beside this file feeds targets by millions; test/fuzz feeds them a few hundred.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
import math
from pathlib import Path
import struct
import sys
import tempfile
from typing import Any, ClassVar

import cv2
from hralign_ros.nodes import conversions, parameters, pictures
from hralign_ros.nodes.pipeline import Result
from hralign_ros.runtime.decision import decide, Decision, DecisionRules, DecisionState, Status
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import FrameError, HralignError, TaskError
from hralign_ros.runtime.images import as_rgb_image, MAX_SIDE, RAW_ENCODINGS, ViewGeometry
from hralign_ros.runtime.pairing import Frame, Pairing, PairingRules, Verdict
import numpy as np
import rclpy
from rclpy.expand_topic_name import expand_topic_name
from rclpy.node import Node
from rclpy.parameter import Parameter as RclpyParameter
from rclpy.serialization import serialize_message
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test'))

from tiny_bundle import write_tiny_bundle  # noqa: E402, I100, I202  # what tests use

MS = 1_000_000
START = 1_700_000_000_000_000_000


class Source:
    """Draw values from bytes; behind their end everything is zero."""

    _REALS = (0.0, -0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324,
              1e-9, 1.0 + 1e-12, 4294967296.0)
    _WORDS = ('', ' ', 'a', '~', '/', '{', '}', '%s', '\x00', '\n', '\ud800', '\u202e', 'é',
              '\U0001f680', '../', '0', '-1', 'nan', 'true', '[', '*', '&', ': ', 'İ', 'ß', 'ﷺ')

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        """Whether all bytes are used."""
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        """Take all bytes that are left."""
        part, self._at = self._data[self._at:], len(self._data)
        return part

    def whole(self, size: int, *, signed: bool = False) -> int:
        """Draw a whole number of so many bytes."""
        part = self._data[self._at:self._at + size]
        self._at += size
        return int.from_bytes(part.ljust(size, b'\0'), 'little', signed=signed)

    def below(self, limit: int) -> int:
        """Draw a whole number from 0 to less than a limit."""
        return self.whole(1 if limit <= 256 else 4) % limit

    def between(self, low: int, high: int) -> int:
        """Draw a whole number from low to high."""
        return low + self.below(high - low + 1)

    def one_of(self, values: Sequence[Any]) -> Any:
        """Choose one of some values."""
        return values[self.below(len(values))]

    def share(self) -> float:
        """Draw a number from 0 to 1, both of which come up."""
        return self.whole(1) / 255

    def real(self) -> float:
        """Draw any float."""
        if self.below(2):
            return float(self.one_of(self._REALS))
        return float(struct.unpack('<d', struct.pack('<Q', self.whole(8)))[0])

    def text(self) -> str:
        """Draw a text: odd words, any characters, or one of them many times."""
        kind = self.below(8)
        if kind < 4:
            return ''.join(self.one_of(self._WORDS) for _ in range(self.below(5)))
        if kind < 7:
            return ''.join(chr(self.whole(3) % 0x110000) for _ in range(self.below(9)))
        return str(self.one_of(self._WORDS)) * self.below(700)


class Target:
    """
    One thing that is fuzzed: call it with the bytes of a case.

    :param longest: most bytes of a case.
    """

    longest: ClassVar[int] = 512

    def seeds(self) -> list[bytes]:
        """Give cases to begin with."""
        return [bytes(64), bytes(range(256))]

    def __call__(self, data: bytes) -> bool:
        """
        Run a case.

        :returns: whether what came in was taken; else it was refused as it should be.
        :raises Exception: a promise was broken.
        """
        raise NotImplementedError


class Images(Target):
    """Camera messages: a picture within the limits comes out, or a FrameError."""

    longest = 4096
    _ENCODINGS = (*RAW_ENCODINGS, '16UC1', 'bayer_rggb8', 'yuv422', '')
    _FORMATS = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', '16UC1; compressedDepth png', '')

    def seeds(self) -> list[bytes]:
        """Give a small picture in every encoding and in every kind of file."""
        picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        picture[4:] = 90
        # All that OpenCV knows: it goes by the bytes, whatever the message says of them.
        files = [cv2.imencode(suffix, picture)[1].tobytes() for suffix in (
            '.jpg', '.png', '.webp', '.bmp', '.gif', '.tiff', '.ppm', '.ras', '.hdr', '.jp2',
            '.avif') if cv2.haveImageWriter(f'x{suffix}')]
        head = bytes([0, 0, 255, 0, 255])
        return [*(head + bytes([1, index % 2]) + file for index, file in enumerate(files)),
                *(head + bytes([0, index, 11, 15, 0, 0, 1]) + picture.tobytes()[:900]
                  for index in range(len(self._ENCODINGS)))]

    def __call__(self, data: bytes) -> bool:
        """Decode a message and look at the picture as the encoder does."""
        source = Source(data)
        geometry = _geometry(source)
        if source.below(2):
            message: Any = CompressedImage(format=self._format(source, self._FORMATS))
            message.data = array('B', source.rest())
            size = None
        else:
            message = _raw_message(source, self._format(source, self._ENCODINGS))
            size = (message.height, message.width)
        try:
            image, _ = pictures.decode(message)
            image = as_rgb_image(image, what='a picture')
        except FrameError as error:
            assert error.reason.isidentifier() and error.reason == error.reason.lower()
            assert str(error)
            return False
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert 1 <= min(image.shape[:2]) and max(image.shape[:2]) <= MAX_SIDE
        assert size is None or image.shape[:2] == size
        if image.size < 1_000_000:
            upright = geometry.apply(image)
            assert upright.size and upright.dtype == np.uint8 and upright.shape[2] == 3
        return True

    @staticmethod
    def _format(source: Source, known: Sequence[str]) -> str:
        """Choose a known name, or make one up."""
        index = source.below(len(known) + 1)
        # A message on the wire holds no lone surrogates.
        return known[index] if index < len(known) else source.text().replace('\ud800', '?')


def _geometry(source: Source) -> ViewGeometry:
    """Draw how a camera is mounted."""
    rotation = source.one_of((0, 90, 180, 270))
    edges = [source.share() for _ in range(4)]
    try:
        return ViewGeometry(rotation, (edges[0], edges[2], edges[1], edges[3]))
    except ValueError:
        assert not (edges[0] < edges[1] and edges[2] < edges[3])
        return ViewGeometry(rotation)


def _raw_message(source: Source, encoding: str) -> ImageMessage:
    """Draw an uncompressed picture whose sizes mostly fit."""
    def size() -> int:
        number = source.whole(1)
        return (number + 1) % 25 if number < 225 else source.whole(4)

    height, width = size(), size()
    kind = source.whole(1)
    if kind < 200:
        step = width * RAW_ENCODINGS.get(encoding, (2, None))[0] + kind % 4
    else:
        step = source.whole(4) if kind < 230 else kind
    step = min(step, 2 ** 32 - 1)
    bigendian, whole = source.below(2), source.below(4)
    data = source.rest()
    if whole and height * step < 10_000:  # short cases are whole pictures, too
        data = data.ljust(height * step, b'\x7f')
    return ImageMessage(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=bigendian,
        data=array('B', data))


class _OwnNode(Node):
    """A node whose parameters can be declared again and again."""

    def __init__(self) -> None:
        super().__init__('fuzzed', start_parameter_services=False, enable_rosout=False)
        self.add_on_set_parameters_callback(partial(parameters.validate_change, self))

    def begin(self, overrides: Mapping[str, Any]) -> None:
        """Declare all parameters as a new node does that was started with some values."""
        # A new node for each case takes a hundred times as long.
        self._parameters.clear()
        self._descriptors.clear()
        self._parameter_overrides.clear()
        for name, value in overrides.items():
            self._parameter_overrides[name] = RclpyParameter(name, value=value)
        kept, self._on_set_parameters_callbacks[:] = list(self._on_set_parameters_callbacks), []
        try:
            parameters.declare(self)
        finally:
            self._on_set_parameters_callbacks[:] = kept


class Parameters(Target):
    """Parameters at start, while running, and straight into Settings.read: ParameterError only."""

    def __init__(self) -> None:
        if not rclpy.ok():
            rclpy.init()
        self._node = _OwnNode()
        self._rows = parameters.table()
        self._defaults = {name: parameters.default_of(name, row)
                          for name, row in self._rows.items()}
        self._begin()

    def seeds(self) -> list[bytes]:
        """Give cases for every parameter."""
        return [bytes([1, index, way, 7, 9, 200, 100, 50, rest]) for rest in (0, 1)
                for index in range(len(self._rows)) for way in range(0, 9, 2)]

    def __call__(self, data: bytes) -> bool:
        """Give a node some values, in one of three ways."""
        source = Source(data)
        # Of all bytes, so that a change anywhere draws anew: a start takes ten times as long, and
        # would otherwise be what most cases descend from.
        kind = sum(data) % 64
        count = 1 + source.below(4)
        changed = dict(self._change(source) for _ in range(count))
        if kind == 63:
            return self._start(changed)
        return self._set(changed) if kind % 2 else self._read(changed)

    def _start(self, changed: Mapping[str, Any]) -> bool:
        """Start a node with values, as from a file."""
        try:
            overrides = {name: RclpyParameter(name, value=value).value
                         for name, value in changed.items()}
        except TypeError:  # no parameter file can hold it
            return False
        try:
            self._node.begin(overrides)
            _check_settings(parameters.Settings.read(parameters.current(self._node)))
        except parameters.ParameterError as error:
            assert str(error)
            return False
        finally:
            self._begin()
        return True

    def _begin(self) -> None:
        """Give the node its defaults, from which it is changed."""
        self._node.begin({})
        self._held = parameters.current(self._node)

    def _set(self, changed: Mapping[str, Any]) -> bool:
        """Change values of a running node."""
        try:
            given = [RclpyParameter(name, value=value) for name, value in changed.items()]
            for one in given:
                one.to_parameter_msg()
        except (TypeError, AssertionError, OverflowError, UnicodeError):
            return False  # no service call can carry it
        result = self._node.set_parameters_atomically(given)
        after = parameters.current(self._node)
        if result.successful:
            _check_settings(parameters.Settings.read(after))
            self._held = after
        else:
            assert result.reason and after == self._held
        return bool(result.successful)

    def _read(self, changed: Mapping[str, Any]) -> bool:
        """Check values of any type."""
        values = {**self._defaults, **changed}
        if isinstance(values['views'], list):
            for view in values['views']:
                if isinstance(view, str):
                    values |= {f'{view}.{row.name}': values.get(
                        f'{view}.{row.name}', parameters.default_of(f'{view}.{row.name}', row))
                        for row in parameters.VIEW_PARAMETERS}
        try:
            _check_settings(parameters.Settings.read(values))
        except parameters.ParameterError as error:
            assert str(error)
            return False
        return True

    def _change(self, source: Source) -> tuple[str, Any]:
        """Draw a name and a value for it, which may be of another type."""
        name = source.one_of(tuple(self._rows))
        row = self._rows[name]
        way = source.below(12)
        if way < 5 and row.low is not None and row.high is not None:
            value = source.one_of((
                row.low, row.high, row.low + (row.high - row.low) * source.share(),
                row.high + 0.1, row.low - 0.1, row.high * (1 + 5e-7)))
            return name, int(value) if isinstance(row.default, int) else float(value)
        if way < 5 and row.choices:
            return name, source.one_of(row.choices)
        if way < 5 and name.endswith('.crop'):
            return name, [source.share() for _ in range(4)]
        if way < 5 and isinstance(row.default, bool):
            return name, bool(source.below(2))
        if way == 5:
            return name, self._defaults[name]
        return name, self._anything(source, way)

    @staticmethod
    def _anything(source: Source, way: int) -> Any:
        """Draw a value of a type that parameters may have, or of one that they may not."""
        if way < 8:
            return source.real()
        if way == 8:
            return source.text()
        if way == 9:
            return source.one_of((None, True, False, b'', b'x', 0, 1, -1, 2 ** 63, -2 ** 70,
                                  10 ** 400, (), {}, [[]], object))
        if way == 10:
            return [source.text() for _ in range(source.below(10))]
        return [source.one_of((source.real(), source.whole(1), True, 'x', None))
                for _ in range(source.below(6))]


def _check_settings(settings: parameters.Settings) -> None:
    """Check that accepted values keep what is documented, and that the rules work."""
    values = settings.values
    rows = parameters.table(values['views'])
    assert 1 <= len(settings.views) <= 8 and set(settings.views) == set(values['views'])
    for name, row in rows.items():
        value = values[name]
        assert isinstance(value, (list, tuple)) if isinstance(row.default, list) \
            else type(value) is type(row.default), f'{name} is {value!r}'
        if row.low is not None and row.high is not None:
            assert row.low <= value <= row.high, f'{name} is {value!r}'
        assert not row.choices or value in row.choices, f'{name} is {value!r}'
    pairing, decision = settings.pairing, settings.decision
    assert 0 <= pairing.max_wait < pairing.max_age and 0 <= pairing.tolerance <= pairing.max_age
    for view in settings.views.values():
        validate_full_topic_name(expand_topic_name(view.topic, 'encoder', '/'))
        assert view.geometry.apply(np.zeros((2, 3, 3), np.uint8)).size
    required = [name for name, view in settings.views.items() if view.required]
    matcher: Pairing[None] = Pairing(tuple(settings.views), required, pairing)
    for name in required:
        matcher.offer(name, Frame(START, None), now=START, elapsed=START)
    found = matcher.take(now=START, elapsed=START)
    assert found is not None and set(found.frames) == set(required)
    state, verdict = decide(
        DecisionState(), replace(decision, threshold=0.5), stamp=START, probability=0.9,
        modes=(), status=Status.OK)
    assert verdict is (Decision.SUCCESS if decision.dwell == 0 else Decision.RUNNING)


class Decisions(Target):
    """Decisions against a second account of them; matched sets against their promises."""

    longest = 128

    def __call__(self, data: bytes) -> bool:
        """Play one sequence."""
        source = Source(data)
        if source.below(2):
            _play_decisions(source)
        else:
            _play_pairing(source)
        return True

    def seeds(self) -> list[bytes]:
        """Give quiet sequences of both kinds, and wild ones."""
        rng = np.random.default_rng(1)
        return [bytes([kind]) + rng.integers(0, most, 120, np.uint8).tobytes()
                for kind in (0, 1) for most in (2, 40, 256) for _ in range(4)]


def _rules(source: Source) -> DecisionRules:
    """Draw rules that parameters and a calibration may give."""
    durations = (0, 1, 50 * MS, 300 * MS, 1000 * MS)
    return DecisionRules(
        threshold=source.one_of((None, 0.0, 0.5, 0.5, 0.5, 1.0, source.share())),
        dwell=source.one_of(durations), failure_dwell=source.one_of(durations),
        failure_threshold=source.one_of((None, 0.0, 0.5, 0.9, source.share())),
        time_out=source.one_of((0, 0, 700 * MS, 5000 * MS)))


def _play_decisions(source: Source) -> None:
    """Decide over a sequence and keep a second, simpler account of what has to come out."""
    rules, state, stamp = _rules(source), DecisionState(), START
    start, latched = None, None
    above: list[int] = []           # stamps in a row with the probability above its threshold
    risky: dict[int, list[int]] = {}  # the same for each failure mode
    count = source.below(4)
    for _ in range(64):
        if source.done:
            return
        event = source.below(16)
        if event == 15:
            rules = _rules(source)
        elif event == 14:
            count = source.below(4)
        elif event == 13:
            state, start, latched, above, risky = DecisionState(), None, None, [], {}
        stamp += source.one_of((0, 1, 33 * MS, 100 * MS, 300 * MS, 3000 * MS))
        probability = source.one_of((None, 0.0, 1.0, 0.5, 0.6, 0.6, 0.6, source.share()))
        modes = tuple(source.share() for _ in range(count))
        status = Status(source.one_of((0, 0, 0, 0, 32, 32, source.below(64))))
        state, decision = decide(
            state, rules, stamp=stamp, probability=probability, modes=modes, status=status)
        start = stamp if start is None else start
        if status & ~Status.VIEW_MISSING or probability is None or rules.threshold is None:
            above, risky = [], {}
            assert decision is Decision.ABSTAIN
            continue
        if latched is not None:
            assert decision is latched
            continue
        above = [*above, stamp] if probability > rules.threshold else []
        limit = rules.failure_threshold
        if len(risky) != count or limit is None:
            risky = {mode: [] for mode in range(count)}
        for mode, value in enumerate(modes):
            risky[mode] = [*risky[mode], stamp] if limit is not None and value > limit else []
        wanted = Decision.RUNNING
        if above and above[-1] - above[0] >= rules.dwell:
            wanted = Decision.SUCCESS
        elif any(run and run[-1] - run[0] >= rules.failure_dwell for run in risky.values()) \
                or rules.time_out and stamp - start >= rules.time_out:
            wanted = Decision.FAILURE
        assert decision is wanted, f'{decision!r}, not {wanted!r}'
        latched = None if wanted is Decision.RUNNING else wanted


def _pairing_rules(source: Source) -> PairingRules:
    """Draw rules that parameters may give."""
    max_age = source.one_of((10, 50, 500, 10_000)) * MS
    return PairingRules(
        tolerance=min(max_age, source.one_of((0, 1, 4 * MS, 40 * MS, 1000 * MS))),
        max_wait=min(max_age - 1, source.one_of((0, 1, 5 * MS, 50 * MS, 1000 * MS))),
        max_age=max_age, max_future=source.one_of((0, 10, 100, 10_000)) * MS,
        reset_after=source.one_of((100, 1000, 3_600_000)) * MS)


def _play_pairing(source: Source) -> None:
    """Offer and take in any order, with losses and jumps, and check all that pairing promises."""
    views = ('a', 'b', 'c')[:1 + source.below(3)]
    required = views[:1 + source.below(len(views))]
    pairing: Pairing[int] = Pairing(views, required, _pairing_rules(source))
    now, elapsed, serial, episode, last = START, 1, 0, 0, None
    accepted: dict[int, str] = {}
    for _ in range(96):
        if source.done:
            return
        event, rules = source.below(16), pairing.rules
        if event < 9:
            view = source.one_of(views)
            stamp = now + source.one_of((0, -1, 1, -5, -20, -200, 30, -2000, -4000)) * MS \
                + source.below(3)
            stamp = source.one_of((stamp,) * 15 + (0,))
            serial += 1
            verdict = pairing.offer(view, Frame(stamp, serial), now=now, elapsed=elapsed)
            if verdict is Verdict.TIME_RESET:
                last, episode, accepted = None, 0, {}
            if verdict in (Verdict.ACCEPTED, Verdict.REPLACED, Verdict.TIME_RESET):
                accepted[serial] = view
                assert 0 < stamp <= now + rules.max_future and now - stamp <= rules.max_age
        elif event < 13:
            passed = source.one_of((1, 10 * MS, 33 * MS, 300 * MS, 3000 * MS))
            now, elapsed = now + passed * (event != 12), elapsed + passed
        elif event == 13:
            now = max(1, now + source.whole(2, signed=True) * MS)
            # A clock that goes back behind the begin of the episode makes it void.
            episode = episode if now >= episode else 0
        elif event == 14:
            kind = source.below(3)
            if kind == 0:
                pairing.reset()
                last, episode, accepted = None, 0, {}
            elif kind == 1:
                episode = now - source.below(100) * MS
                pairing.start_episode(episode)
            else:
                pairing.rules = _pairing_rules(source)
        else:
            _check_counts(pairing, views)
            continue
        last = _check_taken(pairing, required, accepted, now, elapsed, episode, last)
    _check_counts(pairing, views)


def _check_taken(
    pairing: Pairing[int], required: Sequence[str], accepted: dict[int, str], now: int,
    elapsed: int, episode: int, last: int | None,
) -> int | None:
    """Take a set and check it; give its stamp, or that of the last one."""
    found = pairing.take(now=now, elapsed=elapsed)
    if found is None:
        until = pairing.wait_until()
        assert until is None or until > elapsed, 'a set waits for a time that has passed'
        return last
    stamps = [frame.stamp for frame in found.frames.values()]
    assert found.stamp == max(stamps) and (last is None or found.stamp > last)
    assert pairing.last_skew == found.stamp - min(stamps) <= pairing.rules.tolerance
    assert set(found.frames) & set(required) and min(stamps) >= episode
    for view, frame in found.frames.items():
        assert accepted.pop(frame.payload) == view  # missing: used before, or never accepted
    return found.stamp


def _check_counts(pairing: Pairing[int], views: Sequence[str]) -> None:
    """Check that every frame is accounted for, and that nothing grows."""
    for view in views:
        counts = pairing.counts(view)
        ends = sum(number for reason, number in counts.items()
                   if reason not in ('received', 'accepted', 'time_reset'))
        pending = pairing._views[view].pending is not None
        assert counts.get('received', 0) == ends + pending
        assert len(counts) <= len(Verdict) + 4


class Tasks(Target):
    """Instructions: features of norm 1 come out, or a TaskError."""

    longest = 2048

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix='hralign_fuzz_')
        write_tiny_bundle(Path(self._folder.name))
        self._text = Encoder.load(self._folder.name, provider='cpu', threads=1).text

    def seeds(self) -> list[bytes]:
        """Give instructions of several kinds, one too long, and one of too many words."""
        texts = ('pick up the cup', ' Open the DRAWER. ', 'lift the cup!', '把杯子放进碗里', '',
                 '\u200b\u00ad', '🥤→🗑️', 'cafe\u0301 ﷺ', 'x' * 600, 'cup ' * 40, '\x1c\x85')
        return [b'\x00' + text.encode() for text in texts] + [bytes([255, *range(64)])]

    def __call__(self, data: bytes) -> bool:
        """Encode one instruction twice."""
        source = Source(data)
        if source.below(4) == 3:
            text = source.text() + source.text()
        else:
            text = source.rest().decode('utf-8', 'surrogateescape')
        try:
            features = self._text.encode(text)
            nearest = self._text.nearest(features)
        except TaskError as error:
            assert str(error)
            return False
        norms = np.linalg.norm(features.features, axis=1)
        assert features.features.dtype == np.float32 and features.features.shape == (3, 8)
        assert features.text == text.strip() and len(features.text) <= 512
        if features.text:
            assert np.abs(norms - 1).max() < 1e-3, f'{text!r} has features of norm {norms}'
            assert len(nearest) == 2 and all(math.isfinite(score) for _, score in nearest)
        else:
            assert not norms.any() and not features.known
        return True


# Stand for what the YAML writer cannot write; put in as text.
HUGE = 'a number of five thousand digits'
DEEP = 'a list in a list two thousand times'
_BOMB: list[Any] = ['x'] * 10
for _ in range(7):
    _BOMB = [_BOMB] * 10
ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2, 3, 7, 4096, 2 ** 31, 2 ** 63, HUGE, DEEP, 0.0, -0.5, 1e-300, 1e308,
    -1e308, math.nan, math.inf, '', 'x', 'left', 'shared', '\x00', '\ud800', '../x', 'x' * 600,
    [], {}, ['x'], [['x']], [None], {'x': 'y'}, {1: 2}, _BOMB, ['left', 'right'],
    [{'views': ['left'], 'method': 'beta', 'a': 1e308, 'b': 1e308, 'c': -1e308}],
    [{'views': ['left', 'middle', 'right'], 'method': 'isotonic', 'scores': [-1e308, 1e308],
      'probabilities': [0.0, 1.0]}], [{'views': ['left'], 'method': _BOMB}])
_TOKENS = (b'*a', b'&a ', b'{', b'}', b'[', b'"', b'null', b'0', b'-1', b'1e999', b'!!int ',
           b'!!binary ', b'<<: ', b'\n', b': ', b'\x00', b'\xff', b'\x80' * 9, b'\\ud800',
           b'? ', b'true', b'9' * 5000, b'0x' + b'f' * 5000)


class Bundles(Target):
    """Damaged and forged bundles: a HralignError comes out, or an encoder that works."""

    def __init__(self) -> None:
        self._holder = tempfile.TemporaryDirectory(prefix='hralign_fuzz_')
        self._folder = Path(self._holder.name)
        write_tiny_bundle(self._folder)
        self._good = {path.name: path.read_bytes() for path in sorted(self._folder.iterdir())}
        self._names = [name for name in self._good if name != 'card.md']
        self._documents = {name: yaml.safe_load(self._good[name])
                           for name in ('bundle.yaml', 'tasks.yaml')}
        self._picture = np.full((20, 30, 3), 90, np.uint8)

    def seeds(self) -> list[bytes]:
        """Give a case of each kind of damage for each file."""
        rng = np.random.default_rng(2)
        return [bytes([index, trusted, kind]) + rng.integers(0, 256, 12, np.uint8).tobytes()
                for index in range(len(self._names)) for trusted in (0, 1) for kind in range(6)]

    def __call__(self, data: bytes) -> bool:
        """Change a file, load the bundle, and do all that a node does with it."""
        source = Source(data)
        name = source.one_of(self._names)
        trusted = bool(source.below(2))
        changed = {name: self._changed(source, name)}
        if trusted and name != 'bundle.yaml':
            document = yaml.safe_load(self._good['bundle.yaml'])
            document['files'][name] = {
                'bytes': len(changed[name]), 'sha256': sha256(changed[name]).hexdigest()}
            changed['bundle.yaml'] = yaml.safe_dump(document, sort_keys=False).encode()
        try:
            for each, content in changed.items():
                (self._folder / each).write_bytes(content)
            self._use()
        except HralignError as error:
            text = str(error)
            assert text and len(text) < 10_000, f'{len(text)} characters to say what is wrong'
            text.encode()
            return False
        finally:
            for each in changed:
                (self._folder / each).write_bytes(self._good[each])
        return True

    def _use(self) -> None:
        """Load, warm up, tick, and make the messages."""
        encoder = Encoder.load(self._folder, provider='cpu', threads=1)
        encoder.warm_up(height=20, width=30, ticks=1)
        serialize_message(conversions.info_message(encoder, warm_up=0.1, version='0'))
        for task in ('pick up the cup', 'wash the dog'):
            episode = encoder.start_episode(task)
            encoder.text.nearest(episode.task)
            tick = episode.step(
                dict.fromkeys(encoder.manifest.views, self._picture), START)
            assert np.isfinite(tick.embedding).all() and np.isfinite(tick.attention).all()
            probability = tick.success.probability
            assert probability is None or 0.0 <= probability <= 1.0
            result = Result(
                tick=tick, episode_id=1, task=task, task_id=episode.task.task.task_id,
                status=tick.status, decision=Decision.ABSTAIN, rules=DecisionRules(),
                stamp=tick.stamp, frame_id='', started=0)
            serialize_message(conversions.embedding_message(result, encoder))
            serialize_message(conversions.success_message(result, encoder))

    def _changed(self, source: Source, name: str) -> bytes:
        """Damage a file: a field of a document, or bytes anywhere."""
        if name in self._documents and source.below(4):
            document = yaml.safe_load(self._good[name])
            for _ in range(1 + source.below(3)):
                _replace_one(source, document)
            text = yaml.safe_dump(document, sort_keys=False)
            if DEEP in text:
                levels = [f'd{i}: &d{i} [*d{i - 1}]' for i in range(1, 2000)]
                text = '\n'.join(['d0: &d0 [x]', *levels, text]).replace(DEEP, '*d1999')
            return text.replace(HUGE, '0x' + 'f' * 5000).encode('utf-8', 'surrogatepass')
        data = bytearray(self._good[name])
        for _ in range(1 + source.below(4)):
            kind, at = source.below(8), source.whole(4) % (len(data) + 1)
            if kind < 3 and at < len(data):
                data[at] = source.whole(1)
            elif kind == 3:
                del data[at:at + 1 + source.below(64)]
            elif kind == 4:
                data[at:at] = source.one_of(_TOKENS)
            elif kind == 5:
                data[at:at] = data[at:at + source.below(64)]
            elif kind == 6 and at < len(data):
                data[at] ^= 1 << source.below(8)
            elif kind == 7:
                del data[at:]
        return bytes(data)


def _replace_one(source: Source, document: Any) -> None:
    """Put an odd value somewhere into a document."""
    place = document
    while True:
        keys: Sequence[Any] = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return
        key = source.one_of(keys)
        child = place[key]
        if isinstance(child, (dict, list)) and child and child is not _BOMB and source.below(4):
            place = child
            continue
        if isinstance(place, dict) and source.below(8) == 7:
            del place[key]
        else:
            place[key] = source.one_of(ODD_VALUES)
        return


TARGETS: Mapping[str, Callable[[], Target]] = {
    'images': Images, 'parameters': Parameters, 'decisions': Decisions, 'tasks': Tasks,
    'bundle': Bundles}
