# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attempts of one robot as its node sees them, tick by tick: what a taught head is fitted to.

Every attempt is replayed through the runtime once, at RATE_HZ, and kept in the feature store; a
later run encodes only what is new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
from typing import Any

from hralign_ros.data.features import build_features, Encode, features_folder, Videos
from hralign_ros.data.manifest import DataError, DataSet, Episode, REFERENCE_VIEW
from hralign_ros.data.token_features import (
    Basis,
    episode_videos,
    fit_basis,
    kept_basis,
    open_views,
    sample_tokens,
    tokens_of,
    ViewVideo,
)
from hralign_ros.models.taught_head import quadrants
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Episode as Replay
from hralign_ros.runtime.episode import next_episode_id
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.video import newest_at
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
RATE_HZ = 5.0
# Numbers kept of a token: half for what moves, half for what is most.
SIZE = 32
SCHEMA_VERSION = 1
# Where only the outcome of an attempt is known: the last seconds of a success, in which the task
# is accomplished, and those before them, of which nothing is known. The same for failures.
TAIL_S, UNKNOWN_S = 0.8, 1.7
# Nobody labels the moment of success better than this: as much before it is not known either.
TOLERANCE_S = 0.4
# So many frames are in memory at a time.
_BLOCK = 32
_START = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Attempt:
    """
    One attempt, with F ticks.

    :param tokens: float16 [F, V, N, R] of the newest frame, in a basis.
    :param means: float16 [F, V, QUADRANTS * C], means of the un-reduced tokens.
    :param video: by the views that take part, the base head's vector, float32 [F, D].
    :param time_s: float64 [F], from the first frame.
    :param done: float32 [F], whether the task is accomplished: 1, 0, or NaN where nobody knows.
    :param failed: the same of having failed.
    :param timed: whether the moment of success is labelled, and not the outcome alone.
    """

    episode: Episode
    tokens: Halves
    means: Halves
    video: Mapping[frozenset[str], Floats]
    time_s: NDArray[np.float64]
    done: Floats
    failed: Floats
    timed: bool

    @property
    def succeeds(self) -> bool:
        """Whether it ends with the task accomplished."""
        return bool(self.episode.success)

    @property
    def views(self) -> frozenset[str]:
        """Name the views that were recorded."""
        return max(self.video, key=len)

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Give the ticks' stamps [ns]."""
        return np.round(self.time_s * 1e9).astype(np.int64) + _START


@dataclass(frozen=True, eq=False)
class Attempts:
    """
    The attempts of a data set that can be learned from.

    :param basis: in which tokens are kept.
    """

    attempts: tuple[Attempt, ...]
    basis: Basis


def view_sets(views: Sequence[str]) -> list[frozenset[str]]:
    """List the sets of views that are scored apart: all together, and each alone."""
    every = frozenset(views)
    return [every, *(frozenset([view]) for view in sorted(every) if len(every) > 1)]


def load_attempts(
    data: DataSet, bundle: Path, *, folder: Path | None = None, workers: int | str = 1,
    report: Report = print,
) -> Attempts:
    """
    Encode what is new of the labelled attempts of a data set, and read all of them.

    :param folder: of features; None: see `features_folder`.
    :raises DataError: there is no labelled attempt with a view of the bundle, or as
        `build_features`.
    """
    encoder = Encoder.load(bundle, provider='cpu', threads=1)
    known = set(encoder.manifest.views)
    labelled = [e for e in data.episodes if e.success is not None and known & set(e.robot_videos)]
    if not labelled:
        raise DataError(
            f'{data.folder}: none of its {len(data.episodes)} episodes says how it ended and has '
            f'a view of the bundle ({", ".join(encoder.manifest.views)}); label them success or '
            'failure, and name the views as the bundle does')
    if len(labelled) < len(data.episodes):
        report(f'{len(data.episodes) - len(labelled)} of {len(data.episodes)} episodes are left '
               'out: no label, or no view of the bundle')
    folder = features_folder(data.folder, folder, report)
    basis = kept_basis(
        folder, {**_graphs(encoder.manifest), 'kind': 'attempt', 'size': SIZE},
        lambda: fit_basis(sample_tokens(
            data.only(labelled), encoder.manifest.views, tokens_of(encoder), report),
            size=min(SIZE, encoder.manifest.tokens.channels)), report)
    features = build_features(
        folder, data.folder, {e.episode_id: _videos(e, encoder.manifest) for e in labelled},
        AttemptEncoder(bundle, _graphs(encoder.manifest), basis), workers=workers, report=report)
    found = []
    for episode in labelled:
        if episode.episode_id not in features:
            report(f'left out: {episode.episode_id}: {features.missing[episode.episode_id]}')
            continue
        stored = features[episode.episode_id]
        times = np.asarray(stored['time_s'])
        done, failed, timed = label(episode, times)
        sets = view_sets([v for v in encoder.manifest.views if v in episode.robot_videos])
        found.append(Attempt(
            episode, np.array(stored['tokens']), np.array(stored['means']),
            {views: np.asarray(stored['video'][i], np.float32) for i, views in enumerate(sets)},
            times, done, failed, timed))
    return Attempts(tuple(found), basis)


