# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
LeRobot data sets, formats v3.0, v2.1 and v2.0, on disk.

    ROOT/meta/info.json                                  version, frame rate, features, paths
    ROOT/meta/tasks.parquet                              task_index and instruction
    ROOT/meta/episodes/chunk-000/file-000.parquet        one row per episode
    ROOT/data/chunk-000/file-000.parquet                 one row per frame, many episodes
    ROOT/videos/<camera>/chunk-000/file-000.mp4          many episodes one after the other
    ROOT/labels.csv                                      optional, see hralign_ros.data.labels

Before v3.0 an episode has files of its own, and meta/ holds tasks.jsonl and episodes.jsonl. Images
may lie in the frames' rows, or in files, instead of in videos; they are made into videos.

These are robot episodes without human clips. The n-th frame of an episode is the n-th in its
video, whatever the column timestamp says. An episode may lie at another place in each camera's
file.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
import json
from pathlib import Path
from typing import Any

from hralign_ros.data.labels import Label, LABELS, read_labels
from hralign_ros.data.manifest import DataError, Episode, REFERENCE_VIEW, slug
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.errors import FrameError
from hralign_ros.runtime.images import decode_compressed
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import EDGE_S, frame_times, nearest, probe, RecordingWriter
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import compute, parquet

VERSION = 'v3.0'
_OLDER = ('v2.1', 'v2.0')
ACTION = 'action'
STATE = 'observation.state'
SUCCESS = 'next.success'
# The source of next.success in info.json, where `hralign data label` wrote it.
STAMP = 'hralign'
# In the metadata of parquet files that it wrote: JSON of what made their labels.
MARK = b'hralign_labels'
# Videos that are made of images.
IMAGES = 'videos_of_images'
_DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
_VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
_OLD_DATA_PATH = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'
_OLD_VIDEO_PATH = \
    'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'
# An instruction is the index of the pandas table that the file was written from.
_TASK_COLUMNS = ('task', '__index_level_0__')
# Time stamps and videos that differ by more run at different rates.
_RATE = 0.02

_Row = dict[str, Any]


def read_lerobot(
    root: Path, *, views: Mapping[str, str], output: Path | None = None, scene: str = '',
    embodiment: str = '', license_id: str = 'NOASSERTION', report: Report = print,
    faults: Faults | None = None,
) -> list[Episode]:
    """
    Read the episodes of a LeRobot data set.

    Success is known only where the frames have next.success and it says yes in some episode
    (many recordings leave it at no throughout), or where labels.csv says it. What a bundle wrote
    into next.success is no label: nobody looked at it. A video that is
    missing or cannot be opened is left out, an episode without any or whose frames are not as its
    row says is skipped; both are reported.

    :param root: files are named relative to it.
    :param views: the view of each camera that is wanted, such as
        {'observation.images.front': 'third_person', 'observation.images.hand': 'wrist'}.
    :param output: folder for videos that are made of images; None: root.
    :param scene: '': the folder's name.
    :param embodiment: '': the robot_type of info.json.
    :param license_id: as SPDX names it; NOASSERTION: nothing is known.
    :param report: gets the summary, line by line.
    :param faults: filled with every fault found: corrupt_video, no_video, bad_frames, rates_apart.
    :returns: sorted by id: episode_000012. Videos that are made of images have absolute names.
    :raises DataError: it is of another version, lacks a camera, or cannot be read.
    """
    root = Path(root)
    faults = Faults() if faults is None else faults
    info = read_info(root)
    cameras = _chosen_cameras(root, info, views)
    texts = _texts(root, info)
    template = Episode(
        episode_id='', task_id='', task_text='', scene=scene or root.absolute().name, camera='',
        embodiment=embodiment or str(info.get('robot_type') or 'unknown'), source='lerobot',
        license_id=license_id)
    reader = _Reader(root, Path(output or root), info, cameras, texts, template, faults)
    labels = read_labels(root / LABELS)
    episodes = [episode for row in _episode_rows(root, info)
                if not labels.get(_name(row), Label()).discard
                for episode in reader.episode(row)]
    stamped = stamped_by(info)
    bundles = {str(stamped.get('bundle'))} if stamped else reader.bundles
    if bundles:
        report(f'{SUCCESS} was written by the bundle {", ".join(sorted(bundles))} and is not '
               f'taken as a label; what a person saw belongs into {LABELS}')
    if stamped or not any(any(episode.success_flags) for episode in episodes):
        episodes = [replace(e, success=None, success_flags=(), success_s=None) for e in episodes]
    episodes = [_labelled(e, labels.pop(e.episode_id, Label())) for e in episodes]
    for name, label in labels.items():
        if not label.discard:
            faults.add('no_episode', name, f'{LABELS} names it, and there is no such episode')
    report(f'{root}: {len(episodes)} episodes')
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
        episode, success=label.success, success_s=done, success_flags=flags, tags=label.tags,
        fault_s=None if label.failed_s is None else start + label.failed_s)


