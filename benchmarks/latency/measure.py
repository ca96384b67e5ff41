# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Measure what a user of the encoder node gets: delay, drops, processor time, memory, start.

One command, one run, a few minutes:

    python -m benchmarks.latency.measure            # or: make bench
    python -m benchmarks.latency.measure --quick    # a look, not a result
    python -m benchmarks.latency.measure --cold     # also a fresh clone to its first embedding

Latencies on a shared machine swing with its neighbours. So the bare session.run of the same
graphs is measured in the same run, in turns with the node, while the cameras go on; and the load
average stands beside every row.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
import json
from pathlib import Path
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.latency.bare import STAGES
from benchmarks.latency.collector import Collector, growth, matched_frames, percentiles
from benchmarks.latency.processes import (
    Bare,
    BenchmarkError,
    Cameras,
    Child,
    encoder_node,
    naive_node,
    Neighbours,
    ROOT,
)
from benchmarks.latency.starts import cold_start, load_average, warm_start
from hralign_ros import __version__
from hralign_ros.runtime.bundle import load_bundle, VISUALS
from hralign_ros.runtime.resources import default_bundle, find_share
import numpy as np
import onnxruntime
import yaml

SETTLE = 2.0
BUNDLES = ROOT / 'build/benchmark'
RESULTS = ROOT / 'results/latency.json'
QUICK_RESULTS = ROOT / 'build/benchmark/latency_quick.json'
_STARTED = time.monotonic()

NOTES = {
    'latency': 'publish_time - header.stamp; the stamp is the instant at which both cameras are '
               'triggered, so sending, transport, matching, decoding and inference are in it',
    'bare_p50_ms': 'time inside session.run for one tick (preprocess for each view, visual, '
                   'spatial, embed, success), same session options, at 30 Hz, cameras running '
                   'and the node deactivated but still receiving',
    'ratio_p50': 'blocks_node_p50_ms / bare_p50_ms: node and bare in turns, in short blocks',
    'drops': 'frames sent and not in any published embedding',
    'load_average': '1, 5 and 15 minutes, at the end of the row; the benchmark itself is in it',
    'other_cores': 'processor time of everything on the machine but the benchmark, and stolen '
                   'from it by others; with more than a little of it a row says less',
    'rss_mb': 'most resident memory while running; rss_peak_mb since the start of the process',
    'naive_p50_ms': 'processing of one tick of naive_node.py; naive_ratio compares it with the '
                    'processing of ours in the rows just before and after; memory_kept: with '
                    "glibc's thresholds raised, which takes most of torch's page faults away",
    'rows': 'bare_p50_ms of a row is the default bundle alone, on two threads, right beside it: '
            'the same yardstick for all rows',
}


def report(text: str) -> None:
    """Print one line of progress."""
    print(f'[{time.monotonic() - _STARTED:6.1f} s] {text}', flush=True)


