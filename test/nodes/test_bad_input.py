# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Bad input at run time: one diagnosed and counted drop, one log line, and the node goes on.

Each case sends what a broken camera sends, then good frames, and expects an embedding of them.
"""

from array import array
from dataclasses import replace
from pathlib import Path

from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image
from support.harness import episode_of, Harness, noise, stamp_of, VIEWS
from support.tiny_bundle import robot_bundle

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}
SECOND = 1_000_000_000


def _image(**changes: object) -> Image:
    fields = {'height': 4, 'width': 4, 'step': 12, 'encoding': 'rgb8',
              'data': array('B', bytes(48)), **changes}
    return Image(**fields)


PICTURES: dict[str, tuple[str, Image]] = {
    'zero size': ('empty_image', _image(height=0, width=0, step=0, data=array('B'))),
    'step shorter than width': ('bad_step', _image(step=11)),
    'truncated data': ('truncated', _image(data=array('B', bytes(47)))),
    'oversized': ('oversized_image', _image(width=100_000, step=300_000)),
    'unknown encoding': ('unsupported_encoding', _image(encoding='colour9')),
    'no encoding': ('unsupported_encoding', _image(encoding='')),
}


@pytest.mark.parametrize('case', PICTURES)
def test_bad_image_is_counted_and_the_node_goes_on(harness: Harness, case: str) -> None:
    """An image that cannot be used is left out by name; the next good one is embedded."""
    reason, message = PICTURES[case]
    process = harness.start_active()
    harness.send_until_embedded(GOOD)

    def counted() -> bool:
        harness.send_message('wrist', message, harness.now())
        harness.spin(0.05)
        return harness.drops('wrist').get(reason, 0) > 0

    harness.wait(counted, f'a drop counted as {reason}', process)
    status = harness.wait(
        lambda: (s := harness.statuses['/encoder: camera wrist']).level == s.ERROR and s,
        'an ERROR for the camera', process)
    assert 'wrist' in status.message
    harness.send_until_embedded(GOOD)
    harness.wait(lambda: 'recovered: wrist images' in process.output, 'the recovery', process)
    # Once for the fault, not once for each frame; a slow machine has more to say of other things.
    begins = [line for line in process.output.splitlines()
              if '[WARN]' in line and 'view wrist: ' in line and ' frame ' not in line]
    assert len(begins) == process.output.count('recovered: wrist images') == 1, process.output
    assert 'Traceback' not in process.output
    assert process.stop() == 0


@pytest.mark.parametrize('data', [b'', b'no jpeg at all', b'\xff\xd8\xff\xe0' + bytes(200)])
def test_corrupt_jpeg_is_counted(harness: Harness, data: bytes) -> None:
    """A corrupt JPEG is a counted drop; the other camera's embedding goes on meanwhile."""
    process = harness.start_active(wrist__transport='compressed', wrist__required='false')
    message = CompressedImage(format='jpeg', data=array('B', data))
    reason = 'corrupt_image' if data else 'empty_image'

    def counted() -> bool:
        stamp = harness.now()
        harness.send_message('wrist', message, stamp)
        harness.send('third_person', GOOD['third_person'], stamp)
        harness.spin(0.05)
        return harness.drops('wrist').get(reason, 0) > 0

    harness.wait(counted, f'a drop counted as {reason}', process)
    harness.wait(lambda: harness.embeddings, 'an embedding of the other view', process)
    assert list(harness.embeddings[-1].view_valid) == [False, True]
    assert harness.embeddings[-1].status & harness.embeddings[-1].STATUS_VIEW_MISSING
    assert process.stop() == 0


def test_size_and_encoding_may_change_in_mid_stream(harness: Harness) -> None:
    """A camera that is reconfigured while running goes on in the same episode."""
    harness.start_active()
    first = harness.send_until_embedded(GOOD)[1]
    larger = {view: noise(7, 480, 640) for view in VIEWS}
    second = harness.send_until_embedded(larger, encoding='bgr8')[1]
    third = harness.send_until_embedded({
        'wrist': noise(8, 33, 57), 'third_person': noise(9, 720, 1280)}, encoding='mono8')[1]
    assert episode_of(first) == episode_of(second) == episode_of(third)


