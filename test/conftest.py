# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Isolation of the whole run: a ROS domain, a log folder and a transport profile of its own.

Set before anything imports rclpy, and inherited by every process that a test starts. The domain
is held by an open port for as long as pytest lives, so that parallel runs do not see each other.
"""

import os
from pathlib import Path
import socket
import tempfile

ROOT = Path(__file__).resolve().parents[1]
_FIRST_PORT = 32768


def _take_domain() -> socket.socket:
    """Take a free domain id from 1 to 100 by holding the port that stands for it."""
    start = os.getpid() % 100
    for offset in range(100):
        domain = 1 + (start + offset) % 100
        holder = socket.socket()
        try:
            holder.bind(('127.0.0.1', _FIRST_PORT + domain))
        except OSError:
            holder.close()
            continue
        os.environ['ROS_DOMAIN_ID'] = str(domain)
        return holder
    raise RuntimeError('all 100 ROS domain ids are taken; end some of the runs')


DOMAIN = _take_domain()
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(ROOT / 'config/fastdds_large_images.xml')
os.environ['ROS_LOG_DIR'] = tempfile.mkdtemp(prefix='hralign_ros_log_')
os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
# A test of launch itself takes a domain of its own.
os.environ['PYTHONUNBUFFERED'] = '1'
