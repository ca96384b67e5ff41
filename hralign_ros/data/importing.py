# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Other formats' data sets under a manifest; their files stay where they are."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hralign_ros.data.folders import read_folders
from hralign_ros.data.lerobot import read_lerobot
from hralign_ros.data.manifest import DataError, Episode, write_manifest
from hralign_ros.data.rh20t import read_rh20t
from hralign_ros.data.splits import read_splits

READERS: dict[str, Callable[..., list[Episode]]] = {
    'folders': read_folders, 'lerobot': read_lerobot, 'rh20t': read_rh20t}


def import_data(
    kind: str, source: Path, output: Path | None = None, *, splits: Path | None = None,
    report: Callable[[str], object] = print, **options: Any,
) -> Path:
    """
    Read a data set of another format and write its manifest.

    :param kind: 'rh20t', 'folders' or 'lerobot'.
    :param source: the data set's folder.
    :param output: folder of the manifest: source itself (None) or a folder above it, because a
        manifest names files below its own folder. A data set on a read-only disk is linked into
        a folder of one's own, and the link is the source.
    :param splits: split file; None: the shipped one.
    :param report: gets what was found, line by line.
    :param options: further arguments of the format's reader.
    :returns: the manifest file.
    :raises DataError: an unknown kind, output is not source or above it, nothing was found, or
        the reader or the split file refuse.
    """
    if kind not in READERS:
        raise DataError(f"data format '{kind}'; needed is one of {', '.join(sorted(READERS))}")
    source = Path(source).absolute()
    output = Path(output).absolute() if output else source
    try:
        below = source.relative_to(output)
    except ValueError as error:
        raise DataError(
            f'{output}: the manifest has to lie in {source} or above it; link the data into the '
            f'folder (ln -s {source} {output}/) and import {output / source.name}') from error
    rules = read_splits(splits)
    episodes = READERS[kind](source, report=report, **options)
    if not episodes:
        raise DataError(f'{source}: no episode can be used')
    imported = [replace(
        episode,
        robot_videos={view: (below / file).as_posix()
                      for view, file in episode.robot_videos.items()},
        human_video=(below / episode.human_video).as_posix() if episode.human_video else '',
        split=rules.of(task_id=episode.task_id, scene=episode.scene,
                       embodiment=episode.embodiment, seed=episode.seed,
                       episode_id=episode.episode_id),
    ) for episode in episodes]
    count = Counter(episode.split for episode in imported)
    report('splits: ' + ', '.join(f'{split} {count[split]}' for split in sorted(count)))
    return write_manifest(output, imported)
