# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Measure what the feature cache saves, and that it and several ranks change nothing.

    python -m benchmarks.encoder.adaptation                       # synthetic images
    python -m benchmarks.encoder.adaptation --data FOLDER         # clips of a manifest
    python -m benchmarks.encoder.adaptation --batch 16 --steps 2  # a look, not a result

A step on the cache (loading, forward, backward) and a step with all three streams from the pixels
(forward of the backbone three times, the same backward; decoding and resizing are not counted)
take turns on the same batch and weights, because a shared machine swings with its neighbours.
Both pool each clip with its own text, as the paper does.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from hralign_ros.data.features import read_tensors
from hralign_ros.data.manifest import read_manifest
from hralign_ros.data.pairs import Clip, make_pairs, Pair
from hralign_ros.models.adapters import make_adapters
from hralign_ros.models.backbones import Backbone, load_backbone
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.alignment_batches import Item, make_items, PairBatches
from hralign_ros.training.alignment_losses import alignment_loss
from hralign_ros.training.alignment_objective import batch_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.clip_features import ClipFeatures, preprocess
from hralign_ros.training.distributed import average_gradients, joined, Ranks
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
import torch
from torch import nn, Tensor

RESULTS = Path(__file__).resolve().parents[2] / 'results/adaptation.json'
TEXT_DIM = 384
# Cached steps to each full one, which takes so much longer.
_CACHED_PER_FULL = 3
_RANK_BATCH = 16

NOTES = {
    'cached_step_ms': 'median: load from a memory-mapped float32 cache, forward, loss, backward',
    'full_step_ms': 'median: three backbone passes from preprocessed pixels, adapters, loss, '
                    'backward; decoding and resizing not counted',
    'full_step_two_passes_ms': "the same where the robot's two streams share the frozen pass",
    'cached_step_default_loss_ms': 'on the cache, negatives pooled with the text of the anchor',
    'loss_difference': 'largest between the two on the same batch and weights',
    'gradient_difference': "the same of the weights' gradients, relative to the largest of each",
    'float16_loss_difference': 'of the same with a float16 cache',
    'two_rank_max_diff': f'loss and gradients, 2 gloo processes against one, batch {_RANK_BATCH}',
    'peak_rss_mb': 'of a process of its own that does nothing but cached steps',
    'load_average': '1, 5 and 15 minutes at the end; the benchmark itself is in it',
}


def main() -> None:
    """Run everything, print it, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--backbone', default='efficientnet_lite0')
    parser.add_argument('--batch', type=int, default=64, help='pairs (%(default)s)')
    parser.add_argument('--steps', type=int, default=3, help='full steps (%(default)s)')
    parser.add_argument('--data', type=Path, help='folder with a manifest; default: synthetic')
    parser.add_argument('--output', type=Path, default=RESULTS, help='(%(default)s)')
    parser.add_argument('--child', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    backbone = load_backbone(options.backbone)
    if options.child:
        _child(backbone, options.batch, options.child)
        return
    found: dict[str, Any] = {
        'backbone': backbone.name, 'batch': options.batch, 'frames': 5,
        'data': 'manifest' if options.data else 'synthetic images',
        'threads': torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found |= _steps(backbone, options, folder)
        found |= _memory_and_ranks(options, folder)
    found['load_average'] = [round(v, 2) for v in os.getloadavg()]
    found['date'] = datetime.now(timezone.utc).strftime('%Y-%m-%d')
    found['command'] = 'python -m benchmarks.encoder.adaptation ' + ' '.join(
        f'--{name} {getattr(options, name)}' for name in ('backbone', 'batch', 'steps')) + (
        ' --data DATA' if options.data else '')
    for name, value in found.items():
        print(f'{name:26} {value}')
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**found, 'notes': NOTES}, indent=2) + '\n', 'utf-8')


def _steps(backbone: Backbone, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time steps on the cache and in full, in turns."""
    pairs, frames = _read(options.data, options.batch) if options.data \
        else _synthesise(options.batch)
    print(f'encoding {len(frames)} clips', flush=True)
    pixels = {name: preprocess(f, backbone.preprocessing) for name, f in frames.items()}
    with torch.no_grad():
        features = {name: backbone.front('late')(f).numpy() for name, f in pixels.items()}
    caches = {dtype: _cache(folder, features, dtype) for dtype in ('float32', 'float16')}
    texts = _texts(pairs)
    items, _ = make_items(pairs, caches['float32'])
    count = len(items)
    batches = {dtype: PairBatches(items, cache, texts, batch=count, sampler='segment')
               for dtype, cache in caches.items()}
    model, train = _model(backbone), TrainOptions(batch=count, negatives='own')
    times: dict[str, list[float]] = {'cached': [], 'full': [], 'shared': [], 'default': []}
    differences, gradients = [], []
    parameters = list(model.trained_parameters().values())
    _cached_step(model, batches['float32'], 0, train)
    for step in range(options.steps):
        for _ in range(_CACHED_PER_FULL):
            took, cached = _cached_step(model, batches['float32'], step, train)
            times['cached'].append(took)
        on_cache = [p.grad.clone() for p in parameters if p.grad is not None]
        # The batch holds all items, so that only their order changes from step to step.
        chosen = [items[i] for i in batches['float32'].plan(step)]
        took, full = _full_step(model, backbone.module, chosen, pixels, texts, train)
        in_full = [p.grad.clone() for p in parameters if p.grad is not None]
        times['full'].append(took)
        times['shared'].append(_full_step(
            model, backbone.module, chosen, pixels, texts, train, share=True)[0])
        times['default'].append(_cached_step(
            model, batches['float32'], step, replace(train, negatives='anchor'))[0])
        differences.append(abs(cached - full))
        gradients += [float((a - b).abs().max() / b.abs().max())
                      for a, b in zip(on_cache, in_full, strict=True) if a.dim() > 1]
        print(f'step {step + 1}: cached {times["cached"][-1] * 1e3:.0f} ms, full '
              f'{took * 1e3:.0f} ms, loss {cached:.6f} and {full:.6f}', flush=True)
    _, half = _cached_step(model, batches['float16'], options.steps - 1, train)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        'pairs': count,
        'cached_step_ms': round(medians['cached'] * 1e3, 1),
        'full_step_ms': round(medians['full'] * 1e3, 1),
        'full_step_two_passes_ms': round(medians['shared'] * 1e3, 1),
        'cached_step_default_loss_ms': round(medians['default'] * 1e3, 1),
        'cached_step_speedup': round(medians['full'] / medians['cached'], 1),
        'cached_step_speedup_two_passes': round(medians['shared'] / medians['cached'], 1),
        'loss_difference': max(differences), 'gradient_difference': max(gradients),
        'float16_loss_difference': abs(half - full)}


