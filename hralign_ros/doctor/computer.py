# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The computer around the nodes: load, clocks of its cores, memory, shared memory, transport."""

from collections.abc import Iterator, Mapping, Sequence
import fcntl
import os
from pathlib import Path
import shutil
from xml.etree import ElementTree

from hralign_ros.doctor.findings import error, Finding, ok, skipped, warn
from hralign_ros.runtime.fast_dds import profiles_variable, SINCE_KILTED, UNTIL_JAZZY
from hralign_ros.runtime.memory_limit import COMPUTER, free_memory

MIB = 1 << 20
# What Fast DDS has without a profile.
DEFAULT_SEGMENT = 512 * 1024
# A 640x480 rgb8 image: what is assumed where none has been heard.
ASSUMED_IMAGE = 640 * 480 * 3
# Fewer images than these in the segment, and best-effort frames are lost.
IMAGES_IN_SEGMENT = 2
LEAST_MEMORY = 1024 * MIB
LEAST_SHARED_MEMORY = 64 * MIB
LEAST_SOCKET_BUFFER = 10 * MIB
SHIPPED_PROFILE = '$(ros2 pkg prefix --share hralign_ros)/config/fastdds_large_images.xml'


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def load_finding(load: float, cores_: int) -> Finding:
    """Check the load average of the last minute."""
    found = f'{load:.1f} over the last minute, {cores_} cores'
    if load > cores_:
        return warn('load', found, 'Frames will be late: stop what is not needed, or move it to '
                    'another computer', load=load, cores=cores_)
    return ok('load', found, load=load, cores=cores_)


def threads_finding(threads: int, cores_: int) -> Finding:
    """Check the parameter `threads`."""
    found = f'threads is {threads}, {cores_} cores'
    if threads > cores_:
        return warn('threads', found, f'Set threads to at most {cores_}')
    if threads == cores_ > 1:
        return ok('threads', f'{found}: while a graph runs, none is left for the controller')
    return ok('threads', found)


def governors(root: Path = Path('/sys/devices/system/cpu')) -> list[str]:
    """Read how each core chooses its clock; empty where that cannot be read."""
    found = []
    for path in sorted(root.glob('cpu[0-9]*/cpufreq/scaling_governor')):
        try:
            found.append(path.read_text('utf-8').strip())
        except OSError:
            continue
    return found


def governor_finding(found: Sequence[str]) -> Finding:
    """Check them: powersave makes every tick slower."""
    if not found:
        return skipped('governor', 'cannot be read here, as in virtual machines')
    text = ', '.join(sorted(set(found)))
    if 'powersave' in found:
        return warn('governor', f'{text}: cores may stay slow between ticks',
                    'sudo cpupower frequency-set -g performance')
    return ok('governor', text)


def memory_finding(available: int | None) -> Finding:
    """Check what is available [bytes]; the encoder takes some 300 MB."""
    if available is None:
        return skipped('memory', '/proc/meminfo does not say')
    found = f'{available / 1e9:.1f} GB available'
    if available < LEAST_MEMORY:
        return warn('memory', found,
                    'Stop what is not needed: Linux ends processes where memory runs out')
    return ok('memory', found)


# Transport.

def shared_memory_segment(text: str) -> int:
    """
    Find the shared memory segment that a Fast DDS profile gives every participant [bytes].

    :returns: 0 where it gives none, or none that a default participant uses.
    :raises ElementTree.ParseError: not XML.
    """
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = str(element.tag).rpartition('}')[2]
    sizes = {}
    for transport in root.iter('transport_descriptor'):
        if (transport.findtext('type') or '').strip() == 'SHM':
            name = (transport.findtext('transport_id') or '').strip()
            size = (transport.findtext('segment_size') or '').strip()
            sizes[name] = int(size) if size.isdecimal() else DEFAULT_SEGMENT
    used = [(name.text or '').strip() for participant in root.iter('participant')
            if participant.get('is_default_profile') == 'true'
            for transports in participant.iter('userTransports')
            for name in transports.iter('transport_id')]
    return max((sizes.get(name, 0) for name in used), default=0)


