# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What diagnostics say of the GPU, with and without the library that knows."""

import sys
from types import SimpleNamespace

from hralign_ros.nodes import diagnostics
from hralign_ros.runtime.providers import CUDA_PROVIDER
import pytest


class NvmlError(Exception):
    """As pynvml raises it."""


def nvml(**changes):
    """Stand in for pynvml: one GPU of 8 GB, of which 3 are used."""
    return SimpleNamespace(**{
        'NVMLError': NvmlError, 'nvmlInit': lambda: None,
        'nvmlDeviceGetHandleByIndex': lambda index: index,
        'nvmlDeviceGetMemoryInfo': lambda handle: SimpleNamespace(used=3e9, total=8e9), **changes})


def encoder_on(provider):
    """Stand in for an encoder that runs there."""
    return SimpleNamespace(
        hardware=SimpleNamespace(provider=provider, requested='auto', remark=''),
        manifest=SimpleNamespace(
            backbone=SimpleNamespace(name='b'), name='n', success=SimpleNamespace(trained=True)),
        bundle=SimpleNamespace(sha256='0'), identity=SimpleNamespace(sha256='1'),
        onnxruntime_version='1', precision='fp32')


def values_of(provider):
    status = diagnostics.model_status('/encoder', 'active', encoder_on(provider), '', {})
    return {pair.key: pair.value for pair in status.values}


def test_gpu_memory_is_told_on_a_gpu(monkeypatch):
    """Guards the reading of a GPU that fills up; a CPU has none of it."""
    monkeypatch.setitem(sys.modules, 'pynvml', nvml())
    assert values_of(CUDA_PROVIDER)['gpu_memory_used_mb'] == '3000'
    assert values_of(CUDA_PROVIDER)['gpu_memory_total_mb'] == '8000'
    assert 'gpu_memory_used_mb' not in values_of('CPUExecutionProvider')


def fail(*_):
    raise NvmlError('Driver Not Loaded')


@pytest.mark.parametrize('module', [None, nvml(nvmlInit=fail), nvml(nvmlDeviceGetMemoryInfo=fail)])
def test_without_an_answer_diagnostics_go_on(monkeypatch, module):
    """Guards a node that is asked once a second: no library, no driver, and no crash."""
    monkeypatch.setitem(sys.modules, 'pynvml', module)
    values = values_of(CUDA_PROVIDER)
    assert 'gpu_memory_used_mb' not in values and values['rss_mb']
