# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A policy that moves an arm, and what of its surroundings may end while it does."""

from collections.abc import Iterator
from pathlib import Path
import shutil
import signal
import time

import onnx
import pytest
from support.harness import Harness, NodeProcess, stamp_of
from support.policy_stage import Arm, SECOND, write_robot_policy
from support.robot import Cameras, machine, Row
from support.tiny_bundle import listing, robot_bundle
import yaml

# The tiny bundle decides nothing on it.
TASK = 'open the drawer'
MAX_AGE = SECOND // 5


class Attempt:
    """Cameras, encoder and policy at work, in an attempt that nobody decides."""

    def __init__(self, harness: Harness, folder: Path, bundle: Path) -> None:
        self.harness, self.arm = harness, Arm(harness)
        self.encoder = harness.start_active(
            bundle=str(bundle), threads='1', task=f"'{TASK}'")
        self.cameras = Cameras(harness)
        self.cameras.start()
        self.policy: NodeProcess = self.arm.start_active(
            write_robot_policy(folder / 'policy', bundle, task=TASK), max_episode_s='0.0')

    def begin(self) -> None:
        """Begin the attempt, and wait until the arm moves."""
        assert self.arm.call('start').success
        self.arm.wait_moves()

    def held(self) -> tuple[str, float]:
        """
        Wait until it holds; give its diagnosis, and how long after the last pixels it stopped [s].

        By the stamps of what it sent: the newest command that moves, and the stop.
        """
        self.arm.wait_state('hold: ')
        self.arm.wait_stop()
        text = self.arm.wait_error('commands', 'hold')
        many = len(self.arm.twists)
        self.harness.spin(0.5)
        assert len(self.arm.twists) == many and self.arm.twists[-1].twist.linear.x == 0.0
        last = self.arm.last_move()
        pixels = max(
            *(min(stamp_ns(view) for view in one.view_stamps)
              for one in self.harness.embeddings if all(one.view_valid)),
            # One that has reached the policy alone.
            *(stamp_of(chunk) for chunk in self.arm.chunks))
        assert last - pixels <= MAX_AGE
        return text, (stamp_of(self.arm.twists[-1]) - pixels) / SECOND


def stamp_ns(stamp) -> int:
    """Read a stamp [ns]."""
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


@pytest.fixture
def attempt(harness: Harness, tmp_path: Path) -> Iterator[Attempt]:
    """Give an attempt that has begun."""
    bundle = tmp_path / 'bundle'
    shutil.copytree(robot_bundle(), bundle)
    made = Attempt(harness, tmp_path, bundle)
    made.begin()
    yield made
    made.cameras.end()


def row(fault: str, stopped: float, text: str, since: float) -> Row:
    """Make the row of a fault in which the tool is stopped."""
    return Row(fault, f'policy: stops the tool {stopped:.2f} s after the last pixels, once, and '
               'sends nothing more', f'policy commands ERROR: {text}', busy=machine().busy(since))


def test_the_encoder_is_killed(attempt: Attempt, rows: list[Row]) -> None:
    """No command later than 0.2 s after the last pixels that it took."""
    since = time.monotonic()
    attempt.encoder.process.kill()
    attempt.encoder.wait()
    text, stopped = attempt.held()
    rows.append(row('SIGKILL of the encoder while a policy moves an arm', stopped, text, since))
    assert attempt.policy.stop() == 0 and 'Traceback' not in attempt.policy.output


def test_a_camera_ends(attempt: Attempt, rows: list[Row]) -> None:
    """The other one goes on, and the encoder calls the silent view valid for half a second."""
    since = time.monotonic()
    attempt.cameras.sends['wrist'] = lambda shot: []
    text, stopped = attempt.held()
    rows.append(row('a camera ends while a policy moves an arm', stopped, text, since))
    attempt.cameras.sends['wrist'] = attempt.cameras.sends['third_person']
    attempt.arm.wait_moves()
    assert attempt.policy.stop() == 0 and 'Traceback' not in attempt.policy.output


def test_the_policy_is_killed(attempt: Attempt, rows: list[Row]) -> None:
    """Nothing comes from it any more; the encoder does not notice."""
    attempt.policy.process.send_signal(signal.SIGKILL)
    attempt.policy.wait()
    ended = attempt.harness.now()
    attempt.harness.spin(0.5)
    assert stamp_of(attempt.arm.twists[-1]) <= ended
    many = len(attempt.harness.embeddings)
    attempt.harness.wait(lambda: len(attempt.harness.embeddings) > many + 3, 'embeddings',
                         attempt.encoder)
    rows.append(Row('SIGKILL of a policy that moves an arm',
                    'continues; of the policy nothing comes any more, not even a stop: the '
                    "arm's controller stops when commands cease", ''))


def test_the_bundle_is_replaced_in_mid_episode(
    attempt: Attempt, tmp_path: Path, rows: list[Row],
) -> None:
    """
    An encoder with another bundle takes the place of the first.

    Where the embeddings are the same, as after teaching, the attempt goes on in its episode; where
    they are others nothing moves.
    """
    bundle = tmp_path / 'bundle'
    document = yaml.safe_load((bundle / 'bundle.yaml').read_text('utf-8'))

    def replace() -> str:
        assert attempt.encoder.stop() == 0
        (bundle / 'bundle.yaml').write_text(yaml.safe_dump(document, sort_keys=False), 'utf-8')
        attempt.arm.wait_stop()
        before = len(attempt.harness.infos)
        attempt.encoder = attempt.harness.start(
            autostart='true', bundle=str(bundle), threads='1', task=f"'{TASK}'")
        attempt.harness.wait(lambda: len(attempt.harness.infos) > before, '~/info',
                             attempt.encoder)
        return str(attempt.harness.infos[-1].bundle_sha256)

    first = attempt.arm.chunks[-1].bundle_sha256
    document['name'] = 'taught'
    taught = replace()
    attempt.arm.wait_moves()
    assert attempt.arm.chunks[-1].bundle_sha256 == taught != first
    since = time.monotonic()
    model = onnx.load(str(bundle / 'spatial.onnx'))
    model.doc_string = 'another basis'
    (bundle / 'spatial.onnx').write_bytes(model.SerializeToString())
    document['files'] |= listing(bundle, ['spatial.onnx'])
    other = replace()
    moved = len(attempt.arm.moves())
    text = attempt.arm.wait_error('policy', 'basis of spatial and keypoints')
    attempt.harness.wait(lambda: sum(
        one.bundle_sha256 == other for one in attempt.harness.embeddings) > 5, 'embeddings of it',
        attempt.encoder)
    attempt.arm.wait_error('commands', 'learnt from other embeddings')
    assert len(attempt.arm.moves()) == moved
    rows.append(Row('the bundle is replaced while a policy moves an arm',
                    'policy: goes on where the embeddings are the same, as after teaching; sends '
                    'nothing on others',
                    f'policy ERROR: {text}'.replace(str(tmp_path), ''),
                    busy=machine().busy(since)))
    assert attempt.policy.stop() == 0 and 'Traceback' not in attempt.policy.output