def _cached_step(
    model: HRAlign, batches: PairBatches, step: int, train: TrainOptions,
) -> tuple[float, float]:
    start = time.perf_counter()
    model.zero_grad()
    loss = batch_loss(model, batches.load(step), train, Ranks())
    loss.backward()
    return time.perf_counter() - start, float(loss.detach())


def _full_step(
    model: HRAlign, module: nn.Module, items: list[Item], pixels: Mapping[str, Tensor],
    texts: Mapping[str, NDArray[np.float32]], train: TrainOptions, *, share: bool = False,
) -> tuple[float, float]:
    """
    Do what HR-Align's equations say, stream by stream, with nothing remembered.

    :param share: let the robot's two streams have one pass of the frozen part, as late adapters
        allow.
    """
    human, robot = (torch.stack([pixels[clip.key] for clip in clips]) for clips in (
        [item.human for item in items], [item.robot for item in items]))
    text = torch.from_numpy(np.stack([texts[item.robot.task_text] for item in items]))
    tasks = [item.task_id for item in items]
    same = torch.tensor([[a == b for b in tasks] for a in tasks])
    start = time.perf_counter()
    model.zero_grad()
    streams = []
    for clips, adapters in ((human, None), (robot, None), (robot, model.adapters)):
        if adapters is None or not share:
            with torch.no_grad():
                frozen = module(clips.flatten(0, 1))
        maps = frozen if adapters is None else adapters(frozen)
        streams.append(model.pooled(maps.unflatten(0, clips.shape[:2]), text))
    first, still, moved = streams
    loss = alignment_loss(
        first @ moved.T, moved @ first.T, (first * still).sum(1), temperature=train.temperature,
        decoupled=train.decoupled, frozen_weight=train.frozen_weight,
        same_task=same if train.mask_same_task else None)
    loss.backward()
    return time.perf_counter() - start, float(loss.detach())


