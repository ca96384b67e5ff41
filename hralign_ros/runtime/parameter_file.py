# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The parameters of one node out of a ROS parameter file, as ROS takes them; without ROS."""

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
import re
from typing import Any

from hralign_ros.runtime.errors import HralignError
import yaml


class ParameterFileError(HralignError):
    """A parameter file cannot be read, or ROS would ignore it."""


class _Loader(yaml.SafeLoader):
    """Keys that come twice are put together, as rcl does; YAML readers take the last alone."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            value = self.construct_object(value_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(
                    None, None, f'{key!r} is no name', key_node.start_mark)
            found[key] = _merged(found[key], value) if key in found else value
        return found

    def construct_yaml_map(
        self, node: yaml.MappingNode,
    ) -> Generator[dict[Any, Any], None, None]:
        """Build the whole mapping at once."""
        yield self.construct_mapping(node, deep=True)


_Loader.add_constructor('tag:yaml.org,2002:map', _Loader.construct_yaml_map)


def _merged(first: Any, second: Any) -> Any:
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return second
    return {**first, **{key: _merged(first[key], value) if key in first else value
                        for key, value in second.items()}}


def read_parameters(path: Path, node: str = '/encoder') -> dict[str, Any]:
    """
    Read a node's parameters from a ROS parameter file, by full name.

    :param node: with its namespace; of parameters for several nodes only its own are taken, as
        ROS takes them.
    :raises ParameterFileError: it cannot be read, or holds none for this node.
    """
    try:
        document = yaml.load(Path(path).read_text('utf-8'), _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        first_line = (str(problem) or type(problem).__name__).splitlines()[0]
        raise ParameterFileError(
            f'{path}: cannot be read as a parameter file ({first_line})') from problem
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
            'ros__parameters: or name the node that it is for (doctor: --name and --namespace; '
            'import and add-task: --node)')
    return found


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
