# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Backbones that are published under names of their own: which network, on which terms, and where.

The networks are timm's. What a file calls its tensors is brought to timm's names by timm itself,
or here where timm does not know the file.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
import re
from typing import Any

from hralign_ros.data.content import hash_file
from hralign_ros.models.weight_files import ModelError, State
from hralign_ros.runtime.errors import first_line
import torch

# In place of a file of weights: random ones, and those of the hub where they are published.
RANDOM, HUB = 'random', 'hub'
_FILE = 'model.safetensors'
_HALF = (0.5, 0.5, 0.5)
_SHA256 = re.compile(r'[0-9a-f]{64}')
# A file of the hub's cache: models--OWNER--NAME/snapshots/REVISION/FILE.
_CACHED = re.compile(r'models--(.+?)--(.+)/snapshots/([0-9a-f]{7})[0-9a-f]*/(.+)$')


@dataclass(frozen=True)
class Published:
    """
    A published backbone.

    :param network: timm's name of the network.
    :param license_id: of the weights.
    :param commercial: whether these terms allow commercial use.
    :param hub: repository on the Hugging Face Hub; '': only as a file that somebody brings.
    :param scale: mean and standard deviation per RGB channel, where they are not ImageNet's.
    """

    network: str
    license_id: str
    commercial: bool = True
    hub: str = ''
    scale: tuple[float, float, float] | None = None


_DINO_V3 = 'DINOv3 License'
_THEIA = 'Theia licence: non-commercial research only'

PUBLISHED: dict[str, Published] = {
    'dinov2_vits14': Published(
        'vit_small_patch14_dinov2', 'Apache-2.0', hub='timm/vit_small_patch14_dinov2.lvd142m'),
    'dinov2_vitb14': Published(
        'vit_base_patch14_dinov2', 'Apache-2.0', hub='timm/vit_base_patch14_dinov2.lvd142m'),
    'dinov3_vits16': Published(
        'vit_small_patch16_dinov3', _DINO_V3, hub='timm/vit_small_patch16_dinov3.lvd1689m'),
    'dinov3_vitb16': Published(
        'vit_base_patch16_dinov3', _DINO_V3, hub='timm/vit_base_patch16_dinov3.lvd1689m'),
    'siglip2_vitb16': Published(
        'vit_base_patch16_siglip_224', 'Apache-2.0',
        hub='timm/vit_base_patch16_siglip_224.v2_webli', scale=_HALF),
    'theia_tiny': Published(
        'deit_tiny_patch16_224', _THEIA, False, 'theaiinstitute/theia-tiny-patch16-224-cddsv'),
    'theia_small': Published(
        'deit_small_patch16_224', _THEIA, False, 'theaiinstitute/theia-small-patch16-224-cddsv'),
    'theia_base': Published(
        'deit_base_patch16_224', _THEIA, False, 'theaiinstitute/theia-base-patch16-224-cddsv'),
    'vc1_vitb': Published('vit_base_patch16_224', 'CC-BY-NC-4.0', False),
    'vc1_vitl': Published('vit_large_patch16_224', 'CC-BY-NC-4.0', False),
}


def resolve_weights(name: str, weights: str | None, *, non_commercial: bool) -> str | None:
    """
    Put a file in place of HUB, and refuse weights whose terms are not agreed to.

    :param weights: as for `load_backbone`.
    :param non_commercial: whoever asks makes no commercial use of them.
    :raises ModelError: their terms forbid commercial use, and that is not agreed to; or as
        `fetch_weights`.
    """
    spec = PUBLISHED.get(name)
    if spec and not spec.commercial and weights not in (None, RANDOM) and not non_commercial:
        raise ModelError(
            f'backbone {name}: the terms of its weights ({spec.license_id}) forbid commercial '
            'use, also of what is made with them. Give --non-commercial to say that yours is '
            f'none, or take one of {", ".join(n for n, p in PUBLISHED.items() if p.commercial)}')
    return str(fetch_weights(name)) if weights == HUB else weights


