# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The whole chain on recorded video, without ROS's launch system: camera nodes, encoder, monitor.

With a ROS 2 installation `ros2 launch hralign_ros demo.launch.py` does the same.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from hralign_ros.nodes.children import tied
from hralign_ros.nodes.demo_report import draw_overview, ood_sentence, read_ticks
from hralign_ros.runtime.bundle import Bundle, load_bundle
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.fast_dds import use_profile
from hralign_ros.runtime.resources import default_bundle, find_share
from hralign_ros.runtime.tasks import load_tasks
from hralign_ros.runtime.video import probe
import yaml

_PATIENCE = 30.0


class DemoError(HralignError):
    """What was given does not fit the bundle, or is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo to the end of the videos; return 0 if all went well."""
    parser = argparse.ArgumentParser(description='Run the encoder on recorded video.')
    parser.add_argument(
        '--video', nargs='+', action='extend', metavar='[VIEW=]FILE', help='one file that plays '
        'as all views, or one for each view; those without a name come in the order of the '
        'views, wrist first; default: the shipped episodes')
    parser.add_argument('--task', help='the instruction')
    parser.add_argument('--bundle', help='directory of a bundle; default: the shipped one')
    parser.add_argument('--report', type=Path, default=Path('demo_report'),
                        help='folder for report.png and ticks.csv (%(default)s)')
    parser.add_argument('--rate', type=float, default=0.0,
                        help="frames a second; default: the times of the videos' own frames")
    options = parser.parse_args(arguments)
    try:
        bundle = load_bundle(options.bundle or default_bundle())
        if not options.video:
            return _play_episodes(bundle, options)
        videos, task = _match(options.video, bundle.manifest.views), options.task or ''
        code = _run(videos, task, bundle, options, options.report)
        if not code:
            _tell_likeness([(task, options.report / 'ticks.csv')], bundle)
        return code
    except HralignError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1


def _match(given: Sequence[str], views: Sequence[str]) -> dict[str, Path]:
    """
    Tell which video is of which view.

    :param given: [VIEW=]FILE.
    :raises DemoError: they do not fit the views of the bundle.
    :raises DataError: one cannot be played.
    """
    videos: dict[str, Path] = {}
    for text in given:
        view, equals, file = text.partition('=')
        if not equals or view not in views:
            view, file = '', text
        left = [view for view in views if view not in videos]
        if view in videos or not left:
            raise DemoError(f'{len(given)} videos are given for the views {", ".join(views)}; '
                            'needed is one that plays as all of them, or one for each')
        if not view and len(given) == 1:
            videos = dict.fromkeys(views, Path(file))
        else:
            videos[view or left[0]] = Path(file)
    missing = [view for view in views if view not in videos]
    if missing:
        raise DemoError(f'no video is given for the view {", ".join(missing)}; needed is one that '
                        'plays as all views, or one for each (--video VIEW=FILE)')
    for video in dict.fromkeys(videos.values()):
        probe(video)
    return videos


def _play_episodes(bundle: Bundle, options: argparse.Namespace) -> int:
    """
    Replay the shipped episodes one after the other, and plot them side by side.

    :raises DemoError: they are not there, or do not have the views of the bundle.
    """
    try:
        shipped = find_share('demo/episodes')
    except FileNotFoundError as error:
        raise DemoError(f'{error}; or give your own with --video') from error
    played, tasks = [], []
    for folder in sorted(path.parent for path in shipped.glob('*/episode.yaml')):
        episode = yaml.safe_load((folder / 'episode.yaml').read_text('utf-8'))
        unknown = [view for view in bundle.manifest.views if view not in episode['views']]
        if unknown:
            raise DemoError(f'{folder.name} has no view {", ".join(unknown)}, which the bundle '
                            'has; give your own videos with --video')
        task = options.task or episode['task']
        print(f"{folder.name}: '{task}'", flush=True)
        report = options.report / folder.name
        code = _run({view: folder / episode['views'][view]['file']
                     for view in bundle.manifest.views}, task, bundle, options, report)
        if code:
            return code
        played.append((folder, episode, report / 'ticks.csv'))
        tasks.append(task)
    try:
        draw_overview(played, options.report / 'report.png',
                      load_tasks(bundle).of(tasks[0]).when_unlike if tasks else '')
        print(f'report: {options.report}/report.png')
    except ImportError as error:
        print(f'demo: no report.png: {error}; pip install matplotlib')
    _tell_likeness([(task, ticks) for task, (_, _, ticks) in zip(tasks, played, strict=True)],
                   bundle)
    return 0


