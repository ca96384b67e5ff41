# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A few directions in which tokens are kept: what moves within an episode, and what is most.

A token of 1280 channels is too large to keep for every frame of thousands of episodes. Half of
the directions are those in which tokens change most from an episode's first frame to later ones,
in the view that stands still: the arm and what it handles. The other half are the largest of what
is left, scenes included.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Basis:
    """
    From tokens to fewer numbers: (token - mean) @ matrix.

    :param mean: float32 [C].
    :param matrix: float32 [C, R]; a training token comes out with variance 1 in each of R.
    """

    mean: Floats
    matrix: Floats

    def apply(self, tokens: Floats) -> Floats:
        """Reduce tokens [..., C] to [..., R]."""
        return np.asarray((tokens - self.mean) @ self.matrix, np.float32)

    @property
    def key(self) -> str:
        """Identify the numbers."""
        return sha256(self.mean.tobytes() + self.matrix.tobytes()).hexdigest()[:16]


def fit_basis(episodes: Iterable[tuple[Floats, Floats]], *, size: int = 96) -> Basis:
    """
    Fit the directions to some episodes.

    :param episodes: of each a few frames, the first one first: tokens of the view that stands
        still, float32 [F, N, C], and of the other views, float32 [G, N, C], G may be 0.
    :param size: R, at most C.
    :raises ValueError: there are no episodes, or `size` is not in 1 to C.
    """
    total = change = sums = None
    count = changes = 0
    for still, others in episodes:
        channels = still.shape[-1]
        if total is None or change is None or sums is None:
            if not 1 <= size <= channels:
                raise ValueError(f'size is {size}; needed are 1 to {channels}')
            total, change = np.zeros((2, channels, channels))
            sums = np.zeros(channels)
        tokens = np.concatenate([still, others]).reshape(-1, channels).astype(np.float64)
        total += tokens.T @ tokens
        sums += tokens.sum(0)
        count += len(tokens)
        moved = (still[1:] - still[:1]).reshape(-1, channels).astype(np.float64)
        change += moved.T @ moved
        changes += len(moved)
    if total is None or change is None or sums is None:
        raise ValueError('no episodes to fit a basis to')
    mean = sums / count
    covariance = total / count - np.outer(mean, mean)
    first = _largest(change / max(changes, 1), size // 2)
    rest = np.eye(len(mean)) - first @ first.T
    second = _largest(rest @ covariance @ rest, size - size // 2)
    matrix = np.concatenate([first, second], axis=1)
    spread = np.sqrt(np.maximum(np.einsum('cr,cd,dr->r', matrix, covariance, matrix), 1e-12))
    return Basis(mean.astype(np.float32), (matrix / spread).astype(np.float32))


def _largest(covariance: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the eigenvectors of the largest eigenvalues as columns."""
    return np.asarray(np.linalg.eigh(covariance)[1][:, ::-1][:, :count])
