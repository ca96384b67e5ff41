# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the documents say of adaptation is what was measured."""

from importlib.util import module_from_spec, spec_from_file_location
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
spec = spec_from_file_location('hralign_tables', ROOT / 'benchmarks/hralign_tables.py')
page = module_from_spec(spec)
spec.loader.exec_module(page)


def test_the_page_has_the_measured_figures():
    """Guards against a table that was edited by hand, or left behind by new results."""
    found = json.loads(page.RESULTS.read_text('utf-8'))
    text = page.PAGE.read_text('utf-8')
    assert page.filled(text, page.tables(found)) == text, 'run benchmarks/hralign_tables.py'


def test_a_page_without_a_mark():
    with pytest.raises(ValueError, match='0 marks facts'):
        page.filled('# Title', {'facts': 'table'})


def test_the_shipped_bundle_is_of_a_measured_run():
    """Guards the card: the shipped weights are one of the seeds that the results are about."""
    found = json.loads(page.RESULTS.read_text('utf-8'))
    training = yaml.safe_load((ROOT / 'models/default/bundle.yaml').read_text('utf-8'))['training']
    steps = found['main']['adapted']['best_steps']
    assert training['steps and batch'].startswith(f'{steps[training["seed"]]} x 32')
    assert str(found['training']['pairs']['pairs']) in training['data']