class Benchmark:
    """
    One run.

    :param seconds: of the long row; the others take as many as `short`.
    """

    def __init__(
        self, collector: Collector, folder: Path, *, seconds: float, short: float,
        blocks: int, block: float,
    ) -> None:
        self.collector = collector
        self.folder = folder
        self.seconds, self.short = seconds, short
        self.blocks, self.block = blocks, block
        episode = (find_share('demo/can') / 'episode.yaml').read_text('utf-8')
        self.task = str(yaml.safe_load(episode)['task'])

    def main_row(self, bare: Bare) -> dict[str, Any]:
        """Measure the node in one long stretch, then in turns with the bare graphs."""
        with Cameras(self.folder) as cameras, encoder_node(self.folder, self.task) as node:
            report(f'two raw 640x480 cameras at 30 Hz, {self.seconds:.0f} s')
            row = self._watch(cameras, node, self.seconds)
            row['provider_threads'] = 'cpu, 2'
            report(f'  p50 {row["p50_ms"]} ms, drops {row["drops"]}')
            report(f'node and bare graphs in turns, {self.blocks} x 2 x {self.block:.0f} s')
            row |= self._turns(bare, Neighbours(node, cameras, bare))
            report(f'  node {row["blocks_node_p50_ms"]} ms, bare {row["bare_p50_ms"]} ms, '
                   f'ratio {row["ratio_p50"]}')
        return row

    def short_row(
        self, bare: Bare, name: str, *, size: tuple[int, int] = (640, 480),
        encoding: str = 'rgb8', **parameters: Any,
    ) -> dict[str, Any]:
        """Measure one variation of cameras or parameters."""
        report(f'{name}, {self.short:.0f} s')
        with Cameras(self.folder, size=size, encoding=encoding) as cameras, \
                encoder_node(self.folder, self.task, **parameters) as node:
            row = {'name': name, **self._watch(cameras, node, self.short)}
            self.collector.set_active(False)
            return self._beside(row, bare)

    def naive_row(self, bare: Bare, name: str, *, keep_memory: bool = False) -> dict[str, Any]:
        """
        Measure the naive node.

        :param keep_memory: tell glibc to keep freed memory, which takes torch's page faults away.
        """
        report(f'{name}, {self.short:.0f} s')
        with Cameras(self.folder) as cameras:
            with naive_node(self.folder, keep_memory=keep_memory) as node:
                row = {'name': name, **self._watch(cameras, node, self.short)}
            return self._beside(row, bare)

    def _beside(self, row: dict[str, Any], bare: Bare) -> dict[str, Any]:
        """Add the yardstick to a row, measured right now."""
        yardstick = bare.run(max(2.0, self.short / 4)).sum(1)
        row['bare_p50_ms'] = percentiles(yardstick)['p50_ms']
        report(f'  p50 {row["p50_ms"]} ms, processing {row["processing_p50_ms"]} ms, '
               f'drops {row["drops"]}; bare {row["bare_p50_ms"]} ms')
        return row

    def _watch(self, cameras: Cameras, node: Child, seconds: float) -> dict[str, Any]:
        """Measure a running node for a while."""
        collector = self.collector
        collector.forget()
        collector.wait_for_embedding(node, after=node.started)
        time.sleep(SETTLE)
        neighbours = Neighbours(node, cameras)
        start, cpu = time.time_ns(), node.cpu_seconds()
        memory = []
        end = start + int(seconds * 1e9)
        while (rest := (end - time.time_ns()) * 1e-9) > 0:
            time.sleep(min(rest, 0.5))
            node.check()
            memory.append(node.memory_mb())
        used = node.cpu_seconds() - cpu
        took = (time.time_ns() - start) * 1e-9
        peak = node.memory_mb('VmHWM')
        load = {'load_average': load_average(), **neighbours.cores()}
        time.sleep(0.5 + 0.6)  # the last results, and the diagnostics that count them
        arrivals = collector.arrivals(start, end)
        if not arrivals:
            raise BenchmarkError(f'{node.name}: no embedding of a frame of this row has come')
        return {
            **percentiles([a.latency for a in arrivals]),
            'processing_p50_ms': percentiles([a.processing * 1e-6 for a in arrivals])['p50_ms'],
            'rate_hz': round(len(arrivals) / seconds, 2),
            **matched_frames(arrivals, cameras.sent(start, end)),
            'drops_by_diagnostics': collector.drops(start, time.time_ns()),
            'delay': growth(arrivals),
            'cpu_cores': round(used / took, 3),
            'rss_mb': round(max(memory), 1), 'rss_peak_mb': round(peak, 1),
            'seconds': seconds, **load}

    def _turns(self, bare: Bare, neighbours: Neighbours) -> dict[str, Any]:
        """Let node and bare graphs take turns, the cameras running all the time."""
        node_ms: list[list[float]] = []
        bare_ms = []
        for number in range(self.blocks):
            if number:
                self.collector.set_active(True)
            start = time.time_ns() + 1_000_000_000
            time.sleep(1.0 + self.block)
            node_ms.append([a.latency for a in self.collector.arrivals(start, time.time_ns())])
            self.collector.set_active(False)
            bare_ms.append(bare.run(self.block))
        ticks = np.concatenate(bare_ms)
        nodes = percentiles(np.concatenate(node_ms))
        alone = percentiles(ticks.sum(1))
        pairs = [float(np.median(a) / np.median(b.sum(1)))
                 for a, b in zip(node_ms, bare_ms, strict=True)]
        return {
            'blocks_node_p50_ms': nodes['p50_ms'], 'blocks_node_p99_ms': nodes['p99_ms'],
            'bare_p50_ms': alone['p50_ms'], 'bare_p99_ms': alone['p99_ms'],
            'bare_stages_p50_ms': {
                stage: round(float(np.median(ticks[:, i])), 2) for i, stage in enumerate(STAGES)},
            'ratio_p50': round(nodes['p50_ms'] / alone['p50_ms'], 3),
            'ratio_p50_of_each_pair': [round(min(pairs), 3), round(max(pairs), 3)],
            'blocks_load_average': load_average(),
            **{f'blocks_{name}': value for name, value in neighbours.cores().items()}}


