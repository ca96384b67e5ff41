# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

ament_flake8 = pytest.importorskip('ament_flake8.main', reason='ament_flake8 is not installed')

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('benchmarks', 'hralign_ros', 'launch', 'setup.py', 'test', 'tools')


@pytest.mark.flake8
@pytest.mark.linter
def test_flake8() -> None:
    paths = [str(ROOT / name) for name in SOURCES if (ROOT / name).exists()]
    code, errors = ament_flake8.main_with_errors(argv=paths)
    assert code == 0, f'{len(errors)} code style errors:\n' + '\n'.join(errors)
