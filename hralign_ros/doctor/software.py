# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is installed and set: Python, ROS, onnxruntime."""

from collections.abc import Mapping, Sequence
import ctypes
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
import re
import subprocess
import sys

from hralign_ros.doctor.findings import error, Finding, ok, skipped, warn
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import BundleError, first_line, HralignError
from hralign_ros.runtime.providers import (
    CUDA_PROVIDER,
    Hardware,
    import_onnxruntime,
    INSTALL_LINE,
    installed_distributions,
)
from hralign_ros.runtime.resources import default_bundle

OLDEST_PYTHON = (3, 10)
# What the tests run with, the one that is meant by default first.
TESTED_DISTRIBUTIONS = ('jazzy', 'kilted')
_GPU_REMEDY = ("See packages, driver and cuda above; pip install 'onnxruntime-gpu[cuda,cudnn]' in "
               'place of onnxruntime, or set provider to cpu and require_gpu to false')


@dataclass(frozen=True)
class Choice:
    """What decides where and what the encoder computes; the names are those of its parameters."""

    bundle: str = ''
    provider: str = 'auto'
    require_gpu: bool = False
    cuda_graph: bool = False
    threads: int = 2
    precision: str = 'fp32'
    require_signature: bool = False
    trusted_keys: Sequence[str] = ()

    @property
    def needs_gpu(self) -> bool:
        """Whether a CPU is not good enough."""
        return self.require_gpu or self.provider == 'cuda'


# Python and ROS.

def python_finding(version: Sequence[int]) -> Finding:
    """Check the Python that runs this."""
    text = '.'.join(map(str, version[:3]))
    if tuple(version[:2]) < OLDEST_PYTHON:
        return error('python', f'{text}; needed is {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer',
                     'Use the Python of the ROS 2 distribution')
    return ok('python', f'{text}, {sys.executable}')


def rclpy_finding(problem: Exception | None, environment: Mapping[str, str]) -> Finding:
    """
    Check whether ROS can be used.

    :param problem: what importing or starting it raised.
    """
    if problem is None:
        return ok('rclpy', 'imported and started')
    distribution = environment.get('ROS_DISTRO', '')
    if not isinstance(problem, ImportError):
        remedy = 'See domain and discovery; set HOME, or ROS_LOG_DIR to a folder for logs'
    elif distribution:
        remedy = (f'ROS_DISTRO is {distribution}, but {sys.executable} cannot use it: call '
                  "hralign with the distribution's Python, in a virtual environment made with "
                  '--system-site-packages')
    else:
        remedy = ('Source a ROS 2: . /opt/ros/jazzy/setup.bash, then . install/setup.bash of the '
                  'workspace; where ROS comes from wheels: . tools/env.sh')
    return error('rclpy', first_line(problem), remedy)


def distribution_finding(environment: Mapping[str, str]) -> Finding:
    """Check the ROS distribution."""
    name = environment.get('ROS_DISTRO', '')
    if not name:
        return ok('distribution', 'ROS_DISTRO is not set, as with ROS 2 from wheels')
    if name not in TESTED_DISTRIBUTIONS:
        return warn('distribution', f'{name}; tested are {", ".join(TESTED_DISTRIBUTIONS)}',
                    f'Expect differences, or use ROS 2 {TESTED_DISTRIBUTIONS[0]}')
    return ok('distribution', name)


def rmw_finding(identifier: str, environment: Mapping[str, str]) -> Finding:
    """Tell the middleware in use, and whether it is the one asked for."""
    asked = environment.get('RMW_IMPLEMENTATION', '')
    if asked and asked != identifier:
        return warn('middleware', f'{identifier}, but RMW_IMPLEMENTATION asks for {asked}',
                    f'Install ros-{environment.get("ROS_DISTRO") or "<distribution>"}-'
                    f'{asked.replace("_", "-")}, or unset RMW_IMPLEMENTATION')
    return ok('middleware', f'{identifier}; the camera drivers need the same', rmw=identifier)


def domain_finding(environment: Mapping[str, str]) -> Finding:
    """Check ROS_DOMAIN_ID; beyond 101 its ports are those that Linux gives to anybody."""
    text = environment.get('ROS_DOMAIN_ID', '')
    if not text:
        return ok('domain', '0 (ROS_DOMAIN_ID is not set)', domain=0)
    if not text.isdecimal() or int(text) > 232:
        return error('domain', f"ROS_DOMAIN_ID is '{text}'; allowed are 0 to 232",
                     'Set it to the number that the camera drivers have')
    if int(text) > 101:
        return warn('domain', f'{text}; above 101 the ports may be taken by other programs',
                    'Set ROS_DOMAIN_ID to 0 to 101, for all nodes alike', domain=int(text))
    return ok('domain', f'{text}; the camera drivers need the same', domain=int(text))


