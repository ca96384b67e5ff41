# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Giving a bundle fine tokens: a second, finer map that its visual graph makes on the way.

The last map of a network is coarse: a mug is a part of one token. The map before the last halving
is twice as fine, and computed anyway. It is reduced to a few channels, so that an episode's first
frame can be kept, and handed out beside the tokens. Nothing else of a graph changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hralign_ros.data.manifest import DataError, DataSet
from hralign_ros.data.token_features import (
    Basis,
    fit_basis,
    sample_tokens,
    sampled_episodes,
    training_episodes,
)
from hralign_ros.export.card import trained_license
from hralign_ros.export.compress import halve, quantise_static
from hralign_ros.export.parity import run_graph, sample_images
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.onnx_export import finish
from hralign_ros.runtime.bundle import load_bundle, Manifest, TokenSpec, VISUALS
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.images import Image
from hralign_ros.runtime.providers import SessionFactory
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import load_tasks
import numpy as np
from numpy.typing import NDArray
import onnx
from onnx import helper, numpy_helper, TensorProto

Floats = NDArray[np.float32]
# Numbers a fine token has, at most.
CHANNELS = 48
# A map with so many rows is fine enough as it is.
_FINE_ROWS = 12
# Least mean cosine with float32 at which a smaller visual encoder is kept.
_LEAST_COSINE = 0.98
# A direction in which tokens vary less than this, beside the one in which they vary most, says
# nothing, and would make huge numbers of noise.
_LEAST_SPREAD = 1e-3
# How the basis is called among the licences.
_LICENSED = 'basis of fine tokens'
_OUTPUT = 'fine'


@dataclass(frozen=True)
class Stage:
    """
    Where in a visual graph fine tokens are taken.

    :param tensor: its name; float32 [V, C, rows, columns], or [V, rows * columns, C] for tokens.
    :param tokens: what is made of it, before it is reduced.
    """

    tensor: str
    tokens: TokenSpec


def find_stage(graph: onnx.ModelProto, tokens: TokenSpec) -> Stage:
    """
    Find the last sum of a residual connection in a map twice as fine as the tokens.

    Where the tokens themselves are fine enough, as in a ViT, it is them.

    :param tokens: that the graph makes.
    :raises BundleError: it has no such map.
    """
    if tokens.rows >= _FINE_ROWS:
        return Stage('tokens', tokens)
    wanted = [2 * tokens.rows, 2 * tokens.columns]
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
              for value in onnx.shape_inference.infer_shapes(graph).graph.value_info}
    # What is added to a constant, as by a bias, is no residual connection.
    fixed = {tensor.name for tensor in graph.graph.initializer} | {
        name for node in graph.graph.node if node.op_type == 'Constant' for name in node.output}
    found = [(node.output[0], shapes[node.output[0]]) for node in graph.graph.node
             if node.op_type == 'Add' and not fixed & set(node.input)
             and shapes.get(node.output[0], [])[2:] == wanted]
    if not found:
        raise BundleError(
            f'visual.onnx has no map of {wanted[0]} x {wanted[1]} behind a residual connection; '
            'fine tokens are to be had of residual networks and of transformers')
    name, shape = found[-1]
    return Stage(name, TokenSpec(wanted[0], wanted[1], shape[1]))


