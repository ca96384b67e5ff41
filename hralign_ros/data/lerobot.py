# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
LeRobot data sets, format v3.0, on disk.

    ROOT/meta/info.json                                  version, frame rate, features, paths
    ROOT/meta/tasks.parquet                              task_index and instruction
    ROOT/meta/episodes/chunk-000/file-000.parquet        one row per episode
    ROOT/data/chunk-000/file-000.parquet                 one row per frame, many episodes
    ROOT/videos/<camera>/chunk-000/file-000.mp4          many episodes one after the other
    ROOT/labels.csv                                      optional, see hralign_ros.data.labels

These are robot episodes without human clips. What a row of a manifest says of time holds for all
of its videos. An episode may lie at another place in each camera's file; such cameras get a row of
their own, with the camera's view after a '#' in the episode's id.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from hralign_ros.data.labels import Label, LABELS, read_labels
from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW, slug
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.video import EDGE_S, probe
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import parquet

VERSION = 'v3.0'
ACTION = 'action'
STATE = 'observation.state'
SUCCESS = 'next.success'
_DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
_VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
# An instruction is the index of the pandas table that the file was written from.
_TASK_COLUMNS = ('task', '__index_level_0__')

_Row = dict[str, Any]


def read_lerobot(
    root: Path, *, views: Mapping[str, str], scene: str = '', embodiment: str = '',
    license_id: str = 'NOASSERTION', report: Callable[[str], object] = print,
    faults: Faults | None = None,
) -> list[Episode]:
    """
    Read the episodes of a LeRobot data set.

    Success is known only where the frames have next.success and it says yes in some episode
    (many recordings leave it at no throughout), or where labels.csv says it. A video that is
    missing or cannot be opened is left out, an episode without any or whose frames are not as its
    row says is skipped; both are reported.

    :param root: files are named relative to it.
    :param views: the view of each camera that is wanted, such as
        {'observation.images.front': 'third_person', 'observation.images.hand': 'wrist'}.
    :param scene: '': the folder's name.
    :param embodiment: '': the robot_type of info.json.
    :param license_id: as SPDX names it; NOASSERTION: nothing is known.
    :param report: gets the summary, line by line.
    :param faults: filled with every fault found: corrupt_video, no_video, bad_frames.
    :returns: sorted by id: episode_000012.
    :raises DataError: it is of another version, lacks a camera, or cannot be read.
    """
    root = Path(root)
    faults = Faults() if faults is None else faults
    info = _info(root)
    cameras = _cameras(root, info, views)
    texts = _texts(root)
    template = Episode(
        episode_id='', task_id='', task_text='', scene=scene or root.absolute().name, camera='',
        embodiment=embodiment or str(info.get('robot_type') or 'unknown'), source='lerobot',
        license_id=license_id)
    reader = _Reader(root, info, cameras, texts, template, faults)
    labels = read_labels(root / LABELS)
    episodes = [episode for row in _episode_rows(root) for episode in reader.episode(row)]
    if not any(any(episode.success_flags) for episode in episodes):
        episodes = [replace(e, success=None, success_flags=(), success_s=None) for e in episodes]
    episodes = [_labelled(episode, labels.pop(episode.recording, Label()))
                for episode in episodes if not labels.get(episode.recording, Label()).discard]
    for name, label in labels.items():
        if not label.discard:
            faults.add('no_episode', name, f'{LABELS} names it, and there is no such episode')
    report(f'{root}: {len({e.recording for e in episodes})} episodes in {len(episodes)} rows')
    faults.tell(report)
    return sorted(episodes, key=lambda episode: episode.episode_id)


def _labelled(episode: Episode, label: Label) -> Episode:
    """Put an episode and its label together; what the label does not say stays."""
    words: dict[str, Any] = {
        name: text for name in ('scene', 'camera', 'embodiment', 'license_id', 'split', 'session',
                                'failure') if (text := label.word(name))}
    if label.word('task_text'):
        words |= {'task_text': label.word('task_text'), 'task_id': slug(label.word('task_text'))}
    episode = replace(episode, **words)
    if label.success is None:
        return episode
    start = episode.time_s[0]
    done = None if label.success_s is None else start + label.success_s
    flags: tuple[bool, ...] = ()
    if not label.success or done is not None:
        flags = tuple(done is not None and time >= done - EDGE_S for time in episode.time_s)
    return replace(
        episode, success=label.success, success_s=done, success_flags=flags,
        fault_s=None if label.failed_s is None else start + label.failed_s)


