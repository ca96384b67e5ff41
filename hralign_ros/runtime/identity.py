# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What determines an embedding: when two embeddings can be compared, and why not otherwise.

A bundle's hash changes with all that is in it, and most of that no embedding depends on: a task
that was taught, a threshold, the card. Here is what embeddings depend on, each with its hash from
bundle.yaml, so that nothing has to be read for it. Images, the instruction, and how the encoder is
set (precision, pooling, rotation and crop) come on top.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
import json

from hralign_ros.runtime.bundle import Manifest, SPATIAL, TOKENIZER

# What is code and no file: how images get to the graphs (ViewGeometry.apply, encode_images), and
# how parts are made of what these return (Encoder.embed, memory.py, parts.py). Count it up with a
# change after which embeddings are not the same to rounding.
_RULES = '1'
_RULES_KEY, _VIEWS, _CLIP = 'rules', 'views', 'clip'
_PREPROCESS, _VISUAL = 'preprocess.onnx', 'visual.onnx'
_TEXT = ('embed.onnx', 'text.onnx', TOKENIZER)
# Each ingredient, and what it is.
_ABOUT = {
    _RULES_KEY: 'how parts are put together',
    # Row i of every graph is view i, and a graph may treat its rows differently.
    _VIEWS: 'camera views and their order',
    _PREPROCESS: 'preprocessing',
    # Of float32, whatever runs: the graphs of other precisions are approximations of it.
    _VISUAL: 'visual encoder with its adapters',
    SPATIAL: 'basis of spatial and keypoints',
    'embed.onnx': 'attention to the instruction',
    'text.onnx': 'text encoder',
    TOKENIZER: 'tokenizer',
    _CLIP: 'frames of a clip',
}
_OF_EVERY_PART = (_RULES_KEY, _VIEWS, _PREPROCESS, _VISUAL)
_OF_PART = {'spatial': (SPATIAL,), 'keypoints': (SPATIAL,), 'mean': (), 'task': _TEXT,
            'clip': (*_TEXT, _CLIP)}
# Parts that depend on the instruction.
POOLED = ('task', 'clip')
_SEPARATOR = ': '


@dataclass(frozen=True)
class Identity:
    """
    What the embeddings of an encoder are made by.

    :param sha256: of the ingredients; 64 hexadecimal digits.
    :param ingredients: by name: the hash of a file, or a setting. Empty: not known.
    """

    sha256: str
    ingredients: Mapping[str, str]

    @classmethod
    def of(cls, manifest: Manifest) -> 'Identity':
        """Tell it of a bundle; nothing is read."""
        clip = manifest.clip
        found = {
            _RULES_KEY: _RULES, _VIEWS: ', '.join(manifest.views),
            **{name: manifest.files[name].sha256
               for name in (_PREPROCESS, _VISUAL, SPATIAL, *_TEXT) if name in manifest.files},
            _CLIP: f'{clip.length} frames, {clip.period_s} s apart'}
        return cls(sha256(json.dumps(sorted(found.items())).encode()).hexdigest(), found)

    @classmethod
    def from_lines(cls, sha: str, lines: Iterable[str]) -> 'Identity':
        """Read it from what a message has, see `lines`."""
        pairs = (line.partition(_SEPARATOR) for line in lines)
        return cls(sha, {name: value for name, _, value in pairs})

    @property
    def lines(self) -> list[str]:
        """Write each ingredient as a line: its name, a colon, a space, its value."""
        return [f'{name}{_SEPARATOR}{value}' for name, value in self.ingredients.items()]

    def only(self, parts: Iterable[str]) -> dict[str, str]:
        """Take the ingredients that these parts depend on, by name."""
        return {name: self.ingredients[name] for name in ingredients_of(parts)}

    def differences(self, wanted: Mapping[str, str]) -> list[str]:
        """Say of which ingredients this has others than are wanted, and which."""
        found = self.ingredients
        return [f'{_ABOUT.get(name, "ingredient")} ({name} is {_brief(found.get(name, "none"))}, '
                f'and not {_brief(value)})'
                for name, value in wanted.items() if found.get(name) != value]


def _brief(value: str) -> str:
    """Shorten a hash; a setting stays as it is."""
    return value[:12] if len(value) == 64 else value


def ingredients_of(parts: Iterable[str]) -> tuple[str, ...]:
    """
    Name what some parts of an embedding depend on.

    :raises ValueError: there is no such part.
    """
    chosen = set(_OF_EVERY_PART)
    for part in parts:
        if part not in _OF_PART:
            raise ValueError(f"there is no part '{part}'; there are {', '.join(_OF_PART)}")
        chosen.update(_OF_PART[part])
    return tuple(name for name in _ABOUT if name in chosen)
