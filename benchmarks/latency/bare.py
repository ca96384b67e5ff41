# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The yardstick: session.run of the graphs that the node runs in a tick, and nothing else.

It holds the cameras' frames as arrays, makes its sessions with the node's own options and runs
them at the cameras' pace, a little after each frame is sent: when the node does. Only the time
inside session.run counts. Each line `run SECONDS` on stdin is answered by one line of JSON.
"""

import argparse
import json
import sys
import time

from benchmarks.latency.cameras import PERIOD, view_frames, wait_until
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.tasks import load_tasks
from hralign_ros.runtime.text import TextEncoder
import numpy as np

# How long after the cameras' instant a tick begins: transport is over by then [ns].
OFFSET = 5_000_000
STAGES = ('preprocess', 'visual', 'spatial', 'embed', 'success')


class Graphs:
    """The graphs of one tick, for the default parts, as plain onnxruntime sessions."""

    def __init__(self, path: str, threads: int, task: str) -> None:
        bundle = load_bundle(path)
        factory = SessionFactory('cpu', threads=threads)
        self._sessions = {
            stage: factory.create(bundle.read(f'{stage}.onnx'), name=stage) for stage in STAGES}
        features = TextEncoder(bundle, load_tasks(bundle), factory).encode(task)
        manifest = bundle.manifest
        self.views = manifest.views
        length, side = manifest.clip.length, manifest.image_size
        shape = (len(self.views), length)
        self._clip = {
            'tokens': np.zeros((*shape, *manifest.tokens.shape), np.float32),
            'mask': np.ones(shape, np.float32)}
        age = np.tile(np.arange(length - 1, -1, -1, dtype=np.float32), (len(self.views), 1))
        newest = np.zeros(shape, np.float32)
        newest[:, -1] = 1.0
        self._embed = {**self._clip, 'mask': newest, 'task': features.features[0]}
        self._success = {**self._clip, 'age': age * np.float32(manifest.clip.period_s),
                         'text': features.features, 'mode_mask': features.task.mode_mask}
        # A grounded head's first and newest frame of the reference view, which is the last one.
        if manifest.success is not None and manifest.success.grounded and manifest.fine:
            self._success['fine'] = np.zeros((2, *manifest.fine.shape), np.float32)
        self._pixels = np.zeros((len(self.views), 3, side, side), np.float32)
        self._count = 0

    def tick(self, images: list[np.ndarray]) -> list[int]:
        """
        Run every graph once; preprocessing once a view.

        :returns: nanoseconds inside session.run by stage, in the order of STAGES.
        """
        spent = [0] * len(STAGES)
        run = self._run
        for row, image in enumerate(images):
            self._pixels[row] = run(spent, 0, {'image': image[None]})[0][0]
        tokens, *fine = run(spent, 1, {'pixels': self._pixels})
        if fine and 'fine' in self._success:
            self._success['fine'][1] = fine[0][-1]
        self._clip['tokens'][:, self._count % self._clip['tokens'].shape[1]] = tokens
        self._count += 1
        run(spent, 2, {'tokens': tokens})
        run(spent, 3, self._embed)
        run(spent, 4, self._success)
        return spent

    def _run(
        self, spent: list[int], stage: int, feed: dict[str, np.ndarray],
    ) -> list[np.ndarray]:
        session = self._sessions[STAGES[stage]]
        start = time.perf_counter_ns()
        outputs = session.run(None, feed)
        spent[stage] += time.perf_counter_ns() - start
        return list(outputs)


def main() -> int:
    """Answer commands until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--bundle', required=True)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--task', required=True)
    options = parser.parse_args()
    graphs = Graphs(options.bundle, options.threads, options.task)
    frames = [view_frames(view, (640, 480)) for view in graphs.views]
    for _ in range(5):
        graphs.tick([view[0] for view in frames])
    print('ready', flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        tick = time.time_ns() // PERIOD + 1
        end = tick + int(seconds * 1e9) // PERIOD
        spent = []
        while tick < end:
            wait_until(tick * PERIOD + OFFSET)
            spent.append(graphs.tick([view[tick % len(view)] for view in frames]))
            tick = max(tick + 1, (time.time_ns() - OFFSET) // PERIOD)
        print(json.dumps(spent), flush=True)
    return 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
