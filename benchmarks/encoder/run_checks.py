# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is checked of a finished run: its export, the human's tokens, and that training resumes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from hralign_ros.data.manifest import DataSet
from hralign_ros.evaluation.embeddings import encode_pairs, NEUTRAL_TEXT, split_items
from hralign_ros.evaluation.encoder_measure import GALLERY, key_of, retrievals, RunInputs
from hralign_ros.evaluation.metrics.names import MAIN_RETRIEVAL
from hralign_ros.models.adapters import AdaptedBackbone
from hralign_ros.models.backbones import load_backbone
from hralign_ros.runtime.bundle import MANIFEST, VISUALS
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.alignment_batches import PairBatches
from hralign_ros.training.alignment_objective import batch_loss
from hralign_ros.training.alignment_run import Run
from hralign_ros.training.checkpoints import read_checkpoint
from hralign_ros.training.clip_features import preprocess
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.run_folder import BEST, LAST
import numpy as np
import torch
import yaml


def export(data: DataSet, run: Run, runs: Path, footage: Path | None) -> dict[str, Any]:
    """Export a run with its int8 variant; compare both with torch, on real images too."""
    folder = runs / 'bundle'
    subprocess.run([sys.executable, '-m', 'hralign_ros.cli', 'encoder', 'export', str(run.folder),
                    '--int8', '--output', str(folder)], check=True)
    manifest = yaml.safe_load((folder / MANIFEST).read_text('utf-8'))
    found: dict[str, Any] = {'export_parity': manifest['metrics']['parity_max_abs_diff']}
    sessions = {name: SessionFactory('cpu').create((folder / name).read_bytes(), name=name)
                for name in ('visual.onnx', VISUALS['int8']) if (folder / name).exists()}
    if footage:
        found |= _on_footage(run, sessions, footage)
    # Where the export's own gate has left it out, there is no such file.
    found['int8_cosine'] = manifest['metrics']['visual_int8_cosine']
    if VISUALS['int8'] in sessions:
        found |= _retrieval_of_graphs(data, run, sessions)
    return found


