# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
One tick on a GPU, in float32 and float16, with and without recorded graphs, beside the CPU.

    python -m benchmarks.latency.gpu
    python -m benchmarks.latency.gpu --provider cpu --output FILE   # tries the benchmark itself

Variants take turns, so that a GPU whose clock changes does not favour one. Embeddings are compared
with the CPU's; one that differs ends the run with an error. The bundle must have been exported
with --fp16 for the rows of float16.
"""

import argparse
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks.pages import ROOT, table
from hralign_ros.export.parity import sample_images
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.bundle import load_bundle, VISUALS
import numpy as np

RESULTS = ROOT / 'results' / 'gpu.json'
TASK = 'put the marker in the cup'
PARTS = ('spatial', 'keypoints', 'task')
# Least cosine of the part `task` with the CPU's in float32.
LEAST = {'fp32': 0.9999, 'fp16': 0.999}


def main() -> int:
    """Measure all variants, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--provider', choices=('cuda', 'cpu'), default='cuda')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--ticks', type=int, default=200, help='of each variant in a round')
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    there = load_bundle(options.bundle)
    cpu = Encoder.load(options.bundle, provider='cpu', parts=PARTS)
    variants = {'CPU, fp32': (cpu, 'fp32')}
    for precision in LEAST:
        if not there.has(VISUALS[precision]):
            print(f'{precision}: left out, the bundle has no {VISUALS[precision]}')
            continue
        for recorded in (False, True):
            name = f'{options.provider}, {precision}{", recorded" if recorded else ""}'
            variants[name] = (Encoder.load(
                options.bundle, provider=options.provider, precision=precision, parts=PARTS,
                require_gpu=options.provider == 'cuda', cuda_graph=recorded), precision)
    samples = sample_images()
    wanted, times = play(cpu, samples, 20)[0], {name: [] for name in variants}
    cosines: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, (encoder, precision) in variants.items():
            found, spent = play(encoder, samples, options.ticks)
            times[name].append(spent[len(spent) // 5:])
            cosines[name] = min(cosines.get(name, 1.0), float(
                (wanted[:len(found)] * found[:len(wanted)]).sum(-1).min()))
            if cosines[name] < LEAST[precision]:
                print(f"{name}: an embedding has a cosine of {cosines[name]:.5f} with the CPU's; "
                      f'needed is {LEAST[precision]}', file=sys.stderr)
                return 1
    rows: list[dict[str, Any]] = [{
        'variant': name, 'p50_ms': round(float(np.median(np.concatenate(some))), 3),
        'p99_ms': round(float(np.percentile(np.concatenate(some), 99)), 3),
        'to_cpu': round(float(np.median([np.median(a) / np.median(b) for a, b in zip(
            some, times['CPU, fp32'], strict=True)])), 3),
        'least_cosine': round(cosines[name], 6)} for name, some in times.items()]
    print(table(['variant', 'p50 [ms]', 'p99', 'to the CPU', 'least cosine with it'],
                [[str(value) for value in row.values()] for row in rows]))
    options.output.write_text(json.dumps({
        'rows': rows, 'onnxruntime': cpu.onnxruntime_version,
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': f'python -m benchmarks.latency.gpu --provider {options.provider}'},
        indent=1) + '\n', 'utf-8')
    return 0


def play(
    encoder: Encoder, samples: list[np.ndarray], count: int, task: str = TASK,
) -> tuple[np.ndarray, np.ndarray]:
    """Play samples at 30 Hz of their own clock; return `task` [n, V, C] and milliseconds."""
    episode = encoder.start_episode(task)
    found, spent = [], []
    for tick in range(count):
        images = {view: samples[(tick + i) % len(samples)]
                  for i, view in enumerate(encoder.manifest.views)}
        start = time.perf_counter()
        found.append(episode.step(images, stamp=1 + tick * 33_333_333).part('task'))
        spent.append(1e3 * (time.perf_counter() - start))
    return np.stack(found), np.array(spent)


if __name__ == '__main__':
    sys.exit(main())
