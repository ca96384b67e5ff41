# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The way of a training clip: data set, features, recordings in memory, frames that are chosen.

A clip is what the success head sees of an episode so far, with what is true in its newest frame.
Training samples them at random; evaluation takes, tick by tick, those that the live memory
chooses.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hralign_ros.data.instructions import STILL
from hralign_ros.data.manifest import DataSet, Episode, read_manifest
from hralign_ros.data.splits import read_splits
from hralign_ros.data.token_features import (
    Basis,
    build_tokens,
    EpisodeFeatures,
    TokenFeatures,
)
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.runtime.memory import EpisodeMemory, FrameSet
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import nearest
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

Floats = NDArray[np.float32]
_NANOSECONDS = 1_000_000_000
# Tag of a failed attempt in which something else was accomplished.
INSTEAD = 'done:'
# The first stamp of an episode that is played offline; 0 means absent.
_START = _NANOSECONDS


@dataclass(frozen=True, eq=False)
class Recording:
    """
    One recording of an episode, in memory, with what is true in each frame.

    :param done: bool [F], the task is accomplished in this frame.
    :param failing: bool [F], the attempt has failed: from its fault on, and not before the middle
        of the recording, as some faults are there from the start and cannot be seen yet.
    :param progress: float32 [F], NaN where not known.
    """

    episode: Episode
    features: EpisodeFeatures
    human: bool
    done: NDArray[np.bool_]
    failing: NDArray[np.bool_]
    progress: Floats

    @property
    def frames(self) -> int:
        """Count the frames."""
        return len(self.done)

    @property
    def instead(self) -> str:
        """Give the instruction that was carried out in place of the task's; '' for none."""
        return next((tag.removeprefix(INSTEAD) for tag in self.episode.tags
                     if tag.startswith(INSTEAD)), '')


def open_data(
    folder: Path, bundle: Path, options: SuccessOptions, *, workers: int | str = 1,
    store: Path | None = None, basis: Basis | None = None, report: Report = print,
) -> tuple[DataSet, TokenFeatures]:
    """
    Read a data set with its splits and recordings under these options, and its features.

    :param basis: what the features have to be in: a run's own, where it uses other data than
        it was trained on.
    """
    imported = read_manifest(folder)
    data = chosen_data(imported, options)
    # The basis is fitted once: to what the import trains on, whatever these options leave out of
    # that, or add to it. It knows no labels.
    return data, build_tokens(
        data, bundle, folder=store, workers=workers, basis=basis,
        fit_to=imported if any(e.split == 'train' for e in imported.episodes) else data,
        report=report)


def chosen_data(imported: DataSet, options: SuccessOptions) -> DataSet:
    """Give a data set the splits and recordings that it has under these options."""
    data = assign_splits(imported, options)
    if options.human_fraction:
        return data
    # No human recording is used, so that none needs to be encoded either.
    return data.only([replace(e, human_video='', human_from='') for e in data.episodes])


def assign_splits(data: DataSet, options: SuccessOptions) -> DataSet:
    """Change the split of robots that these options train on, or leave out; keep all others."""
    everyone = replace(read_splits(Path(options.split_file) if options.split_file else None),
                       test_embodiments=frozenset())

    def split(episode: Episode) -> str:
        if options.leave_out and episode.embodiment == options.leave_out:
            return 'test_embodiment'
        if episode.split != 'test_embodiment' or not (options.all_robots or options.leave_out):
            return episode.split
        return everyone.of(task_id=episode.task_id, scene=episode.scene, seed=episode.seed,
                           embodiment=episode.embodiment, episode_id=episode.episode_id)
    return data.only(replace(e, split=split(e)) for e in data.episodes)


def without_stills(data: DataSet, options: SuccessOptions) -> DataSet:
    """Leave stills out where a head is grounded: it learns from them, and they are no attempts."""
    return data.only(e for e in data.episodes if STILL not in e.tags) if options.grounded else data


def load_recordings(
    data: DataSet, features: TokenFeatures, splits: Iterable[str], *, humans: bool = False,
) -> list[Recording]:
    """Load the robot's recordings of some splits, and the humans' too."""
    wanted = set(splits)
    recordings = []
    for episode in data.episodes:
        if episode.split in wanted:
            for human in (False, True) if humans and episode.human_video else (False,):
                recording = load_recording(features, episode, human=human)
                if recording:
                    recordings.append(recording)
    return recordings


