# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Features that no step of adaptation changes: the input of the first adapter, a few frames a clip.

Maps lie in the store as [F, rows, columns, C]: channels last, because 1x1 convolutions and
pooling are twice as fast so.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from hralign_ros.data.features import build_features, Encode, Features, Tensors, Videos
from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import Clip
from hralign_ros.models.backbones import Backbone, Preprocessing
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import read_frames
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional

Maps = NDArray[np.floating[Any]]
SCHEMA_VERSION = 2
DTYPES = ('float16', 'float32')
ENGINES = ('onnxruntime', 'torch')


class ClipFeatures:
    """
    The maps of clips, read when they are asked for.

    :param entries: `maps` [F, rows, columns, C] and `time_s` float64 [F], by `Clip.key`.
    :param key: identifies the numbers.
    """

    def __init__(self, entries: Mapping[str, Tensors], key: str) -> None:
        self._entries, self.key = entries, key
        first = entries[next(iter(entries))]['maps']
        self.frames, rows, columns, channels = first.shape
        self.map_shape = channels, rows, columns

    def has(self, clip: Clip) -> bool:
        """Tell whether the features of a clip are there."""
        return clip.key in self._entries

    def maps(self, clip: Clip) -> Maps:
        """
        Map the features of a clip: [F, rows, columns, C], read-only.

        :raises DataError: it is missing, or was never put in; the message says which.
        """
        return self._entries[clip.key]['maps']

    def times(self, clip: Clip) -> NDArray[np.float64]:
        """
        Give the times of a clip's frames: float64 [F], seconds from the start of the video.

        :raises DataError: as `maps`.
        """
        return self._entries[clip.key]['time_s']

    def stack(self, clips: Iterable[Clip], frames: Iterable[NDArray[np.int64]]) -> Tensor:
        """
        Read some frames of each clip.

        :param frames: T frames of each.
        :returns: float32 [n, T, C, rows, columns], channels last in memory.
        """
        chosen = list(zip(clips, frames, strict=True))
        channels, rows, columns = self.map_shape
        length = len(chosen[0][1]) if chosen else 0
        out = torch.empty((len(chosen), length, rows, columns, channels))
        view = out.numpy()
        for i, (clip, some) in enumerate(chosen):
            stored = self.maps(clip)
            for j, frame in enumerate(some):
                view[i, j] = stored[frame]
        return out.permute(0, 1, 4, 2, 3)


def build_clip_features(
    folder: Path, clips: Iterable[Clip], data_root: Path, encoder: 'MapEncoder', *,
    workers: int | str = 1, report: Report = print,
) -> ClipFeatures:
    """
    Compute what is missing of the features of clips, or just open them.

    :param folder: of features.
    :param clips: in any order, repetitions allowed.
    :param data_root: what the clips' files are relative to.
    :raises DataError: as `build_features`.
    """
    features: Features = build_features(
        folder, data_root, {clip.key: Videos({'': clip.file}, clip.span_s, {},
                                             {'': clip.geometry}) for clip in clips},
        encoder, workers=workers, report=report)
    return ClipFeatures(features, features.key)


@dataclass(frozen=True, eq=False)
class MapEncoder:
    """
    Frames of a clip to the input of the first adapter.

    :param backbone: of which the part before the adapters runs.
    :param position: of the adapters: early, middle or late.
    :param frames: F, spread evenly over each clip, first and last included.
    :param dtype: float16, or float32, which keeps exactly what the engine gave.
    :param engine: onnxruntime, which is faster on a CPU, or torch; they differ by rounding.
    :raises DataError: an option is not one of these.
    """

    backbone: Backbone
    position: str = 'late'
    frames: int = 8
    dtype: str = 'float16'
    engine: str = 'onnxruntime'

    def __post_init__(self) -> None:
        """Check the options."""
        if self.dtype not in DTYPES or self.frames < 1 or self.engine not in ENGINES:
            raise DataError(
                f"dtype is '{self.dtype}', frames {self.frames} and engine '{self.engine}'; "
                f'needed are one of {", ".join(DTYPES)}, 1 or more, and one of '
                f'{", ".join(ENGINES)}')

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        backbone = self.backbone
        return {'kind': 'maps', 'schema_version': SCHEMA_VERSION, 'backbone': backbone.name,
                'weights': hash_weights(backbone.front(self.position)),
                'position': self.position, 'preprocessing': asdict(backbone.preprocessing),
                'frames': self.frames, 'dtype': self.dtype, 'engine': self.engine}

    @cached_property
    def graph(self) -> bytes:
        """Give the front as an ONNX graph; making it takes seconds."""
        size = self.backbone.preprocessing.size
        return torch_graph(
            self.backbone.front(self.position), [torch.zeros(self.frames, 3, size, size)],
            inputs=['pixels'], outputs=['maps'])

    def __getstate__(self) -> dict[str, Any]:
        """Make the graph once for all processes, which then need no network."""
        made = {'graph': self.graph, 'backbone': replace(self.backbone, module=nn.Identity())} \
            if self.engine == 'onnxruntime' else {}
        return {**self.__dict__, **made}

    def start(self, workers: int) -> Encode:
        """Make the engine."""
        if workers > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() // workers))
        front = self._front()
        return lambda videos, root: self._encode(front, videos, root)

    def _front(self) -> Callable[[Tensor], Maps]:
        """Make what takes pixels [F, 3, S, S] to maps [F, C, rows, columns]."""
        if self.engine == 'torch':
            network = self.backbone.front(self.position)
            return lambda pixels: np.asarray(network(pixels).numpy())
        session = SessionFactory('cpu', threads=torch.get_num_threads()).create(
            self.graph, name='front')
        return lambda pixels: np.asarray(session.run(None, {'pixels': pixels.numpy()})[0])

    def _encode(
        self, front: Callable[[Tensor], Maps], videos: Videos, root: Path,
    ) -> dict[str, NDArray[Any]]:
        [(view, file)] = videos.files.items()
        path = root / file
        frames, times = read_frames(path, count=self.frames, span_s=videos.span_s,
                                    geometry=videos.geometry[view])
        with torch.inference_mode():
            maps = np.moveaxis(front(preprocess(frames, self.backbone.preprocessing)), 1, -1)
        if not np.isfinite(maps).all():
            raise DataError(f'{path}: features are not finite')
        there, largest = np.count_nonzero(maps), np.abs(maps).max()
        with np.errstate(over='ignore'):  # looked at below
            maps = np.ascontiguousarray(maps).astype(self.dtype)
        if np.count_nonzero(maps) < there / 2:
            raise DataError(f'{path}: features are at most {largest:.1g}, too small for '
                            f'{self.dtype}; use float32')
        if not np.isfinite(maps).all():
            raise DataError(f'{path}: features do not fit into {self.dtype}; use float32')
        return {'maps': maps, 'time_s': np.asarray(times, np.float64)}


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


def hash_weights(module: nn.Module) -> str:
    """Hash all weights of a network, by name, shape and value."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
