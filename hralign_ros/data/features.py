# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The feature store: what a frozen network gives for videos, computed once.

In a folder of features lies a folder for each recipe (all that the numbers depend on but the
videos), and in it one safetensors file for each clip, named after what the clip shows: the
contents of its videos, its span, how images are turned. So a data set that grows, a build that
was killed and another data set with the same videos find what is there, and what was recorded
anew is encoded anew. What is computed, and of which frames, is up to an encoder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
import fcntl
from functools import lru_cache
from hashlib import sha256
import json
import mmap
import os
from pathlib import Path
import shutil
from typing import Any, Protocol

from hralign_ros.data.content import hash_files, UNREADABLE
from hralign_ros.data.manifest import DataError
from hralign_ros.data.processes import processes
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
from hralign_ros.runtime.report import Progress, Report
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Tensors = Mapping[str, NDArray[Any]]
_DTYPES = {'F16': np.float16, 'F32': np.float32, 'F64': np.float64, 'BOOL': np.bool_}
# After so many clips the size of all is known well enough.
_SIZED = 8


@dataclass(frozen=True)
class Videos:
    """
    The videos that show one clip, one per view.

    :param files: by view, relative to the data set's folder.
    :param span_s: first and last second of the clip; empty: all of it.
    :param offset_s: by view, what lies in that view's file so much later than in the clip.
    :param geometry: by view, how its images are turned and cropped.
    :param instruction: what is to be done in it; '' where an encoder does not ask for that.
    """

    files: Mapping[str, str]
    span_s: Sequence[float] = ()
    offset_s: Mapping[str, float] = field(default_factory=dict)
    geometry: Mapping[str, ViewGeometry] = field(default_factory=dict)
    instruction: str = ''

    def key(self, contents: Mapping[str, str]) -> str:
        """Name what is seen, from the contents of files by name."""
        made_of: list[Any] = [
            sorted((view, contents[file]) for view, file in self.files.items()),
            list(self.span_s)]
        if self.offset_s:
            made_of.append(sorted(self.offset_s.items()))
        turned = sorted((view, one) for view, one in self.geometry.items()
                        if view in self.files and one != AS_IT_COMES)
        if turned:
            made_of.append([[view, one.rotation, *one.crop] for view, one in turned])
        if self.instruction:
            made_of.append(self.instruction)
        return _digest(made_of)


# Encodes the videos of a clip, whose files are below a folder, and raises DataError where they
# cannot be read.
Encode = Callable[[Videos, Path], Tensors]


class ClipEncoder(Protocol):
    """What is computed of a clip. It goes to every worker process, so it must survive pickling."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on, as JSON has it."""
        ...

    def start(self, workers: int) -> Encode:
        """Load what encodes, in one of so many processes on this machine."""
        ...


class Features(Mapping[str, Tensors]):
    """
    The features of clips by name, read-only: memory-mapped when they are asked for.

    :ivar folder: of the recipe.
    :ivar content_keys: what each clip shows, by name.
    :ivar missing: why a clip is not there, by name.
    """

    def __init__(self, folder: Path, keys: Mapping[str, str], missing: Mapping[str, str]) -> None:
        self.folder, self.content_keys, self.missing = folder, dict(keys), dict(missing)

    def __getitem__(self, name: str) -> Tensors:
        """
        Map the features of a clip.

        :raises DataError: it is missing, was never put in, or its file is damaged.
        """
        if name not in self.content_keys:
            reason = self.missing.get(name, 'it is not one of the clips that were given')
            raise DataError(f'{self.folder}: no features of {name}: {reason}')
        return read_tensors(_path(self.folder, self.content_keys[name]))

    def __contains__(self, name: object) -> bool:
        """Tell whether the features of a clip are there."""
        return name in self.content_keys

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the clips that are there."""
        return iter(self.content_keys)

    def __len__(self) -> int:
        """Count the clips that are there."""
        return len(self.content_keys)

    @property
    def key(self) -> str:
        """Identify recipe and contents: two with the same key hold the same numbers."""
        return _digest([self.folder.name, sorted(self.content_keys.items())])[:20]


def features_folder(data: Path, given: Path | None, report: Report) -> Path:
    """
    Choose where the features of a data set lie.

    :param given: by a person; None: `features` in the data set, or, where that cannot be made, a
        folder of the user's cache.
    """
    folder = Path(given or data / 'features').absolute()
    if given or folder.is_dir() or writable(folder):
        return folder
    chosen = cache_folder(data)
    report(f'{data} cannot be written; features are kept in {chosen}')
    return chosen


def cache_folder(data: Path) -> Path:
    """Name the folder of the user's cache for what is computed of a data set."""
    cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    return cache / 'hralign_ros' / f'{data.name}-{_digest(str(data.resolve()))[:8]}'


