# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Where the files lie that ship with the package: default bundle, configuration, demo episodes.

In a source tree they lie beside the package; an editable or a symlink install leaves both there.
Everywhere else they lie in share/hralign_ros of the prefix that holds the package: a virtual
environment, a user's own prefix, one of colcon's, a distribution's. So the files always belong to
the code that asks for them, whatever else is installed or sourced.
"""

from pathlib import Path

from hralign_ros.runtime.errors import BundleError

_HERE = Path(__file__).resolve()


def find_share(name: str) -> Path:
    """
    Find a file or folder that ships with the package.

    :param name: config/splits.yaml, demo/can, ...
    :raises FileNotFoundError: the installation is incomplete.
    """
    root = _HERE.parents[2]
    places = [root] if (root / 'package.xml').is_file() else [
        folder / 'share/hralign_ros' for folder in _HERE.parents[2:]]
    for place in places:
        if (place / name).exists():
            return place / name
    raise FileNotFoundError(
        f'no {name} in {root} or in share/hralign_ros of a folder above it; install hralign_ros '
        'again, or build the workspace')


def default_bundle() -> Path:
    """
    Find the bundle that ships with this package.

    :raises BundleError: there is none.
    """
    try:
        return find_share('models/default')
    except FileNotFoundError as error:
        raise BundleError(f'{error}; or name a bundle') from error
