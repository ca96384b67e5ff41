# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
An arm at a table, to which things are added, and its control.

Robosuite's arms, grippers and table. Their motors are replaced by joint servos with gravity
compensation, so that MuJoCo does all steps between two commands in one call: about ten times as
fast as a controller in Python.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from hralign_ros.simulation.behaviour import CLOSED, OPEN
from hralign_ros.simulation.hand import Grip
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ARMS = {'panda': 'Panda', 'ur5e': 'UR5e', 'sawyer': 'Sawyer', 'xarm7': 'XArm7',
        'iiwa': 'IIWA'}
CONTROL_HZ = 20
TABLE_M = 0.8
# Commands of the servos within a step of control.
_TICKS = 2
_TIMESTEP = 0.0025
# Of a gripper, from open to closed, seconds.
_CLOSING_S = 0.35
# Stiffness per newton metre that a motor has, and damping as a part of that.
_STIFFNESS, _DAMPING = 40.0, 0.1
_DAMPED = 0.05
# The links of the UR5e's usual gripper weigh nearly nothing: it throws what it holds.
_GRIPPERS = {'ur5e': 'Robotiq140Gripper'}
# Sawyer's first link rests on its base, and would stick to it.
_TOUCHING = (('robot0_right_l0', 'robot0_right_arm_base_link'),)
SITE = 'gripper0_right_grip_site'
_MOST_RAD = 0.12


@dataclass(frozen=True)
class ArmModel:
    """
    An arm at an empty table.

    :param xml: of the arm, its gripper and the table.
    :param motors: names of the actuators of the joints.
    :param fingers: names of the gripper's actuators.
    :param rest: [joints] the arm's own initial position.
    :param at: [fingers] commands of the gripper opened and closed, each -1 to 1 of its range.
    :param pads: names of the geoms that grip, of either side.
    """

    xml: str
    motors: tuple[str, ...]
    fingers: tuple[str, ...]
    rest: tuple[float, ...]
    at: tuple[tuple[float, ...], tuple[float, ...]]
    pads: tuple[tuple[str, ...], tuple[str, ...]]


@cache
def read_arm(embodiment: str) -> ArmModel:
    """Read an arm of robosuite; one of ARMS."""
    from robosuite.models.arenas import TableArena
    from robosuite.models.bases import robot_base_factory
    from robosuite.models.grippers import gripper_factory
    from robosuite.models.robots import create_robot
    from robosuite.models.tasks import ManipulationTask

    robot = create_robot(ARMS[embodiment], idn=0)
    gripper = gripper_factory(
        _GRIPPERS.get(embodiment, robot.default_gripper['right']), idn='0_right')
    robot.add_gripper(gripper, robot.eef_name['right'])
    robot.add_base(robot_base_factory(robot.default_base, idn='0'))
    robot.set_base_xpos(robot.base_xpos_offset['table'](0.8))
    arena = TableArena(table_full_size=(0.8, 0.8, 0.05), table_offset=(0.0, 0.0, TABLE_M))
    arena.set_origin([0, 0, 0])
    xml = ManipulationTask(
        mujoco_arena=arena, mujoco_robots=[robot], mujoco_objects=[]).get_xml()
    ends = []
    for command in (OPEN, CLOSED):
        for _ in range(400):  # some go there by and by
            end = gripper.format_action(np.array([command] * gripper.dof))
        ends.append(tuple(float(x) for x in np.atleast_1d(end)))
    geoms = gripper.important_geoms
    # XArm7's are named otherwise than its gripper says.
    pads = tuple(tuple(name if f'"{name}"' in xml else f'gripper0_right_{side}_finger_pad_1'
                       for name in geoms[f'{side}_fingerpad']) for side in ('left', 'right'))
    return ArmModel(xml, tuple(robot.actuators), tuple(gripper.actuators),
                    tuple(robot.init_qpos), (ends[0], ends[1]), (pads[0], pads[1]))


def arm_spec(arm: ArmModel) -> Any:
    """Make the specification of an arm with joint servos at an empty table."""
    spec = mujoco.MjSpec.from_string(arm.xml)
    spec.option.timestep = _TIMESTEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    for body in spec.bodies:
        if body.name.startswith(('robot0', 'gripper0', 'fixed_mount', 'mount0', 'rethink')):
            body.gravcomp = 1.0
    for motor in spec.actuators:
        if motor.name in arm.motors:
            most = float(motor.ctrlrange[1])
            stiffness = _STIFFNESS * most
            motor.forcerange = [-most, most]
            motor.forcelimited = True
            motor.ctrllimited = False
            motor.gainprm[0] = stiffness
            motor.biastype = mujoco.mjtBias.mjBIAS_AFFINE
            motor.biasprm[1], motor.biasprm[2] = -stiffness, -_DAMPING * stiffness
    for pair in _TOUCHING:
        if all(spec.body(name) is not None for name in pair):
            spec.add_exclude(bodyname1=pair[0], bodyname2=pair[1])
    return spec


