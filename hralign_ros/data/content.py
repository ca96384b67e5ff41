# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What files hold, as a hash: features are of the videos that they were made of, and no others."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

# Stands for the content of a file that cannot be read.
UNREADABLE = 'unreadable'


def hash_files(root: Path, files: Iterable[str]) -> dict[str, str]:
    """
    Hash files, each once, however often it is named: a video may hold many episodes.

    :param files: relative to root.
    :returns: by name, 64 hexadecimal digits, or `UNREADABLE`.
    """
    names = sorted(set(files))
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: _hash_file(root / name), names),
                        strict=True))


def _hash_file(path: Path) -> str:
    digest = sha256()
    try:
        with path.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return UNREADABLE
    return digest.hexdigest()
