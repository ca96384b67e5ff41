# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Measure what `hralign success add-task` makes of 2 to 200 clips of each kind: its learning curve.

    simulate=".venv-sim/bin/hralign data simulate --purpose success --no-humans --output"
    $simulate DATA --rounds 125 --split test_task --task TASK
    python -m benchmarks.success.add_task --data DATA

TASK is one that the bundle does not know, window-open say. Its clips go to `hralign success
add-task` as a user's would, successes cut off one second after they have succeeded. Fitting is
timed by itself; what encodes the clips is the runtime. Attempts in scenes of their own, that were
not learned from, are measured by their true flags; decisions are by the map alone, without the
node's ABSTAIN before out-of-distribution images and without FAILURE.
"""

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import shlex
import sys
import time
from typing import Any

from benchmarks.pages import write_results
from hralign_ros.calibration.add_task import AddTaskOptions, fit_task, run_clip
from hralign_ros.calibration.calibrate import ALPHA
from hralign_ros.calibration.conformal import decided
from hralign_ros.calibration.few_clips import TaskClip
from hralign_ros.data.manifest import Episode, read_manifest
from hralign_ros.evaluation.metrics.detection import detection
from hralign_ros.runtime import default_bundle, Encoder
from hralign_ros.runtime.tasks import probability_of, Task
from hralign_ros.runtime.video import frame_times
import numpy as np
from numpy.typing import NDArray
import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'results' / 'add_task.json'
SIZES = (2, 5, 10, 20, 50, 100, 200)
# A success clip ends so long after the task is accomplished [s].
TAIL = 1.0
Floats = NDArray[np.float64]


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('--data', required=True, type=Path)
    parser.add_argument('--bundle', type=Path, default=None)
    parser.add_argument('--partners', type=int, default=5, help='of each size below the largest')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--output', type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoder = Encoder.load(options.bundle or default_bundle(), provider='cpu')
    episodes = [e for e in read_manifest(options.data).episodes if len(e.success_flags)]
    task = episodes[0].task_id
    known = {t.task_id for t in encoder.tasks.tasks}
    if task in known or len({e.task_id for e in episodes}) != 1:
        print(f'add_task: {options.data} must hold one task that the bundle does not know',
              file=sys.stderr)
        return 1
    good, bad, test = _divide(episodes)
    clips, encoding = _clips(encoder, options.data, [*good, *bad, *test])
    print(f'{len(clips)} clips encoded in {encoding:.0f} s', flush=True)
    rng, name, rows = np.random.default_rng(0), episodes[0].task_text, []
    for size in SIZES:
        if size > min(len(good), len(bad)):
            break
        draws = options.draws if size < min(SIZES[-1], len(good), len(bad)) else 1
        for draw in range(draws):
            chosen = [clips[e.episode_id] for some in (good, bad)
                      for e in (some[i] for i in rng.choice(len(some), size, replace=False))]
            began = time.monotonic()
            entry = fit_task(encoder, chosen, name, task, (), AddTaskOptions(seed=draw),
                             report=lambda _: None)
            seconds = time.monotonic() - began
            scored = _scored(encoder, name, entry.prompts, test, clips)
            auroc = _auroc(scored)
            rows.append({'clips_each': size, 'draw': draw, 'auroc': round(auroc[0], 4),
                         'low': round(auroc[1], 4), 'high': round(auroc[2], 4),
                         'seconds': round(seconds, 1), **_decisions(entry, scored)})
            print(rows[-1], flush=True)
    before = _auroc(_scored(encoder, name, encoder.tasks.fallback.prompts, test, clips))
    found = {
        'task': task, 'test_attempts': len(test), 'clips_to_learn_from': len(good) + len(bad),
        'without': {'auroc': round(before[0], 4), 'low': round(before[1], 4),
                    'high': round(before[2], 4)},
        'rows': rows, 'seconds': _mean(rows, 10, 'seconds'),
        'auroc_gap': round(
            _mean(rows, rows[-1]['clips_each'], 'auroc') - _mean(rows, 10, 'auroc'), 4),
        'test_successes': sum(any(e.success_flags) for e in test),
        'largest': rows[-1]['clips_each'], 'threads': options.threads,
        'seconds_per_clip_encoded': round(encoding / len(clips), 3),
        'load_average': [round(x, 2) for x in os.getloadavg()],
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'command': shlex.join(['python', '-m', 'benchmarks.success.add_task', *(
            Path(w).name if w.startswith('/') else w for w in sys.argv[1:])])}
    write_results(options.output, found)
    print(json.dumps({k: v for k, v in found.items() if k != 'rows'}, indent=1))
    return 0


def _divide(episodes: Sequence[Episode]) -> tuple[list[Episode], list[Episode], list[Episode]]:
    """Divide attempts into successes and failures to learn from, and those to measure, by look."""
    scenes = sorted({e.scene for e in episodes})
    test = set(scenes[::4])
    learn = [e for e in episodes if e.scene not in test]
    return ([e for e in learn if any(e.success_flags)],
            [e for e in learn if not any(e.success_flags)],
            [e for e in episodes if e.scene in test])


def _clips(
    encoder: Encoder, folder: Path, episodes: Sequence[Episode],
) -> tuple[dict[str, TaskClip], float]:
    """Encode all clips, or read what an earlier call encoded; tell how long that took."""
    kept = folder / f'add_task_clips_{encoder.bundle.sha256[:16]}.npz'
    if not kept.exists():
        began, arrays = time.monotonic(), {}
        for number, episode in enumerate(episodes):
            clip = _clip(encoder, folder, episode)
            arrays |= {f'{clip.name}/video': clip.video, f'{clip.name}/time': clip.time_s,
                       f'{clip.name}/done': clip.done}
            if number % 50 == 49:
                print(f'{number + 1} of {len(episodes)} encoded', flush=True)
        np.savez(kept, **arrays, seconds=np.array(time.monotonic() - began))
    with np.load(kept) as found:
        return {e.episode_id: TaskClip(e.episode_id, *(
            found[f'{e.episode_id}/{part}'] for part in ('video', 'time', 'done')))
            for e in episodes}, float(found['seconds'])


def _clip(encoder: Encoder, folder: Path, episode: Episode) -> TaskClip:
    """Encode an attempt; a success is cut as a user would cut it."""
    files = {view: folder / path for view, path in episode.robot_videos.items()
             if view in encoder.manifest.views}
    first = next((t for t, done in zip(episode.time_s, episode.success_flags, strict=True)
                  if done), None)
    end = float(frame_times(next(iter(files.values())))[-1])
    return run_clip(encoder, episode.episode_id, files, first is not None, AddTaskOptions(),
                    until_s=end if first is None else min(end, first + TAIL))


# A clip, its raw scores, and whether the task was accomplished, at every tick.
Scored = tuple[TaskClip, Floats, NDArray[np.bool_]]


def _scored(
    encoder: Encoder, name: str, prompts: NDArray[np.float32], test: Sequence[Episode],
    clips: Mapping[str, TaskClip],
) -> list[Scored]:
    """Score test attempts by prompts, beside their true flags."""
    features = encoder.text.encode_with(name, prompts)
    scale, bias = encoder.success_scale
    found = []
    for episode in test:
        clip = clips[episode.episode_id]
        similarity = clip.video @ features.T * scale
        most = similarity[:, 1:].max(1, keepdims=True)
        rest = most[:, 0] + np.log(np.exp(similarity[:, 1:] - most).sum(1))
        rows = np.abs(np.asarray(episode.time_s)[None] - clip.time_s[:, None]).argmin(1)
        found.append((clip, (similarity[:, 0] - rest + bias).astype(np.float64),
                      np.asarray(episode.success_flags, bool)[rows]))
    return found


def _auroc(scored: Sequence[Scored]) -> tuple[float, float, float]:
    """Tell AUROC over all ticks with a bootstrap interval over attempts."""
    names = np.repeat([clip.name for clip, _, _ in scored], [len(done) for *_, done in scored])
    found = detection(np.concatenate([scores for _, scores, _ in scored]),
                      np.concatenate([done for *_, done in scored]), names)['auroc']
    return found.value, found.low, found.high


def _decisions(entry: Task, scored: Sequence[Scored]) -> dict[str, float | None]:
    """Tell how often attempts alarm, are decided too early, and are missed, at ALPHA."""
    curve = max(entry.calibrations, key=lambda one: len(one.views))
    threshold = curve.threshold(ALPHA)
    if threshold is None:
        return {'threshold': None, 'false_alarm_rate': None, 'early_success_rate': None,
                'missed_success_rate': None}
    never, early, missed = [], [], []
    for clip, scores, done in scored:
        at = decided(np.round(clip.time_s * 1e9).astype(np.int64),
                     probability_of(curve.method, curve.parameters, scores), threshold)
        if not done.any():
            never.append(at is not None)
        elif not done[0]:
            early.append(at is not None and at < int(done.argmax()))
            missed.append(at is None)
    return {'threshold': round(threshold, 4), **{
        what: round(float(np.mean(some)), 4) if some else None for what, some in (
            ('false_alarm_rate', never), ('early_success_rate', early),
            ('missed_success_rate', missed))}}


def _mean(rows: Sequence[dict[str, Any]], size: int, key: str) -> float:
    """Average a figure over the draws of one size."""
    return round(float(np.mean([r[key] for r in rows if r['clips_each'] == size])), 4)


if __name__ == '__main__':
    sys.exit(main())