def _stamps(harness: Harness, good: int) -> dict[str, tuple[str, int]]:
    return {
        'repeated': ('repeated_stamp', good),
        'backward': ('backward_stamp', good - SECOND // 50),
        'zero': ('zero_stamp', 0),
        'an hour ahead': ('future_stamp', harness.now() + 3600 * SECOND),
        'an hour behind': ('too_old', harness.now() - 3600 * SECOND),
    }


@pytest.mark.parametrize('case', ['repeated', 'backward', 'zero', 'an hour ahead',
                                  'an hour behind'])
def test_bad_stamp_is_counted_and_never_published(harness: Harness, case: str) -> None:
    """
    A frame that is not newer, or not of this time, is dropped and counted.

    One frame an hour ahead used to be the classic: every later frame then looks too old.
    """
    process = harness.start_active()

    def counted() -> bool:
        good = harness.send_until_embedded(GOOD)[0]
        reason, stamp = _stamps(harness, good)[case]
        before = len(harness.embeddings)
        for view in VIEWS:
            harness.send(view, GOOD[view], stamp)
        harness.spin(0.3)
        assert len(harness.embeddings) == before, f'{case} was embedded'
        return harness.drops('wrist').get(reason, 0) > 0

    harness.wait(counted, f'a drop for {case}', process)
    episode = episode_of(harness.embeddings[-1])
    harness.send_until_embedded(GOOD)
    assert episode_of(harness.embeddings[-1]) == episode, 'one bad stamp started a new episode'
    stamps = [stamp_of(message) for message in harness.embeddings]
    assert stamps == sorted(set(stamps))
    assert process.stop() == 0


def test_dead_camera_is_a_state(harness: Harness) -> None:
    """
    When both cameras die the embedding falls silent and ~/success says STALE, at 2 Hz.

    Its stamp stays that of the last frame seen: an old result never looks new. Stale results
    come before the first frame too; one machine was slow enough to leave one of those here, and
    this test took it for the one after the last frame.
    """
    process = harness.start_active(task="'open the drawer'")
    last, _ = harness.send_until_embedded(GOOD)
    harness.wait(lambda: [s for s in harness.successes
                          if s.status & s.STATUS_STALE_VIEW and stamp_of(s) == last],
                 'a stale result of the last frame', process)
    harness.successes.clear()
    harness.embeddings.clear()
    harness.wait(lambda: len(harness.successes) >= 4, 'four more', process)
    for message in harness.successes:
        assert message.status & message.STATUS_STALE_VIEW
        assert message.decision == message.DECISION_ABSTAIN
        assert not message.probability_valid
        assert stamp_of(message) == last
    seconds = [m.publish_time.sec + m.publish_time.nanosec * 1e-9 for m in harness.successes]
    assert 0.3 < np.median(np.diff(seconds)) < 1.0
    assert not harness.embeddings
    status = harness.wait(
        lambda: (s := harness.statuses['/encoder: camera wrist']).level == s.ERROR and s,
        'an ERROR for the camera', process)
    assert 'old' in status.message
    harness.send_until_embedded(GOOD)
    harness.wait(
        lambda: not (s := harness.successes[-1]).status & s.STATUS_STALE_VIEW,
        'the recovery', process)


def test_one_dead_camera_is_left_out(harness: Harness) -> None:
    """With one camera dead the other goes on; the dead one's row is zeros and says so."""
    harness.start_active()
    harness.send_until_embedded(GOOD)

    def alone() -> bool:
        harness.send('third_person', GOOD['third_person'], harness.now())
        harness.spin(0.05)
        return not harness.embeddings[-1].view_valid[0]

    harness.wait(alone, 'an embedding without the wrist')
    message = harness.embeddings[-1]
    dim = message.dim
    assert list(message.view_valid) == [False, True]
    assert not any(message.data[:dim]) and any(message.data[dim:])
    assert message.status & message.STATUS_VIEW_MISSING


@pytest.mark.parametrize(('task', 'accepted'), [
    ('', True), ('open the drawer', True), ('x' * 512, True), ('x' * 513, False),
    ('y' * 10_000, False), ('mach die Schublade auf, bitte: 抽屉', True), ('a\x07b', False),
])
def test_set_task_refuses_what_it_cannot_use(
    harness: Harness, task: str, accepted: bool,
) -> None:
    """A task too long is refused with the limit, never cut; a refusal changes nothing."""
    process = harness.start_active(task="'close the drawer'")
    before = episode_of(harness.start_episode())
    answer = harness.set_task(task)
    assert answer.accepted is accepted, answer.message
    if accepted:
        assert answer.task == task and episode_of(answer) > before
    else:
        assert answer.task == 'close the drawer' and episode_of(answer) == before
        assert 'refused' in answer.message
    message = harness.send_until_embedded(GOOD)[1]
    assert message.task == answer.task
    assert bool(message.status & message.STATUS_NO_TASK) == (answer.task == '')
    assert message.pooling == (message.POOLING_ATTENTION if answer.task else message.POOLING_MEAN)
    assert 'Traceback' not in process.output


def test_a_task_without_a_threshold_is_said(harness: Harness, tmp_path: Path) -> None:
    """
    Guards a task that was taught few attempts, for which nothing backs an alpha of .05.

    Its probability came, every decision was ABSTAIN, and only the doctor said why.
    """
    bundle, whole = tmp_path / 'bundle', load_bundle(robot_bundle())
    tasks = load_tasks(whole)
    cup, drawer = tasks.tasks
    poor = replace(cup, calibrations=tuple(
        replace(one, thresholds={a: p for a, p in one.thresholds.items() if a != 0.05})
        for one in cup.calibrations))
    rich = replace(drawer, calibrations=cup.calibrations)
    write_bundle(bundle, whole.manifest, graphs_of(whole), replace(tasks, tasks=(poor, rich)))
    harness.start_active(bundle=str(bundle), alpha='0.05')
    words = 'nothing can be decided for an alpha of 0.05'
    assert words in harness.set_task('pick up the cup').message
    assert words not in harness.set_task('lift the lid').message


def test_images_of_industrial_cameras(harness: Harness) -> None:
    """
    Guards Bayer images; YUV and 16 bits go the same way.

    They needed a cv_bridge that was built for the numpy that is loaded.
    """
    process = harness.start_active()
    message = Image(height=64, width=64, step=64, encoding='bayer_rggb8',
                    data=array('B', bytes(range(64)) * 64))

    def embedded() -> bool:
        stamp = harness.now()
        for view in VIEWS:
            harness.send_message(view, message, stamp)
        harness.spin(0.1)
        return bool(harness.embeddings)

    harness.wait(embedded, 'an embedding of a Bayer image', process)
