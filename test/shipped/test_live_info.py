# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What ~/info says of the shipped bundle is what the bundle holds."""

from hralign_ros.runtime import Encoder
import pytest
from support.harness import Harness


def test_info_says_what_decisions_are_based_on(harness: Harness, shipped) -> None:
    """
    Every task has its thresholds, the attempts behind them and a verdict in words.

    A family of instructions that the scores do not tell has none, and says so: which way a thing
    was pushed the shipped head knows no better than a clock.
    """
    harness.start_active(bundle=str(shipped))
    tasks = Encoder.load(shipped, provider='cpu').tasks
    info = harness.infos[-1]
    assert list(info.alphas) == pytest.approx(tasks.alphas) and info.robots
    assert len(info.tasks) == len(tasks.tasks)
    for task in info.tasks:
        if list(task.alphas):
            assert task.calibrated and task.attempts_failed > 0
            assert f'{task.attempts_failed} failed' in task.verdict
        elif task.calibrated:
            assert 'do not tell more than elapsed time, on ' in task.verdict
    assert any(list(task.alphas) for task in info.tasks)
    refused = [task.name for task in info.tasks if task.calibrated and not task.alphas]
    assert refused and all(name.split()[0] in ('push', 'pull', 'turn') for name in refused)
