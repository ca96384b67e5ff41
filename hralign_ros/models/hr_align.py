# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is trained: adapters and the query of the task attention, between two frozen halves."""

import torch
from torch import nn, Tensor

POOLINGS = ('attention', 'mean')


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


def pool(maps: Tensor, queries: Tensor, floor: float = 0.0) -> Tensor:
    """
    Pool clips by their attention to tasks (HR-Align, Eq. 4 and 5).

    The same sums as `TaskAttention`, for a whole batch.

    :param maps: float [B, T, C, rows, columns].
    :param queries: text features after their linear layer: float [B, K, C], each clip's own, or
        [1, K, C], the same for every clip.
    :param floor: fraction of the attention that is uniform over all tokens.
    :returns: float [B, K, C] of norm 1.
    """
    tokens = _tokens_of(maps)
    attention = torch.softmax(torch.matmul(tokens, queries.transpose(1, 2)), dim=1)
    pooled = torch.bmm(attention.transpose(1, 2), tokens)
    if floor:
        pooled = (1.0 - floor) * pooled + floor * tokens.mean(1, keepdim=True)
    return _unit(pooled)


def mean_pool(maps: Tensor) -> Tensor:
    """Average all tokens of each clip: [B, T, C, rows, columns] -> [B, C] of norm 1."""
    return _unit(_tokens_of(maps).mean(1))


def _tokens_of(maps: Tensor) -> Tensor:
    """
    Give the tokens of each clip as rows: [B, T, C, rows, columns] -> [B, T * rows * columns, C].

    Free of charge where channels are last in memory, as the feature cache has them; a copy
    otherwise.
    """
    return maps.permute(0, 1, 3, 4, 2).flatten(1, 3)


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
        return pool(tokens, self.attention.query(text)[:, None], self.attention.floor)[:, 0]

    def pooled_for_each(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """
        Pool final tokens [B, T, C, rows, columns] with each text [K, D] to [B, K, C] of norm 1.

        K is 1 where the pooling is the mean, whatever the texts are.
        """
        if self.pooling == 'mean':
            return mean_pool(tokens)[:, None]
        return pool(tokens, self.attention.query(texts)[None], self.attention.floor)

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
