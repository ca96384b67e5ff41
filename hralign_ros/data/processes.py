# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Worker processes for long work, none of which outlives the command that started it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
import multiprocessing
import os
import threading
from typing import Any


@contextmanager
def processes(
    workers: int, start: Callable[..., None] | None = None, *arguments: Any,
) -> Iterator[ProcessPoolExecutor]:
    """
    Start worker processes, which end with this one, also where it is killed.

    They are not forked: threads of libraries do not survive it.

    :param start: what each of them calls first, with `arguments`.
    """
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _begin,
                             (start, arguments)) as pool:
        yield pool


def _begin(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    # Without a parent the pool's queues never end, and a worker would wait for ever, with
    # all that it has in memory.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
