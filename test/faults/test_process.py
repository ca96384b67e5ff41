# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The process and its files: signals, transitions, memory, a full disk, models that change."""

from collections.abc import Callable
from pathlib import Path
import resource
import shutil
import signal
import time

from hralign_msgs.msg import SuccessProbability
from lifecycle_msgs.msg import Transition
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from support.harness import (
    episode_of,
    Harness,
    NodeProcess,
    noise,
    published,
    stamp_of,
    VIEWS,
)
from support.robot import BOTH, Cameras, good, machine, mapped_bytes, Robot, Row, SECOND

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE)
NAMES = {CONFIGURE: 'configure', CLEANUP: 'cleanup', ACTIVATE: 'activate',
         DEACTIVATE: 'deactivate'}
# State -> transitions that lead there, and those that may come next.
PATHS = {'unconfigured': ((), {CONFIGURE: 'inactive'}),
         'inactive': ((CONFIGURE,), {ACTIVATE: 'active', CLEANUP: 'unconfigured'}),
         'active': ((CONFIGURE, ACTIVATE), {DEACTIVATE: 'inactive'})}


def test_every_transition_from_every_state_twice(
    harness: Harness, bundle: Path, rows: list[Row],
) -> None:
    """
    Ask for everything everywhere, twice, while frames stream: what is not allowed is refused.

    The lifecycle node of rclpy raises in its service where a transition is not available, and a
    manager that asked was never answered.
    """
    cameras = Cameras(harness)
    process = harness.start(bundle=str(bundle), threads='1')
    cameras.start()
    asked = 0
    try:
        for state, (path, allowed) in PATHS.items():
            for number in NAMES:
                for step in path:
                    assert harness.transition(step)
                assert harness.state() == state
                expected = allowed.get(number, state)
                for _ in range(2):
                    asked += 1
                    available = number in PATHS[harness.state()][1]
                    assert harness.transition(number) is available
                assert harness.state() == expected
                _back(harness)
    finally:
        cameras.end()
    assert process.stop() == 0, process.output
    assert 'Traceback' not in process.output
    rows.append(Row('every transition from every state, twice, while frames stream',
                    f'does what is allowed and refuses the rest ({asked} requests)',
                    'answer of ~/change_state'))


def _back(harness: Harness) -> None:
    """Go back to unconfigured from wherever the node is."""
    for number in (DEACTIVATE, CLEANUP):
        if harness.state() in ('active', 'inactive'):
            harness.transition(number)
    assert harness.state() == 'unconfigured'


def test_opened_and_closed_while_inferring(
    harness: Harness, bundle: Path, rows: list[Row],
) -> None:
    """Ten times deactivated and activated in mid-tick: nothing comes while it is closed."""
    robot = Robot(harness, bundle)
    try:
        robot.steady()
        for _ in range(10):
            assert harness.transition(DEACTIVATE)
            closed = harness.now()
            harness.spin(0.3)
            assert published(robot.embedding) < closed
            assert harness.transition(ACTIVATE)
            now = harness.now()
            robot.wait(lambda since=now: robot.sees(BOTH, since), 'results')
        took = (harness.now() - now) / SECOND
        robot.steady()
    finally:
        robot.close()
    rows.append(Row('deactivated and activated ten times while inferring',
                    'nothing is published while inactive', '', took))


SIGNALS = {'unconfigured': (), 'inactive': (CONFIGURE,), 'active': (CONFIGURE, ACTIVATE)}


@pytest.mark.parametrize('state', SIGNALS)
def test_sigterm(harness: Harness, bundle: Path, rows: list[Row], state: str) -> None:
    """SIGTERM ends it with code 0 from every state, frames or not."""
    cameras = Cameras(harness)
    process = harness.start(bundle=str(bundle), threads='1')
    assert harness.state() == 'unconfigured'
    for number in SIGNALS[state]:
        assert harness.transition(number)
    cameras.start()
    harness.spin(0.5)
    began = time.monotonic()
    code = process.stop(signal.SIGTERM)
    cameras.end()
    assert code == 0 and 'Traceback' not in process.output, process.output
    rows.append(Row(f'SIGTERM while {state}', 'ends with code 0', '', time.monotonic() - began))