def fetch_weights(name: str) -> Path:
    """
    Bring the weights of a published backbone from the hub, or find them in the hub's cache.

    The file's SHA-256 is compared with the one that the hub states for it, under which its cache
    keeps it.

    :returns: the file, in the hub's own cache (HF_HOME).
    :raises ModelError: they are on no hub, the hub cannot be reached, or the file is another one.
    """
    spec = PUBLISHED.get(name)
    if spec is None or not spec.hub:
        there = ', '.join(n for n, p in PUBLISHED.items() if p.hub)
        raise ModelError(f'backbone {name}: no hub has its weights; those that one has are of '
                         f'{there}. Name a file of weights')
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(spec.hub, _FILE))
    except Exception as error:  # of the hub, of HTTP, of the disk: no common base
        raise ModelError(
            f'backbone {name}: {spec.hub} cannot be had ({first_line(error)}). Where there is no '
            f'network, bring {_FILE} of that repository and give it as --weights') from error
    stated = path.resolve().name
    if not _SHA256.fullmatch(stated):
        raise ModelError(
            f'{path}: the cache of the hub keeps no hash beside it, as where a disk has no '
            'symbolic links, so that it cannot be checked. Check it yourself and give it as '
            '--weights')
    if (found := hash_file(path)) != stated:
        raise ModelError(
            f'{path}: its SHA-256 is {found[:12]}... and the hub states {stated[:12]}...; the '
            'file is damaged. Delete it and fetch it again')
    return path


def origin(weights: str) -> str:
    """Say where a file of weights comes from, without the folder that it lies in."""
    if found := _CACHED.search(Path(weights).absolute().as_posix()):
        owner, repository, revision, file = found.groups()
        return f'{file} of {owner}/{repository} at {revision}'
    return f'the file {Path(weights).name}'


def to_timm(state: State, net: Any) -> State:
    """
    Give a published file's tensors the names, and the grid of positions, that a network has.

    :param net: timm's, without a classifier.
    """
    if any(name.startswith('backbone.model.') for name in state):
        return _from_transformers(
            {k.removeprefix('backbone.model.'): v for k, v in state.items()
             if k.startswith('backbone.model.')})
    convert = import_module(type(net).__module__).checkpoint_filter_fn
    converted: State = convert(dict(state), net)
    return converted


# Of a ViT: names in files of the transformers library, before timm's.
_BLOCK = {
    'layernorm_before': 'norm1', 'layernorm_after': 'norm2', 'attention.output.dense': 'attn.proj',
    'intermediate.dense': 'mlp.fc1', 'output.dense': 'mlp.fc2'}
_STEM = {
    'embeddings.cls_token': 'cls_token', 'embeddings.position_embeddings': 'pos_embed',
    'embeddings.patch_embeddings.projection.weight': 'patch_embed.proj.weight',
    'embeddings.patch_embeddings.projection.bias': 'patch_embed.proj.bias',
    'layernorm.weight': 'norm.weight', 'layernorm.bias': 'norm.bias'}
_LAYER = re.compile(r'encoder\.layer\.(\d+)\.(.+)\.(weight|bias)')


def _from_transformers(state: State) -> State:
    """Rename a ViT of the transformers library, as its files have it; unknown names stay."""
    found: State = {}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            found[_STEM.get(name, name)] = value
            continue
        number, layer, kind = match.groups()
        if layer.startswith('attention.attention.'):
            parts.setdefault(f'blocks.{number}.attn.qkv.{kind}', {})[
                layer.rpartition('.')[2]] = value
        else:
            found[f'blocks.{number}.{_BLOCK.get(layer, layer)}.{kind}'] = value
    for name, qkv in parts.items():
        if set(qkv) == {'query', 'key', 'value'}:
            found[name] = torch.cat([qkv['query'], qkv['key'], qkv['value']])
    return found
