# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What a policy's numbers are on a robot: found by name and unit, or refused in one sentence.

| action | unit | what becomes of it |
|---|---|---|
| tool.dx, tool.dy, tool.dz | m or m/s | velocity of the tool; metres are divided by the period |
| tool.drx, tool.dry, tool.drz | rad or rad/s | its angular velocity, of a rotation vector |
| gripper, or gripper.<anything> | any | the command of the gripper, as it is; one at most |
| joint.<name> | rad or m; rad/s or m/s | position or velocity of a joint; one kind for all |

| proprioception | unit | where it comes from |
|---|---|---|
| tool.x, tool.y, tool.z | m | pose of the tool |
| tool.qx, tool.qy, tool.qz, tool.qw | any | the same, its quaternion |
| gripper.width | m | sum of the positions of the gripper's joints |
| joint.<name>, or <name> alone | rad or m | position of the joint |
| the same | rad/s or m/s; N m or N | its velocity; its effort |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hralign_ros.runtime.errors import PolicyError
from hralign_ros.runtime.policy import Channel
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POSITION, VELOCITY, EFFORT = 'position', 'velocity', 'effort'
_KINDS = {'rad': POSITION, 'm': POSITION, 'rad/s': VELOCITY, 'm/s': VELOCITY,
          'N m': EFFORT, 'Nm': EFFORT, 'N': EFFORT}
# Axis of a twist, and the unit of a way along it.
_MOTION = {'tool.dx': (0, 'm'), 'tool.dy': (1, 'm'), 'tool.dz': (2, 'm'),
           'tool.drx': (3, 'rad'), 'tool.dry': (4, 'rad'), 'tool.drz': (5, 'rad')}
_POSE = ('tool.x', 'tool.y', 'tool.z', 'tool.qx', 'tool.qy', 'tool.qz', 'tool.qw')
_MOST = float(np.finfo(np.float32).max)
_GRIPPER, _WIDTH, _JOINT = 'gripper', 'gripper.width', 'joint.'


@dataclass(frozen=True)
class Speed:
    """Most of a tool's speed; 0: no limit. [m/s], [rad/s]."""

    linear: float = 0.0
    angular: float = 0.0


@dataclass(frozen=True)
class Command:
    """
    What one action says to a robot.

    :param twist: float64 [6], m/s and rad/s; None: the policy does not move the tool.
    :param gripper: in the policy's own unit; None: it does not move the gripper.
    :param joints: float64 [J], in the order of Commands.joints; None: it moves no joints.
    :param limited: the twist was shortened to the limits.
    """

    twist: Floats | None
    gripper: float | None
    joints: Floats | None
    limited: bool = False


class Commands:
    """
    Makes commands of actions.

    :param actions: the policy's numbers.
    :param period_s: time between two actions.
    :ivar joints: names of the joints that are commanded.
    :ivar joint_kind: POSITION or VELOCITY, of all of them.
    :raises PolicyError: a number is none that a robot takes.
    """

    def __init__(
        self, actions: Sequence[Channel], period_s: float, speed: Speed | None = None,
    ) -> None:
        self._speed = speed or Speed()
        self._axes: list[tuple[int, int, float]] = []
        self._gripper: int | None = None
        self._joints: list[int] = []
        self.joints: list[str] = []
        self.joint_kind = POSITION
        kinds: dict[str, str] = {}
        for column, one in enumerate(actions):
            if one.name in _MOTION:
                axis, unit = _MOTION[one.name]
                if one.unit not in (unit, f'{unit}/s'):
                    raise _refused(one, f'{unit} or {unit}/s')
                self._axes.append((column, axis, 1.0 / period_s if one.unit == unit else 1.0))
            elif one.name.partition('.')[0] == _GRIPPER:
                if self._gripper is not None:
                    raise PolicyError(
                        f'the policy has two actions of a gripper, {actions[self._gripper].name} '
                        f'and {one.name}; the node has one gripper')
                self._gripper = column
            elif one.name.startswith(_JOINT) and len(one.name) > len(_JOINT):
                kind = _KINDS.get(one.unit, EFFORT)
                if kind == EFFORT:
                    raise _refused(one, 'rad or m for a position, rad/s or m/s for a velocity')
                kinds[one.name] = kind
                self._joints.append(column)
                self.joints.append(one.name.removeprefix(_JOINT))
            else:
                raise PolicyError(
                    f"no robot takes the policy's action {one.name} [{one.unit}]; known are "
                    f'{", ".join(_MOTION)}, {_GRIPPER} and {_JOINT}<name>. Name the actions in '
                    'channels.yaml of the demonstrations, or in policy.yaml')
        if len(set(kinds.values())) > 1:
            raise PolicyError(
                'the policy commands positions of some joints and velocities of others ('
                + ', '.join(f'{name}: {kind}' for name, kind in kinds.items())
                + '); the node sends one kind for all')
        if kinds:
            self.joint_kind = next(iter(kinds.values()))

    @property
    def moves_tool(self) -> bool:
        """Tell whether there is motion of the tool among the actions."""
        return bool(self._axes)

    @property
    def moves_gripper(self) -> bool:
        """Tell whether there is a gripper's command among the actions."""
        return self._gripper is not None

    @property
    def moves_joints(self) -> bool:
        """Tell whether there are joints among the actions."""
        return bool(self._joints)

    def of(self, action: NDArray[np.float32]) -> Command:
        """
        Make the command of an action.

        :param action: float32 [A], in the policy's units.
        """
        twist, limited = None, False
        if self._axes:
            twist = np.zeros(6)
            for column, axis, factor in self._axes:
                twist[axis] = factor * float(action[column])
            for part, most in ((twist[:3], self._speed.linear), (twist[3:], self._speed.angular)):
                length = float(np.linalg.norm(part))
                if most and length > most:
                    # The direction stays.
                    part *= most / length
                    limited = True
        return Command(
            twist, None if self._gripper is None else float(action[self._gripper]),
            np.asarray(action[self._joints], np.float64) if self._joints else None, limited)

    def stop(self) -> Command:
        """
        Make the command after which nothing moves.

        Positions of joints and the gripper are not commanded: they stay where they are, and what
        is held is held.
        """
        return Command(
            np.zeros(6) if self._axes else None, None,
            np.zeros(len(self._joints))
            if self._joints and self.joint_kind == VELOCITY else None)


