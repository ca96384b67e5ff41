# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Start a simulated arm, the encoder and a policy that drives it.

Attempts begin with `ros2 service call /policy/start std_srvs/srv/Trigger`, scenes with
`/arm_sim/set_scene`. The arm publishes joint states and takes commands as a real one does: use a
ROS domain that no real one is on.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    RegisterEventHandler,
    SetEnvironmentVariable,
    UnsetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory('hralign_ros'))

ARGUMENTS = (
    DeclareLaunchArgument('policy', description='Folder with policy.yaml and policy.onnx.'),
    DeclareLaunchArgument(
        'simulator', default_value='.venv-sim/bin/arm_sim',
        description='Program of the simulated arm, as `make sim` writes it.'),
    DeclareLaunchArgument('sim_task', default_value='lift', choices=['lift', 'pick-can'],
                          description='Task of the simulation.'),
    DeclareLaunchArgument('arm', default_value='panda',
                          choices=['panda', 'ur5e', 'kinova3', 'iiwa'],
                          description='Arm of the simulation.'),
    DeclareLaunchArgument('lab', default_value='lab-1', description='How everything looks.'),
    DeclareLaunchArgument('speed', default_value='1.0',
                          description='Of simulated time against that of the system.'),
    DeclareLaunchArgument('bundle', default_value='',
                          description='Directory of the bundle; empty: the shipped one.'),
    DeclareLaunchArgument('next_episode', default_value='wait', choices=['wait', 'start'],
                          description='Who begins the next attempt: ~/start, or the end of one.'),
)


def text(name: str) -> ParameterValue:
    """Take an argument as text, also where it looks like a number."""
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    arm = ExecuteProcess(
        cmd=[LaunchConfiguration('simulator'), '--ros-args',
             '-p', ['task:=', LaunchConfiguration('sim_task')],
             '-p', ['arm:=', LaunchConfiguration('arm')],
             '-p', ['lab:=', LaunchConfiguration('lab')],
             '-p', ['speed:=', LaunchConfiguration('speed')],
             '-r', '~/twist:=/policy/twist', '-r', '~/gripper:=/policy/gripper'],
        name='arm_sim', output='screen')
    common = {'use_sim_time': True, 'autostart': True}
    encoder = LifecycleNode(
        package='hralign_ros', executable='encoder_node', name='encoder', namespace='',
        output='screen', parameters=[str(SHARE / 'config/encoder.yaml'),
                                     {**common, 'bundle': text('bundle')}])
    policy = LifecycleNode(
        package='hralign_ros', executable='policy', name='policy', namespace='',
        output='screen', parameters=[{
            **common, 'policy': text('policy'), 'frame_id': 'world', 'max_linear_m_s': 0.8,
            'gripper_joints': ['finger_1', 'finger_2'],
            'next_episode': text('next_episode')}])
    return LaunchDescription([
        *ARGUMENTS,
        # Nothing leaves this computer; either of the others leads there whatever the range is.
        SetEnvironmentVariable('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST'),
        UnsetEnvironmentVariable('ROS_STATIC_PEERS'),
        UnsetEnvironmentVariable('ROS_DISCOVERY_SERVER'),
        arm, encoder, policy,
        RegisterEventHandler(OnProcessExit(target_action=arm, on_exit=[
            EmitEvent(event=Shutdown(reason='the simulated arm has ended'))]))])
