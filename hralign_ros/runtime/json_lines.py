# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A file that grows by a line of JSON at a time.

A process that is killed may leave a line that is cut off; it counts as not there.
"""

from collections.abc import Iterator, Mapping
import json
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import DataError


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """
    Yield each whole line's mapping with its number, from 1; nothing where there is no file.

    :raises DataError: a whole line is no mapping.
    """
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding='utf-8').split('\n')[:-1], 1):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise DataError(f'{path}: line {number} is no JSON ({error})') from error
        if not isinstance(found, dict):
            raise DataError(f'{path}: line {number} is no mapping')
        yield number, found


def add_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line; a last one that is cut off is taken away first."""
    line = (json.dumps(row) + '\n').encode()
    with open(path, 'ab+') as file:
        end = file.seek(0, 2)
        file.seek(0)
        text = file.read(end)
        file.truncate(text.rfind(b'\n') + 1)
        file.write(line)
