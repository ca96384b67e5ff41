# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What hralign doctor says of cameras, one by one and between them: no ROS, no process."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hralign_ros.doctor import cameras as checks
from hralign_ros.doctor.cameras import Camera, Publisher, Received
from hralign_ros.doctor.findings import Finding, Level
from hralign_ros.doctor.synchronisation import matched_finding, pairing_finding
from hralign_ros.runtime.pairing import PairingRules
import pytest

SECOND = 1_000_000_000
MS = 1_000_000
RULES = PairingRules()


# Pure checks of one camera.

def heard(count: int = 20, **changes: Any) -> tuple[Received, ...]:
    """Make messages at 10 Hz, 10 ms old; a change may be a function of the number."""
    rows = []
    for i in range(count):
        fields: dict[str, Any] = {
            'arrival': 2_000_000_000 * SECOND + i * 100 * MS + 10 * MS, 'elapsed': i * 100 * MS,
            'stamp': 2_000_000_000 * SECOND + i * 100 * MS, 'frame_id': 'optical',
            'image': '640x480 rgb8', 'size': 921_600, 'digest': i,
            'explanation': 'decoded directly'}
        fields |= {k: v(i, fields) if callable(v) else v for k, v in changes.items()}
        rows.append(Received(**fields))
    return tuple(rows)


def camera(received: tuple[Received, ...] | None = None, **changes: Any) -> Camera:
    """Make a camera that does well."""
    received = heard() if received is None else received
    fields = {'view': 'wrist', 'topic': '/wrist/image_raw', 'kind': 'sensor_msgs/msg/Image',
              'transport': 'raw', 'reliability': 'best_effort', 'required': True,
              'publishers': (Publisher('/driver', 'sensor_msgs/msg/Image'),),
              'until': received[-1].elapsed if received else 0}
    return Camera(received=received, **{**fields, **changes})


def found(checked: Camera, **changes: Any) -> dict[str, Finding]:
    """Check a camera; give what is not OK, by name."""
    findings = checks.camera_findings(
        checked, changes.pop('others', []), RULES, **{'stamp_source': 'header', **changes})
    return {f.name: f for f in findings if f.level is not Level.OK}


