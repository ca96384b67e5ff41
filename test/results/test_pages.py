# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The tables of the pages are what was measured; their prose is nobody's test."""

import json

from benchmarks.encoder import tables as encoder
from benchmarks.pages import filled, ROOT
from benchmarks.policy import closed_loop
from benchmarks.robustness import reliability
from benchmarks.success import tables as success
from benchmarks.success import tabletop_tables as tabletop
from fuzz import tables as fuzz
import pytest


def _result(name):
    return json.loads((ROOT / f'results/{name}.json').read_text('utf-8'))


@pytest.mark.parametrize(('module', 'results', 'again'), [
    (encoder, ('hralign',), 'python -m benchmarks.encoder.tables'),
    (success, ('success',), 'python -m benchmarks.success.tables'),
    (tabletop, ('tabletop',), 'python -m benchmarks.success.tabletop_tables'),
    (closed_loop, ('closed_loop',), 'python -m benchmarks.policy.closed_loop WORK --only-tables'),
    (reliability, ('faults', 'soak'), 'python -m benchmarks.robustness.reliability'),
    (fuzz, ('fuzz',), 'make fuzz'),
], ids=lambda value: value if isinstance(value, str) else None)
def test_a_page_has_the_measured_figures(module, results, again):
    """Guards against a table that was edited by hand, or left behind by new results."""
    text = module.PAGE.read_text('utf-8')
    assert filled(text, module.tables(*map(_result, results))) == text, f'run {again}'


def test_a_page_without_a_mark():
    with pytest.raises(ValueError, match='0 marks facts'):
        filled('# Title', {'facts': 'table'})


def test_the_summary_is_of_the_parts():
    """Guards results/reliability.json against parts that were measured again without it."""
    found = _result('reliability')
    assert found == json.loads(json.dumps(reliability.gather())), \
        'run python -m benchmarks.robustness.reliability'
    assert found['faults_green'] == found['faults'] > 0
