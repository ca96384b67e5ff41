# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Grounding: find in two frames what an instruction names, and tell whether it has come true."""

from dataclasses import dataclass

import torch
from torch import nn, Tensor
from torch.nn import functional

# What is looked for: where the thing is now, where it was, and where its place is now.
LOOKED_FOR = 3
# Coordinates reach from 0 to this, so that they count beside features of order 1.
_REACH = 4.0
# What a text's feature is multiplied by, beside the root of its length: words differ little.
_TEXT = 3.0


@dataclass(frozen=True)
class Found:
    """
    What was found for each text.

    :param scores: [B, U], log-odds that it is so.
    :param failed: [B, U], log-odds that an attempt at it has failed by now.
    :param looks: [B, U, LOOKED_FOR, M], logits over the fine tokens of where it is.
    """

    scores: Tensor
    failed: Tensor
    looks: Tensor


class Grounding(nn.Module):
    """
    Read from fine tokens of an episode's first and newest frame whether a text has come true.

    Each place sees its token in both frames and their difference, and its neighbours. The text
    asks in two ways. A few queries attend to all places (a transformer decoder), as a detector's
    do. And three pointers say where its thing is now, where it was, and where its place is: a
    softmax over all places, trained with the true ones, whose mean is a point (spatial softmax).
    Points, what stands there, queries and text together make the score. They also tell whether an
    attempt has failed: the thing is elsewhere, or another one is where it should be.

    :param rows: of the map of fine tokens.
    :param channels: R, of each.
    :param text_dim: D of the text features.
    :param width: of a place.
    :param queries: of each text.
    :param layers: of the decoder.
    """

    def __init__(
        self, rows: int, columns: int, channels: int, text_dim: int, *, width: int = 128,
        queries: int = 4, layers: int = 2,
    ) -> None:
        super().__init__()
        self.rows, self.columns, self.queries = rows, columns, queries
        self.see = nn.Linear(3 * channels, width)
        self.place = nn.Parameter(torch.randn(rows * columns, width) * 0.02)
        self.neighbours = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1),
            nn.ReLU(), nn.Conv2d(width, width, 1))
        self.seen_norm = nn.LayerNorm(width)
        self.query = nn.Sequential(
            nn.Linear(text_dim, 2 * width), nn.ReLU(), nn.Linear(2 * width, queries * width))
        self.start = nn.Parameter(torch.randn(queries, width) * 0.1)
        # Its regularisation is noise on tokens: dropout would differ from rank to rank.
        self.attend = nn.ModuleList(nn.TransformerDecoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, batch_first=True,
            norm_first=True) for _ in range(layers))
        self.query_norm = nn.LayerNorm(width)
        self.pointer = nn.Sequential(
            nn.Linear(text_dim, 2 * width), nn.ReLU(), nn.Linear(2 * width, LOOKED_FOR * width))
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width // 2)
        size = queries * width + text_dim + LOOKED_FOR * (width // 2) + 2 * (LOOKED_FOR + 2)
        self.score = nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, 2))
        self.text_mean: Tensor
        self.register_buffer('text_mean', torch.zeros(text_dim))
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows,
                              (torch.arange(columns) + 0.5) / columns, indexing='ij')
        self.points: Tensor
        self.register_buffer('points', torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def forward(self, fine: Tensor, text: Tensor) -> Found:
        """
        Judge texts.

        :param fine: [B, 2, M, R], of the first and the newest frame.
        :param text: [B, U, D], norms 1; each is judged on its own.
        """
        return self.judge(self.look(fine), text)

    def look(self, fine: Tensor) -> Tensor:
        """See what changed, and where: [B, 2, M, R] to [B, M, W]."""
        first, newest = fine[:, 0], fine[:, 1]
        seen = functional.relu(
            self.see(torch.cat([first, newest, newest - first], dim=-1)) + self.place)
        image = seen.transpose(1, 2).unflatten(2, (self.rows, self.columns))
        return torch.as_tensor(
            self.seen_norm((image + self.neighbours(image)).flatten(2).transpose(1, 2)))

    def judge(self, seen: Tensor, text: Tensor) -> Found:
        """Judge texts [B, U, D] by what was seen, [B, M, W]."""
        batch, count = text.shape[:2]
        width = seen.shape[-1]
        words = (text - self.text_mean) * (_TEXT * text.shape[-1] ** 0.5)
        queries = (self.query(words).unflatten(2, (self.queries, width)) + self.start
                   ).flatten(1, 2)
        apart = None if count == 1 else self._apart(count, seen)
        for layer in self.attend:
            queries = layer(queries, seen, tgt_mask=apart)
        queries = self.query_norm(queries).view(batch, count, self.queries * width)
        pointers = self.pointer(words).unflatten(2, (LOOKED_FOR, width))
        looks = torch.einsum('bukw,bmw->bukm', pointers, self.key(seen)) * width ** -0.5
        weights = looks.softmax(-1)
        at = weights @ self.points
        found = torch.einsum('bukm,bmw->bukw', weights, self.value(seen))
        now, before, place = at.unbind(2)
        points = _REACH * torch.cat([now, before, place, now - before, now - place], dim=-1)
        scores = self.score(torch.cat([queries, words, found.flatten(2), points], dim=-1))
        return Found(scores[..., 0], scores[..., 1], looks)

    def _apart(self, count: int, like: Tensor) -> Tensor:
        """Keep the queries of one text from those of others: [U * Q, U * Q], added to logits."""
        text = torch.arange(count, device=like.device).repeat_interleave(self.queries)
        return torch.where(text[:, None] == text[None], 0.0, -1e9).to(like.dtype)