_RANGES = {
    '': 'the whole subnet (the default)', 'SUBNET': 'the whole subnet',
    'SYSTEM_DEFAULT': "as the middleware's own settings say",
    'LOCALHOST': 'this computer only: cameras on other computers are not seen',
}


def discovery_finding(environment: Mapping[str, str]) -> Finding:
    """Check how far nodes look for each other."""
    text = environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '').upper()
    peers = environment.get('ROS_STATIC_PEERS', '')
    if environment.get('ROS_LOCALHOST_ONLY') == '1':
        return warn('discovery', 'ROS_LOCALHOST_ONLY is 1: only this computer is seen, and '
                    'ROS_AUTOMATIC_DISCOVERY_RANGE is ignored',
                    'It is deprecated: unset it and set ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST')
    if text == 'OFF':
        return error('discovery', 'ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: no node finds another, '
                     'and ROS_STATIC_PEERS is ignored', 'Unset it; or set it to LOCALHOST '
                     'and name the other computers in ROS_STATIC_PEERS')
    if text not in _RANGES:
        return warn('discovery', f"ROS_AUTOMATIC_DISCOVERY_RANGE is '{text}'; known are SUBNET, "
                    'LOCALHOST, OFF, SYSTEM_DEFAULT', 'Set it to one of these, or unset it')
    return ok('discovery', _RANGES[text] + (f'; peers {peers}' if peers else ''))


# onnxruntime.

def packages_finding(installed: Sequence[str], *, gpu: bool) -> Finding:
    """
    Check which onnxruntime distributions are installed; two overwrite each other's files.

    :param gpu: whether there is an NVIDIA driver, so that onnxruntime-gpu is the one to keep.
    """
    if not installed:
        return error('packages', 'neither onnxruntime nor onnxruntime-gpu is installed',
                     f'Install one: {INSTALL_LINE}')
    if len(installed) == 1:
        return ok('packages', installed[0])
    keep = 'onnxruntime-gpu[cuda,cudnn]' if gpu else 'onnxruntime'
    # Removing one of them takes files of the other with it.
    return warn('packages', f'both {" and ".join(installed)} are installed and overwrite each '
                'other: which one runs is chance',
                f"pip uninstall onnxruntime onnxruntime-gpu && pip install '{keep}' "
                f'({"there is" if gpu else "there is no"} NVIDIA driver)')


