# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Rosetta beside our node: its loader, its live bridge, and its manager of episodes.

    python -m benchmarks.ecosystem.rosetta --version 0.2.0-dfd07e4

Needs rosetta, rosetta_interfaces and rosidl_runtime_py in the environment. Rosetta's recorder and
policy runner are switched off: they need rosbag2_py and LeRobot's server, and take nothing of ours
that the bridge does not.
"""

import argparse
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ecosystem.measure import record
from benchmarks.ecosystem.stage import Client, client, encoder, process, StageError, TASK
from hralign_msgs.msg import TaskEmbedding
from hralign_ros.cli.main import main as hralign
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

EMBEDDING = '/encoder/embedding'
# Services of its manager that take our outcome: this one ends the episode, since July 2026; the
# other one sets its reward, which ends it where the goal says from which reward on.
END, REWARD = 'end_episode', 'set_reward_override'


def main() -> None:
    """Run all, and write down what ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--version', required=True, help='of rosetta, with its commit')
    parser.add_argument('--outcome', choices=(END, REWARD), default=END,
                        help='service of the manager that takes our outcome (%(default)s)')
    parser.add_argument('--no-manager', action='store_true',
                        help="leave the manager out: this version's does not start here")
    given = parser.parse_args()
    with TemporaryDirectory() as folder, client('rosetta_check') as beside:
        contract = write_contracts(Path(folder))
        with encoder():
            print('bridge: ', live(contract, beside))
        if not given.no_manager:
            with encoder('-p', 'mirrors.reward:=true',
                         '-r', '/encoder/reward:=/hil/reward/reward') as node:
                print('reward: ', manage(contract, beside, Path(folder), classifier=True))
            service = f'/hil_manager/{given.outcome}'
            with encoder('-p', f'mirrors.outcome_service:={service}') as node:
                threshold = float(given.outcome == REWARD)
                print('success:', manage(contract, beside, Path(folder), threshold))
                if given.outcome == END:
                    change(beside, time_out_s=1.0, dwell_s=60.0)
                    print('failure:', manage(contract, beside, Path(folder)))
                print('\n'.join(line for line in node.output.splitlines()
                                if f'{service} (' in line))
    name = f'rosetta {given.version}'
    record(f'python -m benchmarks.ecosystem.rosetta --version {given.version}',
           consumers=[name], without_glue=[name])


def write_contracts(folder: Path) -> Path:
    """Write contracts by our command, let rosetta's loader read them, and return the robot's."""
    import rosetta
    from rosetta.contract.schema import load_contract
    from rosetta.contract.specs import iter_specs
    from rosetta.frames.layout import FrameLayout
    from rosetta.robots.ros2 import decoders, encoders  # noqa: F401 (older releases register so)

    theirs = Path(rosetta.__file__).resolve().parents[1] / 'contracts/so_101_hil.yaml'
    for name, more in (('alone', []), ('so_101_hil', ['--extend', str(theirs)])):
        path = folder / f'{name}.yaml'
        hralign(['bundle', 'contract', '--output', str(path), *more])
        features = FrameLayout(list(iter_specs(load_contract(path)))).lerobot_features()
        print('loaded: ', name, {key: feature['shape'] for key, feature in features.items()})
    return path


def live(contract: Path, beside: Client) -> str:
    """Sample frames with rosetta's bridge; one has to be an embedding that came, to the bit."""
    from rclpy.lifecycle import LifecycleNode
    from rosetta.contract.schema import load_contract
    from rosetta.contract.specs import iter_observation_specs
    from rosetta.robots.ros2.node_host import NodeHost
    from rosetta.robots.ros2.topic_bridge import TopicBridge

    read = load_contract(contract)
    specs = [spec for spec in iter_observation_specs(read)
             if spec.source.channel.topic == EMBEDDING]
    heard: set[bytes] = set()
    subscription = beside.node.create_subscription(
        TaskEmbedding, EMBEDDING,
        lambda message: heard.add(np.asarray(message.data, np.float32).tobytes()), 10)
    bridge, host = TopicBridge(specs, [], read.fps), NodeHost()
    bridge.setup(host.start(lambda context: LifecycleNode('rosetta_bridge', context=context)))
    frames: list[Any] = []

    def same() -> bool:
        frames.append(bridge.sample_frame()['observation.state'])
        return frames[-1].tobytes() in heard

    try:
        beside.wait(lambda: bridge.warmed_up, "the bridge's first embedding")
        beside.wait(same, 'a frame that is an embedding')
    finally:
        host.stop()
        beside.node.destroy_subscription(subscription)
    return f'{len(frames[-1])} numbers, equal to the bit to those of {EMBEDDING}'


def manage(
    contract: Path, beside: Client, folder: Path, threshold: float = 0.0, *,
    classifier: bool = False,
) -> str:
    """
    Let rosetta's manager run an episode, and return how it ended.

    :param threshold: of the reward that ends it; 0: none does.
    :param classifier: it listens to our reward and ends at 1; otherwise it is told.
    """
    from rosetta_interfaces.srv import StartHILEpisode

    with process('hil_manager', 'rosetta.robots.ros2.nodes.hil_manager_node', (
            '-p', f'contract_path:={contract}', '-p', 'enable_recording:=false',
            '-p', 'manage_policy_lifecycle:=false',
            '-p', f'enable_reward_classifier:={str(classifier).lower()}'), folder) as manager:
        for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            change_state = ChangeState.Request()
            change_state.transition.id = number
            if not beside.call(
                    ChangeState, '/hil_manager/change_state', change_state, manager).success:
                raise StageError(f'hil_manager: {manager.output[-1000:]}')
        # What was decided before is taken back: it is no reward of the next episode.
        beside.call(Trigger, '/encoder/reset', Trigger.Request())
        request = StartHILEpisode.Request(
            prompt=TASK, max_duration_s=100.0,
            success_reward_threshold=1.0 if classifier else threshold)
        started = beside.call(StartHILEpisode, '/hil_manager/start_episode', request, manager)
        if not started.accepted:
            raise StageError(f'hil_manager refused: {started.message}')
        said = 'Episode finished ('
        beside.wait(lambda: said in manager.output, 'the end of the episode', manager)
        ended, = (line for line in manager.output.splitlines() if said in line)
        if 'timeout' in ended:
            raise StageError(f'hil_manager was not ended: {manager.output[-2000:]}')
        return ended.partition(said)[2].partition(')')[0]


def change(beside: Client, **values: float) -> None:
    """Set parameters of the encoder."""
    request = SetParameters.Request(parameters=[
        Parameter(name, value=value).to_parameter_msg() for name, value in values.items()])
    ask = partial(beside.call, SetParameters, '/encoder/set_parameters')
    if not all(result.successful for result in ask(request).results):
        raise StageError(f'the encoder refused {values}')


if __name__ == '__main__':
    main()
