# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Plain folders of videos, the simplest way to bring one's own.

    ROOT/open the drawer/001/human.mp4           a person doing the task
    ROOT/open the drawer/001/third_person.mp4    the robot doing it, by the same camera
    ROOT/open the drawer/001/wrist.mp4           the robot's hand camera
    ROOT/labels.csv                              optional

The first folder is the task: its name is the instruction, with _ read as a space. The second is an
episode. Every file is optional; any name but human is a view of the robot. An episode with human
and robot clips is a pair.

labels.csv has a header line and one line for each episode that there is something to say about;
`hralign_ros.data.labels` describes its columns. The column `episode` is
<task folder>/<episode folder>. A success head is trained on attempts with success "no", and on
those with "yes" that have a done_s.
"""

from collections import Counter
from collections.abc import Callable, Mapping
import math
from pathlib import Path
import re
import unicodedata

from hralign_ros.data.labels import Label, LABELS, read_labels
from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW, slug
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.video import EDGE_S, frame_times, newest_at, probe
import numpy as np

SUFFIXES = ('.mp4', '.mkv', '.mov', '.webm', '.avi', '.m4v', '.3gp', '.3g2', '.ts', '.mts',
            '.m2ts', '.mpg', '.mpeg', '.wmv', '.flv', '.ogv')
# Of these the times of frames are not known, or nothing here reads them.
OTHER_SUFFIXES = ('.asf', '.gif', '.h264', '.hevc', '.mjpeg', '.mjpg', '.rmvb', '.svo', '.vob',
                  '.yuv')
HUMAN_VIDEO = 'human'
# What other spellings of are meant: Wrist.MP4, third-person.mp4.
_KNOWN = (HUMAN_VIDEO, REFERENCE_VIEW, 'wrist')


def read_folders(
    root: Path, *, embodiment: str = 'robot', scene: str = 'default',
    license_id: str = 'NOASSERTION', report: Callable[[str], object] = print,
    faults: Faults | None = None,
) -> list[Episode]:
    """
    Read folders of videos; the module's text shows their layout.

    A video that cannot be opened is left out and an episode without any is skipped; both are
    reported, and so is a label of an episode that is not there.

    :param root: files are named relative to it.
    :param embodiment: of episodes that labels.csv says nothing else about.
    :param scene: the same.
    :param license_id: the same; NOASSERTION: nothing is known.
    :param report: gets the summary, line by line.
    :param faults: filled with every fault found: corrupt_video, no_video, two_videos, other_video,
        no_episode, done_after_end, views_apart.
    :returns: sorted by id: <task folder>/<episode folder>.
    :raises DataError: there is no such folder, or labels.csv is not as described.
    """
    root = Path(root)
    faults = Faults() if faults is None else faults
    if not root.is_dir():
        raise DataError(f'{root}: no such folder')
    labels = read_labels(root / LABELS)
    episodes = []
    for folder in sorted(_folders(root), key=lambda f: f.relative_to(root).as_posix()):
        # Some systems take letters apart into their strokes and dots.
        name = unicodedata.normalize('NFC', folder.relative_to(root).as_posix())
        label = labels.pop(name, Label())
        if label.discard:
            continue
        videos = _videos(root, folder, faults)
        human = videos.pop(HUMAN_VIDEO, '')
        if not videos and not human:
            faults.add('no_video', name, 'no usable video in it; skipped')
            continue
        text = label.word('task_text') or ' '.join(
            name.partition('/')[0].replace('_', ' ').split())
        try:
            times, flags = _flags(root, name, videos, label.success, label.success_s, faults)
        except DataError as error:
            faults.add('corrupt_video', name, f'{error}; skipped')
            continue
        episodes.append(Episode(
            # What is before a '#' would be one recording by several cameras.
            episode_id=name.replace('#', '%23'), task_id=slug(text), task_text=text,
            scene=label.word('scene', scene), camera=label.word('camera', REFERENCE_VIEW),
            embodiment=label.word('embodiment', embodiment) if videos else 'human',
            source='folder', license_id=label.word('license_id', license_id),
            split=label.word('split'), session=label.word('session'), success=label.success,
            success_s=label.success_s, failure=label.word('failure'), fault_s=label.failed_s,
            robot_videos=videos, human_video=human, time_s=times, success_flags=flags,
            tags=label.tags))
    for name in labels:
        faults.add('no_episode', name, f'{LABELS} names it, and there is no such folder')
    report(f'{root}: {len(episodes)} episodes, '
           f'{sum(bool(e.human_video and e.robot_videos) for e in episodes)} of them pairs, '
           f'{sum(bool(e.success_flags) for e in episodes)} with success flags')
    views = Counter(view for e in episodes for view in e.robot_videos)
    if views:
        report('views: ' + ', '.join(f'{view} {views[view]}' for view in sorted(
            views, key=lambda view: (-views[view], view))))
    faults.tell(report)
    return episodes


def _folders(root: Path) -> list[Path]:
    return [folder for folder in root.glob('[!.]*/[!.]*') if folder.is_dir()]


def _videos(root: Path, folder: Path, faults: Faults) -> dict[str, str]:
    """Return the file of each view that can be opened."""
    videos: dict[str, str] = {}
    for path in sorted(folder.glob('[!.]*')):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() not in SUFFIXES:
            if path.suffix.lower() in OTHER_SUFFIXES:
                faults.add('other_video', name, 'a video of a kind that is not read; left out: '
                           'convert it to MP4')
            continue
        view = path.stem
        if (plain := re.sub(r'[\s-]+', '_', view.casefold())) in _KNOWN:
            view = plain
        if view in videos:
            faults.add('two_videos', name, f'{videos[view]} is of the same view; left out')
            continue
        try:
            probe(path)
        except DataError as error:
            faults.add('corrupt_video', name, f'{error}; left out')
            continue
        videos[view] = name
    return videos


def _flags(
    root: Path, name: str, videos: Mapping[str, str], success: bool | None, done_s: float | None,
    faults: Faults,
) -> tuple[list[float], list[bool]]:
    """Return the times of the robot's frames, and which show it accomplished; nothing: unknown."""
    if not videos or success is None or (success and done_s is None):
        return [], []
    times = frame_times(root / videos.get(REFERENCE_VIEW, next(iter(videos.values()))))
    # Times in tables are rounded to milliseconds.
    done = times >= (math.inf if done_s is None else done_s - EDGE_S)
    if success and not done.any():
        faults.add('done_after_end', name, f'done_s is {done_s:g}, and the video ends at '
                   f'{times[-1]:.1f} s; it has no success flags')
        return [], []
    for file in videos.values():
        try:
            newest_at(frame_times(root / file), times, file)
        except DataError as error:
            faults.add('views_apart', name, f'{error}; with this view no success head can be '
                       'trained on it')
    return np.asarray(times, np.float64).tolist(), done.tolist()
