# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Start the encoder for a wrist and a third-person camera, and on demand a recorder beside it.

Arguments are for what differs between robots; everything else is in the parameter file. An
argument left empty keeps what the file says.
"""

import json
from pathlib import Path
import tempfile
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

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
        'record', default_value='false', choices=['true', 'false'],
        description='Record each episode into a bag, with the cameras as the encoder has them.'),
    DeclareLaunchArgument(
        'record_folder', default_value='',
        description='Folder of the bags; empty: what record_params_file says.'),
    DeclareLaunchArgument(
        'record_params_file', default_value=str(SHARE / 'config/recorder.yaml'),
        description='Parameter file of the recorder; of cameras, params_file and the arguments '
                    'count.'),
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
    Write texts to a parameter file, each in quotes, and those of a view under its name.

    launch writes them bare, and a task like '1e5' then reaches the node as a number. Of names with
    a dot rcl keeps what an earlier file says, where two of them have it under the view's name.
    """
    tree: dict[str, Any] = {}
    for name, text in texts.items():
        view, dot, own = name.partition('.')
        if dot:
            tree.setdefault(view, {})[own] = text
        else:
            tree[name] = text
    with tempfile.NamedTemporaryFile(
            'w', prefix='launch_params_', suffix='.yaml', delete=False, encoding='utf-8') as file:
        # JSON is YAML.
        file.write(f'/**:\n  ros__parameters: {json.dumps(tree, ensure_ascii=False)}\n')
    return file.name


def parameter_file(given: dict[str, str], argument: str) -> str:
    """Check that a parameter file is there; launch itself only warns, and defaults would count."""
    file = Path(given[argument]).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f'{argument} {file}: no such file')
    return str(file)


def make_nodes(context: LaunchContext) -> list[Node]:
    """Make the nodes from the arguments that were given."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    texts = {parameter: given[argument] for argument, parameters in TEXTS.items()
             for parameter in parameters if given[argument]}
    file = parameter_file(given, 'params_file')
    flags = {flag: given[flag] == 'true' for flag in FLAGS if given[flag]}
    nodes: list[Node] = [LifecycleNode(
        package='hralign_ros', executable='encoder_node', name=given['name'],
        namespace=given['namespace'], output='screen',
        parameters=[file, *([text_file(texts)] if texts else []), flags],
        ros_arguments=['--log-level', given['log_level']])]
    if given['record'] == 'true':
        own = {'encoder': given['name']} | (
            {'folder': given['record_folder']} if given['record_folder'] else {})
        # The cameras are those of the encoder: its file comes after the recorder's own.
        nodes.append(Node(
            package='hralign_ros', executable='recorder', name='recorder',
            namespace=given['namespace'], output='screen',
            parameters=[parameter_file(given, 'record_params_file'), file,
                        text_file(texts | own), flags],
            ros_arguments=['--log-level', given['log_level']]))
    return nodes


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=make_nodes)])
