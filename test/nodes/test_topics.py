# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What goes over the wire: stamps, views, latched info, attention, services, QoS."""

from typing import Any

from hralign_msgs.msg import SuccessProbability, TaskEmbedding
from hralign_ros.nodes import conversions
from hralign_ros.nodes.policy_example import parts_of
from hralign_ros.runtime import Decision, Encoder, load_bundle, Status, ViewGeometry
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from support.harness import episode_of, Harness, noise, stamp_of, VIEWS
from support.tiny_bundle import CHANNELS, GRID, LENGTH, robot_bundle

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}
MILLISECOND = 1_000_000


def test_constants_are_the_same_everywhere() -> None:
    """Status bits and decisions have one meaning in both messages and in the runtime."""
    for flag in Status:
        for message in (TaskEmbedding, SuccessProbability):
            assert getattr(message, f'STATUS_{flag.name}') == flag
    for decision in Decision:
        assert getattr(SuccessProbability, f'DECISION_{decision.name}') == decision


def test_stamps_are_those_of_the_pixels(harness: Harness) -> None:
    """The header has the newest frame's acquisition stamp; each view has its own; skew is told."""
    harness.start_active(task="'pick up the cup'")
    first = harness.send_until_embedded(GOOD)[0]
    skew = 15 * MILLISECOND
    # A fast encoder answers before that: the next frame would be older than the first.
    harness.wait(lambda: harness.now() - skew > first, 'the time of the skew')

    sent_at = set()

    def sent() -> TaskEmbedding | None:
        late = harness.now()
        sent_at.add(late)
        harness.send('third_person', GOOD['third_person'], late - skew)
        harness.send('wrist', GOOD['wrist'], late)
        harness.spin(0.15)
        return next((m for m in harness.embeddings if stamp_of(m) in sent_at
                     and m.skew > 0.0 and all(m.view_valid)), None)

    message = harness.wait(sent, 'a set with skew')
    stamps = [s.sec * 1_000_000_000 + s.nanosec for s in message.view_stamps]
    assert message.view_names == list(VIEWS)
    assert stamps == [stamp_of(message), stamp_of(message) - skew]
    assert np.allclose(message.view_ages, [0.0, skew * 1e-9], atol=1e-6)
    assert abs(message.skew - skew * 1e-9) < 1e-6
    assert message.header.frame_id == 'third_person_optical_frame'
    published = message.publish_time.sec * 1_000_000_000 + message.publish_time.nanosec
    assert published > stamp_of(message)
    duration = message.processing_duration
    assert 0 < duration.sec * 1_000_000_000 + duration.nanosec <= published - stamp_of(message)
    success = harness.wait(lambda: next(
        (s for s in harness.successes if s.header.stamp == message.header.stamp), None),
        'the success of the same set')
    assert episode_of(success) == episode_of(message)
    assert success.status == Status.OK and success.probability_valid
    assert success.decision in (Decision.RUNNING, Decision.SUCCESS)
    assert 0.0 <= success.probability <= 1.0
    assert success.ood_valid and 0.0 <= success.ood_score <= success.ood_threshold
    assert success.decision_threshold_valid and 0.0 < success.decision_threshold < 1.0
    assert success.decision_alpha == pytest.approx(0.05)
    assert success.failure_valid and 0.0 <= success.failure_probability <= 1.0
    assert len(success.mode_names) == len(success.mode_probabilities) > 0
    assert success.clip_stamps[-1] == message.header.stamp
    parts = parts_of(message)
    assert list(parts) == ['spatial', 'keypoints', 'task']
    assert [rows.shape for rows in parts.values()] == [
        (2, GRID * GRID * CHANNELS), (2, 2 * CHANNELS), (2, CHANNELS)]
    assert np.allclose(np.linalg.norm(parts['task'], axis=1), 1.0, atol=1e-5)


