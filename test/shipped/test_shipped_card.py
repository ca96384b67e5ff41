# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the shipped bundle says of its training is what results/*.json measured."""

import json

from benchmarks.pages import find, ROOT
from benchmarks.success.tables import OURS
import pytest
import yaml


@pytest.fixture
def card():
    """Read the description of the shipped bundle."""
    return yaml.safe_load((ROOT / 'models/default/bundle.yaml').read_text('utf-8'))


def test_the_shipped_encoder_is_of_a_measured_run(card):
    """Guards the card: the shipped weights are one of the seeds that the results are about."""
    found = json.loads((ROOT / 'results/hralign.json').read_text('utf-8'))
    steps = found['main']['adapted']['best_steps']
    assert card['training']['steps and batch'].startswith(
        f'{steps[card["training"]["seed"]]} x 32')
    assert str(found['training']['pairs']['pairs']) in card['training']['data']


def test_the_shipped_head_is_of_the_measured_recipe(card):
    """Guards the card: what was measured as shipped is what is shipped."""
    found = json.loads((ROOT / 'results/success.json').read_text('utf-8'))['shipped']
    success = card['success']
    assert success['trained'] and '--all-robots' in success['training']['command']
    for what in ('tasks', 'episodes', 'human_recordings', 'embodiments'):
        assert success['training'][what] == found['training'][what]
    said = next(row for row in success['metrics']['auroc'] if row['split'] == 'test_seen')
    measured = find(found['rows'], 'auroc', OURS, 'test_seen')
    assert said['value'] == pytest.approx(measured['value'], abs=6e-4)
