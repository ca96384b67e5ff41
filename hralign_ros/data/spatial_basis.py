# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The directions in which a policy sees tokens: the largest principal components of many."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hralign_ros.data.manifest import DataError, DataSet
from hralign_ros.data.token_features import sample_tokens, sampled_episodes, tokens_of
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.parts import keypoints_shape
from hralign_ros.runtime.report import Report
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# Every so many tokens are kept until the components are known, to choose their signs.
_KEEP = 8


@dataclass(frozen=True, eq=False)
class SpatialBasis:
    """
    The largest principal components of tokens: (token - mean) @ matrix.

    Not the basis of token_features: that one serves success heads, half of it is what moves.

    :param mean: float32 [C].
    :param matrix: float32 [C, K], largest first; a token that it was fitted to comes out with
        mean 0 and variance 1 in each of K.
    :param explained: fraction of the variance that the first n components hold, float32 [K].
    """

    mean: Floats
    matrix: Floats
    explained: Floats


def fit_spatial_basis(tokens: Iterable[Floats], size: int) -> SpatialBasis:
    """
    Fit the components.

    A component's sign is arbitrary, and keypoints depend on it: a spatial softmax looks where a
    component is large. The sign is chosen so that its large values are the rare ones, which stand
    out in an image.

    :param tokens: float32 [..., C] each.
    :param size: K, at most C.
    :raises ValueError: there are no tokens, or `size` is not in 1 to C.
    """
    total: Any = 0.0
    sums: Any = 0.0
    count, kept = 0, []
    for some in tokens:
        rows = some.reshape(-1, some.shape[-1]).astype(np.float64)
        if not 1 <= size <= rows.shape[1]:
            raise ValueError(f'size is {size}; needed are 1 to {rows.shape[1]}')
        kept.append(rows[-count % _KEEP::_KEEP].astype(np.float32))
        total += rows.T @ rows
        sums += rows.sum(0)
        count += len(rows)
    if not count:
        raise ValueError('no tokens to fit a basis to')
    mean = sums / count
    values, vectors = np.linalg.eigh(total / count - np.outer(mean, mean))
    values, vectors = values[::-1], vectors[:, ::-1][:, :size]
    matrix = vectors / np.sqrt(np.maximum(values[:size], 1e-12))
    skewness = (((np.concatenate(kept) - mean) @ matrix) ** 3).mean(0)
    matrix *= np.where(skewness < 0, -1.0, 1.0)
    explained = np.cumsum(np.maximum(values[:size], 0.0)) / max(float(values.sum()), 1e-12)
    return SpatialBasis(mean.astype(np.float32), matrix.astype(np.float32),
                        explained.astype(np.float32))


def spatial_basis_of(
    sets: Sequence[DataSet], encoder: Encoder, report: Report = print,
) -> tuple[SpatialBasis, Mapping[str, Any]]:
    """
    Fit a bundle's basis to a few frames of many episodes.

    :param sets: of each, the robot's views in episodes of the split `train` or of none.
    :returns: the basis, and what it was fitted to, for the manifest.
    :raises DataError: there is no such episode, or not one video could be read.
    """
    views = set(encoder.manifest.views)
    chosen = [data.only(e for e in data.episodes
                        if e.split in ('train', '') and set(e.robot_videos) & views)
              for data in sets]
    episodes = [episode for data in chosen if data.episodes for episode in sampled_episodes(data)]
    if not episodes:
        raise DataError(
            f'{", ".join(str(data.folder) for data in sets)}: no episode of a robot that is in '
            f'the split train or in none; the views of the bundle are {", ".join(sorted(views))}')
    images = 0

    def tokens() -> Iterable[Floats]:
        nonlocal images
        for data in chosen:
            if data.episodes:
                for pair in sample_tokens(
                        data, encoder.manifest.views, tokens_of(encoder), report):
                    for some in pair:
                        images += len(some)
                        yield some

    report(f'the components of tokens of {len(episodes)} episodes')
    grid = encoder.manifest.tokens
    try:
        basis = fit_spatial_basis(tokens(), keypoints_shape(grid)[0])
    except ValueError as error:
        raise DataError(f'{error}: not one of {len(episodes)} episodes can be read') from error

    def names(values: Iterable[str]) -> str:
        return ', '.join(sorted(set(values)))

    return basis, {
        'images': images, 'episodes': len(episodes), 'tasks': len({e.task_id for e in episodes}),
        'scenes': len({e.scene for e in episodes}), 'arms': names(e.embodiment for e in episodes),
        'sources': names(e.source for e in episodes),
        'licences': names(e.license_id or 'none stated' for e in episodes)}
