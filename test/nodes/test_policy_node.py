# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The policy node as a process: when it commands the arm, when it does not, and what it says."""

from pathlib import Path
import re
import signal
from typing import Any

from geometry_msgs.msg import PoseStamped
from hralign_msgs.msg import SuccessProbability
from hralign_ros.nodes import policy_parameters
from hralign_ros.runtime import Encoder
from lifecycle_msgs.msg import Transition
import numpy as np
import pytest
from rcl_interfaces.srv import ListParameters
from sensor_msgs.msg import JointState
from support.harness import episode_of, Harness, ROOT, stamp_of
from support.policy_stage import (
    ACTIONS,
    Arm,
    JOINTS,
    PARTS,
    PROPRIO,
    SECOND,
    Stage,
    time_of,
    VIEWS,
    write_robot_policy,
)
from support.robot import Cameras, trapped_bundle
from support.robot import TASK as TRAPPED_TASK
from support.tiny_bundle import robot_bundle
from support.tiny_policy import TASK, tiny_graph, write_tiny_policy

PAGE = ROOT / 'docs/reference/policy_node.md'
MAX_AGE = SECOND // 5
# Of tests that are not about age: a busy machine is not what they look for.
PATIENT = {'max_age_s': '5.0'}


@pytest.fixture(scope='module')
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a policy for the tiny bundle; not to be changed."""
    return write_robot_policy(tmp_path_factory.mktemp('policy') / 'policy')


@pytest.fixture
def stage(harness: Harness) -> Stage:
    """Give a policy node's surroundings."""
    return Stage(harness)


# Episodes.

def test_an_attempt_from_start_to_success(stage: Stage, policy: Path) -> None:
    """Nothing moves before ~/start; a SUCCESS stops the tool once; ~/start begins the next."""
    process = stage.start_active(policy, max_linear_m_s='0.0', frame_id='fr3_link0', **PATIENT)
    assert stage.wait_state('waiting') == 'waiting for ~/start'
    stage.harness.spin(0.5)
    assert not stage.twists and not stage.asked
    assert stage.call('start').success
    stage.wait_moves(4)
    assert stage.state == 'acting' and stage.asked == [TASK]
    refused = stage.call('start')
    assert not refused.success and '~/stop' in refused.message
    (chunk, *_), parts = stage.chunks, [p for p in stage.encoder.parts if p.name in PARTS]
    first = len(VIEWS) * sum(part.size for part in parts) + len(JOINTS)
    assert episode_of(chunk) == stage.episode and stamp_of(chunk) in stage.sent
    assert (chunk.names, chunk.units) == tuple(
        [one[key] for one in ACTIONS] for key in ('name', 'unit'))
    assert (chunk.bundle_sha256, chunk.execute) == (stage.encoder.bundle.sha256, 2)
    np.testing.assert_allclose(
        np.reshape(chunk.data, (-1, len(ACTIONS)))[:, 0], first + np.arange(4), rtol=1e-5)
    one, two = stage.twists[:2]
    assert one.header.frame_id == 'fr3_link0' and stamp_of(two) > stamp_of(one)
    # Metres in a tenth of a second.
    np.testing.assert_allclose([one.twist.linear.x, two.twist.linear.x],
                               [10.0 * first, 10.0 * (first + 1)], rtol=1e-5)
    assert stage.grips[0].data == pytest.approx(first)
    stage.decision = SuccessProbability.DECISION_SUCCESS
    assert stage.wait_state('waiting') == 'waiting for ~/start (success)'
    stage.wait_stop()
    many = len(stage.twists)
    stage.harness.spin(0.5)
    assert len(stage.twists) == many and len(stage.asked) == 1
    assert [bool(t.twist.linear.x) for t in stage.twists] == [True] * (many - 1) + [False]
    assert stage.call('start').success
    stage.wait_moves()
    assert stage.call('stop').success
    stage.wait_stop()
    assert stage.wait_state('waiting') == 'waiting for ~/start (stopped)'
    assert process.stop() == 0 and 'Traceback' not in process.output, process.output


