# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Comparing an exported graph with the torch module that it was made from."""

from collections.abc import Mapping

from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import Report
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

Floats = NDArray[np.float32]
# Largest difference between torch and onnxruntime that an export may show, on values of order 1.
PARITY = 1e-3


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
    worst = max(float(np.abs(got - want.numpy()).max())
                for got, want in zip(run_graph(model, feed), expected, strict=True))
    report(f'  {type(module).__name__.strip("_")}: torch and onnxruntime differ by {worst:.1e}')
    if not worst <= PARITY:
        raise RuntimeError(
            f'{type(module).__name__}: onnxruntime differs from torch by {worst}; '
            f'at most {PARITY} is allowed')
    return float(f'{worst:.2g}')
