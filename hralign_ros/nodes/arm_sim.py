# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A simulated arm with two cameras: what a policy node drives where no robot is at hand.

It runs in the virtual environment of the simulators. Simulated time goes at the pace of the
system's or at a fraction of it, and slower where the computer cannot keep up: every step of the
simulation is drawn and published, none is left out.
"""

from collections import Counter
import math
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from hralign_ros.nodes.conversions import image_message, ns_to_stamp
from hralign_ros.nodes.diagnostics import OK, status, WARN
from hralign_ros.nodes.interfaces import SceneState, SetScene
from hralign_ros.nodes.parameters import declared, Parameter
from hralign_ros.nodes.process import run_node
from hralign_ros.nodes.rclpy_compatibility import LOGGER_SERVICE
from hralign_ros.runtime.errors import DataError, HralignError
from hralign_ros.runtime.faults import Faults
import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

Floats = NDArray[np.float64]

PARAMETERS = (
    Parameter('task', 'lift', 'Task of the simulation.', choices=('lift', 'pick-can')),
    Parameter('arm', 'panda', 'Arm of the simulation.',
              choices=('panda', 'ur5e', 'kinova3', 'iiwa')),
    Parameter('lab', 'lab-1', 'How everything looks: lab-<number>; lab-<number>@<change>: with '
              'one thing changed.'),
    Parameter('seed', 100_000, 'Of the first scene.', 0, 2 ** 32 - 1),
    Parameter('speed', 1.0, 'Of simulated time against that of the system.', 0.01, 10.0),
    Parameter('command_timeout_s', 0.2, 'The arm holds when no command has come for so long, in '
              'simulated time [s].', 0.05, 10.0),
)
FRAME = 'world'
# A twist is followed for so long, as a policy of 10 Hz means it [s].
_REACH_S = 0.1
# /clock between two steps of the simulation [s].
_TICK_S = 0.01
_REPORT_S = 1.0
# Slower than this part of the speed that was asked for is told.
_SLOW = 0.95
# Simulated time does not begin with 0, which many take for "no stamp" [ns].
_BEGIN = 1_000_000_000
_SECOND = 1_000_000_000
# So late, the simulation does not hurry to catch up [s].
_LATE_S = 0.1
# Who listens on a busy computer gets each step all the same.
_RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_ONE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ArmSim(Node):
    """
    Step the simulation, publish what its sensors see, and follow commands.

    :param simulation: a module with ArmWorld and STEP_S, as simulation.arm has them; None: that.
    :raises ParameterError: a parameter has a value that cannot be used.
    :raises DataError: the simulators are not installed; unknown lab.
    """

    def __init__(self, simulation: Any = None) -> None:
        super().__init__('arm_sim', **LOGGER_SERVICE)
        self._values = values = declared(self, PARAMETERS)
        simulation = simulation or _simulation()
        self._world = simulation.ArmWorld(values['task'], values['arm'], values['lab'])
        self._step_s = float(simulation.STEP_S)
        self._faults = Faults(
            on_begin=lambda key, text: self.get_logger().warning(text),
            on_end=lambda key: self.get_logger().info(f'recovered: {key}'))
        self._counts: Counter[str] = Counter()
        # Simulated time at the last step [ns], and when that was on the system's clock [s].
        self._now, self._stepped, self._told = _BEGIN, 0.0, 0
        self._seed = int(values['seed'])
        # When the last command came, simulated time [ns]; None: the arm holds.
        self._commanded: int | None = None
        self._gripper = -1.0
        self._pace: list[tuple[float, int]] = []
        self._images = {}
        self._infos = {}
        self._places = {}
        for view in ('wrist', 'third_person'):
            self._images[view] = self.create_publisher(
                Image, f'{view}/image_raw', qos_profile_sensor_data)
            self._infos[view] = self.create_publisher(
                CameraInfo, f'{view}/camera_info', qos_profile_sensor_data)
            self._places[view] = self.create_publisher(
                PoseStamped, f'{view}/camera_pose', _LATCHED)
        self._clock_publisher = self.create_publisher(ClockMessage, '/clock', _ONE)
        self._joints = self.create_publisher(JointState, 'joint_states', _RELIABLE)
        self._pose = self.create_publisher(PoseStamped, 'tool_pose', _RELIABLE)
        self._truth = self.create_publisher(SceneState, '~/truth', _RELIABLE)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self.create_subscription(TwistStamped, '~/twist', self._on_twist, _ONE)
        self.create_subscription(Float64, '~/gripper', self._on_gripper, _ONE)
        self.create_service(SetScene, '~/set_scene', self._on_set_scene)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self._world.reset(self._seed)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_TICK_S, self._tick, clock=steady)
        self.create_timer(_REPORT_S, self._report, clock=steady)
        self.get_logger().info(
            f"'{self._world.task.text}' with {values['arm']} in {values['lab']}, scene "
            f'{self._seed}, {1.0 / self._step_s:g} images a second of simulated time')

    # Time.

    def _tick(self) -> None:
        """Step when it is time to, and tell what time it is."""
        now, step = time.monotonic(), self._step_s / self._values['speed']
        if now - self._stepped >= step:
            # On time if it can be; what was lost is not made up for.
            late = now - self._stepped - step
            self._stepped = now - late if late < _LATE_S else now
            self._step()
        else:
            since = min((now - self._stepped) / step, 0.99)
            self._tell_clock(self._now + int(since * self._step_s * _SECOND))

    def _step(self) -> None:
        """Let one step of simulated time go by, and publish what there is to see then."""
        self._now += round(self._step_s * _SECOND)
        timeout = self._values['command_timeout_s'] * _SECOND
        if self._commanded is not None and self._now - self._commanded > timeout:
            self._hold()
            self._counts['timeouts'] += 1
        self._world.step()
        self._counts['steps'] += 1
        # Before the images, which would otherwise be ahead of it.
        self._tell_clock(self._now)
        self._tell_state()
        self._tell_images()

    def _tell_clock(self, told: int) -> None:
        if told > self._told:
            self._told = told
            self._clock_publisher.publish(ClockMessage(clock=ns_to_stamp(told)))

    def _tell_state(self) -> None:
        world, stamp = self._world, ns_to_stamp(self._now)
        state = world.state()
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = stamp, FRAME
        fill_pose(pose, state[:3], world.tool_rotation())
        self._pose.publish(pose)
        joints = world.joints()
        # Of whatever gripper: two fingers, each half as far out as they are apart.
        fingers = {'finger_1': float(state[3]) / 2.0, 'finger_2': float(state[3]) / 2.0}
        message = JointState(
            name=[*joints, *fingers],
            position=[*(place for place, _ in joints.values()), *fingers.values()],
            velocity=[*(speed for _, speed in joints.values()), *(math.nan for _ in fingers)])
        message.header.stamp = stamp
        self._joints.publish(message)
        truth = SceneState(
            task=world.task.text, seed=self._seed, accomplished=bool(world.accomplished),
            elapsed=Duration(seconds=world.time_s).to_msg(),
            limit=Duration(seconds=world.limit_s).to_msg())
        truth.header.stamp = stamp
        self._truth.publish(truth)

    def _tell_images(self) -> None:
        """Publish both images with what is known of their cameras."""
        cameras = self._world.cameras()
        for view, image in self._world.images().items():
            frame, camera = f'{view}_optical_frame', cameras[view]
            message = image_message(image, self._now, frame)
            info = CameraInfo(
                header=message.header, height=image.shape[0], width=image.shape[1],
                distortion_model='plumb_bob', d=[0.0] * 5, r=np.eye(3).ravel().tolist())
            x, y = image.shape[1] / 2.0, image.shape[0] / 2.0
            info.k = [camera.focal, 0.0, x, 0.0, camera.focal, y, 0.0, 0.0, 1.0]
            info.p = [camera.focal, 0.0, x, 0.0, 0.0, camera.focal, y, 0.0, 0.0, 0.0, 1.0, 0.0]
            place = PoseStamped(header=message.header)
            place.header.frame_id = FRAME
            fill_pose(place, camera.position, camera.rotation)
            self._places[view].publish(place)
            info.header.frame_id = frame
            self._infos[view].publish(info)
            message.header.frame_id = frame
            self._images[view].publish(message)

    # Commands.

    def _on_twist(self, message: TwistStamped) -> None:
        """Follow a velocity of the tool for a tenth of a second."""
        linear, angular = message.twist.linear, message.twist.angular
        way = np.array([linear.x, linear.y, linear.z])
        turn = np.array([angular.x, angular.y, angular.z])
        problem = ''
        if message.header.frame_id != FRAME:
            problem = (f"a twist along the axes of '{message.header.frame_id}' is not followed; "
                       f"needed is '{FRAME}' (the policy's parameter frame_id)")
        elif not (np.isfinite(way).all() and np.isfinite(turn).all()):
            problem = 'a twist that is not finite is not followed'
        self._faults.note('twist', problem)
        if problem:
            self._counts['rejected'] += 1
            return
        self._faults.note('angular', '' if not turn.any() else (
            'this arm keeps its hand pointing down: the angular part of twists is ignored'))
        self._counts['commands'] += 1
        self._commanded = self._now if way.any() else None
        self._world.move(_REACH_S * way, self._gripper)

    def _on_gripper(self, message: Float64) -> None:
        """Open below 0, close above it; another motion of the arm goes on."""
        if not math.isfinite(message.data):
            self._faults.note('gripper', 'a command of the gripper that is not finite is ignored')
            return
        self._faults.note('gripper', '')
        self._gripper = message.data
        self._world.grip(message.data)

    def _hold(self) -> None:
        self._commanded = None
        self._world.move(np.zeros(3), self._gripper)

    # Scenes.

    def _on_set_scene(
        self, request: SetScene.Request, response: SetScene.Response,
    ) -> SetScene.Response:
        try:
            self._set_scene(int(request.seed), request.lab)
        except HralignError as error:
            response.message = f'refused: {error}'
            return response
        response.accepted = True
        response.message = f'scene {self._seed}'
        response.start = ns_to_stamp(self._now + round(self._step_s * _SECOND))
        return response

    def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        self._set_scene((self._seed + 1) % 2 ** 32, '')
        response.success, response.message = True, f'scene {self._seed}'
        return response

    def _set_scene(self, seed: int, lab: str) -> None:
        if lab:
            self._world.enter(lab)
        self._seed, self._commanded, self._gripper = seed, None, -1.0
        self._world.reset(seed)
        self._counts['scenes'] += 1

    # What is told.

    def _report(self) -> None:
        self._pace = [*self._pace[-9:], (time.monotonic(), self._now)]
        (begin, first), (end, last) = self._pace[0], self._pace[-1]
        factor = (last - first) / _SECOND / (end - begin) if end > begin else math.nan
        slow = len(self._pace) > 2 and factor < _SLOW * self._values['speed']
        self._faults.note('slow', '' if not slow else (
            f"simulated time goes at {factor:.2f} of the system's, and "
            f'{self._values["speed"]:g} was asked for: this computer is too busy. Nothing is left '
            'out, but whoever computes beside it sees more time go by; lower the parameter speed'))
        self._faults.settle()
        faults = '; '.join(self._faults.lasting().values())
        message = DiagnosticArray(status=[status(
            self.get_fully_qualified_name(), 'simulation', WARN if faults else OK,
            faults or f'scene {self._seed}', {
                'real_time_factor': factor, 'scene': self._seed,
                'accomplished': bool(self._world.accomplished), **{
                    name: self._counts[name]
                    for name in ('steps', 'scenes', 'commands', 'rejected', 'timeouts')}})])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def destroy_node(self) -> None:
        """Free the simulator."""
        self._world.close()
        super().destroy_node()


def fill_pose(message: PoseStamped, position: Floats, rotation: Floats) -> None:
    """
    Write a pose into a message.

    :param position: [3] metres.
    :param rotation: [3, 3], proper.
    """
    place, turned = message.pose.position, message.pose.orientation
    place.x, place.y, place.z = map(float, position)
    turned.x, turned.y, turned.z, turned.w = quaternion(rotation)


def quaternion(rotation: Floats) -> tuple[float, float, float, float]:
    """
    Turn a rotation matrix into a unit quaternion x, y, z, w.

    Of the four ways that of the largest number under a root is taken (Shepperd, 1978).
    """
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    squares = (1.0 + a - e - i, 1.0 - a + e - i, 1.0 - a - e + i, 1.0 + a + e + i)
    rows = ((squares[0], b + d, c + g, h - f), (b + d, squares[1], f + h, c - g),
            (c + g, f + h, squares[2], d - b), (h - f, c - g, d - b, squares[3]))
    row = np.array(rows[int(np.argmax(squares))])
    x, y, z, w = (row / np.linalg.norm(row)).tolist()
    return x, y, z, w


def _simulation() -> Any:
    """
    Import the simulated arm.

    :raises DataError: its simulators are not installed here.
    """
    try:
        from hralign_ros.simulation import arm
    except ImportError as error:
        raise DataError(
            f'the simulators are not installed here ({error}): `make sim` makes .venv-sim, and '
            '.venv-sim/bin/arm_sim starts this node with them') from error
    return arm


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run_node('arm_sim', ArmSim, arguments)


if __name__ == '__main__':
    sys.exit(main())
