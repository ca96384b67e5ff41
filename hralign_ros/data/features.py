# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Features of every frame of every episode, computed once by the bundle's own graphs.

One file per episode, so that a data set that grows, or a build that was killed, goes on where it
was. Each says which recordings it is of: what was recorded anew is encoded anew. Reading and
encoding is done by the runtime that is also in the node.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
import json
import multiprocessing
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.content import hash_files, UNREADABLE
from hralign_ros.data.manifest import (
    DataError,
    DataSet,
    Episode,
    HUMAN,
    REFERENCE_VIEW,
    SIMULATORS,
)
from hralign_ros.data.token_basis import Basis, fit_basis, read_basis
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.images import AS_IT_COMES, ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import frame_times, newest_at, read_frames, within
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open, SafetensorError
from safetensors.numpy import save_file

Halves = NDArray[np.float16]
BASIS = 'basis.safetensors'
RECIPE = 'recipe.json'
# 2: features say which recordings they are of.
SCHEMA_VERSION = 2
# Episodes and frames of each that the basis is fitted to.
_BASIS_EPISODES, _BASIS_FRAMES = 240, 5
# So many frames are in memory at a time.
_BLOCK = 64
# The field of a file of features that says which recording they are of.
_SOURCE = 'recordings_sha256'


@dataclass(frozen=True, eq=False)
class EpisodeFeatures:
    """
    One recording of one episode: the robot's views, or the human's.

    :param tokens: float16 [F, V, N, R]; zeros for a view that was not recorded.
    :param means: float16 [F, V, C], the mean over the un-reduced tokens.
    :param present: bool [V].
    :param time_s: float64 [F], seconds from the start.
    :param source: identifies the recordings, by their content; '': not known.
    """

    tokens: Halves
    means: Halves
    present: NDArray[np.bool_]
    time_s: NDArray[np.float64]
    source: str = ''


@dataclass(frozen=True)
class FeatureStore:
    """
    The features of a data set.

    :param folder: of this store; it is named after all that its numbers depend on.
    :param views: V names, in the order of the bundle.
    :param recipe: those things.
    """

    folder: Path
    views: tuple[str, ...]
    basis: Basis
    recipe: dict[str, Any]

    @property
    def key(self) -> str:
        """Identify the numbers in it."""
        return self.folder.name

    def has(self, episode: Episode, *, human: bool = False) -> bool:
        """Tell whether the features of a recording are there."""
        return self.path(episode, human=human).is_file()

    def path(self, episode: Episode, *, human: bool = False) -> Path:
        """Return the file of a recording's features."""
        return self.folder / f'{_name(episode, human)}.safetensors'

    def load(self, episode: Episode, *, human: bool = False) -> EpisodeFeatures:
        """
        Read the features of a recording.

        :raises DataError: they are not there.
        """
        path = self.path(episode, human=human)
        try:
            with safe_open(path, framework='numpy') as file:
                return EpisodeFeatures(
                    file.get_tensor('tokens'), file.get_tensor('means'),
                    file.get_tensor('present'), file.get_tensor('time_s'),
                    (file.metadata() or {}).get(_SOURCE, ''))
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f'{path}: {error}; `hralign train-success` computes features') from error


def build_store(
    folder: Path, data: DataSet, bundle: Path, *, workers: int = 1, size: int = 96,
    basis: Basis | None = None, fit_to: DataSet | None = None, report: Report = print,
) -> FeatureStore:
    """
    Compute what is missing of the features of a data set, or just open it.

    :param folder: where stores lie; this one becomes a folder in it.
    :param bundle: whose preprocessing and visual encoder are used.
    :param size: R, numbers kept of each token.
    :param basis: which numbers; None: fitted to this data, once. Features in another basis than
        that have a folder of their own: a head reads only those in its own.
    :param fit_to: to whose training split a basis is fitted; None: to that of `data`.
    :raises DataError: not one recording could be read.
    """
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    files = encoder.manifest.document['files']
    recipe = {
        'schema_version': SCHEMA_VERSION, 'size': size, 'views': list(encoder.manifest.views),
        'graphs': [files[name]['sha256'] for name in ('preprocess.onnx', 'visual.onnx')]}
    target = _place(folder, recipe)
    if basis is not None and not (
            (target / BASIS).is_file() and read_basis(target / BASIS).key == basis.key):
        recipe['basis'] = basis.key
        target = _place(folder, recipe)
    target.mkdir(parents=True, exist_ok=True)
    (target / RECIPE).write_text(json.dumps(recipe, indent=1) + '\n', encoding='utf-8')
    if not (target / BASIS).is_file():
        if basis is None:
            report(f'features {target.name}: fitting the basis')
            basis = fit_basis(_samples(fit_to or data, encoder, report), size=size)
        scratch = target / f'{BASIS}.{os.getpid()}.tmp'
        basis.write(scratch)
        scratch.replace(target / BASIS)
    store = FeatureStore(
        target, encoder.manifest.views, read_basis(target / BASIS), recipe)
    jobs = _outstanding(store, data)
    if jobs:
        report(f'features {target.name}: {len(jobs)} recordings to encode')
        _fill(store, data.folder, bundle, jobs, workers, report)
    if not any(store.has(e) or store.has(e, human=True) for e in data.episodes):
        raise DataError(f'{target}: not one recording of {data.folder} could be read')
    return store