def build_features(
    folder: Path, root: Path, clips: Mapping[str, Videos], encoder: ClipEncoder, *,
    workers: int | str = 1, report: Report = print,
) -> Features:
    """
    Compute what is missing of the features of clips, or just open them.

    Builds of one recipe at the same time do no harm: the second waits for the first. A build that
    was killed resumes. A clip that cannot be read is reported, and not read again until its
    content changes.

    :param folder: of features, see `features_folder`.
    :param root: what the clips' files are relative to.
    :param clips: by a name of the caller's.
    :param workers: processes; or 'ray', on a Ray cluster that sees both folders.
    :raises DataError: `workers` is neither, the folder cannot be written, the disk is too small,
        or not one clip could be read.
    """
    if workers != 'ray' and (isinstance(workers, str) or workers < 1):
        raise DataError(f"workers is '{workers}'; needed is a number from 1, or ray")
    if not clips:
        raise DataError('no clips to compute features of')
    recipe = json.dumps(encoder.recipe, indent=1, sort_keys=True)
    target = Path(folder).absolute() / sha256(recipe.encode()).hexdigest()[:20]
    writable(target)
    contents = hash_files(root, (file for videos in clips.values() for file in
                                 videos.files.values()), Path(folder) / 'contents.json')
    # Nothing is remembered of a file that is not there: it has no content to be known by.
    missing = {name: f'video {root / file}: cannot be read' for name, videos in clips.items()
               for file in videos.files.values() if contents[file] == UNREADABLE}
    for name, reason in missing.items():
        report(f'  left out {name}: {reason}')
    keys = {name: videos.key(contents) for name, videos in clips.items() if name not in missing}
    if outstanding := _outstanding(target, keys):
        if not writable(target):
            raise DataError(
                f'{target}: features of {len(outstanding)} clips are to be computed, and nothing '
                'can be written there; name another folder (--features)')
        (target / 'recipe.json').write_text(recipe + '\n', encoding='utf-8')
        with _locked(target, report):
            jobs = [_Job(name, clips[name], _path(target, key), root)
                    for key, name in _outstanding(target, keys).items()]
            if jobs:
                _fill(target, encoder, jobs, len(clips), workers, report)
    there = _listed(target)
    missing |= {name: _reason(_path(target, key)) for name, key in keys.items()
                if f'{key}{_SUFFIX}' not in there}
    features = Features(
        target, {name: key for name, key in keys.items() if name not in missing}, missing)
    if not features:
        raise DataError(f'{target}: not one of {len(clips)} clips could be read; the first: '
                        f'{next(iter(missing.values()))}')
    return features


_SUFFIX, _MISSING = '.safetensors', '.missing'


@dataclass(frozen=True)
class _Job:
    """One clip to encode."""

    name: str
    videos: Videos
    path: Path
    root: Path


def _path(folder: Path, key: str) -> Path:
    return folder / key[:2] / f'{key}{_SUFFIX}'


def _reason(path: Path) -> str:
    try:
        return path.with_suffix(_MISSING).read_text(encoding='utf-8')
    except OSError:
        return 'it cannot be read'


def _listed(target: Path) -> set[str]:
    return {entry.name for part in target.glob('??') for entry in os.scandir(part)}


def _outstanding(target: Path, keys: Mapping[str, str]) -> dict[str, str]:
    """Name one clip of each key of which neither features nor a reason of absence are there."""
    there = _listed(target)
    return {key: name for name, key in keys.items()
            if not {f'{key}{_SUFFIX}', f'{key}{_MISSING}'} & there}


