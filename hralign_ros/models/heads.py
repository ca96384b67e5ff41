# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What pools tokens into an embedding: task-aware attention."""

import torch
from torch import nn, Tensor


class TaskAttention(nn.Module):
    """
    Pool tokens by their attention to the task (HR-Align, Eq. 4 and 5).

    One head, no scaling and no value projection: a linear layer turns the text feature into a
    query, a softmax over all tokens of a view's clip weighs them. The pooled feature has norm 1.

    A floor, which the paper does not have, spreads a fraction of the attention evenly over all
    tokens: what the text does not speak of, the arm above all, stays in the embedding.

    :param text_dim: D of the text feature.
    :param channels: C of the tokens.
    :param floor: that fraction, 0 (the paper) to 1 (the mean of all tokens).
    :raises ValueError: a floor outside of that.
    """

    def __init__(self, text_dim: int, channels: int, *, floor: float = 0.0) -> None:
        super().__init__()
        if not 0 <= floor <= 1:
            raise ValueError(f'the floor of the attention is {floor}; needed is 0 to 1')
        self.floor = floor
        self.query = nn.Linear(text_dim, channels)

    def forward(self, tokens: Tensor, mask: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """
        Pool.

        :param tokens: [V, T, N, C].
        :param mask: [V, T], 1 where there is a frame.
        :param task: [D].
        :returns: embedding [V, C], zeros for a view without frames; attention [V, T, N], which
            sums to 1 over T and N of a view with frames.
        """
        scores = torch.matmul(tokens, self.query(task))
        scores = scores + (mask[..., None] - 1.0) * 1e9
        attention = torch.softmax(scores.flatten(1), dim=1).unflatten(1, scores.shape[1:])
        attention = attention * mask[..., None]
        if self.floor:
            seen = mask.sum(1).clamp(min=1.0)[:, None, None] * tokens.shape[2]
            even = mask[..., None] / seen
            attention = (1.0 - self.floor) * attention + self.floor * even
        pooled = torch.matmul(
            attention.flatten(1)[:, None], tokens.flatten(1, 2)).squeeze(1)
        # Clamped, not added to: the exporter's optimiser drops an addition of 1e-12, and a view
        # without frames is then 0 / 0.
        norm = torch.sqrt((pooled * pooled).sum(-1, keepdim=True)).clamp(min=1e-6)
        present = (mask.sum(1, keepdim=True) > 0).to(pooled.dtype)
        return pooled / norm * present, attention
