# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""hralign doctor: good cameras pass; each way to be bad is named, with its fix."""

from array import array
from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import subprocess
import sys
import time
from typing import Any

from hralign_ros.doctor import computer
from hralign_ros.doctor.findings import (
    as_text,
    error,
    Finding,
    guarded,
    Level,
    ok,
    Section,
    skipped,
)
from hralign_ros.doctor.run import OptionError, read_options
from hralign_ros.runtime.pairing import PairingRules
import numpy as np
import pytest
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from support.harness import Harness, noise, PATIENCE, ROOT
import yaml

SECOND = 1_000_000_000
MS = 1_000_000
RULES = PairingRules()


# The command as a process, beside cameras of a test.

class Video:
    """
    A camera that publishes at a steady rate; its stamps are the times it should publish at.

    :param change: called with each message before it is sent.
    :param delay: of the stamps, and so of the frames [ns].
    """

    def __init__(
        self, harness: Harness, view: str, *, rate: float = 10.0, reliable: bool = True,
        change: Callable[[Image], None] = lambda message: None, delay: int = 0,
        stuck: bool = False, publishers: int = 1, place: str = '',
    ) -> None:
        # As many messages as a stalled machine may hold back.
        qos = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE if reliable
                         else ReliabilityPolicy.BEST_EFFORT)
        self._publishers = [harness.node.create_publisher(Image, f'{place}/{view}/image_raw', qos)
                            for _ in range(publishers)]
        self._period = int(SECOND / rate)
        self._next = harness.now() // SECOND * SECOND + delay
        self._stuck, self._change, self._view = stuck, change, view
        self._sent = 0
        self._pixels = noise(len(view))

    def send_due(self, now: int) -> None:
        """Send what is due."""
        while self._next <= now:
            pixels = self._pixels if self._stuck else np.roll(self._pixels, self._sent, axis=1)
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
    harness: Harness, videos: list[Video], *words: str, environment: dict[str, str] | None = None,
) -> Report:
    """Run the command while the videos play and the harness answers."""
    file = harness.folder / 'doctor.json'
    process = subprocess.Popen(
        [sys.executable, '-m', 'hralign_ros.cli', 'doctor', '--device', 'cpu', '--json',
         str(file), *words], cwd=harness.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **(environment or {})})
    until = time.monotonic() + 3 * PATIENCE
    try:
        while process.poll() is None and time.monotonic() < until:
            for video in videos:
                video.send_due(harness.now())
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
    videos = [Video(harness, view, rate=15.0, place='/arm') for view in ('wrist', 'third_person')]
    report = examine(harness, videos, '--params-file', str(file), '--seconds', '3', '--node',
                     '/arm/encoder')
    assert report.code == 0, report.out
    for view in ('wrist', 'third_person'):
        assert report.levels(f'Camera {view}') == {'OK'}, report.out
        messages = report.rows[f'Camera {view}', 'messages']['values']
        assert 5.0 < messages['rate_hz'] < 30.0 and messages['messages'] > 15
        report.expect(f'Camera {view}', 'image', 'OK', '160x120 rgb8', 'decoded directly')
    assert report.levels('Between cameras') == {'OK'}, report.out
    assert report.rows['Between cameras', 'skew']['values']['p95_s'] < 0.001
    # Noise is no robot.
    images = report.expect('Images', 'OOD score', 'WARN', 'unlike', 'ABSTAIN', 'no task is set',
                           'hralign success teach')
    assert images['values']['score'] > images['values']['limit']
    report.expect('Encoder', 'encoder', 'OK', '/arm/encoder is active')
    report.expect('onnxruntime', 'provider', 'OK', 'asked cpu, got CPUExecutionProvider')
    assert 0.0 < report.rows['onnxruntime', 'one tick']['values']['seconds'] < 10.0
    report.expect('Bundle', 'success head', 'OK')
    report.expect('Bundle', 'licences', 'OK', 'Apache-2.0')
    report.expect('Transport', 'profile', 'OK', '16.0 MiB')
    report.expect('Python and ROS', 'domain', 'OK', os.environ['ROS_DOMAIN_ID'])
    assert report.out.startswith('Python and ROS\n') and '\x1b' not in report.out
    assert '0 ERROR' in report.out
    page = (ROOT / 'docs/how_to/doctor.md').read_text('utf-8')
    assert [name for _, name in report.rows if f'`{name}`' not in page] == []


def _ahead(message: Image) -> None:
    message.header.stamp.sec += 2


def _unstamped(message: Image) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