def _name(row: _Row) -> str:
    return f'episode_{row["episode_index"]:06d}'


@dataclass
class _Reader:
    """Reads episode after episode; keeps what it read last of files that many have in common."""

    root: Path
    output: Path
    info: Mapping[str, Any]
    cameras: Mapping[str, str]
    texts: Mapping[int, str]
    template: Episode
    faults: Faults
    bundles: set[str] = field(default_factory=set)  # that wrote next.success into files
    _times: dict[str, tuple[str, NDArray[np.float64]]] = field(default_factory=dict)
    _bad: set[str] = field(default_factory=set)
    _frames: tuple[str, pa.Table | None] = ('', None)

    def episode(self, row: _Row) -> list[Episode]:
        """Return the row of an episode, if it can be used."""
        name = _name(row)
        try:
            frames = self.frames(row)
            stamps = _column(frames, 'timestamp', np.float64)[:, 0]
            task = int(_column(frames, 'task_index', np.int64)[0, 0])
            text = self.texts.get(task) or ' '.join(row.get('tasks') or ())
            if not text.strip() or (np.diff(stamps) <= 0).any():
                raise ValueError(f'task {task} has no text' if not text.strip()
                                 else 'timestamp does not increase')
            lists: dict[str, Any] = {
                ours: tuple(map(tuple, _column(frames, theirs, np.float32).tolist()))
                for ours, theirs in (('actions', ACTION), ('proprio', STATE))
                if theirs in frames.column_names}
        except (DataError, KeyError, TypeError, ValueError, pa.ArrowException, OSError) as error:
            self.faults.add('bad_frames', name, f'{error}; skipped')
            return []
        places: dict[str, tuple[str, NDArray[np.float64]]] = {}
        for key, view in sorted(self.cameras.items(), key=lambda c: (c[1] != REFERENCE_VIEW, c)):
            try:
                places[view] = self.place(key, view, row, frames)
            except (DataError, KeyError, TypeError, ValueError, IndexError, OSError) as error:
                if not isinstance(error, _KnownError):
                    self.faults.add('corrupt_video', name, f'{key}: {error}; left out')
        if not places:
            self.faults.add('no_video', name, 'no usable video; skipped')
            return []
        reference = next(iter(places))
        times = places[reference][1]
        self.compare(name, stamps, times)
        # Files are split by size, so that cameras have an episode at other seconds of theirs.
        offsets = {view: float(own[0] - times[0]) for view, (_, own) in places.items()
                   if own[0] != times[0]}
        camera = next(key for key, view in self.cameras.items() if view == reference)
        flags = _flags(frames)
        return [replace(
            self.template, episode_id=name, camera=camera, task_id=slug(text), task_text=text,
            success_flags=flags, success=any(flags) if flags else None,
            success_s=float(times[flags.index(True)]) if any(flags) else None,
            robot_videos={view: file for view, (file, _) in places.items()},
            # A single frame has no duration, and its span must not be empty: that means all.
            robot_span_s=(float(times[0]), float(max(times[-1], times[0] + EDGE_S))),
            robot_offset_s=offsets, time_s=tuple(times.tolist()), **lists)]

    def compare(
        self, name: str, stamps: NDArray[np.float64], times: NDArray[np.float64],
    ) -> None:
        """Say where a video plays at another rate than it was recorded."""
        if len(times) > 1:
            ratio = (stamps[-1] - stamps[0]) / (times[-1] - times[0])
            if abs(ratio - 1.0) > _RATE:
                self.faults.add(
                    'rates_apart', name, f'recorded at {(len(times) - 1) / np.ptp(stamps):.1f} Hz '
                    f'by its time stamps, and its video plays {ratio:.2f} times as fast; frames '
                    'are matched by their number')

    def place(
        self, key: str, view: str, row: _Row, frames: pa.Table,
    ) -> tuple[str, NDArray[np.float64]]:
        """
        Find an episode in a camera's file.

        :returns: the file, and float64 [F] the seconds of its frames in it.
        """
        count = frames.num_rows
        if self.info['features'][key].get('dtype') == 'image':
            return self.video_of(key, view, row, frames)
        path = self.info.get('video_path') or (_VIDEO_PATH if _is_new(self.info)
                                               else _OLD_VIDEO_PATH)
        if not _is_new(self.info):
            file = path.format(video_key=key, episode_chunk=row['chunk'],
                               episode_index=row['episode_index'])
            times, first = self.times(key, file), 0
        else:
            file = path.format(video_key=key, chunk_index=row[f'videos/{key}/chunk_index'],
                               file_index=row[f'videos/{key}/file_index'])
            start = float(row[f'videos/{key}/from_timestamp'])
            times = self.times(key, file)
            first = int(nearest(times, np.array([start]))[0])
            # Spans are sums of durations, each rounded.
            if abs(times[first] - start) > 0.5 * float(np.median(np.diff(times)) if
                                                       len(times) > 1 else 1.0):
                raise ValueError(f'{file} has no frame at {start:g} s, where it should begin; it '
                                 f'ends at {times[-1]:.3f} s')
        if first + count > len(times):
            raise ValueError(f'{file} has {len(times) - first} of its {count} frames')
        return file, times[first:first + count]

    def times(self, key: str, file: str) -> NDArray[np.float64]:
        """Return the times of a video's frames; a fault is noted once for each file."""
        if file in self._bad:
            raise _KnownError(file)
        if self._times.get(key, ('',))[0] != file:
            try:
                probe(self.root / file)
                self._times[key] = file, frame_times(self.root / file)
            except DataError as error:
                self._bad.add(file)
                self.faults.add('corrupt_video', file, f'{error}; left out')
                raise _KnownError(file) from error
        return self._times[key][1]

    def video_of(
        self, key: str, view: str, row: _Row, frames: pa.Table,
    ) -> tuple[str, NDArray[np.float64]]:
        """Make a video of an episode's images, unless it is there; see `place`."""
        stamps = _column(frames, 'timestamp', np.float64)[:, 0]
        times = stamps - stamps[0]
        data = self.root / self.data_file(row)
        state = f'{data.stat().st_size} {data.stat().st_mtime_ns} {key}'
        made = sha256(state.encode()).hexdigest()[:12]
        path = self.output.absolute() / IMAGES / _name(row) / f'{view}-{made}.mp4'
        if not path.is_file():
            with RecordingWriter(path) as video:
                for image, second in zip(frames.column(key).to_pylist(), times, strict=True):
                    content = image.get('bytes') or self.image(image['path'])
                    try:
                        pixels = decode_compressed(content)
                    except FrameError as error:
                        raise ValueError(f'an image at {second:.2f} s: {error}') from error
                    video.add(pixels, second,
                              content if content.startswith(b'\xff\xd8') else b'')
        return str(path), times

    def image(self, name: str) -> bytes:
        """Read an image that lies in a file."""
        path = Path(name)
        return (path if path.is_absolute() else self.root / path).read_bytes()

    def data_file(self, row: _Row) -> str:
        """Name the file with an episode's frames."""
        if _is_new(self.info):
            return str((self.info.get('data_path') or _DATA_PATH).format(
                chunk_index=row['data/chunk_index'], file_index=row['data/file_index']))
        return str((self.info.get('data_path') or _OLD_DATA_PATH).format(
            episode_chunk=row['chunk'], episode_index=row['episode_index']))

    def frames(self, row: _Row) -> pa.Table:
        """Return the frames of an episode in order."""
        file = self.data_file(row)
        images = [key for key in self.cameras
                  if self.info['features'][key].get('dtype') == 'image']
        if self._frames[0] != file:
            schema = parquet.read_schema(self.root / file)
            wanted = ['episode_index', 'frame_index', 'timestamp', 'task_index', *images,
                      *(name for name in (ACTION, STATE, SUCCESS) if name in schema.names)]
            frames = parquet.read_table(self.root / file, columns=wanted)
            stamp = stamp_of(frames)
            if stamp is not None:
                self.bundles.add(str(stamp.get('bundle')))
                frames = frames.drop_columns([SUCCESS])
            self._frames = (file, frames)
        table = self._frames[1]
        assert table is not None
        frames = table.filter(
            compute.field('episode_index') == row['episode_index']).sort_by('frame_index')
        if frames.num_rows != row['length']:
            raise DataError(f'{file} holds {frames.num_rows} of its {row["length"]} frames')
        if not frames.num_rows:
            raise DataError('it has no frames')
        return frames


