# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Check the licence header of every source file.

ament_copyright has no wheel and, in Jazzy, does not know SPDX lines, so the check is our own.
"""
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('benchmarks', 'hralign_ros', 'launch', 'lerobot_policy_hralign', 'test', 'tools')
HEADER = re.compile(
    r'(#!.*\n)?'
    r'# Copyright 20\d\d hralign_ros maintainers\n'
    r'# SPDX-License-Identifier: Apache-2\.0\n')


@pytest.mark.copyright
@pytest.mark.linter
def test_copyright() -> None:
    sources = [ROOT / 'setup.py']
    for folder in FOLDERS:
        sources += [path for path in (ROOT / folder).rglob('*') if path.suffix in ('.py', '.sh')]
    bare = [str(path.relative_to(ROOT)) for path in sources
            if not HEADER.match(path.read_text(encoding='utf-8'))]
    assert not bare, 'No licence header: ' + ', '.join(sorted(bare))
