# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What files hold, as a hash: features are of the videos that they were made of, and no others."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
import json
import os
from pathlib import Path
import time

from hralign_ros.data.manifest import DataSet, Episode

# Stands for the content of a file that cannot be read and never could.
UNREADABLE = 'unreadable'
# A file that was written so shortly before it was hashed may change without its time changing.
_SETTLED_NS = 2_000_000_000


def hash_files(root: Path, files: Iterable[str], index: Path) -> dict[str, str]:
    """
    Hash files, each once, however often it is named: a video may hold many episodes.

    A file whose size and time are those in the index is not read again, which takes hours for
    tens of thousands of videos. A file that is gone has its last known hash: a disk may be away.

    :param files: relative to root.
    :param index: file that remembers hashes; where it cannot be written, nothing is remembered.
    :returns: by name, 64 hexadecimal digits, or `UNREADABLE`.
    """
    known = _read(index)
    names = sorted(set(files))

    def look(name: str) -> tuple[int, int, str]:
        path = root / name
        before = known.get(str(path), (0, 0, UNREADABLE))
        try:
            now, state = time.time_ns(), path.stat()
            if before[:2] == (state.st_size, state.st_mtime_ns):
                return before
            settled = now - state.st_mtime_ns > _SETTLED_NS
            return state.st_size, state.st_mtime_ns if settled else 0, hash_file(path)
        except OSError:
            return before

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(names, pool.map(look, names), strict=True))
    new = {str(root / name): entry for name, entry in found.items()
           if entry[2] != UNREADABLE and known.get(str(root / name)) != entry}
    if new:
        scratch = index.with_suffix(f'.{os.getpid()}.tmp')
        try:
            # What another process noted in the meantime stays.
            scratch.write_text(json.dumps({**_read(index), **new}), encoding='utf-8')
            scratch.replace(index)
        except OSError:
            pass
    return {name: entry[2] for name, entry in found.items()}


def recording_key(data: DataSet, episode: Episode) -> str:
    """
    Name an episode's recordings by their content, whatever the episode or its folder is called.

    :returns: 16 hexadecimal digits; '' where a file cannot be read.
    """
    try:
        files = {view: hash_file(data.path(file)) for view, file in episode.robot_videos.items()}
    except OSError:
        return ''
    # A file may hold many episodes.
    spans = [list(episode.robot_span(view)) for view in sorted(files)]
    return sha256(json.dumps([sorted(files.items()), spans]).encode()).hexdigest()[:16]


def _read(index: Path) -> dict[str, tuple[int, int, str]]:
    try:
        return {path: (int(entry[0]), int(entry[1]), str(entry[2])) for path, entry in
                json.loads(index.read_text(encoding='utf-8')).items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return {}


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, which is not read as a whole."""
    digest = sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
