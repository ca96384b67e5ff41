# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How films have to be turned and cropped to look as the node sees the same cameras.

The node turns and crops pictures by its parameters (`<view>.rotation`, `<view>.crop`). Films that
the same cameras recorded lie as the cameras sent them, so what is learned from them has to be
turned in the same way: from the very file that the node is started with.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
import yaml

_NAMES = ('rotation', 'crop')


def read_geometry(path: Path) -> dict[str, ViewGeometry]:
    """
    Read from a parameter file of the node how it turns and crops its views.

    :param path: YAML as `ros2 run --params-file` takes it. Where several nodes are in it, all are
        read, the later ones last.
    :returns: by view; a view that is taken as it comes is not there.
    :raises DataError: it cannot be read, is no parameter file, or says what the node would refuse.
    """
    try:
        document = yaml.safe_load(Path(path).read_text('utf-8'))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise DataError(f'{path}: {error}') from error
    found: dict[str, dict[str, Any]] = {}
    nodes = list(_parameters(document))
    if not nodes:
        raise DataError(f'{path}: no ros__parameters in it; needed is a parameter file of the '
                        'node, as config/encoder.yaml')
    for parameters in nodes:
        for name, value in _flat(parameters):
            view, _, last = name.rpartition('.')
            if view and last in _NAMES:
                found.setdefault(view, {})[last] = value
    views = {view: _view(path, view, values) for view, values in found.items()}
    return {view: geometry for view, geometry in views.items() if geometry != AS_IT_COMES}


def _parameters(document: object) -> Iterator[Mapping[str, Any]]:
    """Find the parameters of every node, however deep its namespace."""
    if not isinstance(document, Mapping):
        return
    for name, value in document.items():
        if name == 'ros__parameters':
            if isinstance(value, Mapping):
                yield value
        else:
            yield from _parameters(value)


def _flat(parameters: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Name each parameter in full: a dot in a name and a level of its own mean the same."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{prefix}{name}.')
        else:
            yield f'{prefix}{name}', value


def _view(path: Path, view: str, values: Mapping[str, Any]) -> ViewGeometry:
    rotation, crop = values.get('rotation', 0), values.get('crop', [0.0, 0.0, 1.0, 1.0])
    if isinstance(rotation, bool) or not isinstance(rotation, int):
        raise DataError(f'{path}: {view}.rotation is {rotation!r}; needed is a whole number')
    if not isinstance(crop, list) or not all(
            isinstance(edge, float | int) and not isinstance(edge, bool) for edge in crop):
        raise DataError(f'{path}: {view}.crop is {crop!r}; needed are four numbers')
    try:
        return ViewGeometry(rotation, tuple(float(edge) for edge in crop))  # type: ignore[arg-type]
    except ValueError as error:
        raise DataError(f'{path}: {view}.{error}') from error
