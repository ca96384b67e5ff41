# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Measure what each optimisation of the node buys: the node with it undone, in turns with the node.

    python -m benchmarks.latency.optimisations

Two cameras of 640x480 at 30 Hz send all the time. In each round the node is measured as it is
and with one thing undone at a time; ratios are within a round, so that a machine that others use
says something all the same.
"""

import argparse
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from benchmarks.latency.collector import Collector, matched_frames, percentiles
from benchmarks.latency.processes import Cameras, Child, encoder_arguments, environment, ROOT
from benchmarks.latency.undone import WHAT
from benchmarks.pages import filled
from benchmarks.pages import table as draw
from hralign_ros.runtime.fast_dds import profiles_variable
from hralign_ros.runtime.resources import find_share
import numpy as np
import yaml

RESULTS = ROOT / 'results/optimisations.json'
PAGE = ROOT / 'docs/results/performance.md'
MEANING = {
    'spinning': "onnxruntime's workers spin while they wait",
    'executor': 'callbacks on four threads',
    'transport': "Fast DDS's default transports, for the node only"}
SETTLE = 2.0


def watch(
    collector: Collector, cameras: Cameras, folder: Path, task: str, what: str, seconds: float,
) -> dict[str, float]:
    """Measure the node for a while with one thing undone."""
    variables = environment()
    if what == 'transport':
        variables.pop(profiles_variable(variables))
    with Child('encoder', [sys.executable, '-m', 'benchmarks.latency.undone', what,
                           *encoder_arguments(task)], folder, env=variables) as node:
        collector.forget()
        collector.wait_for_embedding(node, after=node.started)
        time.sleep(SETTLE)
        start, cpu = time.time_ns(), node.cpu_seconds()
        time.sleep(seconds)
        end = time.time_ns()
        used = node.cpu_seconds() - cpu
        time.sleep(0.3)
        arrivals = collector.arrivals(start, end)
        lost = matched_frames(arrivals, cameras.sent(start, end))['drops']
    found = percentiles([a.latency for a in arrivals])
    return {'p50_ms': found['p50_ms'], 'p95_ms': found['p95_ms'], 'cores': used / seconds,
            'frames_lost': float(lost)}


def main() -> int:
    """Measure all, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=6.0)
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    task = str(yaml.safe_load((find_share('demo/can') / 'episode.yaml').read_text())['task'])
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix='hralign_bench_') as name, Collector() as collector:
        with Cameras(Path(name)) as cameras:
            for number in range(options.rounds):
                rounds.append({what: watch(collector, cameras, Path(name), task, what,
                                           options.seconds) for what in WHAT})
                print(f'round {number + 1}: ' + ', '.join(
                    f'{w} {r["p50_ms"]:.1f} ms' for w, r in rounds[-1].items()), flush=True)
    table: dict[str, Any] = {}
    for what in WHAT:
        figures = {key: round(float(np.median([r[what][key] for r in rounds])), 3)
                   for key in rounds[0][what]}
        ratios = [r[what]['p50_ms'] / r['nothing']['p50_ms'] for r in rounds]
        cores = [r[what]['cores'] / r['nothing']['cores'] for r in rounds]
        table[what] = {
            **figures, 'p50_ratio': round(float(np.median(ratios)), 3),
            'p50_ratio_each': [round(x, 3) for x in ratios],
            'cores_ratio': round(float(np.median(cores)), 3), 'means': MEANING.get(what, '')}
    found = {'undone': table, 'seconds': options.seconds, 'rounds': options.rounds,
             'load_average': [round(x, 2) for x in os.getloadavg()],
             'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
             'command': 'python -m benchmarks.latency.optimisations'}
    options.output.write_text(json.dumps(found, indent=1) + '\n', 'utf-8')
    page = draw(
        ['undone', 'p50 [ms]', 'relative to the unchanged node', 'cores',
         'relative to the unchanged node',
         'frames lost'],
        [[row['means'] or 'nothing', f'{row["p50_ms"]:.1f}', f'{row["p50_ratio"]:.2f}',
          f'{row["cores"]:.2f}', f'{row["cores_ratio"]:.2f}', f'{row["frames_lost"]:.0f}']
         for row in table.values()])
    print(page)
    if options.output == RESULTS:
        note = (f'{options.rounds} rounds of {options.seconds:.0f} s each, load '
                f'{found["load_average"][0]} at the end.')
        PAGE.write_text(filled(PAGE.read_text('utf-8'), {
            'OPTIMISATIONS': f'{page}\n\n{note}'}), 'utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
