# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What hralign doctor says of the computer: load, memory, middleware's room for images."""

import fcntl
from pathlib import Path

from hralign_ros.doctor import computer
from hralign_ros.doctor.findings import Finding, Level
import pytest
from support.harness import ROOT

PROFILE = (ROOT / 'config/fastdds_large_images.xml').read_text('utf-8')
VGA = 640 * 480 * 3


@pytest.mark.parametrize(('text', 'environment', 'largest', 'raw', 'level', 'words'), [
    (PROFILE, {}, VGA, True, Level.OK, '16.0 MiB'),
    (PROFILE, {}, 3840 * 2160 * 3, True, Level.WARN, 'segment_size'),
    (PROFILE.replace('16777216', '1000'), {}, VGA, True, Level.WARN, '1000 bytes'),
    (PROFILE.replace('is_default_profile="true"', ''), {}, VGA, True, Level.WARN, 'no shared'),
    (PROFILE.replace('SHM', 'UDPv4'), {}, VGA, True, Level.WARN, 'no shared'),
    (PROFILE.replace('SHM', 'UDPv4'), {}, 0, False, Level.OK, 'compressed'),
    ('<dds', {}, VGA, True, Level.ERROR, 'cannot be read'),
    (None, {}, VGA, True, Level.WARN, 'FASTRTPS_DEFAULT_PROFILES_FILE is not set'),
    (None, {}, 0, True, Level.WARN, 'export FASTRTPS_DEFAULT_PROFILES_FILE='),
    (None, {}, 320 * 240 * 3, True, Level.OK, '512 KiB'),
    (None, {}, 0, False, Level.OK, '512 KiB'),
    (None, {'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}, VGA, True, Level.OK, 'LARGE_DATA'),
    (None, {'FASTDDS_DEFAULT_PROFILES_FILE': '/a.xml', 'ROS_DISTRO': 'jazzy'}, VGA, True,
     Level.WARN, 'reads FASTRTPS_DEFAULT_PROFILES_FILE'),
    (None, {'FASTDDS_DEFAULT_PROFILES_FILE': '/a.xml', 'ROS_DISTRO': 'kilted',
            'FASTRTPS_DEFAULT_PROFILES_FILE': '/a.xml'}, VGA, True, Level.WARN,
     'unset FASTRTPS_DEFAULT_PROFILES_FILE'),
])
def test_the_profile_of_fast_dds(
    text: str | None, environment: dict[str, str], largest: int, raw: bool, level: Level,
    words: str, tmp_path: Path,
) -> None:
    """
    A profile counts only if a default participant has the room that two images need.

    Which variable names it hangs on the distribution; the tests failed where Kilted was installed.
    """
    environment = {'ROS_DISTRO': 'jazzy', **environment}
    if text is not None:
        (tmp_path / 'profile.xml').write_text(text)
        environment['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(tmp_path / 'profile.xml')
    finding = computer.profile_finding(environment, largest=largest, raw=raw, folder=tmp_path)
    sentence = f'{finding.found} -> {finding.remedy}'
    assert (finding.level, words in sentence) == (level, True), sentence


def test_profiles_of_other_distributions(tmp_path: Path) -> None:
    """Fast DDS 3 reads another variable; a missing file, or one in this folder, is seen too."""
    environment = {'ROS_DISTRO': 'kilted', 'FASTDDS_DEFAULT_PROFILES_FILE': str(tmp_path / 'no')}
    gone = computer.profile_finding(environment, largest=VGA, raw=True, folder=tmp_path)
    assert gone.level is Level.ERROR and 'FASTDDS_DEFAULT_PROFILES_FILE' in gone.remedy
    (tmp_path / 'DEFAULT_FASTRTPS_PROFILES.xml').write_text(PROFILE)
    assert computer.profile_finding({}, largest=VGA, raw=True, folder=tmp_path).level is Level.OK


def test_what_dead_processes_left(tmp_path: Path) -> None:
    """Only segments that nobody holds are counted, and none is touched."""
    for name in ('fastrtps_dead', 'fastrtps_dead_el', 'fastrtps_alive_el', 'other_el'):
        (tmp_path / name).touch()
    with (tmp_path / 'fastrtps_alive_el').open('r+') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert computer.dead_segments(tmp_path) == ['fastrtps_dead']
    assert len(list(tmp_path.iterdir())) == 4
    finding = computer.segments_finding(['fastrtps_dead'])
    assert finding.level is Level.WARN and 'fastdds shm clean' in finding.remedy
    assert computer.segments_finding([]).level is Level.OK


@pytest.mark.parametrize(('finding', 'level', 'words'), [
    (computer.load_finding(1.0, 2), Level.OK, '1.0'),
    (computer.load_finding(3.0, 2), Level.WARN, 'late'),
    (computer.threads_finding(1, 4), Level.OK, '1'),
    (computer.threads_finding(4, 4), Level.OK, 'controller'),
    (computer.threads_finding(5, 4), Level.WARN, 'at most 4'),
    (computer.governor_finding([]), Level.SKIPPED, 'cannot be read'),
    (computer.governor_finding(['performance']), Level.OK, 'performance'),
    (computer.governor_finding(['performance', 'powersave']), Level.WARN, 'cpupower'),
    (computer.memory_finding(500_000_000), Level.WARN,
     '0.5 GB'),
    (computer.memory_finding(None), Level.SKIPPED, 'say'),
    (computer.shared_memory_finding(10 << 20, 64 << 20), Level.WARN, '--ipc=host'),
    (computer.shared_memory_finding(1 << 30, 1 << 31), Level.OK, '1024 MiB free'),
    (computer.socket_buffer_finding(212992), Level.WARN, 'sysctl'),
    (computer.socket_buffer_finding(1 << 30), Level.OK, '1073741824'),
    (computer.socket_buffer_finding(None), Level.SKIPPED, 'read'),
])
def test_computer(finding: Finding, level: Level, words: str) -> None:
    """Each state of the computer has its level and its words."""
    assert finding.level is level
    assert words in f'{finding.found} -> {finding.remedy}'


def test_transport_of_other_middleware() -> None:
    """What holds for Fast DDS is not asked of others."""
    for rmw, names in (('rmw_cyclonedds_cpp', ['socket buffer']), ('rmw_zenoh_cpp', ['profile'])):
        findings = computer.transport_findings(rmw, {}, largest=0, raw=True)
        assert [f.name for f in findings] == names
