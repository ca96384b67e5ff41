# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attempts over ROS: arm, encoder, policy and recorder as processes, and what is counted."""

from hashlib import sha256
import json
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

from geometry_msgs.msg import TwistStamped
from hralign_ros.nodes.attempt_driver import Seen
from hralign_ros.nodes.closed_loop import best
from hralign_ros.nodes.closed_loop_report import judge, Picture, sentences, summary
from hralign_ros.runtime import Encoder
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.labels import read_labels
import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String
from support.harness import Harness, PATIENCE, ROOT
from support.tiny_bundle import robot_bundle
from support.tiny_policy import write_tiny_policy

PROGRAM = ROOT / 'test/support/point_world.py'
STATE = [{'name': name, 'unit': 'm'} for name in ('tool.x', 'tool.y', 'tool.z',
                                                  'gripper.width')]
SECOND = 1_000_000_000


def constant_graph(row: int, action: tuple[float, ...]) -> bytes:
    """Make a policy that always does the same, whatever it is given."""
    import onnx
    from onnx import helper, numpy_helper, TensorProto

    steps = np.tile(np.array(action, np.float32), (4, 1))
    nodes = [helper.make_node('ReduceSum', ['embedding'], ['sum'], keepdims=0),
             helper.make_node('ReduceSum', ['proprio'], ['more'], keepdims=0),
             helper.make_node('Add', ['sum', 'more'], ['all']),
             helper.make_node('Mul', ['all', 'zero'], ['nothing']),
             helper.make_node('Add', ['nothing', 'steps'], ['actions'])]
    graph = helper.make_graph(
        nodes, 'policy', [
            helper.make_tensor_value_info('embedding', TensorProto.FLOAT, [2, row]),
            helper.make_tensor_value_info('proprio', TensorProto.FLOAT, [len(STATE)])],
        [helper.make_tensor_value_info('actions', TensorProto.FLOAT, [4, len(action)])],
        [numpy_helper.from_array(steps, 'steps'),
         numpy_helper.from_array(np.zeros((), np.float32), 'zero')])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_policy(folder: Path, way: tuple[float, float, float], **values: Any) -> Path:
    """Write a policy that goes one way with an open gripper."""
    encoder = Encoder.load(robot_bundle(), provider='cpu', threads=1)
    row = next(part.size for part in encoder.parts if part.name == 'keypoints')
    # Of an instruction that the bundle does not know: it decides nothing on noise.
    values.setdefault('task', 'wave at the camera')
    return write_tiny_policy(
        folder, encoder, ('keypoints',), tuple(encoder.manifest.views),
        graph=constant_graph(row, (*way, -1.0)),
        **{'proprio': STATE, **values},
        actions=[*({'name': f'tool.d{axis}', 'unit': 'm'} for axis in 'xyz'),
                 {'name': 'gripper', 'unit': '-1 open, 1 closed'}])


def command(policy: Path, output: Path, *words: str) -> list[str]:
    """Give the command as a user writes it."""
    return [sys.executable, '-m', 'hralign_ros.nodes.closed_loop', str(policy), '--output',
            str(output), '--bundle', str(robot_bundle()), '--simulator', str(PROGRAM), '--task',
            'lift', '--arm', 'panda', *words]


