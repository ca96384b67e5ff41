# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Videos are made without a display; MuJoCo reads this once, when the first test imports it."""

import os

os.environ.setdefault('MUJOCO_GL', 'egl')
