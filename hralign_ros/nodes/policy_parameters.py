# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Every parameter of the policy node, declared in one table.

config/policy.yaml and the table in docs/reference/parameters.md follow from it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hralign_ros.nodes import parameters
from hralign_ros.nodes.parameters import Parameter, ParameterError
from hralign_ros.runtime.policy_channels import Speed
from hralign_ros.runtime.policy_loop import Rules

WAIT, START = 'wait', 'start'
NODE_PARAMETERS = (
    Parameter('policy', '', 'Folder with policy.yaml and policy.onnx; read whenever the node is '
              'configured.'),
    Parameter('encoder', 'encoder', 'Name of the encoder whose embeddings the policy is given.'),
    Parameter('autostart', False, 'Configure and activate without waiting for a manager.'),
    Parameter('next_episode', WAIT,
              'When the first attempt begins, and the next after a SUCCESS, a FAILURE or one that '
              'took longer than max_episode_s; wait: when ~/start is called; start: at once.',
              choices=(WAIT, START)),
    Parameter('stop_on_abstain', False,
              'Hold while the decision of the encoder is ABSTAIN, as it is for every task that it '
              'was not taught.'),
    Parameter('end_on_decision', True,
              'A SUCCESS or FAILURE of the encoder ends the attempt; false: only ~/stop and '
              'max_episode_s do.'),
    Parameter('max_age_s', 0.2,
              'No command on pixels, joint states or a pose that are older [s].', 0.01, 10.0),
    Parameter('max_episode_s', 60.0, 'An attempt that takes longer is ended [s]; 0: never.',
              0.0, 86400.0),
    Parameter('frame_id', 'base_link',
              'Frame along whose axes the actions of the demonstrations move the tool.'),
    Parameter('max_linear_m_s', 0.25,
              'A faster motion of the tool is slowed down to this [m/s]; 0: never.', 0.0, 10.0),
    Parameter('max_angular_rad_s', 1.0,
              'A faster rotation of the tool is slowed down to this [rad/s]; 0: never.',
              0.0, 100.0),
    Parameter('joint_states', 'joint_states', 'Topic of the joint states.'),
    Parameter('tool_pose', 'tool_pose',
              'Topic of the pose of the tool (geometry_msgs/PoseStamped), for a policy that needs '
              'it.'),
    Parameter('gripper_joints', [''],
              'Joints whose positions add up to gripper.width; empty names are left out.'),
    Parameter('threads', 1, 'Threads of one operator of the policy.', 1, 64),
)


def table() -> dict[str, Parameter]:
    """List all parameters by name."""
    return {row.name: row for row in NODE_PARAMETERS}


def check(values: Mapping[str, Any]) -> None:
    """
    Check values one by one and together.

    :raises ParameterError: a value cannot be used.
    """
    for name, parameter in table().items():
        parameter.check(values[name])
    if not values['policy']:
        raise ParameterError('parameter policy is empty; needed is the folder of a policy, as '
                             '`hralign policy train` writes it')
    if not values['frame_id']:
        raise ParameterError(
            'parameter frame_id is empty; needed is the frame along whose axes the demonstrations '
            'moved the tool: moveit_servo takes a twist without one along axes of its own')
    for name, topic in (('encoder', f'{values["encoder"]}/embedding'),
                        ('joint_states', values['joint_states']),
                        ('tool_pose', values['tool_pose'])):
        parameters.check_topic(name, topic)


def folder(values: Mapping[str, Any]) -> Path:
    """Give the folder of the policy."""
    return Path(values['policy']).expanduser()


def rules(values: Mapping[str, Any]) -> Rules:
    """Say what is allowed."""
    return Rules(max_age=round(values['max_age_s'] * 1e9),
                 max_episode=round(values['max_episode_s'] * 1e9),
                 stop_on_abstain=values['stop_on_abstain'],
                 end_on_decision=values['end_on_decision'])


def speed(values: Mapping[str, Any]) -> Speed:
    """Say how fast the tool may be."""
    return Speed(values['max_linear_m_s'], values['max_angular_rad_s'])
