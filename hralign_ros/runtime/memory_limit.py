# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whether there is memory for a model, asked before it is loaded.

Where memory ends, onnxruntime does not raise: the process is aborted, or killed by the kernel.
"""

from collections.abc import Iterator
import os
from pathlib import Path
import resource

from hralign_ros.runtime.errors import BundleError

# A model is held as its file, as its graph and as packed weights; and what runs it takes some.
_COPIES, _REST = 3, 100_000_000
# Address space beyond that: onnxruntime's own libraries and the stacks of its threads.
_MAPPED = 400_000_000


def require_memory(bundle: Path, size: int) -> None:
    """
    Refuse a bundle for which there is not enough memory.

    :param size: of the files that it lists [bytes]; a file that is larger than listed is never
        read to its end.
    :raises BundleError: it needs more than there is left.
    """
    needed = _COPIES * size + _REST
    for what, free in free_memory():
        more = _MAPPED if what == ADDRESS_SPACE else 0
        if free < needed + more:
            raise BundleError(
                f'{bundle}: {(needed + more) / 1e6:.0f} MB of memory are needed to load it and '
                f'{free / 1e6:.0f} MB are left of the {what}; end other programs or raise the '
                'limit')


COMPUTER = "computer's memory"
ADDRESS_SPACE = 'address space allowed to this process (RLIMIT_AS)'


def free_memory() -> Iterator[tuple[str, int]]:
    """Tell what limits memory here, and how much each leaves [bytes]; empty where unknown."""
    for line in _text('/proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            yield COMPUTER, int(line.split()[1]) * 1024
    limit = _text('/sys/fs/cgroup/memory.max').strip()
    used = _text('/sys/fs/cgroup/memory.current').strip()
    if limit.isdigit() and used.isdigit():
        # The kernel gives back files that it only keeps at hand.
        cached = sum(int(line.split()[1]) for line in _text(
            '/sys/fs/cgroup/memory.stat').splitlines() if line.startswith('inactive_file '))
        yield "container's memory", int(limit) - int(used) + cached
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    mapped, _ = process_memory()
    if allowed != resource.RLIM_INFINITY and mapped:
        yield ADDRESS_SPACE, allowed - mapped


def process_memory() -> tuple[int, int]:
    """Tell how much memory this process has mapped and how much it holds; 0 where unknown."""
    mapped, held, *_ = map(int, _text('/proc/self/statm').split() or (0, 0))
    return mapped * os.sysconf('SC_PAGE_SIZE'), held * os.sysconf('SC_PAGE_SIZE')


def _text(path: str) -> str:
    """Read a file of the kernel's; empty where it is not there."""
    try:
        return Path(path).read_text('ascii')
    except OSError:
        return ''
