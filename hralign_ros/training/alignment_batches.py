# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From pairs and cached features to batches.

What the global batch of a step holds is a pure function of the seed and the step, whatever the
number of ranks; each rank loads its rows only. Images are never flipped or cropped at random:
features are computed before, and a flip contradicts left and right in the task's text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
import json

from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import Clip, Pair
from hralign_ros.data.samplers import SAMPLERS, window_frames
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import Batch
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

Texts = Mapping[str, NDArray[np.float32]]
Indices = NDArray[np.int64]
# First words of the generators' seeds: order of the pairs, frames, clips of the control.
_ORDER, _FRAMES, _CLIPS = 0, 1, 2


@dataclass(frozen=True)
class Item:
    """A human clip with the robot's clips of one episode, by view."""

    human: Clip
    robots: Mapping[str, Clip]

    @property
    def task_id(self) -> str:
        """Give the robot's task, whose text is the query of all streams."""
        return self.robot.task_id

    @property
    def robot(self) -> Clip:
        """Give the robot clip that stands for the episode."""
        return next(iter(self.robots.values()))


@dataclass(frozen=True, eq=False)
class PairBatch(Batch):
    """
    One rank's rows of a batch of b pairs.

    :param human: float32 [b, T, C, rows, columns], channels last in memory, as `robot`.
    :param robot: float32 [r, T, C, rows, columns], all views one after the other.
    :param owner: int64 [r], row of the pair that each robot clip belongs to.
    :param parts: number of clips in `robot` by view; a pair without a view has none there.
    :param text: float32 [b, D].
    :param present: bool [views, B], which pairs of the global batch have which view.
    :param same_task: bool [B, B], of the global batch.
    :param texts: float32 [K, D], the different texts of the global batch.
    :param text_of: int64 [B], text of each pair of the global batch.
    """

    human: Tensor
    robot: Tensor
    owner: Tensor
    parts: tuple[int, ...]
    text: Tensor
    present: Tensor
    same_task: Tensor
    texts: Tensor
    text_of: Tensor


@dataclass(frozen=True, eq=False)
class VideoBatch(Batch):
    """
    One rank's rows of a batch of n videos, of humans and of robots.

    :param maps: float32 [n, T, C, rows, columns], channels last in memory.
    :param task: int64 [N], text of each video of the global batch.
    :param texts: float32 [K, D], the texts of the global batch.
    """

    maps: Tensor
    task: Tensor
    texts: Tensor


def make_items(pairs: Iterable[Pair], cache: ClipFeatures) -> tuple[list[Item], int]:
    """
    Join the pairs of one human clip with one robot episode, one robot clip per view.

    :returns: items in the order of their first pair; number of pairs that were left out because
        a clip of theirs has no features.
    """
    robots: dict[tuple[str, str], dict[str, Clip]] = {}
    humans: dict[str, Clip] = {}
    left_out = 0
    for pair in pairs:
        if not (cache.has(pair.human) and cache.has(pair.robot)):
            left_out += 1
            continue
        humans[pair.human.key] = pair.human
        views = robots.setdefault((pair.human.key, pair.robot.episode_id), {})
        views[pair.robot.view] = pair.robot
    return [Item(humans[human], views) for (human, _), views in robots.items()], left_out


class _Source:
    """Clips of a cache with the texts of their tasks, and which frames of them are taken."""

    def __init__(
        self, items: Sequence[Item], cache: ClipFeatures, texts: Texts, *, length: int,
        sampler: str, seed: int,
    ) -> None:
        if sampler not in SAMPLERS:
            raise DataError(f"sampler is '{sampler}'; allowed: {', '.join(SAMPLERS)}")
        if length < 1:
            raise DataError(f'length is {length}; needed is 1 or more')
        self.items = list(items)
        missing = sorted({i.robot.task_text for i in self.items} - set(texts))
        if missing:
            raise DataError(f"no text feature of '{missing[0]}', and {len(missing)} in all")
        self.cache = cache
        self.texts = texts
        self.length = length
        self.sampler = sampler
        self.seed = seed

    def frames(self, clip: Clip, rng: np.random.Generator) -> Indices:
        """Choose frames of a clip at random."""
        count = self.cache.frames
        if self.sampler != 'window':
            return SAMPLERS[self.sampler](count, self.length, rng)
        times = self.cache.times(clip)
        rate = (count - 1) / max(float(times[-1] - times[0]), 1e-6)
        return window_frames(count, self.length, rng, rate_hz=rate)

    def text(self, texts: Sequence[str]) -> Tensor:
        """Stack text features: float32 [n, D]."""
        return torch.tensor(np.stack([self.texts[t] for t in texts]), dtype=torch.float32)


