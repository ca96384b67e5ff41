# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a bundle with a trained success head: another bundle's files, and what replaces them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TYPE_CHECKING

from hralign_ros.export.card import trained_license
from hralign_ros.export.checks import masked_graph, success_inputs
from hralign_ros.export.writer import graphs_of, write_bundle
from hralign_ros.models.success import OUTPUTS
from hralign_ros.runtime.bundle import load_bundle, OodSpec, SuccessSpec, SuccessTraining
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.schema import parse
from hralign_ros.runtime.tasks import TaskTable

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
    graphs['success.onnx'], parity = masked_graph(run.head, success_inputs(
        run.head, len(manifest.views), options.length, options.modes, manifest.text.dim,
        float(options.use_prompts)), OUTPUTS)
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