def label(episode: Episode, time_s: NDArray[np.float64]) -> tuple[Floats, Floats, bool]:
    """
    Say of each tick whether the task is accomplished, and whether the attempt has failed.

    By the episode's flags where it has some; otherwise by its outcome, see TAIL_S.

    :param time_s: float64 [F].
    :returns: float32 [F] each: 1, 0, or NaN; whether the moment of success is labelled.
    """
    left = time_s[-1] - time_s
    tail, unknown = left <= TAIL_S, left <= TAIL_S + UNKNOWN_S
    done, failed = np.zeros(len(time_s), np.float32), np.zeros(len(time_s), np.float32)
    flags = np.zeros(len(time_s), np.float32)
    if episode.success and any(episode.success_flags):
        own = np.asarray(episode.time_s) - episode.time_s[0]
        flags = np.asarray(episode.success_flags, np.float32)[
            np.maximum(np.searchsorted(own, time_s + 1e-3, 'right') - 1, 0)]
    if flags.any():
        done = flags
        first = int(done.argmax())
        done[:first][time_s[:first] > time_s[first] - TOLERANCE_S - 1e-3] = np.nan
    elif episode.success:
        done[unknown] = np.nan
        done[tail] = 1.0
    else:
        failed[:] = np.nan
        failed[: max(1, len(time_s) // 5)] = 0.0
        failed[tail] = 1.0
    return done, failed, bool(flags.any())


def _videos(episode: Episode, manifest: Manifest) -> Videos:
    videos = episode_videos(episode)
    return replace(videos, files={
        view: file for view, file in videos.files.items() if view in manifest.views})


def _graphs(manifest: Manifest) -> dict[str, Any]:
    return {'schema_version': SCHEMA_VERSION, 'views': list(manifest.views), 'graphs': [
        manifest.files[name].sha256 for name in ('preprocess.onnx', 'visual.onnx', 'success.onnx')
    ]}


@dataclass(frozen=True, eq=False)
class AttemptEncoder:
    """
    An attempt as the node would see it: what the feature store keeps of it.

    :param graphs: what the numbers depend on, of the bundle.
    """

    bundle: Path
    graphs: Mapping[str, Any]
    basis: Basis

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        return {'kind': 'attempt', 'basis': self.basis.key, 'rate_hz': RATE_HZ, **self.graphs}

    def start(self, workers: int) -> Encode:
        """Load the bundle's encoder."""
        encoder = Encoder.load(self.bundle, provider='cpu', threads=1)
        return lambda videos, root: encode_attempt(encoder, self.basis, open_views(videos, root))


def encode_attempt(
    encoder: Encoder, basis: Basis, recordings: Mapping[str, ViewVideo], *,
    until_s: float = math.inf,
) -> dict[str, NDArray[Any]]:
    """
    Replay an attempt through an episode of the runtime, at RATE_HZ or slower.

    :param recordings: by view.
    :param until_s: where it ends, if before the end of the videos.
    :returns: what `Attempt` has, `video` as [S, F, D] in the order of `view_sets`.
    :raises DataError: a frame cannot be read, or the recordings do not go together.
    """
    reference = REFERENCE_VIEW if REFERENCE_VIEW in recordings else next(iter(recordings))
    times = recordings[reference].times
    ends = min(float(times[-1]), float(times[0]) + until_s)
    wanted = np.arange(float(times[0]), ends + 1e-6, 1.0 / RATE_HZ)
    wanted = np.unique(times[newest_at(times, wanted, reference)])
    # The last frame is a tick, too: some data sets say of it alone that the task is accomplished.
    if wanted[-1] < times[-1] <= ends + 1e-6:
        wanted = np.append(wanted, times[-1])
    stamps = {view: recording.stamps[newest_at(recording.times, wanted, recording.path.name)]
              for view, recording in recordings.items()}
    # A head beside the bundle's own, which some words would go to, need not make the vector.
    features = replace(encoder.text.encode('a task'), task=encoder.tasks.fallback)
    episode = Replay(encoder, features, next_episode_id())
    sets = view_sets([view for view in encoder.manifest.views if view in recordings])
    pool = quadrants(encoder.manifest.tokens.grid).numpy()
    tokens, means, video = [], [], []
    for start in range(0, len(wanted), _BLOCK):
        rows = range(start, min(start + _BLOCK, len(wanted)))
        frames = {view: recording.read(stamps[view][rows.start:rows.stop])
                  for view, recording in recordings.items()}
        for i, row in enumerate(rows):
            video.append(_step(
                episode, {view: some[i] for view, some in frames.items()},
                _START + round(float(wanted[row] - wanted[0]) * 1e9), sets))
            newest = episode.tokens
            # A direction in which nothing ever varied makes huge numbers of what does.
            tokens.append(np.clip(basis.apply(newest), -6e4, 6e4).astype(np.float16))
            means.append((pool @ newest).reshape(len(newest), -1).astype(np.float16))
    return {'tokens': np.stack(tokens), 'means': np.stack(means),
            'video': np.stack(video, axis=1).astype(np.float16),
            'time_s': np.asarray(wanted - wanted[0], np.float64)}


def _step(
    episode: Replay, images: Mapping[str, NDArray[np.uint8]], stamp: int,
    sets: Sequence[frozenset[str]],
) -> list[Floats]:
    """Step an episode; return the base head's vector for each set of views."""
    tick = episode.step(images, stamp=stamp)
    said = [tick.success, *(episode.score(views) for views in sets[1:])]
    return [one.video for one in said if one.video is not None]
