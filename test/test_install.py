# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What an installation gives to those who have no source tree, with and without ROS."""

import importlib.util
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ('config', 'demo', 'hralign_msgs', 'hralign_ros', 'launch', 'models', 'resource',
           'scripts', 'package.xml', 'setup.cfg', 'setup.py')
# What a sourced workspace and the wheels of ROS 2 leave in the environment.
ROS = re.compile(r'(AMENT|CMAKE_PREFIX|COLCON|PYTHON|ROS|RMW|_ROS|LD_LIBRARY|VIRTUAL_ENV|PIP_)')
README_LINES = re.search(
    r'```python\n(.*?)```', (ROOT / 'README.md').read_text('utf-8'), re.DOTALL).group(1)
PROGRAM = f"""
import time
import numpy as np
time_ns = time.time_ns()
wrist_rgb, third_rgb = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), np.uint8)
third_person_rgb = third_rgb
{README_LINES}
print('found', default_bundle())
"""


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """Copy what is installed, so that building leaves nothing in the source tree."""
    folder = tmp_path_factory.mktemp('source') / 'hralign_ros'
    folder.mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def run(*command, cwd, **variables):
    """Run a command without anything of ROS in its environment; return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not ROS.match(name)}
    done = subprocess.run(
        command, cwd=cwd, env=kept | variables, text=True, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(wheel, python):
    """Install a wheel and what it declares, at the versions of the lock, as tools/setup_env.py."""
    spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools/setup_env.py')
    setup_env = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup_env)
    done = subprocess.run(
        [setup_env.VENV.folder / 'bin/uv', 'pip', 'install', '--python', python,
         '-c', ROOT / 'requirements.lock', wheel],
        env=setup_env.VENV.variables(), text=True, capture_output=True, timeout=280)
    if setup_env.NETWORK_TROUBLE.search(done.stderr) and not os.environ.get('CI'):
        pytest.skip(f'no package index can be reached: {done.stderr.strip().splitlines()[0]}')
    assert done.returncode == 0, done.stderr


def test_a_wheel_without_ros(source, tmp_path):
    """Guards `pip install .`: no dependencies came with it, and no default bundle was found."""
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
         '--wheel-dir', tmp_path, source], check=True, timeout=280)
    venv = tmp_path / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', venv, cwd=tmp_path)
    install(next(tmp_path.glob('*.whl')), venv / 'bin/python')
    printed = run(venv / 'bin/python', '-c', PROGRAM, cwd=tmp_path)
    assert '(2, 7, 7, 16)' in printed
    assert f'found {venv}/share/hralign_ros/models/default' in printed
    assert 'usage: hralign' in run(venv / 'bin/hralign', '--help', cwd=tmp_path)
    absent = "import importlib.util as u; print(u.find_spec('rclpy'), u.find_spec('torch'))"
    assert run(venv / 'bin/python', '-c', absent, cwd=tmp_path) == 'None None\n'


def test_a_workspace_without_links(source, tmp_path):
    """Guards a plain `colcon build`: hralign is on PATH, and its files are the installed ones."""
    prefix = tmp_path / 'install/hralign_ros'
    subprocess.run(
        [sys.executable, '-m', 'colcon', '--log-base', tmp_path / 'log', 'build', '--base-paths',
         source, '--build-base', tmp_path / 'build', '--install-base', tmp_path / 'install'],
        check=True, cwd=tmp_path, capture_output=True, timeout=280)
    assert (prefix / 'share/hralign_ros/config/franka.yaml').is_file()
    entered = f'. {prefix}/share/hralign_ros/package.bash && '
    assert 'usage: hralign' in run('bash', '-c', f'{entered} hralign --help', cwd=tmp_path)
    packages = next(prefix.glob('lib/python3.*/site-packages'))
    printed = run(sys.executable, '-c', PROGRAM, cwd=tmp_path, PYTHONPATH=str(packages))
    assert f'found {prefix}/share/hralign_ros/models/default' in printed
