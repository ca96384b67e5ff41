# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From a run and a feature cache to the plain arrays that the metrics work on."""

from collections.abc import Sequence
from dataclasses import dataclass
import math
import shutil
import tempfile
from typing import Any

from hralign_ros.data.manifest import DataSet, Episode, recording_of
from hralign_ros.data.pairs import Clip, make_pairs
from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.models.hr_align import HRAlign, mean_pool
from hralign_ros.training.alignment_batches import Item, make_items
from hralign_ros.training.clip_features import ClipFeatures
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

Floats = NDArray[np.float32]

# The instruction that says nothing: with it, no text can tell the task.
NEUTRAL_TEXT = 'do the task'
_CHUNK = 32
# Pooled features of more than this lie on the disk [bytes].
_IN_MEMORY = 1 << 30


class OnDisk:
    """
    Float32 [n, K, C] in a temporary file (TMPDIR says where), read text by text: `[rows, text]`.

    :raises EvaluationError: the disk is too small.
    """

    def __init__(self, clips: int, texts: int, channels: int) -> None:
        self.shape = clips, texts, channels
        size, folder = 4 * math.prod(self.shape), tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if size > free:
            raise EvaluationError(
                f'{folder}: {size / 1e9:.0f} GB of pooled features for {clips} clips and {texts} '
                f'texts, and {free / 1e9:.0f} GB are free; set TMPDIR to another folder')
        self._file = tempfile.TemporaryFile()

    def __setitem__(self, rows: slice, features: Floats) -> None:
        """Write features [b, K, C] of neighbouring clips."""
        clips, _, channels = self.shape
        for text, some in enumerate(features.swapaxes(0, 1)):
            self._file.seek(4 * channels * (text * clips + rows.start))
            self._file.write(np.ascontiguousarray(some).data)

    def __getitem__(self, index: tuple[Any, int]) -> Floats:
        """Give [k, C] of some clips as pooled with one text; the last is -1."""
        rows, text = index
        clips, texts, channels = self.shape
        self._file.seek(4 * channels * clips * (text % texts))
        found = np.fromfile(self._file, np.float32, clips * channels)
        return np.asarray(found.reshape(clips, channels)[rows], np.float32)


# Features [n, K, C] of norm 1: each of n clips pooled with each of K texts. At RH20T's size they
# are 40 GB; what is larger than _IN_MEMORY lies on the disk.
Pooled = OnDisk | Floats


@dataclass(frozen=True, eq=False)
class PairArrays:
    """
    Pooled features of the pairs of one split and one view of the robot.

    :param human: float32 [n, K, C], each clip pooled with each of K texts; norm 1.
    :param robot: float32 [n, K, C].
    :param text: number of each pair's own text among the K - 1 first, int64 [n]; the last text is
        NEUTRAL_TEXT. With mean pooling K is 1, and there is nothing to choose.
    :param names: episode ids, [n].
    :param recordings: what was recorded, [n]: the same one where several cameras recorded it.
    """

    human: Pooled
    robot: Pooled
    text: NDArray[np.int64]
    names: NDArray[np.str_]
    recordings: NDArray[np.str_]
    tasks: NDArray[np.str_]
    scenes: NDArray[np.str_]

    def own(self) -> tuple[Floats, Floats]:
        """Return human and robot features pooled with the pair's own text, [n, C] each."""
        number = np.minimum(self.text, self.human.shape[1] - 1)
        human, robot = (np.empty((len(number), of.shape[2]), np.float32)
                        for of in (self.human, self.robot))
        for text in np.unique(number):
            rows = np.flatnonzero(number == text)
            human[rows], robot[rows] = self.human[rows, text], self.robot[rows, text]
        return human, robot

    def neutral(self) -> tuple[Floats, Floats]:
        """Return human and robot features pooled with the neutral text, [n, C] each."""
        return self.human[:, -1], self.robot[:, -1]


@dataclass(frozen=True, eq=False)
class FrameArrays:
    """
    Features of single robot frames with what the robot did next.

    :param features: float32 [n, C], pooled with the episode's own text.
    :param actions: float64 [n, A], mean command from this frame to the next one kept.
    :param proprio: float64 [n, P].
    :param recordings: what frames are of, [n]: the same one where several cameras recorded it.
    """

    features: Floats
    actions: NDArray[np.float64]
    proprio: NDArray[np.float64]
    recordings: NDArray[np.str_]
    tasks: NDArray[np.str_]


def split_items(data: DataSet, cache: ClipFeatures, split: str, view: str) -> list[Item]:
    """
    List the recorded pairs of a split.

    :raises EvaluationError: there are fewer than two.
    """
    pairs = make_pairs(data.of_split(split), 'recorded', views=(view,))
    items, _ = make_items(pairs, cache)
    if len(items) < 2:
        raise EvaluationError(f'split {split}: {len(items)} pairs with features; needed are 2')
    return items


