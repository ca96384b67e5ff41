# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A ROS domain of one's own."""

import os
import socket

_FIRST_PORT = 32768


def take_domain() -> socket.socket:
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
