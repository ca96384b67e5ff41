# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""results/ecosystem.json grows by what is measured, and the page of consumers says the same."""

import json

from benchmarks.ecosystem.measure import name_of, record, RESULTS, RUN
from benchmarks.pages import ROOT
import pytest

PAGE = ROOT / 'docs/how_to/ecosystem.md'


def test_a_measurement_replaces_its_own(tmp_path):
    """Each consumer is measured by a command of its own, and keeps what the others found."""
    path = tmp_path / 'ecosystem.json'
    record('one', consumers=['rosetta 0.1', 'crisp_py 3.2'], facts={'site_warnings': 0}, path=path)
    record('two', consumers=['rosetta 0.2'], without_glue=['rosetta 0.2'], path=path)
    found = json.loads(path.read_text())
    assert found['consumers_run'] == ['crisp_py 3.2', 'rosetta 0.2']
    assert found['consumers_without_glue'] == ['rosetta 0.2']
    assert found['site_warnings'] == 0 and found['commands'] == ['one', 'two']


@pytest.mark.parametrize(('given', 'said'), [
    ({'consumers': ['rosetta']}, 'has no version'),
    ({'facts': {'warnings': 0}}, 'no key of ecosystem.json'),
])
def test_what_nobody_could_read_later(tmp_path, given, said):
    path = tmp_path / 'ecosystem.json'
    with pytest.raises(ValueError, match=said):
        record('one', path=path, **given)
    assert not path.exists()


@pytest.mark.skipif(not RESULTS.exists(), reason='nothing was measured yet')
def test_the_page_has_every_consumer_that_was_run():
    """Guards a version in the page that is not the one that was run."""
    rows = [line for line in PAGE.read_text('utf-8').splitlines() if line.startswith('| ')]
    for program in json.loads(RESULTS.read_text('utf-8'))[RUN]:
        name = name_of(program)
        version = program[len(name) + 1:]
        assert any(name in row and version in row for row in rows), f'no row for {program}'