def load_recording(features: TokenFeatures, episode: Episode, *,
                   human: bool = False) -> Recording | None:
    """Load a recording with its labels; None where it has no features or no success flags."""
    if not features.has(episode, human=human) or not len(episode.success_flags):
        return None
    # The flags are the robot's: those of a human who did it at their own pace are not known.
    if human and episode.human_from != episode.episode_id:
        return None
    return labelled(episode, features.load(episode, human=human), human=human)


def labelled(episode: Episode, features: EpisodeFeatures, *, human: bool = False) -> Recording:
    """Put an episode's labels to the frames of a recording of it."""
    own = np.asarray(episode.time_s, np.float64)
    rows = nearest(own, features.time_s)
    done = np.asarray(episode.success_flags, bool)[rows]
    failing = np.zeros(len(rows), bool)
    if not done.any():
        half = 0.5 * float(features.time_s[0] + features.time_s[-1])
        failing = features.time_s >= max(episode.fault_s or 0.0, half)
    if len(episode.progress):
        progress = np.asarray(episode.progress, np.float32)[rows]
    elif done.any():
        # As the simulator has it: the fraction of the time until the task first is accomplished.
        first = features.time_s[int(done.argmax())] - features.time_s[0]
        progress = np.minimum((features.time_s - features.time_s[0]) / max(first, 1e-9), 1.0)
        progress = progress.astype(np.float32)
        progress[int(done.argmax()):] = 1.0
    else:
        progress = np.full(len(rows), np.nan, np.float32)
    # A recording may be a part of a longer video.
    features = replace(features, time_s=features.time_s - features.time_s[0])
    return Recording(episode, features, human, done, failing, progress)


def rearranged(recording: Recording, rows: NDArray[np.int64],
               done: NDArray[np.bool_]) -> Recording:
    """
    Return the same frames in another order, at the same times: cut, reversed, frozen.

    :param rows: for each new frame the old one, [F'], or [F', V] for each view apart; F' <= F.
    :param done: bool [F'].
    """
    old, new = recording.features, len(rows)
    each = rows[:, None] if rows.ndim == 1 else rows
    views = np.arange(old.tokens.shape[1])[None]
    features = replace(old, tokens=old.tokens[each, views], means=old.means[each, views],
                       time_s=old.time_s[:new],
                       fine=None if old.fine is None else old.fine[each[:, -1]])
    return replace(recording, features=features, done=done, failing=np.zeros(new, bool),
                   progress=np.full(new, np.nan, np.float32))


# For each view the rows of T frames, -1 for none, and their ages: int64 [V, T], float32 [V, T].
Choice = tuple[NDArray[np.int64], Floats]