def writable(folder: Path) -> bool:
    """Make a folder, and tell whether files can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _fill(
    target: Path, encoder: ClipEncoder, jobs: Sequence[_Job], of: int, workers: int | str,
    report: Report,
) -> None:
    """Encode clips, and check the free disk space."""
    report(f'features {target.name}: {len(jobs)} of {of} clips to encode')
    for part in {job.path.parent for job in jobs}:
        part.mkdir(exist_ok=True)
    progress, size, failed = Progress(len(jobs), 'clips', report), 0, 0
    done: Iterator[tuple[_Job, int, str]]
    if workers == 'ray':
        done = _with_ray(encoder, target.name, jobs)
    elif (count := min(int(workers), len(jobs))) > 1:
        done = _with_processes(encoder, jobs, count)
    else:
        encode = encoder.start(1)
        done = (_encode(encode, job) for job in jobs)
    for job, written, reason in done:
        if reason:
            failed += 1
            report(f'  left out {job.name}: {reason}')
        size += written
        progress.step()
        if progress.done == min(_SIZED, len(jobs)):
            left = size / progress.done * (len(jobs) - progress.done)
            free = shutil.disk_usage(target).free
            if left > free:
                raise DataError(
                    f'{target}: the features need {left / 1e9:.1f} GB more, and {free / 1e9:.1f} '
                    'GB are free; free some, or name another folder (--features)')
    report(f'features {target.name}: {len(jobs) - failed} clips, {failed} missing, '
           f'{progress.seconds:.0f} s')


def _encode(encode: Encode, job: _Job) -> tuple[_Job, int, str]:
    """Encode one clip and write its file; return it, the size, and why it is missing."""
    try:
        content = save(dict(encode(job.videos, job.root)))
    except DataError as error:
        write_file(job.path.with_suffix(_MISSING), str(error).encode())
        return job, 0, str(error)
    write_file(job.path, content)
    return job, len(content), ''


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever happens."""
    scratch = path.with_suffix(f'.{os.getpid()}.tmp')
    try:
        with scratch.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise DataError(f'{path.parent}: features cannot be written: {error}') from error


def _with_processes(
    encoder: ClipEncoder, jobs: Sequence[_Job], workers: int,
) -> Iterator[tuple[_Job, int, str]]:
    with processes(workers, _start_worker, encoder, workers) as pool:
        try:
            yield from pool.map(_encode_here, jobs, chunksize=2)
        except BrokenProcessPool as error:
            raise DataError('a process that computes features was killed, perhaps for want of '
                            'memory; run it again, it resumes') from error


# What this process encodes with, and its recipe's name.
_here: tuple[str, Encode] | None = None


def _start_worker(encoder: ClipEncoder, workers: int, recipe: str = '') -> None:
    global _here
    _here = recipe, encoder.start(workers)


def _encode_here(job: _Job) -> tuple[_Job, int, str]:
    assert _here is not None
    return _encode(_here[1], job)


def _encode_in_cluster(encoder: ClipEncoder, recipe: str, job: _Job) -> tuple[_Job, int, str]:
    """Encode in a process of Ray's, which lives for many clips."""
    if _here is None or _here[0] != recipe:
        _start_worker(encoder, os.cpu_count() or 1, recipe)
    return _encode_here(job)


def _with_ray(
    encoder: ClipEncoder, recipe: str, jobs: Sequence[_Job],
) -> Iterator[tuple[_Job, int, str]]:
    """Encode on a cluster; a clip whose machine dies is encoded on another one."""
    # Ray would replace the caller's own print.
    os.environ.setdefault('RAY_TQDM_PATCH_PRINT', '0')
    try:
        import ray
    except ModuleNotFoundError as error:
        raise DataError(
            "workers is 'ray', and Ray is not installed: pip install ray, or give a number of "
            'processes') from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    shared = ray.put(encoder)
    task = ray.remote(_encode_in_cluster)
    left = iter(jobs)
    waiting: list[Any] = []
    ahead = 4 * max(1, int(ray.cluster_resources().get('CPU', 1)))
    while True:
        while len(waiting) < ahead and (job := next(left, None)):
            waiting.append(task.remote(shared, recipe, job))
        if not waiting:
            return
        ready, waiting = ray.wait(waiting)
        yield from ray.get(ready)


# Files of one content never change; mapping one anew costs as much as reading it.
@lru_cache(maxsize=1024)
def read_tensors(path: Path) -> Tensors:
    """
    Map a safetensors file: its arrays are read-only and take no memory until they are used.

    :raises DataError: it is not there, or not whole.
    """
    try:
        with path.open('rb') as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 8 + int.from_bytes(content[:8], 'little')
        header = json.loads(content[8:start])
        return {name: np.frombuffer(
            content, _DTYPES[one['dtype']], int(np.prod(one['shape'])),
            start + one['data_offsets'][0]).reshape(one['shape'])
            for name, one in header.items() if name != '__metadata__'}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f'{path}: {error}; delete it, and it is computed anew') from error


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it when the process dies."""
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f'{folder}: another process computes these features; waiting for it')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()
