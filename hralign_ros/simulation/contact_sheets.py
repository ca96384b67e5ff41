# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Contact sheets of a simulated data set, so that a person sees what was made."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from hralign_ros.data.manifest import Episode
from hralign_ros.runtime.video import read_frames
import numpy as np
from numpy.typing import NDArray

COLUMNS = 6
_SIZE = (160, 120)
_BAR = 18
_ROWS_PER_SHEET = 12


def write_sheets(output: Path, episodes: Sequence[Episode]) -> list[Path]:
    """Write one sheet of pairs, one of failures and one of the other splits."""
    pairs = _first_of(episodes, lambda e: e.task_id if e.human_video else None)
    faults = _first_of(episodes, lambda e: (e.task_id, e.failure) if e.failure else None)
    splits = _first_of(episodes, lambda e: (e.split, e.embodiment) if e.human_video else None)
    chosen = {'pairs': pairs, 'failures': _spread(faults, _ROWS_PER_SHEET),
              'splits': _spread(splits, _ROWS_PER_SHEET)}
    paths = []
    for name, some in chosen.items():
        if some:
            path = output / f'sheet_{name}.jpg'
            sheet = np.concatenate([_row(output, episode) for episode in some])
            cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
            paths.append(path)
    return paths


def write_lab_sheets(output: Path, episodes: Sequence[Episode]) -> list[Path]:
    """Write a sheet for each task with a row for each way in which an attempt went."""
    paths = []
    for task in sorted({episode.task_id for episode in episodes}):
        some = _first_of([e for e in episodes if e.task_id == task],
                         lambda e: (e.embodiment, e.scene, not e.success, tuple(e.tags)))
        path = output / f'sheet_{task}.jpg'
        sheet = np.concatenate([_row(output, episode) for episode in _spread(
            some, _ROWS_PER_SHEET)])
        cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        paths.append(path)
    return paths


def write_family_sheets(output: Path, episodes: Sequence[Episode]) -> list[Path]:
    """Write a sheet for each family with successes by several arms and ways to fail."""
    paths = []
    for tag in sorted({t for e in episodes for t in e.tags if t.startswith('family:')}):
        some = [e for e in episodes if tag in e.tags]
        good = _first_of(some, lambda e: (e.embodiment, e.task_id) if e.success else None)
        bad = _first_of(some, lambda e: e.failure or None)
        path = output / f'sheet_{tag.partition(":")[2]}.jpg'
        sheet = np.concatenate([_row(output, e) for e in (
            *_spread(good, _ROWS_PER_SHEET // 3), *_spread(bad, _ROWS_PER_SHEET * 2 // 3))])
        cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        paths.append(path)
    return paths


def _first_of(episodes: Sequence[Episode], key: Callable[[Episode], object]) -> list[Episode]:
    found: dict[object, Episode] = {}
    for episode in episodes:
        value = key(episode)
        if value is not None:
            found.setdefault(value, episode)
    return list(found.values())


def _spread(episodes: list[Episode], limit: int) -> list[Episode]:
    step = max(1, -(-len(episodes) // limit))
    return episodes[::step]


def _row(output: Path, episode: Episode) -> NDArray[np.uint8]:
    """Draw an episode: a line of text, then human and robot views, frames from left to right."""
    files = [('human', episode.human_video)] if episode.human_video else []
    files += sorted(episode.robot_videos.items())
    strips = []
    for _, file in files:
        frames, _ = read_frames(output / file, count=COLUMNS)
        strips.append(np.concatenate(
            [cv2.resize(f, _SIZE, interpolation=cv2.INTER_AREA) for f in frames], axis=1))
    image = np.concatenate(strips)
    bar = np.full((_BAR, image.shape[1], 3), 235, np.uint8)
    label = (f'{episode.task_text} | {episode.embodiment}, {episode.scene}, {episode.split}, '
             f'{"success" if episode.success else episode.failure}')
    label += ''.join(f' ({tag.partition(":")[2]})' for tag in episode.tags
                     if tag.startswith('done:'))
    cv2.putText(bar, label, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (20, 20, 20), 1, cv2.LINE_AA)
    return np.concatenate([bar, image])
