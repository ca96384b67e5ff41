# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""hralign doctor: good cameras pass; each way to be bad is named, with what mends it."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

from harness import Harness, noise, PATIENCE, ROOT
from hralign_ros.nodes.doctor import cameras as checks
from hralign_ros.nodes.doctor import computer, software
from hralign_ros.nodes.doctor.cameras import Camera, Publisher, Received
from hralign_ros.nodes.doctor.findings import (
    as_text,
    error,
    Finding,
    guarded,
    Level,
    ok,
    Section,
    skipped,
)
from hralign_ros.nodes.doctor.pairing import matched_finding, pairing_finding
from hralign_ros.nodes.doctor.run import OptionError, read_options, read_parameters
from hralign_ros.runtime.pairing import PairingRules
from hralign_ros.runtime.providers import CUDA_PROVIDER, Hardware
import numpy as np
import pytest
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
import yaml

SECOND = 1_000_000_000
MS = 1_000_000
RULES = PairingRules()


# The command as a process, beside cameras of a test.

class Film:
    """
    A camera that publishes at a steady rate; its stamps are the times it should publish at.

    :param change: called with each message before it is sent.
    :param delay: of the stamps, and so of the frames [ns].
    """

    def __init__(
        self, harness: Harness, view: str, *, rate: float = 10.0, reliable: bool = True,
        change: Callable[[Image], None] = lambda message: None, delay: int = 0,
        frozen: bool = False, publishers: int = 1, place: str = '',
    ) -> None:
        # As many messages as a stalled machine may hold back.
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE if reliable
                         else ReliabilityPolicy.BEST_EFFORT)
        self._publishers = [harness.node.create_publisher(Image, f'{place}/{view}/image_raw', qos)
                            for _ in range(publishers)]
        self._period = int(SECOND / rate)
        self._next = harness.now() // SECOND * SECOND + delay
        self._frozen, self._change, self._view = frozen, change, view
        self._sent = 0
        self._pixels = noise(len(view))

    def send_due(self, now: int) -> None:
        """Send what is due."""
        while self._next <= now:
            pixels = self._pixels if self._frozen else np.roll(self._pixels, self._sent, axis=1)
            message = Image(height=120, width=160, step=480, encoding='rgb8',
                            data=array('B', pixels.tobytes()))
            message.header.frame_id = f'{self._view}_optical_frame'
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(self._next, SECOND)
            self._change(message)
            self._publishers[self._sent % len(self._publishers)].publish(message)
            self._next += self._period
            self._sent += 1


class Report:
    """What a process of the command left."""

    def __init__(self, process: subprocess.Popen[str], file: Path) -> None:
        out, err = process.communicate()
        self.code, self.out, self.err = process.returncode, out, err
        assert 'Traceback' not in out + err, out + err
        document = json.loads(file.read_text('utf-8'))
        self.rows = {(f['section'], f['name']): f for f in document['findings']}
        assert document['counts'] == {
            level.value: sum(f['level'] == level.value for f in document['findings'])
            for level in Level}

    def levels(self, section: str) -> set[str]:
        """Give all levels of a section."""
        found = {row['level'] for (where, _), row in self.rows.items() if where == section}
        assert found, f'no section {section}: {self.out}'
        return found

    def expect(self, section: str, name: str, level: str, *words: str) -> dict[str, Any]:
        """Check a finding, and that sentence and remedy hold some words."""
        row = self.rows[section, name]
        text = f'{row["found"]} -> {row["remedy"]}'
        assert row['level'] == level, f'{section}: {name}: {text}'
        for word in words:
            assert word in text, f'{section}: {name}: {text}'
        if level in ('WARN', 'ERROR'):
            assert row['remedy'], text
        return dict(row)


def examine(
    harness: Harness, films: list[Film], *words: str, environment: dict[str, str] | None = None,
) -> Report:
    """Run the command while the films play and the harness answers."""
    file = harness.folder / 'doctor.json'
    process = subprocess.Popen(
        [sys.executable, '-m', 'hralign_ros.cli', 'doctor', '--provider', 'cpu', '--json',
         str(file), *words], cwd=harness.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **(environment or {})})
    until = time.monotonic() + 3 * PATIENCE
    try:
        while process.poll() is None and time.monotonic() < until:
            for film in films:
                film.send_due(harness.now())
            harness.executor.spin_once(timeout_sec=0.01)
    finally:
        if process.poll() is None:
            process.kill()
    return Report(process, file)


