# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A data set's robot episodes as a LeRobot data set, format v3.0.

A LeRobot video runs at one rate. So each episode is taken at even times, and of each frame, state
and label the nearest to these. A video that has just these frames is copied, and not encoded anew.
Success is in `next.success`, true where the task is accomplished, and the last frame of an episode
is `next.done`. An episode has a video file of its own per camera.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import json
from pathlib import Path
import shutil
from typing import Any

from hralign_ros.data.lerobot import ACTION, STATE, SUCCESS, VERSION
from hralign_ros.data.manifest import DataError, DataSet, Episode, REFERENCE_VIEW
from hralign_ros.data.token_features import episode_videos, open_views, ViewVideo
from hralign_ros.runtime.images import AS_IT_COMES
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.runtime.video import frame_times, nearest, probe, write_video
import numpy as np
from numpy.typing import NDArray
import pyarrow as pa
from pyarrow import parquet

DONE = 'next.done'
CAMERA = 'observation.images.{}'
_DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
_VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
# Files of a folder; LeRobot's own number.
_FILES = 1000
# Images in memory at a time, and of an episode in the statistics.
_BLOCK, _SAMPLES = 32, 8
# What videos are written as, and how exactly LeRobot wants its frames to be at their times.
_ENCODING, _EXACT_S = 'h264 yuv420p', 1e-4


def export_lerobot(
    data: DataSet, output: Path, *, fps: float | None = None, report: Report = print,
) -> Path:
    """
    Write the robot episodes of a data set.

    Episodes without a view, a state, actions or a label that most have are left out, and reported;
    where most have none, all are without.

    :param output: a new folder.
    :param fps: of the videos; None: the episodes' own median, as a whole number.
    :returns: the folder.
    :raises DataError: fps is no whole number, the folder is there already, no episode can be
        written, or a video cannot be read.
    """
    if fps is not None and not (fps >= 1 and fps % 1 == 0):
        raise DataError(f'{fps:g} Hz is not possible in a LeRobot data set; needed is a whole '
                        'number')
    if output.exists():
        raise DataError(f'{output} is there already; name another folder, or delete it')
    episodes = [e for e in data.episodes if e.robot_videos and len(e.time_s) > 1
                and not e.discarded]
    if not episodes:
        raise DataError(f'{data.folder}: no episode has robot videos and the times of its frames')
    features = _choose(episodes)
    left = [e for e in episodes if not features.fit(e)]
    for episode in left[:3]:
        report(f'left out {episode.episode_id}: it lacks {features.lacking(episode)}')
    if len(left) > 3:
        report(f'and {len(left) - 3} more')
    episodes = [e for e in episodes if features.fit(e)]
    rate = int(fps) if fps else max(1, round(float(np.median(
        [(len(e.time_s) - 1) / (e.time_s[-1] - e.time_s[0]) for e in episodes]))))
    scratch = output.with_name(f'.{output.name}.tmp')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _Export(data, scratch, features, rate).write(episodes, report)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report(f'{output}: {len(episodes)} episodes at {rate} Hz, '
           f'{", ".join(CAMERA.format(view) for view in features.views)}')
    return output


@dataclass(frozen=True)
class _Features:
    """What each episode has: views, and the lengths of state and action; 0: none."""

    views: tuple[str, ...]
    state: int
    action: int
    labelled: bool

    def lacking(self, episode: Episode) -> str:
        """Name what an episode lacks; '': nothing."""
        lacks = [view for view in self.views if view not in episode.robot_videos]
        if self.state and _width(episode.proprio) != self.state:
            lacks.append(f'a state of {self.state} numbers')
        if self.action and _width(episode.actions) != self.action:
            lacks.append(f'actions of {self.action} numbers')
        if self.labelled and episode.success is None:
            lacks.append('a label')
        return ', '.join(lacks)

    def fit(self, episode: Episode) -> bool:
        """Tell whether an episode has all."""
        return not self.lacking(episode)


def _width(rows: Sequence[Sequence[float]]) -> int:
    return len(rows[0]) if len(rows) else 0


def _choose(episodes: Sequence[Episode]) -> _Features:
    """Choose what most episodes have."""
    def usual(values: list[Any]) -> Any:
        return max(dict.fromkeys(values), key=values.count)

    views = usual([tuple(sorted(e.robot_videos, key=lambda v: (v != REFERENCE_VIEW, v)))
                   for e in episodes])
    return _Features(views, usual([_width(e.proprio) for e in episodes]),
                     usual([_width(e.actions) for e in episodes]),
                     usual([e.success is not None for e in episodes]))


