# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Episodes out of rosbag2 recordings: images into videos, the rest into the manifest.

Images have the stamps of their headers, which say when they were taken. What was made of a bag
lies in a folder of its own,

    OUTPUT/videos/<bag>/<key>/<view>.mp4           or, of a bag with many episodes,
    OUTPUT/videos/<bag>/<key>/<episode>/<view>.mp4
    OUTPUT/videos/<bag>/<key>/bag.json             what is known of each episode

where the key stands for the bag's files and for what is taken of them. bag.json is written last:
a folder without it is not whole, and is made anew. So an import that was stopped goes on, and
later bags are added, while labels are read anew each time.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
import json
import os
from pathlib import Path
import re
import shutil
from typing import Any

from hralign_ros.data.bag_conversion import BagConversion, BagOptions
from hralign_ros.data.bag_files import Bag, find_bags, PARTIAL
from hralign_ros.data.bag_labels import BagLabels, LabelTables
from hralign_ros.data.bag_messages import MessageTypes
from hralign_ros.data.labels import Label, LABELS
from hralign_ros.data.manifest import DataError, Episode, FILE_NAME, read_manifest, slug
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.runtime.video import EDGE_S, newest_at
import numpy as np

SOURCE = 'rosbag'
VIDEOS, RECORD = 'videos', 'bag.json'
_VERSION = 1
_KEY = re.compile(r'[0-9a-f]{12}')
_SCRATCH = '.unpacked'
# Views that begin or end further apart are trimmed [s].
_APART_S = 0.5


def read_rosbags(
    source: Path, *, output: Path, options: BagOptions, instruction: str = '',
    embodiment: str = 'robot', scene: str = 'default', license_id: str = 'NOASSERTION',
    report: Report = print, faults: Faults | None = None,
) -> list[Episode]:
    """
    Read bags into a data set's folder, and give its episodes: these, and those of earlier imports.

    labels.csv, in the folder of bags or in one above it, says the rest; it names an episode as the
    folder of its bag is called. A bag that cannot be read, or has nothing in it that can be used,
    is skipped; one that is cut off is used as far as it goes. Both are reported.

    :param source: folder with bags in it, at any depth; or a bag.
    :param instruction: of episodes of which labels.csv and the bag's own messages say nothing
        else; it goes before the messages.
    :param embodiment: the robot, unless labels.csv says otherwise; the same for the next two.
    :param report: gets the summary, line by line.
    :param faults: filled with every fault found: bad_bag, cut_off, no_topic, bad_image, old_image,
        no_state, late_action, views_apart, no_instruction, same_name, no_episode, done_after_end.
    :returns: sorted by id, which is the bag's name, with the episode's where a bag holds many.
    :raises DataError: there is no bag, labels.csv is not as described, or a package is missing.
    """
    faults = Faults() if faults is None else faults
    output = output.absolute()
    bags = find_bags(source)
    tables = LabelTables(Path(source).absolute(), bags)
    types = MessageTypes()
    episodes: dict[str, Episode] = {}
    done: set[Path] = set()
    progress = Progress(len(bags), 'bags', report)
    size = converted = 0
    try:
        for bag in bags:
            labels = tables.of(bag)
            try:
                if labels.whole.discard and not labels.parts:
                    done.add(_folder(bag))
                    continue
                record, was_there = _record(bag, output, options, labels, types)
            except DataError as error:
                faults.add('bad_bag', bag.name, f'{error}; skipped')
                continue
            finally:
                progress.step()
            done.add(_folder(bag))
            if not was_there:
                size, converted = size + bag.size, converted + 1
            for kind, text in record['faults']:
                faults.add(kind, bag.name, text)
            for one in record['episodes']:
                label = labels.for_episode(one['name'])
                identifier = _identifier(f'{bag.name}/{one["name"]}' if one['name'] else bag.name)
                if label.discard or (one['discard'] and label.success is None):
                    continue
                text = label.word('task_text') or instruction or one['task']
                if not text.strip():
                    faults.add('no_instruction', identifier, 'nothing says what is done in it: '
                               f'--instruction TEXT, or task_text in {LABELS}; skipped')
                    continue
                place = record['folder'].relative_to(output)
                files = {view: (place / known['file']).as_posix()
                         for view, known in one['views'].items()}
                episodes[identifier] = _episode(identifier, text, one, label, Episode(
                    robot_videos=files, source=SOURCE,
                    episode_id='', task_id='', task_text='', camera='',
                    scene=label.word('scene', scene),
                    embodiment=label.word('embodiment', embodiment),
                    license_id=label.word('license_id', license_id)), faults)
    finally:
        shutil.rmtree(output / _SCRATCH, ignore_errors=True)
    for path, name in tables.unused():
        faults.add('no_episode', path, f"names '{name}', and there is no such bag")
    seconds = max(progress.seconds, 1e-3)
    report(f'{source}: {len(bags)} bags, {len(episodes)} episodes, '
           f'{sum(e.success is not None for e in episodes.values())} with a label')
    if converted:
        report(f'{converted} bags read, {size / 1e9:.2f} GB in {seconds:.0f} s: '
               f'{size / 1e9 / seconds * 60:.2f} GB/min')
    faults.tell(report)
    if (output / FILE_NAME).is_file():
        for old in read_manifest(output).episodes:
            file = Path(next(iter(old.robot_videos.values())))
            if old.source == SOURCE and not done.intersection(file.parents):
                episodes[old.episode_id] = old
    return [episodes[name] for name in sorted(episodes)]


