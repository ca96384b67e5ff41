# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What docs/reliability.md says of faults and hours is what was measured."""

from importlib.util import module_from_spec, spec_from_file_location
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = spec_from_file_location('reliability', ROOT / 'benchmarks/reliability.py')
reliability = module_from_spec(spec)
spec.loader.exec_module(reliability)
RERUN = 'run benchmarks/reliability.py'


def test_the_page_has_the_measured_figures():
    """Guards against a table that was edited by hand, or left behind by new results."""
    faults, soak = (json.loads((ROOT / f'results/{name}.json').read_text('utf-8'))
                    for name in ('faults', 'soak'))
    text = reliability.PAGE.read_text('utf-8')
    assert reliability.filled(text, reliability.tables(faults, soak)) == text, RERUN


def test_the_summary_is_of_the_parts():
    """Guards results/reliability.json against parts that were measured again without it."""
    found = json.loads((ROOT / 'results/reliability.json').read_text('utf-8'))
    assert found == json.loads(json.dumps(reliability.gather())), RERUN
    assert found['faults'] >= 40 and found['faults_green'] == found['faults']
    assert len(found['fault_runs']) >= 2
