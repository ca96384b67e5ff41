# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One of every message that hralign_msgs puts on topics, with something in each field, as in a bag.

The feedback of the action is one of them. Each number and text occurs once in a message, so that a
reader that mixes two fields up is seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from itertools import count
from pathlib import Path
import re
from types import SimpleNamespace
from typing import Any

from ament_index_python.packages import get_package_share_directory
from hralign_ros.nodes import interfaces
from hralign_ros.nodes.message_types import definition
from hralign_ros.runtime.bags import BagWriter, Topic
from rclpy.serialization import serialize_message

PACKAGE = 'hralign_msgs'
_RULE = '=' * 80
_ARRAY = re.compile(r'sequence<(?P<many>.+?)(?:, \d+)?>|(?P<fixed>.+)\[(?P<size>\d+)\]')
_CONSTANT = re.compile(r'\w+\s+(?P<name>[A-Z][A-Z0-9_]*)\s*=\s*(?P<value>\S+)')
# Elements of each sequence.
_LENGTH = 3


@dataclass(frozen=True)
class Sample:
    """
    A message and what a reader has to find in it.

    :param kind: such as hralign_msgs/msg/TaskEmbedding.
    :param definition: with those of all types that it needs, as in a bag.
    :param data: CDR with its encapsulation, as rclpy writes it.
    :param values: of all fields, by path, such as header/stamp/sec or view_names[0].
    :param constants: that the definition has, by name.
    """

    kind: str
    definition: str
    data: bytes
    values: Mapping[str, Any]
    constants: Mapping[str, int]

    @property
    def topic(self) -> str:
        """Name a topic for it."""
        return '/samples/' + self.kind.rpartition('/')[2]


def samples() -> list[Sample]:
    """Make one of every message."""
    made = []
    for name in interfaces.__all__:
        interface = getattr(interfaces, name)
        family = interface.__module__.split('.')[1]
        if family == 'srv':
            continue
        share = Path(get_package_share_directory(PACKAGE))
        text = (share / family / f'{name}.{family}').read_text('utf-8')
        if family == 'msg':
            made.append(_sample(f'{PACKAGE}/msg/{name}', interface,
                                definition(f'{PACKAGE}/msg/{name}'), text))
            continue
        # What is on ~/NAME/_action/feedback, which has no file of its own.
        part = re.split(r'^---$', text, flags=re.MULTILINE)[2]
        made.append(_sample(
            f'{PACKAGE}/action/{name}_FeedbackMessage', interface.Impl.FeedbackMessage,
            f'unique_identifier_msgs/UUID goal_id\n{PACKAGE}/{name}_Feedback feedback\n'
            f'{_RULE}\nMSG: unique_identifier_msgs/UUID\nuint8[16] uuid\n'
            f'{_RULE}\nMSG: {PACKAGE}/{name}_Feedback\n{part}', part))
    return made


def write_bag(folder: Path, name: str) -> Path:
    """
    Write a bag with all samples, as the recorder node writes one.

    :returns: its folder.
    """
    bag = BagWriter(folder, name)
    for at, sample in enumerate(samples()):
        bag.add(Topic(sample.topic, sample.kind, sample.definition), sample.data,
                1_800_000_000_000_000_000 + at)
    return bag.finish()


def flat(message: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Give path and value of each field; rclpy, rosbags or mcap-ros2-support made the message."""
    names = _fields(message)
    if names is not None:
        for name in names:
            yield from flat(getattr(message, name), f'{path}/{name}' if path else name)
    elif isinstance(message, (str, bool, int, float)):
        yield path, message
    else:
        for at, element in enumerate(message):
            yield from flat(element.item() if hasattr(element, 'item') else element,
                            f'{path}[{at}]')


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """List what is missing, additional or different in a message as a reader read it."""
    return [f'{path}: {found.get(path, "missing")}, not {expected.get(path, "there")}'
            for path in sorted({*expected, *found})
            if path not in expected or path not in found or expected[path] != found[path]]


def _fields(message: Any) -> list[str] | None:
    """Name the fields of a message; None: it is none."""
    if hasattr(message, 'get_fields_and_field_types'):  # of rclpy
        return list(message.get_fields_and_field_types())
    if hasattr(message, '__msgtype__'):  # of rosbags, where constants are fields
        return [field.name for field in fields(message)
                if not field.name.isupper() and field.name != '__msgtype__']
    if isinstance(message, SimpleNamespace):  # of mcap-ros2-support
        return list(message.__slots__)
    return None


def _sample(kind: str, made_by: Any, text: str, own: str) -> Sample:
    message = _filled(made_by, count(1))
    constants = {match['name']: int(match['value'])
                 for match in map(_CONSTANT.match, own.splitlines()) if match}
    return Sample(kind, text, serialize_message(message), dict(flat(message)), constants)


def _filled(made_by: Any, numbers: Iterator[int]) -> Any:
    message = made_by()
    for name, kind in message.get_fields_and_field_types().items():
        match = _ARRAY.fullmatch(kind)
        if match:
            inner = match['many'] or match['fixed']
            value = [_value(inner, name, numbers) for _ in range(int(match['size'] or _LENGTH))]
        else:
            value = _value(kind, name, numbers)
        setattr(message, name, value)
    return message


def _value(kind: str, name: str, numbers: Iterator[int]) -> Any:
    package, slash, inner = kind.partition('/')
    if slash and inner.endswith('_Feedback'):
        action = getattr(import_module(f'{package}.action'), inner.removesuffix('_Feedback'))
        return _filled(action.Feedback, numbers)
    if slash:
        return _filled(getattr(import_module(f'{package}.msg'), inner), numbers)
    number = next(numbers)
    if kind.startswith('string'):
        return f'{name} {number}'
    if kind == 'boolean':
        return number % 3 != 0
    # Halves are exact in 32 bits, too.
    return number + 0.5 if kind in ('float', 'double') else number
