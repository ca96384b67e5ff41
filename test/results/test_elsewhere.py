# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Programs that benchmarks run in other virtual environments."""

import sys

from benchmarks.elsewhere import output_of
import pytest


def test_another_python_finds_its_own_modules(monkeypatch):
    """
    Guards measurements in LeRobot's environment, started after `source tools/env.sh`.

    Its Python took numpy out of ours, built for another version, and nothing said so.
    """
    monkeypatch.setenv('PYTHONPATH', '/of/ours')
    monkeypatch.setenv('LD_LIBRARY_PATH', '/of/ours')
    names = {line.partition('=')[0] for line in output_of(['env'], MORE='1').splitlines()}
    assert {'PATH', 'MORE'} <= names and not {'PYTHONPATH', 'LD_LIBRARY_PATH'} & names


def test_what_a_program_fails_with_is_said(capfd):
    """Guards whoever measures: only the exit status was told."""
    program = 'import sys; print("half done"); sys.exit("no module numpy")'
    with pytest.raises(SystemExit, match=r'half done(.|\n)*exit status 1'):
        output_of([sys.executable, '-c', program])
    assert 'no module numpy' in capfd.readouterr().err
