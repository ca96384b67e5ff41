# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One tick of several bundles, in one process and in turns: what another head or backbone costs.

    python -m benchmarks.latency.bundles BUNDLE [BUNDLE ...] --output FILE

The first is what the others are compared with. Each is measured with each `--task`: the head that
scores may be another one. A tick is all that the runtime makes of an image of
each camera, with the parts spatial, keypoints and task; no ROS.
"""

import argparse
from datetime import datetime, timezone
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.latency.gpu import PARTS, play, TASK
from benchmarks.pages import table
from hralign_ros.export.parity import sample_images
from hralign_ros.runtime import Encoder
import numpy as np


def main() -> None:
    """Measure all bundles, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('bundles', type=Path, nargs='+', metavar='BUNDLE')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--ticks', type=int, default=60, help='of each bundle in a round')
    parser.add_argument('--task', nargs='+', default=[TASK], help='instructions')
    parser.add_argument('--output', type=Path, required=True)
    options = parser.parse_args()
    encoders = [Encoder.load(path, provider='cpu', threads=options.threads, parts=PARTS)
                for path in options.bundles]
    samples = sample_images()
    both = [(path, encoder, task) for path, encoder in zip(options.bundles, encoders, strict=True)
            for task in options.task]
    times: list[list[np.ndarray]] = [[] for _ in both]
    for _ in range(options.rounds):
        for (_, encoder, task), some in zip(both, times, strict=True):
            # The first fifth fills the episode's memory.
            some.append(play(encoder, samples, options.ticks, task)[1][options.ticks // 5:])
    rows: list[dict[str, Any]] = []
    for (path, encoder, task), some in zip(both, times, strict=True):
        ratios = [np.median(a) / np.median(b) for a, b in zip(some, times[0], strict=True)]
        decides = encoder.text.encode(task).task
        rows.append({
            'bundle': path.name, 'task': task, 'head': decides.head or 'success.onnx',
            'p50_ms': round(float(np.median(np.concatenate(some))), 3),
            'p99_ms': round(float(np.percentile(np.concatenate(some), 99)), 3),
            'to_the_first': round(float(np.median(ratios)), 3),
            'to_the_first_low': round(float(np.percentile(ratios, 2.5)), 3),
            'to_the_first_high': round(float(np.percentile(ratios, 97.5)), 3)})
    load = [round(x, 2) for x in os.getloadavg()]
    print(table(['bundle', 'task', 'head', 'p50 [ms]', 'p99', 'to the first', 'low', 'high'],
                [[str(value) for value in row.values()] for row in rows]), f'load {load}')
    options.output.write_text(json.dumps({
        'rows': rows, 'rounds': options.rounds, 'ticks': options.ticks,
        'threads': options.threads, 'onnxruntime': encoders[0].onnxruntime_version,
        'load_average': load, 'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': 'python -m benchmarks.latency.bundles BUNDLE BUNDLE --output FILE'},
        indent=1) + '\n', 'utf-8')


if __name__ == '__main__':
    main()
