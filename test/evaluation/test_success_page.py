# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the documents say of success is what was measured."""

from importlib.util import module_from_spec, spec_from_file_location
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
spec = spec_from_file_location('success_tables', ROOT / 'benchmarks/success_tables.py')
page = module_from_spec(spec)
spec.loader.exec_module(page)


def test_the_page_has_the_measured_figures():
    """Guards against a table that was edited by hand, or left behind by new results."""
    found = json.loads(page.RESULTS.read_text('utf-8'))
    text = page.PAGE.read_text('utf-8')
    assert page.filled(text, page.tables(found)) == text, 'run benchmarks/success_tables.py'


def test_the_shipped_head_is_of_the_measured_recipe():
    """Guards the card: what was measured as shipped is what is shipped."""
    found = json.loads(page.RESULTS.read_text('utf-8'))['shipped']
    success = yaml.safe_load((ROOT / 'models/default/bundle.yaml').read_text('utf-8'))['success']
    assert success['trained'] and '--all-robots' in success['training']['command']
    assert success['training']['tasks'] == found['training']['tasks']
    for what in ('episodes', 'human_recordings', 'embodiments'):
        assert success['training'][what] == found['training'][what]
    said = next(row for row in success['metrics']['auroc'] if row['split'] == 'test_seen')
    measured = page.find(found['rows'], 'auroc', page.OURS, 'test_seen')
    assert said['value'] == pytest.approx(measured['value'], abs=6e-4)


def test_the_decision_table_is_the_codes():
    """Guards docs/success.md: every row of its table, through the decider."""
    from hralign_ros.runtime.decision import Decider, Decision, DecisionRules, Status

    def last(probability, modes=(0.0,), status=Status.OK, threshold=0.5, until=4):
        decider = Decider(DecisionRules(
            failure_threshold=0.5, dwell=2, failure_dwell=2, time_out=10))
        for stamp in range(until):
            decision = decider(stamp, probability=probability, threshold=threshold, modes=modes,
                               status=status)
        return decision
    for flag in Status:
        if flag and flag is not Status.VIEW_MISSING:
            assert last(0.9, status=flag) is Decision.ABSTAIN
    assert last(0.9, threshold=None) is Decision.ABSTAIN
    assert last(0.9) is last(0.9, status=Status.VIEW_MISSING) is Decision.SUCCESS
    assert last(0.9, modes=(0.9,)) is Decision.SUCCESS, 'success is looked at first'
    assert last(0.1, modes=(0.9,)) is Decision.FAILURE
    assert last(0.1, until=12) is Decision.FAILURE
    assert last(0.1) is Decision.RUNNING