@dataclass(frozen=True)
class JointReading:
    """The newest of one joint; NaN: not in the message."""

    stamp: int
    position: float
    velocity: float
    effort: float


class Proprioception:
    """
    Puts a policy's numbers together from what the robot says.

    :param channels: the policy's numbers, in order.
    :param gripper_joints: whose positions add up to the gripper's width.
    :ivar joints: names of the joints that are needed.
    :ivar needs_pose: whether the pose of the tool is needed.
    :raises PolicyError: a number is none that a robot tells.
    """

    def __init__(self, channels: Sequence[Channel], gripper_joints: Sequence[str] = ()) -> None:
        # For each number: joints and what of them is added up; or an entry of the pose.
        self._sources: list[tuple[tuple[str, ...], str] | int] = []
        self.channels = tuple(channels)
        for one in channels:
            if one.name in _POSE:
                if _POSE.index(one.name) < 3 and one.unit != 'm':
                    raise _refused(one, 'm')
                self._sources.append(_POSE.index(one.name))
            elif one.name == _WIDTH:
                if not gripper_joints:
                    raise PolicyError(
                        f'the policy needs {_WIDTH}; name in the parameter gripper_joints the '
                        'joints whose positions add up to it')
                if one.unit != 'm':
                    raise _refused(one, 'm')
                self._sources.append((tuple(gripper_joints), POSITION))
            elif one.name.partition('.')[0] in ('tool', _GRIPPER, 'object'):
                raise PolicyError(
                    f"no robot tells the policy's {one.name} [{one.unit}]; known are "
                    f'{", ".join(_POSE)}, {_WIDTH} and {_JOINT}<name>')
            elif one.unit not in _KINDS:
                raise _refused(one, ', '.join(_KINDS))
            else:
                self._sources.append(((one.name.removeprefix(_JOINT),), _KINDS[one.unit]))
        self.joints = tuple(dict.fromkeys(
            name for source in self._sources if not isinstance(source, int)
            for name in source[0]))
        self.needs_pose = any(isinstance(source, int) for source in self._sources)

    def vector(
        self, joints: Mapping[str, JointReading], pose: Sequence[float] | None,
    ) -> NDArray[np.float32]:
        """
        Put the numbers together, float32 [P].

        :param joints: what is known, by name.
        :param pose: x, y, z and a quaternion x, y, z, w.
        :raises PolicyError: a joint or a value of it is missing, or not finite.
        """
        if missing := [name for name in self.joints if name not in joints]:
            raise PolicyError(
                f'no joint {", ".join(missing)} in the joint states; there are: '
                f'{", ".join(sorted(joints)) or "none"}')
        if self.needs_pose and pose is None:
            raise PolicyError('no pose of the tool has come')
        numbers = []
        for channel, source in zip(self.channels, self._sources, strict=True):
            if isinstance(source, int):
                number = float((pose or ())[source])
            else:
                number = sum(float(getattr(joints[name], source[1])) for name in source[0])
            # Not so of what is no number, either; of a greater one float32 makes infinity.
            if not abs(number) <= _MOST:
                raise PolicyError(
                    f'{channel.name} [{channel.unit}] is not in the messages, or no finite number')
            numbers.append(number)
        return np.array(numbers, np.float32)


def _refused(channel: Channel, needed: str) -> PolicyError:
    return PolicyError(
        f"the policy's {channel.name} has the unit '{channel.unit}'; needed is {needed}")
