# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What sits behind the tokens: task-aware attention, and the success head."""

import math

import torch
from torch import nn, Tensor
from torch.nn import functional


class TaskAttention(nn.Module):
    """
    Pool tokens by their attention to the task (HR-Align, Eq. 4 and 5).

    One head, no scaling and no value projection: a linear layer turns the text feature into a
    query, a softmax over all tokens of a view's clip weighs them. The pooled feature has norm 1.

    A floor, which the paper does not have, spreads a share of the attention evenly over all
    tokens: what the text does not speak of, the arm above all, stays in the embedding.

    :param text_dim: D of the text feature.
    :param channels: C of the tokens.
    :param floor: that share, 0 (the paper) to 1 (the mean of all tokens).
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


class SuccessHead(nn.Module):
    """
    Compare a clip with the task's text and with its failure prompts (after Adapt2Reward).

    Frames are pooled to one vector each, joined over views and time by a small transformer that
    knows each frame's age, and projected into the text encoder's space.

    :param views: V.
    :param channels: C of the tokens.
    :param text_dim: D of the text features.
    :param width: of the transformer.
    """

    def __init__(self, views: int, channels: int, text_dim: int, *, width: int = 192) -> None:
        super().__init__()
        self.frame = nn.Linear(channels, width)
        self.view = nn.Parameter(torch.randn(views, width) * 0.02)
        self.age = nn.Linear(2, width)
        self.mix = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, batch_first=True)
        self.video = nn.Linear(width, text_dim)
        self.progress = nn.Linear(width, 1)
        # CLIP's and Singularity's temperature; the score is a cosine times exp(log_scale).
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(0.0))
        # Distance of a clip from the mean of the training clips, in a whitened space.
        self.ood_mean: Tensor
        self.ood_scale: Tensor
        self.register_buffer('ood_mean', torch.zeros(width))
        self.register_buffer('ood_scale', torch.ones(width))

    def forward(
        self, tokens: Tensor, mask: Tensor, age: Tensor, text: Tensor, mode_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """
        Judge a clip.

        :param tokens: [V, T, N, C].
        :param mask: [V, T].
        :param age: [V, T], seconds.
        :param text: [1 + K, D]: the task, then one row per failure prompt, norms 1.
        :param mode_mask: [K], 1 where the prompt is in use.
        :returns: probability [1], modes [K], progress [1], raw score [1], OOD score [1].
        """
        clock = torch.stack([age, torch.log1p(age)], dim=-1)
        frames = self.frame(tokens.mean(2)) + self.view[:, None] + self.age(clock)
        present = mask.flatten()
        sequence = frames.flatten(0, 1)[None]
        mixed = self.mix(sequence, src_key_padding_mask=present[None] < 0.5)[0]
        # Padding rows may hold anything, NaN included, once they attended to nothing at all.
        mixed = torch.where(present[:, None] > 0.5, mixed, torch.zeros_like(mixed))
        clip = mixed.sum(0) / present.sum().clamp(min=1.0)
        video = functional.normalize(self.video(clip), dim=0)
        similarity = text @ video * self.log_scale.exp()
        score = (similarity[0] + self.bias)[None]
        modes = torch.softmax(similarity[1:] + (mode_mask - 1.0) * 1e9, dim=0) * mode_mask
        ood = (((clip - self.ood_mean) * self.ood_scale) ** 2).mean()[None]
        return (torch.sigmoid(score), modes, torch.sigmoid(self.progress(clip)), score, ood)