class PairBatches(_Source):
    """
    Batches of pairs: every epoch takes each pair once, in a new order; what is left over is not.

    :param items: as `make_items` makes them.
    :param texts: float32 [D] by task text.
    :param batch: pairs in a global batch.
    :param length: T, frames of each clip, of the F that are cached.
    :param sampler: one of `data.samplers.SAMPLERS`.
    :param by_scene: fill batches scene by scene, so that most negatives have the background of
        the pair and cannot be told from it by that.
    :raises DataError: fewer items than a batch, an unknown sampler, or a text is missing.
    """

    def __init__(
        self, items: Sequence[Item], cache: ClipFeatures, texts: Texts, *, batch: int,
        length: int = 5, sampler: str = 'random', seed: int = 0, by_scene: bool = False,
    ) -> None:
        super().__init__(items, cache, texts, length=length, sampler=sampler, seed=seed)
        if not 1 <= batch <= len(self.items):
            raise DataError(f'a batch of {batch} pairs, and there are {len(self.items)} with '
                            'features; choose a smaller batch, or give more pairs')
        self.size = batch
        self._scenes = np.unique([i.robot.scene for i in self.items], return_inverse=True)[1] \
            if by_scene else None
        self.views = tuple(sorted({view for item in self.items for view in item.robots}))

    @property
    def steps_per_epoch(self) -> int:
        """Give the number of whole batches in all pairs."""
        return len(self.items) // self.size

    def plan(self, step: int) -> Indices:
        """Give the items of the global batch of a step: int64 [batch]."""
        epoch, place = divmod(step, self.steps_per_epoch)
        rng = np.random.default_rng([_ORDER, self.seed, epoch])
        order = rng.permutation(len(self.items))
        if self._scenes is not None:
            rank = rng.permutation(int(self._scenes.max()) + 1)
            order = order[np.argsort(rank[self._scenes[order]], kind='stable')]
            # Whole batches in a new order: no run of steps sees one scene only.
            whole = order[:self.steps_per_epoch * self.size].reshape(-1, self.size)
            order = whole[rng.permutation(len(whole))].ravel()
        return order[place * self.size:(place + 1) * self.size].astype(np.int64)

    def load(self, step: int, ranks: Ranks = Ranks()) -> PairBatch:  # noqa: B008
        """Load this rank's rows of the batch of a step (from 0)."""
        rng = np.random.default_rng([_FRAMES, self.seed, step])
        chosen = [self.items[i] for i in self.plan(step)]
        # Sampled for the whole batch, so that no rank's frames depend on the number of ranks.
        frames = [{clip.key: self.frames(clip, rng) for clip in (
            item.human, *(item.robots[v] for v in self.views if v in item.robots))}
            for item in chosen]
        return self._load(chosen, frames, ranks.rows(self.size))

    def load_even(self, items: slice) -> PairBatch:
        """
        Load these items with frames spread evenly over each clip, for validation.

        Their `texts` are those of all items, so that such batches can be put together.
        """
        chosen = self.items[items]
        even = np.rint(np.linspace(0, self.cache.frames - 1, self.length)).astype(np.int64)
        frames = [{clip.key: even for clip in (item.human, *item.robots.values())}
                  for item in chosen]
        return self._load(chosen, frames, slice(0, len(chosen)), self.all_texts)

    @cached_property
    def all_texts(self) -> list[str]:
        """List the texts of all items."""
        return sorted({item.robot.task_text for item in self.items})

    @cached_property
    def task_numbers(self) -> list[int]:
        """Give the number of each item's task."""
        return list(np.unique([item.task_id for item in self.items], return_inverse=True)[1])

    def _load(
        self, chosen: Sequence[Item], frames: Sequence[Mapping[str, Indices]], rows: slice,
        texts: Sequence[str] = (),
    ) -> PairBatch:
        mine, my_frames = chosen[rows], frames[rows]
        robots: list[Clip] = []
        owner: list[int] = []
        parts = []
        for view in self.views:
            there = [i for i, item in enumerate(mine) if view in item.robots]
            robots += [mine[i].robots[view] for i in there]
            owner += there
            parts.append(len(there))
        tasks = np.unique([item.task_id for item in chosen], return_inverse=True)[1]
        texts = texts or sorted({item.robot.task_text for item in chosen})
        return PairBatch(
            human=self.cache.stack(
                [item.human for item in mine],
                [f[item.human.key] for item, f in zip(mine, my_frames, strict=True)]),
            robot=self.cache.stack(robots, [
                my_frames[i][clip.key] for i, clip in zip(owner, robots, strict=True)]),
            owner=torch.tensor(owner, dtype=torch.int64), parts=tuple(parts),
            text=self.text([item.robot.task_text for item in mine]),
            present=torch.tensor([[view in item.robots for item in chosen]
                                  for view in self.views]),
            same_task=torch.from_numpy(tasks[:, None] == tasks[None]),
            texts=self.text(texts),
            text_of=torch.tensor([texts.index(item.robot.task_text) for item in chosen]))


