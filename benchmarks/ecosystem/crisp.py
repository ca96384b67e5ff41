# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
crisp_py and crisp_gym beside our node: the sensor that ships, its reset, and the recorder.

    CRISP_CONFIG_PATH=config/crisp python -m benchmarks.ecosystem.crisp
    CRISP_CONFIG_PATH=config/crisp python -m benchmarks.ecosystem.crisp --gym 4.2.0

The recorder of crisp_gym writes a LeRobot data set of what the sensor says; actions are zeros, as
no arm is here. The environment itself is left out: its reset needs ros2_control's controller
manager.
"""

import argparse
from functools import partial
from importlib.metadata import version
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from benchmarks.ecosystem.measure import record
from benchmarks.ecosystem.stage import Client, client, encoder, StageError
from hralign_msgs.msg import SuccessProbability
import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Float32MultiArray, String

ARRAY, WORDS = '/encoder/embedding/array', '/record_transition'
KEY, REPOSITORY = 'observation.state.sensors_hralign', 'hralign/crisp'


def main() -> None:
    """Run both, and write down what ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--gym', metavar='VERSION', help='of crisp_gym, to run its recorder too')
    gym = parser.parse_args().gym
    programs = [f'crisp_py {version("crisp_python")}']
    with TemporaryDirectory() as folder, client('crisp_check') as beside:
        os.environ['HF_LEROBOT_HOME'] = folder
        with encoder('-p', 'mirrors.embedding_array:=true',
                     '-p', 'mirrors.recording:=save_or_delete'):
            sensor = sense(beside)
            if gym:
                record_episodes(beside, sensor, Path(folder))
                programs.append(f'crisp_gym {gym}')
    record('python -m benchmarks.ecosystem.crisp' + f' --gym {gym}' * bool(gym),
           consumers=programs, without_glue=programs)


def sense(beside: Client) -> Any:
    """Read the sensor as crisp_py does, and let it reset the encoder's episode."""
    from crisp_py.sensors import make_sensor

    arrays: set[bytes] = set()
    results: list[SuccessProbability] = []
    beside.node.create_subscription(
        Float32MultiArray, ARRAY,
        lambda message: arrays.add(np.array(message.data, np.float32).tobytes()), 10)
    beside.node.create_subscription(SuccessProbability, '/encoder/success', results.append, 10)
    sensor = make_sensor('hralign')
    sensor.wait_until_ready(timeout=60.0)
    beside.wait(lambda: sensor.value.tobytes() in arrays, 'a value that is an embedding')
    print(f'sensor:  {sensor.value.shape}, equal to the bit to {ARRAY}')
    beside.wait(lambda: results, 'a result')
    before = results[-1].episode_id
    sensor.reset()
    beside.wait(lambda: results[-1].episode_id != before, 'another episode')
    print('reset:   another episode of the encoder')
    return sensor


def ended(thread: Thread) -> bool:
    """Tell whether a thread has ended."""
    return not thread.is_alive()


def record_episodes(beside: Client, sensor: Any, folder: Path) -> None:
    """Let SUCCESS save a recording and FAILURE delete one; read what is left."""
    from crisp_gym.record.recording_manager import make_recording_manager
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    size = sensor.value.size
    numbers = {'dtype': 'float32', 'shape': (size,), 'names': [f'{i}' for i in range(size)]}
    manager = make_recording_manager(
        'ros', features={KEY: numbers, 'observation.state': numbers,
                         'action': {'dtype': 'float32', 'shape': (2,), 'names': ['x', 'y']}},
        repo_id=REPOSITORY, robot_type='none', num_episodes=2, fps=10, use_sound=False,
        writer_timeout=60.0)
    manager.wait_until_ready()
    words: list[str] = []
    beside.node.create_subscription(
        String, WORDS, lambda message: words.append(message.data), 10)
    person = beside.node.create_publisher(String, WORDS, 10)
    # The recorder, the encoder and this.
    beside.wait(lambda: person.get_subscription_count() == 3, 'the recorder')

    def one() -> tuple[dict[str, Any], np.ndarray]:
        return {KEY: sensor.value}, np.zeros(2, np.float32)

    with manager:
        for end, changes in (('save', {'time_out_s': 0.0}),
                             ('delete', {'time_out_s': 2.0, 'dwell_s': 60.0})):
            beside.call(SetParameters, '/encoder/set_parameters', SetParameters.Request(
                parameters=[Parameter(name, value=value).to_parameter_msg()
                            for name, value in changes.items()]))
            words.clear()
            recording = Thread(target=manager.record_episode, args=(one, 'open the drawer'),
                               kwargs={'on_start': sensor.reset}, daemon=True)
            recording.start()
            person.publish(String(data='record'))
            beside.wait(partial(ended, recording), 'the end of the recording')
            beside.wait(lambda: len(words) > 2, 'the words')
            print(f'words:   {" ".join(words)}; recorded {manager.episode_count}')
            if words != ['record', 'record', end]:
                raise StageError(f'the words were {words}')
    data = LeRobotDataset(REPOSITORY, root=folder / REPOSITORY)
    print(f'data:    {data.num_episodes} episode of {data.num_frames} frames, '
          f'{tuple(data[0]["observation.state"].shape)}')


if __name__ == '__main__':
    main()
