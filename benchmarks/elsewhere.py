# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Programs of other virtual environments: the simulators', LeRobot's."""

from collections.abc import Sequence
import os
from pathlib import Path
import subprocess

# Where tools/env.sh has a Python look for modules, those of its own version.
_HIDDEN = ('PYTHONPATH', 'PYTHONHOME', 'LD_LIBRARY_PATH', '_ROS_WHEELS_BOOTSTRAP_COMPLETE')


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without what belongs to its own Python."""
    return {name: value for name, value in os.environ.items() if name not in _HIDDEN} | more


def output_of(command: Sequence[str | Path], **more: str) -> str:
    """
    Run a program of another environment; what it complains of is seen as it comes.

    :param more: variables beside those of clean_environment.
    :returns: what it printed.
    :raises SystemExit: it failed; the message has its command and what it printed.
    """
    done = subprocess.run(command, env=clean_environment(**more), stdout=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        raise SystemExit(f'{done.stdout}{" ".join(map(str, command))}: exit status '
                         f'{done.returncode}')
    return done.stdout