class _Reader:
    """Reads episode after episode; keeps the file of frames that it read last."""

    def __init__(
        self, root: Path, info: Mapping[str, Any], cameras: Mapping[str, str],
        texts: Mapping[int, str], template: Episode, faults: Faults,
    ) -> None:
        self.root, self.info, self.cameras = root, info, cameras
        self.texts, self.template, self.faults = texts, template, faults
        self._usable: dict[str, bool] = {}
        self._frames: tuple[str, pa.Table | None] = ('', None)

    def episode(self, row: _Row) -> list[Episode]:
        """Return the row of an episode, if it can be used."""
        name = f'episode_{row["episode_index"]:06d}'
        try:
            frames = self.frames(row)
            times = _column(frames, 'timestamp', np.float64)[:, 0]
            task = int(_column(frames, 'task_index', np.int64)[0, 0])
            text = self.texts.get(task) or ' '.join(row.get('tasks') or ())
            if not text.strip() or (np.diff(times) <= 0).any():
                raise ValueError(f'task {task} has no text' if not text.strip()
                                 else 'timestamp does not increase')
            flags = tuple(_column(frames, SUCCESS, np.bool_)[:, 0].tolist()) \
                if SUCCESS in frames.column_names else ()
            lists: dict[str, Any] = {
                ours: tuple(map(tuple, _column(frames, theirs, np.float32).tolist()))
                for ours, theirs in (('actions', ACTION), ('proprio', STATE))
                if theirs in frames.column_names}
        except (DataError, KeyError, TypeError, ValueError, pa.ArrowException, OSError) as error:
            self.faults.add('bad_frames', name, f'{error}; skipped')
            return []
        common = replace(
            self.template, task_id=slug(text),
            task_text=text, success_flags=flags, success=any(flags) if flags else None, **lists)
        places = self.places(name, row)
        if not places:
            self.faults.add('no_video', name, 'no usable video; skipped')
            return []
        reference = next(iter(places))
        start, end = places[reference][1]
        camera = next(key for key, view in self.cameras.items() if view == reference)
        # The end belongs to the next episode's first frame.
        half = 0.5 * (end - start) / max(len(times), 1)
        # Files are split by size, so that cameras have an episode at other seconds of theirs.
        offsets = {view: span[0] - start for view, (_, span) in places.items()
                   if span[0] != start}
        return [replace(
            common, episode_id=name, camera=camera,
            robot_videos={view: file for view, (file, _) in places.items()},
            robot_span_s=(start, end - half), robot_offset_s=offsets,
            time_s=tuple((start + times - times[0]).tolist()))]

    def places(self, name: str, row: _Row) -> dict[str, tuple[str, tuple[float, float]]]:
        """Return an episode's file by view, with its seconds in it; the reference first."""
        places: dict[str, tuple[str, tuple[float, float]]] = {}
        for key, view in sorted(self.cameras.items(), key=lambda c: (c[1] != REFERENCE_VIEW, c)):
            try:
                at = {part: row[f'videos/{key}/{part}'] for part in (
                    'chunk_index', 'file_index', 'from_timestamp', 'to_timestamp')}
                file = self.info.get('video_path', _VIDEO_PATH).format(
                    video_key=key, chunk_index=at['chunk_index'], file_index=at['file_index'])
                span = (float(at['from_timestamp']), float(at['to_timestamp']))
                if not span[0] < span[1]:
                    raise ValueError(f'lasts from {span[0]} to {span[1]} s')
            except (KeyError, TypeError, ValueError, IndexError) as error:
                self.faults.add('corrupt_video', name,
                                f'{key}: {type(error).__name__} {error}; left out')
                continue
            if self.usable(file):
                places[view] = file, span
        return places

    def usable(self, file: str) -> bool:
        """Tell whether a video can be opened; a fault is noted once for each file."""
        if file not in self._usable:
            try:
                probe(self.root / file)
                self._usable[file] = True
            except DataError as error:
                self._usable[file] = False
                self.faults.add('corrupt_video', file, f'{error}; left out')
        return self._usable[file]

    def frames(self, row: _Row) -> pa.Table:
        """Return the frames of an episode in order."""
        file = self.info.get('data_path', _DATA_PATH).format(
            chunk_index=row['data/chunk_index'], file_index=row['data/file_index'])
        if self._frames[0] != file:
            schema = parquet.read_schema(self.root / file)
            wanted = ['episode_index', 'frame_index', 'timestamp', 'task_index',
                      *(name for name in (ACTION, STATE, SUCCESS) if name in schema.names)]
            self._frames = (file, parquet.read_table(self.root / file, columns=wanted))
        table = self._frames[1]
        assert table is not None
        mine = _column(table, 'episode_index', np.int64)[:, 0] == row['episode_index']
        frames = table.filter(pa.array(mine)).sort_by('frame_index')
        if frames.num_rows != row['length']:
            raise DataError(f'{file} holds {frames.num_rows} of its {row["length"]} frames')
        if not frames.num_rows:
            raise DataError('it has no frames')
        return frames


