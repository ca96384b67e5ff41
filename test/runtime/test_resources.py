# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files that ship with the package are found wherever an installer puts the package."""

from pathlib import Path

from hralign_ros.runtime import BundleError, default_bundle, resources
import pytest


@pytest.mark.parametrize(('package', 'share'), [
    ('hralign_ros', '.'),
    ('venv/lib/python3.12/site-packages/hralign_ros', 'venv/share/hralign_ros'),
    ('opt/ros/jazzy/lib/python3.12/site-packages/hralign_ros', 'opt/ros/jazzy/share/hralign_ros'),
    ('usr/lib/python3/dist-packages/hralign_ros', 'usr/share/hralign_ros'),
    ('.local/lib/python3.12/site-packages/hralign_ros', '.local/share/hralign_ros'),
    ('target/hralign_ros', 'target/share/hralign_ros'),
], ids=lambda value: value.split('/')[0])
def test_shipped_files_are_found(package, share, tmp_path, monkeypatch):
    """
    Guards five lines of Python after pip install: no default bundle was found.

    A folder of that name in site-packages, which another package may have, is never taken for it.
    """
    monkeypatch.setattr(resources, '_HERE', tmp_path / package / 'runtime/resources.py')
    with pytest.raises(BundleError, match='or name a bundle'):
        default_bundle()
    bundle = tmp_path / share / 'models/default'
    bundle.mkdir(parents=True)
    foreign = tmp_path / package / '../models/default'
    if share == '.':
        (tmp_path / 'package.xml').touch()
    else:
        foreign.resolve().mkdir(parents=True)
    assert default_bundle() == bundle


def test_this_tree():
    """Guards against a list of shipped files that lacks what the code asks for."""
    root = Path(__file__).resolve().parents[2]
    for name in ('models/default', 'demo/can', 'demo/episodes', 'config/splits.yaml'):
        assert resources.find_share(name).samefile(root / name)
