# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Files of weights: the layouts in which published encoders come, read without running a pickle.

Known are R3M's file, HR-Align's AdaptedR3M.pyth and its policies' (a ResNet under `convnet.`, or a
ViT under `vit.`, with adapters; a language part beside it is left out), the MAE files of
data4robotics, MVP and VC-1 (timm's names beside a decoder), and plain state dicts of torchvision
and timm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
import os
import re
from typing import Any

from hralign_ros.runtime.errors import first_line, HralignError
import torch
from torch import nn, Tensor

State = dict[str, Tensor]

# Where a state dict lies in a file, in the order in which they are looked for.
_CONTAINERS = ('r3m', 'features', 'model', 'model_state', 'state_dict')
# What wrappers (parallel training, policies) put in front of every name.
_WRAPPERS = ('module.', 'mvt1.', 'model.')
# The encoder's place in a file that holds more than the encoder.
_ENCODERS = {'convnet.': 'r3m', 'vit.': 'vit'}
# Layers of an adapter by HR-Align's names, and ours.
_LAYERS = {'D_fc1': 'down', 'D_mapping': 'map', 'D_fc2': 'up'}
_ADAPTER = re.compile(r'((early|middle|late)_adapter_\d+)\.(.+)')


class ModelError(HralignError, ValueError):
    """A model that there is not, that cannot be cut as asked, or weights that do not fit it."""


@dataclass(frozen=True)
class Checkpoint:
    """
    What a file of weights holds. All tensors are on the CPU.

    :param backbone_state: by torchvision's or timm's names.
    :param adapters_state: by the names in `make_adapters` (late_adapter_1.down.weight, ...); None:
        the file has none.
    :param layout: r3m, r3m_align, vit (in a policy), vit_align, mae, or state_dict.
    """

    backbone_state: State
    adapters_state: State | None
    layout: str


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """
    Read a .safetensors file, or one that torch.load(weights_only=True) reads.

    :raises ModelError: it is neither, holds no tensors, or only some tensors of its adapters.
    """
    try:
        if os.path.splitext(path)[1] == '.safetensors':
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, weights_only=True, map_location='cpu')
    except Exception as error:  # torch, pickle and safetensors share no base class
        raise _refusal(path, first_line(error)) from error
    try:
        return parse_checkpoint(content)
    except ModelError as error:
        raise _refusal(path, f'{error}.') from error


def parse_checkpoint(content: Any) -> Checkpoint:
    """
    Sort the content of a file of weights.

    :param content: a state dict, or a mapping that holds one under a known name.
    :raises ModelError: it is neither, or holds only some tensors of its adapters.
    """
    state = _unwrapped(content)
    encoder = next((e for e in _ENCODERS if any(k.startswith(e) for k in state)), '')
    own = below(state, encoder)
    adapters = {key: value for key, value in own.items() if _ADAPTER.match(key)}
    backbone = {key: value for key, value in own.items() if key not in adapters}
    layout = _ENCODERS.get(encoder, 'state_dict') + ('_align' if adapters else '')
    if 'patch_embed.proj.weight' in backbone:
        kept = {k: v for k, v in backbone.items() if 'decoder' not in k and 'mask_token' not in k}
        layout = 'mae' if len(kept) < len(backbone) and not encoder else layout
        backbone = kept
    return Checkpoint(backbone, _renamed_adapters(adapters) if adapters else None, layout)


def load_state(
    net: nn.Module, state: Mapping[str, Tensor], *, optional: Sequence[str] = (),
) -> None:
    """
    Load a state dict whole: every tensor of the network and no other, buffers included.

    The counters num_batches_tracked may be missing: old files have none, and nothing uses them.

    :param optional: beginnings of names that may be missing or left over (a classifier).
    :raises ModelError: names up to three tensors that are missing, left over or of other shapes.
    """
    wanted = net.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith('num_batches_tracked')]
    left = [k for k in state if k not in wanted]
    faults = [
        *_fault('missing', [k for k in missing if not k.startswith(tuple(optional))]),
        *_fault('not of this network', [k for k in left if not k.startswith(tuple(optional))]),
        *_fault('of another shape', [
            f'{k} {list(state[k].shape)}, needed {list(v.shape)}'
            for k, v in wanted.items() if k in state and state[k].shape != v.shape])]
    if faults:
        raise ModelError(
            f'{"; ".join(faults)}. Needed are the {len(wanted)} tensors of '
            f'{type(net).__name__}, from {next(iter(wanted), "none")} on')
    net.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)


def load_file_into(
    net: nn.Module, path: str | os.PathLike[str] | None, *, optional: Sequence[str] = (),
    convert: Callable[[State, nn.Module], State] | None = None,
) -> Checkpoint | None:
    """
    Load the backbone of a file, if one is named, into a network; return all that the file holds.

    :param convert: gives the file's tensors the network's names.

    :raises ModelError: as `read_checkpoint` and `load_state`, with the file's name.
    """
    if not path:
        return None
    checkpoint = read_checkpoint(path)
    try:
        state = checkpoint.backbone_state
        load_state(net, convert(state, net) if convert else state, optional=optional)
    except ModelError as error:
        raise _refusal(path, f'{error}.') from error
    return checkpoint


def _refusal(path: Any, reason: str) -> ModelError:
    return ModelError(
        f'weights {path}: {reason} Needed is a state dict of this backbone, in a .safetensors '
        'file or one that torch.load(weights_only=True) reads')


def _fault(what: str, names: Sequence[str]) -> list[str]:
    """Name up to three of what is wrong."""
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return [f'{what}: {", ".join(names[:3])}{more}'] if names else []


def _unwrapped(content: Any) -> State:
    """Find the state dict in a file's content, and take the wrappers off its names."""
    if isinstance(content, Mapping):
        inner = [content[c] for c in _CONTAINERS if isinstance(content.get(c), Mapping)]
        content = inner[0] if inner else content
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f'it holds a {type(content).__name__} and no named tensors; looked for under '
            f'{", ".join(_CONTAINERS)} and at the top')
    odd = [str(k) for k, v in content.items()
           if not isinstance(k, str) or not isinstance(v, Tensor)]
    if odd:
        raise ModelError('; '.join(_fault('no tensor with a name', odd)))
    state: State = {}
    for name, value in content.items():
        short = name
        while (wrapper := next((w for w in _WRAPPERS if short.startswith(w)), '')):
            short = short[len(wrapper):]
        if short in state:
            raise ModelError(f'two tensors are called {short}, one of them {name}')
        state[short] = value
    return state


def below(state: Mapping[str, Tensor], prefix: str) -> State:
    """Give the tensors whose names begin so, under the rest of their names."""
    return {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}


def _renamed_adapters(adapters: Mapping[str, Tensor]) -> State:
    """Name adapters as we do; refuse a position of which only a part is there."""
    positions = sorted({key.split('_')[0] for key in adapters})
    wanted = {f'{p}_adapter_{i}.{theirs}.{kind}': f'{p}_adapter_{i}.{ours}.{kind}'
              for p in positions for i in (1, 2, 3) for theirs, ours in _LAYERS.items()
              for kind in ('weight', 'bias')}
    faults = [*_fault('missing', [k for k in wanted if k not in adapters]),
              *_fault('unknown', [k for k in adapters if k not in wanted])]
    if faults:
        raise ModelError(
            f'{len(adapters)} adapter tensors where {len(wanted)} are needed; '
            f'{"; ".join(faults)}')
    return {ours: adapters[theirs] for theirs, ours in wanted.items()}
