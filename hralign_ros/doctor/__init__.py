# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
`hralign doctor`: what keeps a robot's computer from good results, and what to do about it.

Pure checks turn what was measured into findings; rclpy is imported by listening.py alone, so that
a computer without it is examined too.
"""
