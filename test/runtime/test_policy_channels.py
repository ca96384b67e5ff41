# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which number of a policy is what on a robot, and which words refuse the others."""

from hralign_ros.runtime.errors import PolicyError
from hralign_ros.runtime.policy import Channel
from hralign_ros.runtime.policy_channels import (
    Commands,
    JointReading,
    POSITION,
    Proprioception,
    Speed,
    VELOCITY,
)
import numpy as np
import pytest

NAN = float('nan')


def channels(**units):
    return [Channel(name.replace('__', '.'), unit) for name, unit in units.items()]


def floats(*values):
    return np.array(values, np.float32)


def test_motion_of_the_tool_is_a_velocity():
    """Guards the arm: metres in a period are not metres a second."""
    commands = Commands(channels(tool__dz='m', gripper='-1 open, 1 closed', tool__dx='m/s',
                                 tool__dry='rad'), 0.1)
    command = commands.of(floats(0.02, -1.0, 0.3, 0.05))
    np.testing.assert_allclose(command.twist, [0.3, 0.0, 0.2, 0.0, 0.5, 0.0], rtol=1e-6)
    assert command.gripper == -1.0 and command.joints is None and not command.limited
    stop = commands.stop()
    assert not stop.twist.any() and stop.gripper is None and stop.joints is None


def test_what_is_too_fast_keeps_its_direction():
    """Guards people beside the arm; translation and rotation have limits of their own."""
    commands = Commands(channels(tool__dx='m', tool__dy='m', tool__drz='rad/s'), 0.1,
                        Speed(0.25, 1.0))
    command = commands.of(floats(0.03, 0.04, 0.9))
    np.testing.assert_allclose(command.twist, [0.15, 0.2, 0.0, 0.0, 0.0, 0.9], rtol=1e-6)
    assert command.limited
    assert not commands.of(floats(0.015, 0.02, 0.9)).limited


@pytest.mark.parametrize(('unit', 'kind', 'stopped'), [
    ('rad', POSITION, None), ('rad/s', VELOCITY, [0.0, 0.0])])
def test_joints(unit, kind, stopped):
    """A velocity is stopped by zeros; a position stays where it is."""
    commands = Commands(channels(joint__elbow=unit, joint__wrist=unit), 0.05)
    assert (commands.joints, commands.joint_kind) == (['elbow', 'wrist'], kind)
    assert list(commands.of(floats(1.0, -2.0)).joints) == [1.0, -2.0]
    stop = commands.stop().joints
    assert stop is None if stopped is None else list(stop) == stopped


@pytest.mark.parametrize(('actions', 'words'), [
    (channels(action_0=''), "no robot takes the policy's action action_0"),
    (channels(tool__dx='mm'), "tool.dx has the unit 'mm'; needed is m or m/s"),
    (channels(tool__drx='m'), 'needed is rad or rad/s'),
    (channels(joint__a='N m'), 'needed is rad or m for a position'),
    (channels(joint__a='rad', joint__b='rad/s'), 'one kind for all'),
    (channels(gripper='', gripper__width='m'), 'two actions of a gripper'),
])
def test_actions_that_no_robot_takes(actions, words):
    with pytest.raises(PolicyError, match=words.replace('.', r'\.')) as caught:
        Commands(actions, 0.1)
    assert '\n' not in str(caught.value)


def test_proprioception_by_name_and_unit():
    """Guards the order: the policy's, whatever the order of the messages."""
    made = Proprioception(
        channels(tool__y='m', gripper__width='m', joint__elbow='rad/s', wrist='rad',
                 tool__qw=''), ('left', 'right'))
    assert made.joints == ('left', 'right', 'elbow', 'wrist') and made.needs_pose
    joints = {name: JointReading(1, position, velocity, NAN) for name, position, velocity in (
        ('wrist', 0.1, 0.2), ('right', 0.03, NAN), ('elbow', 0.5, 0.6), ('left', 0.02, NAN))}
    np.testing.assert_allclose(
        made.vector(joints, (1, 2, 3, 4, 5, 6, 7)), [2.0, 0.05, 0.6, 0.1, 7.0], rtol=1e-6)
    with pytest.raises(PolicyError, match='no pose of the tool has come'):
        made.vector(joints, None)
    with pytest.raises(PolicyError, match='no joint elbow in the joint states; there are: left'):
        made.vector({name: joints[name] for name in ('left', 'right', 'wrist')}, (0,) * 7)
    for bad in (NAN, float('inf'), -1e39):
        joints['elbow'] = JointReading(1, 0.5, bad, NAN)
        with pytest.raises(PolicyError, match=r'joint\.elbow \[rad/s\] is not in the messages'):
            made.vector(joints, (0,) * 7)


@pytest.mark.parametrize(('wanted', 'words'), [
    (channels(object__x='m'), "no robot tells the policy's object.x"),
    (channels(tool__speed='m/s'), "no robot tells the policy's tool.speed"),
    (channels(gripper__width='m'), 'parameter gripper_joints'),
    (channels(tool__x='mm'), 'needed is m'),
    (channels(proprio_0=''), 'needed is rad, m'),
])
def test_proprioception_that_no_robot_has(wanted, words):
    with pytest.raises(PolicyError, match=words.replace('.', r'\.')):
        Proprioception(wanted)