def test_the_next_attempt_begins_by_itself(stage: Stage, policy: Path) -> None:
    """After a FAILURE the encoder is asked for the next episode, until somebody stops it."""
    stage.refuses = 'not configured: configure the node first'
    process = stage.start_active(policy, next_episode='start', **PATIENT)
    stage.wait_error('commands', 'not configured')
    assert not stage.twists
    stage.refuses = ''
    stage.wait_moves()
    before = stage.episode
    stage.decision = SuccessProbability.DECISION_FAILURE
    stage.harness.wait(lambda: stage.episode > before, 'the next episode', process)
    stage.wait_moves()
    assert not all(one.twist.linear.x for one in stage.twists)
    stage.harness.wait(lambda: stage.values().get('episodes_failure') == '1', 'the count', process)
    assert stage.call('stop').success
    stage.wait_state('waiting for ~/start')


def test_an_episode_that_somebody_else_begins(stage: Stage, policy: Path) -> None:
    """It goes on in that one, with a new chunk; under another instruction it holds."""
    stage.start_active(policy, **PATIENT)
    assert stage.call('start').success
    stage.wait_moves()
    stage.begin()
    stage.harness.wait(lambda: episode_of(stage.chunks[-1]) == stage.episode, 'its chunk',
                       stage.process)
    stage.harness.wait(lambda: stage.values().get('episodes_changed') == '1', 'the count',
                       stage.process)
    stage.begin('open the drawer')
    stage.wait_stop()
    assert "another instruction: 'open the drawer'" in stage.wait_state('hold')
    assert stage.last_move() < stage.harness.now()


def test_start_is_given_up_where_there_is_no_encoder(harness: Harness, policy: Path) -> None:
    """Guards against an arm that moves minutes later, when somebody starts the encoder."""
    arm = Arm(harness)
    process = arm.start_active(policy)
    assert arm.call('start').success
    assert 'no encoder offers' in arm.wait_error('commands', '/encoder/set_task')
    assert arm.wait_state('waiting') == 'waiting for ~/start'
    assert 'Traceback' not in process.output


# What must not move the arm.

def test_no_command_on_an_old_embedding(stage: Stage, policy: Path) -> None:
    """
    An encoder that ends: no command later than max_age_s after its last pixels, one stop.

    By the stamps of commands and embeddings, so that a busy machine does not matter.
    """
    process = stage.start_active(policy)
    assert stage.call('start').success
    for _ in range(2):
        stage.wait_moves()
        stage.alive = False
        stage.wait_stop()
        stage.wait_error('commands', 'older than 0.2 s')
        many = len(stage.twists)
        stage.harness.spin(0.5)
        assert len(stage.twists) == many and not stage.twists[-1].twist.linear.x
        assert 0 <= stage.last_move() - stage.sent[-1] <= MAX_AGE
        stage.alive = True
    # Of each command some embedding was young enough; and each stop was sent once.
    sent = np.array(stage.sent)
    for move in stage.moves():
        newest = sent[sent <= stamp_of(move)][-1]
        assert stamp_of(move) - newest <= MAX_AGE
    still = [not one.twist.linear.x for one in stage.twists]
    assert not any(one and two for one, two in zip(still, still[1:], strict=False))
    assert int(stage.values()['withheld_old_embedding']) > 0
    assert process.stop() == 0 and 'Traceback' not in process.output


def held(stage: Stage, policy: Path, **parameters: str) -> str:
    """Begin an attempt in which nothing may move; give what the node says."""
    stage.start_active(policy, **{**PATIENT, **parameters})
    assert stage.call('start').success
    said = stage.wait_state('hold: ')
    stage.harness.wait(lambda: any(
        key.startswith('withheld') and key != 'withheld_no_embedding' and int(n) > 3
        for key, n in stage.values().items()), 'the count', stage.process)
    assert not stage.twists and not stage.chunks
    assert stage.process is not None and 'Traceback' not in stage.process.output
    return stage.state or said


def test_other_embeddings_are_refused(stage: Stage, policy: Path) -> None:
    """Of ~/info, which tells what differs, and of each embedding; the bundle may be another."""
    lines = [line.replace('spatial.onnx: ', 'spatial.onnx: 0')
             for line in stage.encoder.identity.lines]
    stage.inform(embedding_sha256='f' * 64, ingredients=lines, bundle_path='/elsewhere')
    # From the start: an embedding on its way when ~/info is right again would be a good one.
    stage.changes = {'embedding_sha256': 'e' * 64}
    said = held(stage, policy)
    assert 'learnt from other embeddings' in said and '/elsewhere' in said
    assert 'basis of spatial and keypoints (spatial.onnx is 0' in said and 'visual' not in said
    stage.wait_error('policy', 'Load the bundle that it learnt from')
    stage.inform(bundle_sha256='f' * 64)
    stage.harness.wait(lambda: 'embedding_sha256 of the embedding is eeeeeeeeeeee' in stage.state,
                       'the reason', stage.process)
    assert not stage.twists
    stage.changes = {'bundle_sha256': 'f' * 64}
    stage.wait_moves()


