# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Other formats' data sets under a manifest.

Their files stay where they are, but for images in bags, which become videos in the data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hralign_ros.data.folders import read_folders
from hralign_ros.data.lerobot import IMAGES, read_lerobot
from hralign_ros.data.manifest import (
    DataError,
    DataSet,
    Episode,
    FILE_NAME,
    HUMAN,
    read_manifest,
    REFERENCE_VIEW,
    require_writable,
    slug,
    write_manifest,
)
from hralign_ros.data.rh20t import read_rh20t
from hralign_ros.data.rosbag import read_rosbags, remove_superseded
from hralign_ros.data.splits import read_splits, share_out, Splits
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import Report

READERS: dict[str, Callable[..., list[Episode]]] = {
    'folders': read_folders, 'lerobot': read_lerobot, 'rh20t': read_rh20t,
    'rosbag': read_rosbags}
# What a format is called in the manifest, where that is another word.
_SOURCES = {'folders': 'folder'}
# Formats whose files are not used as they are: the reader writes others into the output.
_COPIED = {'rosbag'}
# Formats of which some is written into the output.
_WRITING = {'lerobot', 'rosbag'}
# One's own recordings, of which there may be few: see `share_out`.
_OWN = {'folders', 'lerobot', 'rosbag'}


def import_data(
    kind: str, source: Path, output: Path | None = None, *, splits: Path | None = None,
    geometry: Mapping[str, ViewGeometry] | None = None, report: Report = print, **options: Any,
) -> Path:
    """
    Read a data set of another format and write its manifest.

    :param kind: 'rh20t', 'folders', 'lerobot' or 'rosbag'.
    :param source: the data set's folder.
    :param output: folder of the manifest: source itself (None) or a folder above it, because a
        manifest names files below its own folder. A data set on a read-only disk is linked into
        a folder of one's own, and the link is the source. Bags need a folder of their own; what
        is in it of other bags stays.
    :param splits: split file; None: the shipped one, of which the names of tasks and robots do not
        concern bags.
    :param geometry: by view, how videos are turned and cropped before encoding; that of
        the reference view is the human clips' as well, which are by the same camera.
    :param report: gets what was found, line by line.
    :param options: further arguments of the format's reader.
    :returns: the manifest file.
    :raises DataError: an unknown kind, output is not source or above it, it has a manifest of
        other episodes, nothing was found, or the reader or the split file refuse.
    """
    if kind not in READERS:
        raise DataError(f"data format '{kind}'; needed is one of {', '.join(sorted(READERS))}")
    source = Path(source).absolute()
    output = Path(output).absolute() if output else source
    below = Path()
    if kind in _WRITING:
        options['output'] = output
    if kind not in _COPIED:
        try:
            below = source.relative_to(output)
        except ValueError as error:
            raise DataError(
                f'{output}: the manifest has to lie in {source} or above it; link the data into '
                f'the folder (ln -s {source} {output}/) and import {output / source.name}'
            ) from error
    if not (source.exists() if kind in _COPIED else source.is_dir()):
        raise DataError(f'{source}: no such folder')
    rules = read_splits(splits)
    if kind in _COPIED and splits is None:
        rules = replace(rules, test_embodiments=frozenset(), test_tasks=frozenset(),
                        validation_tasks=frozenset())
    before = _check_old(output, kind, below, turning=geometry is not None)
    require_writable(output)
    episodes = READERS[kind](source, report=report, **options)
    if not episodes:
        raise DataError(f'{source}: no episode can be used')
    imported = share_out(rules, [replace(
        episode,
        # What a reader writes has its full name.
        robot_videos={view: (Path(file).relative_to(output) if Path(file).is_absolute()
                             else below / file).as_posix()
                      for view, file in episode.robot_videos.items()},
        geometry=_geometry_of(episode, geometry or {}),
        human_video=(below / episode.human_video).as_posix() if episode.human_video else '',
    ) for episode in episodes], before=before, balance=kind in _OWN and splits is None,
        report=report)
    for view, one in (geometry or {}).items():
        turned = sum(view in episode.geometry for episode in imported)
        report(f'view {view}: turned by {one.rotation} degrees and cropped to {list(one.crop)}, '
               f'in {turned} of {len(imported)} episodes')
    if geometry is not None and not geometry:
        report('no view is turned or cropped')
    report('splits: ' + DataSet(output, tuple(imported)).splits_in_words())
    if not any(episode.split == 'train' for episode in imported):
        report('no episode trains: copy config/splits.yaml, take out what holds these back, and '
               'import again with --split-file FILE')
    if splits:
        _report_unknown(rules, imported, report)
    path = write_manifest(output, imported)
    if kind in _COPIED:
        remove_superseded(output)
    return path


def _geometry_of(
    episode: Episode, geometry: Mapping[str, ViewGeometry],
) -> dict[str, ViewGeometry]:
    found = {view: one for view, one in geometry.items() if view in episode.robot_videos}
    if episode.human_video and REFERENCE_VIEW in geometry:
        found[HUMAN] = geometry[REFERENCE_VIEW]
    return found


def _check_old(output: Path, kind: str, below: Path, *, turning: bool) -> dict[str, str]:
    """
    Refuse to replace a manifest of something else, or one that knows how videos are turned.

    :returns: the split of each of its episodes.
    """
    if not (output / FILE_NAME).is_file():
        return {}
    try:
        old = read_manifest(output, series=False).episodes
    except DataError:  # of another version, or broken: it is of no use any more
        return {}
    others = [episode for episode in old if episode.source != _SOURCES.get(kind, kind) or not all(
        Path(file).is_relative_to(below) or Path(file).is_relative_to(IMAGES) for file in (
            *episode.robot_videos.values(), *filter(None, [episode.human_video])))]
    if others:
        raise DataError(
            f"{output}: its manifest has {len(others)} episodes of something else ('"
            f"{others[0].episode_id}' of {others[0].source}), which would be gone from it; name "
            'another folder with --output, or delete the manifest')
    turned = {view for episode in old for view in episode.geometry} - {HUMAN}
    if turned and not turning:
        raise DataError(
            f'{output}: its manifest says how the videos of {", ".join(sorted(turned))} are '
            'rotated and cropped, which would be lost; give --params-file again, or delete the '
            'manifest')
    return {episode.episode_id: episode.split for episode in old}


def _report_unknown(
    rules: Splits, episodes: Sequence[Episode], report: Report,
) -> None:
    """Say which names of a split file no episode has: what is misspelt would be trained on."""
    tasks, robots = {slug(e.task_id) for e in episodes}, {e.embodiment for e in episodes}
    for what, named, known in (('task', rules.test_tasks | rules.validation_tasks, tasks),
                               ('embodiment', rules.test_embodiments, robots)):
        if named - known:
            report(f'split file: no episode has the {what} {", ".join(sorted(named - known))}; '
                   f'there are: {", ".join(sorted(known))}')