def test_parts_are_those_asked_for(harness: Harness) -> None:
    """Guards embedding_parts: these in this order, in ~/info and in every message."""
    process = harness.start_active(embedding_parts="['clip', 'keypoints', 'mean']")
    names = ['clip', 'keypoints', 'mean']
    encoder = Encoder.load(robot_bundle(), provider='cpu', parts=names)
    message = harness.send_until_embedded(GOOD)[1]
    assert list(message.part_names) == names and list(message.part_offsets) == [
        0, CHANNELS, 3 * CHANNELS]
    assert message.dim == 4 * CHANNELS and len(message.data) == 2 * message.dim
    assert [(part.name, part.offset, tuple(part.shape), part.frames, part.unit_norm,
             part.description) for part in harness.infos[-1].parts] == [
        (part.name, part.offset, part.shape, part.frames, part.unit_norm, part.description)
        for part in encoder.parts]
    assert process.stop() == 0, process.output


@pytest.mark.parametrize(('given', 'said'), [
    ("['grid']", "'grid'; allowed: spatial, keypoints, mean, task, clip"),
    ("['task', 'task']", 'each at most once')])
def test_parts_that_there_are_not(harness: Harness, given: str, said: str) -> None:
    """Guards a mistyped part: the node says what is allowed, and stays unconfigured."""
    process = harness.start(autostart='true', embedding_parts=given)
    harness.wait(lambda: 'parameter embedding_parts' in process.output, 'the error', process)
    assert said in process.output and not harness.infos
    assert harness.state() == 'unconfigured'


def test_parts_that_the_bundle_lacks(harness: Harness, variant: Any) -> None:
    """Guards a bundle without spatial.onnx: one error with what to do; without asking, a start."""
    plain = variant(robot_bundle(), change=lambda d: d['files'].pop('spatial.onnx'))
    process = harness.start(
        autostart='true', bundle=f"'{plain}'", embedding_parts="['task', 'keypoints']")
    harness.wait(lambda: 'has no spatial.onnx' in process.output, 'the error', process)
    assert 'hralign bundle add-parts' in process.output and 'Traceback' not in process.output
    assert harness.state() == 'unconfigured' and process.stop() == 0
    harness.start_active(bundle=f"'{plain}'")
    assert [part.name for part in harness.infos[-1].parts] == ['task']


def test_info_is_latched_and_true(harness: Harness) -> None:
    """Whoever comes late still learns the bundle, its hash and the provider really used."""
    process = harness.start_active(
        provider='cpu', wrist__rotation='180', third_person__crop='[0.1, 0.0, 0.9, 1.0]')
    bundle = load_bundle(robot_bundle())
    mounted = {'wrist': ViewGeometry(180), 'third_person': ViewGeometry(0, (0.1, 0.0, 0.9, 1.0))}
    encoder = Encoder.load(robot_bundle(), provider='cpu', geometry=mounted)
    late = Harness(harness.folder)
    try:
        info = late.wait(lambda: late.infos, 'the latched EncoderInfo', process)[-1]
    finally:
        late.close()
    assert info.bundle_sha256 == bundle.sha256
    assert info.embedding_sha256 == encoder.identity.sha256
    assert list(info.ingredients) == encoder.identity.lines
    assert (info.precision, info.precision_cosine, info.pooling) == ('fp32', 1.0, 'attention')
    assert (info.provider_requested, info.provider) == ('cpu', 'CPUExecutionProvider')
    assert info.view_names == list(VIEWS)
    assert list(info.view_rotations) == [180, 0]
    assert list(info.view_crops) == [0.0, 0.0, 1.0, 1.0, 0.1, 0.0, 0.9, 1.0]
    assert conversions.layout_of(info).geometry == mounted == encoder.geometry
    assert list(info.token_grid) == [GRID, GRID] and info.clip_length == LENGTH
    grid = GRID * GRID * CHANNELS
    assert [(part.name, part.offset, list(part.shape), part.frames, part.unit_norm)
            for part in info.parts] == [
        ('spatial', 0, [GRID, GRID, CHANNELS], 1, False),
        ('keypoints', grid, [CHANNELS, 2], 1, False),
        ('task', grid + 2 * CHANNELS, [CHANNELS], 1, True)]
    assert info.dim == grid + 3 * CHANNELS
    assert [task.task_id for task in info.tasks] == ['cup', 'drawer']
    cup, drawer = info.tasks
    assert cup.calibrated and not drawer.calibrated
    assert cup.failure_threshold == pytest.approx(0.9) and cup.failure_alpha == 0.0
    assert drawer.failure_threshold == 1.0
    assert list(cup.alphas) == list(info.alphas) == pytest.approx(encoder.tasks.alphas)
    assert info.licenses and info.onnxruntime_version


