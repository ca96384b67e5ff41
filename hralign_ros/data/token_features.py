# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Features of every frame of every episode, by the bundle's own graphs: what success heads read.

Reading and encoding is done by the runtime that is also in the node.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
import json
from pathlib import Path
from typing import Any

from hralign_ros.data.features import (
    build_features,
    Encode,
    Features,
    features_folder,
    Videos,
    writable,
    write_file,
)
from hralign_ros.data.manifest import DataError, DataSet, Episode, HUMAN, REFERENCE_VIEW
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.images import AS_IT_COMES, Image, ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import frame_times, newest_at, read_frames, within
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
SCHEMA_VERSION = 3
# Episodes and frames of each that the basis is fitted to.
_BASIS_EPISODES, _BASIS_FRAMES = 240, 5
# So many frames are in memory at a time.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class EpisodeFeatures:
    """
    One recording of one episode: the robot's views, or the human's.

    :param tokens: float16 [F, V, N, R]; zeros for a view that was not recorded.
    :param means: float16 [F, V, C], the mean over the un-reduced tokens.
    :param present: bool [V].
    :param time_s: float64 [F], seconds from the start.
    :param source: identifies the recordings, by their content; '': not known.
    :param fine: fine tokens of the reference view, float16 [F, M, R]; zeros where it was not
        recorded; None: the bundle has none.
    """

    tokens: Halves
    means: Halves
    present: NDArray[np.bool_]
    time_s: NDArray[np.float64]
    source: str = ''
    fine: Halves | None = None


