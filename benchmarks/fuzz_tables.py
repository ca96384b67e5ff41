# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Write the table of docs/fuzzing.md anew from results/fuzz.json.

    python benchmarks/fuzz_tables.py

What stands between the marks `<!-- NAME -->` and `<!-- end -->` is replaced, the rest is prose.
"""

from collections.abc import Mapping
import json
from pathlib import Path
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hralign_tables import filled, ROOT  # noqa: E402

RESULTS = ROOT / 'results' / 'fuzz.json'
PAGE = ROOT / 'docs' / 'fuzzing.md'


def tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Draw all tables of the page, by the name of their mark."""
    titles = ('target', 'cases', 'of these taken', 'seconds', 'open findings',
              'memory per case [bytes]', 'load average')
    lines = [f'| {" | ".join(titles)} |', '|---' * len(titles) + '|']
    for name, run in found['targets'].items():
        growth = run['rss_bytes_per_case']
        lines.append(
            f'| {name} | {run["cases"]:,} | {run["taken"] / run["cases"]:.0%} '
            f'| {run["seconds"]:.0f} | {len(run["findings"])} '
            f'| {"-" if growth is None else f"{growth:.1f}"} '
            f'| {", ".join(f"{value:.1f}" for value in run["load_average"])} |')
    versions = ', '.join(f'{name} {version}' for name, version in found['versions'].items())
    return {'run': '\n'.join([*lines, '', f'With {versions}.'])}


def main() -> None:
    """Write the page."""
    found = json.loads(RESULTS.read_text(encoding='utf-8'))
    PAGE.write_text(filled(PAGE.read_text(encoding='utf-8'), tables(found)), encoding='utf-8')
    print(PAGE)


if __name__ == '__main__':
    main()
