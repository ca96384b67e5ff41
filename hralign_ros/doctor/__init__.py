# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
`hralign doctor`: what stands between a robot's computer and good results, and what to do about it.

Pure checks turn what was measured into findings; rclpy is imported by listening.py alone, so that
a computer without it is examined too.
"""
