# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Make .venv with uv, install what is asked for into it, build both packages with colcon.

Standard library only, Python 3.10 to 3.14. A second run does nothing; one that was cut off starts
over from what uv has downloaded. Where no ROS 2 is sourced, ROS 2 Jazzy or Kilted comes from
wheels; where one is (ROS_DISTRO is set), that one is used and the wheels are left out.
"""
from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Sequence
import fcntl
import hashlib
from importlib import metadata
import json
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv

ROOT = Path(__file__).resolve().parents[1]
UV = 'uv==0.13.9'
LOCK = ROOT / 'requirements.lock'
KILTED_LOCK = ROOT / 'requirements.kilted.lock'
DECLARED = (LOCK, KILTED_LOCK, ROOT / 'setup.py', ROOT / 'pyproject.toml')

# Distributions of which there are wheels, the one that is meant by default first. The wheels of
# two distributions have the same names, so an environment has those of one.
WHEELS = ('jazzy', 'kilted')

# Part -> the extras of setup.py and the groups of pyproject.toml that it is.
PARTS = {
    'robot': ['-r', 'setup.py', '--group', 'build'],
    'ros': ['--group', 'ros'],
    'ros-kilted': ['--group', 'ros-kilted'],
    'demo': ['--extra', 'demo', '--extra', 'record'],
    'test': ['--group', 'test', '--extra', 'signature'],
    'adapt': ['--extra', 'adapt'],
    'fuzz': ['--group', 'fuzz'],
    'docs': ['--group', 'docs'],
    'sim': ['--group', 'sim'],
}
OPTIONAL = ('demo', 'test', 'adapt', 'fuzz', 'docs')
# With a sourced ROS 2, whose Python modules are built for its OpenCV and its numpy (1 up to
# Kilted, 2 from Lyrical on): pins of the lock that do not go with numpy 1, and packages that stay
# the distribution's.
NUMPY_2 = ('numpy==', 'ml-dtypes==')
DISTRIBUTED = 'opencv-python-headless\nPyYAML\n'
# Setting of pip -> variable of uv, which reads no settings of pip.
PIP_TO_UV = {
    'index-url': 'UV_DEFAULT_INDEX', 'extra-index-url': 'UV_INDEX',
    'find-links': 'UV_FIND_LINKS', 'trusted-host': 'UV_INSECURE_HOST', 'cert': 'SSL_CERT_FILE',
    'proxy': 'ALL_PROXY', 'timeout': 'UV_HTTP_TIMEOUT', 'default-timeout': 'UV_HTTP_TIMEOUT',
}
NETWORK_TROUBLE = re.compile(
    # uv, then pip
    r'error sending request|Request failed after|operation timed out|from versions: none'
    r'|NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError'
    r'|Max retries exceeded|Network is unreachable|Temporary failure in name resolution')

START = time.monotonic()
SOURCED = bool(os.environ.get('ROS_DISTRO'))


class SetupError(Exception):
    """A missing prerequisite or a failed step, as one sentence for the user."""


class NetworkError(SetupError):
    """No package index could be reached; nothing was installed."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f'[{time.monotonic() - START:6.1f} s] {text}', flush=True)


# -- prerequisites --------------------------------------------------------------------------------

