# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Residual adapters behind a frozen backbone (HR-Align, section 3.2).

The paper's Eq. 3 has two layers; the authors' code has three, and so has this:
y = x + up(act(map(act(down(x))))). At the start `up` is zero, so that an adapter is the exact
identity and yet every layer gets a gradient from the second step on, `up` from the first.
"""

from collections import OrderedDict

from torch import nn, Tensor


class ConvAdapter(nn.Module):
    """
    The released geometry for a convolutional map: three 1x1 convolutions.

    :param channels: C, divisible by `down` and by `groups`.
    :param down: how much narrower the middle is.
    :param groups: of the first and the last convolution.
    """

    def __init__(self, channels: int, *, down: int = 4, groups: int = 8) -> None:
        super().__init__()
        hidden = channels // down
        self.down = nn.Conv2d(channels, hidden, 1, groups=groups)
        self.map = nn.Conv2d(hidden, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1, groups=groups)
        self.act = nn.ReLU()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)  # type: ignore[arg-type]  # made with a bias above

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a map [B, C, rows, columns]."""
        hidden: Tensor = self.act(self.map(self.act(self.down(x))))
        return x + self.up(hidden)


class TokenAdapter(nn.Module):
    """The released geometry for a ViT: three linear layers of full width with GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, channels)
        self.map = nn.Linear(channels, channels)
        self.up = nn.Linear(channels, channels)
        self.act = nn.GELU()
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a map [B, C, rows, columns]."""
        tokens = x.flatten(2).transpose(1, 2)
        hidden: Tensor = self.act(self.map(self.act(self.down(tokens))))
        return x + self.up(hidden).transpose(1, 2).unflatten(2, x.shape[2:])


def late_adapters(channels: int, kind: str, *, count: int = 3) -> nn.Sequential:
    """Make `count` adapters in a row for a backbone of kind conv or vit."""
    return nn.Sequential(OrderedDict(
        (f'late_adapter_{i + 1}',
         ConvAdapter(channels) if kind == 'conv' else TokenAdapter(channels))
        for i in range(count)))