def test_images_that_are_cropped_otherwise(stage: Stage, policy: Path) -> None:
    """Guards the arm against an encoder that shows things where they are not."""
    crops = [0.0, 0.0, 1.0, 1.0, 0.0, 0.25, 1.0, 1.0]
    stage.inform(view_crops=crops)
    said = held(stage, policy)
    assert 'images of third_person' in said and 'crop [0.0, 0.25, 1.0, 1.0]' in said
    stage.wait_error('policy', 'third_person.crop of the encoder')
    stage.inform(view_crops=crops[:5])
    stage.harness.wait(lambda: 'with what it does not tell' in stage.state, 'the reason',
                       stage.process)
    assert not stage.twists
    stage.inform()
    stage.wait_moves()
    # Of an encoder that has just taken its place: what it does to images is not known yet.
    stage.changes = {'configuration_id': time_of(stage.encoder.configuration_id + 1)}
    stage.wait_stop()
    assert 'the encoder was configured anew' in stage.wait_state('hold')
    stage.inform(**stage.changes)
    stage.wait_moves()


def test_another_precision_is_a_warning(stage: Stage, policy: Path) -> None:
    """The arm moves, and diagnostics say what is not known of it."""
    stage.inform(precision='int8', precision_cosine=0.9931)
    process = stage.start_active(policy, **PATIENT)
    assert stage.call('start').success
    stage.wait_moves()

    def warned() -> bool:
        found = stage.harness.statuses['/policy: policy']
        return found.level == found.WARN and 'with fp32 is 0.9931' in found.message

    stage.harness.wait(warned, 'the warning', process)
    assert 'the encoder runs int8, and the policy learnt from fp32' in process.output
    stage.inform()
    stage.harness.wait(lambda: not warned(), 'that it ends', process)


def test_a_policy_that_says_its_bundle_alone(stage: Stage, tmp_path: Path) -> None:
    """Guards policies of before: they take embeddings of their very bundle."""
    stage.inform(bundle_sha256='f' * 64, bundle_path='/elsewhere')
    # From the start, as above.
    stage.changes = {'bundle_sha256': 'e' * 64}
    said = held(stage, write_robot_policy(tmp_path / 'policy', embedding=None))
    assert 'learnt from the bundle' in said and '/elsewhere' in said
    stage.inform()
    stage.harness.wait(lambda: 'bundle_sha256 of the embedding is eeeeeeeeeeee' in stage.state,
                       'the reason', stage.process)
    assert not stage.twists
    stage.changes = {}
    stage.wait_moves()


def test_an_instruction_that_is_read_in_other_words(stage: Stage, tmp_path: Path) -> None:
    """Guards a part that attends to the instruction; one that does not goes on."""
    stage.changes = {'instruction_sha256': 'e' * 64}
    encoder = Encoder.load(robot_bundle(), provider='cpu', threads=1)
    parts = ('keypoints', 'task')
    said = held(stage, write_tiny_policy(
        tmp_path / 'policy', encoder, parts, VIEWS, actions=ACTIONS, proprio=PROPRIO))
    assert f"reads the instruction '{TASK}' in other words" in said
    stage.changes = {}
    stage.wait_moves()


@pytest.mark.parametrize(('changes', 'said'), [
    ({'view_valid': [True, False]}, 'without third_person'),
    ({'part_names': ['a', 'b', 'c']}, 'does not consist of what the encoder says'),
], ids=['view', 'parts'])
def test_an_embedding_that_is_not_whole(
    stage: Stage, policy: Path, changes: dict[str, Any], said: str,
) -> None:
    """Guards the arm against a camera that is left out, and against another layout."""
    stage.changes = changes
    assert said in held(stage, policy)


def test_proprioception_that_is_missing_or_old(stage: Stage, policy: Path) -> None:
    """One sentence names the joint and those that are there; old joint states stop the arm."""
    stage.names = JOINTS[:2]
    assert held(stage, policy, max_age_s='0.5') == (
        'hold: no joint joint_2 in the joint states; there are: joint_0, joint_1')
    stage.names = JOINTS
    stage.wait_moves()
    stage.names = ()
    stage.wait_stop()
    stage.wait_error('commands', 'the newest joint states are older than 0.5 s')


