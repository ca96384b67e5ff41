# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What ~/info says of the shipped bundle is what the bundle holds."""

from hralign_ros.runtime import Encoder
import pytest
from support.harness import Harness


def test_info_says_what_decisions_are_based_on(harness: Harness, shipped) -> None:
    """Every task has its thresholds, the attempts behind them and a verdict in words."""
    harness.start_active(bundle=str(shipped))
    tasks = Encoder.load(shipped, provider='cpu').tasks
    info = harness.infos[-1]
    assert list(info.alphas) == pytest.approx(tasks.alphas) and info.robots
    assert len(info.tasks) == len(tasks.tasks)
    for task in info.tasks:
        if task.calibrated:
            assert task.attempts_failed > 0 and list(task.alphas)
            assert f'{task.attempts_failed} failed' in task.verdict
    assert any(task.calibrated for task in info.tasks)
