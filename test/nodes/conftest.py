# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Nodes as processes, each ended with its test."""

from pathlib import Path
import sys

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def harness(tmp_path: Path):
    """Give a harness that ends every process it started."""
    from harness import Harness

    made = Harness(tmp_path)
    yield made
    made.close()