def test_deactivate_and_sigterm_stop_the_arm(stage: Stage, policy: Path) -> None:
    """Nothing moves once the transition has returned, or the process has ended."""
    process = stage.start_active(policy, **PATIENT)
    for step in ('deactivate', 'sigterm'):
        assert stage.call('start').success
        stage.wait_moves()
        if step == 'deactivate':
            assert stage.transition(Transition.TRANSITION_DEACTIVATE)
            stage.wait_stop()
            assert stage.wait_state('inactive')
            refused = stage.call('start')
            assert not refused.success and 'not active' in refused.message
            assert stage.transition(Transition.TRANSITION_ACTIVATE)
        else:
            assert process.stop(signal.SIGTERM) == 0
            stage.harness.wait(lambda: not stage.twists[-1].twist.linear.x, 'a stop')
    assert 'Traceback' not in process.output


# Policies that cannot be run.

@pytest.mark.parametrize(('values', 'said'), [
    (None, 'nowhere/policy.yaml: cannot be read'),
    ({'actions': [{'name': 'action_0'}, {'name': 'action_1'}]}, 'no robot takes the policy'),
    ({'actions': [{'name': 'tool.dx', 'unit': 'mm'}, ACTIONS[1]]}, 'needed is m or m/s'),
    ({'proprio': [{'name': 'gripper.width', 'unit': 'm'}, *PROPRIO[1:]]}, 'gripper_joints'),
    ({'graph_sha256': '0' * 64}, 'the file was damaged or replaced'),
], ids=['missing', 'names', 'units', 'gripper', 'damaged'])
def test_configure_refuses_what_it_cannot_run(
    harness: Harness, tmp_path: Path, values: dict[str, Any] | None, said: str,
) -> None:
    """One sentence in log and diagnostics; it can be configured again once the file is right."""
    arm = Arm(harness)
    folder = tmp_path / 'nowhere'
    if values is not None:
        write_robot_policy(folder, **values)
    process = arm.start(folder, autostart='true')
    text = arm.wait_error('policy', said)
    assert '\n' not in text and text in process.output and 'Traceback' not in process.output
    assert arm.lifecycle() == 'unconfigured'
    if values is None:
        write_robot_policy(folder)
        assert arm.transition(Transition.TRANSITION_CONFIGURE)
        assert arm.transition(Transition.TRANSITION_ACTIVATE)
        assert arm.transition(Transition.TRANSITION_DEACTIVATE)
        assert arm.transition(Transition.TRANSITION_CLEANUP)
        assert arm.lifecycle() == 'unconfigured'


def test_no_policy_is_named(harness: Harness) -> None:
    """The parameter is said, and that it needs a folder."""
    arm = Arm(harness)
    harness.start('policy', autostart='true')
    arm.wait_error('policy', 'parameter policy is empty')


# What else a robot has.

def test_a_policy_of_the_tools_pose(stage: Stage, tmp_path: Path) -> None:
    """As `hralign policy train` makes it of the simulated arm: three axes, pose, two fingers."""
    axes = [{'name': f'tool.d{axis}', 'unit': 'm'} for axis in 'xyz']
    felt = [{'name': f'tool.{axis}', 'unit': 'm'} for axis in 'xyz']
    row = sum(part.size for part in stage.encoder.parts if part.name in PARTS)
    policy = write_robot_policy(
        tmp_path / 'policy', actions=[*axes, ACTIONS[1]],
        proprio=[*felt, {'name': 'gripper.width', 'unit': 'm'}],
        graph=tiny_graph(len(VIEWS), row, proprio=4, actions=4))
    stage.start_active(policy, gripper_joints='[joint_0, joint_1]', tool_pose='tcp', **PATIENT)
    assert stage.call('start').success
    stage.harness.wait(lambda: stage.state == 'hold: no pose of the tool has come', 'a hold',
                       stage.process)
    publisher = stage.harness.node.create_publisher(PoseStamped, '/tcp', 10)

    def pose() -> None:
        message = PoseStamped()
        message.header.stamp = time_of(stage.harness.now())
        message.pose.position.z = 100.0
        publisher.publish(message)

    stage.harness.node.create_timer(0.05, pose)
    stage.wait_moves()
    first = len(VIEWS) * row + 102.0
    assert stage.grips[0].data == pytest.approx(first)
    linear, angular = stage.moves()[0].twist.linear, stage.moves()[0].twist.angular
    # In each axis the same, and together as fast as is allowed.
    np.testing.assert_allclose([linear.x, linear.y, linear.z], 0.25 / 3 ** 0.5, rtol=1e-5)
    assert (angular.x, angular.y, angular.z) == (0.0, 0.0, 0.0)
    stage.harness.wait(lambda: int(stage.values().get('limited', 0)) > 0, 'the count',
                       stage.process)