@dataclass
class _Export:
    """The way of episodes into a folder."""

    data: DataSet
    folder: Path
    features: _Features
    rate: int
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    images: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)
    numbers: dict[str, list[NDArray[np.float64]]] = field(default_factory=dict)

    def write(self, episodes: Sequence[Episode], report: Report) -> None:
        """Write everything."""
        texts = list(dict.fromkeys(e.task_text for e in episodes))
        progress = Progress(len(episodes), 'episodes', report)
        rows, total = [], 0
        path = self.folder / _DATA.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True)
        with parquet.ParquetWriter(path, self.schema(), compression='snappy') as writer:
            for number, episode in enumerate(episodes):
                table = self.frames(number, total, episode, texts.index(episode.task_text))
                writer.write_table(table)
                place = {'chunk_index': number // _FILES, 'file_index': number % _FILES}
                count = table.num_rows
                row = {'episode_index': number, 'tasks': [episode.task_text], 'length': count,
                       'data/chunk_index': 0, 'data/file_index': 0,
                       'dataset_from_index': total, 'dataset_to_index': total + count,
                       'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0}
                for view in self.features.views:
                    key = CAMERA.format(view)
                    row |= {f'videos/{key}/{name}': value for name, value in place.items()}
                    row |= {f'videos/{key}/from_timestamp': 0.0,
                            f'videos/{key}/to_timestamp': count / self.rate}
                rows.append(row)
                total += count
                progress.step()
        meta = self.folder / 'meta/episodes/chunk-000/file-000.parquet'
        meta.parent.mkdir(parents=True)
        parquet.write_table(pa.Table.from_pylist(rows), meta)
        parquet.write_table(_tasks(texts), self.folder / 'meta/tasks.parquet')
        robots = {e.embodiment for e in episodes}
        self.json('info.json', {
            'codebase_version': VERSION, 'fps': self.rate,
            'robot_type': robots.pop() if len(robots) == 1 else None,
            'total_episodes': len(episodes), 'total_frames': total, 'total_tasks': len(texts),
            'chunks_size': _FILES, 'data_files_size_in_mb': 100, 'video_files_size_in_mb': 200,
            'splits': {'train': f'0:{len(episodes)}'}, 'data_path': _DATA, 'video_path': _VIDEO,
            'features': self.described()})
        self.json('stats.json', {
            **{key: statistics_of(np.concatenate(values)) for key, values in self.numbers.items()},
            **{CAMERA.format(view): {
                name: values if name == 'count' else [[[value]] for value in values]
                for name, values in statistics_of(np.concatenate(samples)).items()}
               for view, samples in self.images.items()}})

    def json(self, name: str, content: Any) -> None:
        """Write a file of JSON."""
        (self.folder / 'meta' / name).write_text(json.dumps(content, indent=4), encoding='utf-8')

    def columns(self) -> dict[str, pa.DataType]:
        """List what there is for every frame but images."""
        real = pa.float32()
        return {
            **({STATE: pa.list_(real, self.features.state)} if self.features.state else {}),
            **({ACTION: pa.list_(real, self.features.action)} if self.features.action else {}),
            **({SUCCESS: pa.bool_()} if self.features.labelled else {}),
            DONE: pa.bool_(), 'timestamp': real, 'frame_index': pa.int64(),
            'episode_index': pa.int64(), 'index': pa.int64(), 'task_index': pa.int64()}

    def schema(self) -> pa.Schema:
        """Return the columns of a file of frames."""
        return pa.schema(list(self.columns().items()))

    def described(self) -> dict[str, Any]:
        """Describe the features as info.json does."""
        described: dict[str, Any] = {}
        for name, kind in self.columns().items():
            is_list = pa.types.is_fixed_size_list(kind)
            described[name] = {
                'dtype': {'double': 'float64', 'float': 'float32'}.get(
                    str(kind.value_type if is_list else kind),
                    str(kind.value_type if is_list else kind)),
                'shape': [kind.list_size if is_list else 1], 'names': None}
        for view in self.features.views:
            height, width = self.sizes[view]
            described[CAMERA.format(view)] = {
                'dtype': 'video', 'shape': [height, width, 3],
                'names': ['height', 'width', 'channels'],
                'info': {'video.height': height, 'video.width': width, 'video.codec': 'h264',
                         'video.pix_fmt': 'yuv420p', 'video.is_depth_map': False,
                         'video.fps': self.rate, 'video.channels': 3, 'has_audio': False}}
        return described

    def frames(self, number: int, first: int, episode: Episode, task: int) -> pa.Table:
        """Write the videos of an episode; return its rows."""
        own = np.asarray(episode.time_s, np.float64)
        count = int((own[-1] - own[0]) * self.rate + 1e-6) + 1
        times = own[0] + np.arange(count) / self.rate
        videos = open_views(episode_videos(episode), self.data.folder)
        for view in self.features.views:
            path = self.folder / _VIDEO.format(
                video_key=CAMERA.format(view), chunk_index=number // _FILES,
                file_index=number % _FILES)
            if _is_ready(videos[view], times, self.rate):
                self.copy(episode, view, videos[view], path)
            else:
                write_video(path, self.pictures(episode, view, videos[view], times), self.rate,
                            quality=16)
        rows = nearest(own, times)
        flags = np.zeros(count, bool)
        if len(episode.success_flags):
            flags = np.asarray(episode.success_flags, bool)[rows]
        elif episode.success:  # when is not known: in the end it was
            flags[-1] = True
        steps = np.arange(count)
        values: dict[str, Any] = {
            STATE: np.asarray(episode.proprio, np.float32)[rows] if self.features.state else None,
            ACTION: np.asarray(episode.actions, np.float32)[rows]
            if self.features.action else None,
            SUCCESS: flags, DONE: steps == count - 1, 'timestamp': steps / self.rate,
            'frame_index': steps, 'episode_index': np.full(count, number),
            'index': first + steps, 'task_index': np.full(count, task)}
        for name in self.columns():
            table = np.asarray(values[name], np.float64).reshape(count, -1)
            self.numbers.setdefault(name, []).append(table)
        return pa.table({name: pa.array(np.asarray(values[name]).tolist(), kind)
                         for name, kind in self.columns().items()})

    def pictures(
        self, episode: Episode, view: str, video: ViewVideo, times: NDArray[np.float64],
    ) -> Iterator[NDArray[np.uint8]]:
        """Give a view's images nearest to given times, of an even size, all of one."""
        wanted = video.stamps[nearest(video.times, times)]
        sampled = set(_sampled(len(wanted)))
        for start in range(0, len(wanted), _BLOCK):
            for offset, image in enumerate(video.read(wanted[start:start + _BLOCK])):
                height, width = image.shape[:2]
                if height % 2 or width % 2:
                    image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), 'edge')
                self.look(episode, view, image, start + offset in sampled)
                yield image

    def copy(self, episode: Episode, view: str, video: ViewVideo, path: Path) -> None:
        """Copy a video that is as it is to be; see _is_ready."""
        for image in video.read(video.stamps[_sampled(len(video.stamps))]):
            self.look(episode, view, image, True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(video.path, path)

    def look(self, episode: Episode, view: str, image: NDArray[np.uint8], sampled: bool) -> None:
        """
        Note the size of an image, and its colours where it is one of the sample.

        :raises DataError: those before were of another size.
        """
        size = image.shape[:2]
        if self.sizes.setdefault(view, size) != size:
            raise DataError(
                f'{episode.episode_id}: images of view {view} are {size}, and those of '
                f'episodes before {self.sizes[view]}; a LeRobot data set has one size')
        if sampled:
            self.images.setdefault(view, []).append(image[::16, ::16].reshape(-1, 3) / 255.0)


def _sampled(count: int) -> list[int]:
    """Choose the images of a video that count for its statistics."""
    return sorted(set(np.linspace(0, count - 1, _SAMPLES).astype(int).tolist()))


def _is_ready(video: ViewVideo, times: NDArray[np.float64], rate: int) -> bool:
    """Tell whether a video's file has the images of these times at this rate, as they are."""
    if not (video.path.suffix == '.mp4' and video.geometry == AS_IT_COMES
            and len(video.stamps) == len(times)
            and np.abs(video.times - times).max() < _EXACT_S
            and probe(video.path).encoding == _ENCODING):
        return False
    every = frame_times(video.path)
    return bool(len(every) == len(times)
                and np.abs(every - np.arange(len(every)) / rate).max() < _EXACT_S)


def statistics_of(values: NDArray[np.float64]) -> Mapping[str, list[float]]:
    """
    Summarise columns as LeRobot does.

    :param values: float64 [n, C].
    """
    quantiles = np.quantile(values, [0.01, 0.1, 0.5, 0.9, 0.99], axis=0)
    return {'min': values.min(0).tolist(), 'max': values.max(0).tolist(),
            'mean': values.mean(0).tolist(), 'std': values.std(0).tolist(),
            'count': [len(values)],
            **{name: row.tolist() for name, row in zip(
                ('q01', 'q10', 'q50', 'q90', 'q99'), quantiles, strict=True)}}


def _tasks(texts: Sequence[str]) -> pa.Table:
    """Make the table of instructions, which pandas has to read as its index."""
    table = pa.table({'task_index': pa.array(range(len(texts)), pa.int64()),
                      'task': pa.array(texts, pa.string())})
    kinds = {'task_index': ('int64', 'int64'), 'task': ('unicode', 'object')}
    return table.replace_schema_metadata({'pandas': json.dumps({
        'index_columns': ['task'], 'column_indexes': [],
        'columns': [{'name': name, 'field_name': name, 'pandas_type': pandas_type,
                     'numpy_type': numpy_type, 'metadata': None}
                    for name, (pandas_type, numpy_type) in kinds.items()],
        'creator': {'library': 'pyarrow', 'version': pa.__version__}, 'pandas_version': '2.0.0'})})
