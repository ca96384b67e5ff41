# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From the frames of a clip to the input of the first adapter."""

from typing import Any, Protocol

from hralign_ros.models.backbones import Backbone, Preprocessing
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.runtime.providers import SessionFactory
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.nn import functional

Features = NDArray[np.floating[Any]]


class Encoder(Protocol):
    """
    From the frames of one clip to the input of the first adapter.

    It goes to every worker process, so it must survive pickling.
    """

    def __call__(self, frames: NDArray[np.uint8]) -> Features:
        """Encode uint8 [F, H, W, 3] RGB to float [F, C, rows, columns]."""
        ...


def preprocess(frames: NDArray[np.uint8], spec: Preprocessing) -> Tensor:
    """
    Make a backbone's input as `preprocess.onnx` of a bundle does.

    :param frames: uint8 [F, H, W, 3] RGB, any size.
    :returns: float32 [F, 3, S, S]: cropped, resized with antialiasing, normalised.
    """
    if spec.fit == 'crop':
        height, width = frames.shape[1:3]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        frames = frames[:, top:top + short, left:left + short]
    planes = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized = functional.interpolate(
        planes, (spec.size, spec.size), mode='bilinear', antialias=True, align_corners=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255.0 for v in (spec.mean, spec.std))
    return (resized - mean) / std


class TorchEncoder:
    """The front half of a backbone, run by torch."""

    def __init__(self, backbone: Backbone, position: str) -> None:
        self.spec = backbone.preprocessing
        self.front = backbone.front(position)

    def __call__(self, frames: NDArray[np.uint8]) -> Features:
        """Encode uint8 [F, H, W, 3] RGB to float32 [F, C, rows, columns]."""
        with torch.inference_mode():
            return np.asarray(self.front(preprocess(frames, self.spec)).numpy())


class OnnxEncoder:
    """
    The same, run by onnxruntime, which is faster on a CPU; differs from torch by rounding.

    :param frames: F, the number of frames of every clip: the graph has a fixed shape.
    """

    def __init__(self, backbone: Backbone, position: str, frames: int) -> None:
        self.spec = backbone.preprocessing
        self.model = torch_graph(
            backbone.front(position), [torch.zeros(frames, 3, self.spec.size, self.spec.size)],
            inputs=['pixels'], outputs=['maps'])
        self._session: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out: a worker makes its own."""
        return {**self.__dict__, '_session': None}

    def __call__(self, frames: NDArray[np.uint8]) -> Features:
        """Encode uint8 [F, H, W, 3] RGB to float32 [F, C, rows, columns]."""
        if self._session is None:
            self._session = SessionFactory(
                'cpu', threads=torch.get_num_threads()).create(self.model, name='front')
        pixels = preprocess(frames, self.spec).numpy()
        return np.asarray(self._session.run(None, {'pixels': pixels})[0])
