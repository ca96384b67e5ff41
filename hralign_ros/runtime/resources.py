# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Where the files lie that come with the package: in a source tree, or where colcon put them."""

import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def share_places(name: str) -> list[Path]:
    """List where a file or folder of the package may be, the source tree first."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [_ROOT / name, *(Path(p) / 'share/hralign_ros' / name for p in prefixes if p)]


def find_share(name: str) -> Path:
    """
    Find a file or folder that comes with the package.

    :param name: config/splits.yaml, demo/can, ...
    :raises FileNotFoundError: it is in none of the places, which are named.
    """
    places = share_places(name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f'no {name} in {", ".join(str(p.parent) for p in places)}; build the workspace and source '
        'its setup file')
