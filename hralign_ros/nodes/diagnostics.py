# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The node's state as diagnostic_msgs, after REP-107: few statuses, each one for an operator.

Levels: OK; WARN, results come but may be worse; ERROR, results cannot be relied on.
"""

from collections.abc import Mapping
import os
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from hralign_ros.nodes.conversions import stamp_text
from hralign_ros.nodes.network import CONSUMER, NAME, TASK
from hralign_ros.nodes.parameters import Settings
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.memory_limit import process_memory
from hralign_ros.runtime.pipeline import PAIRING
from hralign_ros.runtime.providers import CUDA_PROVIDER
from hralign_ros.runtime.tally import Statistics
import numpy as np

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

# Faults of a camera with which its frames can be used all the same.
_MILD = {'frame_id', 'publishers', 'order'}
# Entries of a view's counts that are not drops.
_NOT_DROPS = ('received', 'matched', 'accepted', 'time_reset')


def status(
    node: str, component: str, level: bytes, message: str, values: Mapping[str, Any], *,
    hardware_id: str = '',
) -> DiagnosticStatus:
    """Make one status, named `node: component`."""
    return DiagnosticStatus(
        name=f'{node}: {component}', level=level, message=message, hardware_id=hardware_id,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()])


def _text(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def model_status(
    node: str, state: str, encoder: Encoder | None, problem: str, faults: Mapping[str, str],
) -> DiagnosticStatus:
    """Tell what is loaded and where it runs, or why nothing is; and how the process does."""
    remarks = [faults[key] for key in (NAME, TASK) if key in faults]
    process: dict[str, Any] = {
        'state': state, 'rss_mb': process_memory()[1] / 1e6,
        'load_average': os.getloadavg()[0]}
    if encoder is None:
        return status(node, 'model', ERROR if problem else WARN if remarks else OK,
                      problem or '; '.join(remarks) or 'not configured', process)
    hardware, manifest = encoder.hardware, encoder.manifest
    if hardware.provider == CUDA_PROVIDER:
        process |= gpu_memory()
    remark = '; '.join(filter(None, (*remarks, hardware.remark)))
    return status(
        node, 'model', WARN if remark else OK,
        remark or f'{state}: {manifest.backbone.name} on {hardware.provider}', {
            **process, 'bundle': manifest.name, 'bundle_sha256': encoder.bundle.sha256,
            'embedding_sha256': encoder.identity.sha256,
            'provider_requested': hardware.requested, 'provider': hardware.provider,
            'onnxruntime': encoder.onnxruntime_version, 'precision': encoder.precision,
            'success_head_trained': manifest.success.trained}, hardware_id=hardware.provider)


def gpu_memory() -> dict[str, float]:
    """
    Tell how much memory of the first GPU is in use, by whomever, and how much it has.

    Nothing where NVIDIA's library for it (pip install nvidia-ml-py) is missing or gets no answer.
    """
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return {}
    return {'gpu_memory_used_mb': memory.used / 1e6, 'gpu_memory_total_mb': memory.total / 1e6}


def camera_status(
    node: str, view: str, topic: str, statistics: Statistics, settings: Settings,
    faults: Mapping[str, str],
) -> DiagnosticStatus:
    """Tell how one camera does."""
    counts = statistics.views[view]
    age = statistics.ages[view]
    own = {key.removeprefix(f'{view} '): text for key, text in faults.items()
           if key.startswith(f'{view} ')}
    hard = settings.views[view].required and not own.keys() <= _MILD
    level = ERROR if hard else WARN if own else OK
    message = '; '.join(own.values()) or f'{statistics.rates[view]:.1f} Hz'
    drops = {f'dropped_{k}': n for k, n in sorted(counts.items()) if k not in _NOT_DROPS}
    return status(node, f'camera {view}', level, message, {
        'topic': topic, 'rate_hz': statistics.rates[view],
        'age_s': '' if age is None else float(age),
        'received': counts.get('received', 0), 'matched': counts.get('matched', 0), **drops},
        hardware_id=topic)


def pairing_status(
    node: str, statistics: Statistics, settings: Settings, faults: Mapping[str, str],
) -> DiagnosticStatus:
    """Tell how well the cameras fit together."""
    missing = [view for view, fresh in statistics.fresh.items() if not fresh]
    level, message = OK, f'skew {statistics.skew * 1e3:.1f} ms'
    if missing and not statistics.waiting:
        level, message = WARN, f'without {", ".join(missing)}'
    if PAIRING in faults:
        level, message = WARN, faults[PAIRING]
    return status(node, 'pairing', level, message, {
        'skew_s': statistics.skew, 'tolerance_s': settings.pairing.tolerance * 1e-9,
        **{f'{key}_{view}': counts.get(key, 0) for view, counts in statistics.views.items()
           for key in ('matched', 'unmatched')}})


def inference_status(
    node: str, statistics: Statistics, faults: Mapping[str, str],
) -> DiagnosticStatus:
    """Tell how fast results come, and who does not get them."""
    level, message = OK, f'{statistics.rate:.1f} Hz'
    for key, text in faults.items():
        if key.startswith(CONSUMER):
            level, message = WARN, text
    if statistics.blind and not statistics.waiting:
        level, message = ERROR, (
            'no required view has a fresh frame: no embeddings, and ~/success says STALE')
    for key in ('inference', 'internal error'):
        if key in faults:
            level, message = ERROR, faults[key].strip().splitlines()[-1]
    values: dict[str, Any] = {
        'rate_hz': statistics.rate, 'episode_id': stamp_text(statistics.episode_id),
        'task': statistics.task}
    for name, samples in (('latency', statistics.latency), ('processing', statistics.processing)):
        if samples:
            p50, p95 = np.percentile(samples, (50, 95))
            values |= {f'{name}_p50_s': float(p50), f'{name}_p95_s': float(p95)}
    values |= {f'ticks_{name}': n for name, n in sorted(statistics.ticks.items())}
    return status(node, 'inference', level, message, values)
