# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Robots to break, and the table of what came of it."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import sys

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / 'nodes')]

pytest.importorskip('rclpy', reason='rclpy is not installed')
pytest.importorskip('hralign_msgs', reason='hralign_msgs is not built')
pytest.importorskip('onnx', reason='onnx is not installed: it makes the bundle that fails at will')

from harness import Harness  # noqa: E402, I100, I202  # found by the line above
from robot import Robot, Row, trapped_bundle  # noqa: E402, I100, I202


@pytest.fixture(scope='session')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the bundle that decides SUCCESS on anything and fails at will; not to be changed."""
    return trapped_bundle(tmp_path_factory.mktemp('trapped') / 'bundle')


@pytest.fixture(scope='module')
def robot(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """Give a robot at work, for all faults of a file one after the other."""
    harness = Harness(tmp_path_factory.mktemp('robot'))
    made = Robot(harness, bundle)
    yield made
    made.close()
    harness.close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """Give a harness that ends every process it started."""
    made = Harness(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope='session')
def rows() -> Iterator[list[Row]]:
    """Collect a row for each fault; written where HRALIGN_FAULTS says, for docs/reliability.md."""
    made: list[Row] = []
    yield made
    if os.environ.get('HRALIGN_FAULTS'):
        Path(os.environ['HRALIGN_FAULTS']).write_text(
            json.dumps([row.__dict__ for row in made], indent=1) + '\n', 'utf-8')