def test_sigkill_and_restart(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """Killed and started again: results come again, with a later episode id."""
    robot = Robot(harness, bundle)
    robot.steady()
    before = episode_of(robot.embedding)
    robot.process.process.kill()
    robot.process.process.wait()
    began = time.monotonic()
    robot.process = harness.start(
        autostart='true', bundle=str(bundle), threads='1', task="'open the drawer'")
    message = robot.wait(lambda: next(
        (m for m in harness.embeddings if episode_of(m) > before), None), 'results again')
    took = time.monotonic() - began
    assert message.task == 'open the drawer'
    robot.close()
    rows.append(Row('SIGKILL, and started again',
                    "begins a new episode of its parameter's task, "
                    f'{took:.1f} s after the start', ''))


def test_launched_twice(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """Two nodes of one name mix their topics and services; both say so, until one is gone."""
    first = harness.start_active(bundle=str(bundle), threads='1')
    second = harness.start(autostart='true', bundle=str(bundle), threads='1')
    for process in (first, second):
        harness.wait(lambda p=process: 'nodes are called /encoder' in p.output,
                     'the warning', process)
    status = harness.wait(
        lambda: (s := harness.statuses['/encoder: model']).level == s.WARN and s, 'a WARN', first)
    assert second.stop() == 0
    ended = harness.now()
    harness.wait(lambda: 'recovered: node name' in first.output, 'the end of it', first)
    rows.append(Row('launched twice under one name', 'both keep running',
                    f'model WARN: {status.message}; its end {_since(harness, ended)} later'))


def test_incompatible_camera(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """A best-effort camera and a reliable subscription: named, with the parameter to change."""
    process = harness.start_active(
        wrist__reliability='reliable', bundle=str(bundle), threads='1')
    camera = harness.node.create_publisher(Image, '/wrist/image_raw', QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    status = harness.wait(
        lambda: (s := harness.statuses.get('/encoder: camera wrist'))
        and 'RELIABILITY' in s.message and s, 'the diagnosis', process)
    assert status.level == status.ERROR and 'wrist.reliability' in status.message
    ended = harness.now()
    harness.node.destroy_publisher(camera)
    harness.wait(lambda: 'recovered: wrist qos' in process.output, 'the end of it', process)
    rows.append(Row('a camera offers less than is asked for', 'continues without the wrist view',
                    f'camera wrist ERROR: {status.message}; its end '
                    f'{_since(harness, ended)} later'))


def _since(harness: Harness, then: int) -> str:
    return f'{(harness.now() - then) / SECOND:.1f} s'


JPEGS = {'an empty JPEG': b'', 'a JPEG of random bytes': bytes(range(256)) * 4,
         'a JPEG cut off after its head': b'\xff\xd8\xff\xe0' + bytes(200)}


def test_corrupt_jpegs(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """What is no image is counted and said, and the next good one is embedded at once."""
    process = harness.start_active(
        wrist__transport='compressed', third_person__transport='compressed', bundle=str(bundle),
        threads='1')
    for name, data in JPEGS.items():
        harness.send_until_embedded(GOOD, encoding='jpeg')
        message = CompressedImage(format='jpeg')
        message.data = data

        def said(message: CompressedImage = message) -> str:
            harness.send_message('wrist', message, harness.now())
            harness.spin(0.1)
            status = harness.statuses['/encoder: camera wrist']
            return status.message if 'view wrist:' in status.message else ''

        text = harness.wait(said, 'the diagnosis', process)
        began, since = harness.now(), time.monotonic()
        harness.send_until_embedded(GOOD, encoding='jpeg')
        took = (harness.now() - began) / SECOND
        rows.append(Row(name, 'continues without the wrist view',
                        f'camera wrist ERROR: {text}', took))
        assert took < 1.0 or machine().busy(since)

        def recovered() -> bool:
            harness.send_until_embedded(GOOD, encoding='jpeg')
            return harness.statuses['/encoder: camera wrist'].level == b'\x00'

        harness.wait(recovered, 'all well again', process)
    assert process.stop() == 0 and 'Traceback' not in process.output


Spoil = Callable[[Path], None]
SPOILS: dict[str, tuple[Spoil, str]] = {
    'deleted': (lambda bundle: shutil.rmtree(bundle), 'no such directory'),
    'truncated': (lambda bundle: (bundle / 'visual.onnx').write_bytes(
        (bundle / 'visual.onnx').read_bytes()[:100]), 'visual.onnx'),
    'replaced by another model': (lambda bundle: shutil.copy(
        bundle / 'embed.onnx', bundle / 'visual.onnx') and None, 'visual.onnx'),
}


@pytest.mark.parametrize('name', SPOILS)
def test_model_file_changes_while_running(
    harness: Harness, bundle: Path, tmp_path: Path, rows: list[Row], name: str,
) -> None:
    """The loaded model keeps running; the next configure refuses until the file is fixed."""
    spoil, says = SPOILS[name]
    own = tmp_path / 'bundle'
    shutil.copytree(bundle, own)
    process = harness.start_active(bundle=str(own), threads='1')
    harness.send_until_embedded(GOOD)
    spoil(own)
    harness.send_until_embedded(GOOD)
    assert harness.transition(DEACTIVATE) and harness.transition(CLEANUP)
    assert not harness.transition(CONFIGURE)
    status = harness.statuses['/encoder: model']
    harness.wait(lambda: says in harness.statuses['/encoder: model'].message, 'the reason',
                 process)
    status = harness.statuses['/encoder: model']
    assert status.level == status.ERROR
    shutil.rmtree(own, ignore_errors=True)
    shutil.copytree(bundle, own)
    assert harness.transition(CONFIGURE) and harness.transition(ACTIVATE)
    harness.send_until_embedded(GOOD)
    rows.append(Row(
        f'the model file is {name} while running',
        'keeps running the loaded model; refuses the next configure until the file is fixed',
        f'model ERROR: {status.message}'.replace(str(own), 'BUNDLE')))
    assert process.stop() == 0


def test_out_of_memory_at_load(harness: Harness, shipped: Path, rows: list[Row]) -> None:
    """
    With no memory for the model configure fails and says so; with memory it succeeds.

    The shipped bundle, because the tiny one finds room anywhere.
    """
    process = harness.start(bundle=str(shipped), threads='1')
    harness.state()
    limit = mapped_bytes(process) + 40_000_000
    resource.prlimit(process.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    assert not harness.transition(CONFIGURE)
    status = harness.wait(
        lambda: (s := harness.statuses.get('/encoder: model')) and s.level == s.ERROR and s,
        'an ERROR', process)
    resource.prlimit(process.process.pid, resource.RLIMIT_AS,
                     (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert harness.transition(CONFIGURE), process.output
    assert harness.transition(ACTIVATE)
    harness.send_until_embedded(GOOD)
    rows.append(Row('no memory for the model', 'configure fails; with memory it succeeds',
                    f'model ERROR: {status.message}'.replace(str(shipped), 'BUNDLE')))
    assert process.stop() == 0


def test_disk_full(harness: Harness, bundle: Path, rows: list[Row]) -> None:
    """When no file can grow, the log is lost and results are not."""
    robot = Robot(harness, bundle)
    robot.steady()
    _limit_files(robot.process, 0)
    before = len(robot.process.output)
    robot.cameras.sends['wrist'] = lambda shot: []
    robot.wait(lambda: robot.diagnosis('the newest frame is'), 'a fault that is logged')
    robot.cameras.sends['wrist'] = robot.cameras.sends['third_person']
    now = harness.now()
    robot.wait(lambda: robot.sees(BOTH, now), 'results')
    took = (harness.now() - now) / SECOND
    assert len(robot.process.output) == before, 'the limit does not limit'
    _limit_files(robot.process, resource.RLIM_INFINITY)
    robot.close()
    rows.append(Row('the disk is full', 'continues with both views; the log is lost',
                    'camera wrist ERROR, by topic', took))


def _limit_files(process: NodeProcess, size: int) -> None:
    """Let no file that a process writes grow beyond a size."""
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_no_old_result_after_a_restart_of_the_cameras(
    harness: Harness, bundle: Path, rows: list[Row],
) -> None:
    """Both cameras are gone for three seconds and come back: nothing of before is re-stamped."""
    robot = Robot(harness, bundle)
    robot.steady()
    for view in VIEWS:
        robot.cameras.sends[view] = lambda shot: []
    robot.wait(lambda: robot.sees(frozenset(), 0), 'STALE')
    since = harness.now()
    robot.spin(3.0)

    def later() -> list[SuccessProbability]:
        return [result for result in harness.successes if published(result) > since]

    for result in robot.wait(lambda: len(later()) >= 4 and later(), 'four more'):
        assert stamp_of(result) == stamp_of(robot.embedding)
        assert result.decision == result.DECISION_ABSTAIN
    ended = harness.now()
    robot.cameras.sends.update(dict.fromkeys(VIEWS, good))
    robot.wait(lambda: robot.sees(BOTH, ended), 'results')
    rows.append(Row(
        'both cameras are gone for 3 s', 'no embedding; ~/success keeps the last stamp',
        'inference ERROR: no required view has a fresh frame',
        (harness.now() - ended) / SECOND))
    robot.close()
