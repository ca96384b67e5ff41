# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Imports point one way; the robot needs neither torch nor, below the nodes, ROS."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'hralign_ros'
FILES = sorted(PACKAGE.rglob('*.py'))


def imported(path: Path) -> set[str]:
    """Name every module that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text('utf-8'))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            names.add(node.module or '')
    return names


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """The runtime knows nothing above it; only the nodes know ROS."""
    layer = path.relative_to(PACKAGE).parts[0]
    names = imported(path)
    tops = {name.partition('.')[0] for name in names}
    ours = {name.split('.')[1] for name in names if name.startswith('hralign_ros.')}
    if layer != 'nodes':
        assert not tops & {'rclpy', 'hralign_msgs', 'sensor_msgs', 'std_msgs'}
    if layer == 'runtime':
        assert not tops & {'torch', 'torchvision', 'transformers', 'timm', 'onnx'}
        assert ours <= {'runtime'}
    if layer == 'nodes':
        assert not tops & {'torch', 'torchvision', 'transformers', 'timm', 'onnx'}
        assert ours <= {'runtime', 'nodes'}
    if layer == 'models':
        assert ours <= {'models', 'runtime'}
    if layer == 'export':
        assert ours <= {'export', 'models', 'runtime'}


def test_a_step_loads_nothing_heavy() -> None:
    """Loading the shipped bundle and stepping once imports neither torch nor ROS."""
    program = (
        'import sys, numpy as np\n'
        'from hralign_ros.runtime import Encoder, default_bundle\n'
        'episode = Encoder.load(default_bundle()).start_episode("open the drawer")\n'
        'grey = np.full((48, 64, 3), 99, np.uint8)\n'
        'tick = episode.step({"wrist": grey, "third_person": grey}, stamp=1)\n'
        'print(tick.embedding.shape)\n'
        'heavy = {"torch", "transformers", "rclpy", "onnx", "matplotlib"} & set(sys.modules)\n'
        'sys.exit(f"imported: {heavy}" if heavy else 0)\n')
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '(2, 1280)'