def test_bad_cameras_are_named(
    harness: Harness, stand_ins: Callable[..., Any], tmp_path: Path,
) -> None:
    """
    Each way in which a camera can be bad is found, and its fix is said.

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
    views = ['silent', 'shy', 'unstamped', 'ahead', 'twice', 'stuck', 'foreign', 'packed']
    values: dict[str, Any] = {view: {'required': view != 'silent'} for view in views}
    values['shy']['reliability'] = 'reliable'
    values['packed']['transport'] = 'compressed'
    file = write_parameters(
        tmp_path, views=views, colour='red', max_age_s=4.0, max_wait_s=0.9, **values)

    def foreign(message: Image) -> None:
        message.encoding = 'colour9'
        message.header.frame_id = 'stuck_optical_frame'

    videos = [
        Video(harness, 'shy', reliable=False), Video(harness, 'unstamped', change=_unstamped),
        Video(harness, 'ahead', change=_ahead), Video(harness, 'twice', publishers=2),
        Video(harness, 'stuck', stuck=True), Video(harness, 'foreign', change=foreign),
        Video(harness, 'packed')]
    report = examine(harness, videos, '--params-file', str(file), '--seconds', '2',
                     environment=add_before_all(fakes))
    assert report.code == 1
    none = report.expect('Camera silent', 'publishers', 'WARN', 'none on /silent/image_raw',
                         'silent.topic')
    assert '/stuck/image_raw' in none['remedy']
    report.expect('Camera shy', 'QoS', 'ERROR', 'reliab', 'shy.reliability to best_effort')
    report.expect('Camera shy', 'messages', 'SKIPPED')
    report.expect('Camera unstamped', 'stamps', 'ERROR', 'zero', 'stamp_source to arrival')
    report.expect('Camera ahead', 'age', 'ERROR', 'ahead of this clock', 'chrony', 'stamp_source')
    assert -2.5 < report.rows['Camera ahead', 'age']['values']['median_s'] < -1.0
    report.expect('Camera twice', 'publishers', 'WARN', '2 on /twice/image_raw', 'Stop all but')
    report.expect('Camera stuck', 'content', 'ERROR', 'stuck', 'left out', 'driver')
    for view, other in (('stuck', 'foreign'), ('foreign', 'stuck')):
        report.expect(f'Camera {view}', 'frame_id', 'WARN', other, 'frame_id')
    report.expect('Camera foreign', 'image', 'ERROR', 'colour9', 'rgb8')
    report.expect('Camera packed', 'publishers', 'ERROR', 'packed.transport to raw')
    for view in ('twice', 'stuck'):
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
    videos = [Video(harness, 'one', rate=5.0), Video(harness, 'two', rate=5.0, delay=80 * MS)]
    file = write_parameters(harness.folder, max_age_s=4.0, max_wait_s=0.9)
    report = examine(
        harness, videos, '--params-file', str(file), '--seconds', '3', '--view',
        'wrist=/one/image_raw', 'third_person=/two/image_raw', '--node', '/waiting/encoder')
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
    usual = {'bundle': None, 'device': None, 'topics': {}, 'params_file': None,
             'node': '/encoder', 'seconds': 5.0, 'json_file': None}
    return read_options(**{**usual, **changes})


def test_options_become_parameters(tmp_path: Path) -> None:
    """What the command line says goes before what the file says."""
    file = write_parameters(tmp_path, provider='cuda', threads=1, wrist={'topic': 'a'})
    read = options(params_file=file, device='cpu', topics={'wrist': '/b'})
    assert read.given == {'provider': 'cpu', 'threads': 1, 'wrist.topic': '/b'}


@pytest.mark.parametrize(('changes', 'words'), [
    ({'topics': {'left': '/a'}}, 'wrist, third_person'),
    ({'seconds': 0.0}, '--seconds'), ({'seconds': float('nan')}, '--seconds'),
    ({'node': 'no good'}, '/left/encoder'), ({'node': '/'}, '/left/encoder'),
])
def test_options_that_cannot_be_used(changes: dict[str, Any], words: str) -> None:
    """Each is one sentence that says what is needed."""
    with pytest.raises(OptionError, match=words):
        options(**changes)


def test_the_parameter_file_of_this_robot(tmp_path: Path) -> None:
    """Guards the options: of a file for two robots, the one that was named is looked at."""
    file = tmp_path / 'file.yaml'
    file.write_text('/right/encoder:\n  ros__parameters:\n    wrist.topic: /right/cam\n'
                    '/left/eyes:\n  ros__parameters:\n    threads: 3\n')
    assert options(params_file=file, node='/right/encoder').given == {'wrist.topic': '/right/cam'}
    assert options(params_file=file, node='/left/eyes').given == {'threads': 3}


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
