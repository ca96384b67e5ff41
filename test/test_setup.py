# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What `make` sets up says at once where it cannot work."""

import os
from pathlib import Path
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

TOOL = Path(__file__).resolve().parents[1] / 'tools/setup_env.py'


@pytest.mark.parametrize(('sourced', 'said'), (
    ({'ROS_DISTRO': 'foxy', 'ROS_VERSION': '2'}, 'ROS 2 foxy is sourced, whose rclpy is too'),
    ({'ROS_DISTRO': 'noetic', 'ROS_VERSION': '1'}, 'ROS 1 (noetic) is sourced'),
))
def test_a_ros_that_cannot_do(sourced, said):
    """Guards a robot with Foxy: all was installed and built before the node failed to start."""
    ran = subprocess.run(
        [sys.executable, TOOL, 'demo'], env={**os.environ, **sourced}, text=True,
        capture_output=True, timeout=60)
    assert ran.returncode == 1 and said in ran.stderr and 'Jazzy' in ran.stderr
    assert 'Traceback' not in ran.stderr


# Not in the lock: the simulators pin theirs, and the wheels of Kilted have a lock of their own.
APART = ('sim', 'ros-kilted')


def pinned(*locks):
    """Give the versions that locks pin, by name of package."""
    pins = {}
    for line in [line for lock in locks for line in lock.read_text().splitlines()]:
        pin = Requirement(line)
        version = str(pin.specifier).removeprefix('==')
        pins.setdefault(canonicalize_name(pin.name), []).append(version)
    return pins


def test_kilted_has_what_jazzy_has():
    """Guards Kilted: its wheels have the names of Jazzy's, and one of those would break it."""
    tomllib = pytest.importorskip('tomllib', reason='tomllib comes with Python 3.11')
    root = TOOL.parents[1]
    groups = tomllib.loads((root / 'pyproject.toml').read_text())['dependency-groups']
    pins = pinned(root / 'requirements.kilted.lock')
    assert all(name.startswith('ros-') for name in pins)
    assert not any(name.startswith('ros-jazzy') for name in pins)
    assert [name for name in groups['ros-kilted']
            if canonicalize_name(Requirement(name).name) not in pins] == []
    jazzy = {name.replace('jazzy', 'kilted') for name in groups['ros']}
    # There is no such wheel of Kilted, whose packages do not need it.
    assert jazzy - {*groups['ros-kilted']} == {
        'ros-kilted-domain-coordinator', 'ros-kilted-python-cmake-module'}


def test_the_lock_pins_what_is_declared(tmp_path):
    """Guards a dependency that is not in the lock: every machine would install another version."""
    tomllib = pytest.importorskip('tomllib', reason='tomllib comes with Python 3.11')
    root = TOOL.parents[1]
    subprocess.run([sys.executable, 'setup.py', '--quiet', 'egg_info', '--egg-base', tmp_path],
                   cwd=root, check=True)
    lines = (tmp_path / 'hralign_ros.egg-info/requires.txt').read_text().splitlines()
    groups = tomllib.loads((root / 'pyproject.toml').read_text())['dependency-groups']
    declared = [Requirement(line) for line in [
        *(line for line in lines if line and not line.startswith('[')),
        *(line for name, group in groups.items() if name not in APART for line in group)]]
    pins = pinned(root / 'requirements.lock')
    assert len(declared) > 60
    assert [str(need) for need in declared if not any(
        need.specifier.contains(pin) for pin in pins.get(canonicalize_name(need.name), ()))] == []
