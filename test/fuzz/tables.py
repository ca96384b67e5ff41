# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The table of docs/faults/fuzzing.md, from results/fuzz.json."""

from collections.abc import Mapping
from typing import Any

from benchmarks.pages import rewrite, ROOT, table

RESULTS = ROOT / 'results' / 'fuzz.json'
PAGE = ROOT / 'docs/faults/fuzzing.md'


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    rows = []
    for name, run in found['targets'].items():
        growth = run['rss_bytes_per_case']
        rows.append([
            name, f'{run["cases"]:,}', f'{run["taken"] / run["cases"]:.0%}',
            f'{run["seconds"]:.0f}', str(len(run['findings'])),
            '-' if growth is None else f'{growth:.1f}',
            ', '.join(f'{value:.1f}' for value in run['load_average'])])
    drawn = table(['target', 'cases', 'of these taken', 'seconds', 'open findings',
                   'memory per case [bytes]', 'load average'], rows)
    versions = ', '.join(f'{name} {version}' for name, version in found['versions'].items())
    return {'run': f'{drawn}\n\nWith {versions}.'}


def draw() -> None:
    """Write the page anew."""
    rewrite(PAGE, RESULTS, tables)
