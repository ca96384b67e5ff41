# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a bundle with a trained success head: another bundle's files, and what replaces them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

from hralign_ros.export.card import write_card
from hralign_ros.export.licences import trained_license
from hralign_ros.export.parity import check_parity
from hralign_ros.export.replace import replace_bundle
from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.models.success import OUTPUTS
from hralign_ros.runtime.bundle import CARD, load_bundle, TASK_TENSORS, TASKS
from hralign_ros.runtime.decision import DecisionRules
from hralign_ros.runtime.errors import BundleError
from hralign_ros.runtime.tasks import FALLBACK
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
import torch
import yaml

if TYPE_CHECKING:
    from hralign_ros.training.success_run import SuccessRun

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TaskEntry:
    """
    What a bundle says of a task.

    :param prompts: float32 [K, L, D].
    :param modes: names of the prompts in use.
    :param calibrations: as tasks.yaml has them.
    """

    task_id: str
    name: str
    prompts: Floats
    modes: tuple[str, ...]
    calibrations: tuple[Mapping[str, Any], ...] = ()
    aliases: tuple[str, ...] = ()


def task_files(entries: Sequence[TaskEntry], shape: tuple[int, int, int]) -> tuple[bytes, bytes]:
    """
    Make tasks.yaml and tasks.safetensors.

    :param shape: K, L and D of the shared prompts where `entries` has none.
    """
    shared = [e for e in entries if e.task_id == FALLBACK]
    prompts = {f'prompts/{e.task_id}': np.ascontiguousarray(e.prompts, np.float32)
               for e in entries}
    prompts.setdefault(f'prompts/{FALLBACK}', np.zeros(shape, np.float32))
    document = {
        'tasks': [{'id': e.task_id, 'name': e.name, 'aliases': list(e.aliases),
                   'modes': list(e.modes), 'calibration': [dict(c) for c in e.calibrations]}
                  for e in entries if e.task_id != FALLBACK],
        FALLBACK: {'modes': list(shared[0].modes) if shared else [],
                   'calibration': [dict(c) for c in shared[0].calibrations] if shared else []}}
    return yaml.safe_dump(document, sort_keys=False, width=98).encode(), save(prompts)


def write_success_bundle(
    run: 'SuccessRun', base: Path, output: Path, entries: Sequence[TaskEntry], *,
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
    manifest = source.manifest
    document = dict(manifest.document)
    visual = document['files']['visual.onnx']['sha256']
    if visual != run.record['bundle']['visual']:
        raise BundleError(
            f'{base}: its visual encoder is {visual[:12]}..., and the success head was trained '
            f'for {run.record["bundle"]["visual"][:12]}...; name that bundle, or train again')
    options = run.options
    shape = (options.modes, options.prompt_length, manifest.text_dim)
    files = {name: source.read(name) for name in document['files']}
    files['success.onnx'], parity = _success_graph(run, len(manifest.views), options.length, shape)
    files[TASKS], files[TASK_TENSORS] = task_files(entries, shape)
    document['success'] = {
        'modes': options.modes, 'prompt_length': options.prompt_length, 'trained': True,
        'training': {key: run.record['data'][key] for key in (
            'episodes', 'successes', 'human_recordings', 'scenes', 'embodiments', 'sources',
            'licenses')} | {'tasks': len(run.texts), 'seed': options.seed,
                            'command': run.record['command'], 'head_sha256': run.head_sha256,
                            'all_robots': options.all_robots, 'leave_out': options.leave_out},
        'dwell_s': round(DecisionRules().dwell * 1e-9, 6),
        'command': command, **({'metrics': dict(metrics)} if metrics else {})}
    licenses = run.record['data']['licenses']
    parts = {part.replace(', success head', ''): terms
             for part, terms in source.manifest.licenses.items()}
    document['licenses'] = {**parts, 'success head': trained_license(licenses)}
    document['ood'] = None if ood_threshold is None else {
        'score': 'squared Mahalanobis distance of a view from the training views, per dimension',
        'threshold': round(ood_threshold, 6)}
    document['metrics'] = {**document['metrics'], 'parity_max_abs_diff': {
        **document['metrics']['parity_max_abs_diff'], 'success.onnx': parity}}
    files[CARD] = write_card(document).encode()
    replace_bundle(output, files, document)
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