class _KnownError(DataError):
    """A video cannot be used, and its fault is noted already."""


def _flags(frames: pa.Table) -> tuple[bool, ...]:
    """Return whether each frame succeeds; nothing where that is not known of every one."""
    if SUCCESS not in frames.column_names or frames.column(SUCCESS).null_count:
        return ()
    return tuple(_column(frames, SUCCESS, np.bool_)[:, 0].tolist())


def _is_new(info: Mapping[str, Any]) -> bool:
    return bool(info['codebase_version'] == VERSION)


def read_info(root: Path) -> dict[str, Any]:
    """
    Read meta/info.json.

    :raises DataError: it is none of a LeRobot data set, or of one of another version.
    """
    path = root / 'meta' / 'info.json'
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
        version = info['codebase_version']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: {error!r}; {root} is not a LeRobot data set') from error
    if version not in (VERSION, *_OLDER):
        raise DataError(
            f'{root}: LeRobot format {version}, and this package reads {VERSION}, '
            f'{", ".join(_OLDER)}; convert it with the scripts of LeRobot')
    return dict(info)


def cameras_of(info: Mapping[str, Any]) -> list[str]:
    """Name the cameras that give images of colour, in order."""
    return sorted(key for key, feature in (info.get('features') or {}).items()
                  if feature.get('dtype') in ('video', 'image') and not _is_depth(feature))


