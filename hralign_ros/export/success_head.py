# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a bundle with a trained success head: another bundle's files, and what replaces them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TYPE_CHECKING

from hralign_ros.export.licences import trained_license
from hralign_ros.export.parity import check_parity
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.models.success import OUTPUTS
from hralign_ros.runtime.bundle import load_bundle, OodSpec, SuccessSpec, SuccessTraining
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.schema import parse
from hralign_ros.runtime.tasks import TaskTable
import numpy as np
import torch

if TYPE_CHECKING:
    from hralign_ros.training.success_run import SuccessRun


def write_success_bundle(
    run: 'SuccessRun', base: Path, output: Path, tasks: TaskTable, *,
    ood_threshold: float | None = None, command: str = '',
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """
    Write a bundle whose success head is a run's.

    :param base: the bundle that the run was trained for.
    :param output: folder of the new one; replaced only once everything is there.
    :raises BundleError: another bundle than the one trained for.
    """
    source = load_bundle(base)
    manifest, options, data = source.manifest, run.options, run.record['data']
    visual = manifest.files['visual.onnx'].sha256
    if visual != run.record['bundle']['visual']:
        raise BundleError(
            f'{base}: its visual encoder is {visual[:12]}..., and the success head was trained '
            f'for {run.record["bundle"]["visual"][:12]}...; name that bundle, or train again')
    graphs = graphs_of(source)
    graphs['success.onnx'], parity = _success_graph(
        run, len(manifest.views), options.length,
        (options.modes, options.prompt_length, manifest.text.dim))
    training = parse(SuccessTraining, {
        **{key: data[key] for key in (
            'episodes', 'successes', 'human_recordings', 'scenes', 'embodiments', 'sources',
            'licenses')},
        'tasks': len(run.texts), 'seed': options.seed, 'command': run.record['command'],
        'head_sha256': run.head_sha256, 'all_robots': options.all_robots,
        'leave_out': options.leave_out}, str(run.folder))
    success = SuccessSpec(
        modes=options.modes, prompt_length=options.prompt_length, trained=True,
        dwell_s=round(DecisionRules().dwell * 1e-9, 6), training=training, command=command,
        metrics=metrics or {})
    parts = {part.replace(', success head', ''): terms
             for part, terms in manifest.licenses.items()}
    write_bundle(output, replace(
        manifest, success=success,
        licenses={**parts, 'success head': trained_license(data['licenses'])},
        ood=None if ood_threshold is None else OodSpec(
            round(ood_threshold, 6), 'squared Mahalanobis distance of a view from the training '
            'views, per dimension'),
        metrics={**manifest.metrics, 'parity_max_abs_diff': {
            **manifest.metrics['parity_max_abs_diff'], 'success.onnx': parity}}), graphs, tasks)
    return output


def _success_graph(
    run: 'SuccessRun', views: int, length: int, shape: tuple[int, int, int],
) -> tuple[bytes, float]:
    """Export the head, and compare the graph with it on what it could be given."""
    head = run.head
    rng = np.random.default_rng(0)
    count, channels = head.place.shape[0], head.basis_mean.shape[0]
    tokens = rng.random((views, length, count, channels), np.float32)
    mask = np.ones((views, length), np.float32)
    mask[0, :2] = 0.0
    age = np.sort(rng.random((views, length), np.float32))[:, ::-1] * mask
    text = rng.standard_normal((1 + shape[0], shape[2])).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    used = np.full(shape[0], float(run.options.use_prompts), np.float32)
    feed = {'tokens': tokens, 'mask': mask, 'age': np.ascontiguousarray(age), 'text': text,
            'mode_mask': used}
    graph = torch_graph(
        head, [torch.from_numpy(v) for v in feed.values()], inputs=list(feed),
        outputs=OUTPUTS)
    gone = np.stack([np.zeros_like(mask[0]), *mask[1:]])
    return graph, max(check_parity(graph, head, {**feed, 'mask': given})
                      for given in (mask, gone))