def _place(folder: Path, recipe: Mapping[str, object]) -> Path:
    """Name the folder of features that were made so."""
    return Path(folder) / sha256(json.dumps(recipe).encode()).hexdigest()[:20]


def open_store(folder: Path) -> FeatureStore:
    """
    Open a store as it is.

    :param folder: of this one store.
    :raises DataError: there is none, or it is of another version.
    """
    try:
        recipe = json.loads((Path(folder) / RECIPE).read_text(encoding='utf-8'))
        basis = read_basis(Path(folder) / BASIS)
    except (OSError, ValueError) as error:
        raise DataError(f'{folder}: no features of episodes there ({error})') from error
    if recipe.get('schema_version') != SCHEMA_VERSION:
        raise DataError(f'{folder}: features of schema {recipe.get("schema_version")}, and this '
                        f'package reads {SCHEMA_VERSION}')
    return FeatureStore(Path(folder), tuple(recipe['views']), basis, recipe)


def _name(episode: Episode, human: bool) -> str:
    """Name a recording's file; an id may hold what a file name may not."""
    plain = ''.join(c if c.isalnum() or c in '-_' else '_' for c in episode.episode_id)
    mark = sha256(episode.episode_id.encode()).hexdigest()[:6]
    return f'{plain[:120]}-{mark}{"-human" if human else ""}'


def _samples(
    data: DataSet, encoder: Encoder, report: Report,
) -> Iterator[tuple[Any, Any]]:
    """Encode a few frames of some training episodes, spread over the data set."""
    views = encoder.manifest.views
    episodes = [e for e in data.episodes
                if e.split == 'train' and set(e.robot_videos) & set(views)]
    if not episodes:
        raise DataError(f'{data.folder}: no training episode with a robot to fit a basis to; the '
                        f'views of the bundle are {", ".join(views)}')
    rows = np.unique(np.linspace(0, len(episodes) - 1, _BASIS_EPISODES).round().astype(int))
    for row in rows:
        recordings = {}
        for view in views:
            if view not in episodes[row].robot_videos:
                continue
            try:
                frames, _ = read_frames(
                    data.path(episodes[row].robot_videos[view]), count=_BASIS_FRAMES,
                    span_s=episodes[row].robot_span(view),
                    geometry=_geometry(episodes[row], False, view))
            except DataError as error:
                report(f'  left out of the basis: {error}')
            else:
                recordings[view] = encoder.encode_batch(list(frames))
        if not recordings:
            continue
        still = REFERENCE_VIEW if REFERENCE_VIEW in recordings else next(iter(recordings))
        others = [tokens for view, tokens in recordings.items() if view != still]
        yield recordings[still], np.concatenate(others) if others else recordings[still][:0]


# An episode, whether its human recording is meant, and what its features are made of.
_Job = tuple[Episode, bool, str]


def _outstanding(store: FeatureStore, data: DataSet) -> list[_Job]:
    """
    List the recordings whose features are missing, unreadable or of other content.

    Features are kept whose recording cannot be read now: a disk may be missing.
    """
    recordings = [(episode, human, _files(episode, human))
                  for episode in data.episodes for human in (False, True)
                  if _files(episode, human)]
    contents = hash_files(data.folder,
                          (file for _, _, files in recordings for file in files.values()))
    jobs = []
    for episode, human, files in recordings:
        made_of: list[Any] = [sorted((view, contents[file]) for view, file in files.items()),
                              list(_span(episode, human))]
        if _offsets(episode, human):
            made_of.append(sorted(_offsets(episode, human).items()))
        turned = {view: one for view in files
                  if (one := _geometry(episode, human, view)) != AS_IT_COMES}
        if turned:
            made_of.append([[view, one.rotation, *one.crop]
                            for view, one in sorted(turned.items())])
        if len(files) > 1 and episode.source not in SIMULATORS:
            # Views of other times are matched by the newest frame; once it was the nearest.
            made_of.append('newest')
        source = sha256(json.dumps(made_of).encode()).hexdigest()
        known = _source_of(store.path(episode, human=human))
        readable = all(contents[file] != UNREADABLE for file in files.values())
        if known != source and (readable or known is None):
            jobs.append((episode, human, source))
    return jobs


def _files(episode: Episode, human: bool) -> Mapping[str, str]:
    """Return the files of a recording by view; none: there is no such recording."""
    if not human:
        return episode.robot_videos
    return {REFERENCE_VIEW: episode.human_video} if episode.human_video else {}


def _span(episode: Episode, human: bool) -> Sequence[float]:
    return episode.human_span_s if human else episode.robot_span_s


def _offsets(episode: Episode, human: bool) -> Mapping[str, float]:
    return {} if human else episode.robot_offset_s


def _geometry(episode: Episode, human: bool, view: str) -> ViewGeometry:
    return episode.geometry.get(HUMAN if human else view, AS_IT_COMES)


