# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The node's state as diagnostic_msgs, after REP-107: few statuses, each one for an operator.

Levels: OK; WARN, results come but may be worse; ERROR, results cannot be relied on.
"""

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from hralign_ros.nodes.parameters import Settings
from hralign_ros.nodes.pipeline import Statistics
from hralign_ros.runtime.encoder import Encoder
import numpy as np

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

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


def model_status(node: str, encoder: Encoder | None, problem: str) -> DiagnosticStatus:
    """Tell what is loaded and where it runs, or why nothing is."""
    if encoder is None:
        return status(node, 'model', ERROR if problem else OK,
                      problem or 'not configured', {})
    hardware, manifest = encoder.hardware, encoder.manifest
    return status(
        node, 'model', WARN if hardware.remark else OK,
        hardware.remark or f'{manifest.backbone} on {hardware.provider}', {
            'bundle': manifest.name, 'bundle_sha256': encoder.bundle.sha256,
            'provider_requested': hardware.requested, 'provider': hardware.provider,
            'onnxruntime': encoder.onnxruntime_version, 'precision': encoder.precision,
            'success_head_trained': manifest.success_trained})


def camera_status(
    node: str, view: str, topic: str, statistics: Statistics, settings: Settings, qos_problem: str,
) -> DiagnosticStatus:
    """Tell how one camera does."""
    counts = statistics.views[view]
    age = statistics.ages[view]
    faults = [text for key, text in statistics.faults.items() if key.startswith(f'{view} ')]
    required = settings.views[view].required
    level, message = OK, f'{statistics.rates[view]:.1f} Hz'
    if not statistics.fresh[view]:
        level = ERROR if required else WARN
        message = ('no frame has come' if age is None
                   else f'the newest frame is {age:.1f} s old') + f' on {topic}'
    if faults:
        level, message = (ERROR if required else WARN), '; '.join(faults)
    if qos_problem:
        level, message = ERROR, qos_problem
    drops = {f'dropped_{k}': n for k, n in sorted(counts.items()) if k not in _NOT_DROPS}
    return status(node, f'camera {view}', level, message, {
        'topic': topic, 'rate_hz': statistics.rates[view],
        'age_s': '' if age is None else float(age),
        'received': counts.get('received', 0), 'matched': counts.get('matched', 0), **drops})


def pairing_status(node: str, statistics: Statistics, settings: Settings) -> DiagnosticStatus:
    """Tell how well the cameras fit together."""
    missing = [view for view, fresh in statistics.fresh.items() if not fresh]
    tolerance = settings.pairing.tolerance * 1e-9
    unmatched = sum(c.get('unmatched', 0) for c in statistics.views.values())
    matched = sum(c.get('matched', 0) for c in statistics.views.values())
    level, message = OK, f'skew {statistics.skew * 1e3:.1f} ms'
    if missing:
        level, message = WARN, f'without {", ".join(missing)}'
    elif unmatched > max(10, matched // 10):
        level, message = WARN, (
            f'{unmatched} frames found no partner within tolerance_s = {tolerance:g}; the '
            "cameras' clocks may differ")
    return status(node, 'pairing', level, message, {
        'skew_s': statistics.skew, 'tolerance_s': tolerance, 'matched': matched,
        'unmatched': unmatched})


def inference_status(node: str, statistics: Statistics) -> DiagnosticStatus:
    """Tell how fast results come."""
    level, message = OK, f'{statistics.rate:.1f} Hz'
    for key in ('cameras', 'inference', 'internal error'):
        if key in statistics.faults:
            level, message = ERROR, statistics.faults[key].strip().splitlines()[-1]
    values: dict[str, Any] = {
        'rate_hz': statistics.rate, 'episode_id': statistics.episode_id, 'task': statistics.task}
    for name, samples in (('latency', statistics.latency), ('processing', statistics.processing)):
        if samples:
            p50, p95 = np.percentile(samples, (50, 95))
            values |= {f'{name}_p50_s': float(p50), f'{name}_p95_s': float(p95)}
    values |= {f'ticks_{name}': n for name, n in sorted(statistics.ticks.items())}
    return status(node, 'inference', level, message, values)
