# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The folder that episodes are recorded into: names of bags, and how much of the disk they may take.

A bag is called START_EPISODE: when its recording began, in UTC, and the id of its episode as the
messages have it, such as 20261130T091502Z_1796030102.250000000. Other entries are left alone.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
import fcntl
import os
from pathlib import Path
import re
import shutil
import struct
from typing import Any

from hralign_ros.runtime.bags import import_mcap, PARTIAL
from hralign_ros.runtime.errors import DataError

_NAME = re.compile(r'(\d{8}T\d{6}Z_(\d+)\.(\d{9})(?:_\d+)?)(\.partial)?')
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
_REMOVED = '.removed'
_GB = 1e9


class DiskFullError(DataError):
    """There is no room for another episode; the message says what to do."""


@dataclass(frozen=True)
class Bag:
    """
    One bag in the folder.

    :param name: of its folder, once it is whole.
    :param episode_id: of its episode [ns].
    :param partial: the recording was cut off, or goes on.
    :param size: [bytes].
    """

    name: str
    episode_id: int
    path: Path
    partial: bool
    size: int


class Recordings:
    """
    A folder of bags, for one recorder.

    :param max_bytes: of all bags together; 0: no limit.
    :param min_free: what must remain free on the disk [bytes].
    :raises DataError: it cannot be used, or another recorder uses it.
    """

    def __init__(self, folder: Path, *, max_bytes: int, min_free: int) -> None:
        self.folder, self.max_bytes, self.min_free = folder, max_bytes, min_free
        self._sizes: dict[str, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Held as long as this process lives.
            self._lock = open(folder / '.recorder.lock', 'w')
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f'another recorder writes into {folder}; stop it, or give this one a '
                            'folder of its own') from error
        except OSError as error:
            raise DataError(f'nothing can be recorded into {folder}: {error}') from error
        for left in folder.glob(f'*{_REMOVED}'):
            shutil.rmtree(left, ignore_errors=True)

    def close(self) -> None:
        """Leave the folder to another recorder."""
        self._lock.close()

    def new_name(self, episode_id: int, started: int) -> str:
        """
        Name a bag.

        :param episode_id: [ns].
        :param started: system time [ns].
        """
        start = datetime.fromtimestamp(started // 1_000_000_000, timezone.utc)
        name = wanted = '{:%Y%m%dT%H%M%SZ}_{}.{:09d}'.format(
            start, *divmod(episode_id, 1_000_000_000))
        number = 1
        while any((self.folder / f'{name}{end}').exists() for end in ('', PARTIAL)):
            number += 1
            name = f'{wanted}_{number}'
        return name

    def bags(self) -> list[Bag]:
        """List the bags, oldest first."""
        found = []
        for entry in os.scandir(self.folder):
            match = _NAME.fullmatch(entry.name)
            if match and entry.is_dir(follow_symlinks=False):
                found.append(Bag(
                    match[1], int(match[2]) * 1_000_000_000 + int(match[3]), Path(entry.path),
                    bool(match[4]), self._size(entry.path, changes=bool(match[4]))))
        return sorted(found, key=lambda bag: bag.name)

    def _size(self, path: str, *, changes: bool) -> int:
        """Tell how much a bag takes; of a whole one it is looked up once."""
        if changes or path not in self._sizes:
            try:
                self._sizes[path] = sum(
                    entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
            except OSError:  # somebody is removing it
                return 0
        return self._sizes[path]

    def make_room(
        self, labelled: Callable[[], Collection[str]], *, keep: str = '',
    ) -> list[str]:
        """
        Remove the oldest bags that nobody has labelled, until the rest keeps the limit.

        :param labelled: names those with a label; called only where something has to go.
        :param keep: the bag that is being recorded.
        :returns: names of the bags that were removed.
        :raises DiskFullError: what is left is too much all the same, or the disk is full of
            other things; or the labels cannot be read, and nothing may go.
        """
        bags = self.bags()
        used, gone = sum(bag.size for bag in bags), []
        if self.max_bytes and used > self.max_bytes:
            try:
                stays = {*labelled(), keep}
            except DataError as error:
                raise DiskFullError(
                    f'the episodes in {self.folder} take {used / _GB:.2f} GB and max_gb is '
                    f'{self.max_bytes / _GB:g}; none can be removed: {error}') from error
            for bag in bags:
                if used > self.max_bytes and bag.name not in stays:
                    self._remove(bag)
                    used -= bag.size
                    gone.append(bag.name)
            if used > self.max_bytes:
                raise DiskFullError(
                    f'the labelled episodes in {self.folder} take {used / _GB:.2f} GB and max_gb '
                    f'is {self.max_bytes / _GB:g}; nothing is recorded. Move some of them '
                    'elsewhere, or set max_gb higher')
        free = shutil.disk_usage(self.folder).free
        if free < self.min_free:
            raise DiskFullError(
                f'{free / _GB:.2f} GB are free on the disk of {self.folder} and min_free_gb is '
                f'{self.min_free / _GB:g}; nothing is recorded. Free some space')
        return gone

    def _remove(self, bag: Bag) -> None:
        """Remove a bag, its name first: what is left of it is not taken for a whole one."""
        out = bag.path.with_name(f'.{bag.path.name}{_REMOVED}')
        bag.path.rename(out)
        shutil.rmtree(out, ignore_errors=True)
        self._sizes.pop(str(bag.path), None)


def header_stamp(data: bytes) -> int:
    """Read the stamp of a serialised message that begins with a header [ns]."""
    # Four bytes say how the rest is written; the second is odd where the lowest byte comes first.
    seconds, rest = struct.unpack_from('<iI' if data[1] & 1 else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(rest)


def first_image_stamp(bag: Path) -> int | None:
    """
    Find the stamp of a whole bag's first image.

    :returns: [ns]; None: it holds no image.
    :raises DataError: it cannot be read.
    """
    reader: Any = import_mcap('reader')
    stamps: dict[int, int] = {}
    try:
        with open(next(bag.glob('*.mcap')), 'rb') as file:
            made = reader.make_reader(file)
            summary = made.get_summary()
            images = {channel.topic for channel in summary.channels.values()
                      if summary.schemas[channel.schema_id].name == COMPRESSED_IMAGE}
            for _, channel, message in made.iter_messages(topics=sorted(images)):
                stamps.setdefault(channel.id, header_stamp(message.data))
                if len(stamps) == len(images):
                    break
    except Exception as error:  # a file that is cut off, or gone, fails in many ways
        raise DataError(f'{bag} cannot be read: {error}') from error
    return min(stamps.values(), default=None)
