# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The environment variable that names a Fast DDS profile, which raw images need.

Called as a program it prints the name; that takes no package but Python's own.
"""

from collections.abc import Mapping, MutableMapping
from importlib import metadata
import os

UNTIL_JAZZY = 'FASTRTPS_DEFAULT_PROFILES_FILE'
SINCE_KILTED = 'FASTDDS_DEFAULT_PROFILES_FILE'


def profiles_variable(environment: Mapping[str, str]) -> str:
    """
    Name the variable that the Fast DDS of a distribution reads.

    :param environment: with ROS_DISTRO; where that is not set, ROS 2 from wheels is meant, as far
        as it is installed beside this Python.
    """
    distribution = environment.get('ROS_DISTRO', '') or _distribution_of_wheels()
    return UNTIL_JAZZY if distribution in ('humble', 'iron', 'jazzy') else SINCE_KILTED


def _distribution_of_wheels() -> str:
    try:
        metadata.version('ros-kilted-rclpy')
    except metadata.PackageNotFoundError:
        return 'jazzy'
    return 'kilted'


def use_profile(environment: MutableMapping[str, str], path: object) -> None:
    """
    Name a profile in an environment that names none.

    Never both variables: Fast DDS loads the file twice, and prints an error.
    """
    if not environment.get(UNTIL_JAZZY) and not environment.get(SINCE_KILTED):
        environment[profiles_variable(environment)] = str(path)


if __name__ == '__main__':
    print(profiles_variable(os.environ))