def _on_footage(run: Run, sessions: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Compare the exported visual graphs with torch on frames of real robot videos."""
    visual = AdaptedBackbone(run.backbone, run.options.position, run.model.adapters).eval()
    worst, cosines, count, videos = 0.0, [], 0, sorted(folder.rglob('*.mp4'))
    for video in videos:
        pixels = preprocess(read_frames(video, count=2)[0], run.backbone.preprocessing)
        with torch.no_grad():
            expected = visual(pixels).flatten(2).transpose(1, 2).numpy()
        tokens = {name: session.run(None, {'pixels': pixels.numpy()})[0]
                  for name, session in sessions.items()}
        worst = max(worst, float(np.abs(tokens['visual.onnx'] - expected).max()))
        count += len(pixels)
        if VISUALS['int8'] in tokens:
            one, other = expected.mean(1), tokens[VISUALS['int8']].mean(1)
            cosines += ((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(
                other, axis=1)).tolist()
    found = {'export_max_abs_diff': worst,
             'export_compared_on': f'{count} frames of {len(videos)} real robot videos'}
    if cosines:
        found['int8_cosine_on_footage'] = {
            'mean': round(float(np.mean(cosines)), 5), 'min': round(min(cosines), 5), 'n': count}
    return found


def _retrieval_of_graphs(
    data: DataSet, run: Run, sessions: Mapping[str, Any],
) -> dict[str, Any]:
    """Measure R@1 with the robot's tokens from each exported graph."""
    store = RunInputs(data)
    cache = store.clips(run)
    items = split_items(data, cache, 'test_task', 'third_person')
    texts = store.texts(run, items)
    human = encode_pairs(run.model, items, cache, texts, length=run.options.train.length)
    names = sorted({item.robot.task_text for item in items})
    queries = torch.tensor(np.stack([texts[name] for name in [*names, NEUTRAL_TEXT]]))
    rows, columns = run.backbone.grid
    found: dict[str, Any] = {}
    for name, session in sessions.items():
        robot = []
        for item in items:
            frames, _ = read_frames(data.path(item.robot.file), count=cache.frames,
                                    span_s=item.robot.span_s, geometry=item.robot.geometry)
            pixels = preprocess(frames, run.backbone.preprocessing).numpy()
            # Two images at a time, as the graph takes them.
            tokens = np.concatenate([session.run(None, {'pixels': pixels[i:i + 2]})[0]
                                     for i in range(0, len(pixels), 2)])
            chosen = np.round(np.linspace(0, cache.frames - 1, run.options.train.length))
            maps = torch.from_numpy(tokens[chosen.astype(int)]).transpose(1, 2).unflatten(
                2, (rows, columns))[None]
            with torch.no_grad():
                robot.append(run.model.pooled_for_each(maps, queries))
        arrays = replace(human, robot=torch.cat(robot).numpy())
        found[name] = float(retrievals(arrays, GALLERY, full=False)[
            key_of('retrieval_r1', **MAIN_RETRIEVAL)].values.mean())
    return {'export_retrieval_r1': found,
            'int8_retrieval_r1_loss': round(found['visual.onnx'] - found[VISUALS['int8']], 4)}


def human_is_untouched(data: DataSet, run: Run) -> bool:
    """
    Compare human token maps, from the pixels, before and after real training steps, bit by bit.

    The run's own backbone and adapters go on training, so the run is of no other use afterwards;
    a backbone loaded afresh stands for before.
    """
    store = RunInputs(data)
    cache = store.clips(run)
    items = split_items(data, cache, 'test_task', 'third_person')[:8]
    pixels = torch.cat([preprocess(read_frames(
        data.path(item.human.file), count=2, span_s=item.human.span_s,
        geometry=item.human.geometry)[0],
        run.backbone.preprocessing) for item in items])
    texts = store.texts(run, items)
    batches = PairBatches(items, cache, texts, batch=len(items), sampler='segment')
    whole = AdaptedBackbone(run.backbone, run.options.position, run.model.adapters).train()
    before = load_backbone(run.options.backbone, run.options.weights).module(pixels)
    weights = list(run.model.train().trained_parameters().values())
    old = [w.detach().clone() for w in weights]
    optimiser = torch.optim.Adam(weights, lr=1e-3)
    for step in range(3):
        optimiser.zero_grad()
        batch_loss(run.model, batches.load(step), run.options.train, Ranks()).backward()
        optimiser.step()
    after = whole.back(whole.front(pixels))
    moved = all(not torch.equal(a, w) for a, w in zip(old, weights, strict=True))
    return moved and torch.equal(before, after)


def resumes_exactly(data: Path, runs: Path, settings: Sequence[str]) -> bool:
    """Kill a short run by SIGKILL in mid-epoch, go on, and compare with one left alone."""
    folder = runs / 'resume'
    shutil.rmtree(folder, ignore_errors=True)
    short = [*settings, '--seed=0', '--steps=24', '--batch=16', '--checkpoint-every=5',
             '--validate-every=12']
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}

    def command(name: str) -> list[str]:
        return [sys.executable, '-m', 'hralign_ros.cli', 'encoder', 'train', '--data', str(data),
                '--output', str(folder / name), '--resume', *short]

    subprocess.run(command('whole'), env=env, check=True, stdout=subprocess.DEVNULL)
    last = folder / 'killed' / LAST
    process = subprocess.Popen(command('killed'), env=env, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (last.exists() and read_checkpoint(last).step >= 10):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL or read_checkpoint(last).step >= 24:
        raise SystemExit('the run to be killed ended by itself: make it longer')
    subprocess.run(command('killed'), env=env, check=True, stdout=subprocess.DEVNULL)
    same = []
    for file in (LAST, BEST):
        one, other = (read_checkpoint(folder / name / file) for name in ('whole', 'killed'))
        same += [torch.equal(a[key], b[key]) for a, b in (
            (one.model, other.model), (one.average, other.average)) for key in a]
        same += [torch.equal(one.optimiser['state'][i][key], other.optimiser['state'][i][key])
                 for i in one.optimiser.get('state', {}) for key in one.optimiser['state'][i]]
    return all(same)