def stack_clips(
    recordings: Sequence[Recording], choices: Sequence[Choice],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gather the frames chosen of each recording: tokens, mask and age, as below."""
    return stack_tokens(recordings, choices), *stack_times(choices)


def stack_tokens(recordings: Sequence[Recording], choices: Sequence[Choice]) -> Tensor:
    """Gather the tokens of the frames chosen: float32 [B, V, T, N, R], 0 where there is none."""
    rows = np.stack([choice[0] for choice in choices])
    views = np.arange(rows.shape[1])[:, None]
    tokens = np.stack([recording.features.tokens[np.maximum(r, 0), views]
                       for recording, r in zip(recordings, rows, strict=True)]).astype(np.float32)
    tokens *= (rows >= 0)[..., None, None]
    return torch.from_numpy(tokens)


def stack_fine(recordings: Sequence[Recording], choices: Sequence[Choice]) -> Tensor:
    """
    Gather the fine tokens of the last view's first frame in the recording and the clip's newest.

    :returns: float32 [B, 2, M, R], zeros where a clip has no frame of that view.
    """
    ends = []
    for recording, (rows, _) in zip(recordings, choices, strict=True):
        fine = recording.features.fine
        assert fine is not None, 'features of a bundle with fine tokens'
        there = rows[-1][rows[-1] >= 0]
        # As the node's memory has them: the first one whether or not it is in the clip.
        ends.append(fine[[0, there[-1]]] if len(there) else np.zeros_like(fine[[0, 0]]))
    return torch.from_numpy(np.stack(ends).astype(np.float32))


def stack_times(choices: Sequence[Choice]) -> tuple[Tensor, Tensor]:
    """
    Tell where frames are, and how old.

    :returns: mask float32 [B, V, T], 1 where a frame is; age float32 [B, V, T], seconds before
        the newest frame.
    """
    mask = np.stack([choice[0] >= 0 for choice in choices]).astype(np.float32)
    return torch.from_numpy(mask), torch.from_numpy(
        np.stack([choice[1] for choice in choices]) * mask)


def sample_clip(
    recording: Recording, newest: int, length: int, rng: np.random.Generator, *,
    drop_view: float = 0.0,
    late_view: float = 0.0, rewind: float = 0.0, stall: float = 0.0,
) -> Choice:
    """
    Sample a clip that ends with a frame: spread over the recording so far, with jitter.

    :param newest: row of the newest frame.
    :param length: T.
    :param drop_view: how likely each view is missing altogether; one always stays.
    :param late_view: how likely one view's frames are up to half a second old.
    :param rewind: how likely the recording has gone further and come back to this frame, so that
        neither what was seen before nor the time that has passed tells what is true now.
    :param stall: how likely the recording has stood still at this frame for a while.
    """
    views = recording.features.present.copy()
    if views.sum() > 1:
        dropped = views & (rng.random(len(views)) < drop_view)
        if not (views & ~dropped).any():
            dropped[rng.choice(np.flatnonzero(views))] = False
        views &= ~dropped
    step = float(recording.features.time_s[-1]) / max(recording.frames - 1, 1)
    # The rows of the recording as it went, one step apart.
    played = np.arange(newest + 1)
    if rng.random() < rewind and newest < recording.frames - 1:
        furthest = int(rng.integers(newest + 1, recording.frames))
        played = np.concatenate([np.arange(furthest), np.arange(furthest, newest - 1, -1)])
    if rng.random() < stall:
        pause = np.full(int(rng.integers(1, max(2, recording.frames // 2))), newest)
        played = np.concatenate([played, pause])
    last = len(played) - 1
    # From the newest backwards: a clip of one frame is the newest one.
    wanted = np.linspace(last, 0, min(length, last + 1))[::-1].copy()
    wanted[1:-1] += rng.uniform(-0.4, 0.4, max(len(wanted) - 2, 0)) * last / length
    chosen = np.unique(wanted.round().astype(np.int64))
    at = np.full((len(views), length), -1, np.int64)
    at[:, length - len(chosen):] = chosen
    if rng.random() < late_view and views.sum() > 1:
        # The frames of a view that comes late are those of a moment ago.
        late = rng.choice(np.flatnonzero(views))
        shift = int(rng.integers(1, 1 + max(1, int(0.5 / max(step, 1e-3)))))
        at[late] = np.where(at[late] >= 0, np.maximum(at[late] - shift, 0), -1)
        repeated = np.flatnonzero(np.diff(at[late]) == 0)
        at[late][repeated] = -1
    at[~views] = -1
    rows = np.where(at >= 0, played[np.maximum(at, 0)], -1)
    age = np.where(at >= 0, (last - at) * step, 0.0)
    return rows, age.astype(np.float32)


def replay(
    recording: Recording, clip: ClipSpec, *, views: NDArray[np.bool_] | None = None,
    delays: Sequence[float] = (), max_age: float = 0.5,
) -> list[Choice]:
    """
    Choose for every frame of a recording the clip that the live node's memory would give the head.

    :param views: bool [V], views that take part; None: all that were recorded.
    :param delays: seconds by which each view comes late; () for none.
    :param max_age: a view whose newest frame is older is left out.
    """
    times = (_START + np.round(recording.features.time_s * _NANOSECONDS)).astype(np.int64)
    there = recording.features.present if views is None else recording.features.present & views
    late = np.round(np.asarray(delays or [0.0] * len(there)) * _NANOSECONDS).astype(np.int64)
    memory = EpisodeMemory(
        length=clip.length, period=round(clip.period_s * _NANOSECONDS), capacity=clip.capacity,
        stride=round(clip.stride_s * _NANOSECONDS))
    choices = []
    for now in range(len(times)):
        # The newest frame of each view that has arrived by now.
        arrived = np.array([np.searchsorted(times, times[now] - d, 'right') - 1 for d in late])
        valid = there & (arrived >= 0)
        stamps = np.where(valid, times[np.maximum(arrived, 0)], 0)
        # Its rows stand in for the tokens: what is chosen are rows.
        oldest = round(max_age * _NANOSECONDS)
        memory.add(FrameSet(int(times[now]), stamps, valid,
                            arrived[:, None, None].astype(np.float32)), hold=oldest)
        live = valid & (times[now] - stamps <= oldest)
        rows = np.full((len(there), clip.length), -1, np.int64)
        age = np.zeros(rows.shape, np.float32)
        frames = memory.spread_clip()
        for slot, frame in enumerate(frames, start=clip.length - len(frames)):
            use = frame.valid & live
            rows[use, slot] = frame.tokens[use, 0, 0].astype(np.int64)
            age[use, slot] = (times[now] - frame.stamps[use]) * 1e-9
        choices.append((rows, age))
    return choices