def write_parameters(folder: Path, **values: Any) -> Path:
    """Write a parameter file."""
    path = folder / 'encoder.yaml'
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': values}}), 'utf-8')
    return path


def add_before_all(folder: Path) -> dict[str, str]:
    """Make an environment whose Python looks into a folder first."""
    return {'PYTHONPATH': os.pathsep.join(
        filter(None, [str(folder), os.environ.get('PYTHONPATH', '')]))}


class Active(LifecycleNode):
    """Stands for an encoder."""

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Succeed."""
        return TransitionCallbackReturn.SUCCESS


@pytest.fixture
def stand_ins(harness: Harness) -> Iterator[Callable[..., Any]]:
    """
    Make nodes called encoder, which the harness spins.

    Each test has a namespace of its own: rclpy may keep a destroyed node for a while.
    """
    made: list[Node] = []

    def make(kind: type, namespace: str = '/') -> Any:
        made.append(kind('encoder', namespace=namespace, context=harness.context))
        harness.executor.add_node(made[-1])
        return made[-1]

    yield make
    for node in made:
        harness.executor.remove_node(node)
        node.destroy_node()


def test_good_cameras_pass(harness: Harness, stand_ins: Callable[..., Any]) -> None:
    """A robot in order gives exit code 0, and numbers that are about right."""
    encoder = stand_ins(Active, '/arm')
    encoder.trigger_configure()
    encoder.trigger_activate()
    # On a busy machine frames may be held up; that is not what is tested.
    file = write_parameters(harness.folder, max_age_s=4.0, max_wait_s=0.9)
    films = [Film(harness, view, rate=15.0, place='/arm') for view in ('wrist', 'third_person')]
    report = examine(harness, films, '--params-file', str(file), '--seconds', '3', '--namespace',
                     'arm')
    assert report.code == 0, report.out
    for view in ('wrist', 'third_person'):
        assert report.levels(f'Camera {view}') == {'OK'}, report.out
        messages = report.rows[f'Camera {view}', 'messages']['values']
        assert 5.0 < messages['rate_hz'] < 30.0 and messages['messages'] > 15
        report.expect(f'Camera {view}', 'picture', 'OK', '160x120 rgb8', 'decoded directly')
    assert report.levels('Between cameras') == {'OK'}, report.out
    assert report.rows['Between cameras', 'skew']['values']['p95_s'] < 0.001
    report.expect('Encoder', 'encoder', 'OK', '/arm/encoder is active')
    report.expect('onnxruntime', 'provider', 'OK', 'asked cpu, got CPUExecutionProvider')
    assert 0.0 < report.rows['onnxruntime', 'one tick']['values']['seconds'] < 10.0
    report.expect('Bundle', 'success head', 'OK')
    report.expect('Bundle', 'licences', 'OK', 'Apache-2.0')
    report.expect('Transport', 'profile', 'OK', '16.0 MiB')
    report.expect('Python and ROS', 'domain', 'OK', os.environ['ROS_DOMAIN_ID'])
    assert report.out.startswith('Python and ROS\n') and '\x1b' not in report.out
    assert '0 ERROR' in report.out
    page = (ROOT / 'docs/doctor.md').read_text('utf-8')
    assert [name for _, name in report.rows if f'`{name}`' not in page] == []


def _ahead(message: Image) -> None:
    message.header.stamp.sec += 2


def _unstamped(message: Image) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


def test_bad_cameras_are_named(
    harness: Harness, stand_ins: Callable[..., Any], tmp_path: Path,
) -> None:
    """
    Each way in which a camera can be bad is found, and what mends it is said.

    All in one process, whose Python holds two onnxruntimes and no hralign_msgs.
    """
    fakes = tmp_path / 'fakes'
    for name in ('onnxruntime', 'onnxruntime-gpu'):
        folder = fakes / f'{name.replace("-", "_")}-9.8.7.dist-info'
        folder.mkdir(parents=True)
        (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 9.8.7\n')
    (fakes / 'hralign_msgs').mkdir()
    (fakes / 'hralign_msgs/__init__.py').write_text("raise ImportError('not built')\n")
    stand_ins(Node)
    stand_ins(Node)
    views = ['silent', 'shy', 'unstamped', 'ahead', 'twice', 'frozen', 'foreign', 'packed']
    values: dict[str, Any] = {view: {'required': view != 'silent'} for view in views}
    values['shy']['reliability'] = 'reliable'
    values['packed']['transport'] = 'compressed'
    file = write_parameters(
        tmp_path, views=views, colour='red', max_age_s=4.0, max_wait_s=0.9, **values)

    def foreign(message: Image) -> None:
        message.encoding = 'colour9'
        message.header.frame_id = 'frozen_optical_frame'

    films = [
        Film(harness, 'shy', reliable=False), Film(harness, 'unstamped', change=_unstamped),
        Film(harness, 'ahead', change=_ahead), Film(harness, 'twice', publishers=2),
        Film(harness, 'frozen', frozen=True), Film(harness, 'foreign', change=foreign),
        Film(harness, 'packed')]
    report = examine(harness, films, '--params-file', str(file), '--seconds', '2',
                     environment=add_before_all(fakes))
    assert report.code == 1
    none = report.expect('Camera silent', 'publishers', 'WARN', 'none on /silent/image_raw',
                         'silent.topic')
    assert '/frozen/image_raw' in none['remedy']
    report.expect('Camera shy', 'QoS', 'ERROR', 'reliab', 'shy.reliability to best_effort')
    report.expect('Camera shy', 'messages', 'SKIPPED')
    report.expect('Camera unstamped', 'stamps', 'ERROR', 'zero', 'stamp_source to arrival')
    report.expect('Camera ahead', 'age', 'ERROR', 'ahead of this clock', 'chrony', 'stamp_source')
    assert -2.5 < report.rows['Camera ahead', 'age']['values']['median_s'] < -1.0
    report.expect('Camera twice', 'publishers', 'WARN', '2 on /twice/image_raw', 'Stop all but')
    report.expect('Camera frozen', 'content', 'WARN', 'frozen', 'driver')
    for view, other in (('frozen', 'foreign'), ('foreign', 'frozen')):
        report.expect(f'Camera {view}', 'frame_id', 'WARN', other, 'frame_id')
    report.expect('Camera foreign', 'picture', 'ERROR', 'colour9', 'cv_bridge', 'rgb8')
    report.expect('Camera packed', 'publishers', 'ERROR', 'packed.transport to raw')
    for view in ('twice', 'frozen'):
        report.expect(f'Camera {view}', 'age', 'OK')
    report.expect('Between cameras', 'skew', 'SKIPPED', 'silent')
    report.expect('Encoder', 'encoder', 'WARN', '2 nodes', 'Stop all but one')
    report.expect('onnxruntime', 'packages', 'WARN', 'onnxruntime 9.8.7', 'onnxruntime-gpu 9.8.7',
                  'pip uninstall onnxruntime onnxruntime-gpu')
    report.expect('Python and ROS', 'hralign_msgs', 'ERROR', 'not built',
                  "colcon build --base-paths src 'src/*/hralign_msgs'")
    report.expect('Bundle', 'views', 'ERROR', 'wrist, third_person')
    report.expect('Parameters', 'parameters', 'WARN', 'colour')


def test_cameras_apart_and_an_encoder_that_waits(
    harness: Harness, stand_ins: Callable[..., Any],
) -> None:
    """Cameras 80 ms apart never match: the tolerance that would do is said."""
    stand_ins(LifecycleNode, '/waiting')
    films = [Film(harness, 'one', rate=5.0), Film(harness, 'two', rate=5.0, delay=80 * MS)]
    file = write_parameters(harness.folder, max_age_s=4.0, max_wait_s=0.9)
    report = examine(
        harness, films, '--params-file', str(file), '--seconds', '3', '--topics',
        'wrist=/one/image_raw', 'third_person=/two/image_raw', '--namespace', '/waiting')
    assert report.code == 1
    skew = report.expect('Between cameras', 'skew', 'ERROR', 'tolerance_s = 0.04',
                         'set tolerance_s to 0.081')
    assert skew['values']['median_s'] == pytest.approx(0.08)
    report.expect('Between cameras', 'matched', 'ERROR', 'See skew')
    report.expect('Encoder', 'encoder', 'WARN', 'unconfigured',
                  'ros2 lifecycle set /waiting/encoder')


def test_without_rclpy(harness: Harness, tmp_path: Path) -> None:
    """Where there is no ROS, it says how to get it, and the rest is examined all the same."""
    (tmp_path / 'fakes/rclpy').mkdir(parents=True)
    (tmp_path / 'fakes/rclpy/__init__.py').write_text(
        "raise ModuleNotFoundError('No module named rclpy')\n")
    bundle = tmp_path / 'nowhere'
    report = examine(harness, [], '--bundle', str(bundle),
                     environment=add_before_all(tmp_path / 'fakes'))
    assert report.code == 1
    report.expect('Python and ROS', 'rclpy', 'ERROR', 'No module named rclpy', 'setup.bash')
    report.expect('Cameras', 'all', 'SKIPPED')
    report.expect('onnxruntime', 'version', 'OK')
    report.expect('onnxruntime', 'provider', 'SKIPPED', 'nowhere')
    report.expect('Bundle', 'files', 'ERROR', 'no such directory')
    report.expect('Encoder', 'encoder', 'SKIPPED', 'rclpy')
    report.expect('Computer', 'threads', 'OK' if computer.cores() > 1 else 'WARN', '2')


def test_a_domain_that_would_end_the_process(harness: Harness, tmp_path: Path) -> None:
    """Fast DDS calls exit() over a domain id of 233 or more; the checks go on without ROS."""
    report = examine(harness, [], '--bundle', str(tmp_path / 'nowhere'),
                     environment={'ROS_DOMAIN_ID': '300'})
    assert report.code == 1
    report.expect('Python and ROS', 'domain', 'ERROR', '300', '0 to 232')
    report.expect('Python and ROS', 'rclpy', 'ERROR', 'ROS_DOMAIN_ID')
    report.expect('Cameras', 'all', 'SKIPPED')


# Options.

def options(**changes: Any) -> Any:
    """Read options that differ from what is usual."""
    usual = {'bundle': None, 'provider': None, 'topics': [], 'params_file': None,
             'namespace': '/', 'seconds': 5.0, 'json_file': None}
    return read_options(**{**usual, **changes})


def test_options_become_parameters(tmp_path: Path) -> None:
    """What the command line says goes before what the file says."""
    file = write_parameters(tmp_path, provider='cuda', threads=1, wrist={'topic': 'a'})
    read = options(params_file=file, provider='cpu', topics=['wrist=/b'])
    assert read.given == {'provider': 'cpu', 'threads': 1, 'wrist.topic': '/b'}


@pytest.mark.parametrize(('changes', 'words'), [
    ({'topics': ['wrist']}, 'VIEW=TOPIC'), ({'topics': ['left=/a']}, 'wrist, third_person'),
    ({'seconds': 0.0}, '--seconds'), ({'seconds': float('nan')}, '--seconds'),
    ({'namespace': 'no good'}, '/left_arm'),
])
def test_options_that_cannot_be_used(changes: dict[str, Any], words: str) -> None:
    """Each is one sentence that says what is needed."""
    with pytest.raises(OptionError, match=words):
        options(**changes)


@pytest.mark.parametrize(('text', 'words'), [
    ('camera:\n  ros__parameters:\n    threads: 1\n', 'node named encoder.*camera'),
    ('[', 'cannot be read'), ('', 'node named encoder'), ('/**:\n  threads: 1\n', 'Key it by'),
])
def test_a_parameter_file_that_ros_would_ignore(tmp_path: Path, text: str, words: str) -> None:
    """ROS starts the node with its defaults then, and says nothing."""
    file = tmp_path / 'file.yaml'
    file.write_text(text)
    with pytest.raises(OptionError, match=words):
        read_parameters(file)
    with pytest.raises(OptionError, match='cannot be read'):
        read_parameters(tmp_path / 'missing.yaml')


# Pure checks of one camera.

def heard(count: int = 20, **changes: Any) -> tuple[Received, ...]:
    """Make messages at 10 Hz, 10 ms old; a change may be a function of the number."""
    rows = []
    for i in range(count):
        fields: dict[str, Any] = {
            'arrival': 2_000_000_000 * SECOND + i * 100 * MS + 10 * MS, 'elapsed': i * 100 * MS,
            'stamp': 2_000_000_000 * SECOND + i * 100 * MS, 'frame_id': 'optical',
            'picture': '640x480 rgb8', 'size': 921_600, 'digest': i,
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
    'encoding': (camera(heard(fault='unsupported_encoding', explanation='no')), 'picture',
                 Level.ERROR, 'cv_bridge'),
    'step': (camera(heard(fault='bad_step', explanation='no')), 'picture', Level.ERROR, 'driver'),
    'sizes': (camera(heard(picture=lambda i, _: f'{i % 2}')), 'picture', Level.WARN, 'one camera'),
    'frozen': (camera(heard(digest=1)), 'content', Level.WARN, 'frozen'),
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
    """Each fault has a level, and a sentence with what mends it."""
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
    """Skew and share of matched sets, for clocks and rates that differ."""
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


def test_matched_where_everything_is_refused() -> None:
    """No set at all is said as such."""
    finding = matched_finding(Counter(), None, RULES)
    assert finding.level is Level.ERROR and 'no set at all' in finding.found
    assert checks.lost_share([1, 2]) == 0.0


# Pure checks of software.

CUDA, CPU = CUDA_PROVIDER, 'CPUExecutionProvider'
WANTS = software.Choice(provider='cuda')
AUTO = software.Choice()


@pytest.mark.parametrize(('finding', 'level', 'words'), [
    (software.python_finding((3, 9, 1)), Level.ERROR, '3.10'),
    (software.python_finding((3, 12, 3)), Level.OK, '3.12.3'),
    (software.rclpy_finding(ImportError('no'), {}), Level.ERROR, 'setup.bash'),
    (software.rclpy_finding(ImportError('no'), {'ROS_DISTRO': 'jazzy'}), Level.ERROR,
     'system-site-packages'),
    (software.rclpy_finding(RuntimeError('no home'), {}), Level.ERROR, 'ROS_LOG_DIR'),
    (software.distribution_finding({'ROS_DISTRO': 'jazzy'}), Level.OK, 'jazzy'),
    (software.distribution_finding({'ROS_DISTRO': 'humble'}), Level.WARN, 'jazzy'),
    (software.rmw_finding('rmw_fastrtps_cpp', {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}),
     Level.WARN, 'rmw-cyclonedds-cpp'),
    (software.domain_finding({}), Level.OK, '0'),
    (software.domain_finding({'ROS_DOMAIN_ID': '102'}), Level.WARN, '101'),
    (software.domain_finding({'ROS_DOMAIN_ID': '233'}), Level.ERROR, '232'),
    (software.domain_finding({'ROS_DOMAIN_ID': 'arm'}), Level.ERROR, 'arm'),
    (software.discovery_finding({}), Level.OK, 'subnet'),
    (software.discovery_finding({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF'}), Level.ERROR, 'PEERS'),
    (software.discovery_finding({'ROS_AUTOMATIC_DISCOVERY_RANGE': 'all'}), Level.WARN, 'SUBNET'),
    (software.discovery_finding({'ROS_LOCALHOST_ONLY': '1'}), Level.WARN, 'deprecated'),
    (software.numpy_finding('2.4', '', 'x'), Level.OK, 'works'),
    (software.numpy_finding('2.4', 'x', 'x'), Level.OK, 'x'),
    (software.numpy_finding('2.4', "built for 1: pip install 'numpy<2'", 'x'), Level.WARN,
     "-> pip install 'numpy<2'"),
    (software.packages_finding([], gpu=False), Level.ERROR, 'pip install'),
    (software.packages_finding(['onnxruntime 1'], gpu=False), Level.OK, 'onnxruntime 1'),
    (software.packages_finding(['onnxruntime 1', 'onnxruntime-gpu 1'], gpu=True), Level.WARN,
     "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    (software.packages_finding(['onnxruntime 1', 'onnxruntime-gpu 1'], gpu=False), Level.WARN,
     "pip install 'onnxruntime'"),
    (software.driver_finding('', [CPU], AUTO), Level.OK, 'CPU'),
    (software.driver_finding('', [CUDA, CPU], WANTS), Level.ERROR, '--gpus'),
    (software.driver_finding('550.1', [CPU], AUTO), Level.WARN, 'onnxruntime-gpu'),
    (software.driver_finding('550.1', [CPU], software.Choice(provider='cpu')), Level.OK, '550.1'),
    (software.cuda_finding({}, [], '', [CPU], wanted=True), Level.SKIPPED, 'without CUDA'),
    (software.cuda_finding({}, [], '', [CUDA], wanted=False), Level.SKIPPED, 'cpu'),
    (software.cuda_finding({'CUDA runtime': '13.0'}, [], '13.0', [CUDA], wanted=True), Level.WARN,
     'cuDNN not loaded'),
    (software.cuda_finding({'CUDA runtime': '13.0', 'cuDNN': '9.20.0'}, ['nvidia-cudnn-cu13 9'],
                           '13.0', [CUDA], wanted=True), Level.OK, 'cuDNN 9.20.0'),
    (software.provider_finding(Hardware('auto', CPU), [CPU], AUTO), Level.OK, CPU),
    (software.provider_finding(Hardware('auto', CUDA), [CUDA, CPU], AUTO), Level.OK, CUDA),
    (software.provider_finding(Hardware('auto', CPU), [CUDA, CPU], AUTO), Level.WARN, 'loaded'),
    (software.provider_finding(Hardware('cuda', CPU), [CUDA, CPU], WANTS), Level.ERROR, 'loaded'),
    (software.provider_finding(Hardware('auto', CPU), [CPU], software.Choice(require_gpu=True)),
     Level.ERROR, 'required'),
])
def test_software(finding: Finding, level: Level, words: str) -> None:
    """Each state of what is installed has its level and its words."""
    text = f'{finding.found} -> {finding.remedy}'
    assert (finding.level, words in text) == (level, True), text
    assert (level in (Level.WARN, Level.ERROR)) == bool(finding.remedy)


def test_versions_of_drivers_and_libraries() -> None:
    """Versions are read as the driver and the libraries write them."""
    line = ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56\n'
            'GCC version: 12.2.0\n')
    assert software.parse_driver(line) == '550.54.15'
    opened = 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n'
    assert software.parse_driver(opened) == '570.86.10'
    assert 'unknown' in software.parse_driver('nothing')
    maps = ('7f00-7f01 r-xp 0 08:01 1    /usr/lib/libcudnn_ops.so.9\n'
            '7f02-7f03 r-xp 0 08:01 2    /usr/lib/libcudnn.so.9\n'
            '7f02-7f03 r-xp 0 08:01 2    /opt/libcudart.so.13\n')
    files = software.loaded_files(maps)
    assert files == {'cuDNN': '/usr/lib/libcudnn.so.9', 'CUDA runtime': '/opt/libcudart.so.13'}
    assert software.library_versions({'cuDNN': '/no/libcudnn.so.9'}) == {'cuDNN': 'libcudnn.so.9'}
    assert software.dotted(92000, 10_000, 100) == '9.20.0'
    assert software.dotted(12080, 1000, 10) == '12.8'
    assert all(' ' in wheel for wheel in software.cuda_wheels())


# Pure checks of the computer.

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
])
def test_the_profile_of_fast_dds(
    text: str | None, environment: dict[str, str], largest: int, raw: bool, level: Level,
    words: str, tmp_path: Path,
) -> None:
    """A profile counts only if a default participant has the room that two pictures need."""
    if text is not None:
        (tmp_path / 'profile.xml').write_text(text)
        environment = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(tmp_path / 'profile.xml')}
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
    (computer.memory_finding(computer.available_memory('MemAvailable:  500000 kB')), Level.WARN,
     '0.5 GB'),
    (computer.memory_finding(computer.available_memory('MemFree: 1 kB')), Level.SKIPPED, 'say'),
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


# How findings are shown.

def test_table() -> None:
    """Remedies have rows of their own, long lines are wrapped, colours come when asked for."""
    sections = [Section('One', [ok('a', 'good'), error('long name', 'word ' * 40, 'do this')]),
                Section('Two', [skipped('b', 'why'), skipped('c', 'why'), skipped('d', 'why')])]
    text = as_text(sections)
    assert text.splitlines()[:2] == ['One', '  OK       a          good']
    assert max(map(len, text.splitlines())) <= 99
    assert '-> do this' in text and 'why; as for c, d' in text
    assert text.endswith('1 ERROR, 0 WARN, 1 OK, 3 SKIPPED\n')
    assert '\x1b[31mERROR' in as_text(sections, colours=True) and '\x1b' not in text


def test_a_check_that_fails_is_a_finding() -> None:
    """One broken check does not take the others with it."""

    def broken() -> Finding:
        raise RuntimeError('boom\nmore')

    finding, = guarded('name', broken)
    assert finding.level is Level.ERROR and finding.found.endswith('RuntimeError: boom')
