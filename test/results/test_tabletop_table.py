# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The benchmark of the simulated table: its main figures, and which runs it takes."""

from types import SimpleNamespace

from benchmarks.success import runs
from benchmarks.success.tabletop_tables import headline
from hralign_ros.training.success_options import SuccessOptions
import pytest


def row(metric, split, value, half=0.1, **conditions):
    return {'metric': metric, 'variant': 'grounded', 'split': split, 'conditions': conditions,
            'value': value, 'low': value - half, 'high': value + half}


def test_the_main_figures():
    """Guards differences: of what, in which direction, and how wide."""
    found = headline([
        row('auroc', 'test_seen', 0.9, 0.03), row('auroc', 'test_embodiment', 0.8, 0.04),
        row('auroc', 'test_seen', 0.85, cameras='all views'),
        row('auroc', 'test_seen', 0.75, cameras='no wrist'),
        row('missed_success_rate', 'test_seen', 0.3)], 'grounded')
    assert found['left_out_arm_loss'] == pytest.approx(0.1)
    assert found['left_out_arm_loss_interval'] == pytest.approx([0.05, 0.15])
    assert found['lost_without_wrist'] == pytest.approx(0.1)
    assert found['missed_seen_interval'] == pytest.approx([0.2, 0.4])
    assert not any(key.startswith('auroc_held_out') for key in found), 'not measured'


def test_a_run_is_what_its_recipe_says(monkeypatch, tmp_path):
    """
    Guards a recipe with a split file: its own run was refused.

    The command line gives a path and the run's folder has text, which were never equal.
    """
    words = ('--seed=1', f'--split-file={tmp_path / "splits.yaml"}')
    for steps, fits in ((2800, True), (10, False)):
        monkeypatch.setattr(runs, 'load_success_run', lambda folder, n=steps: SimpleNamespace(
            options=SuccessOptions(seed=1, steps=n, split_file=str(tmp_path / 'splits.yaml'))))
        if fits:
            runs._check(tmp_path, words)
        else:
            with pytest.raises(SystemExit, match='steps 10 instead of 2800'):
                runs._check(tmp_path, words)
