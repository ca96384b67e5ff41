# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The manifest of a data set of clips: one Parquet row per episode, what every offline step reads.

A row is one robot episode with the human clip that goes with it, or a human clip alone. What is
known of each frame (time, success, progress, actions, proprioception) is a list in the same row.
Files are named relative to the manifest's folder, so that a data set can be moved.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
import math
import os
from pathlib import Path
import re
from typing import Any

from hralign_ros.runtime.errors import DataError
from hralign_ros.runtime.images import ViewGeometry
import pyarrow as pa
from pyarrow import parquet

FILE_NAME = 'manifest.parquet'
SCHEMA_VERSION = 1
# The view that a human clip is recorded from; wrist and others exist for robots only.
REFERENCE_VIEW = 'third_person'
# What a human clip is called beside the robot's views, and who acts in it.
HUMAN = 'human'
# A tag of episodes that are not to be used.
DISCARDED = 'discard'
# Sources of episodes that no camera ever saw.
SIMULATORS = frozenset({'metaworld', 'robosuite'})


def recording_of(episode_id: str) -> str:
    """Return the part of an episode's id that all cameras of one recording share."""
    return episode_id.split('#', 1)[0]


@dataclass(frozen=True)
class Episode:
    """
    One row of the manifest.

    :param episode_id: unique in the data set. Rows of one recording, recorded by several cameras,
        share what stands before a '#'.
    :param task_id: what is done, as a short name.
    :param task_text: the instruction, as one says it.
    :param scene: the place: background, light and camera poses. Scenes are shared between tasks.
    :param camera: of the third-person view (a serial number, a viewpoint's name).
    :param embodiment: panda, ur5e, sawyer, ...; human for a human clip alone.
    :param source: where the episode comes from: metaworld, robosuite, rh20t, lerobot, folder,
        rosbag.
    :param license_id: SPDX name of the licence of the videos.
    :param split: as the split file says; '' where no rule names it.
    :param seed: of a simulated episode; None for a recorded one.
    :param success: how it ended; None: not known.
    :param failure: kind of failure where one is known; '' otherwise.
    :param robot_videos: file by view name.
    :param human_video: file of the human clip, recorded from the reference view; '' for none.
    :param human_from: id of the episode whose motion the human clip shows: this one's own for a
        paired human, '' where the human did it on their own.
    :param human_span_s: first and last second of the human clip to be used; empty: all of it.
    :param robot_span_s: the same for the robot's clips.
    :param robot_offset_s: by view name, what lies in that view's file so much later than
        robot_span_s and time_s say [s]; none for a view: nothing does.
    :param geometry: by view name, or 'human', how images are turned and cropped before they
        are encoded, as the node does with its cameras'; none for a view: not at all.
    :param time_s: [F] of each robot frame, from the start of the video.
    :param success_flags: [F] whether the task is accomplished in this frame.
    :param progress: [F] 0 to 1.
    :param actions: [F][A] command sent at each frame.
    :param proprio: [F][P] the robot's own state at each frame.
    :param fault_s: when the fault of a failed episode began; None: not known.
    :param tags: free words, for example distractor; DISCARDED; by:human:ann, who labelled it.
    :param session: what was recorded at one go; takes of a session never stand in two splits. '':
        each recording is a session of its own.
    :param success_s: when the task was accomplished, on the clock of time_s; None: not known.
    """

    episode_id: str
    task_id: str
    task_text: str
    scene: str
    camera: str
    embodiment: str
    source: str
    license_id: str
    split: str = ''
    seed: int | None = None
    success: bool | None = None
    failure: str = ''
    robot_videos: Mapping[str, str] = field(default_factory=dict)
    human_video: str = ''
    human_from: str = ''
    human_span_s: Sequence[float] = ()
    robot_span_s: Sequence[float] = ()
    robot_offset_s: Mapping[str, float] = field(default_factory=dict)
    geometry: Mapping[str, ViewGeometry] = field(default_factory=dict)
    time_s: Sequence[float] = ()
    success_flags: Sequence[bool] = ()
    progress: Sequence[float] = ()
    actions: Sequence[Sequence[float]] = ()
    proprio: Sequence[Sequence[float]] = ()
    fault_s: float | None = None
    tags: Sequence[str] = ()
    session: str = ''
    success_s: float | None = None

    def robot_span(self, view: str) -> tuple[float, ...]:
        """Return first and last second of a robot's clip in its own file; (): all of it."""
        offset = self.robot_offset_s.get(view, 0.0)
        return tuple(second + offset for second in self.robot_span_s)

    @property
    def recording(self) -> str:
        """Return what all cameras of one recording share."""
        return recording_of(self.episode_id)

    @property
    def discarded(self) -> bool:
        """Tell whether a person said that it is not to be used."""
        return DISCARDED in self.tags


