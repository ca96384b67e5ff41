# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How videos have to be turned and cropped to match what the node sees of the same cameras.

The node turns and crops images by its parameters (`<view>.rotation`, `<view>.crop`). Videos that
the same cameras recorded lie as the cameras sent them, so what is learned from them has to be
turned in the same way: from the very file that the node is started with.
"""

from pathlib import Path
from typing import Any

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
from hralign_ros.runtime.parameter_file import read_parameters


def read_geometry(path: Path, node: str = '/encoder') -> dict[str, ViewGeometry]:
    """
    Read from a parameter file of the node how it turns and crops its views.

    :param path: YAML as `ros2 run --params-file` takes it.
    :param node: with its namespace, where the file is for several.
    :returns: by view; a view that is taken as it comes is not there.
    :raises HralignError: it cannot be read, is not for this node, or says of a view what the node
        would refuse.
    """
    given = read_parameters(path, node)
    views = given.get('views', ['wrist', 'third_person'])
    if not isinstance(views, list):
        raise DataError(f'{path}: views is {views!r}; needed is a list of names')
    found = {str(view): _view(path, str(view), given) for view in views}
    return {view: geometry for view, geometry in found.items() if geometry != AS_IT_COMES}


def _view(path: Path, view: str, given: dict[str, Any]) -> ViewGeometry:
    rotation = given.get(f'{view}.rotation', AS_IT_COMES.rotation)
    crop = given.get(f'{view}.crop', list(AS_IT_COMES.crop))
    if isinstance(rotation, bool) or not isinstance(rotation, int):
        raise DataError(f'{path}: {view}.rotation is {rotation!r}; needed is a whole number')
    # ROS takes a list of numbers of one kind.
    if not isinstance(crop, list) or {*map(type, crop)} not in ({int}, {float}):
        raise DataError(f'{path}: {view}.crop is {crop!r}; needed are four numbers, each with a '
                        'decimal point or each without, as ROS has it')
    try:
        return ViewGeometry(rotation, tuple(map(float, crop)))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f'{path}: {view}.{error}') from error
