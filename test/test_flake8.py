# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('ament_flake8.main', reason='ament_flake8 is not installed')

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('benchmarks', 'hralign_ros', 'launch', 'lerobot_policy_hralign', 'setup.py', 'test',
           'tools')


@pytest.mark.flake8
@pytest.mark.linter
# A minute of work on all files: on a machine that is busy, several.
@pytest.mark.timeout(900)
def test_flake8() -> None:
    paths = [str(ROOT / name) for name in SOURCES if (ROOT / name).exists()]
    # In a process of its own: flake8 forks, and a fork of one that has threads may wait for ever.
    done = subprocess.run(
        [sys.executable, '-c', 'import sys; from ament_flake8.main import main; sys.exit(main())',
         *paths], capture_output=True, text=True, timeout=840, check=False)
    # It lists the files that it has checked after what it has found.
    found = [line for line in done.stdout.splitlines() if not line.startswith('* ')]
    assert done.returncode == 0, '\n'.join(found)[-10000:] + done.stderr[-2000:]
