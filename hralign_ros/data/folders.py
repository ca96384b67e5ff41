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

labels.csv has a header line and one line for each episode that there is something to say about.
The column `episode` is <task folder>/<episode folder>; the others may be left out or empty:
task_text, success (yes or no), done_s (from which second of the video on it is accomplished),
failure (its kind), failed_s (when it went wrong), scene (where), camera, embodiment (the robot),
license_id (an SPDX name). A success head is trained on attempts with success "no", and on those
with "yes" that have a done_s.
"""

from collections.abc import Callable, Mapping
import csv
import math
from pathlib import Path

from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW, slug
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.video import frame_times, newest_at, probe
import numpy as np

LABELS = 'labels.csv'
COLUMNS = ('episode', 'task_text', 'success', 'done_s', 'failure', 'failed_s', 'scene', 'camera',
           'embodiment', 'license_id')
SUFFIXES = ('.mp4', '.mkv', '.mov', '.webm', '.avi')
_ANSWERS = {'': None, 'yes': True, 'true': True, '1': True, 'no': False, 'false': False,
            '0': False}


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
    :param faults: filled with every fault found: corrupt_video, no_video, two_videos, no_episode,
        done_after_end, views_apart.
    :returns: sorted by id: <task folder>/<episode folder>.
    :raises DataError: there is no such folder, or labels.csv is not as described.
    """
    root = Path(root)
    faults = Faults() if faults is None else faults
    if not root.is_dir():
        raise DataError(f'{root}: no such folder')
    labels = _labels(root / LABELS)
    episodes = []
    for folder in sorted(_folders(root), key=lambda f: f.relative_to(root).as_posix()):
        name = folder.relative_to(root).as_posix()
        label = labels.pop(name, {})
        videos = _videos(root, folder, faults)
        human = videos.pop('human', '')
        if not videos and not human:
            faults.add('no_video', name, 'no usable video in it; skipped')
            continue
        text = label.get('task_text') or ' '.join(folder.parent.name.replace('_', ' ').split())
        success = _ANSWERS[label.get('success', '').lower()]
        try:
            times, flags = _flags(root, name, videos, success, _seconds(label, 'done_s'), faults)
        except DataError as error:
            faults.add('corrupt_video', name, f'{error}; skipped')
            continue
        episodes.append(Episode(
            # What is before a '#' would be one recording by several cameras.
            episode_id=name.replace('#', '%23'), task_id=slug(text), task_text=text,
            scene=label.get('scene') or scene, camera=label.get('camera') or REFERENCE_VIEW,
            embodiment=(label.get('embodiment') or embodiment) if videos else 'human',
            source='folder', license_id=label.get('license_id') or license_id, success=success,
            failure=label.get('failure', ''), fault_s=_seconds(label, 'failed_s'),
            robot_videos=videos, human_video=human, time_s=times, success_flags=flags))
    for name in labels:
        faults.add('no_episode', name, f'{LABELS} names it, and there is no such folder')
    report(f'{root}: {len(episodes)} episodes, '
           f'{sum(bool(e.human_video and e.robot_videos) for e in episodes)} of them pairs, '
           f'{sum(bool(e.success_flags) for e in episodes)} with success flags')
    faults.tell(report)
    return episodes


def _folders(root: Path) -> list[Path]:
    return [folder for folder in root.glob('[!.]*/[!.]*') if folder.is_dir()]


def _videos(root: Path, folder: Path, faults: Faults) -> dict[str, str]:
    """Return the file of each view that can be opened."""
    videos: dict[str, str] = {}
    for path in sorted(folder.glob('[!.]*')):
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = path.relative_to(root).as_posix()
        if path.stem in videos:
            faults.add('two_videos', name, f'{videos[path.stem]} is of the same view; left out')
            continue
        try:
            probe(path)
        except DataError as error:
            faults.add('corrupt_video', name, f'{error}; left out')
            continue
        videos[path.stem] = name
    return videos


def _flags(
    root: Path, name: str, videos: Mapping[str, str], success: bool | None, done_s: float | None,
    faults: Faults,
) -> tuple[list[float], list[bool]]:
    """Return the times of the robot's frames, and which show it accomplished; nothing: unknown."""
    if not videos or success is None or (success and done_s is None):
        return [], []
    times = frame_times(root / videos.get(REFERENCE_VIEW, next(iter(videos.values()))))
    done = times >= (math.inf if done_s is None else done_s)
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


def _seconds(label: Mapping[str, str], column: str) -> float | None:
    """Read a time that _labels has checked."""
    return float(label[column]) if label.get(column) else None


def _labels(path: Path) -> dict[str, Mapping[str, str]]:
    """Read labels.csv by episode; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        with open(path, encoding='utf-8-sig', newline='') as file:
            reader = csv.DictReader(file, strict=True)
            unknown = set(reader.fieldnames or ()) - set(COLUMNS)
            if unknown or 'episode' not in (reader.fieldnames or ()):
                raise DataError(f'{path}: columns are {", ".join(reader.fieldnames or ())}; '
                                f'needed is episode, allowed are {", ".join(COLUMNS)}')
            labels: dict[str, Mapping[str, str]] = {}
            for row in reader:
                where = f'{path}, line {reader.line_num}'
                if None in row:
                    raise DataError(f'{where}: more values than columns')
                values = {key: (value or '').strip() for key, value in row.items()}
                name = values['episode'].strip('/')
                if name in labels:
                    raise DataError(f"{where}: '{name}' is named twice")
                if values.get('success', '').lower() not in _ANSWERS:
                    raise DataError(f"{where}: success is '{values['success']}'; needed is yes, "
                                    'no or nothing')
                for column in ('done_s', 'failed_s'):
                    if not _is_time(values.get(column, '')):
                        raise DataError(f"{where}: {column} is '{values[column]}'; needed is a "
                                        'number of seconds from the start of the video, or '
                                        'nothing')
                if values.get('done_s') and not _ANSWERS[values.get('success', '').lower()]:
                    raise DataError(f'{where}: done_s is given, and success is not yes')
                labels[name] = values
            return labels
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path}: {error}') from error


def _is_time(text: str) -> bool:
    """Whether it is nothing, or seconds."""
    try:
        return not text or 0.0 <= float(text) < math.inf
    except ValueError:
        return False