def test_attention_is_published_while_somebody_looks(harness: Harness) -> None:
    """An overlay is 224 x 224 rgb8 with the view's stamp, and it is not the bare image."""
    harness.start_active(task="'pick up the cup'")
    harness.watch_attention('wrist')

    def seen() -> Image | None:
        harness.send_until_embedded(GOOD)
        harness.spin(0.1)
        return harness.overlays[-1] if harness.overlays else None

    overlay = harness.wait(seen, 'an overlay')
    assert (overlay.height, overlay.width, overlay.encoding) == (224, 224, 'rgb8')
    assert stamp_of(overlay) in [stamp_of(m) for m in harness.embeddings]
    assert np.frombuffer(overlay.data, np.uint8).std() > 10


def test_a_new_episode_forgets_the_old(harness: Harness) -> None:
    """Ids rise with every episode; the clip of a new one holds only its own frames."""
    harness.start_active(task="'open the drawer'")
    for _ in range(3):
        old = harness.send_until_embedded(GOOD)[1]
    answer = harness.start_episode()
    assert answer.accepted and episode_of(answer) > episode_of(old)
    start = answer.start.sec * 1_000_000_000 + answer.start.nanosec
    harness.send('wrist', GOOD['wrist'], start - MILLISECOND)
    new = harness.send_until_embedded(GOOD)[1]
    assert episode_of(new) == episode_of(answer)
    success = harness.wait(lambda: next(
        (s for s in harness.successes if s.header.stamp == new.header.stamp), None), 'success')
    stamps = [s.sec * 1_000_000_000 + s.nanosec for s in success.clip_stamps]
    assert stamps and min(stamps) >= start
    task = harness.set_task('close the drawer')
    assert task.accepted and episode_of(task) > episode_of(new)
    assert task.nearest_tasks[0] == 'open the drawer'
    other = harness.send_until_embedded(GOOD)[1]
    assert other.task == 'close the drawer' and episode_of(other) == episode_of(task)
    assert other.configuration_id == harness.infos[-1].configuration_id
    assert other.embedding_sha256 == new.embedding_sha256 == harness.infos[-1].embedding_sha256
    assert len({m.instruction_sha256 for m in (new, other)} - {''}) == 2
    changed = {name: (rows != parts_of(new)[name]).any() for name, rows in parts_of(other).items()}
    assert changed == {'spatial': False, 'keypoints': False, 'task': True}, 'the task changes one'


def test_parameters_change_together_or_not_at_all(harness: Harness) -> None:
    """A set of values that do not fit each other is refused whole, with the reason."""
    harness.start_active()
    assert harness.set_parameters(max_age_s=1.0, max_wait_s=0.6).successful
    refused = harness.set_parameters(max_age_s=0.2, dwell_s=1.0)
    assert not refused.successful and 'max_wait_s' in refused.reason
    assert not harness.set_parameters(provider='cpu').successful, 'provider is read-only'
    assert not harness.set_parameters(max_age_s=-1.0).successful, 'out of range'
    # No threshold is calibrated for it: everything would be ABSTAIN, without a word.
    refused = harness.set_parameters(alpha=0.02)
    assert not refused.successful and '0.05, 0.1' in refused.reason
    assert harness.set_parameters(alpha=0.1).successful
    assert harness.set_parameters(alpha=float(np.float32(0.1))).successful, 'as ~/info has it'
    # With less of it the rate of false alarms was twice what the threshold guarantees.
    refused = harness.set_parameters(dwell_s=0.1)
    assert not refused.successful and 'calibrated for 0.3 s' in refused.reason
    harness.send_until_embedded(GOOD)


