# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Reading files that somebody else has made: bounded before a byte of them is in memory."""

import os
from pathlib import Path
import stat
from typing import Any

import yaml

# About 900 tasks; the parser takes up to ten seconds for so much.
MAX_YAML_BYTES = 1 << 20
# A text of that length cannot hold more values, unless aliases repeat them.
MAX_YAML_VALUES = MAX_YAML_BYTES
# Numbers longer than that take the parser seconds each.
_MAX_NUMBER = 100


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

    :raises ValueError: too long, aliases that multiply its values, a number of endless digits.
    :raises Exception: not YAML; PyYAML raises whatever it runs into.
    """
    if len(data) > MAX_YAML_BYTES:
        raise ValueError(f'{len(data)} bytes; at most {MAX_YAML_BYTES} are allowed')
    loader = _Loader(data)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """
    Counts values before they are built.

    Lists of lists of aliases grow tenfold with every line, as soon as anything walks through them.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._total = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """
        Compose a node; the values behind an alias count as often as it occurs.

        :raises ValueError: too many, a node that holds itself, a number of endless digits.
        """
        before, alias = self._total, self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        assert node is not None
        if alias and node not in self._sizes:
            raise ValueError('an alias stands for what it lies in; only plain data is allowed')
        self._total += self._sizes[node] if alias else 1
        self._sizes[node] = self._total - before
        if self._total > MAX_YAML_VALUES:
            raise ValueError(f'its aliases make more than {MAX_YAML_VALUES} values of it; write '
                             'it without aliases')
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((':int', ':float')) \
                and len(node.value) > _MAX_NUMBER:
            raise ValueError(f'a number of {len(node.value)} digits; at most {_MAX_NUMBER} are '
                             'allowed')
        return node
