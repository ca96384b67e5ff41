# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tables of measured figures, put between the marks of a page of docs/."""

from collections.abc import Callable, Mapping, Sequence
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


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
