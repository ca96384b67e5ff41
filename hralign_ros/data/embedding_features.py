# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The embedding of every frame of every episode, as the node would have published it.

Each episode is stepped through by the runtime, frame by frame with its own times, so that a part
which looks back sees what it would have seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hralign_ros.data.features import build_features, Encode, Features, features_folder, Videos
from hralign_ros.data.manifest import DataError, DataSet
from hralign_ros.data.replay import Recording
from hralign_ros.data.token_features import episode_videos
from hralign_ros.runtime.bundle import load_bundle, SPATIAL
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.parts import EmbeddingPart, PARTS
from hralign_ros.runtime.report import Report
import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class EmbeddingEncoder:
    """
    Every part of the embedding of every frame: float32 [F, V, size] by part; `valid`, bool [F, V].

    :param task: the instruction.
    :param embedding_sha256: what the bundle makes embeddings by, see runtime.identity.
    :param instruction_sha256: in which words it reads the instruction, see TaskFeatures.
    """

    bundle: Path
    task: str
    embedding_sha256: str
    instruction_sha256: str

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give all that its numbers depend on."""
        return {'kind': 'embeddings', 'schema_version': SCHEMA_VERSION,
                'embedding': self.embedding_sha256, 'instruction': self.instruction_sha256}

    def start(self, workers: int) -> Encode:
        """Load the bundle's encoder with every part that it has."""
        encoder = load_with_all_parts(self.bundle)
        return lambda videos, root: embed_recording(encoder, self.task, videos, root)


def load_with_all_parts(bundle: Path) -> Encoder:
    """Load a bundle with every part that it can make."""
    parts = PARTS if load_bundle(bundle).has(SPATIAL) else ('mean', 'task', 'clip')
    return Encoder.load(bundle, provider='cpu', threads=1, parts=parts)


def build_embeddings(
    data: DataSet, bundle: Path, task: str, *, folder: Path | None = None,
    workers: int | str = 1, report: Report = print,
) -> tuple[Features, Encoder]:
    """
    Compute what is missing of the embeddings of a data set's episodes, or just open them.

    :param task: the instruction.
    :param folder: of features; None: see `features_folder`.
    :returns: by episode, and the encoder that made them.
    :raises DataError: as `build_features`.
    """
    encoder = load_with_all_parts(bundle)
    clips = {episode.episode_id: episode_videos(episode) for episode in data.episodes}
    features = build_features(
        features_folder(data.folder, folder, report), data.folder,
        {name: videos for name, videos in clips.items() if videos.files},
        EmbeddingEncoder(bundle, task, encoder.identity.sha256,
                         encoder.text.encode(task).instruction_sha256),
        workers=workers, report=report)
    return features, encoder


def embed_recording(
    encoder: Encoder, task: str, videos: Videos, root: Path,
) -> dict[str, NDArray[Any]]:
    """
    Step through an episode.

    :returns: see EmbeddingEncoder; rows are the frames of the reference view, or of the first
        that there is. Other views have their newest frame by then.
    :raises DataError: no view is one of the bundle's, or a frame cannot be read.
    """
    recording = Recording(encoder, videos, root)
    ticks = [(tick.embedding, tick.view_valid) for _, tick in recording.play(task)]
    embedding = np.stack([row for row, _ in ticks])
    return {'valid': np.stack([valid for _, valid in ticks]),
            'time_s': np.asarray(recording.times, np.float64),
            **{part.name: _columns(embedding, part) for part in encoder.parts}}


def chosen_parts(encoder: Encoder, names: Sequence[str]) -> list[EmbeddingPart]:
    """
    Find parts of an encoder by name.

    :raises DataError: it does not make one of them.
    """
    there = {part.name: part for part in encoder.parts}
    if missing := [name for name in names if name not in there]:
        raise DataError(f'parts {", ".join(missing)}: {encoder.bundle.path} makes '
                        f'{", ".join(there)}')
    return [there[name] for name in names]


def _columns(embedding: NDArray[np.float32], part: EmbeddingPart) -> NDArray[np.float32]:
    return np.ascontiguousarray(embedding[:, :, part.offset:part.offset + part.size])