def _source_of(path: Path) -> str | None:
    """Read what features are made of; None: they are not there, or not whole."""
    try:
        with safe_open(path, framework='numpy') as file:
            return (file.metadata() or {}).get(_SOURCE)
    except (OSError, SafetensorError):
        return None


def _fill(
    store: FeatureStore, root: Path, bundle: Path, jobs: Sequence[_Job], workers: int,
    report: Report,
) -> None:
    began = reported = time.monotonic()
    missing = 0
    with ProcessPoolExecutor(
            workers, multiprocessing.get_context('spawn'), _start_worker,
            (store, root, bundle)) as pool:
        for done, (job, problem) in enumerate(
                zip(jobs, pool.map(_encode, jobs, chunksize=2), strict=True), 1):
            if problem:
                missing += 1
                report(f'  left out {_name(*job[:2])}: {problem}')
            if time.monotonic() - reported > 10:
                reported = time.monotonic()
                rate = done / (reported - began)
                report(f'  {done} of {len(jobs)} recordings, {rate:.1f}/s, '
                       f'{(len(jobs) - done) / rate:.0f} s to go')
    report(f'features {store.key}: {len(jobs) - missing} recordings, {missing} missing, '
           f'{time.monotonic() - began:.0f} s')


_worker: tuple[FeatureStore, Path, Encoder] | None = None


def _start_worker(store: FeatureStore, root: Path, bundle: Path) -> None:
    global _worker
    _worker = store, root, Encoder.load(bundle, provider='cpu', threads=1)


def _encode(job: _Job) -> str:
    """Encode one recording and write its file; return why it could not be done."""
    assert _worker is not None
    store, root, encoder = _worker
    episode, human, source = job
    path = store.path(episode, human=human)
    try:
        features = _encode_recording(encoder, store.basis, view_videos(episode, root, human))
    except DataError as error:
        # What is there is of another recording of that name, and not to be taken for this one's.
        path.unlink(missing_ok=True)
        return str(error)
    scratch = path.with_suffix(f'.{os.getpid()}.tmp')
    save_file({'tokens': features.tokens, 'means': features.means,
               'present': features.present, 'time_s': features.time_s}, scratch,
              metadata={_SOURCE: source})
    scratch.replace(path)
    return ''


@dataclass(frozen=True, eq=False)
class ViewVideo:
    """
    One view's recording of an episode.

    :param stamps: float64 [F] of the frames that are used, in the file [s].
    :param offset: what is to be taken off for the times of the episode [s].
    :param geometry: how its images are turned and cropped.
    """

    path: Path
    stamps: NDArray[np.float64]
    offset: float
    geometry: ViewGeometry

    @property
    def times(self) -> NDArray[np.float64]:
        """Give the frames' times in the episode."""
        return self.stamps - self.offset

    def read(self, stamps: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Decode the frames of these stamps: uint8 [F, H, W, 3] RGB, as the node sees them."""
        return read_frames(self.path, times_s=stamps, geometry=self.geometry)[0]


def view_videos(episode: Episode, root: Path, human: bool) -> dict[str, ViewVideo]:
    """Tell where the recording of each view is, and the times of its frames."""
    span = _span(episode, human)
    recordings = {}
    for view, file in _files(episode, human).items():
        offset = _offsets(episode, human).get(view, 0.0)
        recording = ViewVideo(root / file, frame_times(root / file), offset,
                              _geometry(episode, human, view))
        used = within(recording.times, span)
        if not used.any():
            raise DataError(f'{file}: no frame in its span')
        recordings[view] = replace(recording, stamps=recording.stamps[used])
    return recordings


def _encode_recording(
    encoder: Encoder, basis: Basis, recordings: Mapping[str, ViewVideo],
) -> EpisodeFeatures:
    """
    Encode the frames of an episode, some at a time: a minute of two cameras may be 10 GB.

    :param recordings: by view. Views with other times than the reference view have the newest
        frame by then.
    :raises DataError: no view is one of the bundle's, a frame cannot be read, or the recordings do
        not go together.
    """
    manifest = encoder.manifest
    known = [view for view in manifest.views if view in recordings]
    if not known:
        raise DataError(f'views {", ".join(recordings) or "none"}; the bundle has '
                        f'{", ".join(manifest.views)}')
    reference = REFERENCE_VIEW if REFERENCE_VIEW in known else known[0]
    times = recordings[reference].times
    shape = (len(times), len(manifest.views))
    tokens = np.zeros((*shape, manifest.tokens, basis.matrix.shape[1]), np.float16)
    means = np.zeros((*shape, manifest.channels), np.float16)
    for view in known:
        recording = recordings[view]
        wanted = recording.stamps[newest_at(recording.times, times, recording.path.name)]
        column = manifest.views.index(view)
        for start in range(0, len(wanted), _BLOCK):
            some = slice(start, start + _BLOCK)
            full = encoder.encode_batch(list(recording.read(wanted[some])))
            tokens[some, column] = basis.apply(full)
            means[some, column] = full.mean(1)
    present = np.array([view in known for view in manifest.views])
    return EpisodeFeatures(tokens, means, present, np.asarray(times, np.float64))