def encode_pairs(
    model: HRAlign, items: Sequence[Item], cache: ClipFeatures,
    texts: dict[str, Floats], *, length: int = 5, adapt_human: bool = False,
    frozen_mean: bool = False,
) -> PairArrays:
    """
    Pool the clips of pairs, frames spread evenly.

    :param texts: float32 [D] by text, NEUTRAL_TEXT among them.
    :param frozen_mean: the mean of what the model's backbone gives, without anything trained.
    :param adapt_human: put the humans through the adapters too (the co-training control).
    """
    names = sorted({item.robot.task_text for item in items})
    queries = torch.tensor(np.stack([texts[name] for name in [*names, NEUTRAL_TEXT]]),
                           device=model.device)
    shape = len(items), len(queries), model.attention.query(queries[:1]).shape[1]
    if frozen_mean or model.pooling == 'mean':
        shape = shape[0], 1, shape[2]
    large = 4 * math.prod(shape) > _IN_MEMORY
    human, robot = (OnDisk(*shape) if large else np.empty(shape, np.float32) for _ in range(2))
    with torch.no_grad():
        for start in range(0, len(items), _CHUNK):
            some = items[start:start + _CHUNK]
            for pooled, clips, adapted in ((human, [i.human for i in some], adapt_human),
                                           (robot, [i.robot for i in some], True)):
                pooled[start:start + len(some)] = _pooled(
                    model, _maps(clips, cache, length), queries, adapted=adapted,
                    frozen_mean=frozen_mean).cpu().numpy()
    return PairArrays(
        human=human, robot=robot,
        text=np.array([names.index(item.robot.task_text) for item in items], np.int64),
        names=np.array([item.robot.episode_id for item in items]),
        recordings=np.array([recording_of(item.robot.episode_id) for item in items]),
        tasks=np.array([item.task_id for item in items]),
        scenes=np.array([item.robot.scene for item in items]))


def encode_frames(
    model: HRAlign, items: Sequence[Item], cache: ClipFeatures,
    texts: dict[str, Floats], data: DataSet, *, frozen_mean: bool = False,
) -> FrameArrays:
    """
    Encode the cached frames of robot clips one by one; parameters as for `encode_pairs`.

    Only episodes with actions and proprioception of the most common widths are taken: arms with
    other joints cannot share a probe.

    :raises EvaluationError: no episode has actions, or none has two cached frames.
    """
    episodes = {e.episode_id: e for e in data.episodes if e.actions and e.proprio}
    widths = [_width(episodes[i.robot.episode_id]) for i in items
              if i.robot.episode_id in episodes]
    if not widths:
        raise EvaluationError('no episode of this split has actions and proprioception')
    common = max(set(widths), key=widths.count)
    features, actions, proprio, recordings, tasks = [], [], [], [], []
    with torch.no_grad():
        for item in items:
            episode = episodes.get(item.robot.episode_id)
            if episode is None or _width(episode) != common:
                continue
            kept = _kept_frames(episode, cache.times(item.robot))
            maps = cache.stack([item.robot], [np.arange(cache.frames)]).transpose(0, 1)
            query = torch.tensor(texts[item.robot.task_text], device=model.device)[None]
            pooled = _pooled(
                model, maps, query, adapted=True, frozen_mean=frozen_mean)[:, 0].cpu().numpy()
            commands = np.array(episode.actions, np.float64)
            states = np.array(episode.proprio, np.float64)
            for row in range(len(kept) - 1):
                if kept[row] == kept[row + 1]:
                    continue
                features.append(pooled[row])
                actions.append(commands[kept[row]:kept[row + 1]].mean(0))
                proprio.append(states[kept[row]])
                recordings.append(episode.recording)
                tasks.append(episode.task_id)
    if not features:
        raise EvaluationError('no episode with actions has two different cached frames')
    return FrameArrays(np.stack(features), np.stack(actions), np.stack(proprio),
                       np.array(recordings), np.array(tasks))


def _pooled(
    model: HRAlign, maps: Tensor, queries: Tensor, *, adapted: bool, frozen_mean: bool,
) -> Tensor:
    """Pool maps [B, T, C', r, c] with each query [K, D] to [B, K, C] (K = 1 for the mean)."""
    maps = maps.to(model.device)
    if frozen_mean:
        # Maps are cached where the adapters begin; more of the backbone may follow.
        return mean_pool(model.frozen_maps(maps))[:, None]
    tokens = model.adapted_maps(maps) if adapted else model.frozen_maps(maps)
    return model.pooled_for_each(tokens, queries)


def _maps(clips: Sequence[Clip], cache: ClipFeatures, length: int) -> Tensor:
    """Stack `length` evenly spread frames of each clip: float32 [B, T, C, rows, columns]."""
    rows = np.round(np.linspace(0, cache.frames - 1, length)).astype(np.int64)
    return cache.stack(clips, [rows] * len(clips))


def _width(episode: Episode) -> tuple[int, int]:
    return len(episode.actions[0]), len(episode.proprio[0])


def _kept_frames(episode: Episode, times: NDArray[np.float64]) -> list[int]:
    """Find which frames of an episode were cached."""
    all_times = np.array(episode.time_s)
    return [int(np.abs(all_times - t).argmin()) for t in times]
