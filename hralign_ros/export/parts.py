# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Giving a bundle the parts of an embedding that say where things are: spatial, keypoints."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hralign_ros.data.manifest import DataSet
from hralign_ros.data.spatial_basis import spatial_basis_of, SpatialBasis
from hralign_ros.export.card import trained_license
from hralign_ros.export.compress import quantise_weights
from hralign_ros.export.parity import check_parity
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.models.spatial_parts import SpatialParts
from hralign_ros.runtime.bundle import load_bundle, Manifest, SPATIAL, TokenSpec
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.parts import spatial_shape
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
from numpy.typing import NDArray
import torch

# How the basis is called among the licences.
_LICENSED = 'basis of spatial and keypoints'


def spatial_graph(
    basis: SpatialBasis, tokens: TokenSpec, views: int, report: Report = print,
) -> tuple[bytes, float]:
    """
    Make spatial.onnx, and compare it with torch.

    Input tokens float32 [V, N, C] of the newest frame; outputs spatial float32
    [V, rows * columns * components] and keypoints float32 [V, K * 2], see runtime.parts.

    :returns: the graph; the largest difference.
    :raises ValueError: the basis is one of other tokens.
    :raises RuntimeError: the graph differs from its torch module.
    """
    # Stored as int8, a quarter of the size: rounded first, so that the graph is the module.
    module = SpatialParts(replace(basis, matrix=_rounded(basis.matrix)), tokens)
    rng = np.random.default_rng(0)
    feed = {'tokens': rng.random((views, *tokens.shape), np.float32)}
    graph = quantise_weights(torch_graph(
        module, [torch.from_numpy(feed['tokens'])], inputs=['tokens'],
        outputs=['spatial', 'keypoints']), unfused=True)
    return graph, check_parity(graph, module, feed, report)


def _rounded(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round each column to 127 steps either way."""
    scale = np.maximum(np.abs(matrix).max(0), 1e-12) / 127.0
    return np.asarray(np.rint(matrix / scale) * scale, np.float32)


def add_parts(
    source: Path, data: Sequence[DataSet], output: Path, *, command: str, report: Report = print,
) -> Manifest:
    """
    Write a bundle with spatial.onnx, new or anew; its other graphs and tasks stay as they are.

    :param source: a bundle; may be `output`.
    :param data: what the basis is fitted to, see spatial_basis_of.
    :param command: how a person repeats this, for the manifest and the card.
    :returns: the manifest as written. A signature is not taken over.
    :raises BundleError: no bundle, or `output` is a folder of something else.
    :raises DataError: no episode to fit a basis to.
    """
    require_replaceable(output)
    bundle = load_bundle(source)
    manifest, tasks, graphs = bundle.manifest, load_tasks(bundle), graphs_of(bundle)
    # Any part does, but for those that the bundle may lack.
    encoder = Encoder.load(source, provider='cpu', threads=1, parts=('mean',))
    basis, fitted_to = spatial_basis_of(data, encoder, report)
    graphs[SPATIAL], parity = spatial_graph(basis, manifest.tokens, len(manifest.views), report)
    components = spatial_shape(manifest.tokens)[2]
    licenses = {e.license_id for one in data for e in one.episodes}
    return write_bundle(output, replace(
        manifest,
        licenses={**manifest.licenses, _LICENSED: trained_license(licenses)},
        provenance={**manifest.provenance, 'parts': {
            **fitted_to, 'variance in spatial': round(float(basis.explained[components - 1]), 3),
            'variance in keypoints': round(float(basis.explained[-1]), 3), 'command': command}},
        metrics={**manifest.metrics, 'parity_max_abs_diff': {
            **(manifest.metrics.get('parity_max_abs_diff') or {}), SPATIAL: parity}}),
        graphs, tasks)
