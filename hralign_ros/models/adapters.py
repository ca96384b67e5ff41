# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Residual adapters inside or behind a frozen backbone (HR-Align, section 3.2).

The paper's Eq. 3 has two layers; the authors' code has three, and so has this:
y = x + up(act(map(act(down(x))))). At the start `up` is zero, so that an adapter is the exact
identity and yet every layer gets a gradient from the second step on, `up` from the first.
"""

from collections import OrderedDict
import math

from hralign_ros.models.backbones import Backbone
from hralign_ros.models.weight_files import Checkpoint, load_state, ModelError
import torch
from torch import nn, Tensor

INITS = ('identity', 'release')


class ConvAdapter(nn.Module):
    """
    Three convolutions around a map; as it comes, the released geometry for late.

    :param channels: C, divisible by `down` and by `groups`.
    :param down: how much narrower the middle is.
    :param groups: of the first and the last convolution.
    :param kernel: side of all three convolutions, odd.
    """

    def __init__(
        self, channels: int, *, down: int = 4, groups: int = 8, kernel: int = 1,
    ) -> None:
        super().__init__()
        hidden, same = channels // down, kernel // 2
        self.down = nn.Conv2d(channels, hidden, kernel, padding=same, groups=groups)
        self.map = nn.Conv2d(hidden, hidden, kernel, padding=same)
        self.up = nn.Conv2d(hidden, channels, kernel, padding=same, groups=groups)
        self.act = nn.ReLU()
        _zero(self.up)

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
        _zero(self.up)

    def forward(self, x: Tensor) -> Tensor:
        """Adapt a map [B, C, rows, columns]."""
        tokens = x.flatten(2).transpose(1, 2)
        hidden: Tensor = self.act(self.map(self.act(self.down(tokens))))
        return x + self.up(hidden).transpose(1, 2).unflatten(2, x.shape[2:])


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def adapters_of(channels: int, kind: str, position: str = 'late') -> nn.Sequential:
    """Make three adapters in a row for a map of C channels in a backbone of kind conv or vit."""
    return nn.Sequential(OrderedDict(
        (f'{position}_adapter_{i}',
         _conv_adapter(channels, position) if kind == 'conv' else TokenAdapter(channels))
        for i in (1, 2, 3)))


def make_adapters(
    backbone: Backbone, position: str = 'late', *, init: str = 'identity',
) -> nn.Sequential:
    """
    Make three adapters for a place in a backbone: {position}_adapter_1 to 3, in a row.

    For a ConvNet, late: 1x1, a quarter of the width, 8 groups; early and middle: 3x3, half of the
    width, 1 and 4 groups (the released sizes: 0.1 M early, 3.5 M middle and 1.6 M late for a
    ResNet-50). For a ViT the same at all positions. They map float32 [B, C, rows, columns] to the
    same shape.

    :param position: early, middle or late.
    :param init: identity zeroes `up`; release is the authors' (`map` and all biases zero), also
        the identity, but behind a ReLU nothing except `up.bias` ever gets a gradient. It is there
        to show that.
    :raises ModelError: unknown init or position, or one where this backbone cannot be cut.
    """
    if init not in INITS:
        raise ModelError(f"adapter init is '{init}'; allowed: {', '.join(INITS)}")
    adapters = adapters_of(backbone.adapter_channels(position), backbone.kind, position)
    if init == 'release':
        for adapter in adapters:
            _init_as_released(adapter)
    return adapters


def load_adapters(
    checkpoint: Checkpoint, backbone: Backbone, position: str = 'late',
) -> nn.Sequential:
    """
    Make the adapters that a file holds for a position.

    :raises ModelError: it holds none there, or they do not fit the backbone.
    """
    state = {k: v for k, v in (checkpoint.adapters_state or {}).items()
             if k.startswith(f'{position}_')}
    adapters = make_adapters(backbone, position)
    if not state:
        raise ModelError(f'the file of weights has no {position} adapters')
    load_state(adapters, state)
    return adapters


class AdaptedBackbone(nn.Module):
    """
    A frozen backbone with adapters in their place: pixels -> back(adapters(front(pixels))).

    Only the adapters ever train: `train()` leaves the backbone's batch norms in evaluation mode.

    :param position: where the adapters stand: early, middle or late.
    :raises ModelError: the backbone cannot be cut there.
    """

    def __init__(self, backbone: Backbone, position: str, adapters: nn.Module) -> None:
        super().__init__()
        self.front = backbone.front(position)
        self.adapters = adapters
        self.back = backbone.back(position)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn pixels float32 [B, 3, S, S] into a token map [B, C, rows, columns]."""
        return torch.as_tensor(self.back(self.adapters(self.front(pixels))))

    def train(self, mode: bool = True) -> 'AdaptedBackbone':
        """Set the mode of the adapters alone."""
        super().train(mode)
        self.front.eval()
        self.back.eval()
        return self


def _conv_adapter(channels: int, position: str) -> ConvAdapter:
    """Make one of the released geometry, with fewer groups where the width asks for it."""
    down, groups, kernel = {
        'early': (2, 1, 3), 'middle': (2, 4, 3), 'late': (4, 8, 1)}[position]
    groups = math.gcd(groups, channels, channels // down)
    return ConvAdapter(channels, down=down, groups=groups, kernel=kernel)


@torch.no_grad()
def _init_as_released(adapter: nn.Module) -> None:
    """Draw `up` as torch does, zero `map` and all biases."""
    for name in ('down', 'map', 'up'):
        layer = adapter.get_submodule(name)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        layer.reset_parameters()
        if layer.bias is not None:
            layer.bias.zero_()
    adapter.get_submodule('map').get_parameter('weight').zero_()
