# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The launch files against the real launch system; needs a ROS 2 installation."""

from pathlib import Path
import signal
import subprocess
import time

import pytest

launch_pytest = pytest.importorskip(
    'launch_pytest', reason='launch_pytest is not installed (it has no wheel)')
launch = pytest.importorskip('launch', reason='launch is not installed (it has no wheel)')
pytest.importorskip('launch_ros', reason='launch_ros is not installed (it has no wheel)')

from ament_index_python.packages import get_package_share_directory  # noqa: E402, I100
from launch.actions import GroupAction, IncludeLaunchDescription  # noqa: E402, I100
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402, I100
from lifecycle_msgs.srv import GetState  # noqa: E402, I100
import rclpy  # noqa: E402, I100
from rclpy.context import Context  # noqa: E402, I100
from rclpy.executors import SingleThreadedExecutor  # noqa: E402, I100
from rclpy.node import Node  # noqa: E402, I100
from rclpy.parameter_client import AsyncParameterClient  # noqa: E402, I100

SHARE = Path(get_package_share_directory('hralign_ros'))
PATIENCE = 60.0


class Asker:
    """A node on a context of its own that asks services of the launched ones."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node('asker', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def close(self) -> None:
        """End the node."""
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def until(self, done: object, what: str) -> None:
        """Spin until `done()`."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f'{what} did not come'
            self.executor.spin_once(timeout_sec=0.05)

    def state(self, node: str) -> str:
        """Ask a node for its lifecycle state."""
        client = self.node.create_client(GetState, f'{node}/get_state')
        self.until(client.service_is_ready, f'{node}/get_state')
        future = client.call_async(GetState.Request())
        self.until(future.done, 'the state')
        return str(future.result().current_state.label)

    def parameter(self, node: str, name: str) -> object:
        """Read a parameter of a node."""
        client = AsyncParameterClient(self.node, node)
        self.until(client.services_are_ready, f'parameters of {node}')
        future = client.get_parameters([name])
        self.until(future.done, name)
        value = future.result().values[0]
        return {1: value.bool_value, 2: value.integer_value, 3: value.double_value,
                4: value.string_value}[value.type]


@pytest.fixture
def asker() -> Asker:
    """Give an asker that is closed afterwards."""
    made = Asker()
    yield made
    made.close()


def include(**arguments: str) -> GroupAction:
    """Include the encoder's launch file; the group keeps its arguments from the next include."""
    return GroupAction([IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch/encoder.launch.py')),
        launch_arguments=list(arguments.items()))])


