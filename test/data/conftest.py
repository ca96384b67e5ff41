# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The miniature data sets that several tests read."""


import pytest


@pytest.fixture(scope='session')
def rh20t(tmp_path_factory):
    """Make the good scenes once; a test that changes something copies them."""
    from support.rh20t_tree import make_tree

    return make_tree(tmp_path_factory.mktemp('rh20t'))
