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
task_text, success (yes or no), failure (its kind), scene (where), camera, embodiment (the robot),
license_id (an SPDX name).
"""

from collections.abc import Callable, Mapping
import csv
from pathlib import Path
import re

from hralign_ros.data.faults import Faults
from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW
from hralign_ros.data.video import probe

LABELS = 'labels.csv'
COLUMNS = ('episode', 'task_text', 'success', 'failure', 'scene', 'camera', 'embodiment',
           'license_id')
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
    :param faults: filled with every fault found: corrupt_video, no_video, two_videos, no_episode.
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
        episodes.append(Episode(
            episode_id=name, task_id=_slug(text), task_text=text,
            scene=label.get('scene') or scene, camera=label.get('camera') or REFERENCE_VIEW,
            embodiment=(label.get('embodiment') or embodiment) if videos else 'human',
            source='folder', license_id=label.get('license_id') or license_id, success=success,
            failure=label.get('failure', ''), robot_videos=videos, human_video=human))
    for name in labels:
        faults.add('no_episode', name, f'{LABELS} names it, and there is no such folder')
    report(f'{root}: {len(episodes)} episodes, '
           f'{sum(bool(e.human_video and e.robot_videos) for e in episodes)} of them pairs')
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
                labels[name] = values
            return labels
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{path}: {error}') from error


def _slug(text: str) -> str:
    """Make a short name of an instruction, so that one task has one id however it is written."""
    return re.sub(r'\W+', '-', text.casefold()).strip('-_') or text
