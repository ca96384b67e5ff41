# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reading files that somebody else has made: bounded before a byte of them is in memory."""

import os
from pathlib import Path
import stat
from typing import Any

import yaml

# About 900 tasks; without libyaml the parser takes up to ten seconds for so much.
MAX_YAML_BYTES = 1 << 20
# A text of that length cannot hold more values, unless aliases repeat them.
MAX_YAML_VALUES = MAX_YAML_BYTES
# Numbers longer than that take the parser seconds each.
_MAX_NUMBER = 100
# libyaml's reader calls itself at each level, without Python's limit: the process would crash.
_MAX_DEPTH = 100
# By libyaml a bundle's tasks take 60 ms in place of 340, at each start of a node.
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()


class NotPlainError(OSError):
    """What lies at a path is a link or a device, and not a file."""


def read_bounded(path: Path, limit: int) -> bytes:
    """
    Read a file of at most `limit` bytes.

    The file is opened once and asked what it is before it is read: nobody can put another in its
    place in between. A link is not followed; a pipe does not block.

    :returns: its bytes; one more than `limit` where it is larger, and never more.
    :raises NotPlainError: a link, a folder, a pipe or a device.
    :raises OSError: it cannot be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if path.is_symlink():
            raise NotPlainError(error.errno, 'a symbolic link', str(path)) from error
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotPlainError(0, 'no regular file', str(path))
    with os.fdopen(descriptor, 'rb') as file:
        return file.read(min(status.st_size, limit) + 1)[:limit + 1]


def load_yaml(data: bytes) -> Any:
    """
    Read YAML of plain data, without tags that name Python objects.

    :raises ValueError: not YAML, too long, too deep, aliases that multiply its values, a number of
        endless digits.
    :raises Exception: PyYAML raises whatever it runs into.
    """
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f'{len(data)} bytes; at most {MAX_YAML_BYTES} are allowed')
    try:
        _check_events(data)
        return _value(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f' in line {mark.line + 1}, column {mark.column + 1}' if mark else ''
        raise ValueError(f'{error.problem or error.context}{where}') from error


def _value(data: bytes) -> Any:
    loader = _LOADER(data)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _check_events(data: bytes) -> None:
    """
    Count values before one of them is built; what lies behind an alias as often as it occurs.

    Lists of lists of aliases grow tenfold with every line, as soon as anything walks through them.

    :raises ValueError: too many or too deep, one that holds itself, a number of endless digits.
    """
    total = 0
    sizes: dict[str, int] = {}
    # Of each list and mapping that has not ended: its anchor, and how many came before it.
    around: list[tuple[str | None, int]] = []
    for event in yaml.parse(data, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in around):
                raise ValueError(
                    'an alias stands for what it lies in; only plain data is allowed')
            total += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.NodeEvent):
            total += 1
            if isinstance(event, yaml.CollectionStartEvent):
                around.append((event.anchor, total - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if total > MAX_YAML_VALUES:
            raise ValueError(f'its aliases make more than {MAX_YAML_VALUES} values of it; write '
                             'it without aliases')
        if len(around) > _MAX_DEPTH:
            raise ValueError(f'lists and mappings lie in one another more than {_MAX_DEPTH} deep')
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_NUMBER:
            # '!' alone says: as if it were plain, also in quotes.
            alone = event.tag == '!'
            tag = event.tag if event.tag and not alone else _RESOLVER.resolve(
                yaml.ScalarNode, event.value, (True, False) if alone else event.implicit)
            if tag.endswith((':int', ':float')):
                raise ValueError(f'a number of {len(event.value)} digits; at most {_MAX_NUMBER} '
                                 'are allowed')
