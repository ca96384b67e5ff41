# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

ament_pep257 = pytest.importorskip('ament_pep257.main', reason='ament_pep257 is not installed')

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('benchmarks', 'hralign_ros', 'launch', 'lerobot_policy_hralign', 'setup.py', 'test',
           'tools')


@pytest.mark.pep257
@pytest.mark.linter
def test_pep257() -> None:
    paths = [str(ROOT / name) for name in SOURCES if (ROOT / name).exists()]
    code = ament_pep257.main(argv=paths)
    assert code == 0, 'Found docstring style errors'