def check_python(*minors: int) -> None:
    """Raise unless this is Python 3 of one of these minor versions and can make environments."""
    if sys.version_info[:2] not in [(3, minor) for minor in minors]:
        *others, last = [f'3.{minor}' for minor in minors]
        raise SetupError(
            f'Python {", ".join(others)} or {last} is needed and this is '
            f'{platform.python_version()}: name another one, for example '
            f'make PYTHON=python{last}.')
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
        if os.environ['ROS_DISTRO'] < 'humble':
            raise SetupError(
                f'ROS 2 {os.environ["ROS_DISTRO"]} is sourced, whose rclpy is too old: source '
                'ROS 2 Jazzy, which is what is tested, or open a shell without any.')
        check_sourced_ros()
    elif (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise SetupError(
            'ROS 2 comes as wheels for x86-64 Linux only and this is '
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
    """Raise unless this Python sees the modules of the sourced ROS 2."""
    for module, remedy in (
            ('rclpy', 'use the Python it was built for, for example make PYTHON=/usr/bin/python3'),
            ('cv2', 'install OpenCV (Debian, Ubuntu: apt install python3-opencv)')):
        if subprocess.run([sys.executable, '-c', f'import {module}'],
                          capture_output=True).returncode:
            raise SetupError(
                f'ROS 2 {os.environ["ROS_DISTRO"]} is sourced but this Python cannot import '
                f'{module}: {remedy}.')


def distributed_numpy() -> str:
    """Return the major version of numpy that the modules of the sourced ROS 2 are built for."""
    try:
        return metadata.version('numpy').partition('.')[0]
    except metadata.PackageNotFoundError:
        raise SetupError(
            f'ROS 2 {os.environ["ROS_DISTRO"]} is sourced but this Python has no numpy: install '
            'it (Debian, Ubuntu: apt install python3-numpy).') from None


# -- running things -------------------------------------------------------------------------------

class Environment:
    """A virtual environment in the repository, filled by uv."""

    def __init__(self, name: str, *, sourced: bool = False) -> None:
        self.folder = ROOT / name
        self.python = self.folder / 'bin/python'
        self.sourced = sourced
        self._state = self.folder / '.installed'

    def key(self) -> str:
        """Return what a virtual environment may not outlive: place, Python and kind of ROS."""
        return digest(str(self.folder), platform.python_version(), str(self.sourced), UV)

    def wheels(self) -> str:
        """Tell the distribution whose wheels are in it; where there are none, the usual one."""
        return str(json.loads(read(self._state) or '{}').get('wheels', WHEELS[0]))

    def install(self, *parts: str, options: Sequence[str | Path], wheels: str = WHEELS[0]) -> None:
        """
        Install parts beside those that are there; make the virtual environment if need be.

        :param parts: names in PARTS.
        :param options: further ones of `uv pip install`.
        :param wheels: distribution of ROS 2 that the wheels among them are of.
        :raises SetupError: it failed; the next run starts over from what was downloaded.
        """
        before = json.loads(read(self._state) or '{}')
        if before.get('key') != self.key() or self.wheels() != wheels:
            self._make()
            before = {}
        names = [name for name in PARTS if name in {*parts, *before.get('parts', ())}]
        wanted = {'key': self.key(), 'declared': digest(*DECLARED), 'parts': names}
        if wheels != WHEELS[0]:
            wanted['wheels'] = wheels
        if before == wanted:
            return
        say(f'installing {", ".join(names)} into {self.folder.name}')
        # While it is away, the environment counts as broken.
        self._state.unlink(missing_ok=True)
        try:
            self.run('Installing the packages', [
                self.folder / 'bin/uv', 'pip', 'install', '--python', self.python, *options,
                *(['--no-index'] if 'PIP_NO_INDEX' in settings_of_pip(self.python) else []),
                *(option for name in names for option in PARTS[name])])
        except NetworkError:
            if before:
                self._state.write_text(json.dumps(before), encoding='utf-8')
            raise
        self._fix_include_paths()
        # Left by reading setup.py; colcon makes its own.
        shutil.rmtree(ROOT / 'hralign_ros.egg-info', ignore_errors=True)
        self._state.write_text(json.dumps(wanted), encoding='utf-8')

    def _make(self) -> None:
        """Make the virtual environment with nothing but uv in it."""
        say(f'making {self.folder.name} with Python {platform.python_version()}'
            + (f' on top of ROS 2 {os.environ["ROS_DISTRO"]}' if self.sourced else ''))
        venv.create(self.folder, clear=True, with_pip=True, symlinks=True,
                    system_site_packages=self.sourced)
        # Keeps linters and colcon, which walk through folders, out of it.
        for name in ('AMENT_IGNORE', 'COLCON_IGNORE'):
            (self.folder / name).touch()
        self.run('Installing uv', [
            self.python, '-m', 'pip', 'install', '--no-color', '--ignore-installed', UV])

    def _fix_include_paths(self) -> None:
        """Name this machine's include folders where the ROS 2 wheels name those of another."""
        version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
        numpy = self.folder / 'lib' / version / 'site-packages/numpy/_core/include'
        for path in self.folder.glob('share/*/cmake/*pyExport.cmake'):
            text = path.read_text(encoding='utf-8')
            fixed = re.sub(
                r'"/opt/python/[^"]*"', f'"{sysconfig.get_path("include")};{numpy}"', text)
            if fixed != text:
                # Never written in place: the file may be a hard link into uv's cache.
                fresh = path.with_suffix('.new')
                fresh.write_text(fixed, encoding='utf-8')
                fresh.replace(path)

    def variables(self) -> dict[str, str]:
        """Return the variables with which pip, uv and colcon run."""
        env = dict(
            os.environ, PIP_USER='0', PIP_NO_INPUT='1', PIP_DISABLE_PIP_VERSION_CHECK='1',
            NO_COLOR='1', UV_NO_PROGRESS='1', UV_PYTHON_DOWNLOADS='never', UV_SYSTEM_CERTS='1',
            # As pip does: the best version of all indexes.
            UV_INDEX_STRATEGY='unsafe-best-match',
            VIRTUAL_ENV=str(self.folder),
            PATH=f'{self.folder / "bin"}{os.pathsep}{os.environ.get("PATH", os.defpath)}')
        if not self.sourced:
            # What an earlier shell sourced, and the wheels' marks of a process already set up.
            for name in ('PYTHONPATH', 'PYTHONHOME', 'COLCON_PREFIX_PATH', 'LD_LIBRARY_PATH',
                         '_ROS_WHEELS_BOOTSTRAP_COMPLETE'):
                env.pop(name, None)
            env['AMENT_PREFIX_PATH'] = env['CMAKE_PREFIX_PATH'] = str(self.folder)
        for variable, value in settings_of_pip(self.python).items():
            env.setdefault(variable, value)
        return env

    def run(self, what: str, command: list[str | Path]) -> None:
        """Run a command in the repository root with its output in the log; raise if it fails."""
        log_file = self.folder / 'setup.log'
        with log_file.open('ab') as log:
            log.write(f'\n$ {" ".join(map(str, command))}\n'.encode())
            log.flush()
            start = log.tell()
            # The child inherits the lock: if this process is killed, the next run waits for it.
            code = subprocess.run(
                command, cwd=ROOT, env=self.variables(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, close_fds=False).returncode
        if code:
            raise failure(what, log_file.read_bytes()[start:].decode(errors='replace'),
                          log_file.relative_to(ROOT))


def settings_of_pip(python: Path) -> dict[str, str]:
    """Return pip's settings of package indexes and network as variables for uv."""
    listed = subprocess.run(
        [python, '-m', 'pip', 'config', 'list'], capture_output=True, text=True).stdout
    found = {}
    # Variables of the environment come last and win, as they do with pip.
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(':env:')):
        name, _, value = line.partition('=')
        section, _, key = name.rpartition('.')
        if key in PIP_TO_UV and section in ('global', 'install', ':env:'):
            separator = ',' if key == 'find-links' else ' '
            found[PIP_TO_UV[key]] = separator.join(ast.literal_eval(value).split())
        elif key == 'no-index' and ast.literal_eval(value).lower() in ('1', 'true', 'yes', 'on'):
            found['PIP_NO_INDEX'] = '1'
    return found


def failure(what: str, output: str, log: Path) -> SetupError:
    """Return one sentence on why a command failed."""
    where = f'all its output is at the end of {log}'
    if 'No space left on device' in output:
        return SetupError(f'{what} failed because the disk is full.')
    if NETWORK_TROUBLE.search(output):
        return NetworkError(
            f'{what} failed because no package index could be reached: check the network, the '
            f'proxy and the settings of pip, then run the same command again ({where}).')
    errors = re.findall(r'^\s*(?:ERROR|error|CMake Error)\b.*', output, re.MULTILINE)
    return SetupError(f'{what} failed ({where})' + (f': {errors[-1].strip()}' if errors else ''))


def digest(*parts: str | Path) -> str:
    """Return a hash over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()


def read(path: Path) -> str:
    """Return the text of a file, or nothing where there is none."""
    return path.read_text(encoding='utf-8') if path.exists() else ''


# -- the environment of the nodes -----------------------------------------------------------------

VENV = Environment('.venv', sourced=SOURCED)


def ros_wheels(wheels: str) -> tuple[str, list[str]]:
    """Return the part that the wheels of a distribution are, and the pins of the lock for it."""
    pins = read(LOCK).splitlines()
    if wheels == WHEELS[0]:
        return 'ros', pins
    others = [line for line in pins if not line.startswith('ros-')]
    return f'ros-{wheels}', [*others, *read(KILTED_LOCK).splitlines()]


def install(parts: Sequence[str], wheels: str) -> None:
    """
    Bring .venv to the state that is asked for.

    :param parts: names in PARTS, beside what the nodes need.
    :param wheels: distribution of ROS 2 whose wheels it has, where no ROS 2 is sourced.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pins, excludes = Path(scratch, 'pins.txt'), Path(scratch, 'excludes.txt')
        if SOURCED:
            kept = read(LOCK).splitlines()
            if distributed_numpy() == '1':
                kept = [line for line in kept if not line.startswith(NUMPY_2)] + ['numpy<2']
            pins.write_text('\n'.join(kept), encoding='utf-8')
            excludes.write_text(DISTRIBUTED, encoding='utf-8')
            VENV.install('robot', *parts, options=['-c', pins, '--excludes', excludes])
        else:
            ros, kept = ros_wheels(wheels)
            pins.write_text('\n'.join(kept), encoding='utf-8')
            VENV.install('robot', ros, *parts, options=['-c', pins], wheels=wheels)
    write_local_setup()


def write_local_setup() -> None:
    """Write the files by which colcon's setup files and tools/env.sh find the environment."""
    variables = {'PATH': VENV.folder / 'bin'}
    if not SOURCED:
        variables.update(AMENT_PREFIX_PATH=VENV.folder, CMAKE_PREFIX_PATH=VENV.folder)
    lines = [
        f'case ":${name}:" in *":{value}:"*) ;; *) export {name}="{value}${{{name}:+:${name}}}";; '
        'esac\n' for name, value in variables.items()]
    for name in ('local_setup.sh', 'local_setup.bash'):
        (VENV.folder / name).write_text(''.join(lines), encoding='utf-8')


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
    return digest(VENV.key(), VENV.wheels(), LOCK, KILTED_LOCK)


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
    VENV.run('Building the packages with colcon', [
        VENV.python, '-m', 'colcon', 'build', '--executor', 'sequential'])
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


def report(set_up: Callable[[], None]) -> int:
    """Set up while no other run does; return the exit code."""
    held = None
    try:
        held = lock()
        set_up()
    except SetupError as error:
        print(f'setup: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('setup: interrupted; the same command resumes from here', file=sys.stderr)
        return 130
    finally:
        if held is not None:
            os.close(held)
    return 0


def main() -> int:
    """Parse the command line and set up; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('parts', nargs='*', metavar='part',
                        help=f'of {", ".join(OPTIONAL)}, beside what the nodes need')
    parser.add_argument('--wheels', choices=WHEELS,
                        help='ROS 2 that comes from wheels where none is sourced; default: the '
                        f'one that .venv has, or {WHEELS[0]}')
    parser.add_argument('--rebuild', action='store_true',
                        help='run colcon build even if nothing changed')
    arguments = parser.parse_args()
    unknown = sorted({*arguments.parts} - {*OPTIONAL})
    if unknown:
        parser.error(f'no such part: {", ".join(unknown)}')

    def set_up() -> None:
        check_python(10, 11, 12, 13, 14)
        check_platform()
        check_compiler()
        install(arguments.parts, arguments.wheels or VENV.wheels())
        build_workspace(arguments.rebuild)
    return report(set_up)


if __name__ == '__main__':
    sys.exit(main())
