# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The parameters of one node out of a ROS parameter file, as ROS takes them; without ROS."""

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

from hralign_ros.runtime.errors import first_line, HralignError
import yaml


class ParameterFileError(HralignError):
    """A parameter file cannot be read, or ROS would ignore it."""


def read_parameters(path: Path, node: str = '/encoder') -> dict[str, Any]:
    """
    Read a node's parameters from a ROS parameter file, by full name.

    :param node: with its namespace; of parameters for several nodes only its own are taken, as
        ROS takes them.
    :raises ParameterFileError: it cannot be read, or holds none for this node.
    """
    sections: dict[str, dict[str, Any]] = {}
    try:
        document = yaml.compose(Path(path).read_text('utf-8'), yaml.SafeLoader)
        for names, value in _leaves(document):
            if 'ros__parameters' in names[:-1]:
                at = names.index('ros__parameters')
                section = '/'.join(name.strip('/') for name in names[:at])
                sections.setdefault(section, {})['.'.join(names[at + 1:])] = value
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise ParameterFileError(f'{path}: cannot be read as a parameter file '
                                 f'({first_line(problem)})') from problem
    node = f'/{node.strip("/")}'
    found: dict[str, Any] = {}
    for section, values in sections.items():
        if re.fullmatch(_pattern(section), node):
            found |= values
    if not found:
        keys = [key.value for key, _ in document.value] \
            if isinstance(document, yaml.MappingNode) else []
        raise ParameterFileError(
            f'{path}: holds no parameters for a node named {node} (its keys: '
            f'{", ".join(keys) or "none"}); ROS would ignore it without a word. Key it by /**: '
            'ros__parameters: or name with --node the one that it is for')
    return found


def _leaves(
    node: yaml.Node | None, names: tuple[str, ...] = (),
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """
    Give the values of a YAML tree that are no mappings, each with the names that lead to it.

    So names that come twice are put together, as rcl does; YAML readers take the last of them
    alone.
    """
    construct = yaml.constructor.SafeConstructor().construct_object
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f'a list or a mapping is no name{key.start_mark}')
            yield from _leaves(value, (*names, str(construct(key))))
    elif node is not None:
        yield names, construct(node, deep=True)


def _pattern(name: str) -> str:
    """Turn a node's name with ROS's wildcards into a regular expression."""
    words = {'**': r'(/[^/]+)*', '*': r'/[^/]+'}
    return ''.join(words.get(word, f'/{re.escape(word)}') for word in name.strip('/').split('/'))
