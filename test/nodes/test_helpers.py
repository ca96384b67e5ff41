# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The nodes around the encoder: the video as a camera, the example policy, the demo."""

from collections.abc import Sequence
import csv
from fractions import Fraction
from pathlib import Path
import subprocess
import sys
from typing import Any

import av
from builtin_interfaces.msg import Time
import cv2
from hralign_ros.nodes.interfaces import SuccessProbability, TaskEmbedding
from hralign_ros.runtime.video import write_video
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from support.encoding import in_a_thread
from support.harness import Harness, noise, ROOT, stamp_of, VIEWS

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}


def embedding_of(
    stamp: int, parts: Sequence[str] = ('spatial', 'keypoints'), **fields: Any,
) -> TaskEmbedding:
    """Make the smallest embedding that there can be: one view, one number a part."""
    message = TaskEmbedding(
        dim=len(parts), view_names=['wrist'], view_valid=[True], part_names=list(parts),
        part_offsets=list(range(len(parts))), **fields)
    message.data.extend([1.0] * len(parts))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.view_stamps = [message.header.stamp]
    return message


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Make two short videos of 5 frames a second, in a folder with spaces in its name."""
    return [write_video(tmp_path / 'my videos' / f"camera {index}'s.mp4",
                        (np.roll(noise(index), 3 * frame, axis=1) for frame in range(15)), 5)
            for index in range(2)]


def received_of(harness: Harness, video: Path, count: int, **parameters: str) -> list[Image]:
    """Play a video to its end and return its messages, all of which arrive."""
    received: list[Image] = []
    harness.node.create_subscription(Image, '/cam/image_raw', received.append, QoSProfile(
        depth=50, reliability=ReliabilityPolicy.RELIABLE))
    process = harness.start(
        'video_publisher', arguments=('-r', 'image_raw:=/cam/image_raw'),
        file=f'"{video}"', reliability='reliable', **parameters)
    harness.wait(lambda: process.process.poll() is not None, 'the end of the video')
    assert process.wait() == 0, process.output
    harness.wait(lambda: len(received) == count, f'all {count} frames')
    return received


@pytest.mark.parametrize('rate', ['100.0', '100'])
def test_video_publisher_plays_to_the_end(
    harness: Harness, videos: list[Path], rate: str,
) -> None:
    """Every frame is sent once, in its own encoding; a whole number is a rate, too."""
    received = received_of(harness, videos[0], 15, rate_hz=rate, encoding='bgr8')
    assert {m.encoding for m in received} == {'bgr8'}
    for index, message in enumerate(received):
        image = np.frombuffer(message.data, np.uint8).reshape(120, 160, 3)[..., ::-1]
        shown = np.roll(noise(0), 3 * index, axis=1).astype(int)
        assert np.abs(image.astype(int) - shown).mean() < 6.0


@pytest.mark.parametrize('codec', ['libx264', 'libsvtav1'])
def test_video_publisher_keeps_the_times_of_the_video(
    harness: Harness, tmp_path: Path, codec: str,
) -> None:
    """
    Guards the clip sampler, which goes by the stamps: every video was played at 30 Hz.

    Frames that a camera dropped are missing here, too. AV1 is what LeRobot writes; nothing of it
    was shown, without a word. Late frames move later ones, never closer together.
    """
    path, ticks = tmp_path / 'a.mp4', [0, 1, 2, 6, 7, 13]

    def encode() -> None:
        with av.open(str(path), 'w') as container:
            try:
                stream = container.add_stream(codec, rate=10)
            except (av.FFmpegError, ValueError):
                pytest.skip(f'this PyAV has no {codec}')
            stream.width, stream.height, stream.pix_fmt = 160, 120, 'yuv420p'
            stream.codec_context.time_base = Fraction(1, 10)
            for tick in ticks:
                frame = av.VideoFrame.from_ndarray(noise(tick), format='rgb24')
                frame.pts, frame.time_base = tick, Fraction(1, 10)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    in_a_thread(encode)
    received = received_of(harness, path, len(ticks))
    apart = np.diff([stamp_of(message) for message in received]) * 1e-9
    assert (apart > np.diff(ticks) / 10 - 1e-3).all()


@pytest.mark.parametrize(('name', 'value', 'said'), [
    ('file', '/nonexistent.mp4', 'video /nonexistent.mp4: No such file'),
    ('file', __file__, f'video {__file__}'),
    ('encoding', 'yuv', 'parameter encoding'), ('rate_hz', 'fast', 'parameter rate_hz'),
    ('rate_hz', '-1', 'parameter rate_hz'), ('width', '1.5', 'parameter width')])
def test_video_publisher_says_what_it_cannot_play(
    harness: Harness, videos: list[Path], name: str, value: str, said: str,
) -> None:
    """One sentence that names the parameter or the file, and code 1."""
    process = harness.start('video_publisher', **{'file': f'"{videos[0]}"', name: value})
    assert process.wait() == 1
    assert said in process.output and 'Traceback' not in process.output


def test_policy_holds_when_stale(harness: Harness) -> None:
    """The example policy acts on fresh embeddings and holds when the cameras die."""
    harness.start_active(task="'open the drawer'")
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', max_age_s='2.0', rate_hz='20.0')
    harness.wait(lambda: 'HOLD: no embedding has come' in states, 'the first hold', process)

    def acting() -> bool:
        harness.send_until_embedded(GOOD)
        harness.spin(0.1)
        return 'ACT' in states

    harness.wait(acting, 'ACT', process)
    states.clear()
    harness.wait(lambda: any('older than' in s for s in states), 'HOLD when stale', process)
    assert process.stop() == 0, process.output


def test_policy_holds_when_the_clock_was_set_back(harness: Harness) -> None:
    """
    Guards the robot against pixels that look young because the clock went back.

    Only too great an age was looked at. With the clock 20 s back and the cameras dead, the last
    embedding was young enough for 20 s and more.
    """
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', rate_hz='20.0')
    publisher = harness.node.create_publisher(TaskEmbedding, '/encoder/embedding', 1)

    def ahead() -> bool:
        publisher.publish(embedding_of(harness.now() + 20_000_000_000))
        harness.spin(0.05)
        return any('ahead of the clock' in state for state in states)

    harness.wait(ahead, 'HOLD for what comes from the future', process)
    assert 'ACT' not in states
    assert process.stop() == 0, process.output


def test_policy_holds_when_one_camera_has_ended(harness: Harness) -> None:
    """
    Guards the arm against half a second of old pixels: the header's stamp is the newest view's.

    A camera that has ended stays valid for the encoder's max_age_s while another goes on, and the
    example looked at the header alone.
    """
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', rate_hz='20.0', max_age_s='10.0')
    publisher = harness.node.create_publisher(TaskEmbedding, '/encoder/embedding', 1)

    def state_of(word: str, behind_s: int) -> None:
        states.clear()

        def seen() -> bool:
            message = embedding_of(harness.now())
            message.view_names, message.view_valid = ['wrist', 'third_person'], [True, True]
            other = Time(sec=message.header.stamp.sec - behind_s)
            message.view_stamps = [message.header.stamp, other]
            message.data.extend(message.data)
            publisher.publish(message)
            harness.spin(0.05)
            return any(word in state for state in states)

        harness.wait(seen, word, process)

    state_of('older than 10 s', 30)
    assert 'ACT' not in states
    state_of('ACT', 0)
    assert process.stop() == 0, process.output


def test_policy_holds_without_its_parts(harness: Harness) -> None:
    """Guards a policy whose encoder publishes other parts: it says what to set, and holds."""
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', rate_hz='20.0', parts="['keypoints', 'mean']")
    publisher = harness.node.create_publisher(TaskEmbedding, '/encoder/embedding', 1)

    def state_of(word: str, *parts: str) -> None:
        states.clear()

        def seen() -> bool:
            publisher.publish(embedding_of(harness.now(), parts))
            harness.spin(0.05)
            return any(word in state for state in states)

        harness.wait(seen, word, process)

    state_of('HOLD: the embedding has no part keypoints, mean; name it in the parameter '
             'embedding_parts', 'clip')
    state_of('no part mean', 'keypoints', 'task')
    assert 'ACT' not in states
    state_of('ACT', 'mean', 'task', 'keypoints')
    assert process.stop() == 0, process.output


def test_policy_goes_on_holding_after_an_end(harness: Harness) -> None:
    """
    Guards the arm after SUCCESS and FAILURE: it started again when a hand came into view.

    A decision that is held is published as ABSTAIN while a status bit is set; the example looked
    at the newest decision only, and a failed attempt it did not look at at all.
    """
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', rate_hz='20.0', task="'open it'")
    embeddings = harness.node.create_publisher(TaskEmbedding, '/encoder/embedding', 1)
    successes = harness.node.create_publisher(SuccessProbability, '/encoder/success', 1)

    def state_of(
        episode: int, decision: int | None, word: str, task: str = 'open it',
    ) -> None:
        states.clear()

        def seen() -> bool:
            began = Time(sec=episode)
            if decision is not None:
                successes.publish(SuccessProbability(episode_id=began, decision=decision))
            embeddings.publish(embedding_of(harness.now(), episode_id=began, task=task))
            harness.spin(0.05)
            return any(word in state for state in states)

        harness.wait(seen, word, process)

    kinds = SuccessProbability
    # An encoder that was started again works on the task of its parameters.
    state_of(0, None, "another instruction: 'close it'", task='close it')
    assert 'ACT' not in states
    state_of(1, kinds.DECISION_RUNNING, 'ACT')
    state_of(1, kinds.DECISION_SUCCESS, 'the task is accomplished')
    for _ in range(5):
        state_of(1, kinds.DECISION_ABSTAIN, 'the task is accomplished')
        assert 'ACT' not in states
    state_of(2, kinds.DECISION_RUNNING, 'ACT')
    state_of(2, kinds.DECISION_FAILURE, 'the attempt has failed')
    state_of(2, kinds.DECISION_ABSTAIN, 'the attempt has failed')
    assert process.stop() == 0, process.output


def run_demo(*arguments: str) -> 'subprocess.CompletedProcess[str]':
    """Run the demo to its end; it never leaves a traceback."""
    done = subprocess.run(
        [sys.executable, '-m', 'hralign_ros.nodes.demo', *arguments], cwd=ROOT,
        capture_output=True, text=True, timeout=280)
    assert 'Traceback' not in done.stdout + done.stderr
    return done


def test_demo_runs_to_its_end_and_leaves_a_report(tmp_path: Path, videos: list[Path]) -> None:
    """
    The demo on a user's own videos ends with code 0, an image and one row per tick.

    How many ticks is the machine's business; they are as far apart as the frames of the video,
    which was played at 30 Hz whatever its own rate. All are out of distribution, which could only
    be seen in a status bit: now score and limit are there, and the next step is said.
    """
    pytest.importorskip('matplotlib', reason='matplotlib is not installed')
    report = tmp_path / 'my report'
    done = run_demo('--video', f'third_person={videos[1]}', str(videos[0]),
                    '--task', "put it in the 'cup'", '--report', str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    image = cv2.imread(str(report / 'report.png'))
    assert image is not None and min(image.shape[:2]) > 400
    with open(report / 'ticks.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    assert {row['decision'] for row in rows} <= {'ABSTAIN', ''}
    scored = [row for row in rows if row['decision']]
    assert scored and all(
        float(row['ood_score']) > float(row['ood_limit']) > 0.0
        and 'OUT_OF_DISTRIBUTION' in row['status'] for row in scored)
    assert '100% of the ticks are out of distribution' in done.stdout
    assert 'hralign success teach' in done.stdout
    latencies = [float(row['latency_s']) for row in rows]
    assert all(latency > 0.0 for latency in latencies)
    # A frame that comes late may make a tick of its own: two for each fifth of a second.
    lasted = float(rows[-1]['time_s']) - float(rows[0]['time_s'])
    assert lasted > 0.2 * (len(rows) / 2 - 1) - 1e-2


@pytest.mark.parametrize(('videos_given', 'said'), [
    (['no.mp4'], 'no.mp4'), ([__file__], f'video {__file__}'),
    (['wrist=a.mp4'], 'no video is given for the view third_person'),
    (['a.mp4', 'b.mp4', 'c.mp4'], '3 videos are given')])
def test_demo_says_what_it_cannot_play(videos_given: list[str], said: str) -> None:
    """Guards the first try: one sentence before anything is started, and code 1."""
    done = run_demo('--video', *videos_given)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count('\n') == 1


def test_demo_monitor_that_received_nothing(harness: Harness) -> None:
    """
    Guards whoever runs the demo in a script: it ended with code 0 when there was nothing to see.

    One sentence and code 1, with which the demo ends too.
    """
    process = harness.start('demo_monitor')
    harness.wait(lambda: harness.node.count_subscribers('/wrist/image_raw'), 'the monitor')
    assert process.stop() == 1
    assert 'nothing was received from the encoder' in process.output
