# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Isolation of the whole run: a ROS domain, a log folder and a transport profile of its own.

Set before anything imports rclpy, and inherited by every process that a test starts. The domain
is held by an open port for as long as pytest lives, so that parallel runs do not see each other.

Here too: which packages a folder of tests needs. To skip in the conftest of the folder itself
would end the whole run before its first test.
"""

from importlib.util import find_spec
import os
from pathlib import Path
import signal
import tempfile

import pytest
from support.domain import take_domain

# Bundles to test with.
pytest_plugins = ['support.bundles']

ROOT = Path(__file__).resolve().parents[1]
# Folder of tests -> packages without which nothing in it can run; `make test` installs them.
_VIDEOS = ('av', 'pyarrow')
_TORCH = (*_VIDEOS, 'torch', 'torchvision', 'timm', 'onnxscript', 'transformers', 'sklearn')
_ROS = ('rclpy', 'hralign_msgs')
NEEDED = {**dict.fromkeys(('nodes', 'faults', 'fuzz'), (*_ROS, 'onnx')), 'doctor': _ROS,
          'data': _VIDEOS, 'review': (*_VIDEOS, 'onnx'), 'simulation': _VIDEOS,
          'lerobot_plugin': ('lerobot', 'lerobot_policy_hralign'),
          'results': _TORCH, 'shipped': (*_ROS, *_TORCH),
          **dict.fromkeys(('calibration', 'cli', 'evaluation', 'export', 'models', 'training'),
                          _TORCH)}


class _LeftOut(pytest.Module):
    """A file of tests that is skipped without being imported."""

    def collect(self):
        """Skip it, naming what is missing."""
        pytest.skip(f'{missing_for(self.path)} is not installed', allow_module_level=True)


def missing_for(path):
    """Name the first package that the tests of a file need and that is missing; '': none is."""
    return next((name for name in NEEDED.get(path.parent.name, ()) if not find_spec(name)), '')


def pytest_pycollect_makemodule(module_path, parent):
    """Leave files out whose packages are not there."""
    if missing_for(module_path):
        return _LeftOut.from_parent(parent, path=module_path)
    return None


DOMAIN = take_domain()
# A shell has what it starts in the background ignore SIGINT, and children inherit that: a command
# that a test interrupts would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_LOG_DIR'] = tempfile.mkdtemp(prefix='hralign_ros_log_')
os.environ['RCUTILS_COLORIZED_OUTPUT'] = '0'
# A test of launch itself takes a domain of its own.
os.environ['PYTHONUNBUFFERED'] = '1'
# Two threads of torch that wait for each other take four times as long as one where something
# else runs on the same cores; what tests train is too small to gain by a second one.
os.environ.setdefault('OMP_NUM_THREADS', '1')

from hralign_ros.runtime.fast_dds import SINCE_KILTED, UNTIL_JAZZY, use_profile  # noqa: E402, I100

# Raw images need it, whatever the shell has set.
for _name in (UNTIL_JAZZY, SINCE_KILTED):
    os.environ.pop(_name, None)
use_profile(os.environ, ROOT / 'config/fastdds_large_images.xml')


@pytest.fixture
def harness(tmp_path: Path):
    """Give a harness that ends every process it started."""
    from support.harness import Harness

    made = Harness(tmp_path)
    yield made
    made.close()
