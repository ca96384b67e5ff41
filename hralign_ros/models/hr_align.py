# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is trained: adapters and the query of the task attention, between two frozen halves."""

from typing import NamedTuple

from hralign_ros.models.heads import TaskAttention
import torch
from torch import nn, Tensor

POOLINGS = ('attention', 'mean')


class Streams(NamedTuple):
    """
    Pooled features of a batch, norm 1.

    `human` is float32 [B, C]; the others are [R, C], one row per robot clip.
    """

    human: Tensor
    robot_frozen: Tensor
    robot_adapted: Tensor


def tokens_of(maps: Tensor) -> Tensor:
    """
    Give the tokens of each clip as rows: [B, T, C, rows, columns] -> [B, T * rows * columns, C].

    Free of charge where channels are last in memory, as the feature cache has them; a copy
    otherwise.
    """
    return maps.permute(0, 1, 3, 4, 2).flatten(1, 3)


def pool(maps: Tensor, query: Tensor, floor: float = 0.0) -> Tensor:
    """
    Pool clips by their attention to the task (HR-Align, Eq. 4 and 5), each with its own query.

    The same sums as `TaskAttention`, for a whole batch.

    :param maps: float [B, T, C, rows, columns].
    :param query: float [B, C], the text feature after its linear layer.
    :param floor: fraction of the attention that is uniform over all tokens.
    :returns: float [B, C] of norm 1.
    """
    return _attend(tokens_of(maps), query[:, None], floor)[:, 0]


def pool_for_each(maps: Tensor, queries: Tensor, floor: float = 0.0) -> Tensor:
    """
    Pool every clip with every query.

    :param maps: float [B, T, C, rows, columns].
    :param queries: float [K, C].
    :param floor: fraction of the attention that is uniform over all tokens.
    :returns: float [B, K, C] of norm 1.
    """
    return _attend(tokens_of(maps), queries[None], floor)


def mean_pool(maps: Tensor) -> Tensor:
    """Average all tokens of each clip: [B, T, C, rows, columns] -> [B, C] of norm 1."""
    return _unit(tokens_of(maps).mean(1))


def _attend(tokens: Tensor, queries: Tensor, floor: float) -> Tensor:
    """Pool tokens [B, N, C] with queries [B or 1, K, C] to [B, K, C] of norm 1."""
    attention = torch.softmax(torch.matmul(tokens, queries.transpose(1, 2)), dim=1)
    pooled = torch.bmm(attention.transpose(1, 2), tokens)
    if floor:
        pooled = (1.0 - floor) * pooled + floor * tokens.mean(1, keepdim=True)
    return _unit(pooled)


def _unit(x: Tensor) -> Tensor:
    # Clamped below the root, whose slope at 0 is infinite.
    return x / torch.sqrt((x * x).sum(-1, keepdim=True).clamp(min=1e-12))


