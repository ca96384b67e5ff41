# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Measure whether the recorder slows the encoder: the encoder alone and beside it, in turns.

    python -m benchmarks.latency.recorder

Two cameras of 640x480 send at 30 Hz and joint states come at 100 Hz all the time. In each round
the same encoder is measured without a recorder and with one that records, as it does by default.
Ratios are within a round.
"""

import argparse
from array import array
from collections.abc import Sequence
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import signal
import sys
import tempfile
from threading import Event
import time
from typing import Any

from benchmarks.latency.cameras import wait_until
from benchmarks.latency.collector import Collector, matched_frames, percentiles
from benchmarks.latency.measure import machine
from benchmarks.latency.processes import (
    Cameras,
    Child,
    encoder_node,
    NAMESPACE,
    Neighbours,
    ROOT,
)
from benchmarks.pages import filled
from benchmarks.pages import table as draw
from hralign_ros.runtime.resources import find_share
import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
import yaml

RESULTS = ROOT / 'results/recorder_latency.json'
PAGE = ROOT / 'docs/results/performance.md'
SETTLE = 2.0
JOINT_PERIOD = 10_000_000


def send_joints() -> int:
    """Be the arm: send joint states until SIGINT or SIGTERM."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('arm', namespace=NAMESPACE if len(sys.argv) < 3 else sys.argv[2])
    publisher = node.create_publisher(JointState, 'joint_states', 10)
    message = JointState(name=[f'joint_{n}' for n in range(7)], position=array('d', [0.5] * 7),
                         velocity=array('d', [0.1] * 7), effort=array('d', [1.0] * 7))
    due = time.time_ns()
    while not stop.is_set():
        due += JOINT_PERIOD
        wait_until(due)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


def recorder(folder: Path) -> Child:
    """Start a recorder; its bags go into a folder of this one."""
    return Child('recorder', [
        sys.executable, '-m', 'hralign_ros.nodes.recorder', '--ros-args', '-r',
        f'__ns:={NAMESPACE}', '-p', f'folder:={folder}/bags', '-p', 'min_free_gb:=0.1'], folder)


def watch(
    collector: Collector, cameras: Cameras, node: Child, seconds: float, *others: Child,
) -> dict[str, float]:
    """Measure a running encoder for a while, and what others use beside it."""
    time.sleep(SETTLE)
    neighbours = Neighbours(node, cameras, *others)
    start = time.time_ns()
    cpu = [child.cpu_seconds() for child in (node, *others)]
    time.sleep(seconds)
    end = time.time_ns()
    used = [(child.cpu_seconds() - before) / seconds
            for child, before in zip((node, *others), cpu, strict=True)]
    load = neighbours.cores()
    time.sleep(0.3)
    arrivals = collector.arrivals(start, end)
    found = percentiles([a.latency for a in arrivals])
    return {**found, 'encoder_cores': used[0], 'recorder_cores': sum(used[1:]),
            'frames_lost': float(matched_frames(arrivals, cameras.sent(start, end))['drops']),
            'load_average': os.getloadavg()[0], **load}


def ratios(rounds: Sequence[dict[str, dict[str, float]]], key: str) -> list[float]:
    """Give the figure with a recorder over that without, round by round."""
    return [one['with'][key] / one['without'][key] for one in rounds]


def main() -> int:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--rounds', type=int, default=8)
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--output', type=Path, default=RESULTS)
    parser.add_argument('--conditions', default='', help='what else is to be known of this run')
    options = parser.parse_args()
    task = str(yaml.safe_load((find_share('demo/can') / 'episode.yaml').read_text())['task'])
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix='hralign_bench_') as name, Collector() as collector:
        folder = Path(name)
        with Cameras(folder) as cameras, encoder_node(folder, task) as node, Child(
                'arm', [sys.executable, '-m', 'benchmarks.latency.recorder', 'joints', NAMESPACE],
                folder):
            collector.wait_for_embedding(node, after=node.started)
            for number in range(options.rounds):
                one = {'without': watch(collector, cameras, node, options.seconds)}
                with recorder(folder) as beside:
                    beside.wait_for_output('recording 2')
                    one['with'] = watch(collector, cameras, node, options.seconds, beside)
                rounds.append(one)
                print(f'round {number + 1}: ' + ', '.join(
                    f'{what} {row["p50_ms"]:.1f} ms (p99 {row["p99_ms"]:.1f}, load '
                    f'{row["load_average"]:.1f})' for what, row in one.items()), flush=True)
            bags = sorted((folder / 'bags').glob('*Z_*'))
            size = sum(path.stat().st_size for bag in bags for path in bag.iterdir())
    document: dict[str, Any] = {
        'recorder_latency_ratio': round(float(np.median(ratios(rounds, 'p50_ms'))), 3),
        'recorder_latency_ratio_each': [round(x, 3) for x in ratios(rounds, 'p50_ms')],
        'recorder_latency_p99_ratio': round(float(np.median(ratios(rounds, 'p99_ms'))), 3),
        **{what: {key: round(float(np.median([one[what][key] for one in rounds])), 3)
                  for key in rounds[0][what]} for what in ('without', 'with')},
        'rounds': options.rounds, 'seconds': options.seconds, 'bags': len(bags),
        'megabytes': round(size / 1e6, 2), 'conditions': options.conditions,
        'machine': machine(),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': f'python -m benchmarks.latency.recorder --rounds {options.rounds} --seconds '
                   f'{options.seconds:g}'}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + '\n', 'utf-8')
    page = draw(
        ['recorder', 'p50 [ms]', 'p95', 'p99', 'frames lost', "encoder's cores",
         "recorder's cores", 'load'],
        [[what, *(f'{document[what][key]:.1f}' for key in ('p50_ms', 'p95_ms', 'p99_ms')),
          f'{document[what]["frames_lost"]:.0f}',
          *(f'{document[what][key]:.2f}' for key in ('encoder_cores', 'recorder_cores')),
          f'{document[what]["load_average"]:.1f}'] for what in ('without', 'with')])
    print(page)
    if options.output == RESULTS:
        note = (f'Medians of {options.rounds} rounds of {options.seconds:g} s each. Ratio of p50: '
                f'**{document["recorder_latency_ratio"]:.2f}** (single rounds '
                f'{min(document["recorder_latency_ratio_each"]):.2f} to '
                f'{max(document["recorder_latency_ratio_each"]):.2f}); of p99: '
                f'{document["recorder_latency_p99_ratio"]:.2f}.')
        PAGE.write_text(filled(PAGE.read_text('utf-8'), {
            'RECORDER': f'{page}\n\n{note}'}), 'utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(send_joints() if sys.argv[1:2] == ['joints'] else main())
