# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Real videos under instructions that a bundle knows: all should be out-of-distribution.

    python -m benchmarks.success.footage VIDEO [VIDEO ...] --output FILE

plays them to each head of a finished bundle.
"""

import argparse
from collections.abc import Sequence
from datetime import datetime, timezone
import os
from pathlib import Path
from typing import Any

from benchmarks.pages import write_results
from hralign_ros.calibration.calibrate import write_calibrated
from hralign_ros.evaluation.bootstrap import rate
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.runtime import Decision, default_bundle, Encoder, Status
from hralign_ros.runtime.video import frame_times, read_frames
from hralign_ros.training.success_clips import Recording
import numpy as np

# Real videos are played at this rate, this many seconds of each.
FOOTAGE_HZ, FOOTAGE_S = 5.0, 8.0
_SECOND = 1_000_000_000


def play_footage(
    one: CalibratedScorer, seen: Sequence[Recording], videos: Sequence[Path], bundle: Path,
    output: Path,
) -> dict[str, Any]:
    """
    Play real videos under instructions that the bundle knows, through the live runtime.

    :param seen: attempts of the test, which should be in distribution.
    :param bundle: whose encoder the head was trained for.
    :param output: where a bundle with the head is written.
    """
    encoder = Encoder.load(write_calibrated(
        one.scorer.run, one.found, bundle, output, command='python -m benchmarks.success.measure'),
        provider='cpu')
    tasks = [task.name for task in encoder.tasks.tasks]
    played = _play_all(encoder, videos, tasks, encoder.manifest.views)
    usual = np.concatenate([one(recording).scored.trace.ood_score for recording in seen])
    known = rate(int((usual > one.found.ood_threshold).sum()), len(usual))
    return {
        **_sums(played), 'in_distribution_ood_rate': known.value, 'in_distribution_ticks': known.n,
        'real_footage': played}


def main() -> None:
    """Play videos to each head of a bundle; print and write what came out."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('videos', type=Path, nargs='+', metavar='VIDEO')
    parser.add_argument('--bundle', type=Path, default=default_bundle())
    parser.add_argument('--output', type=Path, required=True)
    options = parser.parse_args()
    encoder = Encoder.load(options.bundle, provider='cpu')
    views = encoder.manifest.views
    rows = []
    for head in ('', *encoder.manifest.heads):
        tasks = [task.name for task in encoder.tasks.tasks if task.head == head]
        for some in (views, views[-1:]):
            row = {'head': head or 'success.onnx', 'views': list(some),
                   **_sums(_play_all(encoder, options.videos, tasks, some))}
            print(row, flush=True)
            rows.append(row)
    write_results(options.output, {
        'rows': rows, 'command': 'python -m benchmarks.success.footage VIDEOS',
        'measured': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'load_average': [round(x, 2) for x in os.getloadavg()]})


def _play_all(
    encoder: Encoder, videos: Sequence[Path], tasks: Sequence[str], views: Sequence[str],
) -> list[dict[str, Any]]:
    """Play each video under one of the instructions, in turns."""
    return [_play(encoder, video, tasks[number % len(tasks)], views)
            for number, video in enumerate(videos)]


def _play(encoder: Encoder, video: Path, task: str, views: Sequence[str]) -> dict[str, Any]:
    """Play a video: one camera is all there is, and it stands in for all views."""
    episode = encoder.start_episode(task)
    own = frame_times(video)
    wanted = np.arange(0.0, min(FOOTAGE_S, float(own[-1])), 1.0 / FOOTAGE_HZ)
    times = np.unique(own[np.abs(own[None] - wanted[:, None]).argmin(1)])
    frames, stamps = read_frames(video, times_s=times)
    ticks = [episode.step(dict.fromkeys(views, frame), stamp=_SECOND + round(now * _SECOND))
             for frame, now in zip(frames, map(float, stamps), strict=True)]
    return {'video': video.stem, 'ticks': len(ticks),
            'out_of_distribution': sum(bool(t.status & Status.OUT_OF_DISTRIBUTION) for t in ticks),
            'success': any(tick.decision is Decision.SUCCESS for tick in ticks),
            'failure': any(tick.decision is Decision.FAILURE for tick in ticks)}


def _sums(played: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ticks = sum(row['ticks'] for row in played)
    return {
        'real_footage_ood_rate': sum(row['out_of_distribution'] for row in played) / ticks,
        'real_footage_ticks': ticks,
        'real_footage_success_events': sum(row['success'] for row in played),
        'real_footage_failure_events': sum(row['failure'] for row in played),
        'real_footage_videos': len(played)}


if __name__ == '__main__':
    main()
