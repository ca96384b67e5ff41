# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

r"""
Show that a change of the code changes no number: compare digests before and after it.

    python -m benchmarks.regression.bit_equality --data DATASET --output after.json \
        --compare before.json
    python -m benchmarks.regression.bit_equality --weights RUN_BEFORE RUN_AFTER

The first plays the demo episodes, and up to 20 of a data set, to the shipped bundle; per episode
it writes sha256 of all embeddings, and of all decisions with probability, out-of-distribution
score and status, to the bit. The second compares every tensor of two runs. Exit code 1: they
differ. With OMP_NUM_THREADS=1 and the same onnxruntime on the same kind of processor.

Where the tasks of the shipped bundle have changed, so do the numbers of episodes at them: --bundle
names the bundle of before, and shows what the code alone changes.
"""

import argparse
from collections.abc import Iterator, Mapping
from hashlib import sha256
import json
from pathlib import Path
import sys
from typing import Any

from hralign_ros.data.manifest import read_manifest, REFERENCE_VIEW
from hralign_ros.data.token_features import episode_videos, open_views
from hralign_ros.runtime import default_bundle, Encoder, Image, Tick
from hralign_ros.runtime.video import frame_times, newest_at, read_frames
import numpy as np
from numpy.typing import NDArray
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
EPISODES = 20
_SECOND = 1_000_000_000
Frames = Mapping[str, list[Image]]
# Name, instruction, frames of all views at the moments of the reference view, and those [s].
Attempt = tuple[str, str, Frames, NDArray[np.float64]]


def demo_attempts(demo: Path) -> Iterator[Attempt]:
    """Read the demo's episodes."""
    for folder in [*sorted(demo.glob('episodes/*')), demo / 'can']:
        document = yaml.safe_load((folder / 'episode.yaml').read_text('utf-8'))
        videos = {path.stem: path for path in sorted(folder.glob('*.mp4'))}
        times = frame_times(videos[REFERENCE_VIEW])
        frames = {view: read_frames(
            path, times_s=frame_times(path)[newest_at(frame_times(path), times, path.name)])[0]
            for view, path in videos.items()}
        yield f'demo/{folder.name}', document['task'], frames, times - times[0]


def data_attempts(root: Path) -> Iterator[Attempt]:
    """Read up to 20 episodes of both views from a data set, spread over it."""
    data = read_manifest(root)
    both = [e for e in data.episodes if set(e.robot_videos) >= {'wrist', REFERENCE_VIEW}]
    for episode in both[::max(1, len(both) // EPISODES)][:EPISODES]:
        videos = open_views(episode_videos(episode), data.folder)
        times = videos[REFERENCE_VIEW].times
        frames = {view: video.read(video.stamps[newest_at(video.times, times, video.path.name)])
                  for view, video in videos.items()}
        yield episode.episode_id, episode.task_text, frames, times - times[0]


def digest(encoder: Encoder, task: str, frames: Frames, times: NDArray[np.float64]) -> Any:
    """Play an attempt and take digests of what came out."""
    episode = encoder.start_episode(task)
    embeddings, decisions = sha256(), []
    for row, now in enumerate(times):
        tick = episode.step({view: images[row] for view, images in frames.items()},
                            _SECOND + round(float(now) * _SECOND))
        embeddings.update(np.ascontiguousarray(tick.embedding).tobytes())
        decisions.append(_decision(tick))
    return {'task': task, 'frames': len(times), 'embeddings': embeddings.hexdigest(),
            'decisions': sha256(json.dumps(decisions).encode()).hexdigest(),
            'last': decisions[-1][0]}


def _decision(tick: Tick) -> list[Any]:
    """Write what was decided, and by what, so that equal text is equal to the bit."""
    success = tick.success
    return [int(tick.decision),
            *(None if value is None else float(value).hex()
              for value in (success.probability, success.ood_score)), int(tick.status)]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Name the episodes that are not the same in both, or are in one only."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def differing_weights(one: Path, other: Path) -> list[str]:
    """Name the tensors of two runs that are not equal to the bit, or are in one only."""
    first, second = _tensors(one), _tensors(other)
    return sorted(
        name for name in first.keys() | second.keys()
        if name not in first or name not in second or first[name].dtype != second[name].dtype
        or not np.array_equal(first[name].numpy(), second[name].numpy(), equal_nan=True))


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a run's files, by file and name."""
    found: dict[str, torch.Tensor] = {}
    files = [path for path in sorted(run.rglob('*')) if path.suffix in ('.pt', '.safetensors')]
    if not files:
        raise SystemExit(f'{run}: no .pt or .safetensors file in it; name the folder of a run')
    for path in files:
        if path.suffix == '.safetensors':
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
        _flatten(content, str(path.relative_to(run)), found)
    return found


def _flatten(content: Any, name: str, found: dict[str, torch.Tensor]) -> None:
    if isinstance(content, torch.Tensor):
        found[name] = content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            _flatten(value, f'{name}:{key}', found)
    elif isinstance(content, (list, tuple)):
        for key, value in enumerate(content):
            _flatten(value, f'{name}:{key}', found)


def main() -> int:
    """Compare what the options name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='data set whose episodes are played too')
    parser.add_argument('--demo', type=Path, default=ROOT / 'demo', help='folder of the demo')
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--output', type=Path, help='JSON to write')
    parser.add_argument('--compare', type=Path, help='JSON of before')
    parser.add_argument('--weights', type=Path, nargs=2, metavar='RUN', help='two runs')
    options = parser.parse_args()
    if options.weights:
        differ = differing_weights(*options.weights)
    else:
        encoder = Encoder.load(options.bundle, provider='cpu', threads=1, parts=('clip',))
        found: dict[str, list[Any]] = {}
        for attempts in (demo_attempts(options.demo),
                         data_attempts(options.data) if options.data else ()):
            for name, task, frames, times in attempts:
                found.setdefault(name, []).append(digest(encoder, task, frames, times))
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + '\n', 'utf-8')
        if not options.compare:
            return 0
        differ = differing(json.loads(options.compare.read_text('utf-8')), found)
    print('equal to the bit' if not differ else 'different: ' + ', '.join(differ))
    return 1 if differ else 0


if __name__ == '__main__':
    sys.exit(main())
