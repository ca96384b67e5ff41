# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Other nodes that do what they should not: publish twice, ask for too much, sleep, or crash."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hralign_msgs.msg import TaskEmbedding
import pytest
import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from support.robot import BOTH, endure, Robot, Row, SECOND, Shot, THIRD, WRIST

Change = Callable[[], None]


def second_camera(robot: Robot) -> tuple[Change, Change]:
    """Have another driver on the wrist camera's topic; both send."""
    made: list[Any] = []

    def begin() -> None:
        publisher = robot.harness.node.create_publisher(Image, f'/{WRIST}/image_raw', 2)
        made.append(publisher)
        original = robot.cameras.sends[WRIST]

        def send(shot: Shot) -> Any:
            # Its frames are of the same moments, a little later.
            message = shot.message()
            stamp = shot.stamp + 1_000_000
            robot.cameras.taken[WRIST].setdefault(stamp, shot.stamp)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
            publisher.publish(message)
            return original(shot)

        robot.cameras.sends[WRIST] = send
        made.append(original)

    def end() -> None:
        robot.cameras.sends[WRIST] = made[1]
        robot.harness.node.destroy_publisher(made[0])

    return begin, end


def demanding_consumer(robot: Robot, **asked: Any) -> tuple[Change, Change]:
    """Have a consumer that asks for what is not on offer."""
    made: list[Any] = []

    def begin() -> None:
        made.append(robot.harness.node.create_subscription(
            TaskEmbedding, '/encoder/embedding', lambda message: None, QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE, **asked)))

    return begin, lambda: robot.harness.node.destroy_subscription(made[0]) and None


def sleeping_consumer(robot: Robot) -> tuple[Change, Change]:
    """Have a consumer that never takes what it is sent."""
    made: list[Any] = []

    def begin() -> None:
        context = Context()
        rclpy.init(context=context)
        node = Node('sleeper', context=context)
        node.create_subscription(
            TaskEmbedding, '/encoder/embedding', lambda message: None,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE))
        made.extend((context, node))

    def end() -> None:
        made[1].destroy_node()
        rclpy.try_shutdown(context=made[0])

    return begin, end


def restarting_driver(robot: Robot) -> tuple[Change, Change]:
    """Have a camera driver that is started anew every moment."""
    def send(shot: Shot) -> Any:
        if shot.index % 5 == 0:
            robot.cameras.connect(THIRD)
        return before(shot)

    before = robot.cameras.sends[THIRD]
    return (lambda: robot.cameras.sends.update({THIRD: send}),
            lambda: robot.cameras.sends.update({THIRD: before}))


FAULTS = {
    'two publishers on one image topic': (second_camera, '2 publishers on'),
    'a consumer asks for durability that is not offered': (
        partial(demanding_consumer, durability=DurabilityPolicy.TRANSIENT_LOCAL), 'DURABILITY'),
    'a consumer asks for a deadline that is not offered': (
        partial(demanding_consumer, deadline=Duration(seconds=1)), 'DEADLINE'),
    'a consumer never takes what it is sent': (sleeping_consumer, ''),
    'a camera driver restarts twice a second': (restarting_driver, ''),
}


@pytest.mark.parametrize('name', FAULTS)
def test_fault_of_another_node(robot: Robot, rows: list[Row], name: str) -> None:
    """It is named where something can be done about it, and results go on."""
    make, says = FAULTS[name]
    # Frames of two cameras come out of order now and then, and each time that is said.
    row = endure(robot, name, *make(robot), views=BOTH, says=says, most=8)
    rows.append(row)
    assert row.recovery_s is not None and (row.recovery_s < 1.0 or row.busy)


def test_nobody_listens(robot: Robot, rows: list[Row]) -> None:
    """Without a consumer the node goes on, and whoever comes back gets the newest result."""
    robot.steady()
    harness, kept = robot.harness, []
    for subscription in list(harness.node.subscriptions):
        if subscription.topic_name.startswith('/encoder/'):
            kept.append(subscription)
            harness.node.destroy_subscription(subscription)
    robot.harness.spin(1.5)
    ended = harness.now()
    harness.subscribe()
    robot.wait(lambda: robot.sees(BOTH, ended), 'results for who came back')
    rows.append(Row('nobody listens', 'continues with both views', '',
                    (harness.now() - ended) / SECOND, 0))
    assert kept