def with_stage(model: onnx.ModelProto, stage: Stage, basis: Basis | None = None) -> bytes:
    """
    Let a visual graph hand out a stage, too: output `fine`, float32 [V, M, C or R].

    :param basis: in which it is reduced; None: as it is.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, reduced = made.graph, basis or Basis(
        np.zeros(stage.tokens.channels, np.float32),
        np.eye(stage.tokens.channels, dtype=np.float32))
    views = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    rows = stage.tensor
    if stage.tensor != 'tokens':
        graph.initializer.append(numpy_helper.from_array(
            np.array([views, stage.tokens.channels, stage.tokens.count], np.int64), 'fine_flat'))
        graph.node.extend([
            helper.make_node('Reshape', [stage.tensor, 'fine_flat'], ['fine_columns']),
            helper.make_node('Transpose', ['fine_columns'], ['fine_rows'], perm=[0, 2, 1])])
        rows = 'fine_rows'
    graph.initializer.extend([
        numpy_helper.from_array(reduced.matrix, 'fine_matrix'),
        numpy_helper.from_array(-reduced.mean @ reduced.matrix, 'fine_bias')])
    graph.node.extend([
        helper.make_node('MatMul', [rows, 'fine_matrix'], ['fine_reduced']),
        helper.make_node('Add', ['fine_reduced', 'fine_bias'], [_OUTPUT])])
    graph.output.append(helper.make_tensor_value_info(
        _OUTPUT, TensorProto.FLOAT, [views, stage.tokens.count, reduced.matrix.shape[1]]))
    return finish(made)


def add_fine(
    source: Path, data: DataSet, output: Path, *, channels: int = CHANNELS, command: str,
    report: Report = print,
) -> Manifest:
    """
    Write a bundle whose visual graphs also make fine tokens; its tokens and heads stay.

    :param source: a bundle without fine tokens; may be `output`.
    :param data: to whose training split the basis of fine tokens is fitted.
    :param channels: R, at most.
    :param command: how a person repeats this, for the manifest and the card.
    :returns: the manifest as written. A signature is not taken over.
    :raises BundleError: no bundle, one that has fine tokens or whose last view is not the
        reference, a network that has no such map, or `output` is a folder of something else.
    :raises DataError: no episode to fit a basis to.
    :raises FileNotFoundError: the bundle has smaller visual graphs, and the demo episode, on
        which these are measured, is not there.
    """
    require_replaceable(output)
    bundle = load_bundle(source)
    manifest, graphs, tasks = bundle.manifest, graphs_of(bundle), load_tasks(bundle)
    if manifest.fine:
        raise BundleError(
            f'{source} has fine tokens already: {manifest.fine.rows} x {manifest.fine.columns} of '
            f'{manifest.fine.channels} numbers; start from the bundle without')
    if manifest.views[-1] != manifest.reference_view:
        raise BundleError(
            f'{source}: its reference view is {manifest.reference_view}, and fine tokens are of '
            f'the last one of its views, {", ".join(manifest.views)}; export a bundle in which '
            'the reference view is the last')
    encoder = Encoder.load(source, provider='cpu', threads=1, parts=('mean',))
    visual = onnx.load_from_string(graphs['visual.onnx'])
    stage = find_stage(visual, manifest.tokens)
    report(f'fine tokens: {stage.tokens.rows} x {stage.tokens.columns} of {stage.tensor}')
    whole = SessionFactory('cpu', threads=1).create(with_stage(visual, stage), name='visual.onnx')

    def encode(images: Sequence[Image]) -> Floats:
        rows: list[Floats] = []
        for pixels in _batches(encoder, images):
            rows.append(np.asarray(whole.run([_OUTPUT], {'pixels': pixels})[0], np.float32))
        return np.concatenate(rows)[:len(images)]

    episodes = training_episodes(data, manifest.views)
    try:
        basis = _that_varies(fit_basis(
            sample_tokens(episodes, manifest.views, encode, report),
            size=min(channels, stage.tokens.channels)))
    except ValueError as error:
        raise DataError(f'{data.folder}: {error}: not one of {len(episodes.episodes)} training '
                        'episodes can be read') from error
    graphs['visual.onnx'] = with_stage(visual, stage, basis)
    metrics = _smaller_graphs(graphs, encoder, report)
    fine = TokenSpec(stage.tokens.rows, stage.tokens.columns, basis.matrix.shape[1])
    return write_bundle(output, replace(
        manifest, fine=fine, metrics={**manifest.metrics, **metrics},
        licenses={**manifest.licenses, _LICENSED: trained_license(
            {e.license_id for e in episodes.episodes})},
        provenance={**manifest.provenance, 'fine': {
            'map': stage.tensor, 'basis': basis.key,
            'episodes': len(sampled_episodes(episodes)),
            'sources': ', '.join(sorted({e.source for e in episodes.episodes})),
            'command': command}}), graphs, tasks)


def _that_varies(basis: Basis) -> Basis:
    """Leave out the directions in which tokens hardly vary."""
    # Columns are scaled by one over the spread.
    scale = np.linalg.norm(basis.matrix, axis=0)
    return Basis(basis.mean, np.ascontiguousarray(
        basis.matrix[:, scale * _LEAST_SPREAD <= scale.min()]))


def _batches(encoder: Encoder, images: Sequence[Image]) -> Iterator[Floats]:
    """Preprocess images, as many a pass as the bundle has views; zeros fill the last one."""
    views = len(encoder.manifest.views)
    for start in range(0, len(images), views):
        some = list(images[start:start + views])
        yield encoder.preprocess([*some, *[None] * (views - len(some))])


def _smaller_graphs(
    graphs: dict[str, bytes], encoder: Encoder, report: Report,
) -> Mapping[str, Any]:
    """Make the visual graphs of other precisions anew; return what is measured of them."""
    low = {precision: VISUALS[precision] for precision in ('int8', 'fp16')
           if VISUALS[precision] in graphs}
    if not low:
        return {}
    images, views, metrics = sample_images(), len(encoder.manifest.views), {}
    # As an export does, which leaves out what does not fill a pass.
    batches = list(_batches(encoder, images[:len(images) // views * views]))
    exact = [run_graph(graphs['visual.onnx'], {'pixels': b})[1] for b in batches]
    for precision, name in low.items():
        made = halve(graphs['visual.onnx']) if precision == 'fp16' else quantise_static(
            graphs['visual.onnx'], batches)
        assert made is not None, 'it had one'
        found = [run_graph(made, {'pixels': b})[1] for b in batches]
        one, other = (np.concatenate(some).reshape(-1, some[0].shape[-1])
                      for some in (exact, found))
        cosine = float(((one * other).sum(1) / np.maximum(
            np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1), 1e-9)).mean())
        metrics[f'fine_{precision}_cosine'] = round(cosine, 5)
        if cosine >= _LEAST_COSINE:
            graphs[name] = made
        else:
            del graphs[name]
            report(f'  {name} is left out: the mean cosine of its fine tokens with float32 is '
                   f'{cosine:.3f}, needed is {_LEAST_COSINE}')
    return metrics
