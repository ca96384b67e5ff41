# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Remove the shared memory that Fast DDS processes left behind when they were killed.

    python tools/clean_shared_memory.py

Each killed node leaves some megabytes, and a port of a dead process can swallow the messages of a
new one. A living process holds a lock on its segment's `_el` file; whoever gets that lock knows
that the owner is dead. What has no such file (a port that others opened to write into) goes when
no lock is held by anybody.
"""

import fcntl
from pathlib import Path

FOLDER = Path('/dev/shm')
LOCK = '_el'


def clean(folder: Path = FOLDER) -> list[str]:
    """Remove what nobody holds; return the names of the segments."""
    removed, alive = [], False
    for lock in sorted(folder.glob(f'fastrtps_*{LOCK}')):
        try:
            with lock.open('r+') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                segment = lock.with_name(lock.name.removesuffix(LOCK))
                # The lock goes last: as long as it is there, nobody takes the name anew.
                for path in (segment, folder / f'sem.{segment.name}_mutex', lock):
                    path.unlink(missing_ok=True)
        except OSError:  # held by the living, or somebody else's
            alive = True
            continue
        removed.append(segment.name)
    for path in () if alive else sorted(folder.glob('*fastrtps_*')):
        try:
            path.unlink()
        except OSError:
            continue
        removed.append(path.name)
    return removed


if __name__ == '__main__':
    print(f'{len(clean())} segments of dead processes removed from {FOLDER}')
