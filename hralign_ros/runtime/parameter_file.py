# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The parameters of one node out of a ROS parameter file, as ROS takes them; without ROS."""

from collections.abc import Iterator, Mapping
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
    try:
        document = _plain(yaml.compose(Path(path).read_text('utf-8'), yaml.SafeLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise ParameterFileError(f'{path}: cannot be read as a parameter file '
                                 f'({first_line(problem)})') from problem
    found: dict[str, Any] = {}
    keys = [str(key) for key in document] if isinstance(document, dict) else []
    node = f'/{node.strip("/")}'
    for key, values in _sections(document, '') if keys else ():
        if re.fullmatch(_pattern(key), node):
            found |= _flat(values)
    if not found:
        raise ParameterFileError(
            f'{path}: holds no parameters for a node named {node} (its keys: '
            f'{", ".join(keys) or "none"}); ROS would ignore it without a word. Key it by /**: '
            'ros__parameters: or name with --node the one that it is for')
    return found


def _plain(node: yaml.Node | None) -> Any:
    """
    Make plain values of a YAML tree; names that come twice are put together, as rcl does.

    YAML readers take the last of them alone.
    """
    if isinstance(node, yaml.MappingNode):
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError(f'a list or a mapping is no name{key_node.start_mark}')
            found = _merged(found, {_plain(key_node): _plain(value_node)})
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    return yaml.constructor.SafeConstructor().construct_object(node) if node else None


def _merged(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    both = {name: _merged(first[name], value) for name, value in second.items()
            if isinstance(value, dict) and isinstance(first.get(name), dict)}
    return {**first, **second, **both}


def _sections(document: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Give the full names of nodes in a parameter file, namespaces nested or not."""
    for key, value in document.items():
        name = f'{prefix}/{str(key).strip("/")}'
        if isinstance(value, dict):
            own = value.get('ros__parameters')
            if isinstance(own, dict):
                yield name, own
            yield from _sections(
                {k: v for k, v in value.items() if k != 'ros__parameters'}, name)


def _pattern(name: str) -> str:
    """Turn a node's name with ROS's wildcards into a regular expression."""
    words = {'**': r'(/[^/]+)*', '*': r'/[^/]+'}
    return ''.join(words.get(word, f'/{re.escape(word)}') for word in name.strip('/').split('/'))


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Write nested parameters with dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f'{prefix}{key}.') if isinstance(value, dict) \
            else {f'{prefix}{key}': value}
    return flat
