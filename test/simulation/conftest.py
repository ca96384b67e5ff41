# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What tests of the simulators need, also where they run by themselves.

Videos are made without a display; MuJoCo reads this once, when the first test imports it.
"""

import os

os.environ.setdefault('MUJOCO_GL', 'egl')
if 'ROS_DOMAIN_ID' not in os.environ:
    from support.domain import take_domain

    DOMAIN = take_domain()
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
