# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The ROS 2 nodes: thin layers around the runtime, and the only place that imports rclpy."""