def profile_finding(
    environment: Mapping[str, str], *, largest: int, raw: bool, folder: Path = Path(),
) -> Finding:
    """
    Check whether Fast DDS has space for images.

    :param largest: bytes of the largest raw image heard; 0: none was.
    :param raw: whether any camera sends raw images.
    :param folder: current folder, where Fast DDS looks for a file of its own name.
    """
    needed = IMAGES_IN_SEGMENT * (largest or ASSUMED_IMAGE)
    variable = profiles_variable(environment)
    set_line = f'export {variable}={SHIPPED_PROFILE}, for the camera drivers first of all'
    other = SINCE_KILTED if variable == UNTIL_JAZZY else UNTIL_JAZZY
    transports = environment.get('FASTDDS_BUILTIN_TRANSPORTS', '')
    path = environment.get(variable, '')
    local = folder / 'DEFAULT_FASTRTPS_PROFILES.xml'
    if not path and local.is_file():
        path = str(local)
    if path and environment.get(other):
        return warn('profile', f'{variable} and {other} are both set: Fast DDS may load profiles '
                    'twice, and print an error', f'unset {other}')
    if not path:
        if transports.startswith('LARGE_DATA'):
            return ok('profile', f'FASTDDS_BUILTIN_TRANSPORTS={transports}')
        if not raw or needed <= DEFAULT_SEGMENT:
            return ok('profile', 'none, and none is needed: the images fit into 512 KiB')
        if environment.get(other):
            return warn('profile', f'{other} is set, but the Fast DDS of this distribution reads '
                        f'{variable}', set_line)
        return warn('profile', f'{variable} is not set: raw images of {needed // 2} bytes do '
                    'not fit into the 512 KiB that Fast DDS has by default, and get lost',
                    set_line)
    try:
        segment = shared_memory_segment(Path(path).read_text('utf-8'))
    except (OSError, ValueError, ElementTree.ParseError) as problem:
        return error('profile', f'{variable} is {path}, which cannot be read ({problem}); Fast '
                     'DDS continues without it', set_line)
    if segment >= needed:
        return ok('profile', f'{path}: shared memory of {segment / MIB:.1f} MiB; the camera '
                  'drivers need it too, which cannot be seen from here', segment=segment)
    if not raw:
        return ok('profile', f'{path}; all cameras send compressed images')
    return warn(
        'profile', f'{path} gives its default participants '
        + (f'a shared memory segment of {segment} bytes' if segment
           else 'no shared memory segment of its own')
        + f'; two raw images have {needed}', set_line + f'; or set segment_size to {4 * needed}')


def dead_segments(folder: Path = Path('/dev/shm')) -> list[str]:
    """
    Name the shared memory that Fast DDS processes left behind when they were killed.

    A living process holds a lock on its segment's `_el` file.
    """
    found = []
    for lock in sorted(folder.glob('fastrtps_*_el')):
        try:
            with lock.open('r+') as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append(lock.name.removesuffix('_el'))
        except OSError:  # held by the living, or somebody else's
            continue
    return found


def segments_finding(dead: Sequence[str]) -> Finding:
    """Check them: a port of a dead process can swallow the messages of a new one."""
    if not dead:
        return ok('leftovers', 'no shared memory of dead processes')
    return warn('leftovers', f'{len(dead)} segments of dead processes, such as {dead[0]}; they '
                'can swallow messages',
                'fastdds shm clean, or tools/clean_shared_memory.py of this repository')


def shared_memory_finding(free: int, total: int) -> Finding:
    """Check the space in /dev/shm; each process with the shipped profile takes 16 MiB of it."""
    found = f'/dev/shm: {free / MIB:.0f} MiB free of {total / MIB:.0f} MiB'
    if free < LEAST_SHARED_MEMORY:
        return warn('shared memory', f'{found}; each node takes 16 MiB',
                    'In a container: start it with --ipc=host or --shm-size=1g; else see '
                    'ls -l /dev/shm')
    return ok('shared memory', found)


def socket_buffer_finding(limit: int | None) -> Finding:
    """Check net.core.rmem_max, which Cyclone DDS needs for large messages."""
    if limit is None:
        return skipped('socket buffer', 'net.core.rmem_max cannot be read')
    if limit < LEAST_SOCKET_BUFFER:
        return warn('socket buffer', f'net.core.rmem_max is {limit} bytes; raw images need '
                    f'{LEAST_SOCKET_BUFFER} or more',
                    'sudo sysctl -w net.core.rmem_max=2147483647')
    return ok('socket buffer', f'net.core.rmem_max is {limit} bytes')


def transport_findings(
    rmw: str, environment: Mapping[str, str], *, largest: int, raw: bool,
) -> Iterator[Finding]:
    """Check what the middleware needs to carry images."""
    if 'fastrtps' in rmw:
        yield profile_finding(environment, largest=largest, raw=raw)
        yield segments_finding(dead_segments())
        if Path('/dev/shm').is_dir():
            room = shutil.disk_usage('/dev/shm')
            yield shared_memory_finding(room.free, room.total)
    elif 'cyclonedds' in rmw:
        path = Path('/proc/sys/net/core/rmem_max')
        yield socket_buffer_finding(int(path.read_text()) if path.exists() else None)
    else:
        yield skipped('profile', f'nothing is known about {rmw or "the middleware"}')


def computer_findings(load: float, threads: int) -> Iterator[Finding]:
    """
    Check the computer.

    :param load: taken before any other check could raise it.
    """
    yield load_finding(load, cores())
    yield threads_finding(threads, cores())
    yield governor_finding(governors())
    yield memory_finding(dict(free_memory()).get(COMPUTER))
