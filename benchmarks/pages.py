# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Measured figures: rows in results/*.json, and tables between the marks of a page of docs/."""

from collections.abc import Callable, Mapping, Sequence
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


_KEPT = ('metric', 'variant', 'split', 'conditions', 'value', 'low', 'high', 'n', 'chance')
Row = Mapping[str, Any]


def kept(rows: Sequence[Row], **conditions: str) -> list[dict[str, Any]]:
    """Keep what results say of a report's rows, under some more conditions."""
    return [{**{key: row[key] for key in _KEPT}, 'conditions': {**row['conditions'], **conditions}}
            for row in rows if row['value'] is not None]


def find(
    rows: Sequence[Row], metric: str, variant: str, split: str, **conditions: Any,
) -> Row | None:
    """Return the row of one value under exactly these conditions; None where it is not there."""
    return next((row for row in rows if (
        row['metric'], row['variant'], row['split'], row['conditions']) == (
        metric, variant, split, conditions)), None)


def number(row: Row | None, digits: int = 3, lacking: str = '') -> str:
    """
    Write a value with its interval.

    :param lacking: what stands for an end that is not there; without it there is no interval then.
    """
    if row is None or row['value'] is None:
        return '-'
    text = f'{row["value"]:.{digits}f}'
    ends = [lacking if row[end] is None else f'{row[end]:.{digits}f}' for end in ('low', 'high')]
    return f'{text} [{", ".join(ends)}]' if all(ends) else text


def write_results(path: Path, document: Mapping[str, Any]) -> None:
    """Write results as JSON, a line for each row."""
    def text(value: Any, indent: str) -> str:
        deeper = indent + ' '
        if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()) \
                and len(indent) < 2:
            lines = [f'{deeper}{json.dumps(k)}: {text(v, deeper)}' for k, v in value.items()]
            return '{\n' + ',\n'.join(lines) + f'\n{indent}}}'
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return '[\n' + ',\n'.join(deeper + json.dumps(v) for v in value) + f'\n{indent}]'
        return json.dumps(value)

    path.parent.mkdir(exist_ok=True)
    path.write_text(text(dict(document), '') + '\n', 'utf-8')
    print(path)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table."""
    lines = [f'| {" | ".join(titles)} |', '|' + '---|' * len(titles)]
    return '\n'.join([*lines, *(f'| {" | ".join(row)} |' for row in rows)])


def filled(page: str, drawn: Mapping[str, str]) -> str:
    """
    Put tables between their marks.

    :raises ValueError: a mark is missing.
    """
    for name, text in drawn.items():
        begin, end = f'<!-- {name} -->\n', '<!-- end -->'
        before, *after = page.split(begin)
        if len(after) != 1 or end not in after[0]:
            raise ValueError(f'the page has {len(after)} marks {name}; needed is 1')
        page = f'{before}{begin}\n{text}\n\n{end}{after[0].partition(end)[2]}'
    return page


def rewrite(
    page: Path, results: Path, tables: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> None:
    """Draw the tables of a page anew from its results, and say which page it was."""
    found = json.loads(results.read_text('utf-8'))
    page.write_text(filled(page.read_text('utf-8'), tables(found)), 'utf-8')
    print(page)
