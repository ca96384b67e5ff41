# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write what follows from the parameter tables: YAML files in config/, docs/reference/parameters.md.

    python tools/write_parameters.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hralign_ros.nodes import parameters, policy_parameters, recorder_parameters
from hralign_ros.nodes.parameters import DEFAULT_VIEWS, of_view, Parameter

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/reference/parameters.md'


@dataclass(frozen=True)
class Documents:
    """Where the parameters of a node are written to, and what they are."""

    node: str
    title: str
    page: str
    rows: Sequence[Parameter]
    view_rows: Sequence[Parameter]

    @property
    def yaml(self) -> Path:
        """Give the parameter file."""
        return ROOT / f'config/{self.node}.yaml'


NODES = (
    Documents('encoder', 'The encoder node', 'node.md', parameters.NODE_PARAMETERS,
              parameters.VIEW_PARAMETERS),
    Documents('recorder', 'The recorder', 'recorder.md', recorder_parameters.NODE_PARAMETERS,
              recorder_parameters.VIEW_PARAMETERS),
    Documents('policy', 'The policy node', 'policy_node.md', policy_parameters.NODE_PARAMETERS,
              ()))

_HEADER = """\
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Every parameter of the {node} with its default; written by tools/write_parameters.py.
# Keyed by /** so that it fits whatever the node and its namespace are called.
/**:
  ros__parameters:
"""
_PAGE_HEADER = """\
# Parameters

Written by `python tools/write_parameters.py` from the tables by which the nodes declare them.
`<view>` is the name of a camera. Nobody can change a *read-only* parameter while the node runs.
"""


def _value(value: Any) -> str:
    """Write a value as YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f'[{", ".join(_value(item) for item in value)}]'
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _limits(parameter: Parameter) -> str:
    """Say which values are allowed."""
    if parameter.choices:
        return ', '.join(map(str, parameter.choices))
    if parameter.low is not None and parameter.high is not None:
        return f'{parameter.low:g} to {parameter.high:g}'
    return ''


def make_yaml(node: Documents) -> str:
    """Make the parameter file of a node."""
    lines = []

    def entry(indent: str, name: str, default: Any, parameter: Parameter, comment: bool) -> None:
        if comment:
            lines.append(f'{indent}# {parameter.text}')
            notes = [f'{_limits(parameter)}' if _limits(parameter) else '',
                     'may change while running' if parameter.dynamic else '']
            if any(notes):
                lines.append(f'{indent}# ({"; ".join(note for note in notes if note)})')
        lines.append(f'{indent}{name}: {_value(default)}')

    for parameter in node.rows:
        entry('    ', parameter.name, parameter.default, parameter, True)
    for view in DEFAULT_VIEWS if node.view_rows else ():
        lines.append(f'    {view}:')
        for parameter in of_view(view, node.view_rows):
            entry('      ', parameter.name.removeprefix(f'{view}.'), parameter.default, parameter,
                  view == DEFAULT_VIEWS[0])
    return _HEADER.format(node=node.node) + '\n'.join(lines) + '\n'


def make_table(node: Documents) -> str:
    """Make the table of a node."""
    rows = ['| parameter | default | allowed | changes | meaning |', '|---|---|---|---|---|']
    for parameter in (*node.rows, *of_view('<view>', node.view_rows)):
        rows.append(
            f'| `{parameter.name}` | `{_value(parameter.default)}` | {_limits(parameter)} | '
            f'{"at any time" if parameter.dynamic else "read-only"} | {parameter.text} |')
    return '\n'.join(rows)


def make_page() -> str:
    """Make the page of all nodes' parameters."""
    return _PAGE_HEADER + ''.join(
        f'\n## {node.title}\n\n[What it does]({node.page}). As a file: '
        f'[`config/{node.node}.yaml`](../../config/{node.node}.yaml).\n\n{make_table(node)}\n'
        for node in NODES)


if __name__ == '__main__':
    for each in NODES:
        each.yaml.write_text(make_yaml(each), 'utf-8')
    PAGE.write_text(make_page(), 'utf-8')
