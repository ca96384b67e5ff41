# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Networks in parts, so that adapters can stand between them.

Three positions are named after HR-Align's: early (before the first block), middle (half way) and
late (after the last block, before a final norm). A network that cannot be opened has only late.

Whatever passes between parts is a map [B, C, rows, columns]. A transformer's tokens in the middle
of it, class token and registers included, are a map with one column: [B, C, tokens, 1].
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from hralign_ros.models.weight_files import ModelError
import torch
from torch import nn, Tensor

POSITIONS = ('early', 'middle', 'late')
# Name of the part behind the last position.
END = 'end'


def tokens_of(x: Tensor) -> Tensor:
    """Turn a map [B, C, rows, columns] into tokens [B, rows * columns, C]."""
    # Contiguous, so that what follows computes the same bits for a map from a file.
    return x.flatten(2).transpose(1, 2).contiguous()


def map_of(tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Turn tokens [B, N, C] into a map [B, C, *grid], or [B, C, N, 1] without a grid."""
    x = tokens.transpose(1, 2).contiguous()
    return x[..., None] if grid is None else x.unflatten(2, grid)


class Staged(ABC):
    """A network that can be cut; to be mixed into a module."""

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """
        Name the network's parts in order: position -> what runs before it.

        The last part, END, runs behind the last position. All of them in a row are the network.
        """

    def front(self, position: str) -> nn.Module:
        """Return what runs before `position`, on the same weights."""
        names, parts = self._open(position)
        return self._row(parts[name] for name in names[:names.index(position) + 1])

    def back(self, position: str) -> nn.Module:
        """Return what runs behind `position`, on the same weights."""
        names, parts = self._open(position)
        return self._row(parts[name] for name in names[names.index(position) + 1:])

    def _open(self, position: str) -> tuple[list[str], Mapping[str, nn.Module]]:
        if position not in POSITIONS:
            raise ModelError(
                f"adapter position is '{position}'; allowed: {', '.join(POSITIONS)}")
        parts = self.parts()
        if position not in parts:
            raise ModelError(
                f"this backbone cannot be cut at '{position}', only at "
                f"{', '.join(p for p in POSITIONS if p in parts)}: where its blocks begin and end "
                'is known for ResNets, plain ViTs and EfficientNet-Lite. Use the position late')
        return list(parts), parts

    def _row(self, parts: Any) -> nn.Module:
        row = nn.Sequential(*parts)
        # Only the container's own flag: its children belong to the whole network.
        row.training = bool(getattr(self, 'training', False))
        return row


class Parts(Staged, nn.Module):
    """
    A network that is kept as its parts.

    :param parts: as `Staged.parts` says.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._names = tuple(parts)
        for name, part in parts.items():
            self.add_module(name, part)

    def parts(self) -> Mapping[str, nn.Module]:
        """Name the parts."""
        return {name: self.get_submodule(name) for name in self._names}

    def forward(self, x: Tensor) -> Tensor:
        """Run all parts."""
        for name in self._names:
            x = self.get_submodule(name)(x)
        return x


class ResNet(Staged, nn.Sequential):
    """
    A ResNet of torchvision or timm up to its last block, under torchvision's names.

    Early is behind conv1, bn1 and the activation, middle behind layer2, late behind layer4.
    """

    def __init__(self, net: Any) -> None:
        act = net.relu if hasattr(net, 'relu') else net.act1
        super().__init__(OrderedDict(
            conv1=net.conv1, bn1=net.bn1, relu=act, maxpool=net.maxpool, layer1=net.layer1,
            layer2=net.layer2, layer3=net.layer3, layer4=net.layer4))

    def parts(self) -> Mapping[str, nn.Module]:
        """Name the parts."""
        steps = list(self)
        return {'early': nn.Sequential(*steps[:3]), 'middle': nn.Sequential(*steps[3:6]),
                'late': nn.Sequential(*steps[6:]), END: nn.Identity()}


class EfficientNetLite(Staged, nn.Module):
    """
    The feature half of an EfficientNet-Lite: everything before pooling.

    Early is behind the stem, middle behind half of the blocks, late behind the head convolution.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def parts(self) -> Mapping[str, nn.Module]:
        """Name the parts."""
        net, blocks = self.net, list(self.net._blocks)
        half = len(blocks) // 2
        return {
            'early': nn.Sequential(net._conv_stem, net._bn0, net._swish),
            'middle': nn.Sequential(*blocks[:half]),
            'late': nn.Sequential(*blocks[half:], net._conv_head, net._bn1, net._swish),
            END: nn.Identity()}

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the map before pooling."""
        return torch.as_tensor(self.net.extract_features(pixels))


class TorchvisionStem(nn.Module):
    """The start of a torchvision VisionTransformer: patches, class token, positions."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.conv_proj = net.conv_proj
        self.class_token = net.class_token
        self.pos_embedding = net.encoder.pos_embedding

    def forward(self, pixels: Tensor) -> Tensor:
        """Give all tokens as a map [B, C, 1 + N, 1]."""
        patches = self.conv_proj(pixels).flatten(2).transpose(1, 2)
        cls = self.class_token.expand(patches.shape[0], -1, -1)
        return map_of(torch.cat([cls, patches], dim=1) + self.pos_embedding)


class TimmStem(nn.Module):
    """The start of a timm VisionTransformer; its own methods know its kinds of positions."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        """Give all tokens as a map [B, C, prefix + N, 1]."""
        net = self.net
        return map_of(net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(pixels)))))


class Blocks(nn.Module):
    """
    Transformer blocks between two maps.

    :param prefix: tokens to be dropped behind the last block (class token, registers).
    :param grid: of the map behind the last block; None: all tokens in one column.
    """

    def __init__(
        self, blocks: Any, *, prefix: int = 0, grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.prefix = prefix
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks over a map [B, C, tokens, 1]."""
        return map_of(self.blocks(tokens_of(x))[:, self.prefix:], self.grid)


class MapNorm(nn.Module):
    """A norm of tokens, applied at each place of a map."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map [B, C, rows, columns]."""
        return map_of(self.norm(tokens_of(x)), (x.shape[2], x.shape[3]))


def transformer(
    stem: nn.Module, blocks: Any, norm: nn.Module, *, prefix: int, grid: tuple[int, int],
) -> Parts:
    """
    Put a plain ViT together: early behind the positions, late before the final norm.

    Middle is behind the block with index depth // 2. Early and middle hold all tokens, late only
    those of the patches.
    """
    blocks = list(blocks)
    half = len(blocks) // 2 + 1
    return Parts(
        {'early': stem, 'middle': Blocks(blocks[:half]),
         'late': Blocks(blocks[half:], prefix=prefix, grid=grid), END: MapNorm(norm)})


class TimmFeatures(nn.Module):
    """
    What a timm model computes before pooling, as a map.

    :param layout: of `forward_features`: NCHW, NHWC, or tokens.
    :param prefix: tokens in front of those of the patches.
    :param grid: of the patches' tokens.
    """

    def __init__(self, net: Any, layout: str, prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.net = net
        self.layout = layout
        self.prefix = prefix
        self.grid = grid

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the map before pooling."""
        x: Tensor = self.net.forward_features(pixels)
        if self.layout == 'NHWC':
            return x.permute(0, 3, 1, 2).contiguous()
        return x if self.layout == 'NCHW' else map_of(x[:, self.prefix:], self.grid)


class NamedOutput(nn.Module):
    """The one value of a feature extractor that returns a mapping."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net = net
        self.name = name

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the map before pooling."""
        return torch.as_tensor(self.net(pixels)[self.name])
