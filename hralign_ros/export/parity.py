# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Comparing exported graphs with the torch modules that they are made from, and on what."""

from collections.abc import Mapping, Sequence

from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.video import read_frames
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

Floats = NDArray[np.float32]
# Largest difference between torch and onnxruntime that an export may show, on values of order 1;
# of larger ones, such as an OOD score of made-up tokens, the same part.
PARITY = 1e-3
SAMPLE_TASKS = (
    'pick up the can and place it in the bin',
    'put the marker in the cup',
    'open the top drawer',
    'close the drawer',
    'move the cup to the left of the plate',
    'stack the red block on the blue block',
    'turn on the faucet',
    'unplug the charger',
    'wipe the table with the towel',
    'put the lid on the pot',
    'insert the peg into the hole',
    'press the button',
    'fold the cloth in half',
    'pour water from the bottle into the bowl',
    'hang the mug on the rack',
    'sort the fruit into the basket',
)


def sample_images(per_video: int = 12) -> list[NDArray[np.uint8]]:
    """
    Take frames of the demo episode, alternating its views, evenly over its length.

    :returns: uint8 [H, W, 3] RGB images.
    :raises FileNotFoundError: the demo episode is not there.
    :raises DataError: its videos cannot be read.
    """
    folder = find_share('demo/can')
    views = [read_frames(folder / f'{name}.mp4', count=per_video)[0]
             for name in ('wrist', 'third_person')]
    return [image for pair in zip(*views, strict=True) for image in pair]


def run_graph(model: bytes, feed: Mapping[str, Floats]) -> list[Floats]:
    """Run a graph once on the CPU."""
    return list(SessionFactory('cpu').create(model, name='graph').run(None, dict(feed)))


def check_parity(
    model: bytes, module: nn.Module, feed: Mapping[str, Floats], report: Report = print,
) -> float:
    """Compare a graph with its module on one input; refuse a difference above PARITY."""
    with torch.no_grad():
        expected = module(*(torch.from_numpy(v) for v in feed.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)
    # Of numpy: the built-in max leaves out what is not a number, but for the first one.
    worst = float(np.max([(np.abs(got - want) / np.maximum(1.0, np.abs(want))).max()
                          for got, want in zip(
                              run_graph(model, feed), (one.numpy() for one in expected),
                              strict=True)]))
    report(f'  {type(module).__name__.strip("_")}: torch and onnxruntime differ by {worst:.1e}')
    if not worst <= PARITY:
        raise RuntimeError(
            f'{type(module).__name__}: onnxruntime differs from torch by {worst}; '
            f'at most {PARITY} is allowed')
    return float(f'{worst:.2g}')


def masked_graph(
    module: nn.Module, feed: Mapping[str, Floats], outputs: Sequence[str],
    report: Report = print,
) -> tuple[bytes, float]:
    """
    Export a module that takes a mask, and compare both, without the first and the last view too.

    :param feed: an array per input, `mask` [V, T] among them.
    :returns: the graph; the largest difference.
    """
    graph = torch_graph(module, [torch.from_numpy(v) for v in feed.values()], inputs=list(feed),
                        outputs=outputs)
    masks = [feed['mask'].copy() for _ in range(3)]
    masks[1][0] = masks[2][-1] = 0.0
    return graph, max(
        check_parity(graph, module, {**feed, 'mask': mask}, report) for mask in masks)


def success_inputs(
    head: SuccessHead, views: int, length: int, modes: int, text_dim: int, used: float = 1.0,
) -> dict[str, Floats]:
    """
    Make up what a head could be given, one array per input of `SuccessHead.forward`.

    :param used: 1 where its failure prompts are in use, or else 0.
    """
    rng = np.random.default_rng(0)
    tokens = rng.random(
        (views, length, head.place.shape[0], head.basis_mean.shape[0]), np.float32)
    mask = np.ones((views, length), np.float32)
    mask[0, :2] = 0.0
    age = np.sort(rng.random((views, length), np.float32))[:, ::-1] * mask
    text = rng.standard_normal((1 + modes, text_dim)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    feed = {'tokens': tokens, 'mask': mask, 'age': np.ascontiguousarray(age), 'text': text,
            'mode_mask': np.full(modes, used, np.float32)}
    if head.grounding is not None:
        places, channels = head.grounding.place.shape[0], head.grounding.see.in_features // 3
        feed['fine'] = rng.standard_normal((2, places, channels)).astype(np.float32)
    return feed
