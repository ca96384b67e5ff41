# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The variable of the Fast DDS profile: one, and the one that the distribution reads."""

from importlib import metadata
import subprocess
import sys

from hralign_ros.runtime import fast_dds
from hralign_ros.runtime.fast_dds import SINCE_KILTED, UNTIL_JAZZY, use_profile
import pytest

# Where no distribution is named, ROS 2 comes from wheels.
KILTED = any(wheel.name == 'ros-kilted-rclpy' for wheel in metadata.distributions())
WHEELS = SINCE_KILTED if KILTED else UNTIL_JAZZY


@pytest.mark.parametrize(('distribution', 'variable'), [
    ('', WHEELS), ('humble', UNTIL_JAZZY), ('jazzy', UNTIL_JAZZY), ('kilted', SINCE_KILTED),
    ('lyrical', SINCE_KILTED), ('rolling', SINCE_KILTED)])
def test_each_distribution_has_its_variable(distribution, variable):
    """Guards transport: the other variable is not read, or is deprecated with a message."""
    environment = {'ROS_DISTRO': distribution}
    use_profile(environment, '/a.xml')
    assert environment == {'ROS_DISTRO': distribution, variable: '/a.xml'}
    said = subprocess.run([sys.executable, fast_dds.__file__], env={'ROS_DISTRO': distribution},
                          capture_output=True, text=True, check=True)
    assert said.stdout == f'{variable}\n', 'for tools/env.sh'


@pytest.mark.parametrize('variable', [UNTIL_JAZZY, SINCE_KILTED])
@pytest.mark.parametrize('distribution', ['jazzy', 'kilted'])
def test_a_profile_that_is_set_is_kept(distribution, variable):
    """Guards Fast DDS against both variables: it then prints 'Error adding profile'."""
    environment = {'ROS_DISTRO': distribution, variable: '/mine.xml'}
    use_profile(environment, '/a.xml')
    assert environment == {'ROS_DISTRO': distribution, variable: '/mine.xml'}