def int8_bundle(backbone: str, *words: str) -> str:
    """
    Export a bundle with the int8 visual graph, unless it is there; return its folder.

    Its adapters are identities, which cost what trained ones do.

    :param words: more options of `hralign encoder export`.
    """
    folder = BUNDLES / f'{backbone}_int8'
    try:
        there = load_bundle(folder)
        if there.manifest.provenance['hralign_ros'] == __version__ \
                and there.has(VISUALS['int8']):
            return str(folder)
    except Exception:  # noqa: B902 - whatever is wrong with it, it is made anew
        pass
    report(f'exporting a bundle of {backbone} with an int8 visual graph')
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, '-m', 'hralign_ros.cli', 'encoder', 'export', '--output', str(folder),
         '--backbone', backbone, '--int8', *words], capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f'the int8 export failed:\n{done.stderr[-2000:]}')
    return str(folder)


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    model = next((line.split(':', 1)[1].strip() for line in lines
                  if line.startswith('model name')), platform.machine())
    commit = subprocess.run(
        ['git', '-C', str(ROOT), 'describe', '--always', '--dirty'],
        capture_output=True, text=True).stdout.strip()
    return {'cores': len([line for line in lines if line.startswith('processor')]),
            'cpu': model, 'python': platform.python_version(),
            'onnxruntime': onnxruntime.__version__, 'system': platform.system(),
            'commit': commit,
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Measure everything."""
    quick = options.quick
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='hralign_bench_')))
        int8 = int8_bundle('efficientnet_lite0')
        resnet = int8_bundle('resnet50', '--weights', 'random')
        collector = stack.enter_context(Collector())
        benchmark = Benchmark(
            collector, folder, seconds=options.seconds or (8.0 if quick else 60.0),
            short=5.0 if quick else 10.0, blocks=3 if quick else 10, block=2.0 if quick else 4.0)
        report('starting the bare graphs')
        bare = stack.enter_context(Bare(folder, default_bundle(), benchmark.task))
        main = benchmark.main_row(bare)
        rows = [
            benchmark.short_row(bare, 'jpeg 640x480', encoding='jpeg',
                                wrist__transport='compressed',
                                third_person__transport='compressed'),
            benchmark.short_row(bare, 'raw 1280x720', size=(1280, 720)),
            benchmark.short_row(bare, 'raw 640x480, one thread', threads=1),
            benchmark.short_row(bare, 'raw 640x480, int8', bundle=int8, precision='int8'),
            benchmark.short_row(bare, 'raw 640x480, ResNet-50, int8', bundle=resnet,
                                precision='int8'),
            benchmark.short_row(bare, 'raw 640x480, before the naive'),
            benchmark.naive_row(bare, 'naive node'),
            benchmark.naive_row(bare, 'naive node, memory kept', keep_memory=True),
            benchmark.short_row(bare, 'raw 640x480, after the naive')]
        with Cameras(folder):
            start = warm_start(collector, folder, benchmark.task, count=2 if quick else 5,
                               report=report)
        before, naive, tuned, after = rows[-4:]
        ours = (before['processing_p50_ms'] + after['processing_p50_ms']) / 2
        document = {
            'two_cameras_30hz': main,
            'naive_p50_ms': naive['processing_p50_ms'],
            'naive_latency_p50_ms': naive['p50_ms'],
            'naive_ratio': round(naive['processing_p50_ms'] / ours, 2),
            'naive_memory_kept_p50_ms': tuned['processing_p50_ms'],
            'naive_memory_kept_ratio': round(tuned['processing_p50_ms'] / ours, 2),
            'warm_start_s': start.pop('median_s'), 'warm_start': start,
            'cold_start_s': None, 'cold_start': {'how': 'not measured: run with --cold'},
            'rss_mb': main['rss_mb'], 'cpu_cores': main['cpu_cores'],
            'rows': rows, 'machine': machine(), 'notes': NOTES, 'command': command}
        if options.cold:
            cold = cold_start(collector, folder, benchmark.task, report)
            document['cold_start_s'] = cold.pop('seconds')
            document['cold_start'] = {**cold, 'date': document['machine']['date']}
        else:
            _keep_cold_start(document)
    return document


def _keep_cold_start(document: dict[str, Any]) -> None:
    """Take over the cold start from the results that are there, and say so."""
    try:
        before = json.loads(RESULTS.read_text())
        seconds, details = before['cold_start_s'], before['cold_start']
    except (OSError, ValueError, KeyError):
        return
    if seconds is not None:
        document['cold_start_s'] = seconds
        document['cold_start'] = {**details, 'kept': 'from an earlier run with --cold'}


def show(document: dict[str, Any]) -> None:
    """Print the table."""
    columns = ('p50_ms', 'p95_ms', 'p99_ms', 'max_ms', 'processing_p50_ms', 'rate_hz', 'drops',
               'bare_p50_ms', 'cpu_cores', 'rss_mb', 'other_cores')
    heads = ('p50', 'p95', 'p99', 'max', 'tick p50', 'Hz', 'drops', 'bare', 'cores', 'RSS',
             'others', 'load')
    main = document['two_cameras_30hz']
    rows = [{'name': f'raw 640x480, {main["seconds"]:.0f} s', **main}, *document['rows']]
    width = max(len(row['name']) for row in rows)
    print('\nTwo cameras at 30 Hz, acquisition to publication [ms]')
    print(' ' * width + ''.join(f'{head:>9}' for head in heads))
    for row in rows:
        cells = [row[column] for column in columns] + [row['load_average'][0]]
        print(f'{row["name"]:<{width}}' + ''.join(f'{cell:>9}' for cell in cells))
    if (others := max(row['other_cores'] for row in rows)) > 0.15:
        print(f'Others used up to {others} cores meanwhile: run it again on a quiet machine.')
    delay = main['delay']
    print(f'\nin turns     node {main["blocks_node_p50_ms"]} ms, bare {main["bare_p50_ms"]} ms: '
          f'ratio {main["ratio_p50"]} (pairs {main["ratio_p50_of_each_pair"][0]} to '
          f'{main["ratio_p50_of_each_pair"][1]}), load {main["blocks_load_average"][0]}, '
          f'others {main["blocks_other_cores"]} cores')
    print('bare stages  ' + ', '.join(
        f'{stage} {ms} ms' for stage, ms in main['bare_stages_p50_ms'].items()))
    print(f'delay        first {delay["edge_s"]} s {delay["first_p50_ms"]} ms, last '
          f'{delay["last_p50_ms"]} ms, slope {delay["slope_ms_per_min"]} ms/min')
    print(f'naive        {document["naive_p50_ms"]} ms a tick, {document["naive_ratio"]} times '
          f'ours ({document["naive_memory_kept_ratio"]} with memory kept); its latency '
          f'{document["naive_latency_p50_ms"]} ms')
    warm = document['warm_start']
    print(f'warm start   {document["warm_start_s"]} s of {warm["each_s"]}: ' + ', '.join(
        f'{name.removesuffix("_s").replace("_", " ")} {warm[name]} s' for name in warm
        if name.endswith('ing_s') or name.startswith('until')))
    print(f'cold start   {document["cold_start_s"]} s '
          f'({document["cold_start"].get("kept") or document["cold_start"]["how"]})')
    print(f'memory       {main["rss_mb"]} MB running, {main["rss_peak_mb"]} MB at most')


def _interrupt(*_: object) -> None:
    """End the run; further signals must not perturb the stopping of the children."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        description='Measure the latency of the encoder node; writes results/latency.json.')
    parser.add_argument('--seconds', type=float, help='of the long row (60; --quick: 8)')
    parser.add_argument('--quick', action='store_true',
                        help='short rows; written under build/ unless --output is given')
    parser.add_argument('--cold', action='store_true',
                        help='also time a fresh clone up to its first embedding (minutes)')
    parser.add_argument('--output', type=Path, help='where to write (results/latency.json)')
    options = parser.parse_args(arguments)
    output = options.output or (QUICK_RESULTS if options.quick else RESULTS)
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join(['python', '-m', 'benchmarks.latency.measure', *words])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        document = run(options, command)
    except BenchmarkError as error:
        print(f'latency: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('latency: interrupted', file=sys.stderr)
        return 130
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + '\n')
    show(document)
    print(f'\nwritten to {output.relative_to(ROOT) if output.is_relative_to(ROOT) else output}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
