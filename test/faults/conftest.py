# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Robots to break, and the table of what came of it."""

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the bundle that decides SUCCESS on anything and fails at will; not to be changed."""
    from support.robot import trapped_bundle

    return trapped_bundle(tmp_path_factory.mktemp('trapped') / 'bundle')


@pytest.fixture(scope='module')
def robot(bundle: Path, tmp_path_factory: pytest.TempPathFactory):
    """Give a robot at work, for all faults of a file one after the other."""
    from support.harness import Harness
    from support.robot import Robot

    harness = Harness(tmp_path_factory.mktemp('robot'))
    made = Robot(harness, bundle)
    yield made
    made.close()
    harness.close()


@pytest.fixture(scope='session')
def rows():
    """Collect a row for each fault; HRALIGN_FAULTS says where, for docs/faults/reliability.md."""
    made = []
    yield made
    if os.environ.get('HRALIGN_FAULTS'):
        Path(os.environ['HRALIGN_FAULTS']).write_text(
            json.dumps([row.__dict__ for row in made], indent=1) + '\n', 'utf-8')
