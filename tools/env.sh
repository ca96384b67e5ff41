# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Sourced by bash, from anywhere: the virtual environment, both built packages, and the transport
# profile that carries camera images.    source tools/env.sh

_hralign_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# colcon's setup files use variables that may be unset.
case $- in *u*) _hralign_nounset=1; set +u ;; *) _hralign_nounset=0 ;; esac
for _hralign_file in .venv/local_setup.bash install/local_setup.bash; do
  if [ -f "$_hralign_root/$_hralign_file" ]; then
    . "$_hralign_root/$_hralign_file"
  else
    echo "tools/env.sh: $_hralign_file is missing: run 'make setup' first" >&2
  fi
done
[ "$_hralign_nounset" = 0 ] || set -u

if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-}" ]; then
  # Its name depends on the distribution.
  export "$(python3 "$_hralign_root/hralign_ros/runtime/fast_dds.py")"="$_hralign_root/config/fastdds_large_images.xml"
fi
# Without either of them rclpy cannot start.
if [ -z "${HOME:-}" ] && [ -z "${ROS_LOG_DIR:-}" ]; then
  export ROS_LOG_DIR="$_hralign_root/log/ros"
fi
unset _hralign_root _hralign_file _hralign_nounset