def driver_version() -> str:
    """Find the version of the NVIDIA driver; empty: there is none."""
    try:
        text = Path('/proc/driver/nvidia/version').read_text('utf-8', errors='replace')
        return parse_driver(text)
    except OSError:
        pass
    try:
        done = subprocess.run(
            ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'],
            capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip().partition('\n')[0]
    except (OSError, subprocess.SubprocessError):
        return ''


def parse_driver(text: str) -> str:
    """Take the version out of /proc/driver/nvidia/version."""
    found = re.search(r'Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s', text)
    return found[1] if found else 'of unknown version'


def driver_finding(version: str, offered: Sequence[str], choice: Choice) -> Finding:
    """Check driver and onnxruntime together: a GPU that nobody asks is a GPU lost."""
    if not version:
        if choice.needs_gpu:
            return error('driver', 'a GPU is asked for, but there is no NVIDIA driver',
                         'Install the driver (in a container: start it with --gpus all), or set '
                         'provider to cpu and require_gpu to false')
        return ok('driver', 'no NVIDIA driver: graphs run on the CPU')
    if CUDA_PROVIDER not in offered and choice.provider != 'cpu':
        return warn('driver', f'NVIDIA {version}, but this onnxruntime was built without CUDA',
                    'pip uninstall onnxruntime onnxruntime-gpu && pip install '
                    "'onnxruntime-gpu[cuda,cudnn]'")
    return ok('driver', f'NVIDIA {version}')


def cuda_finding(
    libraries: Mapping[str, str], wheels: Sequence[str], built_for: str, offered: Sequence[str],
    *, wanted: bool,
) -> Finding:
    """
    Tell which CUDA libraries this process has really loaded.

    :param libraries: name -> version, of what is loaded once a session exists.
    :param wheels: distributions that hold such libraries, with versions.
    """
    if CUDA_PROVIDER not in offered:
        return skipped('cuda', 'this onnxruntime was built without CUDA')
    if not wanted:
        return skipped('cuda', 'provider is cpu')
    loaded = ', '.join(f'{name} {version}' for name, version in libraries.items()) or 'none'
    found = (f'loaded: {loaded}; onnxruntime is built for CUDA {built_for or "?"}; wheels: '
             f'{", ".join(wheels) or "none"}')
    missing = [name for name in ('CUDA runtime', 'cuDNN') if name not in libraries]
    if missing:
        return warn('cuda', f'{" and ".join(missing)} not loaded; {found}',
                    "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the libraries that fit")
    return ok('cuda', found)


_LIBRARIES = {'CUDA runtime': 'libcudart', 'cuDNN': 'libcudnn', 'cuBLAS': 'libcublas'}


def loaded_files(maps: str) -> dict[str, str]:
    """Find the CUDA libraries among the files that a process has mapped: name -> path."""
    found = {}
    for name, library in _LIBRARIES.items():
        match = re.search(rf'\s(/\S*/{library}\.so\S*)', maps)
        if match:
            found[name] = match[1]
    return found


def library_versions(files: Mapping[str, str]) -> dict[str, str]:
    """Ask libraries that are loaded already for their versions; else their file name says it."""
    versions = {}
    for name, path in files.items():
        versions[name] = Path(path).name
        try:
            library = ctypes.CDLL(path)
            if name == 'cuDNN':
                library.cudnnGetVersion.restype = ctypes.c_size_t
                versions[name] = dotted(int(library.cudnnGetVersion()), 10_000, 100)
            elif name == 'CUDA runtime':
                number = ctypes.c_int()
                library.cudaRuntimeGetVersion(ctypes.byref(number))
                versions[name] = dotted(number.value, 1000, 10)
        except (OSError, AttributeError):
            continue
    return versions


def dotted(number: int, major: int, minor: int) -> str:
    """Write a version that is one number, such as 13000 for 13.0, with dots."""
    return f'{number // major}.{number % major // minor}' + (
        f'.{number % minor}' if major == 10_000 else '')


def cuda_wheels() -> list[str]:
    """Name the wheels that hold CUDA libraries, with versions."""
    found = {}
    for distribution in metadata.distributions():
        name = distribution.metadata['Name'] or ''
        if re.fullmatch(r'nvidia-(cudnn|cuda-runtime)(-cu\d+)?', name):
            found[name] = distribution.version
    return [f'{name} {version}' for name, version in sorted(found.items())]


def provider_finding(hardware: Hardware, offered: Sequence[str], choice: Choice) -> Finding:
    """Compare the provider that a session really uses with the one asked for."""
    found = f'asked {hardware.requested}, got {hardware.provider}'
    values = {'requested': hardware.requested, 'provider': hardware.provider}
    lost = CUDA_PROVIDER in offered and choice.provider != 'cpu'
    if hardware.provider == CUDA_PROVIDER or not (lost or choice.needs_gpu):
        return ok('provider', found, **values)
    why = 'CUDA is offered and could not be loaded' if lost else 'a GPU is required'
    return (error if choice.needs_gpu else warn)('provider', f'{found}: {why}', _GPU_REMEDY,
                                                 **values)


def onnxruntime_findings(choice: Choice) -> list[Finding]:
    """Load the bundle as the encoder does, run it, and tell where it ran."""
    driver = driver_version()
    findings = [packages_finding(installed_distributions(), gpu=bool(driver))]
    try:
        runtime = import_onnxruntime()
        offered = runtime.get_available_providers()
    except (HralignError, AttributeError) as problem:
        return [*findings, error('version', first_line(problem), f'Install one: {INSTALL_LINE}')]
    findings += [ok('version', f'{runtime.__version__}, offers {", ".join(offered)}'),
                 driver_finding(driver, offered, choice)]
    try:
        encoder = Encoder.load(
            choice.bundle or default_bundle(), provider=choice.provider,
            # Not require_gpu: the session that comes instead shows what keeps it from the GPU.
            cuda_graph=choice.cuda_graph, threads=choice.threads, precision=choice.precision)
        seconds = encoder.warm_up()
    except BundleError as problem:
        return [*findings, skipped('provider', f'the bundle cannot be run: {problem}')]
    except HralignError as problem:
        return [*findings, error('provider', str(problem), _GPU_REMEDY)]
    maps = Path('/proc/self/maps')
    files = loaded_files(maps.read_text('utf-8', errors='replace') if maps.exists() else '')
    findings.append(cuda_finding(
        library_versions(files), cuda_wheels(), str(getattr(runtime, 'cuda_version', '')),
        offered, wanted=choice.provider != 'cpu'))
    findings.append(provider_finding(encoder.hardware, offered, choice))
    findings.append(ok(
        'one tick', f'{seconds * 1e3:.1f} ms for one 640x480 image per view, '
        f'{choice.threads} threads', seconds=seconds))
    return findings
