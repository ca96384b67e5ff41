# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attempts of a policy over ROS: simulated arm, encoder and policy as processes, and what came of it.

    python -m hralign_ros.nodes.closed_loop POLICY --output FOLDER

FOLDER gets a line of attempts.jsonl for each attempt, report.png, and attempt.webp, an animated
picture of one. An attempt that is there is not made again with --resume. SIGINT, SIGTERM and
SIGHUP stop the nodes, too.
"""

import argparse
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from threading import Event
import time
from typing import Any

from hralign_ros.nodes.attempt_driver import AttemptDriver, AttemptError, Seen
from hralign_ros.nodes.children import tied
from hralign_ros.nodes.closed_loop_report import animate, draw_report, Picture, sentences
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.errors import DataError, HralignError
from hralign_ros.runtime.fast_dds import use_profile
from hralign_ros.runtime.json_lines import add_line, read_lines
from hralign_ros.runtime.policy import MANIFEST, PolicySpec, read_policy
from hralign_ros.runtime.resources import default_bundle, find_share
import rclpy
from rclpy.signals import SignalHandlerOptions

ATTEMPTS = 'attempts.jsonl'
SIMULATOR = Path('.venv-sim/bin/arm_sim')
MAX_AGE_S = 0.2
_PATIENCE = 30.0
# The graph is looked at for so long before anything is started, and then as often [s].
_LOOK_S = 1.5
# What one arm, one encoder and one policy publish; and what a real arm may be listening to.
_PUBLISHED = ('/clock', '/joint_states', '/tool_pose', '/wrist/image_raw',
              '/third_person/image_raw', '/policy/twist', '/policy/gripper', '/encoder/embedding')
_COMMANDS = ('/policy/twist', '/policy/gripper')


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the attempts that are missing, and report; return 0 if all were made."""
    parser = argparse.ArgumentParser(
        description='Let a policy act on a simulated arm over ROS, and count.')
    parser.add_argument('policy', type=Path, help='folder with policy.yaml and policy.onnx')
    parser.add_argument('--output', type=Path, required=True, help='folder for what came of it')
    parser.add_argument('--bundle', type=Path, help='default: the shipped one')
    parser.add_argument('--task', default='', help='default: that of the demonstrations')
    parser.add_argument('--arm', default='', help='default: that of the demonstrations')
    parser.add_argument('--lab', default='', help='default: that of the demonstrations')
    parser.add_argument('--episodes', type=int, default=20, help='attempts (%(default)s)')
    parser.add_argument('--first-seed', type=int, default=100_000, help='(%(default)s)')
    parser.add_argument('--speed', type=float, default=1.0, help='of simulated time against that '
                        'of the system (%(default)s); lower it on a busy computer')
    parser.add_argument('--simulator', type=Path, default=SIMULATOR,
                        help='program of the simulated arm (%(default)s)')
    parser.add_argument('--end-on-decision', action=argparse.BooleanOptionalAction, default=True,
                        help='a SUCCESS or FAILURE of the encoder ends an attempt (by default)')
    parser.add_argument('--record', type=Path, metavar='FOLDER', help='record the attempts as '
                        'bags, labelled with the truth, for `hralign data import rosbag`')
    parser.add_argument('--resume', action='store_true', help='go on with what is missing')
    try:
        return run(parser.parse_args(arguments))
    except (HralignError, OSError) as error:
        print(f'closed_loop: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; the same command with --resume goes on', file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """
    Make the attempts and report.

    :raises DataError: something that is needed is not there.
    :raises PolicyError: the policy cannot be used.
    :raises AttemptError: a node ended, does not answer, or refuses.
    """
    spec, bundle = read_policy(options.policy), load_bundle(options.bundle or default_bundle())
    place = {'task': options.task or str(spec.training.get('task_id', '')),
             'arm': options.arm or _only(spec, 'embodiments'),
             'lab': options.lab or _only(spec, 'scenes')}
    for name, value in place.items():
        if not value:
            raise DataError(f'{options.policy}/{MANIFEST} does not say the {name} of its '
                            f'demonstrations; name it with --{name}')
    if options.episodes < 1 or options.first_seed < 0:
        raise DataError(f'{options.episodes} episodes from seed {options.first_seed}: needed are '
                        'one or more, from a seed that is not negative')
    if not options.simulator.exists():
        raise DataError(f'{options.simulator} is not there: `make sim` makes it, in .venv-sim of '
                        'the repository; or name it with --simulator')
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / ATTEMPTS
    who = {'policy_sha256': sha256((options.policy / MANIFEST).read_bytes()).hexdigest(),
           'bundle_sha256': bundle.sha256, 'end_on_decision': options.end_on_decision, **place}
    rows = [row for _, row in read_lines(file)]
    if rows and not options.resume:
        raise DataError(f'{file} holds attempts already; add --resume to complete them, or name '
                        'another folder')
    wanted = range(options.first_seed, options.first_seed + options.episodes)
    mine = [row for row in rows if row['seed'] in wanted
            and all(row.get(name) == value for name, value in who.items())]
    there = {row['seed'] for row in mine}
    seeds = [seed for seed in wanted if seed not in there]
    pictures: list[Picture] = []
    if seeds:
        print(f"'{spec.task}': {len(seeds)} attempts with {place['arm']} in {place['lab']}",
              flush=True)
        # Closed also where a line cannot be written: else the nodes would go on.
        with closing(_attempts(options, spec, bundle.path, place, seeds)) as attempts:
            for row, picture in attempts:
                made = {**who, **row, 'speed': options.speed,
                        'load_average': round(os.getloadavg()[0], 2)}
                add_line(file, made)
                mine.append(made)
                pictures.append(picture)
                # A hundred attempts with all their images do not fit into memory.
                for one in pictures:
                    if one is not best(pictures):
                        one.frames = one.frames[-1:]
    for sentence in sentences(mine):
        print(sentence)
    if pictures:
        try:
            draw_report(pictures, spec.task, options.output / 'report.png')
            animate(best(pictures), spec.task, options.output / 'attempt.webp')
            print(f'{file}; report.png and attempt.webp beside it show the {len(pictures)} '
                  'attempts that were made just now')
        except ImportError as error:
            print(f'no pictures: {error}; pip install matplotlib. {file} is written')
    return 0


def best(pictures: Sequence[Picture]) -> Picture:
    """Choose the attempt that is shown as a moving picture."""
    return next((one for one in pictures if one.row['success']), pictures[0])


def _attempts(
    options: argparse.Namespace, spec: PolicySpec, bundle: Path, place: dict[str, str],
    seeds: Sequence[int],
) -> Generator[tuple[dict[str, Any], Picture], None, None]:
    """Start the nodes, make the attempts, stop the nodes; yield each attempt with its picture."""
    with _signals() as asked:
        yield from _attempts_until(asked, options, spec, bundle, place, seeds)


@contextmanager
def _signals() -> Iterator[Event]:
    """
    Note the signals that ask for the end, in place of ending at any point.

    The nodes have process groups of their own: they outlived a command that a second Ctrl-C, a
    SIGTERM or the end of its terminal ended before it had stopped them.
    """
    asked = Event()
    # What is ignored, as nohup has it, stays so.
    before = {number: signal.signal(number, lambda *_: asked.set())
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _attempts_until(
    asked: Event, options: argparse.Namespace, spec: PolicySpec, bundle: Path,
    place: dict[str, str], seeds: Sequence[int],
) -> Generator[tuple[dict[str, Any], Picture], None, None]:
    """Make the attempts; `asked`: to end, by KeyboardInterrupt."""
    _stay_here()
    processes: dict[str, subprocess.Popen[bytes]] = {}
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    driver: AttemptDriver | None = None
    looked = 0.0

    def alive() -> None:
        nonlocal looked
        if asked.is_set():
            raise KeyboardInterrupt
        if driver is not None and time.monotonic() - looked > _LOOK_S:
            looked = time.monotonic()
            _check_alone(driver, 1)
        for name, process in processes.items():
            if process.poll() is not None:
                raise AttemptError(f'the {name} has ended with code {process.returncode}; what '
                                   f'it said is above, or in {options.output}/{name}.log')

    try:
        driver = AttemptDriver(MAX_AGE_S, label=options.record is not None,
                               end_on_decision=options.end_on_decision)
        end = time.monotonic() + _LOOK_S
        while time.monotonic() < end:
            alive()
            _check_alone(driver, 0)
            time.sleep(0.1)
        for name, command in _commands(options, spec, bundle, place, seeds[0]).items():
            with open(options.output / f'{name}.log', 'wb') as log:
                processes[name] = subprocess.Popen(
                    tied(command), start_new_session=True, stdout=log, stderr=subprocess.STDOUT)
        driver.wait_ready(alive)
        for number, seed in enumerate(seeds, 1):
            row = driver.attempt(seed, alive, partial(_show, number, len(seeds)))
            _tell(number, len(seeds), row)
            yield row, Picture.of(row, driver.seen)
    finally:
        _stop(processes)
        if driver is not None:
            driver.destroy_node()
        rclpy.try_shutdown()


def _commands(
    options: argparse.Namespace, spec: PolicySpec, bundle: Path, place: dict[str, str], seed: int,
) -> dict[str, list[str]]:
    """Give the command line of each node, in the order in which they are started."""
    timed: dict[str, object] = {'use_sim_time': True}
    encoder = {**timed, 'autostart': True, 'bundle': str(bundle), 'task': spec.task}
    if spec.part_names:
        encoder['embedding_parts'] = list(spec.part_names)
    nodes: dict[str, tuple[dict[str, object], dict[str, str]]] = {
        'arm_sim': ({**place, 'seed': seed, 'speed': options.speed},
                    {'~/twist': '/policy/twist', '~/gripper': '/policy/gripper'}),
        'encoder': (encoder, {})}
    if options.record is not None:
        nodes['recorder'] = (
            {**timed, 'folder': str(options.record.resolve()), 'rate_hz': 10.0}, {})
    # The last one, which is stopped first.
    nodes['policy'] = (
        {**timed, 'autostart': True, 'policy': str(options.policy.resolve()),
         'frame_id': 'world', 'gripper_joints': ['finger_1', 'finger_2'],
         'max_age_s': MAX_AGE_S, 'max_linear_m_s': 0.8, 'max_episode_s': 0.0,
         'end_on_decision': options.end_on_decision}, {})
    modules = {'encoder': 'encoder_node'}
    commands = {}
    for name, (values, remap) in nodes.items():
        command = [str(options.simulator)] if name == 'arm_sim' else [
            sys.executable, '-m', f'hralign_ros.nodes.{modules.get(name, name)}']
        commands[name] = [*command, '--ros-args']
        for key, value in values.items():
            commands[name] += ['-p', f'{key}:={json.dumps(value, ensure_ascii=False)}']
        for source, target in remap.items():
            commands[name] += ['-r', f'{source}:={target}']
    return commands


def _stay_here() -> None:
    """
    Set the environment of this process and of all nodes: nothing leaves this computer.

    A simulated arm publishes joint states and takes commands under the names of a real one.
    """
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # Either leads to other computers whatever the range is.
    for name in ('ROS_STATIC_PEERS', 'ROS_DISCOVERY_SERVER'):
        os.environ.pop(name, None)
    try:
        use_profile(os.environ, find_share('config/fastdds_large_images.xml'))
    except FileNotFoundError as error:
        print(f'closed_loop: {error}; images may be lost on their way')


def _check_alone(driver: AttemptDriver, ours: int) -> None:
    """
    See that no other robot is on this ROS domain.

    :param ours: as many publishers of each topic are ours; 0: nothing has been started.
    :raises AttemptError: somebody else publishes what the simulated arm, the encoder or the policy
        does; or listens to the policy's commands before there is a simulated arm that could.
    """
    for topic in _PUBLISHED:
        if driver.count_publishers(topic) > ours:
            raise AttemptError(
                f'somebody else on this ROS domain publishes {topic}, and the simulated arm would '
                f'be in the way (`ros2 topic info -v {topic}` names the node). End that, or '
                'set ROS_DOMAIN_ID to a number of your own')
    for topic in _COMMANDS if not ours else ():
        if driver.count_subscribers(topic) > driver.listens_to(topic):
            raise AttemptError(
                f'somebody else on this ROS domain listens to {topic}, and would follow what the '
                f'policy sends to the simulated arm (`ros2 topic info -v {topic}` names the '
                'node). End that, or set ROS_DOMAIN_ID to a number of your own')


def _only(spec: PolicySpec, name: str) -> str:
    found = spec.training.get(name)
    return str(found[0]) if isinstance(found, list) and len(found) == 1 else ''


def _show(number: int, count: int, seen: Seen) -> None:
    """Draw the live view over itself on a terminal."""
    if not sys.stdout.isatty() or not seen.ticks:
        return
    stamp, decision, probability, status = seen.ticks[-1]
    print(f'\x1b[2K\r{number}/{count}  {(stamp - seen.truths[0][0]) * 1e-9:5.1f} s  '
          f'probability {probability:.2f}  {decision.name}  commands {len(seen.moves)}',
          end='', flush=True)


def _tell(number: int, count: int, row: dict[str, Any]) -> None:
    """Print a line for a finished attempt."""
    begin = '\x1b[2K\r' if sys.stdout.isatty() else ''
    outcome = f'accomplished after {row["accomplished_s"] - row["first_command_s"]:.1f} s' \
        if row['success'] else row['problem'] or 'not accomplished'
    decided = f'{row["decision"].upper()} at {row["decided_s"]:.1f} s' if row['decision'] \
        else 'no decision'
    print(f'{begin}{number}/{count}  scene {row["seed"]}: {outcome}; {decided}; '
          f'{row["commands"]} commands, real time factor {row["real_time_factor"]}', flush=True)


def _stop(processes: dict[str, 'subprocess.Popen[bytes]']) -> None:
    """End what still runs, the policy first: it stops the arm."""
    for name in reversed(processes):
        process = processes[name]
        if process.poll() is None:
            # The shell that prepares the simulator may lose a SIGINT.
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == '__main__':
    sys.exit(main())