def run(policy: Path, output: Path, *words: str) -> 'subprocess.CompletedProcess[str]':
    """Run the command as a user does; it takes no more than a few attempts."""
    return subprocess.run(command(policy, output, *words), cwd=ROOT, capture_output=True,
                          text=True, timeout=500, check=False)


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Read attempts.jsonl."""
    return [json.loads(line) for line in (output / 'attempts.jsonl').read_text().splitlines()]


def test_attempts_that_succeed_are_recorded_and_counted(tmp_path: Path) -> None:
    """
    A policy that goes up accomplishes it; bags and labels say the same as attempts.jsonl.

    What is there is not made again, and not lost: without --resume the command refuses. The first
    attempt began once the recorder answered, and before its cameras were connected: its success
    was earlier than its first image, and the label was refused. At half of real time, since a busy
    machine may begin an episode seconds late.
    """
    pytest.importorskip('mcap')
    slow = ('--lab', 'lab-1', '--speed', '0.5')
    policy, output, bags = tmp_path / 'up', tmp_path / 'out', tmp_path / 'bags'
    write_policy(policy, (0.0, 0.0, 0.02))
    done = run(policy, output, *slow, '--episodes', '2', '--record', str(bags))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = rows_of(output)
    assert [row['seed'] for row in rows] == [100_000, 100_001]
    for row in rows:
        assert row['success'] and not row['problem'] and row['decision'] == ''
        assert 0.0 < row['first_command_s'] < row['accomplished_s'] <= row['end_s'] - 1.9
        assert row['commands'] >= 3 and row['commands_on_old_embedding'] == 0
        assert row['policy_sha256'] == sha256((policy / 'policy.yaml').read_bytes()).hexdigest()
        assert row['image_to_command_s']
    assert 'accomplished 2 of 2' in done.stdout and 'missed 2' in done.stdout
    assert (output / 'report.png').stat().st_size > 10_000
    assert (output / 'attempt.webp').read_bytes()[8:12] == b'WEBP'
    labels = read_labels(bags)
    assert {label.success for label in labels.values()} == {'success'} and len(labels) == 2
    assert all(label.time_s > 0.0 and label.by == 'human:simulation'
               for label in labels.values())
    refused = run(policy, output, *slow, '--episodes', '3')
    assert refused.returncode == 1 and '--resume' in refused.stderr and rows_of(output) == rows
    more = run(policy, output, *slow, '--episodes', '3', '--resume')
    assert more.returncode == 0, more.stdout + more.stderr
    assert rows_of(output)[:2] == rows
    assert [row['seed'] for row in rows_of(output)[2:]] == [100_002]
    assert 'accomplished 3 of 3' in more.stdout


def test_an_attempt_that_does_not_succeed(tmp_path: Path) -> None:
    """It ends when its time is over, counted from the first command."""
    policy, output = tmp_path / 'down', tmp_path / 'out'
    write_policy(policy, (0.0, 0.0, -0.02))
    done = run(policy, output, '--lab', 'lab-2', '--episodes', '1')
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = rows_of(output)
    assert not row['success'] and row['accomplished_s'] is None
    assert row['end_s'] - row['first_command_s'] > 1.0 == row['limit_s']
    assert 'accomplished 0 of 1' in done.stdout


def test_what_is_said_before_anything_is_started(tmp_path: Path) -> None:
    """Each is one sentence with what to do, at once."""
    policy, output = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02)), tmp_path / 'out'
    for words, said in (
            (('--episodes', '0', '--lab', 'lab-1'), 'one or more'),
            ((), '--lab'),
            (('--lab', 'lab-1', '--simulator', str(tmp_path / 'nothing')), 'make sim'),
            (('--lab', 'lab-1', '--bundle', str(tmp_path)), 'bundle.yaml')):
        done = run(policy, output, *words)
        assert done.returncode == 1 and said in done.stderr and 'Traceback' not in done.stderr
    assert not (output / 'attempts.jsonl').exists()


def test_a_policy_that_cannot_be_configured(tmp_path: Path) -> None:
    """Its own reason ends the command, and not the patience of somebody who waits for it."""
    policy = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02), proprio=[
        {'name': name, 'unit': 'furlong'} for name in ('tool.x', 'a', 'b', 'c')])
    done = run(policy, tmp_path / 'out', '--lab', 'lab-1')
    assert done.returncode == 1 and "'furlong'" in done.stderr and 'needed is m' in done.stderr
    assert 'did not come' not in done.stderr


def test_a_policy_of_another_bundle(tmp_path: Path) -> None:
    """
    It ends at once with the policy's reason.

    Each of its attempts was waited for a minute, and counted as a failure.
    """
    policy = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02), embedding=None,
                          bundle_sha256='0' * 64)
    done = run(policy, tmp_path / 'out', '--lab', 'lab-1')
    assert done.returncode == 1 and 'policy: policy: ' in done.stderr, done.stdout + done.stderr
    assert not (tmp_path / 'out/attempts.jsonl').exists()


def test_another_robot_on_the_domain(tmp_path: Path, harness: Harness) -> None:
    """
    No attempt is made where somebody else publishes what the simulated arm would.

    The simulated arm takes the names of a real one: two on one domain, and a policy for the one
    moves the other.
    """
    clock = harness.node.create_publisher(Clock, '/clock', 1)
    policy, output = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02)), tmp_path / 'out'
    done = run(policy, output, '--lab', 'lab-1')
    assert done.returncode == 1 and 'publishes /clock' in done.stderr
    assert 'ROS_DOMAIN_ID' in done.stderr
    assert not (output / 'attempts.jsonl').exists() and clock is not None


def test_an_arm_that_would_follow(tmp_path: Path, harness: Harness) -> None:
    """
    A controller that listens to the policy's commands is found, though it publishes nothing.

    It was not looked for: a real arm on this domain would have followed a policy that sees a
    simulated one.
    """
    arm = harness.node.create_subscription(TwistStamped, '/policy/twist', print, 1)
    policy, output = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02)), tmp_path / 'out'
    done = run(policy, output, '--lab', 'lab-1')
    assert done.returncode == 1 and 'listens to /policy/twist' in done.stderr
    assert not list(output.glob('*.log')) and arm is not None


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended(tmp_path: Path, harness: Harness, number: int) -> None:
    """
    What it has started ends with it, and what was done is kept.

    The nodes have process groups of their own. They went on, an arm that a policy moves among
    them, when the command got SIGTERM or its terminal was closed.
    """
    policy, output = write_policy(tmp_path / 'up', (0.0, 0.0, 0.02)), tmp_path / 'out'
    with open(tmp_path / 'log', 'wb') as log:
        # What nohup, or a shell's &, has these tests ignore, the command would ignore rightly.
        process = subprocess.Popen(
            ['env', '--default-signal=INT,TERM,HUP', *command(policy, output, '--lab', 'lab-1')],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    try:
        said: list[str] = []
        harness.node.create_subscription(
            String, '/policy/state', lambda message: said.append(message.data), 10)
        harness.wait(lambda: 'acting' in said or process.poll() is not None, 'an attempt')
        process.send_signal(number)
        # Again, as somebody does who is impatient.
        harness.spin(0.2)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 130, (tmp_path / 'log').read_text()
    finally:
        if process.poll() is None:
            # It ends its nodes.
            process.terminate()
            process.wait(PATIENCE)
    assert '--resume' in (tmp_path / 'log').read_text()
    for topic in ('/clock', '/policy/twist', '/encoder/embedding'):
        harness.wait(lambda topic=topic: not harness.node.count_publishers(topic), 'its end')


def test_pictures_of_many_attempts() -> None:
    """The moving picture is of the first attempt that succeeded, else of the first."""
    lost, first, second = (Picture(made(seed=seed, success=seed > 1)) for seed in (1, 2, 3))
    assert best([lost]) is lost and best([lost, first, second]) is first


def test_a_command_follows_the_embedding_that_it_was_decided_on() -> None:
    """
    Counts on sending, not on the nodes' clocks.

    The policy's clock lags behind the encoder's by what /clock takes to it. By those clocks a
    command seemed to be sent before its embedding was, and counted as one on an older embedding.
    """
    seen = Seen(moves=[1000, 1500], sent=[50, 90], embeddings=[(10, 500), (49, 900)])
    assert seen.on_old_embedding(300) == 1 and seen.on_old_embedding(600) == 0
    assert seen.on_old_embedding(99) == 2


def made(**values: Any) -> dict[str, Any]:
    """Make a line of attempts.jsonl."""
    return {'seed': 1, 'problem': '', 'success': True, 'first_command_s': 0.1,
            'accomplished_s': 2.0, 'decision': 'success', 'decided_s': 2.5, 'end_s': 4.0,
            'limit_s': 8.0, 'commands': 40, 'commands_on_old_embedding': 0, 'chunks': 10,
            'image_to_command_s': [0.05, 0.07], 'ticks': 80, 'out_of_distribution': 8,
            'abstained': 8, 'withheld': {'old_embedding': 1}, 'real_time_factor': 1.0,
            'wall_s': 4.1, **values}


def test_what_a_decision_was_worth() -> None:
    """Against the truth: on time, late, missed, early, false."""
    lost = {'success': False, 'accomplished_s': None}
    cases = {
        'on_time': made(), 'late': made(decided_s=3.1), 'early': made(decided_s=1.9),
        'missed': made(decision='', decided_s=None), 'false': made(**lost),
        '': made(**lost, decision='failure')}
    assert {name: judge(row) for name, row in cases.items()} == {name: name for name in cases}
    # Accomplished, but when its time was over.
    assert judge(made(success=False)) == 'false'
    total = summary(list(cases.values()))
    assert (total['attempts'], total['successes'], total['failures']) == (6, 4, 1)
    assert [total[name] for name in ('on_time', 'late', 'missed', 'early', 'false')] == [1] * 5
    assert total['out_of_distribution'] == pytest.approx(0.1)
    assert total['withheld'] == {'old_embedding': 6}
    assert 'accomplished 4 of 6' in sentences(list(cases.values()))[0]
    assert sentences([]) == ['no attempts']


def test_when_an_attempt_is_over() -> None:
    """After the truth, after a decision, or when its time is over; never before it moves."""
    def seen(now: float, **values: Any) -> Seen:
        there = values.pop('there', None)
        stamps = np.arange(1, round(now * 20) + 1) * SECOND // 20
        return Seen(truths=[(int(stamp), there is not None and stamp >= there * SECOND)
                            for stamp in stamps], limit_ns=8 * SECOND, **values)

    moves = [SECOND]
    success = [(3 * SECOND, Decision.SUCCESS, 0.9, 0)]
    assert not seen(30.0).over()
    assert not seen(8.9, moves=moves).over() and seen(9.1, moves=moves).over()
    assert not seen(4.9, moves=moves, there=3.0).over()
    assert seen(5.1, moves=moves, there=3.0).over()
    assert not seen(3.4, moves=moves, ticks=success).over()
    assert seen(3.6, moves=moves, ticks=success).over()
    running = [(3 * SECOND, Decision.RUNNING, 0.9, 0), (4 * SECOND, Decision.ABSTAIN, 0.9, 8)]
    assert not seen(5.0, moves=moves, ticks=running).over()
    assert seen(5.0, there=3.0).accomplished == 3 * SECOND