@launch_pytest.fixture
def autostarted() -> object:
    """Launch with all defaults."""
    return launch.LaunchDescription([include(), launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=autostarted)
def test_autostart_makes_it_active(asker: Asker) -> None:
    """By default the node is configured and activated without anybody's help."""
    asker.until(lambda: asker.state('/encoder') == 'active', 'active')


@launch_pytest.fixture
def waiting() -> object:
    """Launch without autostart."""
    return launch.LaunchDescription([
        include(autostart='false'), launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=waiting)
def test_without_autostart_it_waits(asker: Asker) -> None:
    """A lifecycle manager finds it unconfigured."""
    assert asker.state('/encoder') == 'unconfigured'
    assert asker.state('/encoder') == 'unconfigured'


@launch_pytest.fixture
def two_robots() -> object:
    """Launch two namespaced instances with arguments and a file."""
    return launch.LaunchDescription([
        include(namespace='left', task='1e5', wrist_topic='/hand/color', provider='cpu'),
        include(namespace='right', params_file=str(SHARE / 'config/ur.yaml'), autostart='false'),
        launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=two_robots)
def test_two_namespaces_with_arguments_and_files(asker: Asker) -> None:
    """Arguments override the file; a task that looks like a number stays text."""
    asker.until(lambda: asker.state('/left/encoder') == 'active', 'active')
    assert asker.state('/right/encoder') == 'unconfigured'
    assert asker.parameter('/left/encoder', 'task') == '1e5'
    assert asker.parameter('/left/encoder', 'wrist.topic') == '/hand/color'
    assert asker.parameter('/left/encoder', 'provider') == 'cpu'
    assert asker.parameter('/right/encoder', 'third_person.transport') == 'compressed'
    topics = dict(asker.node.get_topic_names_and_types())
    asker.until(lambda: '/left/encoder/info' in dict(asker.node.get_topic_names_and_types()),
                '/left/encoder/info')
    assert '/encoder/info' not in topics


@launch_pytest.fixture
def recorded(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Launch with a recorder, with the cameras of a file and of an argument."""
    return launch.LaunchDescription([
        include(namespace='third', params_file=str(SHARE / 'config/ur.yaml'), record='true',
                wrist_topic='/hand/color', autostart='false', name='eye',
                record_folder=str(tmp_path_factory.mktemp('bags'))),
        launch_pytest.actions.ReadyToTest()])


@pytest.mark.launch(fixture=recorded)
def test_a_recorder_beside_it(asker: Asker) -> None:
    """It records the cameras that the encoder has, whatever its own file says, and follows it."""
    recorder = '/third/recorder'
    assert asker.parameter(recorder, 'wrist.topic') == '/hand/color'
    assert asker.parameter(recorder, 'wrist.transport') == 'raw'
    assert asker.parameter(recorder, 'third_person.transport') == 'compressed'
    assert 'bags' in asker.parameter(recorder, 'folder')
    asker.until(lambda: any(
        topic == '/third/eye/success' for topic, _ in
        asker.node.get_subscriber_names_and_types_by_node('recorder', '/third')), 'its ears')


def test_interrupt_ends_it_cleanly() -> None:
    """Ctrl-C on `ros2 launch` ends with code 0; the node ends cleanly and nothing is left."""
    process = subprocess.Popen(
        ['ros2', 'launch', 'hralign_ros', 'encoder.launch.py', 'name:=interrupted'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    asker = Asker()
    try:
        asker.until(lambda: asker.state('/interrupted') == 'active', 'active')
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        asker.close()
        process.kill()
    assert process.returncode == 0, output
    assert 'process has finished cleanly' in output
    assert 'Traceback' not in output


def test_a_parameter_file_that_is_not_there() -> None:
    """Guards a mistyped path: the node ran on its defaults, signatures not required."""
    done = subprocess.run(
        ['ros2', 'launch', 'hralign_ros', 'encoder.launch.py', 'params_file:=~/nowhere.yaml'],
        capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and 'nowhere.yaml: no such file' in done.stdout + done.stderr


def test_demo_launch_leaves_a_report(tmp_path: Path) -> None:
    """`ros2 launch hralign_ros demo.launch.py` ends by itself and leaves its report."""
    done = subprocess.run(
        ['ros2', 'launch', 'hralign_ros', 'demo.launch.py', f'report:={tmp_path}'],
        capture_output=True, text=True, timeout=180)
    assert (tmp_path / 'report.png').is_file(), done.stdout + done.stderr
    assert len((tmp_path / 'ticks.csv').read_text('utf-8').splitlines()) > 100


def test_the_closed_loop_ends_with_its_arm() -> None:
    """
    Guards nodes that go on without an arm: encoder and policy end when the simulator does.

    The simulator here is a program that ends at once.
    """
    done = subprocess.run(
        ['ros2', 'launch', 'hralign_ros', 'closed_loop.launch.py', 'policy:=/nowhere',
         'simulator:=true', 'arm:=ur5e'], capture_output=True, text=True, timeout=PATIENCE)
    said = done.stdout + done.stderr
    assert '[arm_sim-1]: process has finished cleanly' in said, said
    for node in ('encoder_node-2', 'policy-3'):
        assert f'[{node}]: process has' in said, said


@pytest.mark.parametrize('name', ['encoder', 'demo', 'closed_loop'])
def test_every_argument_is_described(name: str) -> None:
    """`ros2 launch ... --show-args` explains each of them."""
    done = subprocess.run(
        ['ros2', 'launch', 'hralign_ros', f'{name}.launch.py', '--show-args'],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert 'no description given' not in done.stdout
