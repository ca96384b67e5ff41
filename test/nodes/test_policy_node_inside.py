# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The policy node in this process: what no message from outside can bring about."""

from collections.abc import Callable, Iterator
from pathlib import Path

from geometry_msgs.msg import TwistStamped
from hralign_msgs.msg import EncoderInfo, SuccessProbability, TaskEmbedding
from hralign_ros.nodes import conversions, policy_parameters
from hralign_ros.nodes.parameters import ParameterError
from hralign_ros.nodes.policy import PolicyNode
import pytest
import rclpy
from rclpy.clock import ClockType
from support.policy_stage import write_robot_policy


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., PolicyNode]]:
    """Give what makes an active policy node with these parameters."""
    folder = write_robot_policy(tmp_path / 'policy')
    made: list[PolicyNode] = []

    def node(**parameters: str) -> PolicyNode:
        words = [word for name, value in {'policy': str(folder), **parameters}.items()
                 for word in ('-p', f'{name}:={value}')]
        rclpy.init(args=['--ros-args', *words])
        made.append(PolicyNode())
        assert made[0].trigger_configure() == made[0].trigger_activate()
        assert made[0].state_label == 'active'
        return made[0]

    yield node
    for one in made:
        one.destroy_node()
    rclpy.try_shutdown()


def twists_of(node: PolicyNode, monkeypatch: pytest.MonkeyPatch) -> list[TwistStamped]:
    """Keep what is sent, as of a tool that moves."""
    sent: list[TwistStamped] = []
    monkeypatch.setattr(node._outputs['~/twist'], 'publish', sent.append)
    assert node._loop is not None
    node._loop.moving = True
    return sent


def test_a_fault_of_ours_stops_the_tool(
    make: Callable[..., PolicyNode], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Guards the arm against an exception that nobody thought of.

    A callback that fails is logged, and the node goes on: with fresh embeddings nothing looked
    wrong, and the command before stayed in force.
    """
    node = make()
    sent = twists_of(node, monkeypatch)

    def fail() -> None:
        raise RuntimeError('of ours')

    monkeypatch.setattr(node._loop, 'step', fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match='of ours'):
            node._step()
    (stop,) = sent
    assert stop.twist.linear.x == 0.0


def test_shutdown_stops_the_tool(
    make: Callable[..., PolicyNode], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stop goes out before the topic goes."""
    node = make()
    sent = twists_of(node, monkeypatch)
    node.trigger_shutdown()
    assert node.state_label == 'finalized' and len(sent) == 1 and not node._outputs


@pytest.mark.parametrize(('simulated', 'kind'), [
    ('false', ClockType.STEADY_TIME), ('true', ClockType.ROS_TIME)])
def test_the_period_is_not_of_a_clock_that_is_set_back(
    make: Callable[..., PolicyNode], simulated: str, kind: ClockType,
) -> None:
    """
    Guards against a correction of the system clock: for so long no command came, and no word.

    Simulated time is another matter: what moves in it moves by it.
    """
    periods = make(use_sim_time=simulated)._periodic
    assert periods[0].clock.clock_type == kind
    assert periods[1].clock.clock_type == ClockType.STEADY_TIME


def test_a_success_is_not_overwritten(make: Callable[..., PolicyNode]) -> None:
    """
    Guards the end of an attempt: an ABSTAIN may follow the SUCCESS while the policy is asked.

    Of embeddings the newest alone counts.
    """
    depths = {one.topic_name: one.qos_profile.depth for one in make()._inputs}
    assert depths['/encoder/success'] == 10 and depths['/encoder/embedding'] == 1


def test_two_encoders_are_told(make: Callable[..., PolicyNode]) -> None:
    """Guards against embeddings of two benches on one topic, of one bundle and instruction."""
    node = make()
    for kind, name in ((TaskEmbedding, 'embedding'), (SuccessProbability, 'success'),
                       (EncoderInfo, 'info')):
        node.create_publisher(kind, f'/encoder/{name}', 1)
    node._look_for_rivals()
    assert 'encoders' not in node._faults.lasting()
    node.create_publisher(TaskEmbedding, '/encoder/embedding', 1)
    node._look_for_rivals()
    text = node._faults.lasting()['encoders']
    assert text.startswith('several encoders publish on /encoder/embedding: ')
    assert text in node._statuses()[0].message


def test_a_frame_has_to_be_named() -> None:
    """Guards the direction: moveit_servo takes a twist without a frame along axes of its own."""
    values = {name: row.default for name, row in policy_parameters.table().items()}
    values['policy'] = 'policies/lift'
    policy_parameters.check(values)
    with pytest.raises(ParameterError, match='frame_id is empty; needed is the frame'):
        policy_parameters.check({**values, 'frame_id': ''})


@pytest.mark.parametrize(('pooling', 'attends'), [
    (TaskEmbedding.POOLING_ATTENTION, True), (TaskEmbedding.POOLING_MEAN, False)])
def test_pooling_is_read(pooling: int, attends: bool) -> None:
    """Of the message itself: an encoder without an instruction pools by the mean, too."""
    assert conversions.seen_of(TaskEmbedding(pooling=pooling)).attends == attends
