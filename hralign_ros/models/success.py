# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The success head: a clip's tokens against a task's text and its failure prompts."""

from dataclasses import dataclass
import math

from hralign_ros.models.grounding import Grounding
import torch
from torch import nn, Tensor
from torch.nn import functional

OUTPUTS = ('probability', 'modes', 'progress', 'score', 'ood', 'failed', 'video')


@dataclass(frozen=True)
class HeadOutputs:
    """
    What the head makes of clips, before any text.

    :param clip: [B, F], for the linear heads.
    :param video: [B, D], norm 1, in the text encoder's space.
    :param progress: [B], logits.
    :param failed: [B], logits: the attempt has failed by now.
    """

    clip: Tensor
    video: Tensor
    progress: Tensor
    failed: Tensor


class SuccessHead(nn.Module):
    """
    Compare a clip with the task's text and with its failure prompts (after Adapt2Reward).

    Tokens are reduced to R numbers by a fixed basis. Each is seen beside what stood in the same
    place in the view's oldest frame, so that change is seen where it happens. A few learned
    queries and the mean pool a frame; a small transformer joins the frames of all views, knowing
    their ages; what it makes of them is a vector in the text encoder's space.

    The score of a clip is s(text) - log sum over k of exp s(text with prompt k), s being a cosine
    times a learned scale: the log-odds of the softmax over the plain text and the prompts. A
    grounding's score is added, wherever the last view takes part: what a clip is about comes from
    the one, which thing it was done to from the other. Training makes log-odds of each by itself.
    The sum counts twice what both have seen: it is log-odds only once it is calibrated. Whether
    the attempt has failed is for the grounding to say, where it sees: for another thing the same
    clip may be a success.

    :param views: V.
    :param channels: C of the tokens.
    :param tokens: N.
    :param text_dim: D of the text features.
    :param size: R.
    :param width: of a token; a frame has a quarter more.
    :param queries: with which a frame is pooled, beside the mean.
    :param newest: the newest frame of each view also goes past the transformer.
    :param grounding: what looks for the things that the text names; None: nothing does.
    """

    def __init__(
        self, views: int, channels: int, tokens: int, text_dim: int, *, size: int = 96,
        width: int = 128, queries: int = 3, ood_size: int = 32, dropout: float = 0.1,
        newest: bool = False, grounding: Grounding | None = None,
    ) -> None:
        super().__init__()
        self.grounding = grounding
        frame = width * 5 // 4
        self.basis_mean: Tensor
        self.basis_matrix: Tensor
        self.register_buffer('basis_mean', torch.zeros(channels))
        self.register_buffer('basis_matrix', torch.eye(channels, size))
        self.token = nn.Linear(size, width)
        self.before = nn.Linear(size, width, bias=False)
        self.place = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.token_view = nn.Parameter(torch.randn(views, width) * 0.02)
        self.query = nn.Parameter(torch.randn(queries, width) * 0.1)
        self.frame = nn.Linear((queries + 1) * width, frame)
        self.frame_view = nn.Parameter(torch.randn(views, frame) * 0.02)
        self.age = nn.Linear(2, frame)
        self.summary = nn.Parameter(torch.randn(frame) * 0.02)
        self.mix = nn.ModuleList(nn.TransformerEncoderLayer(
            frame, nhead=4, dim_feedforward=frame, dropout=dropout, batch_first=True,
            norm_first=True) for _ in range(2))
        self.newest = nn.Linear(views * frame, frame) if newest else None
        self.norm = nn.LayerNorm(frame)
        self.video = nn.Linear(frame, text_dim)
        self.progress = nn.Linear(frame, 1)
        self.failed = nn.Linear(frame, 1)
        # CLIP's and Singularity's temperature.
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(0.0))
        # How far a view's mean token is from those of training: in a subspace, and beside it.
        self.ood_mean: Tensor
        self.ood_matrix: Tensor
        self.ood_axes: Tensor
        self.ood_rest: Tensor
        self.register_buffer('ood_mean', torch.zeros(views, channels))
        self.register_buffer('ood_matrix', torch.zeros(views, channels, ood_size))
        self.register_buffer('ood_axes', torch.ones(views, ood_size))
        self.register_buffer('ood_rest', torch.ones(views))

    def forward(
        self, tokens: Tensor, mask: Tensor, age: Tensor, text: Tensor, mode_mask: Tensor,
        fine: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """
        Score one clip; the outputs are named in OUTPUTS.

        :param tokens: [V, T, N, C].
        :param mask: [V, T].
        :param age: [V, T], seconds.
        :param text: [1 + K, D]: the task, then one row per failure prompt, norms 1.
        :param mode_mask: [K], 1 where the prompt is in use.
        :param fine: [2, M, R], fine tokens of the last view's first frame in the episode and of
            its newest, where there is a grounding.
        :returns: probability [1]; modes [K], given failure; progress [1]; raw score [1]; OOD
            score [1]; probability of having failed [1]; the clip
            as a vector in the text encoder's space [D], norm 1.
        """
        reduced = (tokens - self.basis_mean) @ self.basis_matrix
        encoded = self.encode(reduced[None], mask[None], age[None])
        similarity = encoded.video[0] @ text.T * self.scale
        score, failed = self.scores(similarity[None], mode_mask), encoded.failed
        if self.grounding is not None and fine is not None:
            there = mask[-1].amax(-1)
            found = self.grounding(fine[None], text[None, :1])
            score = score + there * found.scores[0]
            failed = failed + there * (found.failed[0] - failed)
        modes = torch.softmax(similarity[1:] + (mode_mask - 1.0) * 1e9, dim=0) * mode_mask
        return (torch.sigmoid(score), modes, torch.sigmoid(encoded.progress), score,
                self.ood_score(tokens.mean(2), mask)[None], torch.sigmoid(failed),
                encoded.video[0])

    @property
    def scale(self) -> Tensor:
        """Give the factor on cosines, clamped as in Singularity."""
        return self.log_scale.clamp(math.log(1 / 0.5), math.log(1 / 0.01)).exp()

    def scores(self, similarity: Tensor, mode_mask: Tensor) -> Tensor:
        """
        Turn scaled cosines into raw scores.

        :param similarity: [..., 1 + K].
        :param mode_mask: [K] or [..., K].
        :returns: [...].
        """
        rest = torch.logsumexp(similarity[..., 1:] + (mode_mask - 1.0) * 1e9, dim=-1)
        used = (mode_mask.sum(-1) > 0).to(similarity.dtype)
        return similarity[..., 0] - torch.where(used > 0, rest, 0.0) * used + self.bias

    def encode(self, reduced: Tensor, mask: Tensor, age: Tensor) -> HeadOutputs:
        """
        Read progress, failure and the vector off clips.

        :param reduced: [B, V, T, N, R].
        :param mask: [B, V, T].
        :param age: [B, V, T].
        """
        return self.outputs(self.join(self.pool_frames(reduced, mask), mask, age))

    def pool_frames(self, reduced: Tensor, mask: Tensor) -> Tensor:
        """Pool each frame of clips: [B, V, T, N, R] to [B, V, T, F]."""
        # One where a view has its oldest frame.
        oldest = mask * (torch.cumsum(mask, dim=-1) < 1.5).to(mask.dtype)
        before = (reduced * oldest[..., None, None]).sum(-3, keepdim=True)
        return self.pool_since(reduced * mask[..., None, None], before)

    def pool_since(self, reduced: Tensor, before: Tensor) -> Tensor:
        """Pool frames [..., V, T, N, R] beside what was there before, [..., V, 1, N, R]."""
        # Two linear layers, as one of both side by side would be, at half the cost.
        place = self.place + self.token_view[:, None, None]
        seen = functional.relu(self.token(reduced) + (self.before(before) + place))
        attention = torch.softmax(seen @ self.query.T * (seen.shape[-1] ** -0.5), dim=-2)
        pooled = attention.transpose(-1, -2) @ seen
        pooled = torch.cat([pooled, seen.mean(-2, keepdim=True)], dim=-2)
        return torch.as_tensor(self.frame(pooled.flatten(-2)))

    def join(self, frames: Tensor, mask: Tensor, age: Tensor) -> Tensor:
        """Join the frames of clips, [B, V, T, F], to one vector each, [B, F]."""
        clock = torch.stack([age, torch.log1p(age)], dim=-1)
        placed = frames + self.frame_view[:, None] + self.age(clock)
        sequence = placed.flatten(1, 2) * mask.flatten(1)[..., None]
        summary = self.summary.expand(len(frames), 1, -1)
        sequence = torch.cat([summary, sequence], dim=1)
        # The summary is always there, so that no row attends to nothing.
        hidden = torch.cat([torch.zeros_like(mask[:, 0, :1]), 1.0 - mask.flatten(1)], dim=1) > 0.5
        for layer in self.mix:
            sequence = layer(sequence, src_key_padding_mask=hidden)
        joined = sequence[:, 0]
        if self.newest is not None:
            joined = joined + self.newest(_newest(frames, mask))
        return torch.as_tensor(self.norm(joined))

    def outputs(self, clip: Tensor) -> HeadOutputs:
        """Read off what a joined clip [B, F] says."""
        return HeadOutputs(
            clip, functional.normalize(self.video(clip), dim=-1),
            self.progress(clip)[..., 0], self.failed(clip)[..., 0])

    def ood_score(self, means: Tensor, mask: Tensor) -> Tensor:
        """
        Tell how unlike the training data the frames are.

        The squared Mahalanobis distance of a view's mean token, over its frames, from those of
        training, under a Gaussian with few free axes and one variance for all others; per
        dimension, and the largest of all views.

        :param means: [..., V, T, C], mean tokens.
        :param mask: [..., V, T].
        :returns: [...].
        """
        count = mask.sum(-1)
        view = (means * mask[..., None]).sum(-2) / count.clamp(min=1.0)[..., None]
        centred = view - self.ood_mean
        along = (centred[..., None, :] @ self.ood_matrix)[..., 0, :]
        beside = (centred * centred).sum(-1) - (along * along).sum(-1)
        distance = (along * along / self.ood_axes).sum(-1) / along.shape[-1] \
            + beside / self.ood_rest
        return (0.5 * distance * (count > 0).to(distance.dtype)).amax(-1)


def _newest(frames: Tensor, mask: Tensor) -> Tensor:
    """Take each view's newest frame, zeros where it has none: [B, V, T, F] to [B, V * F]."""
    # One where a view has its newest frame.
    last = mask * (mask.sum(-1, keepdim=True) - torch.cumsum(mask, dim=-1) < 0.5).to(mask.dtype)
    return (frames * last[..., None]).sum(-2).flatten(1)
