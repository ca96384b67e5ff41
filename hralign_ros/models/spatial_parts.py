# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where things are in the newest frame: a reduced grid of tokens, and keypoints."""

from hralign_ros.data.spatial_basis import SpatialBasis
from hralign_ros.runtime.bundle import TokenSpec
from hralign_ros.runtime.parts import keypoints_shape, spatial_shape
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor


class SpatialParts(nn.Module):
    """
    Make the parts `spatial` and `keypoints` of tokens.

    :param basis: of the tokens' channels.
    :param tokens: grid and channels.
    :raises ValueError: the basis is one of other tokens.
    """

    weight: Tensor
    bias: Tensor
    places: Tensor
    pooling: Tensor | None

    def __init__(self, basis: SpatialBasis, tokens: TokenSpec) -> None:
        super().__init__()
        wanted = tokens.channels, keypoints_shape(tokens)[0]
        if basis.matrix.shape != wanted:
            raise ValueError(f'the basis is {basis.matrix.shape}; needed is {wanted}')
        rows, columns, self.components = spatial_shape(tokens)
        self.register_buffer('weight', torch.from_numpy(basis.matrix))
        self.register_buffer('bias', torch.from_numpy(-basis.mean @ basis.matrix))
        self.register_buffer('places', torch.from_numpy(places(tokens)))
        smaller = (rows, columns) != tokens.grid
        self.register_buffer('pooling', torch.from_numpy(np.kron(
            _averages(rows, tokens.rows), _averages(columns, tokens.columns))) if smaller
            else None)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """
        Reduce.

        :param tokens: [V, N, C].
        :returns: spatial [V, rows * columns * components], keypoints [V, K * 2].
        """
        reduced = torch.matmul(tokens, self.weight) + self.bias
        grid = reduced[..., :self.components]
        if self.pooling is not None:
            grid = torch.matmul(self.pooling, grid)
        weights = torch.softmax(reduced, dim=1)
        return grid.flatten(1), torch.matmul(weights.transpose(1, 2), self.places).flatten(1)


def places(tokens: TokenSpec) -> NDArray[np.float32]:
    """
    Tell where the middle of each token lies in the image: float32 [N, 2], x and y.

    x is -1 at the left edge of the image and 1 at the right one, y -1 at the upper edge and 1 at
    the lower one, whatever the grid: so points of two backbones mean the same.
    """
    y, x = ((2 * np.arange(count) + 1) / count - 1 for count in tokens.grid)
    return np.stack([np.tile(x, tokens.rows), np.repeat(y, tokens.columns)], 1).astype(np.float32)


def _averages(parts: int, count: int) -> NDArray[np.float32]:
    """Divide a side of so many tokens evenly; a row of weights for each part."""
    edges = np.linspace(0, count, parts + 1)[:, None]
    first, last = np.arange(count), np.arange(1, count + 1)
    share = np.minimum(edges[1:], last) - np.maximum(edges[:-1], first)
    return (np.maximum(share, 0.0) * parts / count).astype(np.float32)
