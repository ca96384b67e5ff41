# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Message types by name, and their definitions as bags hold them."""

from functools import cache
from importlib import import_module
from pathlib import Path
import re

from ament_index_python.packages import get_package_share_directory, PackageNotFoundError
from hralign_ros.runtime.errors import DataError

_RULE = '=' * 80
# The type at the beginning of a field's line, without the length of strings and arrays.
_TYPE = re.compile(r'\s*([A-Za-z][\w/]*)')
_BUILT_IN = {
    'bool', 'byte', 'char', 'float32', 'float64', 'int8', 'int16', 'int32', 'int64', 'string',
    'uint8', 'uint16', 'uint32', 'uint64', 'wstring'}


def type_name(kind: type) -> str:
    """Name a message type, such as sensor_msgs/msg/Image."""
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


def message_type(name: str) -> type:
    """
    Find a message type.

    :param name: such as sensor_msgs/msg/JointState.
    :raises DataError: it is not installed here.
    """
    package, _, kind = name.split('/')
    try:
        found: type = getattr(import_module(f'{package}.msg'), kind)
    except (ImportError, AttributeError) as error:
        raise DataError(f'the message type {name} is not installed here ({error}); install or '
                        f'source the package {package}') from error
    return found


@cache
def definition(name: str) -> str:
    """
    Put a type's definition together with those of all types that it needs, as rosbag2 does.

    :param name: such as sensor_msgs/msg/JointState.
    :raises DataError: one of them is not installed as a .msg file.
    """
    package, _, kind = name.split('/')
    root, texts, waiting = f'{package}/{kind}', dict[str, str](), [f'{package}/{kind}']
    while waiting:
        one = waiting.pop(0)
        if one in texts:
            continue
        texts[one] = _read(one)
        for line in texts[one].splitlines():
            found = _TYPE.match(line.partition('#')[0])
            if found and found[1] not in _BUILT_IN:
                inner = found[1]
                waiting.append(inner if '/' in inner else f'{one.partition("/")[0]}/{inner}')
    first = texts.pop(root)
    return first + ''.join(f'\n{_RULE}\nMSG: {one}\n{text}' for one, text in texts.items())


def _read(name: str) -> str:
    package, kind = name.split('/')
    try:
        path = Path(get_package_share_directory(package)) / 'msg' / f'{kind}.msg'
        return path.read_text('utf-8')
    except (OSError, PackageNotFoundError) as error:
        raise DataError(f'the definition of {name} is not installed here ({error}); install or '
                        f'source the package {package}') from error
