# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The shipped bundle with a visual encoder that takes a millisecond: for tests of training."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.runtime import default_bundle
from support.bundles import make_variant
import torch
from torch import nn

_HELD = []


class Colours(nn.Module):
    """
    A visual encoder that costs nothing: tokens are waves of mean colours, fine ones mean colours.

    Waves, so that images differ in many directions, as those of a real one do.
    """

    def __init__(self, fine):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(3, 1280, 1)
        self.fine = fine

    def forward(self, pixels):
        coarse, fine = (nn.functional.avg_pool2d(pixels, size) for size in (32, 16))
        tokens = torch.sin(20.0 * self.mix(coarse)).flatten(2).transpose(1, 2)
        return (tokens, fine.flatten(2).transpose(1, 2)) if self.fine else tokens


@cache
def fast_bundle(fine=False):
    """
    Make the bundle, once a process; everything but its visual graph is the shipped one's.

    :param fine: with fine tokens [196, 3].
    """
    _HELD.append(TemporaryDirectory(prefix='hralign_ros_fast_'))
    graph = torch_graph(Colours(fine), [torch.zeros(2, 3, 224, 224)], inputs=['pixels'],
                        outputs=['tokens', 'fine'] if fine else ['tokens'])
    return make_variant(
        Path(_HELD[-1].name), default_bundle(), files={'visual.onnx': graph},
        change=lambda d: d.update(fine={'rows': 14, 'columns': 14, 'channels': 3})
        if fine else None)
