# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The miniature data sets that several tests read."""

from pathlib import Path
import sys

import pytest

pytest.importorskip('av', reason='the offline packages are not installed')
pytest.importorskip('pyarrow', reason='the offline packages are not installed')
sys.path.insert(0, str(Path(__file__).parent))

from rh20t_tree import make_tree  # noqa: E402, I100, I202  # found by the line above


@pytest.fixture(scope='session')
def rh20t(tmp_path_factory):
    """Make the good scenes once; a test that changes something copies them."""
    return make_tree(tmp_path_factory.mktemp('rh20t'))
