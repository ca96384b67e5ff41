# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Real videos under instructions that the bundle knows: all should be out-of-distribution."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hralign_ros.calibration.calibrate import write_calibrated
from hralign_ros.evaluation.bootstrap import rate
from hralign_ros.evaluation.success_deciders import CalibratedScorer
from hralign_ros.runtime import Decision, Encoder, Status
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
    ticks = out_of_distribution = successes = 0
    per_video = []
    for number, video in enumerate(videos):
        episode = encoder.start_episode(tasks[number % len(tasks)])
        own = frame_times(video)
        wanted = np.arange(0.0, min(FOOTAGE_S, float(own[-1])), 1.0 / FOOTAGE_HZ)
        times = np.unique(own[np.abs(own[None] - wanted[:, None]).argmin(1)])
        frames, stamps = read_frames(video, times_s=times)
        here, alarm = 0, False
        for frame, now in zip(frames, stamps, strict=True):
            # One camera is all there is: it stands in for both.
            tick = episode.step(dict.fromkeys(encoder.manifest.views, frame),
                                stamp=_SECOND + round(float(now) * _SECOND))
            here += bool(tick.status & Status.OUT_OF_DISTRIBUTION)
            alarm |= tick.decision is Decision.SUCCESS
        ticks, successes = ticks + len(frames), successes + alarm
        out_of_distribution += here
        per_video.append({'video': video.stem, 'ticks': len(frames), 'out_of_distribution': here,
                          'success': alarm})
    usual = np.concatenate([one(recording).scored.trace.ood_score for recording in seen])
    known = rate(int((usual > one.found.ood_threshold).sum()), len(usual))
    return {
        'real_footage_ood_rate': out_of_distribution / ticks, 'real_footage_ticks': ticks,
        'real_footage_success_events': successes, 'real_footage_videos': len(videos),
        'in_distribution_ood_rate': known.value, 'in_distribution_ticks': known.n,
        'real_footage': per_video}