_STRINGS = pa.list_(pa.string())
_FLOATS = pa.list_(pa.float32())
_SCHEMA = pa.schema([
    *((name, pa.string()) for name in (
        'episode_id', 'task_id', 'task_text', 'scene', 'camera', 'embodiment', 'source',
        'license_id', 'split')),
    ('seed', pa.int64()), ('success', pa.bool_()), ('failure', pa.string()),
    ('robot_videos', pa.map_(pa.string(), pa.string())),
    ('human_video', pa.string()), ('human_from', pa.string()),
    ('human_span_s', pa.list_(pa.float64())), ('robot_span_s', pa.list_(pa.float64())),
    ('robot_offset_s', pa.map_(pa.string(), pa.float64())),
    ('geometry', pa.map_(pa.string(), pa.struct([
        ('rotation', pa.int16()), ('crop', pa.list_(pa.float64()))]))),
    ('time_s', pa.list_(pa.float64())), ('success_flags', pa.list_(pa.bool_())),
    ('progress', _FLOATS), ('actions', pa.list_(_FLOATS)), ('proprio', pa.list_(_FLOATS)),
    ('fault_s', pa.float64()), ('tags', _STRINGS), ('session', pa.string()),
    ('success_s', pa.float64()),
], metadata={'hralign_manifest': str(SCHEMA_VERSION)})


def slug(text: str) -> str:
    """Make a short name of an instruction, so that one task has one id however it is written."""
    return re.sub(r'\W+', '-', text.casefold()).strip('-_') or text


@dataclass(frozen=True)
class DataSet:
    """
    Episodes and the folder that their files are relative to.

    :param folder: absolute.
    """

    folder: Path
    episodes: tuple[Episode, ...]

    def path(self, file: str) -> Path:
        """Return where a file of an episode lies."""
        return self.folder / file

    def only(self, episodes: Iterable[Episode]) -> 'DataSet':
        """Return the same data set with these episodes."""
        return replace(self, episodes=tuple(episodes))

    def of_split(self, *splits: str) -> 'DataSet':
        """
        Return the episodes of these splits, without those that a person has discarded.

        :raises DataError: there are none.
        """
        chosen = self.only(
            e for e in self.episodes if e.split in splits and not e.discarded)
        if not chosen.episodes:
            raise DataError(
                f'{self.folder}: no episode of split {" or ".join(splits)}; the manifest has: '
                f'{self.splits_in_words()}')
        return chosen

    def splits_in_words(self) -> str:
        """Say how many episodes each split has, and which robots are held out from training."""
        count = Counter(e.split or '(none)' for e in self.episodes)
        robots = sorted({e.embodiment for e in self.episodes if e.split == 'test_embodiment'})
        return ', '.join(f'{split} {count[split]}' for split in sorted(count)) + (
            f'; held-out robots: {", ".join(robots)}' if robots else '')


