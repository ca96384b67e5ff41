#!/bin/bash
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Runs a command with ROS 2, both packages, and the transport profile that carries camera images.
set -e
. "/opt/ros/$ROS_DISTRO/setup.bash"
. /ws/install/setup.bash
if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-}" ]; then
  # Its name depends on the distribution.
  export "$(python3 /ws/src/hralign_ros/hralign_ros/runtime/fast_dds.py)"=/ws/install/hralign_ros/share/hralign_ros/config/fastdds_large_images.xml
fi
exec "$@"
