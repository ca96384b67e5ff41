# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Videos and an encoder of clips that is quick: the mean colour of a few frames.

As a program it computes features, for tests that need a process to kill or two at a time:
mean_colours.py FOLDER VIDEOS LOG [--die-in N] [--workers N]
"""

import argparse
from dataclasses import dataclass
import os
from pathlib import Path
import signal

from hralign_ros.data.features import build_features, Videos
from hralign_ros.runtime.video import read_frames, write_video
import numpy as np


@dataclass(frozen=True)
class MeanColours:
    """
    Colours [F, 3] of F frames.

    :param log: file that gets one character for each clip that is encoded.
    :param die_in: the process kills itself in this call; 0: never.
    :param once: file; where it is not there yet, the process makes it and kills itself.
    """

    log: Path
    die_in: int = 0
    frames: int = 4
    once: Path | None = None

    @property
    def recipe(self):
        return {'kind': 'mean colours', 'frames': self.frames}

    def start(self, workers):
        calls = []

        def encode(videos, root):
            calls.append(1)
            if len(calls) == self.die_in:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.once and len(calls) == 2 and not self.once.exists():
                self.once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            [(view, file)] = videos.files.items()
            frames, times = read_frames(root / file, count=self.frames, span_s=videos.span_s)
            with self.log.open('a') as log:
                log.write('x')
            return {'colours': frames.mean((1, 2), np.float32), 'time_s': times}
        return encode


def make_videos(folder, count=8, seed=0):
    """Write videos; return them by name."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        low = rng.integers(0, 255, (10, 5, 8, 3), np.uint8)
        write_video(folder / f'{i}.mp4', low.repeat(8, 1).repeat(8, 2), 10.0)
    return {f'clip{i}': Videos({'': f'{i}.mp4'}) for i in range(count)}


def main():
    parser = argparse.ArgumentParser()
    for name in ('folder', 'videos', 'log'):
        parser.add_argument(name, type=Path)
    parser.add_argument('--die-in', type=int, default=0)
    chosen = parser.parse_args()
    count = len(list(chosen.videos.glob('*.mp4')))
    build_features(
        chosen.folder, chosen.videos, {f'clip{i}': Videos({'': f'{i}.mp4'}) for i in range(count)},
        MeanColours(chosen.log, chosen.die_in))


if __name__ == '__main__':
    main()
