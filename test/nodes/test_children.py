# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a command starts ends with it."""

from pathlib import Path
import shutil
import subprocess
import sys
import time

from hralign_ros.nodes.children import tied
import pytest

_PARENT = """
import subprocess, sys
from hralign_ros.nodes.children import tied
child = subprocess.Popen(tied(sys.argv[1:]), start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def _runs(pid: int) -> bool:
    """Tell whether a process is there that is not waiting to be collected."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not shutil.which('setpriv'), reason='util-linux is not installed')
def test_a_killed_command_leaves_nothing_behind() -> None:
    """
    Guards nodes of the demo and of the closed loop, which a SIGKILL of the command left running.

    They have process groups of their own, so that nothing else would have reached them.
    """
    parent = subprocess.Popen([sys.executable, '-c', _PARENT, sys.executable, '-c',
                               'import time; print("up", flush=True); time.sleep(600)'],
                              stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    (child,) = said - {'up'}
    assert _runs(int(child))
    parent.kill()
    parent.wait()
    end = time.monotonic() + 60.0
    while _runs(int(child)):
        assert time.monotonic() < end, 'it still runs'
        time.sleep(0.05)


def test_without_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where util-linux is not, commands are started as they are."""
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    assert tied(('sleep', '1')) == ['sleep', '1']
