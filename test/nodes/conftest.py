# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Iterator
from pathlib import Path
import sys

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# What is skipped without ROS is named; `make test` installs it.
pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('hralign_msgs', reason='hralign_msgs is not built')

from harness import Harness  # noqa: E402, I100, I202  # found by the line above


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """Give a harness that ends every process it started."""
    made = Harness(tmp_path)
    yield made
    made.close()
