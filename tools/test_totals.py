# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""Print which tests were skipped and the totals of an xunit file; fail if no test ran."""
from __future__ import annotations

from pathlib import Path
import sys
import xml.etree.ElementTree as ElementTree


def outcome(case: ElementTree.Element) -> str:
    """Return how one test ended."""
    if case.find('failure') is not None or case.find('error') is not None:
        return 'failed'
    return 'skipped' if case.find('skipped') is not None else 'passed'


def reason(skipped: ElementTree.Element) -> str:
    """Return why a test was skipped; of a whole file pytest says it in the text."""
    message = skipped.get('message', '')
    if message == 'collection skipped' and skipped.text:
        message = skipped.text.rpartition('Skipped: ')[2].removesuffix("')")
    return message


def main() -> int:
    """Read the file named on the command line; return the exit code."""
    path = Path(sys.argv[1])
    if not path.exists():
        print(f'no test ran: {path} is missing')
        return 1
    cases = list(ElementTree.parse(path).getroot().iter('testcase'))
    for case in cases:
        skipped = case.find('skipped')
        if skipped is not None:
            print(f'skipped {case.get("name")}: {reason(skipped)}')
    outcomes = [outcome(case) for case in cases]
    counts = {name: outcomes.count(name) for name in ('passed', 'failed', 'skipped')}
    print(', '.join(f'{count} {name}' for name, count in counts.items()))
    return 0 if counts['passed'] and not counts['failed'] else 1


if __name__ == '__main__':
    sys.exit(main())