def _info(root: Path) -> dict[str, Any]:
    path = root / 'meta' / 'info.json'
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
        version = info['codebase_version']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: {error!r}; {root} is not a LeRobot data set') from error
    if version != VERSION:
        raise DataError(
            f'{root}: LeRobot format {version}, and this package reads {VERSION}; convert it with '
            'python -m lerobot.scripts.convert_dataset_v21_to_v30 (before v2.1: with the LeRobot '
            'release of its time first)')
    return dict(info)


def _cameras(root: Path, info: Mapping[str, Any], views: Mapping[str, str]) -> dict[str, str]:
    """Check the wanted cameras against those that there are."""
    features = info.get('features') or {}
    there = sorted(key for key, feature in features.items() if feature.get('dtype') == 'video')
    missing = sorted(set(views) - set(there))
    if missing or not views:
        raise DataError(f'{root}: no video of camera {", ".join(missing) or "(none named)"}; '
                        f'there are: {", ".join(there) or "none"}')
    if len(set(views.values())) < len(views):
        raise DataError(f'{root}: two cameras for one view: {dict(views)}')
    return dict(views)


def _texts(root: Path) -> dict[int, str]:
    """Read the instruction of each task."""
    path = root / 'meta' / 'tasks.parquet'
    rows = _rows(path, lambda name: name == 'task_index' or name in _TASK_COLUMNS)
    try:
        return {int(row['task_index']): str(next(row[c] for c in _TASK_COLUMNS if c in row))
                for row in rows}
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise DataError(f'{path}: no task_index and task in it') from error


def _episode_rows(root: Path) -> Iterator[_Row]:
    files = sorted((root / 'meta' / 'episodes').glob('chunk-*/file-*.parquet'))
    if not files:
        raise DataError(f'{root}: no meta/episodes/chunk-*/file-*.parquet')
    rows = [row for file in files for row in _rows(file, lambda n: not n.startswith('stats/'))]
    needed = {'episode_index', 'length', 'data/chunk_index', 'data/file_index'}
    for row in rows:
        if needed - set(row):
            raise DataError(f'{root}/meta/episodes: no column {", ".join(needed - set(row))}')
    return iter(sorted(rows, key=lambda row: row['episode_index']))


def _rows(path: Path, keep: Callable[[str], bool]) -> list[_Row]:
    try:
        columns = [name for name in parquet.read_schema(path).names if keep(name)]
        rows: list[_Row] = parquet.read_table(path, columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f'{path}: {error}') from error
    return rows


def _column(table: pa.Table, name: str, dtype: Any) -> NDArray[Any]:
    """Return a column of numbers, or of lists of one length, as [rows, width]."""
    values: Sequence[Any] = table.column(name).to_pylist()
    array = np.array(values, dtype)
    return array.reshape(len(values), -1) if len(values) else array.reshape(0, 1)