def require_writable(folder: Path) -> Path:
    """
    Make the folder of a manifest.

    :raises DataError: it cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise DataError(
            f'{folder}: the manifest cannot be written there; link the data into a folder of your '
            f'own (mkdir data; ln -s {folder} data/) and name that link')
    return folder


def write_manifest(folder: Path, episodes: Iterable[Episode]) -> Path:
    """
    Write the manifest of a folder; one that is there is replaced in one step.

    :returns: the file.
    :raises DataError: two episodes share an id, or the lists of an episode differ in length.
    """
    rows = sorted(episodes, key=lambda episode: episode.episode_id)
    for before, row in zip(rows, rows[1:], strict=False):
        if before.episode_id == row.episode_id:
            raise DataError(f"{folder}: two episodes are named '{row.episode_id}'")
    for row in rows:
        _check(row)
    return _write(require_writable(Path(folder)) / FILE_NAME, (
        _table(rows[start:start + _GROUP]) for start in range(0, len(rows), _GROUP)))


def change_manifest(
    folder: Path, changes: Mapping[str, Callable[[Episode], Episode]],
) -> set[str]:
    """
    Change some rows of a manifest, which is replaced in one step; the other rows stay as they are.

    They are not looked at, so that a change of a large manifest takes a second and not a minute.

    :param changes: by id, what makes the new row of the old one; the id stays.
    :returns: ids that the manifest does not have.
    :raises DataError: as `read_manifest`, or a new row is not a good one.
    """
    path, table = _read(Path(folder), leave_out=())
    try:
        table = pa.table([
            table[column.name].cast(column.type) if column.name in table.column_names
            else pa.nulls(len(table), column.type) for column in _SCHEMA], schema=_SCHEMA)
    except pa.ArrowException as error:
        raise DataError(f'{path}: {error}') from error
    ids = table['episode_id'].to_pylist()
    parts, done = [], 0
    for place, name in enumerate(ids):
        if name not in changes:
            continue
        row, = _episodes(path, table.slice(place, 1))
        changed = changes[name](row)
        _check(changed)
        parts += [table.slice(done, place - done), _table([changed])]
        done = place + 1
    whole = pa.concat_tables([*parts, table.slice(done)])
    require_writable(path.parent)
    _write(path, (whole.slice(start, _GROUP) for start in range(0, len(whole), _GROUP)))
    return set(changes) - set(ids)


def read_manifest(folder: Path, *, series: bool | Collection[str] = True) -> DataSet:
    """
    Read the manifest of a folder.

    :param folder: or the manifest file itself.
    :param series: also what there is for every frame (time_s, success_flags, progress, actions,
        proprio), nearly all of a large manifest's memory; without it those are empty, or all but
        those that are named.
    :raises DataError: there is none, it is of another schema, or a row is not a good one.
    """
    wanted = (_SERIES if series else ()) if isinstance(series, bool) else series
    path, table = _read(Path(folder), leave_out=set(_SERIES) - set(wanted))
    return DataSet(path.resolve().parent, tuple(_episodes(path, table)))


def _write(path: Path, tables: Iterable[pa.Table]) -> Path:
    """Write rows, and put them in place of those that are there."""
    scratch = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
        with parquet.ParquetWriter(scratch, _SCHEMA, compression='zstd') as writer:
            for table in tables:
                writer.write_table(table)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _table(rows: Sequence[Episode]) -> pa.Table:
    return pa.Table.from_pylist([_plain(row) for row in rows], schema=_SCHEMA)


def _read(folder: Path, leave_out: Collection[str]) -> tuple[Path, pa.Table]:
    """Read the columns of a manifest, but for some, and return its file and them."""
    path = folder / FILE_NAME if folder.is_dir() else folder
    try:
        known = parquet.read_schema(path).names
        table = parquet.read_table(path, columns=[n for n in known if n not in leave_out])
    except FileNotFoundError as error:
        raise DataError(
            f'{folder}: no {FILE_NAME} there; `hralign data simulate` and `hralign data '
            'import` write one') from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f'{path}: {error}') from error
    version = (table.schema.metadata or {}).get(b'hralign_manifest', b'none').decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(
            f'{path}: manifest schema {version}, and this package reads {SCHEMA_VERSION}')
    missing = sorted({f.name for f in fields(Episode)} - set(known) - set(_YOUNGER))
    if missing:
        raise DataError(f'{path}: no column {", ".join(missing)}')
    return path, table


def _episodes(path: Path, table: pa.Table) -> list[Episode]:
    """Make episodes of the rows of a manifest; columns that are not there are empty."""
    names = [f.name for f in fields(Episode) if f.name in table.column_names]
    episodes = []
    for row in table.select(names).to_pylist():
        for name in _MAPS:
            row[name] = dict(row.get(name) or ())
        row['geometry'] = {view: _geometry(path, row['episode_id'], view, values)
                           for view, values in row['geometry'].items()}
        # A list column that a writer left empty reads as None.
        episode = Episode(**{k: v if v is not None or k in _OPTIONAL else _EMPTY[k]
                             for k, v in row.items()})
        _check(episode)
        episodes.append(episode)
    return episodes


# What an episode has for every frame.
_SERIES = ('time_s', 'success_flags', 'progress', 'actions', 'proprio')
# So many rows are plain Python values at a time while a manifest is written.
_GROUP = 1000
_OPTIONAL = ('seed', 'success', 'fault_s', 'success_s')
_MAPS = ('robot_videos', 'robot_offset_s', 'geometry')
# Columns that a manifest of this schema may lack.
_YOUNGER = ('robot_offset_s', 'geometry', 'session', 'success_s')
_EMPTY: dict[str, Any] = {
    f.name: {} if f.name in _MAPS else '' if f.type is str else ()
    for f in fields(Episode)}


def _plain(episode: Episode) -> dict[str, Any]:
    row = asdict(episode)
    for name in _MAPS:
        row[name] = sorted(row[name].items())
    return row


def _geometry(path: Path, episode_id: str, view: str, values: Mapping[str, Any]) -> ViewGeometry:
    try:
        return ViewGeometry(values['rotation'], tuple(values['crop']))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: episode '{episode_id}', view {view}: {error}") from error


def _check(episode: Episode) -> None:
    """Refuse a row that later steps would stumble over."""
    def refuse(what: str) -> None:
        raise DataError(f"episode '{episode.episode_id}': {what}")

    if not episode.episode_id or not episode.task_text.strip():
        refuse('episode_id and task_text must not be empty')
    frames = len(episode.time_s)
    for name in ('success_flags', 'progress', 'actions', 'proprio'):
        count = len(getattr(episode, name))
        if count not in (0, frames):
            refuse(f'{name} has {count} values for {frames} frames')
    if any(b <= a for a, b in zip(episode.time_s, episode.time_s[1:], strict=False)):
        refuse('time_s does not increase')
    for file in (*episode.robot_videos.values(), episode.human_video):
        if file and (os.path.isabs(file) or '..' in Path(file).parts):
            refuse(f"{file} is not below the data set's folder")
    for name in ('human_span_s', 'robot_span_s'):
        span = getattr(episode, name)
        if len(span) not in (0, 2) or (span and span[0] >= span[1]):
            refuse(f'{name} is {list(span)}; needed are a start and a later end, or nothing')
    for view, offset in episode.robot_offset_s.items():
        if view not in episode.robot_videos or not math.isfinite(offset):
            refuse(f'robot_offset_s is {offset} for view {view}; needed are seconds, for views '
                   'that have a file')
    if episode.success_s is not None and not (
            episode.success and math.isfinite(episode.success_s)):
        refuse(f'success_s is {episode.success_s} and success is {episode.success}; needed are '
               'seconds, of a success')
    videos = {*episode.robot_videos, *([HUMAN] if episode.human_video else [])}
    if set(episode.geometry) - videos:
        refuse(f'geometry is of {", ".join(sorted(episode.geometry))}; there are videos of '
               f'{", ".join(sorted(videos)) or "nothing"}')