class Arm:
    """
    The arm of a compiled model: where its hand is, and how it gets elsewhere.

    :param model: compiled from arm_spec and things.
    """

    def __init__(self, arm: ArmModel, model: Any, data: Any) -> None:
        self._model, self._data, self._thought = model, data, mujoco.MjData(model)
        self._motors = np.array([model.actuator(n).id for n in arm.motors])
        joints = model.actuator_trnid[self._motors, 0]
        self._dofs, self._places = model.jnt_dofadr[joints], model.jnt_qposadr[joints]
        limited = model.jnt_limited[joints].astype(bool)
        margin = 0.03
        self._low = np.where(limited, model.jnt_range[joints, 0] + margin, -np.inf)
        self._high = np.where(limited, model.jnt_range[joints, 1] - margin, np.inf)
        self._rest = np.array(arm.rest)
        fingers = np.array([model.actuator(n).id for n in arm.fingers])
        self._fingers = fingers
        low, high = model.actuator_ctrlrange[fingers].T
        self._opened, self._closed = ((low + high + (high - low) * np.array(end)) / 2
                                      for end in arm.at)
        self._site = model.site(SITE).id
        self._pads = [[model.geom(n).id for n in side] for side in arm.pads]
        self._goal = self._rest.copy()
        self._shut = 0.0
        self.axis_deg = 0.0

    @property
    def position(self) -> Floats:
        """Return where the fingers' middle is."""
        return np.array(self._data.site_xpos[self._site])

    def begin(self, position: Floats) -> None:
        """Put the hand to a position, pointing down, opened, at once."""
        data = self._data
        data.qpos[self._places] = self._rest
        self._goal, self._shut = self._rest.copy(), 0.0
        mujoco.mj_kinematics(self._model, data)
        self._forward = forward_deg(data.site_xmat[self._site].reshape(3, 3))
        # From the hand's own direction to the axis of its fingers, both seen from above.
        axis = self._axis(data)
        self.axis_deg = float(np.rad2deg(np.arctan2(axis[1], axis[0]))) - self._forward
        for _ in range(150):
            self._approach(position, self._forward)
        data.qpos[self._places] = self._goal
        data.ctrl[self._motors] = self._goal
        data.ctrl[self._fingers] = self._opened

    def jump(self, position: Floats, turn_deg: float, approaches: int) -> None:
        """Put the hand to a pose at once, from where it is, in so many steps of thought."""
        for _ in range(approaches):
            self._approach(position, turn_deg)
        self._data.qpos[self._places] = self._goal
        self._data.qvel[:] = 0.0
        self._data.ctrl[self._motors] = self._goal

    def turn_for(self, axis_deg: float, near_deg: float) -> float:
        """Return how the hand is turned whose fingers lie on an axis, the nearer of two ways."""
        turn = axis_deg - self.axis_deg
        return float(turn + 180.0 * round((near_deg - turn) / 180.0))

    @property
    def rest_deg(self) -> float:
        """Return how the hand is turned at first."""
        return self._forward

    def step(self, position: Floats, turn_deg: float, gripper: float) -> None:
        """Go towards a pose for a step of control."""
        steps = round(1.0 / (CONTROL_HZ * _TICKS * self._model.opt.timestep))
        for _ in range(_TICKS):
            self._approach(position, turn_deg)
            self._approach(position, turn_deg)
            wanted = (gripper + 1.0) / 2.0
            most = 1.0 / (_CLOSING_S * CONTROL_HZ * _TICKS)
            self._shut += float(np.clip(wanted - self._shut, -most, most))
            self._data.ctrl[self._motors] = self._goal
            self._data.ctrl[self._fingers] = self._opened + self._shut * (
                self._closed - self._opened)
            mujoco.mj_step(self._model, self._data, steps)

    def grip(self) -> Grip:
        """Return where the hand is and how far it is open."""
        data = self._data
        axis = self._axis(data)
        width = float(np.clip(np.linalg.norm(axis) - 0.012, 0.0, 0.09))
        return Grip(position=data.site_xpos[self._site].copy(),
                    approach=np.array([0.0, 0.0, -1.0]), axis=axis, width=width)

    def _axis(self, data: Any) -> Floats:
        left, right = (np.mean(data.geom_xpos[side], axis=0) for side in self._pads)
        return np.asarray(left - right, np.float64)

    def _approach(self, position: Floats, turn_deg: float) -> None:
        """Move the servos' goal towards a pose, by damped least squares."""
        model, data = self._model, self._thought
        data.qpos[self._places] = self._goal
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
        some = jacobian[:, self._dofs]
        is_now = data.site_xmat[self._site].reshape(3, 3)
        wanted = downward(turn_deg)
        turn = 0.5 * sum(np.cross(is_now[:, i], wanted[:, i]) for i in range(3))
        error = np.concatenate([position - data.site_xpos[self._site], turn])
        inverse = some.T @ np.linalg.inv(some @ some.T + _DAMPED ** 2 * np.eye(6))
        change = inverse @ error
        # What is left free goes back to where the arm was at first.
        free = np.eye(len(self._goal)) - inverse @ some
        change += 0.05 * free @ (self._rest - self._goal)
        most = np.abs(change).max()
        change *= min(1.0, _MOST_RAD / max(most, 1e-9))
        self._goal = np.clip(self._goal + change, self._low, self._high)


def forward_deg(rotation: Floats) -> float:
    """Return the direction of a hand's own x axis, seen from above."""
    return float(np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0])))


def downward(turn_deg: float) -> Floats:
    """Return the rotation of a hand that points down, its x axis turned so."""
    angle = np.deg2rad(turn_deg)
    forward = np.array([np.cos(angle), np.sin(angle), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([forward, np.cross(down, forward), down], axis=1)
