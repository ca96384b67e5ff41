# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A small policy: parts of an embedding behind a bottleneck, proprioception, two hidden layers."""

from dataclasses import dataclass

import torch
from torch import nn, Tensor


@dataclass(frozen=True, eq=False)
class Normalisation:
    """
    Means and spreads of what a policy is given and of what it returns.

    :param embedding: mean and spread, float32 [2, V, D].
    :param proprio: float32 [2, P].
    :param actions: float32 [2, A].
    """

    embedding: Tensor
    proprio: Tensor
    actions: Tensor


class PolicyNetwork(nn.Module):
    """
    From one observation to a chunk of actions, normalisation included.

    :param bottleneck: numbers that are left of the embedding: what proprioception is weighed
        against, and what keeps a handful of demonstrations from being learnt by heart.
    :param hidden: of each of two layers.
    :param dropout: fraction of the embedding's numbers that are left out while it is trained.
    """

    embedding: Tensor
    proprio: Tensor
    scale: Tensor

    def __init__(
        self, normalisation: Normalisation, *, chunk: int, bottleneck: int = 64,
        hidden: int = 256, dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer('embedding', normalisation.embedding)
        self.register_buffer('proprio', normalisation.proprio)
        self.register_buffer('scale', normalisation.actions)
        self.chunk, self.actions = chunk, normalisation.actions.shape[1]
        seen = normalisation.embedding[0].numel()
        known = normalisation.proprio.shape[1]
        self.reduce = nn.Sequential(nn.Dropout(dropout), nn.Linear(seen, bottleneck)) \
            if seen else None
        self.layers = nn.Sequential(
            nn.Linear((bottleneck if seen else 0) + known, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, chunk * self.actions))

    def normalised(self, embedding: Tensor, proprio: Tensor) -> Tensor:
        """
        Return actions of mean 0 and spread 1, which is what losses compare.

        :param embedding: [B, V, D]; D may be 0.
        :param proprio: [B, P]; P may be 0.
        :returns: [B, chunk, A].
        """
        known = (proprio - self.proprio[0]) / self.proprio[1]
        if self.reduce is not None:
            seen = ((embedding - self.embedding[0]) / self.embedding[1]).flatten(1)
            known = torch.cat([self.reduce(seen), known], dim=1)
        made: Tensor = self.layers(known).reshape(-1, self.chunk, self.actions)
        return made

    def forward(self, embedding: Tensor, proprio: Tensor) -> Tensor:
        """Return actions in their own units, [B, chunk, A]; see `normalised`."""
        made: Tensor = self.normalised(embedding, proprio) * self.scale[1] + self.scale[0]
        return made


class PolicyGraph(nn.Module):
    """
    A policy as it is exported: one observation, and no input that is not used.

    :param network: in evaluation mode.
    """

    def __init__(self, network: PolicyNetwork) -> None:
        super().__init__()
        self.network = network
        self.inputs = [name for name, size in (
            ('embedding', network.embedding[0].numel()), ('proprio', network.proprio[0].numel()))
            if size]

    def forward(self, *given: Tensor) -> Tensor:
        """Return [chunk, A] of embedding [V, D] and proprio [P], as far as they are inputs."""
        found = dict(zip(self.inputs, given, strict=True))
        empty = self.network.scale.new_zeros(0)
        made: Tensor = self.network(
            found.get('embedding', empty)[None], found.get('proprio', empty)[None])[0]
        return made
