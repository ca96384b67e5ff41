# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The head of a task that was taught in one lab: linear in tokens and in how they changed."""

from collections.abc import Sequence

import torch
from torch import nn, Tensor

OUTPUTS = ('score', 'failure', 'ood')
# Quadrants of the token grid, in which the out-of-distribution score looks.
QUADRANTS = 4


class TaughtHead(nn.Module):
    """
    Score a clip by its newest frame and by how that differs from its oldest.

    In one lab cameras and table stay where they are, so that a place in the token grid is a place
    on the table, and a linear head can tell what stands there. Every set of views has weights of
    its own: a camera may be gone one day.

    :param grid: rows and columns of tokens.
    :param channels: C of the tokens.
    :param size: R, to which tokens are reduced.
    :param text_dim: D of the base head's vector.
    :param view_sets: S, for which there are weights, each of the indices of its views.
    :param views: V.
    :param ood_size: axes of the out-of-distribution model.
    """

    def __init__(
        self, views: int, grid: tuple[int, int], channels: int, size: int, text_dim: int,
        view_sets: Sequence[Sequence[int]], *, ood_size: int = 32,
    ) -> None:
        super().__init__()
        count, sets = grid[0] * grid[1], len(view_sets)
        self.basis_mean: Tensor
        self.basis_matrix: Tensor
        self.sets: Tensor
        self.weight: Tensor
        self.video_weight: Tensor
        self.bias: Tensor
        self.failure_scale: Tensor
        self.pool: Tensor
        self.ood_mean: Tensor
        self.ood_matrix: Tensor
        self.ood_axes: Tensor
        self.ood_rest: Tensor
        self.ood_limit: Tensor
        self.contrast_limit: Tensor
        self.register_buffer('basis_mean', torch.zeros(channels))
        self.register_buffer('basis_matrix', torch.zeros(channels, size))
        members = torch.zeros(sets, views)
        for row, some in enumerate(view_sets):
            members[row, list(some)] = 1.0
        self.register_buffer('sets', members)
        # Of success and failure, on the newest frame and on its difference to the oldest.
        self.register_buffer('weight', torch.zeros(sets, 2, 2, views, count, size))
        self.register_buffer('video_weight', torch.zeros(sets, 2, text_dim))
        self.register_buffer('bias', torch.zeros(sets, 2))
        # Scale and shift from the failure score to its log-odds.
        self.register_buffer('failure_scale', torch.tensor([[1.0, -30.0]]).repeat(sets, 1))
        self.register_buffer('pool', quadrants(grid))
        self.register_buffer('ood_mean', torch.zeros(views, QUADRANTS * channels))
        self.register_buffer('ood_matrix', torch.zeros(views, QUADRANTS * channels, ood_size))
        self.register_buffer('ood_axes', torch.ones(views, ood_size))
        self.register_buffer('ood_rest', torch.ones(views))
        # Of each view's distance, above which its images are not the lab's.
        self.register_buffer('ood_limit', torch.ones(views))
        # Of each view's contrast, below which it is covered.
        self.register_buffer('contrast_limit', torch.zeros(views))

    def forward(self, tokens: Tensor, mask: Tensor, video: Tensor) -> tuple[Tensor, ...]:
        """
        Score one clip; the outputs are named in OUTPUTS.

        :param tokens: [V, T, N, C].
        :param mask: [V, T].
        :param video: [D], the base head's vector of the clip.
        :returns: raw score [1]; probability of having failed [1]; out-of-distribution score [1].
        """
        views, length, count, channels = tokens.shape
        since = torch.cumsum(mask, dim=1)
        newest = mask * (since > since[:, -1:] - 0.5).to(mask.dtype)
        oldest = mask * (since < 1.5).to(mask.dtype)
        # One pass over the clip; what is masked has no weight.
        chosen = torch.stack([newest, oldest], dim=1) @ tokens.reshape(views, length, -1)
        frames = chosen.reshape(views, 2, count, channels)
        # A view that it was not taught says nothing.
        there = mask.amax(1) * self.sets.amax(0)
        reduced = (frames - self.basis_mean) @ self.basis_matrix
        seen = torch.stack([reduced[:, 0], reduced[:, 0] - reduced[:, 1]]) \
            * there[:, None, None]
        score, failure = self.score(seen, there, video)
        return (score[None], failure[None],
                self.ood_score((self.pool @ frames[:, 0]).flatten(1), reduced[:, 0], there)[None])

    def score(self, seen: Tensor, there: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """
        Score what is seen of reduced tokens: raw score, and probability of having failed.

        :param seen: [2, V, N, R], the newest frames, and their difference to the oldest; zeros for
            views that are not there.
        :param there: [V], 1 for views that are.
        :param video: [D].
        """
        which = ((self.sets - there).abs().sum(1) < 0.5).to(seen.dtype)
        logits = (which[:, None] * (
            (self.weight * seen).flatten(2).sum(2) + self.video_weight @ video + self.bias)).sum(0)
        scale = which @ self.failure_scale
        return logits[0], torch.sigmoid(scale[0] * logits[1] + scale[1])

    def ood_score(self, means: Tensor, reduced: Tensor, there: Tensor) -> Tensor:
        """
        Tell how unlike the lab's own images the newest frames are: more than 1, not its own.

        A wrist camera sees so much that the means of a covered one are nothing unusual; that all
        places look alike is.

        :param means: [..., V, QUADRANTS * C].
        :param reduced: [..., V, N, R], tokens.
        :param there: [..., V].
        :returns: [...], the largest of all views' distances, each as a multiple of its limit, and
            of how often their contrasts go into theirs.
        """
        far = self.ood_distances(means) / self.ood_limit
        covered = self.contrast_limit / contrast(reduced).clamp_min(1e-6)
        return (torch.maximum(far, covered) * there).amax(-1)

    def ood_distances(self, means: Tensor) -> Tensor:
        """
        Measure how far each view's images are from the lab's: [..., V, QUADRANTS * C] to [..., V].

        The Mahalanobis distance of a view's quadrant means, per dimension, under a Gaussian with
        few free axes and one variance for all others.
        """
        centred = means - self.ood_mean
        along = (centred[..., None, :] @ self.ood_matrix)[..., 0, :]
        beside = (centred * centred).sum(-1) - (along * along).sum(-1)
        distance = (along * along / self.ood_axes).mean(-1) + beside / self.ood_rest
        return 0.5 * distance


def contrast(reduced: Tensor) -> Tensor:
    """Measure how unlike one another the places of an image are: [..., N, R] to [...]."""
    centred = reduced - reduced.mean(-2, keepdim=True)
    return (centred * centred).sum(-1).mean(-1)


def quadrants(grid: tuple[int, int]) -> Tensor:
    """
    Pool a grid of tokens into its quadrants; a middle row or column belongs to both sides.

    :returns: [QUADRANTS, N], rows that sum to 1.
    """
    rows, columns = torch.arange(grid[0]), torch.arange(grid[1])
    halves = [[(line * 2 < len(line)).float(), (line * 2 >= len(line) - 1).float()]
              for line in (rows, columns)]
    pools = torch.stack([(down[:, None] * across).flatten()
                         for down in halves[0] for across in halves[1]])
    return pools / pools.sum(1, keepdim=True)
