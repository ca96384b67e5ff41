# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Workers of long commands."""

import os
from pathlib import Path
import subprocess
import sys
import time

from hralign_ros.data.processes import processes
import pytest

_PARENT = """
import os, time
from hralign_ros.data.processes import processes
if __name__ == '__main__':
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def _runs(pid: int) -> bool:
    """Tell whether a process is there that is not waiting to be collected."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize('how', ['terminate', 'kill'])
def test_a_command_that_is_stopped_leaves_no_workers(how: str) -> None:
    """
    Guards `data simulate` and the encoding of features, stopped by `kill`.

    Their workers went on with what they had, at a gigabyte each, and then waited for ever for
    the next piece of work; the command that was run again had half of the machine.
    """
    parent = subprocess.Popen([sys.executable, '-c', _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        worker = int(parent.stdout.readline())
        assert _runs(worker)
        getattr(parent, how)()
        parent.wait()
        end = time.monotonic() + 60.0
        while _runs(worker):
            assert time.monotonic() < end, 'it still works'
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_what_each_worker_calls_first() -> None:
    """A worker is prepared before it gets anything to do."""
    with processes(1, os.putenv, 'HRALIGN_TEST', 'x') as pool:
        assert pool.submit(subprocess.check_output, ['sh', '-c', 'echo $HRALIGN_TEST']).result(
            ).strip() == b'x'
