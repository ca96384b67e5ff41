# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A weight for each frame of demonstrations, out of a file that `hralign data label` wrote.

They are those of reward-aligned behaviour cloning (SARM, arXiv 2509.25358, equations 8 and 9),
which LeRobot's `rabc` computes of the same file: a frame counts by what progress gains over the
chunk of actions that begins there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hralign_ros.data.manifest import DataError, Episode
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import parquet

Doubles = NDArray[np.float64]
Signal = Literal['progress', 'success']
# Column of the file, by what is taken for progress.
_COLUMNS: dict[Signal, str] = {'progress': 'progress_sparse', 'success': 'success'}
# A gain above this counts in full, LeRobot's own number.
_ENOUGH = 0.01
_TINY = 1e-6


def read_weights(
    path: Path, episodes: Sequence[Episode], *, chunk: int, signal: Signal = 'progress',
) -> list[Doubles]:
    """
    Compute the weights of demonstrations that were imported from a LeRobot data set.

    :param path: file of progress of the same data set.
    :param episodes: the demonstrations.
    :param chunk: frames over which a gain is taken; at the end of an episode, what is left of it.
    :param signal: progress, or the probability of success in its place.
    :returns: for each episode float64 [F], 0 to 1; 1 where the file has no number.
    :raises DataError: the file cannot be read, is of other episodes or of other frames, has no
        number for any of them, or no frame would count.
    """
    column = _COLUMNS[signal]
    try:
        table = parquet.read_table(path, columns=['episode_index', 'frame_index', column])
        numbers, frames, values = (table.column(name).to_numpy().astype(kind) for name, kind in (
            ('episode_index', np.int64), ('frame_index', np.int64), (column, np.float64)))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f'{path}: {error}; needed is a file of `hralign data label`, with the '
                        f'columns episode_index, frame_index and {column}') from error
    order = np.lexsort((frames, numbers))
    numbers, frames, values = numbers[order], frames[order], values[order]
    firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
    gains = {int(numbers[first]): _gains(own, chunk) for first, own in zip(
        firsts, np.split(values, firsts[1:]), strict=True)} if len(numbers) else {}
    for number in gains:
        own = frames[numbers == number]
        if not np.array_equal(own, np.arange(len(own))):
            raise DataError(f'{path}: the frames of episode {number} are not numbered from 0 on, '
                            'each once. Label the data set anew (`hralign data label`)')
    chosen = [_of_episode(path, episode, gains) for episode in episodes]
    if np.isnan(np.concatenate(chosen)).all():
        raise DataError(
            f'{path}: {column} has no number for any of {len(chosen)} demonstrations, so all '
            'frames would count alike. ' + (
                'A task that was taught has none: --sample-weights-of success takes its '
                'probability' if signal == 'progress' else 'The bundle decides nothing about '
                'this task: teach it first (`hralign success teach`)'))
    every = np.concatenate(list(gains.values()))
    weights = [_weigh(one, every) for one in chosen]
    if not any(one.any() for one in weights):
        raise DataError(f'{path}: the weight of every frame of {len(weights)} demonstrations is '
                        f'0: {column} never grows. Train without weights, or label with a bundle '
                        'that was taught the task (`hralign success teach`)')
    return weights


def _gains(values: Doubles, chunk: int) -> Doubles:
    """Return what is gained over a chunk from each frame of an episode on; NaN: not known."""
    every = np.arange(len(values))
    return np.asarray(values[np.minimum(every + chunk, len(values) - 1)] - values, np.float64)


def _of_episode(path: Path, episode: Episode, gains: dict[int, Doubles]) -> Doubles:
    """
    Find the gains of an episode.

    :raises DataError: there are none, or of another number of frames.
    """
    number = episode.episode_id.rsplit('_', 1)[-1]
    if episode.source != 'lerobot' or not number.isdecimal():
        raise DataError(
            f"'{episode.episode_id}' is no episode of a LeRobot data set, and {path} has weights "
            'for the frames of one. Train on what `hralign data import lerobot` writes')
    found = gains.get(int(number))
    if found is None:
        raise DataError(f'{path} has no episode {int(number)}; it has {len(gains)} episodes. '
                        'Label the data set anew (`hralign data label`), or leave the episode out')
    if len(found) != len(episode.time_s):
        raise DataError(f'{path} has {len(found)} frames of episode {int(number)}, which has '
                        f'{len(episode.time_s)}; it is of another data set, or of one that has '
                        'changed. Label it anew (`hralign data label`)')
    return found


def _weigh(gains: Doubles, all_gains: Doubles) -> Doubles:
    """
    Weigh frames by their gains.

    One that gains enough counts in full, one that loses not at all. In between, a frame counts by
    where its gain lies within two standard deviations of all gains of the data set.
    """
    known = all_gains[~np.isnan(all_gains)]
    mean = max(float(known.mean()), 0.0) if len(known) else 0.0
    spread = max(float(known.std()), _TINY) if len(known) else _TINY
    soft = np.clip((gains - (mean - 2 * spread)) / (4 * spread + _TINY), 0.0, 1.0)
    weights = np.where(gains > _ENOUGH, 1.0, np.where(gains >= 0.0, soft, 0.0))
    return np.asarray(np.where(np.isnan(gains), 1.0, weights), np.float64)
