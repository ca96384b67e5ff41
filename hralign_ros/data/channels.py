# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What the numbers of an episode's proprioception and actions are called, and in which units.

The manifest holds plain lists of numbers. `channels.yaml` beside it names them:

    proprio: [{name: tool.x, unit: m}, {name: gripper.width, unit: m}]
    actions: [{name: tool.dx, unit: m}, {name: gripper, unit: '-1 open, 1 closed'}]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hralign_ros.data.manifest import DataError, DataSet, Episode
from hralign_ros.runtime.files import load_yaml
from hralign_ros.runtime.policy import Channel
from hralign_ros.runtime.schema import parse, to_document
import yaml

FILE_NAME = 'channels.yaml'


@dataclass(frozen=True)
class Channels:
    """The numbers of each frame, in the order of the manifest's lists."""

    proprio: tuple[Channel, ...]
    actions: tuple[Channel, ...]


def write_channels(folder: Path, channels: Channels) -> Path:
    """Write channels.yaml into the folder of a data set; return the file."""
    path = folder / FILE_NAME
    path.write_text(yaml.safe_dump(to_document(channels), sort_keys=False), encoding='utf-8')
    return path


def read_channels(data: DataSet) -> Channels:
    """
    Read what a data set's numbers are; without channels.yaml they are proprio_0, action_0, ...

    :param data: episodes with proprioception and actions.
    :raises DataError: the file is not a good one, or an episode has another count of numbers.
    """
    path = data.folder / FILE_NAME
    if path.exists():
        try:
            channels = parse(Channels, load_yaml(path.read_bytes()), '')
        except Exception as error:  # PyYAML raises whatever it runs into
            raise DataError(f'{path}: {error}') from error
    else:
        channels = Channels(*(
            tuple(Channel(f'{name}_{i}') for i in range(_count(data.episodes, name)))
            for name in ('proprio', 'actions')))
    for episode in data.episodes:
        for what, named in (('proprio', channels.proprio), ('actions', channels.actions)):
            rows: Sequence[Sequence[float]] = getattr(episode, what)
            counts = {len(row) for row in rows}
            if counts - {len(named)}:
                raise DataError(
                    f"episode '{episode.episode_id}': {what} has {max(counts)} numbers a frame, "
                    f'and {path if path.exists() else "the first episode"} has {len(named)}')
    return channels


def _count(episodes: Sequence[Episode], name: str) -> int:
    return next((len(getattr(e, name)[0]) for e in episodes if len(getattr(e, name))), 0)