class VideoBatches(_Source):
    """
    Batches of single videos for the control without alignment: a human is one more embodiment.

    A video is sampled as human or robot in a fixed ratio; then evenly among embodiments, among the
    tasks of that embodiment, and among their clips.

    :param batch: videos in a global batch.
    :param human_fraction: of them that are human, 0 to 1.
    :raises DataError: there are no clips, the fraction is not in 0 to 1, or as `PairBatches`.
    """

    def __init__(
        self, items: Sequence[Item], cache: ClipFeatures, texts: Texts, *, batch: int,
        human_fraction: float = 0.5, length: int = 5, sampler: str = 'random', seed: int = 0,
    ) -> None:
        super().__init__(items, cache, texts, length=length, sampler=sampler, seed=seed)
        if not 0 <= human_fraction <= 1 or batch < 1 or not self.items:
            raise DataError(f'human_fraction is {human_fraction}, the batch {batch} of '
                            f'{len(self.items)} pairs; needed are 0 to 1, 1 or more, and pairs')
        unknown = sorted({i.human.task_text for i in self.items} - set(texts))
        if unknown:
            raise DataError(f"no text feature of '{unknown[0]}', and {len(unknown)} in all")
        self.size = batch
        self.humans = round(batch * human_fraction)
        self._human = _by_embodiment(item.human for item in self.items)
        self._robot = _by_embodiment(
            clip for item in self.items for clip in item.robots.values())

    def plan(self, step: int) -> list[Clip]:
        """Give the clips of the global batch of a step; humans and robots take turns."""
        rng = np.random.default_rng([_CLIPS, self.seed, step])
        clips = [_sample(self._human if i < self.humans else self._robot, rng)
                 for i in range(self.size)]
        # Mixed, so that every rank gets both.
        return [clips[i] for i in rng.permutation(self.size)]

    def load(self, step: int, ranks: Ranks = Ranks()) -> VideoBatch:  # noqa: B008  # frozen
        """Load this rank's rows of the batch of a step (from 0)."""
        rng = np.random.default_rng([_FRAMES, self.seed, step])
        clips = self.plan(step)
        frames = [self.frames(clip, rng) for clip in clips]
        rows = ranks.rows(self.size)
        texts, task = np.unique([clip.task_text for clip in clips], return_inverse=True)
        return VideoBatch(
            self.cache.stack(clips[rows], frames[rows]), torch.from_numpy(task.astype(np.int64)),
            self.text([str(t) for t in texts]))


def digest(items: Iterable[Item]) -> str:
    """Identify items by what is in them, for telling one run's data from another's."""
    rows = [[item.human.key, item.task_id, item.robot.task_text,
             sorted((view, clip.key) for view, clip in item.robots.items())] for item in items]
    return sha256(json.dumps(rows).encode()).hexdigest()[:16]


# Clips by task, by embodiment.
_Tree = list[list[list[Clip]]]


def _by_embodiment(clips: Iterable[Clip]) -> _Tree:
    tree: dict[str, dict[str, dict[str, Clip]]] = {}
    for clip in clips:
        tree.setdefault(clip.embodiment, {}).setdefault(clip.task_id, {})[clip.key] = clip
    return [[[clips[k] for k in sorted(clips)] for _, clips in sorted(tasks.items())]
            for _, tasks in sorted(tree.items())]


def _sample(tree: _Tree, rng: np.random.Generator) -> Clip:
    tasks = tree[rng.integers(len(tree))]
    clips = tasks[rng.integers(len(tasks))]
    return clips[rng.integers(len(clips))]