@dataclass(frozen=True)
class Basis:
    """
    A few directions in which tokens are kept: (token - mean) @ matrix.

    A token of 1280 channels is too large to keep for every frame of thousands of episodes. Half of
    the directions are those in which tokens change most from an episode's first frame to later
    ones, in the view that stands still: the arm and what it handles. The other half are the
    largest of what is left, scenes included.

    :param mean: float32 [C].
    :param matrix: float32 [C, R]; a training token comes out with variance 1 in each of R.
    """

    mean: Floats
    matrix: Floats

    def apply(self, tokens: Floats) -> Floats:
        """Reduce tokens [..., C] to [..., R]."""
        return np.asarray((tokens - self.mean) @ self.matrix, np.float32)

    @property
    def key(self) -> str:
        """Identify the numbers."""
        return sha256(self.mean.tobytes() + self.matrix.tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class TokenFeatures:
    """
    The features of a data set's episodes.

    :param features: by recording.
    :param basis: in which tokens are kept.
    """

    features: Features
    basis: Basis

    @property
    def folder(self) -> Path:
        """Give the folder of features."""
        return self.features.folder.parent

    @property
    def key(self) -> str:
        """Identify what the numbers depend on, but for the videos."""
        return self.features.folder.name

    def has(self, episode: Episode, *, human: bool = False) -> bool:
        """Tell whether the features of a recording are there."""
        return _name(episode, human) in self.features

    def load(self, episode: Episode, *, human: bool = False) -> EpisodeFeatures:
        """
        Read the features of a recording into memory.

        :raises DataError: they are not there.
        """
        name = _name(episode, human)
        return EpisodeFeatures(
            **{part: np.array(values) for part, values in self.features[name].items()},
            source=self.features.content_keys[name])


def _name(episode: Episode, human: bool) -> str:
    return f'{episode.episode_id} (human)' if human else episode.episode_id


def episode_videos(episode: Episode, *, human: bool = False) -> Videos:
    """Tell which videos show a recording; there are none where it was not recorded."""
    if not human:
        return Videos(episode.robot_videos, episode.robot_span_s, episode.robot_offset_s,
                      episode.geometry)
    files = {REFERENCE_VIEW: episode.human_video} if episode.human_video else {}
    return Videos(files, episode.human_span_s, {}, {
        REFERENCE_VIEW: episode.geometry.get(HUMAN, AS_IT_COMES)})


def build_tokens(
    data: DataSet, bundle: Path, *, folder: Path | None = None, workers: int | str = 1,
    size: int = 96, basis: Basis | None = None, fit_to: DataSet | None = None,
    report: Report = print,
) -> TokenFeatures:
    """
    Compute what is missing of the features of a data set's episodes, or just open them.

    :param bundle: whose preprocessing and visual encoder are used.
    :param folder: of features; None: see `features_folder`.
    :param size: R, numbers kept of each token.
    :param basis: which numbers; None: fitted to this data, once for a folder of features.
    :param fit_to: to whose training split a basis is fitted; None: to that of `data`.
    :raises DataError: as `build_features`.
    """
    folder = features_folder(data.folder, folder, report)
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    basis = basis or kept_basis(
        folder, {**_graphs(encoder), 'size': size},
        lambda: fit_basis(sample_tokens(
            training_episodes(fit_to or data, encoder.manifest.views), encoder.manifest.views,
            tokens_of(encoder), report), size=size), report)
    recordings = {_name(episode, human): videos
                  for episode in data.episodes for human in (False, True)
                  if (videos := episode_videos(episode, human=human)).files}
    return TokenFeatures(build_features(
        folder, data.folder, recordings, TokenEncoder(bundle, _graphs(encoder), basis),
        workers=workers, report=report), basis)


def _graphs(encoder: Encoder) -> dict[str, Any]:
    files = encoder.manifest.files
    return {'schema_version': SCHEMA_VERSION, 'views': list(encoder.manifest.views),
            'graphs': [files[name].sha256 for name in ('preprocess.onnx', 'visual.onnx')]}


def kept_basis(
    folder: Path, made_for: Mapping[str, Any], fit: Callable[[], Basis], report: Report,
) -> Basis:
    """
    Read the basis that a folder's features are in, or fit it, once.

    :param made_for: what it depends on, but for the videos that it is fitted to.
    :raises DataError: it is damaged, or cannot be written.
    """
    key = sha256(json.dumps(dict(made_for)).encode()).hexdigest()[:20]
    path = folder / f'basis-{key}.safetensors'
    if not path.is_file():
        if not writable(folder):
            raise DataError(f'{folder}: the basis of features cannot be written there; name '
                            'another folder (--features)')
        report(f'{path}: fitting the basis')
        fitted = fit()
        write_file(path, save({'mean': fitted.mean, 'matrix': fitted.matrix}))
    try:
        tensors = load(path.read_bytes())
        return Basis(tensors['mean'], tensors['matrix'])
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(
            f'{path}: {error}; if it is damaged, delete its folder and the features are computed '
            'anew') from error


def training_episodes(data: DataSet, views: Sequence[str]) -> DataSet:
    """
    Take the training episodes of a robot, to fit a basis to.

    :raises DataError: there are none.
    """
    chosen = data.only(e for e in data.episodes
                       if e.split == 'train' and set(e.robot_videos) & set(views))
    if not chosen.episodes:
        raise DataError(f'{data.folder}: no training episode with a robot to fit a basis to; the '
                        f'views of the bundle are {", ".join(views)}')
    return chosen


def sampled_episodes(data: DataSet) -> list[Episode]:
    """Choose the episodes that a basis is fitted to, spread over the data set."""
    rows = np.linspace(0, len(data.episodes) - 1, _BASIS_EPISODES).round().astype(int)
    return [data.episodes[row] for row in np.unique(rows)]


def tokens_of(encoder: Encoder) -> Callable[[Sequence[Image]], Floats]:
    """Give what turns images into an encoder's tokens, float32 [n, N, C]."""
    return lambda images: encoder.encode_batch(images)[0]


def sample_tokens(
    data: DataSet, views: Sequence[str], encode: Callable[[Sequence[Image]], Floats],
    report: Report,
) -> Iterator[tuple[Floats, Floats]]:
    """
    Encode a few frames of the sampled episodes of a data set; see `fit_basis`.

    :param encode: turns images into tokens float32 [n, N, C].
    """
    for episode in sampled_episodes(data):
        tokens = {}
        for view in views:
            if view not in episode.robot_videos:
                continue
            try:
                frames, _ = read_frames(
                    data.path(episode.robot_videos[view]), count=_BASIS_FRAMES,
                    span_s=episode.robot_span(view),
                    geometry=episode.geometry.get(view, AS_IT_COMES))
            except DataError as error:
                report(f'  left out of the basis: {error}')
            else:
                tokens[view] = encode(list(frames))
        if tokens:
            still = REFERENCE_VIEW if REFERENCE_VIEW in tokens else next(iter(tokens))
            others = [some for view, some in tokens.items() if view != still]
            yield tokens[still], np.concatenate(others) if others else tokens[still][:0]


def fit_basis(episodes: Iterable[tuple[Floats, Floats]], *, size: int = 96) -> Basis:
    """
    Fit the directions to some episodes.

    :param episodes: of each a few frames, the first one first: tokens of the view that stands
        still, float32 [F, N, C], and of the other views, float32 [G, N, C], G may be 0.
    :param size: R, at most C.
    :raises ValueError: there are no episodes, or `size` is not in 1 to C.
    """
    total: Any = 0.0
    change: Any = 0.0
    sums: Any = 0.0
    count = changes = 0
    for still, others in episodes:
        channels = still.shape[-1]
        if not 1 <= size <= channels:
            raise ValueError(f'size is {size}; needed are 1 to {channels}')
        tokens = np.concatenate([still, others]).reshape(-1, channels).astype(np.float64)
        total += tokens.T @ tokens
        sums += tokens.sum(0)
        count += len(tokens)
        moved = (still[1:] - still[:1]).reshape(-1, channels).astype(np.float64)
        change += moved.T @ moved
        changes += len(moved)
    if not count:
        raise ValueError('no episodes to fit a basis to')
    mean = sums / count
    covariance = total / count - np.outer(mean, mean)
    first = _largest(change / max(changes, 1), size // 2)
    rest = np.eye(len(mean)) - first @ first.T
    second = _largest(rest @ covariance @ rest, size - size // 2)
    matrix = np.concatenate([first, second], axis=1)
    spread = np.sqrt(np.maximum(np.einsum('cr,cd,dr->r', matrix, covariance, matrix), 1e-12))
    return Basis(mean.astype(np.float32), (matrix / spread).astype(np.float32))


def _largest(covariance: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the eigenvectors of the largest eigenvalues as columns."""
    return np.asarray(np.linalg.eigh(covariance)[1][:, ::-1][:, :count])


@dataclass(frozen=True, eq=False)
class TokenEncoder:
    """
    Tokens of all frames of a recording, in a basis: the tensors of `EpisodeFeatures`.

    :param graphs: what the numbers depend on, of the bundle.
    """

    bundle: Path
    graphs: Mapping[str, Any]
    basis: Basis

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        return {'kind': 'tokens', 'basis': self.basis.key, **self.graphs}

    def start(self, workers: int) -> Encode:
        """Load the bundle's encoder."""
        encoder = Encoder.load(self.bundle, provider='cpu', threads=1)
        return lambda videos, root: encode_recording(encoder, self.basis, open_views(videos, root))


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


def open_views(videos: Videos, root: Path) -> dict[str, ViewVideo]:
    """Tell where the recording of each view is, and the times of its frames."""
    recordings = {}
    for view, file in videos.files.items():
        recording = ViewVideo(root / file, frame_times(root / file),
                              videos.offset_s.get(view, 0.0),
                              videos.geometry.get(view, AS_IT_COMES))
        used = within(recording.times, videos.span_s)
        if not used.any():
            raise DataError(f'{file}: no frame in its span')
        recordings[view] = replace(recording, stamps=recording.stamps[used])
    return recordings


def encode_recording(
    encoder: Encoder, basis: Basis, recordings: Mapping[str, ViewVideo], *, block: int = _BLOCK,
) -> dict[str, NDArray[Any]]:
    """
    Encode the frames of an episode, some at a time: a minute of two cameras may be 10 GB.

    :param recordings: by view. Views with other times than the reference view have the newest
        frame by then.
    :param block: frames in memory at a time.
    :returns: tensors of `EpisodeFeatures`.
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
    tokens = np.zeros((*shape, manifest.tokens.count, basis.matrix.shape[1]), np.float16)
    means = np.zeros((*shape, manifest.tokens.channels), np.float16)
    fine = np.zeros((len(times), *manifest.fine.shape), np.float16) if manifest.fine else None
    for view in known:
        recording = recordings[view]
        wanted = recording.stamps[newest_at(recording.times, times, recording.path.name)]
        column = manifest.views.index(view)
        for start in range(0, len(wanted), block):
            some = slice(start, start + block)
            full, finer = encoder.encode_batch(list(recording.read(wanted[some])))
            if fine is not None and finer is not None and view == manifest.reference_view:
                fine[some] = finer
            tokens[some, column] = basis.apply(full)
            means[some, column] = full.mean(1)
    return {'tokens': tokens, 'means': means, 'time_s': np.asarray(times, np.float64),
            'present': np.array([view in known for view in manifest.views]),
            **({} if fine is None else {'fine': fine})}
