# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the table of docs/fuzzing.md anew from results/fuzz.json.

    python benchmarks/fuzz_tables.py

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Mapping
from pathlib import Path
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pages import filled, rewrite, ROOT, table  # noqa: E402, F401

RESULTS = ROOT / 'results' / 'fuzz.json'
PAGE = ROOT / 'docs' / 'fuzzing.md'


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


if __name__ == '__main__':
    rewrite(PAGE, RESULTS, tables)
