# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write what follows from the parameter table: config/encoder.yaml and the table in docs/node.md.

    python tools/write_parameters.py
"""

from pathlib import Path
from typing import Any

from hralign_ros.nodes.parameters import DEFAULT_VIEWS, NODE_PARAMETERS, of_view, Parameter

ROOT = Path(__file__).resolve().parents[1]
YAML = ROOT / 'config/encoder.yaml'
PAGE = ROOT / 'docs/node.md'
BEGIN, END = '<!-- parameters: begin -->', '<!-- parameters: end -->'

_HEADER = """\
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
#
# Every parameter of the encoder with its default; written by tools/write_parameters.py.
# Keyed by /** so that it fits whatever the node and its namespace are called.
/**:
  ros__parameters:
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


def make_yaml() -> str:
    """Make config/encoder.yaml."""
    lines = []

    def entry(indent: str, name: str, default: Any, parameter: Parameter, comment: bool) -> None:
        if comment:
            lines.append(f'{indent}# {parameter.text}')
            notes = [f'{_limits(parameter)}' if _limits(parameter) else '',
                     'may change while running' if parameter.dynamic else '']
            if any(notes):
                lines.append(f'{indent}# ({"; ".join(note for note in notes if note)})')
        lines.append(f'{indent}{name}: {_value(default)}')

    for parameter in NODE_PARAMETERS:
        entry('    ', parameter.name, parameter.default, parameter, True)
    for view in DEFAULT_VIEWS:
        lines.append(f'    {view}:')
        for parameter in of_view(view):
            entry('      ', parameter.name.removeprefix(f'{view}.'), parameter.default, parameter,
                  view == DEFAULT_VIEWS[0])
    return _HEADER + '\n'.join(lines) + '\n'


def make_table() -> str:
    """Make the table of docs/node.md."""
    rows = ['| parameter | default | allowed | changes | meaning |', '|---|---|---|---|---|']
    for parameter in (*NODE_PARAMETERS, *of_view('<view>')):
        rows.append(
            f'| `{parameter.name}` | `{_value(parameter.default)}` | {_limits(parameter)} | '
            f'{"at any time" if parameter.dynamic else "read-only"} | {parameter.text} |')
    return '\n'.join(rows)


def put_table(page: str) -> str:
    """Put the table between the marks of a page."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f'{head}{BEGIN}\n{make_table()}\n{END}{tail}'


if __name__ == '__main__':
    YAML.write_text(make_yaml(), 'utf-8')
    PAGE.write_text(put_table(PAGE.read_text('utf-8')), 'utf-8')