def test_incompatible_qos_is_named(harness: Harness) -> None:
    """
    A best-effort camera and a reliable subscriber never meet; usually nobody says so.

    Topic, policy and the parameter to change are in the log and in diagnostics.
    """
    process = harness.start_active(wrist__reliability='reliable')
    camera = harness.node.create_publisher(Image, '/wrist/image_raw', QoSProfile(
        depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    status = harness.wait(
        lambda: (s := harness.statuses.get('/encoder: camera wrist'))
        and 'RELIABILITY' in s.message and s, 'the diagnosis', process)
    assert status.level == status.ERROR
    assert '/wrist/image_raw' in status.message and 'wrist.reliability' in status.message
    assert 'wrist.reliability' in process.output
    harness.node.destroy_publisher(camera)


def test_arrival_stamps_for_a_camera_without_clock(harness: Harness) -> None:
    """With stamp_source arrival, frames with zero stamps are embedded under arrival times."""
    harness.start_active(stamp_source='arrival')
    before = harness.now()

    def embedded() -> bool:
        for view in VIEWS:
            harness.send(view, GOOD[view], 0)
        harness.spin(0.1)
        return bool(harness.embeddings)

    harness.wait(embedded, 'an embedding')
    assert before < stamp_of(harness.embeddings[-1]) <= harness.now()


def test_remapping_moves_the_compressed_topic(harness: Harness) -> None:
    """Remapping the base name used to leave .../compressed behind, a trap of image transports."""
    process = harness.start(
        arguments=('-r', 'wrist/image_raw:=/hand/color'), autostart='true',
        wrist__transport='compressed')
    harness.wait(lambda: harness.infos, 'EncoderInfo', process)

    def topics() -> dict[str, list[str]]:
        return dict(harness.node.get_topic_names_and_types())

    # Discovery of a subscription may come after the first message of a publisher.
    harness.wait(lambda: '/hand/color/compressed' in topics(), 'the subscription', process)
    assert topics()['/hand/color/compressed'] == ['sensor_msgs/msg/CompressedImage']


def test_remapping_may_exchange_the_cameras(harness: Harness) -> None:
    """
    Guards views against a remapping of one camera's topic to the other's, both ways.

    Names that were remapped already were remapped once more, back to where they came from: two
    healthy cameras, each in the other's view.
    """
    process = harness.start(
        arguments=('-r', 'wrist/image_raw:=third_person/image_raw',
                   '-r', 'third_person/image_raw:=wrist/image_raw'),
        autostart='true', wrist__transport='raw', third_person__transport='raw')
    harness.wait(lambda: harness.infos, 'EncoderInfo', process)

    # One view alone is sent, under the name that is the other one's now.
    def embedded() -> bool:
        harness.send('wrist', GOOD['wrist'], harness.now())
        harness.spin(0.2)
        return bool(harness.embeddings)

    harness.wait(embedded, 'an embedding', process)
    message = harness.embeddings[-1]
    valid = dict(zip(message.view_names, message.view_valid, strict=True))
    assert valid == {'wrist': False, 'third_person': True}


def test_a_bag_that_starts_over_starts_a_new_episode(harness: Harness) -> None:
    """
    When /clock jumps back, the old stamps are forgotten and the next set is embedded.

    Synchronisers that keep the newest stamp drop everything from then on, for ever.
    """
    process = harness.start(autostart='true', use_sim_time='true')
    harness.wait(lambda: harness.infos, 'EncoderInfo', process)
    publisher = harness.node.create_publisher(Clock, '/clock', 10)
    time = 0

    def run(start: int, what: str) -> TaskEmbedding:
        nonlocal time
        time = start
        harness.embeddings.clear()

        def seen() -> bool:
            nonlocal time
            time += 33 * MILLISECOND
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(time, 1_000_000_000)
            publisher.publish(clock)
            harness.spin(0.03)
            for view in VIEWS:
                harness.send(view, GOOD[view], time)
            harness.spin(0.03)
            return any(stamp_of(m) >= start for m in harness.embeddings)

        harness.wait(seen, what, process)
        return harness.embeddings[-1]

    first = run(1000 * 1_000_000_000, 'an embedding in simulated time')
    second = run(500 * 1_000_000_000, 'an embedding after the jump')
    assert stamp_of(second) < stamp_of(first)
    assert episode_of(second) > episode_of(first)
    assert 'jumped back' in process.output
