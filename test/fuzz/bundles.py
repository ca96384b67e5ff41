# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Fuzzed: instructions to a bundle, and bundles themselves."""

from collections.abc import Sequence
from hashlib import sha256
import math
from pathlib import Path
import tempfile
from typing import Any

from fuzz.source import Source, START, Target
from hralign_ros.nodes import conversions
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import HralignError, TaskError
from hralign_ros.runtime.pipeline import Result
import numpy as np
from rclpy.serialization import serialize_message
from support.tiny_bundle import write_tiny_bundle
import yaml


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
    -1e308, math.nan, math.inf, '', 'x', 'left', 'fallback', '\x00', '\ud800', '../x', 'x' * 600,
    [], {}, ['x'], [['x']], [None], {'x': 'y'}, {1: 2}, _BOMB, ['left', 'right'],
    [{'views': ['left'], 'method': 'beta',
      'parameters': {'a': 1e308, 'b': 1e308, 'c': -1e308}}],
    [{'views': ['left', 'middle', 'right'], 'method': 'isotonic',
      'parameters': {'scores': [-1e308, 1e308], 'probabilities': [0.0, 1.0]}}],
    [{'views': ['left'], 'method': _BOMB}])
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
        self._image = np.full((20, 30, 3), 90, np.uint8)

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
                dict.fromkeys(encoder.manifest.views, self._image), START)
            assert np.isfinite(tick.embedding).all() and np.isfinite(tick.attention).all()
            probability = tick.success.probability
            assert probability is None or 0.0 <= probability <= 1.0
            result = Result(
                tick=tick, episode_id=1, task=task, task_id=episode.task.task.task_id,
                instruction_sha256=episode.task.instruction_sha256, status=tick.status,
                decision=tick.decision, stamp=tick.stamp, frame_id='', frame_ids={}, started=0)
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
