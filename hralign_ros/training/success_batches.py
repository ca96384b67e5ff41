# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From recordings to batches of clips for the success head.

What the global batch of a step holds is a pure function of the seed and the step, whatever the
number of ranks; each rank loads the tokens of its own clips only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hralign_ros.data.manifest import DataError
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import Batch
from hralign_ros.training.success_clips import (
    Recording,
    sample_clip,
    stack_fine,
    stack_times,
    stack_tokens,
)
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_scenes import StillBatch, StillBatches
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

# First word of the generator's seed.
_CLIPS = 11
# What is nearly a success: this long before it [s].
PRE_SUCCESS_S = 1.0
# What was done instead of the task has been done for this long at the end [s].
INSTEAD_S = 1.2


@dataclass(frozen=True, eq=False)
class ClipBatch(Batch):
    """
    One step's n clips with what is true of them, and the tokens of this rank's b.

    :param tokens: float32 [b, V, T, N, R].
    :param mask: float32 [n, V, T], 1 where a frame is.
    :param age: float32 [n, V, T], seconds before the newest frame.
    :param tasks: rows of the tasks in the batch, [U].
    :param task: int64 [n], each clip's column among those.
    :param done: bool [n], as are `failing` and `human`.
    :param progress: float32 [n], NaN where not known.
    :param recording: int64 [n], which recording a clip is of.
    :param instead: int64 [n], which of the batches' instructions has been done instead of the
        task's; -1: none.
    :param fine: float32 [b, 2, M, R], fine tokens of the last view's first frame in the recording
        and its newest; it and what follows is None where no grounding is trained.
    :param asked: int64 [n, 3], rows of instructions that are asked for: the task's, another one,
        and what has been done instead; -1: none.
    :param stills: the step's stills.
    """

    tokens: Tensor
    mask: Tensor
    age: Tensor
    tasks: tuple[int, ...]
    task: Tensor
    done: Tensor
    failing: Tensor
    human: Tensor
    progress: Tensor
    recording: NDArray[np.int64]
    instead: Tensor
    fine: Tensor | None = None
    asked: Tensor | None = None
    stills: StillBatch | None = None


class ClipBatches:
    """
    Batches of clips: some tasks, and of each as many clips.

    :param tasks: ids, in the order of their rows; those of the recordings among them.
    :param instructions: those of the tasks, in their order, then others that may have been
        carried out in place of a task's.
    :param stills: of a grounding.
    :raises DataError: no recording shows a success.
    """

    def __init__(
        self, recordings: Sequence[Recording], tasks: Sequence[str], options: SuccessOptions,
        instructions: Sequence[str] = (), stills: StillBatches | None = None,
    ) -> None:
        self.recordings, self.options = list(recordings), options
        self._stills, self._count = stills, len(tasks)
        self._instructions = {text: row for row, text in enumerate(instructions)}
        number = {task: row for row, task in enumerate(tasks)}
        self._by_task: dict[int, list[int]] = {}
        for row, recording in enumerate(self.recordings):
            self._by_task.setdefault(number[recording.episode.task_id], []).append(row)
        if not self._by_task or not any(recording.done.any() for recording in self.recordings):
            raise DataError('no recording of a success to train on')
        self._tasks = min(options.tasks_per_step, len(self._by_task))
        self.size = self._tasks * options.clips_per_task

    def load(self, step: int, ranks: Ranks) -> ClipBatch:
        """Load the batch of a step (from 0) with the tokens of this rank's clips."""
        options = self.options
        rng = np.random.default_rng([_CLIPS, options.seed, step])
        tasks = tuple(sorted(rng.choice(
            sorted(self._by_task), self._tasks, replace=False).tolist()))
        rows: list[int] = []
        newest: list[int] = []
        for task in tasks:
            for _ in range(options.clips_per_task):
                rows.append(self._recording(self._by_task[task], rng))
                newest.append(
                    sample_newest(self.recordings[rows[-1]], rng, options.pre_success))
        chosen = [self.recordings[row] for row in rows]
        clips = [
            sample_clip(recording, row, options.length, rng, drop_view=options.drop_view,
                        late_view=options.late_view, rewind=options.rewind, stall=options.stall)
            for recording, row in zip(chosen, newest, strict=True)]
        mine = ranks.rows(len(rows))
        pairs = list(zip(chosen, newest, strict=True))
        batch = ClipBatch(
            stack_tokens(chosen[mine], clips[mine]), *stack_times(clips), tasks,
            torch.arange(len(tasks)).repeat_interleave(options.clips_per_task),
            torch.tensor([bool(f.done[r]) for f, r in pairs]),
            torch.tensor([bool(f.failing[r]) for f, r in pairs]),
            torch.tensor([f.human for f in chosen]),
            torch.tensor([float(f.progress[r]) for f, r in pairs]), np.array(rows),
            torch.tensor([self._instead(f, r) for f, r in pairs]))
        if self._stills is None:
            return batch
        own = np.repeat(tasks, options.clips_per_task)
        # Of many instructions hardly one is carried out where another one is asked for.
        others = (own + rng.integers(1, max(2, self._count), len(own))) % self._count
        instead = batch.instead.numpy()
        others = np.where((others == own) | (others == instead), -1, others)
        asked = np.stack([own, others, instead], 1)
        return replace(batch, fine=stack_fine(chosen[mine], clips[mine]),
                       asked=torch.from_numpy(asked), stills=self._stills.load(step, ranks))

    def _instead(self, recording: Recording, newest: int) -> int:
        times = recording.features.time_s
        return self._instructions.get(recording.instead, -1) \
            if times[newest] >= times[-1] - INSTEAD_S else -1

    def _recording(self, rows: Sequence[int], rng: np.random.Generator) -> int:
        """Sample a recording of a task: a human by their fraction, a success half of the time."""
        human = [row for row in rows if self.recordings[row].human]
        robot = [row for row in rows if not self.recordings[row].human]
        some = human if human and (not robot or rng.random() < self.options.human_fraction) \
            else robot
        good = [row for row in some if self.recordings[row].done.any()]
        bad = [row for row in some if not self.recordings[row].done.any()]
        some = good if good and (not bad or rng.random() < 0.5) else bad
        return int(some[rng.integers(len(some))])


def sample_newest(recording: Recording, rng: np.random.Generator, pre_success: float) -> int:
    """Sample the newest frame of a clip: half of the time one of those that matter most."""
    marked = recording.done if recording.done.any() else recording.failing
    if marked.any() and rng.random() < 0.5:
        return int(rng.choice(np.flatnonzero(marked)))
    if recording.done.any() and rng.random() < pre_success:
        # Nearly there: what a decision that comes too early would be made on.
        first = int(recording.done.argmax())
        times = recording.features.time_s
        near = np.flatnonzero(times[:first] >= times[first] - PRE_SUCCESS_S)
        if len(near):
            return int(rng.choice(near))
    return int(rng.integers(recording.frames))