def _memory_and_ranks(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run cached steps in processes of their own: one for its memory, one and two to compare."""
    def child(name: str, batch: int, ranks: int) -> dict[str, Any]:
        launcher = [] if ranks == 1 else [
            '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(ranks)]
        file = folder / name
        subprocess.run(
            [sys.executable, *launcher, '-m', 'benchmarks.encoder.adaptation', '--backbone',
             options.backbone, '--batch', str(batch), '--child', str(file)],
            check=True, stderr=subprocess.DEVNULL)
        values: dict[str, Any] = torch.load(file, weights_only=True)
        return values

    memory = child('memory.pt', options.batch, 1)
    one, two = (child(f'{ranks}.pt', _RANK_BATCH, ranks)['values'] for ranks in (1, 2))
    return {'peak_rss_mb': memory['peak_rss_mb'],
            'two_rank_max_diff': max(float((one[k] - two[k]).abs().max()) for k in one)}


def _child(backbone: Backbone, batch: int, file: Path) -> None:
    """Do two cached steps on made-up maps; write the last one's loss and gradients."""
    channels, (rows, columns) = backbone.channels, backbone.grid
    rng = np.random.default_rng(0)
    pairs = _made_up_pairs(batch)
    maps = {clip.key: rng.standard_normal(
        (5, channels, rows, columns), np.float32).clip(0) for pair in pairs
        for clip in (pair.human, pair.robot)}
    with tempfile.TemporaryDirectory() as scratch:
        cache = _cache(Path(scratch), maps, 'float32')
        maps.clear()
        batches = PairBatches(make_items(pairs, cache)[0], cache, _texts(pairs), batch=batch,
                              sampler='segment')
        model, options = _model(backbone), TrainOptions(batch=batch)
        parameters = model.trained_parameters()
        with joined(torch.device('cpu')) as ranks:
            for step in range(2):
                model.zero_grad()
                loss = batch_loss(model, batches.load(step, ranks), options, ranks)
                loss.backward()
                average_gradients(parameters.values(), ranks)
            if ranks.first:
                torch.save({'peak_rss_mb': _peak_mb(), 'values': {
                    'loss': loss.detach(), **{n: p.grad for n, p in parameters.items()}}}, file)


def _peak_mb() -> int:
    """Give the most memory that was resident; getrusage would count the parent's in."""
    status = Path('/proc/self/status').read_text('ascii')
    return int(next(line for line in status.splitlines() if line.startswith('VmHWM')).split()[1]
               ) // 1024


def _model(backbone: Backbone) -> HRAlign:
    """Make a model away from the identity, so that every layer has a gradient."""
    torch.manual_seed(0)
    model = HRAlign(
        make_adapters(backbone), backbone.back('late'), TEXT_DIM, backbone.channels)
    for name, parameter in model.named_parameters():
        if '.up.weight' in name:
            nn.init.normal_(parameter, std=0.01)
    return model.train()


def _cache(folder: Path, features: Mapping[str, NDArray[Any]], dtype: str) -> ClipFeatures:
    """Lay features out as the store does, in memory-mapped files."""
    (folder / dtype).mkdir()
    paths = {name: folder / dtype / str(i) for i, name in enumerate(features)}
    for name, value in features.items():
        save_file({'maps': np.ascontiguousarray(np.moveaxis(value, 1, -1).astype(dtype)),
                   'time_s': np.arange(len(value)) * 0.1}, paths[name])
    return ClipFeatures(_Mapped(paths), dtype)


class _Mapped(dict[str, Any]):
    """Features that are mapped when they are asked for."""

    def __getitem__(self, name: str) -> Any:
        return read_tensors(super().__getitem__(name))


def _synthesise(batch: int) -> tuple[list[Pair], dict[str, NDArray[np.uint8]]]:
    """Draw patterns from coarse to fine: unlike enough for their features to differ."""
    rng = np.random.default_rng(0)
    pairs = _made_up_pairs(batch)
    frames = {}
    for clip in (clip for pair in pairs for clip in (pair.human, pair.robot)):
        cells = int(rng.choice([1, 2, 4, 7, 14, 28]))
        pattern = rng.integers(0, 256, (5, cells, cells, 3), np.uint8)
        frames[clip.key] = pattern.repeat(224 // cells, 1).repeat(224 // cells, 2)
    return pairs, frames


def _made_up_pairs(batch: int) -> list[Pair]:
    def clip(domain: Any, i: int) -> Clip:
        return Clip(f'{domain}{i}', 'third_person', f'e{i}', f'task{i % 24}',
                    f'do the task {i % 24}', 'scene',
                    'human' if domain == 'human' else 'panda')

    return [Pair(clip('human', i), clip('robot', i)) for i in range(batch)]


def _read(folder: Path, batch: int) -> tuple[list[Pair], dict[str, NDArray[np.uint8]]]:
    data = read_manifest(folder)
    pairs = make_pairs(data)[:batch]
    clips = {clip.key: clip for pair in pairs for clip in (pair.human, pair.robot)}
    return pairs, {name: read_frames(data.path(clip.file), count=5, span_s=clip.span_s,
                                     geometry=clip.geometry)[0]
                   for name, clip in clips.items()}


def _texts(pairs: list[Pair]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    texts = {}
    for text in sorted({pair.robot.task_text for pair in pairs}):
        value = rng.standard_normal(TEXT_DIM).astype(np.float32)
        texts[text] = value / np.linalg.norm(value)
    return texts


if __name__ == '__main__':
    main()
