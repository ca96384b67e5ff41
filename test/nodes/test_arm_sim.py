# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The simulated arm as a process, with a point in place of robosuite's arms."""

from collections.abc import Iterator
import math
from pathlib import Path
import subprocess
import sys
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from hralign_msgs.msg import SceneState
from hralign_msgs.srv import SetScene
from hralign_ros.nodes.arm_sim import quaternion
import numpy as np
import pytest
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger
from support.harness import Harness, NodeProcess, ROOT, stamp_of

PROGRAM = str(ROOT / 'test/support/point_world.py')
STEP_NS = 50_000_000
MANY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
SENSOR = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class Stage:
    """A simulated arm, what it publishes, and the commands of a test."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.came: dict[str, list[Any]] = {}
        for kind, topic, qos in (
                (SceneState, '/arm_sim/truth', MANY), (PoseStamped, '/tool_pose', MANY),
                (JointState, '/joint_states', MANY), (Clock, '/clock', MANY),
                (Image, '/wrist/image_raw', SENSOR), (Image, '/third_person/image_raw', SENSOR),
                (CameraInfo, '/wrist/camera_info', SENSOR),
                (PoseStamped, '/wrist/camera_pose', SENSOR)):
            store = self.came.setdefault(topic, [])
            harness.node.create_subscription(kind, topic, store.append, qos)
        self.twist = harness.node.create_publisher(TwistStamped, '/arm_sim/twist', MANY)
        self.gripper = harness.node.create_publisher(Float64, '/arm_sim/gripper', MANY)
        self.process: NodeProcess | None = None

    def start(self, **parameters: str) -> None:
        """Start the arm, and wait until all of it is there."""
        self.process = self.harness.start(PROGRAM, **parameters)
        self.harness.wait(lambda: all(self.came.values()), 'every topic', self.process)
        self.harness.wait(lambda: self.twist.get_subscription_count()
                          and self.gripper.get_subscription_count(), 'its ears', self.process)

    def move(self, x: float = 0.0, z: float = 0.0, frame: str = 'world') -> None:
        """Send a twist."""
        message = TwistStamped()
        message.header.frame_id = frame
        message.twist.linear.x, message.twist.linear.z = x, z
        self.twist.publish(message)

    @property
    def tool(self) -> list[float]:
        """Tell where the tool is."""
        place = self.came['/tool_pose'][-1].pose.position
        return [place.x, place.y, place.z]

    def value(self, key: str) -> str:
        """Read a value of the newest diagnostics."""
        return {pair.key: pair.value for pair in self.status().values}.get(key, '')

    def status(self) -> Any:
        """Give the newest diagnostics."""
        return self.harness.statuses['/arm_sim: simulation']

    def scene(self, seed: int, lab: str = '') -> SetScene.Response:
        """Set up a scene."""
        return self.harness.call(
            SetScene, '/arm_sim/set_scene', SetScene.Request(seed=seed, lab=lab))

    def wait(self, condition: Any, what: str) -> Any:
        """Wait for something."""
        return self.harness.wait(condition, what, self.process)


@pytest.fixture
def stage(harness: Harness) -> Iterator[Stage]:
    """Give a stage whose arm is not started yet."""
    yield Stage(harness)


def test_what_it_publishes(stage: Stage) -> None:
    """Every step is there, at equal distances of simulated time, with cameras that say how."""
    stage.start(seed='7')
    truths = stage.came['/arm_sim/truth']
    stage.wait(lambda: len(truths) > 20, 'a second of it')
    stamps = [stamp_of(one) for one in truths]
    assert {b - a for a, b in zip(stamps, stamps[1:], strict=False)} == {STEP_NS}
    assert {one.seed for one in truths} == {7} and truths[-1].task == 'lift the cube'
    times = [one.clock.sec * 10 ** 9 + one.clock.nanosec for one in stage.came['/clock']]
    assert times == sorted(set(times))
    joints = stage.came['/joint_states'][-1]
    assert joints.name == ['joint_1', 'finger_1', 'finger_2']
    assert sum(joints.position[1:]) == pytest.approx(0.08)
    image, info = stage.came['/wrist/image_raw'][-1], stage.came['/wrist/camera_info'][-1]
    assert image.header.frame_id == info.header.frame_id == 'wrist_optical_frame'
    assert (image.width, image.height, image.encoding) == (64, 48, 'rgb8')
    assert list(info.k) == [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0]
    assert stage.came['/wrist/camera_pose'][-1].header.frame_id == 'world'
    assert stage.process.stop() == 0 and 'Traceback' not in stage.process.output


def test_it_follows_and_holds(stage: Stage) -> None:
    """A twist is followed for a tenth of a second; then it waits for the next one, or holds."""
    stage.start()
    before = stage.tool
    stage.move(z=1.0)
    stage.wait(lambda: stage.tool[2] > before[2] + 0.09, 'the way up')
    stage.wait(lambda: stage.value('timeouts') == '1', 'the end of the command')
    assert stage.tool[2] == pytest.approx(before[2] + 0.1, abs=0.01)
    assert stage.tool[:2] == pytest.approx(before[:2])
    stage.wait(lambda: stage.came['/arm_sim/truth'][-1].accomplished, 'the truth')
    stage.gripper.publish(Float64(data=1.0))
    stage.wait(lambda: not any(stage.came['/joint_states'][-1].position[1:]), 'closed fingers')
    stage.move()
    stage.wait(lambda: stage.value('commands') == '2', 'the stop')
    # On a busy computer it may say that it is slow.
    assert stage.value('timeouts') == '1' and 'not followed' not in stage.status().message


def test_commands_that_are_not_followed(stage: Stage) -> None:
    """Along other axes, or not finite: refused and told, and the arm stays where it is."""
    stage.start()
    before = stage.tool
    stage.move(z=1.0, frame='base_link')
    stage.wait(lambda: stage.value('rejected') == '1', 'the first')
    stage.wait(lambda: "'base_link'" in stage.status().message, 'the reason')
    stage.move(z=math.nan)
    stage.wait(lambda: stage.value('rejected') == '2', 'the second')
    stage.gripper.publish(Float64(data=math.inf))
    stage.wait(lambda: 'gripper that is not finite' in stage.process.output, 'the third')
    assert stage.tool == before and stage.value('commands') == '0'
    assert 'Traceback' not in stage.process.output


def test_scenes(stage: Stage) -> None:
    """A seed is a scene: the same again, the next one by ~/reset; a wrong lab changes nothing."""
    stage.start()
    places = []
    for seed in (5, 6, 5):
        answer = stage.scene(seed)
        assert answer.accepted
        start = answer.start.sec * 10 ** 9 + answer.start.nanosec
        stage.wait(lambda start=start: stamp_of(stage.came['/tool_pose'][-1]) >= start, 'it')
        places.append(stage.tool)
    assert places[0] == places[2] != places[1]
    refused = stage.scene(9, 'kitchen')
    assert not refused.accepted and "'kitchen'" in refused.message and 'lab-2' in refused.message
    assert stage.harness.call(Trigger, '/arm_sim/reset', Trigger.Request()).success
    # Where the answer was slow to come, it was asked twice.
    stage.wait(lambda: stage.came['/arm_sim/truth'][-1].seed >= 6, 'the next scene')


def test_without_the_simulators(tmp_path: Path) -> None:
    """One sentence says what to do; where they are installed there is nothing to test."""
    pytest.importorskip('rclpy')
    program = 'import sys; sys.modules["robosuite"] = sys.modules["mujoco"] = None\n' \
        'from hralign_ros.nodes.arm_sim import main; sys.exit(main([]))'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 1 and 'make sim' in done.stderr and 'Traceback' not in done.stderr


def test_quaternions() -> None:
    """Guards all four ways: a turn by half a circle about each axis, and turns at random."""
    rng = np.random.default_rng(0)
    turns = [*np.eye(4), *rng.normal(size=(100, 4))]
    for wanted in turns:
        x, y, z, w = wanted = wanted / np.linalg.norm(wanted)
        matrix = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
        assert abs(float(np.dot(quaternion(matrix), wanted))) == pytest.approx(1.0)