def stamped_by(info: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Tell which bundle wrote next.success, see lerobot_labels; None: none did."""
    feature = (info.get('features') or {}).get(SUCCESS) or {}
    source = feature.get('info') or {}
    return source if source.get('source') == STAMP else None


def stamp_of(frames: pa.Table) -> Mapping[str, Any] | None:
    """
    Tell what wrote the next.success of a file of frames, where `hralign data label` did.

    Its mark has the hash of what it wrote: a person's program may keep the metadata of a file.

    :param frames: with the file's metadata.
    :returns: what stands in the mark; None: the labels are somebody's, or there are none.
    """
    try:
        stamp = json.loads((frames.schema.metadata or {})[MARK])
        same = stamp['written'] == stamp_hash(frames.column(SUCCESS))
    except (KeyError, TypeError, ValueError, pa.ArrowException):
        return None
    return dict(stamp) if same else None


def stamp_hash(flags: pa.ChunkedArray) -> str:
    """Identify the values of next.success in a file, a column of booleans."""
    if not pa.types.is_boolean(flags.type) or flags.null_count:
        return ''
    return sha256(np.asarray(flags.to_numpy(), np.bool_).tobytes()).hexdigest()


def _chosen_cameras(
    root: Path, info: Mapping[str, Any], views: Mapping[str, str],
) -> dict[str, str]:
    """Check the wanted cameras against those that there are."""
    there = cameras_of(info)
    missing = sorted(set(views) - set(there))
    if missing or not views:
        raise DataError(f'{root}: no images of camera {", ".join(missing) or "(none named)"}; '
                        f'there are: {", ".join(there) or "none"}')
    if len(set(views.values())) < len(views):
        raise DataError(f'{root}: two cameras for one view: {dict(views)}')
    return dict(views)


def _lines(path: Path) -> list[_Row]:
    """Read a file of JSON, a line a row."""
    try:
        return [json.loads(line) for line in path.read_text('utf-8').splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f'{path}: {error}') from error


def _is_depth(feature: Mapping[str, Any]) -> bool:
    information = {**feature, **(feature.get('info') or {}), **(feature.get('video_info') or {})}
    return any(information.get(name) for name in ('is_depth_map', 'video.is_depth_map'))


def _texts(root: Path, info: Mapping[str, Any]) -> dict[int, str]:
    """Read the instruction of each task."""
    path = root / 'meta' / ('tasks.parquet' if _is_new(info) else 'tasks.jsonl')
    rows = _rows(path, lambda name: name == 'task_index' or name in _TASK_COLUMNS) \
        if _is_new(info) else _lines(path)
    try:
        return {int(row['task_index']): str(next(row[c] for c in _TASK_COLUMNS if c in row))
                for row in rows}
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise DataError(f'{path}: no task_index and task in it') from error


def _episode_rows(root: Path, info: Mapping[str, Any]) -> Iterator[_Row]:
    if not _is_new(info):
        path, size = root / 'meta' / 'episodes.jsonl', int(info.get('chunks_size') or 1000)
        try:
            return iter([{**row, 'chunk': row['episode_index'] // size, 'length': row['length']}
                         for row in sorted(_lines(path), key=lambda row: row['episode_index'])])
        except (KeyError, TypeError) as error:
            raise DataError(f'{path}: no episode_index and length in it') from error
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