def test_a_policy_of_joint_velocities(stage: Stage, tmp_path: Path) -> None:
    """Joints by name; the stop is a message of zeros."""
    sent: list[JointState] = []
    stage.harness.node.create_subscription(JointState, '/policy/joints', sent.append, 100)
    policy = write_robot_policy(tmp_path / 'policy', actions=[
        {'name': f'joint.{name}', 'unit': 'rad/s'} for name in ('elbow', 'hand')])
    stage.start_active(policy, **PATIENT)
    assert stage.call('start').success
    stage.harness.wait(lambda: len(sent) > 2, 'commands', stage.process)
    stage.decision = SuccessProbability.DECISION_SUCCESS
    stage.harness.wait(lambda: list(sent[-1].velocity) == [0.0, 0.0], 'a stop', stage.process)
    assert list(sent[0].name) == ['elbow', 'hand'] and min(sent[0].velocity) > 0.0
    assert not sent[0].position and not stage.twists


# With the real encoder.

def test_with_an_encoder_that_decides(harness: Harness, tmp_path: Path) -> None:
    """Cameras, encoder and policy as processes: it acts on embeddings until SUCCESS is decided."""
    bundle = trapped_bundle(tmp_path / 'bundle')
    arm = Arm(harness)
    encoder = harness.start_active(bundle=str(bundle), threads='1', stuck_after_s='0.5')
    cameras = Cameras(harness)
    cameras.start()
    try:
        policy = arm.start_active(
            write_robot_policy(tmp_path / 'policy', bundle, task=TRAPPED_TASK), **PATIENT)
        assert arm.call('start').success
        assert arm.wait_state('waiting for ~/start (') == 'waiting for ~/start (success)'
        arm.wait_stop()
    finally:
        cameras.end()
    episode = episode_of(arm.chunks[-1])
    mine = [one for one in harness.successes if episode_of(one) == episode]
    assert [one for one in mine if one.decision == SuccessProbability.DECISION_SUCCESS]
    decided = next(one for one in mine if one.decision == SuccessProbability.DECISION_SUCCESS)
    assert arm.chunks[-1].bundle_sha256 == harness.infos[-1].bundle_sha256
    seen = {stamp_of(one) for one in harness.embeddings if episode_of(one) == episode}
    oldest = {min(view.sec * SECOND + view.nanosec for view in one.view_stamps)
              for one in harness.embeddings}
    assert {stamp_of(one) for one in arm.chunks} <= oldest and seen
    assert decided.task == TRAPPED_TASK
    for process in (policy, encoder):
        assert process.stop() == 0 and 'Traceback' not in process.output, process.output


# What is written about it.

def test_the_page_and_the_node_agree(stage: Stage, policy: Path) -> None:
    """Topics, services and parameters on the page are those of the running node."""
    page = PAGE.read_text('utf-8')
    stage.start_active(policy)
    documented = set(re.findall(r'\| `(~/\w+)` \|', page))
    assert len(documented) == 7

    def offered() -> dict[str, str]:
        return {name.replace('/policy/', '~/'): kind.replace('/msg/', '/').replace('/srv/', '/')
                for name, kind in stage.harness.offered('policy', 'publisher', 'service').items()}

    # This policy moves no joints.
    stage.harness.wait(lambda: documented - {'~/joints'} <= set(offered()), 'them', stage.process)
    for name, kind in offered().items():
        if name in documented:
            assert f'| `{name}` | {kind} |' in page
    for status in ('policy', 'commands'):
        assert f'| `/policy: {status}` |' in page
    listed = stage.harness.call(
        ListParameters, '/policy/list_parameters', ListParameters.Request()).result.names
    rows = policy_parameters.table()
    assert {name for name in listed if name in rows} == set(rows)


def test_its_parameter_file(stage: Stage, policy: Path) -> None:
    """The node takes every parameter of the file."""
    process = stage.harness.start('policy', arguments=(
        '--params-file', str(ROOT / 'config/policy.yaml'), '-p', f'policy:={policy}', '-p',
        'xyz:=1', '-p', 'autostart:=true'))
    stage.process = process
    stage.wait_state('waiting')
    assert process.output.count('and ignores: xyz\n') == 1, process.output
