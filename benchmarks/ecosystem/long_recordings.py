# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Make hours of recording out of simulated attempts, to time `hralign data label` on.

    python -m benchmarks.ecosystem.long_recordings DATA... --output FOLDER --frames 100000
    hralign data export lerobot --data FOLDER --output DATASET --hz 30

Simulated attempts have five images a second. Between two of them the one fades into the other, and
noise of a camera is added to each image, so that no two frames are equal and a decoder has as much
to do as with a camera's video. What is labelled are such frames, so the labels mean nothing.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

from hralign_ros.data.manifest import Episode, read_manifest, write_manifest
from hralign_ros.data.token_features import episode_videos, open_views, ViewVideo
from hralign_ros.runtime.video import nearest, write_video
import numpy as np
from numpy.typing import NDArray

Images = Iterator[NDArray[np.uint8]]
# Of the noise, in brightness levels.
_SPREAD = 2.0


def faded(video: ViewVideo, times: NDArray[np.float64], random: np.random.Generator) -> Images:
    """
    Give a video's images at any times, of which few are its own.

    :param times: [s], ascending.
    :yields: uint8 [H, W, 3] RGB.
    """
    images = [image.astype(np.float32) for image in video.read(video.stamps)]
    # One tile for a video, shifted for each image: a normal distribution's numbers are dear.
    tile = random.normal(0.0, _SPREAD, images[0].shape).astype(np.float32)
    after = np.clip(np.searchsorted(video.times, times, 'right'), 1, len(images) - 1)
    spans = np.diff(video.times)[after - 1]
    parts = np.clip((times - video.times[after - 1]) / spans, 0.0, 1.0).astype(np.float32)
    for place, part in zip(after, parts, strict=True):
        image = (1 - part) * images[place - 1] + part * images[place]
        image += np.roll(tile, random.integers(0, tile.shape[:2]), (0, 1))
        yield image.clip(0, 255).astype(np.uint8)


def lengthen(number: int, folder: Path, episode: Episode, output: Path, fps: int) -> Episode:
    """Write an attempt's videos at another rate; return it as it stands in the new data set."""
    random = np.random.default_rng(number)
    own = np.asarray(episode.time_s, np.float64)
    times = np.arange(int((own[-1] - own[0]) * fps + 1e-6) + 1) / fps
    name, rows = f'{number:05d}_{episode.episode_id}', nearest(own - own[0], times)
    files = {}
    for view, video in open_views(episode_videos(episode), folder).items():
        files[view] = f'videos/{name}_{view}.mp4'
        if not (output / files[view]).exists():
            write_video(output / files[view], faded(video, own[0] + times, random), fps,
                        quality=16, preset='veryfast')
    return replace(
        episode, episode_id=name, robot_videos=files, time_s=times.tolist(),
        robot_span_s=(), robot_offset_s={}, human_video='', human_from='', human_span_s=(),
        # `hralign data label` stamps nothing over labels that are there.
        success=None, success_s=None, success_flags=(), failure='', fault_s=None,
        **{key: [getattr(episode, key)[row] for row in rows] if len(getattr(episode, key)) else ()
           for key in ('progress', 'actions', 'proprio')})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write as many attempts as the frames take; what is there is kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().splitlines()[0])
    parser.add_argument('data', type=Path, nargs='+')
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--frames', type=int, default=100_000)
    parser.add_argument('--fps', type=int, default=30)
    given = parser.parse_args(arguments)
    there = chain.from_iterable(
        ((data.folder, episode) for episode in data.episodes if episode.robot_videos)
        for data in map(read_manifest, given.data))
    chosen: list[tuple[Path, Episode]] = []
    frames = 0
    for folder, episode in there:
        if frames >= given.frames:
            break
        frames += int((episode.time_s[-1] - episode.time_s[0]) * given.fps + 1e-6) + 1
        chosen.append((folder, episode))
    if frames < given.frames:
        parser.error(f'the data have {frames} frames at {given.fps} Hz; name more')
    given.output.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        made = list(pool.map(lengthen, *zip(
            *((number, folder, episode, given.output, given.fps)
              for number, (folder, episode) in enumerate(chosen)), strict=True)))
    write_manifest(given.output, made)
    print(f'{given.output}: {len(made)} attempts, {frames} frames at {given.fps} Hz')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
