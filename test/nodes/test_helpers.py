# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The nodes around the encoder: the video as a camera, the example policy, the demo."""

import csv
from pathlib import Path
import subprocess
import sys
from typing import Any

from builtin_interfaces.msg import Time
import cv2
from hralign_ros.nodes.interfaces import SuccessProbability, TaskEmbedding
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String
from support.harness import Harness, noise, ROOT, VIEWS

GOOD = {view: noise(index) for index, view in enumerate(VIEWS)}


def embedding_of(stamp: int, **fields: Any) -> TaskEmbedding:
    """Make the smallest embedding that there can be: one view, one part, one number."""
    message = TaskEmbedding(
        dim=1, view_names=['wrist'], view_valid=[True], part_names=['clip'], part_offsets=[0],
        **fields)
    message.data.append(1.0)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    return message


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    """Make two short videos."""
    paths = []
    for index in range(2):
        path = tmp_path / f'video_{index}.mp4'
        writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter_fourcc(*'mp4v'), 30.0, (160, 120))
        for frame in range(45):
            writer.write(np.roll(noise(index), 3 * frame, axis=1))
        writer.release()
        paths.append(path)
    return paths


def test_video_publisher_plays_to_the_end(harness: Harness, videos: list[Path]) -> None:
    """Every frame is sent once, in its own encoding, and the process ends with code 0."""
    received: list[Image] = []
    harness.node.create_subscription(Image, '/cam/image_raw', received.append, QoSProfile(
        depth=50, reliability=ReliabilityPolicy.RELIABLE))
    process = harness.start(
        'video_publisher', arguments=('-r', 'image_raw:=/cam/image_raw'), file=str(videos[0]),
        rate_hz='100.0', encoding='bgr8', reliability='reliable')
    harness.wait(lambda: process.process.poll() is not None, 'the end of the video')
    assert process.wait() == 0, process.output
    harness.wait(lambda: len(received) == 45, 'all 45 frames')
    assert {m.encoding for m in received} == {'bgr8'}


@pytest.mark.parametrize('parameters', [{'file': '/nonexistent.mp4'}, {'encoding': 'yuv'}])
def test_video_publisher_says_what_it_cannot_play(
    harness: Harness, parameters: dict[str, str],
) -> None:
    """One sentence that names the parameter, and code 1."""
    process = harness.start('video_publisher', **parameters)
    assert process.wait() == 1
    assert f'parameter {next(iter(parameters))}' in process.output
    assert 'Traceback' not in process.output


def test_policy_holds_when_stale(harness: Harness) -> None:
    """The example policy acts on fresh embeddings and holds when the cameras die."""
    harness.start_active(task="'open the drawer'")
    states: list[str] = []
    harness.node.create_subscription(
        String, '/policy_example/state', lambda m: states.append(m.data), 10)
    process = harness.start('policy_example', max_age_s='0.5', rate_hz='20.0')
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


def test_demo_runs_to_its_end_and_leaves_a_report(tmp_path: Path, videos: list[Path]) -> None:
    """
    The demo on a user's own videos ends with code 0, an image and one row per tick.

    How many ticks is the machine's business: beside much other work it was 7 of some 60.
    """
    pytest.importorskip('matplotlib', reason='matplotlib is not installed')
    report = tmp_path / 'report'
    done = subprocess.run(
        [sys.executable, '-m', 'hralign_ros.nodes.demo', '--video', *map(str, videos),
         '--task', "put it in the 'cup'", '--report', str(report)],
        cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    image = cv2.imread(str(report / 'report.png'))
    assert image is not None and min(image.shape[:2]) > 400
    with open(report / 'ticks.csv', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 3
    assert {row['decision'] for row in rows} <= {'ABSTAIN', ''}
    latencies = [float(row['latency_s']) for row in rows]
    assert all(0.0 < latency < 5.0 for latency in latencies)


def test_demo_names_a_missing_video(tmp_path: Path) -> None:
    """A file that is not there is named before anything is started."""
    done = subprocess.run(
        [sys.executable, '-m', 'hralign_ros.nodes.demo', '--video', str(tmp_path / 'no.mp4')],
        cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'no.mp4' in done.stderr
    assert 'Traceback' not in done.stderr
