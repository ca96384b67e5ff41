# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Features that no training step changes, computed once: the input of the first adapter.

A cache is a folder that is named after everything its numbers depend on. In it lie `index.json`
and one memory-mapped array `features.npy` [clips, F, rows, columns, C]: channels last, because
1x1 convolutions and pooling are twice as fast so. Clips come out as [F, C, rows, columns].

A build that was killed goes on where it was. A clip that cannot be read is reported, marked as
missing and left out of training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
import fcntl
from hashlib import sha256
import json
import math
import multiprocessing
import os
from pathlib import Path
import shutil
import time
from typing import Any

from hralign_ros.data.content import hash_files
from hralign_ros.data.manifest import DataError
from hralign_ros.data.pairs import Clip
from hralign_ros.models.backbones import Backbone
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import read_frames
from hralign_ros.training.frame_encoders import Encoder, Features, OnnxEncoder, TorchEncoder
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn

INDEX = 'index.json'
FEATURES = 'features.npy'
SCHEMA_VERSION = 1
DTYPES = ('float16', 'float32')
# How often what has been done is written down, and reported.
_SAVE_S = 10.0


@dataclass(frozen=True)
class FeatureCache:
    """
    A finished cache, read-only.

    :param folder: absolute.
    :param recipe: what the features depend on, less the clips.
    :param rows: row in the array by clip name.
    :param missing: why a clip is not there, by clip name.
    :param array: [clips, F, rows, columns, C], memory-mapped; of float16 or float32.
    :param frame_times: seconds from the start of the video, by clip name.
    """

    folder: Path
    recipe: Mapping[str, Any]
    rows: Mapping[str, int]
    missing: Mapping[str, str]
    array: Features
    frame_times: Mapping[str, Sequence[float] | Features]

    @property
    def key(self) -> str:
        """Identify the contents: two caches with the same key hold the same numbers."""
        return self.folder.name

    @property
    def frames(self) -> int:
        """Give F, the number of frames of each clip."""
        return int(self.array.shape[1])

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Give C, rows and columns of a map."""
        rows, columns, channels = self.array.shape[2:]
        return channels, rows, columns

    def has(self, clip: Clip | str) -> bool:
        """Tell whether the features of a clip (or of a clip's name) are there."""
        return _name(clip) in self.rows

    def clip(self, clip: Clip | str) -> Features:
        """
        Give the maps of a clip, a read-only view [F, C, rows, columns] into the file.

        :param clip: or its key; for a whole video that is its file.
        :raises DataError: it is missing, or was never put in; the message says which.
        """
        return np.moveaxis(self.array[self.row(clip)], -1, 1)

    def row(self, clip: Clip | str) -> int:
        """
        Give a clip's row in the array.

        :raises DataError: it is missing, or was never put in; the message says which.
        """
        name = _name(clip)
        if name not in self.rows:
            reason = self.missing.get(name, 'it is not one of the clips that were given')
            raise DataError(f'{self.folder}: no features of {name}: {reason}')
        return self.rows[name]

    def times(self, clip: Clip | str) -> NDArray[np.float64]:
        """
        Give the times of a clip's frames: float64 [F], seconds from the start of the video.

        :raises DataError: as `clip`.
        """
        self.row(clip)
        return np.asarray(self.frame_times[_name(clip)], np.float64)


def _name(clip: Clip | str) -> str:
    return clip if isinstance(clip, str) else clip.key


def open_cache(folder: Path) -> FeatureCache:
    """
    Open a finished cache.

    :param folder: of this one cache, with index.json in it.
    :raises DataError: there is none, it is of another version, or it is not finished.
    """
    index = _read_index(Path(folder))
    if index is None:
        raise DataError(f'{folder}: no feature cache there')
    if not index['finished']:
        raise DataError(f'{folder}: the feature cache is not finished; build it again, it goes on')
    array = np.load(Path(folder) / FEATURES, mmap_mode='r')
    return FeatureCache(
        folder=Path(folder).resolve(), recipe=index['recipe'],
        rows={name: clip['row'] for name, clip in index['clips'].items() if 'times_s' in clip},
        missing={name: clip['missing'] for name, clip in index['clips'].items()
                 if 'missing' in clip},
        array=array, frame_times={name: clip['times_s'] for name, clip in index['clips'].items()
                                  if 'times_s' in clip})


def build_cache(
    folder: Path, clips: Iterable[Clip], data_root: Path, backbone: Backbone, *,
    position: str = 'late', frames: int = 8, dtype: str = 'float16', workers: int | str = 1,
    engine: str | Encoder = 'onnxruntime', report: Report = print,
) -> FeatureCache:
    """
    Compute the features of clips, or go on with, or just open, what is there already.

    Two builds of the same cache at the same time do no harm: the second waits for the first.

    :param folder: where caches lie; this one becomes a folder in it, named by its key.
    :param clips: in any order, repetitions allowed.
    :param data_root: what the clips' files are relative to.
    :param position: of the adapters: early, middle or late.
    :param frames: F, spread evenly over each clip, first and last included.
    :param dtype: float16, or float32, which keeps exactly what the engine gave.
    :param workers: processes; or 'ray', one task per clip on a Ray cluster that sees the files.
    :param engine: onnxruntime, torch, or a function from frames to features, which must survive
        pickling when there are several workers. Its name and module stand for it in the key.
    :raises DataError: an option is not one of these, or not one clip could be read.
    """
    if dtype not in DTYPES or frames < 1:
        raise DataError(f"dtype is '{dtype}' and frames {frames}; needed are one of "
                        f'{", ".join(DTYPES)}, and 1 or more')
    chosen = {clip.key: clip for clip in clips}
    if not chosen:
        raise DataError('no clips to build a feature cache of')
    name, encoder = _engine(engine, backbone, position, frames)
    recipe = {
        'schema_version': SCHEMA_VERSION, 'backbone': backbone.name,
        'weights': hash_weights(backbone.front(position)), 'position': position,
        'preprocessing': asdict(backbone.preprocessing), 'frames': frames, 'dtype': dtype,
        'engine': name}
    contents = hash_files(Path(data_root), (clip.file for clip in chosen.values()))
    hashes = {name: contents[chosen[name].file] for name in sorted(chosen)}
    target = Path(folder).resolve() / _digest([recipe, hashes])[:20]
    target.mkdir(parents=True, exist_ok=True)
    with _locked(target, report):
        index = _read_index(target) or {
            'finished': False, 'recipe': recipe, 'clips': {
                name: {'row': row, 'sha256': hashes[name]} for row, name in enumerate(hashes)}}
        if not index['finished']:
            _fill(target, index, chosen, Path(data_root), encoder(), workers, report)
    cache = open_cache(target)
    if not cache.rows:
        raise DataError(f'{target}: not one of {len(chosen)} clips could be read; the first: '
                        f'{next(iter(cache.missing.values()))}')
    return cache


def _engine(
    engine: str | Encoder, backbone: Backbone, position: str, frames: int,
) -> tuple[str, Callable[[], Encoder]]:
    """Name an engine, and say how to make its encoder when there is something to encode."""
    if callable(engine):
        kind = engine if isinstance(engine, type) or hasattr(engine, '__qualname__') \
            else type(engine)
        return f'{kind.__module__}.{kind.__qualname__}', lambda: engine
    if engine == 'torch':
        return engine, lambda: TorchEncoder(backbone, position)
    if engine == 'onnxruntime':
        return engine, lambda: OnnxEncoder(backbone, position, frames)
    raise DataError(f"engine is '{engine}'; allowed: onnxruntime, torch, or a function")


def _fill(
    target: Path, index: dict[str, Any], clips: Mapping[str, Clip], root: Path, encoder: Encoder,
    workers: int | str, report: Report,
) -> None:
    """Encode what the index does not have yet, and note it there every few seconds."""
    recipe, entries = index['recipe'], index['clips']
    array: Any = None
    if (target / FEATURES).exists() and any('times_s' in entry for entry in entries.values()):
        array = np.load(target / FEATURES, mmap_mode='r+')
    array = _borrow(target, index, array, report)
    jobs = [(name, root / clips[name].file, tuple(clips[name].span_s),
             clips[name].geometry, recipe['frames'])
            for name, entry in entries.items() if 'times_s' not in entry
            and 'missing' not in entry]
    left, began, saved = len(jobs), time.monotonic(), time.monotonic()
    report(f'feature cache {target.name}: {left} of {len(entries)} clips to encode')
    for done, (name, features, times, reason) in enumerate(
            _encode_all(encoder, jobs, workers, recipe['dtype']), 1):
        if features is None:
            entries[name]['missing'] = reason
            report(f'  left out {name}: {reason}')
        else:
            if array is None:
                array = _new_array(
                    target / FEATURES, recipe['dtype'], (len(entries), *features.shape))
            array[entries[name]['row']] = features
            entries[name]['times_s'] = times
        now = time.monotonic()
        if now - saved > _SAVE_S:
            saved = now
            _save(target, index, array)
            rate = done / (now - began)
            report(f'  {done} of {left} clips, {rate:.1f}/s, '
                   f'{(left - done) / rate:.0f} s to go')
    index['finished'] = True
    if array is None:
        array = _new_array(target / FEATURES, recipe['dtype'], (0, recipe['frames'], 0, 0, 0))
    _save(target, index, array)
    missing = sum('missing' in entry for entry in entries.values())
    report(f'feature cache {target.name}: {len(entries) - missing} clips, {missing} missing, '
           f'{time.monotonic() - began:.0f} s')


def _borrow(target: Path, index: Mapping[str, Any], array: Any, report: Report) -> Any:
    """
    Copy features of the same clips out of other caches of the same recipe.

    A data set that has grown has a cache of its own, and most of its clips are in the old one.

    :param array: of this cache; None: not made yet.
    :returns: the same, made if something was found.
    """
    entries, copied = index['clips'], 0
    # JSON knows no tuples.
    recipe = json.loads(json.dumps(index['recipe']))
    for other in sorted(target.parent.iterdir()):
        lacking = [name for name, entry in entries.items() if 'times_s' not in entry]
        if other == target or not lacking or not (other / FEATURES).is_file():
            continue
        try:
            known = _read_index(other)
        except DataError:
            continue
        if known is None or known['recipe'] != recipe:
            continue
        shown = [name for name in lacking if known['clips'].get(name, {}).get(
            'sha256') == entries[name]['sha256'] and 'times_s' in known['clips'][name]]
        if not shown:
            continue
        features = np.load(other / FEATURES, mmap_mode='r')
        if array is None:
            array = _new_array(target / FEATURES, index['recipe']['dtype'],
                               (len(entries), *features.shape[1:]))
        for name in shown:
            array[entries[name]['row']] = features[known['clips'][name]['row']]
            entries[name]['times_s'] = known['clips'][name]['times_s']
        copied += len(shown)
    if copied:
        report(f'feature cache {target.name}: {copied} clips taken from other caches beside it')
        _save(target, index, array)
    return array


def _new_array(path: Path, dtype: str, shape: tuple[int, ...]) -> Any:
    """
    Make the file of the features, in its full size from the start.

    :raises DataError: the disk is too small. Found out later, it would kill the process.
    """
    needed = math.prod(shape) * np.dtype(dtype).itemsize
    path.unlink(missing_ok=True)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise DataError(f'{path}: the features need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} '
                        'GB are free; use fewer frames, float16, or another folder')
    return np.lib.format.open_memmap(path, 'w+', np.dtype(dtype), shape)


# Name, path, span, geometry and number of frames of a clip; and name, features, times, reason of
# absence.
_Job = tuple[str, Path, tuple[float, ...], ViewGeometry, int]
_Done = tuple[str, Features | None, list[float], str]


def _encode(encoder: Encoder, job: _Job, dtype: str) -> _Done:
    """Encode one clip to [F, rows, columns, C]; an unreadable one has no features but a reason."""
    name, path, span, geometry, count = job
    try:
        frames, times = read_frames(path, count=count, span_s=span, geometry=geometry)
        if len(frames) != count:
            raise DataError(f'{path}: {len(frames)} frames instead of {count}')
        features = np.moveaxis(encoder(frames), 1, -1)
        if not np.isfinite(features).all():
            raise DataError(f'{path}: features are not finite')
        there, largest = np.count_nonzero(features), np.abs(features).max()
        with np.errstate(over='ignore'):  # looked at below
            features = np.ascontiguousarray(features).astype(dtype)
        if np.count_nonzero(features) < there / 2:
            raise DataError(f'{path}: features are at most {largest:.1g}, too small for {dtype}; '
                            'use float32')
        if not np.isfinite(features).all():
            raise DataError(f'{path}: features do not fit into {dtype}; use float32')
    except DataError as error:
        return name, None, [], str(error)
    return name, features, [float(t) for t in times], ''


def _encode_all(
    encoder: Encoder, jobs: Sequence[_Job], workers: int | str, dtype: str,
) -> Iterator[_Done]:
    """Encode clips in this process, in several, or on a Ray cluster; yield them as they come."""
    if workers == 'ray':
        yield from _encode_with_ray(encoder, jobs, dtype)
        return
    if isinstance(workers, str) or workers < 1:
        raise DataError(f"workers is '{workers}'; needed is a number from 1, or ray")
    workers = min(workers, len(jobs))
    if workers < 2:
        yield from (_encode(encoder, job, dtype) for job in jobs)
        return
    # Not forked: torch's threads do not survive it.
    with ProcessPoolExecutor(
            workers, multiprocessing.get_context('spawn'), _start_worker,
            (encoder, max(1, torch.get_num_threads() // workers))) as pool:
        # In portions, so that only a few clips' features wait to be written.
        for start in range(0, len(jobs), 4 * workers):
            portion = jobs[start:start + 4 * workers]
            yield from pool.map(_encode_in_worker, portion, [dtype] * len(portion))


_worker_encoder: Encoder | None = None


def _start_worker(encoder: Encoder, threads: int) -> None:
    global _worker_encoder
    torch.set_num_threads(threads)
    _worker_encoder = encoder


def _encode_in_worker(job: _Job, dtype: str) -> _Done:
    assert _worker_encoder is not None
    return _encode(_worker_encoder, job, dtype)


def _encode_with_ray(encoder: Encoder, jobs: Sequence[_Job], dtype: str) -> Iterator[_Done]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DataError(
            "workers is 'ray', and Ray is not installed: pip install ray, or give a number of "
            'processes') from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    shared = ray.put(encoder)
    task = ray.remote(_encode)
    waiting: list[Any] = []
    ahead = 4 * max(1, int(ray.cluster_resources().get('CPU', 1)))
    for job in jobs:
        waiting.append(task.remote(shared, job, dtype))
        if len(waiting) >= ahead:
            ready, waiting = ray.wait(waiting)
            yield from ray.get(ready)
    while waiting:
        ready, waiting = ray.wait(waiting)
        yield from ray.get(ready)


def _save(target: Path, index: Mapping[str, Any], array: Any) -> None:
    """Note what has been done; the features reach the disk before the note about them does."""
    if array is not None:
        array.flush()
    scratch = target / f'{INDEX}.tmp'
    with scratch.open('w', encoding='utf-8') as file:
        json.dump(index, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(target / INDEX)


def _read_index(folder: Path) -> dict[str, Any] | None:
    try:
        index = json.loads((folder / INDEX).read_text(encoding='utf-8'))
        version = index['recipe']['schema_version']
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{folder / INDEX}: {error}; remove the folder and build it again'
                        ) from error
    if version != SCHEMA_VERSION:
        raise DataError(f'{folder}: feature cache of version {version}, and this package reads '
                        f'{SCHEMA_VERSION}; remove the folder and build it again')
    return dict(index)


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process dies."""
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f'{folder}: another process builds this cache; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def hash_weights(module: nn.Module) -> str:
    """Hash all weights of a network, by name, shape and value."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