class HRAlign(nn.Module):
    """
    Adapters and task attention on the maps that the frozen front half of a backbone gives.

    :param adapters: map to map of the same shape; the exact identity at the start.
    :param back: the frozen rest of the backbone behind them, [n, C', r, c] -> [n, C, rows,
        columns]; for late adapters of a convolutional backbone there is nothing in it.
    :param text_dim: D of the text features.
    :param channels: C of the final tokens.
    :param pooling: attention, or mean, which ignores the text.
    :param floor: of the attention, see `TaskAttention`.
    :raises ValueError: unknown pooling, or a floor outside 0 to 1.
    """

    def __init__(
        self, adapters: nn.Module, back: nn.Module, text_dim: int, channels: int, *,
        pooling: str = 'attention', floor: float = 0.0,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is '{pooling}'; allowed: {', '.join(POOLINGS)}")
        self.adapters = adapters
        self.attention = TaskAttention(text_dim, channels, floor=floor)
        parts = [m for m in back.modules() if not any(True for _ in m.children())]
        nothing = all(isinstance(m, nn.Identity) for m in parts)
        self.back = nn.Identity() if nothing else back.eval().requires_grad_(False)
        self.pooling = pooling

    def train(self, mode: bool = True) -> 'HRAlign':
        """Switch the mode of what is trained; the frozen half stays in evaluation mode."""
        super().train(mode)
        self.back.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Tell where it computes."""
        return next(self.parameters()).device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Give the parameters that training changes, by name: adapters and query."""
        fixed = ('back.', 'attention.') if self.pooling == 'mean' else ('back.',)
        return {name: p for name, p in self.named_parameters() if not name.startswith(fixed)}

    def trained_state(self) -> dict[str, Tensor]:
        """Give a copy of everything that is not the frozen backbone, on the CPU."""
        return {name: value.detach().to('cpu', copy=True)
                for name, value in self.state_dict().items() if not name.startswith('back.')}

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """
        Take what `trained_state` gave.

        :raises ValueError: names or shapes are those of another model.
        """
        mine = self.trained_state()
        wrong = sorted(name for name in mine.keys() | state.keys()
                       if name not in mine or name not in state
                       or mine[name].shape != state[name].shape)
        if wrong:
            raise ValueError(
                f'weights of another model: {", ".join(wrong[:3])} and {len(wrong)} in all are '
                'missing, superfluous or of another shape')
        self.load_state_dict(state, strict=False)

    def frozen_maps(self, maps: Tensor) -> Tensor:
        """
        Take cached maps to final tokens without any adapter.

        :param maps: float32 [B, T, C', r, c].
        :returns: float32 [B, T, C, rows, columns]; the very same tensor where nothing is behind
            the adapters.
        """
        if isinstance(self.back, nn.Identity):
            return maps
        with torch.no_grad():
            return self.back(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

    def adapted_maps(self, maps: Tensor) -> Tensor:
        """Take cached maps to final tokens through the adapters; shapes as `frozen_maps`."""
        tokens: Tensor = self.back(self.adapters(maps.flatten(0, 1)))
        return tokens.unflatten(0, maps.shape[:2])

    def pooled(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Pool final tokens [B, T, C, rows, columns] with texts [B, D] to [B, C] of norm 1."""
        if self.pooling == 'mean':
            return mean_pool(tokens)
        return pool(tokens, self.attention.query(text), self.attention.floor)

    def pooled_for_each(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """
        Pool final tokens [B, T, C, rows, columns] with each text [K, D] to [B, K, C] of norm 1.

        K is 1 where the pooling is the mean, whatever the texts are.
        """
        if self.pooling == 'mean':
            return mean_pool(tokens)[:, None]
        return pool_for_each(tokens, self.attention.query(texts), self.attention.floor)

    def forward(
        self, human: Tensor, robot: Tensor, text: Tensor, owner: Tensor | None = None,
    ) -> Streams:
        """
        Compute the three streams of HR-Align from cached maps (Eq. 1, 2, 4, 5).

        :param human: float32 [B, T, C', r, c].
        :param robot: float32 [R, T, C', r, c]; its frozen and its adapted stream start from the
            same maps.
        :param text: float32 [B, D], one per pair: all streams of a pair have the same query.
        :param owner: int64 [R], pair of each robot clip; None: clip i is pair i's.
        """
        mine = text if owner is None else text[owner]
        return Streams(
            self.pooled(self.frozen_maps(human), text),
            self.pooled(self.frozen_maps(robot), mine),
            self.pooled(self.adapted_maps(robot), mine))

    def text_scores(self, maps: Tensor, texts: Tensor) -> Tensor:
        """
        Compare adapted clips with texts, each clip pooled anew for each text.

        A clip that were pooled with its own text only would tell by that which text is its own.

        :param maps: float32 [B, T, C', r, c].
        :param texts: float32 [K, D].
        :returns: float32 [B, K], cosines.
        :raises ValueError: pooling is mean, which knows no text.
        """
        if self.pooling == 'mean':
            raise ValueError("videos are compared with texts in the query's space: pooling must "
                             'be attention')
        pooled = self.pooled_for_each(self.adapted_maps(maps), texts)
        return (pooled * _unit(self.attention.query(texts))).sum(-1)
