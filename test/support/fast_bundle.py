# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The shipped bundle with a visual encoder that takes a millisecond: for tests of training."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.bundle import load_bundle, TokenSpec
from hralign_ros.runtime.tasks import load_tasks, TaskTable
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
    Make the bundle, once a process; all but its visual graph is the shipped one's.

    It has no shared heads.

    :param fine: with fine tokens [196, 3].
    """
    _HELD.append(TemporaryDirectory(prefix='hralign_ros_fast_'))
    folder, source = Path(_HELD[-1].name) / 'bundle', load_bundle(default_bundle())
    graphs = {name: graph for name, graph in graphs_of(source).items()
              if name not in source.manifest.heads}
    graphs['visual.onnx'] = torch_graph(
        Colours(fine), [torch.zeros(2, 3, 224, 224)], inputs=['pixels'],
        outputs=['tokens', 'fine'] if fine else ['tokens'])
    tasks = load_tasks(source)
    write_bundle(folder, replace(
        source.manifest, heads={}, fine=TokenSpec(14, 14, 3) if fine else None), graphs, TaskTable(
            tuple(task for task in tasks.tasks if not task.head), tasks.fallback))
    return folder
