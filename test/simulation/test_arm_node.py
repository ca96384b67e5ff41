# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The simulated arm's cameras and joints, and the node with a real arm in it."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip('robosuite', reason='the simulators are not installed')

from hralign_ros.simulation.arm import ArmWorld, SIZE  # noqa: E402, I100
import numpy as np  # noqa: E402, I100


@pytest.fixture(scope='module', params=['panda', 'ur5e'])
def world(request):
    world = ArmWorld('lift', request.param)
    yield world
    world.close()


def seen_at(camera, point):
    """Project a point of the world into an image, pixels."""
    x, y, z = camera.rotation.T @ (point - camera.position)
    return np.array([camera.focal * x / z + SIZE[0] / 2, camera.focal * y / z + SIZE[1] / 2]), z


def test_cameras_see_the_object_where_they_say(world):
    """
    Guards camera_info and the cameras' poses: the object is where they project it to.

    Where it is in the image, the difference to an image without it tells.
    """
    for seed in (1, 2, 3):
        world.reset(seed)
        thing, cameras = world.state()[4:], world.cameras()
        images = world.images()
        data = world._environment.sim.data._data
        address = data.joint(world._environment.cube.joints[0]).qpos
        before = address.copy()
        address[2] -= 5.0
        empty = world.images()
        address[:] = before
        for view, camera in cameras.items():
            assert np.allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-6)
            assert np.linalg.det(camera.rotation) == pytest.approx(1.0)
            changed = np.abs(images[view].astype(int) - empty[view]).sum(axis=2) > 30
            place, depth = seen_at(camera, thing)
            inside = all(0 <= p < s for p, s in zip(place, SIZE, strict=True))
            assert depth > 0 and (changed.sum() > 20) == inside, (view, seed, place)
            if inside:
                rows, columns = np.nonzero(changed)
                found = np.array([columns.mean(), rows.mean()])
                # The fingers hide some of it, and its near side is larger.
                assert np.linalg.norm(found - place) < 12, (view, seed, found, place)


def test_a_move_in_steps_is_an_action(world):
    """Guards the node against the in-process loop: both follow one command alike."""
    action, states = np.array([0.03, 0.0, -0.04, -1.0]), []
    world.reset(4)
    for _ in range(5):
        world.act(action)
    states.append(world.state())
    world.reset(4)
    for _ in range(5):
        world.move(action[:3], action[3])
        world.step()
        world.step()
    states.append(world.state())
    assert np.array_equal(*states) and world.time_s == pytest.approx(0.5)
    assert len(world.joints()) == {'panda': 7, 'ur5e': 6}[world.embodiment]
    assert np.linalg.det(world.tool_rotation()) == pytest.approx(1.0)


def test_the_node_with_an_arm(tmp_path):
    """Guards `arm_sim` as users start it: images of both cameras come, and it ends when asked."""
    rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not beside the simulators')
    pytest.importorskip('hralign_msgs', reason='the messages are not built or not sourced')
    from rclpy.node import Node
    from sensor_msgs.msg import Image

    with open(tmp_path / 'log', 'wb') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'hralign_ros.nodes.arm_sim', '--ros-args', '-p', 'arm:=ur5e'],
            stdout=log, stderr=subprocess.STDOUT, env=os.environ)
    context = rclpy.Context()
    rclpy.init(context=context)
    node, came = Node('watcher', context=context), {}
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        for view in ('wrist', 'third_person'):
            node.create_subscription(
                Image, f'{view}/image_raw', lambda message, view=view: came.setdefault(
                    view, []).append(message), rclpy.qos.qos_profile_sensor_data)
        end = time.monotonic() + 120
        while len(came) < 2 or min(map(len, came.values())) < 5:
            assert time.monotonic() < end and process.poll() is None, \
                (tmp_path / 'log').read_text()
            executor.spin_once(timeout_sec=0.1)
        assert all(np.ptp(message.data) > 50 for images in came.values() for message in images)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(60)
        finally:
            process.kill()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    assert code == 0
