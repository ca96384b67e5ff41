# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Start the encoder for a wrist and a third-person camera.

Arguments are for what differs between robots; everything else is in the parameter file. An
argument left empty keeps what the file says.
"""

import json
from pathlib import Path
import tempfile

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

SHARE = Path(get_package_share_directory('hralign_ros'))

ARGUMENTS = (
    DeclareLaunchArgument(
        'namespace', default_value='', description='Namespace of the node and its topics.'),
    DeclareLaunchArgument('name', default_value='encoder', description='Name of the node.'),
    DeclareLaunchArgument(
        'params_file', default_value=str(SHARE / 'config/encoder.yaml'),
        description='Parameter file; config/ has some for a Franka and a UR.'),
    DeclareLaunchArgument(
        'wrist_topic', default_value='',
        description="Image topic of the wrist camera, without '/compressed'."),
    DeclareLaunchArgument(
        'third_person_topic', default_value='',
        description="Image topic of the third-person camera, without '/compressed'."),
    DeclareLaunchArgument(
        'transport', default_value='', choices=['', 'raw', 'compressed'],
        description='Image transport of both cameras.'),
    DeclareLaunchArgument(
        'bundle', default_value='',
        description='Directory of the bundle; empty, also in the file: the shipped one.'),
    DeclareLaunchArgument(
        'task', default_value='', description='Initial instruction.'),
    DeclareLaunchArgument(
        'provider', default_value='', choices=['', 'auto', 'cpu', 'cuda'],
        description='Where graphs run; auto: on CUDA where it is available.'),
    DeclareLaunchArgument(
        'require_gpu', default_value='', choices=['', 'true', 'false'],
        description='Fail at configure instead of running on a CPU.'),
    DeclareLaunchArgument(
        'use_sim_time', default_value='', choices=['', 'true', 'false'],
        description='Take time from /clock, as for a bag or a simulator.'),
    DeclareLaunchArgument(
        'autostart', default_value='true', choices=['true', 'false'],
        description='Configure and activate at once; false: a lifecycle manager does.'),
    DeclareLaunchArgument(
        'log_level', default_value='info',
        choices=['debug', 'info', 'warn', 'error', 'fatal'], description='Level of the log.'),
)

TEXTS = {'wrist_topic': ('wrist.topic',), 'third_person_topic': ('third_person.topic',),
         'transport': ('wrist.transport', 'third_person.transport'), 'bundle': ('bundle',),
         'task': ('task',), 'provider': ('provider',)}
FLAGS = ('require_gpu', 'use_sim_time', 'autostart')


def text_file(texts: dict[str, str]) -> str:
    """
    Write texts to a parameter file, each in quotes.

    launch writes them bare, and a task like '1e5' then reaches the node as a number.
    """
    with tempfile.NamedTemporaryFile(
            'w', prefix='launch_params_', suffix='.yaml', delete=False, encoding='utf-8') as file:
        file.write('/**:\n  ros__parameters:\n')
        for name, text in texts.items():
            file.write(f'    {name}: {json.dumps(text, ensure_ascii=False)}\n')
    return file.name


def make_node(context: LaunchContext) -> list[LifecycleNode]:
    """Make the node from the arguments that were given."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    texts = {parameter: given[argument] for argument, parameters in TEXTS.items()
             for parameter in parameters if given[argument]}
    # launch itself only warns, and the node would run on its defaults.
    file = Path(given['params_file']).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'params_file {file}: no such file')
    flags = {flag: given[flag] == 'true' for flag in FLAGS if given[flag]}
    return [LifecycleNode(
        package='hralign_ros', executable='encoder_node', name=given['name'],
        namespace=given['namespace'], output='screen',
        parameters=[str(file), *([text_file(texts)] if texts else []), flags],
        ros_arguments=['--log-level', given['log_level']])]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_node)])
