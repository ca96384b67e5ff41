# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What `make` sets up says at once where it cannot work."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

TOOL = Path(__file__).resolve().parents[1] / 'tools/setup_env.py'


@pytest.mark.parametrize(('sourced', 'said'), (
    ({'ROS_DISTRO': 'humble', 'ROS_VERSION': '2'}, 'ROS 2 humble is sourced, whose rclpy is too'),
    ({'ROS_DISTRO': 'noetic', 'ROS_VERSION': '1'}, 'ROS 1 (noetic) is sourced'),
))
def test_a_ros_that_cannot_do(sourced, said):
    """Guards a robot with Humble: all was installed and built before the node failed to start."""
    ran = subprocess.run(
        [sys.executable, TOOL, 'demo'], env={**os.environ, **sourced}, text=True,
        capture_output=True, timeout=60)
    assert ran.returncode == 1 and said in ran.stderr and 'Jazzy' in ran.stderr
    assert 'Traceback' not in ran.stderr