def _tell_likeness(played: Sequence[tuple[str, Path]], bundle: Bundle) -> None:
    """
    Say whether what was played is like what the bundle was made with, and else what to do.

    :param played: instruction and ticks.csv of each replay.
    """
    rows = [row for _, ticks in played for row in read_ticks(ticks)]
    # One next step for all: they are of one bundle, and mostly of one task.
    if played:
        print(ood_sentence(rows, load_tasks(bundle).of(played[0][0]).when_unlike))


def _run(
    videos: Mapping[str, Path], task: str, bundle: Bundle, options: argparse.Namespace,
    report: Path,
) -> int:
    """Start all processes, wait for the videos to end, stop them; 1: something failed."""
    environment = dict(os.environ)
    try:
        use_profile(environment, find_share('config/fastdds_large_images.xml'))
    except FileNotFoundError as error:
        print(f'demo: {error}; images may be lost on their way')
    views = list(videos)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        processes['monitor'] = _node(
            'demo_monitor', environment,
            {'report': str(report),
             'cameras': [f'{view}/image_raw' for view in views]})
        processes['encoder'] = _node(
            'encoder_node', environment, {'autostart': True, 'bundle': str(bundle.path),
                                          **({'task': task} if task else {})},
            log_level='warn')
        for view, video in videos.items():
            processes[view] = _node(
                'video_publisher', environment,
                {'file': str(video.resolve()), 'rate_hz': options.rate,
                 'frame_id': f'{view}_optical_frame',
                 # The encoder and the monitor; else an episode would begin in mid-video.
                 'wait_for_subscribers': 2, 'wait_s': _PATIENCE},
                remap={'image_raw': f'{view}/image_raw', '__node': f'{view}_camera'})
        _wait(processes, views)
        time.sleep(0.5)  # the last results are still on their way
    except KeyboardInterrupt:
        print('interrupted')
    finally:
        codes = _stop(processes)
    # A process that returns 1 has said why.
    for name, code in codes.items():
        if code not in (0, 1):
            print(f'demo: the {name} ended with code {code}', file=sys.stderr)
    return 1 if any(codes.values()) else 0


def _node(
    module: str, environment: dict[str, str], values: dict[str, object], *,
    remap: dict[str, str] | None = None, log_level: str = 'info',
) -> 'subprocess.Popen[bytes]':
    """Start one of our nodes as a process of its own group, so that Ctrl-C reaches only us."""
    command = [sys.executable, '-m', f'hralign_ros.nodes.{module}', '--ros-args',
               '--log-level', log_level]
    for name, value in values.items():
        # JSON is YAML, too, but for characters that it would write as two halves.
        command += ['-p', f'{name}:={json.dumps(value, ensure_ascii=False)}']
    for source, target in (remap or {}).items():
        command += ['-r', f'{source}:={target}']
    return subprocess.Popen(tied(command), env=environment, start_new_session=True)


def _wait(processes: dict[str, 'subprocess.Popen[bytes]'], views: list[str]) -> None:
    """Wait until all cameras have played to the end, or something has died."""
    while any(processes[view].poll() is None for view in views):
        for name in ('encoder', 'monitor'):
            if processes[name].poll() is not None:
                print(f'demo: the {name} has ended early', file=sys.stderr)
                return
        time.sleep(0.1)


def _stop(processes: dict[str, 'subprocess.Popen[bytes]']) -> dict[str, int]:
    """Interrupt what still runs and collect the exit codes."""
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    codes = {}
    for name, process in processes.items():
        try:
            codes[name] = process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            codes[name] = process.wait()
    return codes


if __name__ == '__main__':
    sys.exit(main())
