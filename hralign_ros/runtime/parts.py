# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The named parts of an embedding: which there are, what they look like, how a row is laid out.

A policy wants to know where things are, now; a search wants to know what a clip is about. No one
vector is good for both, so an embedding consists of parts, and whoever starts the encoder chooses.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math

from hralign_ros.runtime.bundle import Bundle, SPATIAL, TokenSpec
from hralign_ros.runtime.errors import BundleError
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# What is published where nobody chooses, as far as the bundle has it.
DEFAULT_PARTS = ('spatial', 'keypoints', 'task')
# Of `spatial`: sides of the grid and numbers a place, at most. 7 * 7 * 16 = 784 numbers a view.
GRID, COMPONENTS = 7, 16
# Of `keypoints`, at most.
KEYPOINTS = 64


@dataclass(frozen=True)
class EmbeddingPart:
    """
    One named slice of a view's row of an embedding.

    :param offset: where it starts in the row.
    :param shape: of the slice, row-major.
    :param frames: how many of the newest frames of a view it is of.
    :param unit_norm: the slice of a valid view has Euclidean norm 1.
    :param description: for people.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    frames: int
    unit_norm: bool
    description: str

    @property
    def size(self) -> int:
        """Length of the slice."""
        return math.prod(self.shape)

    def of(self, embedding: Floats) -> Floats:
        """
        Take this part of an embedding.

        :param embedding: float32 [V, dim], of all parts that were asked for.
        :returns: float32 [V, *shape], a view and no copy.
        """
        rows = embedding[:, self.offset:self.offset + self.size]
        return rows.reshape(len(embedding), *self.shape)


def spatial_shape(tokens: TokenSpec) -> tuple[int, int, int]:
    """Rows, columns, and numbers at each place of the part `spatial`."""
    return (min(GRID, tokens.rows), min(GRID, tokens.columns),
            min(COMPONENTS, tokens.channels))


def keypoints_shape(tokens: TokenSpec) -> tuple[int, int]:
    """Points of the part `keypoints`, and 2 for x and y."""
    return min(KEYPOINTS, tokens.channels), 2


def choose_parts(
    names: Sequence[str], bundle: Bundle, pooling: str,
) -> tuple[EmbeddingPart, ...]:
    """
    Lay out a row of the parts that are asked for, in this order and without gaps.

    :param names: of PARTS, each once; none: those of DEFAULT_PARTS that the bundle has.
    :param pooling: one of encoder.POOLINGS, for the descriptions.
    :raises BundleError: an unknown name, one twice, or one that the bundle has no graph for.
    """
    check_part_names(names)
    there = bundle.has(SPATIAL)
    lacking = [name for name in names if name in _OF_SPATIAL and not there]
    if lacking:
        raise BundleError(
            f'{bundle.path} has no {SPATIAL}, which the embedding part{"s" * (len(lacking) > 1)} '
            f'{", ".join(lacking)} need{"s" * (len(lacking) == 1)}; add it with `hralign bundle '
            f'add-parts`, or ask for others: '
            f'{", ".join(name for name in PARTS if name not in _OF_SPATIAL)}')
    chosen = names or [name for name in DEFAULT_PARTS if there or name not in _OF_SPATIAL]
    parts: list[EmbeddingPart] = []
    for name in chosen:
        offset = parts[-1].offset + parts[-1].size if parts else 0
        parts.append(EmbeddingPart(name, offset, *_MAKERS[name](bundle, pooling)))
    return tuple(parts)


def check_part_names(names: Sequence[str]) -> None:
    """
    Refuse names that are no parts, whatever the bundle.

    :raises BundleError: an unknown name, or one twice.
    """
    wrong = [name for name in names if name not in PARTS]
    if wrong or len(set(names)) != len(names):
        raise BundleError(
            f'embedding parts are {", ".join(map(repr, names))}; allowed: {", ".join(PARTS)}, '
            'each at most once')


def part_named(parts: Sequence[EmbeddingPart], name: str) -> EmbeddingPart:
    """
    Find a part.

    :raises ValueError: it is none of these.
    """
    for part in parts:
        if part.name == name:
            return part
    raise ValueError(
        f"there is no part '{name}' in this embedding; there are "
        f'{", ".join(part.name for part in parts)}. Ask for it when the encoder is loaded')


# Shape, frames, unit norm and description of a part.
_About = tuple[tuple[int, ...], int, bool, str]


def _spatial(bundle: Bundle, pooling: str) -> _About:
    return (spatial_shape(bundle.manifest.tokens), 1, False,
            'the tokens where they are in the image, from its upper left corner, each reduced to '
            'its largest principal components of variance 1')


def _keypoints(bundle: Bundle, pooling: str) -> _About:
    return (keypoints_shape(bundle.manifest.tokens), 1, False,
            'where in the image each principal component is large (spatial softmax): x and y, -1 '
            'at the left and upper edge, 1 at the right and lower one')


def _mean(bundle: Bundle, pooling: str) -> _About:
    return (bundle.manifest.tokens.channels,), 1, True, 'the mean of the tokens'


def _task(bundle: Bundle, pooling: str) -> _About:
    return (bundle.manifest.tokens.channels,), 1, True, f'the tokens, pooled by {_how(pooling)}'


def _clip(bundle: Bundle, pooling: str) -> _About:
    length = bundle.manifest.clip.length
    return ((bundle.manifest.tokens.channels,), length, True,
            f'tokens of the newest {length} frames, pooled by {_how(pooling)}')


def _how(pooling: str) -> str:
    return 'attention to the instruction' if pooling == 'attention' else 'their mean'


_MAKERS: dict[str, Callable[[Bundle, str], _About]] = {
    'spatial': _spatial, 'keypoints': _keypoints, 'mean': _mean, 'task': _task, 'clip': _clip}
# Every part that there is.
PARTS = tuple(_MAKERS)
# Those that a bundle without spatial.onnx lacks.
_OF_SPATIAL = ('spatial', 'keypoints')
