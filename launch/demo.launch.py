# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Play a recorded episode through the encoder and watch it; ends with the video.

For a sourced ROS 2; `make demo` replays all episodes and plots them side by side.
"""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from hralign_ros.runtime.fast_dds import profiles_variable, use_profile
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
import yaml

SHARE = Path(get_package_share_directory('hralign_ros'))
EPISODES = SHARE / 'demo/episodes'
VIEWS = ('wrist', 'third_person')

ARGUMENTS = (
    DeclareLaunchArgument(
        'episode', default_value='1_success',
        choices=sorted(path.parent.name for path in EPISODES.glob('*/episode.yaml')),
        description='Shipped episode to replay.'),
    DeclareLaunchArgument(
        'wrist_video', default_value='',
        description="Video file for the wrist camera; empty: the episode's."),
    DeclareLaunchArgument(
        'third_person_video', default_value='',
        description="Video file for the third-person camera; empty: the episode's."),
    DeclareLaunchArgument(
        'task', default_value='', description="Instruction; empty: the episode's."),
    DeclareLaunchArgument(
        'bundle', default_value='', description='Directory of a bundle; empty: the shipped one.'),
    DeclareLaunchArgument(
        'rate_hz', default_value='0.0',
        description="Frames per second of both cameras; 0: the times of the video's frames."),
    DeclareLaunchArgument(
        'report', default_value='demo_report',
        description='Folder that report.png and ticks.csv are written to.'),
)


def make_nodes(context: LaunchContext) -> list:
    """Make all nodes; the launch ends when both videos have ended."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    folder = EPISODES / given['episode']
    episode = yaml.safe_load((folder / 'episode.yaml').read_text('utf-8'))
    task = given['task'] or episode['task']
    cameras = [
        Node(package='hralign_ros', executable='video_publisher', name=f'{view}_camera',
             output='screen', remappings=[('image_raw', f'{view}/image_raw')],
             parameters=[{'file': given[f'{view}_video'] or str(
                              folder / episode['views'][view]['file']),
                          'rate_hz': float(given['rate_hz']),
                          'frame_id': f'{view}_optical_frame',
                          # The encoder and the monitor; else an episode begins in mid-video.
                          'wait_for_subscribers': 2, 'wait_s': 30.0}])
        for view in VIEWS]
    playing = set(VIEWS)

    def when_ended(view: str) -> OpaqueFunction:
        def end(_: LaunchContext) -> list:
            playing.discard(view)
            return [] if playing else [EmitEvent(event=Shutdown(reason='the videos have ended'))]
        return OpaqueFunction(function=end)

    encoder = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch/encoder.launch.py')),
        launch_arguments={'task': task, 'bundle': given['bundle']}.items())
    monitor = Node(
        package='hralign_ros', executable='demo_monitor', output='screen',
        parameters=[{'report': str(Path(given['report']).absolute())}])
    return [encoder, monitor, *cameras, *(
        RegisterEventHandler(OnProcessExit(target_action=camera, on_exit=[when_ended(view)]))
        for view, camera in zip(VIEWS, cameras, strict=True))]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    # The default transport loses raw images; a profile that is set already is kept.
    variables = dict(os.environ)
    use_profile(variables, SHARE / 'config/fastdds_large_images.xml')
    name = profiles_variable(variables)
    return LaunchDescription([
        *ARGUMENTS,
        *([SetEnvironmentVariable(name, variables[name])] if name in variables else []),
        OpaqueFunction(function=make_nodes)])