LATE = 300 * MS
CASES: dict[str, tuple[Camera, str, Level, str]] = {
    'no publisher': (camera((), publishers=()), 'publishers', Level.ERROR, 'no image topic'),
    'not required': (camera((), publishers=(), required=False), 'publishers', Level.WARN, 'none'),
    'other transport': (
        camera((), publishers=(), others=('/wrist/image_raw/compressed',)), 'publishers',
        Level.ERROR, 'wrist.transport to compressed'),
    'compressed, raw is there': (
        camera((), topic='/a/compressed', transport='compressed', publishers=(), others=('/a',)),
        'publishers', Level.ERROR, 'wrist.transport to raw'),
    'compressed twice': (
        camera((), topic='/a/compressed/compressed', transport='compressed', publishers=(),
               others=('/a/compressed',)),
        'publishers', Level.ERROR, 'Set wrist.topic to /a: with transport compressed'),
    'type': (camera((), publishers=(Publisher('/d', 'sensor_msgs/msg/CompressedImage'),)), 'type',
             Level.ERROR, 'without /compressed'),
    'QoS of one of two': (
        camera(publishers=(Publisher('/a', 'sensor_msgs/msg/Image'),
                           Publisher('/b', 'sensor_msgs/msg/Image', 'best effort'))),
        'QoS', Level.WARN, '/b: best effort'),
    'published, not heard': (camera(()), 'messages', Level.ERROR, 'ros2 topic hz'),
    'two messages': (camera(heard(2)), 'messages', Level.ERROR, 'listen longer'),
    'died': (camera(until=5 * SECOND), 'messages', Level.WARN, 'max_age_s'),
    'every second lost, irregularly': (
        camera(tuple(m for i, m in enumerate(heard(60)) if i % 3 != 0)), 'messages', Level.WARN,
        '33%'),
    'encoding': (camera(heard(fault='unsupported_encoding', explanation='no')), 'image',
                 Level.ERROR, 'rgb8 or bgr8'),
    'step': (camera(heard(fault='bad_step', explanation='no')), 'image', Level.ERROR, 'driver'),
    'sizes': (camera(heard(image=lambda i, _: f'{i % 2}')), 'image', Level.WARN, 'one camera'),
    'stuck': (camera(heard(digest=1)), 'content', Level.WARN, 'stuck'),
    'shown twice': (camera(heard(digest=lambda i, _: i // 2)), 'content', Level.WARN, '53%'),
    'zero stamps': (camera(heard(stamp=0)), 'stamps', Level.ERROR, 'stamp_source'),
    'repeated stamp': (
        camera(heard(stamp=lambda i, f: f['stamp'] - (i == 3) * 100 * MS)), 'stamps', Level.WARN,
        '1 are repeated'),
    'backward stamp': (
        camera(heard(stamp=lambda i, f: f['stamp'] - (i == 3) * 150 * MS)), 'stamps', Level.WARN,
        '1 go back'),
    'behind': (camera(heard(arrival=lambda _, f: f['arrival'] + 2 * SECOND)), 'age', Level.ERROR,
               '2.01 s behind'),
    'simulated time': (camera(heard(stamp=lambda i, _: (i + 1) * 100 * MS)), 'age', Level.ERROR,
                       'use_sim_time'),
    'time since boot': (camera(heard(stamp=lambda i, _: (i + 1) * 100 * MS)), 'age', Level.ERROR,
                        'stamp_source to arrival'),
    'no clock': (camera(heard(arrival=0)), 'age', Level.ERROR, '/clock'),
    'ahead': (camera(heard(arrival=lambda _, f: f['arrival'] - SECOND)), 'age', Level.ERROR,
              '0.99 s ahead'),
    'a little ahead': (camera(heard(arrival=lambda _, f: f['arrival'] - 40 * MS)), 'age',
                       Level.WARN, '30 ms ahead'),
    'slow': (camera(heard(arrival=lambda _, f: f['arrival'] + LATE)), 'age', Level.WARN, '310 ms'),
    'no frame_id': (camera(heard(frame_id='')), 'frame_id', Level.WARN, 'frame_id'),
}


@pytest.mark.parametrize('case', CASES)
def test_a_bad_camera(case: str) -> None:
    """Each fault has a level, and a sentence with its fix."""
    bad, name, level, words = CASES[case]
    finding = found(bad)[name]
    assert finding.level is level and finding.remedy
    assert words in f'{finding.found} -> {finding.remedy}'


def test_a_good_camera() -> None:
    """Nothing is found; where stamps are not used, nothing is said of them."""
    assert found(camera()) == {}
    skipped_ = found(camera(heard(stamp=0)), stamp_source='arrival')
    assert {f.level for f in skipped_.values()} == {Level.SKIPPED}
    same = found(camera(), others=[camera(view='third_person')])
    assert 'third_person' in same['frame_id'].found


# Pure checks between cameras.

def between(*cameras_: Camera, source: str = 'header', rules: PairingRules = RULES,
            ) -> dict[str, Finding]:
    """Check how cameras fit together."""
    return {f.name: f for f in pairing_finding(cameras_, rules, stamp_source=source)}


def other(**changes: Any) -> Camera:
    """Make a second camera."""
    return camera(heard(**changes), view='third_person')


def shifted(by: int) -> dict[str, Callable[[int, dict[str, Any]], int]]:
    """Shift a camera in time, clock and all."""
    return {name: lambda _, f, name=name: f[name] + by for name in ('arrival', 'elapsed', 'stamp')}


@pytest.mark.parametrize(('second', 'skew', 'matched', 'words'), [
    (other(), Level.OK, Level.OK, '0.0 ms'),
    (other(**shifted(10 * MS)), Level.OK, Level.OK, '0.011 would do'),
    (other(**shifted(48 * MS)), Level.ERROR, Level.ERROR, 'set tolerance_s to 0.049'),
    (other(stamp=lambda _, f: f['stamp'] - SECOND), Level.ERROR, Level.ERROR, 'clocks differ'),
    (other(count=2), Level.SKIPPED, Level.SKIPPED, 'third_person'),
    (other(stamp=0), Level.SKIPPED, Level.SKIPPED, 'third_person'),
])
def test_how_cameras_fit(second: Camera, skew: Level, matched: Level, words: str) -> None:
    """Skew and fraction of matched sets, for clocks and rates that differ."""
    result = between(camera(), second)
    assert words in f'{result["skew"].found} -> {result["skew"].remedy}'
    assert result['skew'].level is skew, result
    assert result['matched'].level is matched, result


def test_partners_that_come_late_need_a_longer_wait() -> None:
    """Same stamps, but one camera's driver is slow: the tolerance is not what helps."""
    late = other(arrival=lambda _, f: f['arrival'] + 70 * MS,
                 elapsed=lambda _, f: f['elapsed'] + 70 * MS)
    result = between(camera(), late)
    assert result['skew'].level is Level.OK
    assert result['matched'].level is Level.ERROR and 'max_wait_s' in result['matched'].remedy
    patient = between(camera(), late, rules=PairingRules(max_wait=90 * MS))
    assert patient['matched'].level is Level.OK, patient


def test_partners_later_than_the_next_frame_need_a_tolerance() -> None:
    """
    Guards the advice: a longer wait never paired them, whatever it was set to.

    Only a camera's newest frame is kept, so the one that the late image belongs to is gone.
    """
    late = other(arrival=lambda _, f: f['arrival'] + 170 * MS,
                 elapsed=lambda _, f: f['elapsed'] + 170 * MS)
    remedy = between(camera(), late)['matched'].remedy
    assert 'set tolerance_s' in remedy and 'max_wait_s (now 0.05) above 0.100' in remedy
    tolerant = between(camera(), late, rules=PairingRules(tolerance=190 * MS, max_wait=110 * MS))
    assert tolerant['matched'].level is Level.OK, tolerant


def test_matched_where_everything_is_refused() -> None:
    """No set at all is said as such."""
    finding = matched_finding(Counter(), None, RULES)
    assert finding.level is Level.ERROR and 'no set at all' in finding.found
    assert checks.lost_fraction([1, 2]) == 0.0