def remove_superseded(output: Path) -> None:
    """Remove what earlier imports made of a bag of which the manifest now has something newer."""
    used = {(output / file).parent for episode in read_manifest(output, series=False).episodes
            for file in episode.robot_videos.values()}
    # A bag's folder holds a folder for each key.
    used |= {folder.parent for folder in used if (folder.parent / RECORD).is_file()}
    for folder in {folder.parent for folder in used if (folder / RECORD).is_file()}:
        for other in folder.iterdir():
            if other not in used and _KEY.fullmatch(other.name):
                shutil.rmtree(other, ignore_errors=True)


def _folder(bag: Bag) -> Path:
    """Name the folder of what is made of a bag, below the data set's."""
    return Path(VIDEOS, _identifier(bag.name))


def _identifier(name: str) -> str:
    # What is before a '#' would be one recording by several cameras.
    return name.replace('#', '%23')


# From a bag to its record.

def _record(
    bag: Bag, output: Path, options: BagOptions, labels: BagLabels, types: MessageTypes,
) -> tuple[dict[str, Any], bool]:
    """Return what is known of a bag's episodes, and whether it was there already."""
    spans = {name: list(label.span_s) for name, label in labels.parts.items()}
    made_of = {'version': _VERSION, 'files': bag.state(), 'options': asdict(options),
               'spans': spans}
    key = sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
    folder = output / _folder(bag)
    target = folder / key
    for other in folder.glob(f'*/{RECORD}') if folder.is_dir() else ():
        old = json.loads(other.read_text('utf-8'))
        if _place(old['bag']) != _place(bag.path) and old['files'] != bag.state():
            raise DataError(
                f'there is another bag of that name in {output}, {old["bag"]}; import the folder '
                'above both, or name another --output')
    if (target / RECORD).is_file():
        return {**json.loads((target / RECORD).read_text('utf-8')), 'folder': target}, True
    if target.exists():
        shutil.rmtree(target)
    record = {'bag': str(bag.path), **made_of, **BagConversion(
        bag, target, options, spans, types, output / _SCRATCH).run()}
    scratch = target / f'.{RECORD}.{os.getpid()}.tmp'
    scratch.write_text(json.dumps(record), encoding='utf-8')
    scratch.replace(target / RECORD)
    return {**record, 'folder': target}, False


def _place(path: str | Path) -> str:
    """Return where a bag lies, or will when it is whole."""
    return str(path).removesuffix(PARTIAL)


# From a record to an episode.

def _episode(
    identifier: str, text: str, one: Mapping[str, Any], label: Label, template: Episode,
    faults: Faults,
) -> Episode:
    """Put an episode and its label together."""
    stamps = {view: np.array(known['stamps'], np.int64) for view, known in one['views'].items()}
    reference = one['reference']
    zero = int(stamps[reference][0])
    times = {view: np.asarray((of - zero) * 1e-9, np.float64) for view, of in stamps.items()}
    own = times[reference]
    span = (max(float(of[0]) for of in times.values()),
            min(float(of[-1]) for of in times.values()))
    span = (max(span[0] - _APART_S, 0.0) if span[0] > _APART_S else 0.0,
            span[1] if own[-1] - span[1] > _APART_S else float(own[-1]))
    trimmed = span != (0.0, float(own[-1])) and span[0] < span[1]
    rows = np.flatnonzero((own >= span[0]) & (own <= span[1])) if trimmed else np.arange(len(own))
    for view, of in times.items():
        try:
            newest_at(of, own[rows], view)
        except DataError as error:
            faults.add('views_apart', identifier, f'{error}; with this view no success head can '
                       'be trained on it')
    success = one['success'] if label.success is None else label.success
    # Labels count from the first image of any view.
    begin = min(float(of[0]) for of in times.values())
    done = None if label.success_s is None or not success else label.success_s + begin
    flags: list[bool] = []
    if success and done is not None and done > own[rows][-1]:
        faults.add('done_after_end', identifier, f'success at {label.success_s:g} s, and its '
                   f'images end at {own[rows][-1] - begin:.1f} s; it has no success flags')
        done = None
        success = None if one['cut_off'] else success
    elif success and done is not None:
        # Times in tables are rounded to milliseconds.
        flags = (own[rows] >= done - EDGE_S).tolist()
    elif success is False:
        flags = [False] * len(rows)
    elif success and one['cut_off']:
        faults.add('cut_off', identifier, 'its end is missing, so that its success is not used; '
                   f'give it a time_s in {LABELS}')
        success = None
    return replace(
        template, episode_id=identifier, task_id=slug(text), task_text=text,
        camera=label.word('camera', reference), split=label.word('split'),
        session=label.word('session'), success=success, failure=label.word('failure'),
        robot_span_s=span if trimmed else (),
        # In a file that begins later, all lies earlier.
        robot_offset_s={view: -float(of[0]) for view, of in times.items() if of[0] != 0.0},
        time_s=own[rows].tolist(), success_flags=flags, success_s=done,
        fault_s=None if label.failed_s is None else label.failed_s + begin,
        actions=[one['actions'][row] for row in rows] if one['actions'] else [],
        proprio=[one['proprio'][row] for row in rows] if one['proprio'] else [],
        tags=[*([] if success is None else label.tags), *(['cut_off'] if one['cut_off'] else [])])
