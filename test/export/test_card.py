# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The card as a hub of models reads it."""

from dataclasses import replace

from hralign_ros.export.card import render_card
from hralign_ros.runtime import default_bundle
from hralign_ros.runtime.bundle import load_bundle
import pytest
import yaml


@pytest.fixture(scope='module')
def shipped():
    """Read the manifest of the default bundle, which has everything that a card may have."""
    return load_bundle(default_bundle()).manifest


def test_what_the_hub_reads(shipped):
    """Guards who finds a bundle there: licence, kind, and every figure with its conditions."""
    data = pytest.importorskip('huggingface_hub').ModelCard(render_card(shipped)).data
    assert (data.library_name, data.license, data.pipeline_tag) == (
        'hralign_ros', 'apache-2.0', 'robotics')
    assert {'ros2', 'onnx'} <= {*data.tags}
    metrics = [*shipped.training['metrics'].values(), *shipped.success.metrics.values(),
               *(rows for head in shipped.heads.values() for rows in head.metrics.values())]
    assert len(data.eval_results) == sum(map(len, metrics))
    by_name = {(row.metric_name, row.dataset_split): row.metric_value for row in data.eval_results
               if row.dataset_name == ', '.join(shipped.success.training.sources)}
    row = next(row for row in shipped.success.metrics['false_alarm_rate']
               if row['split'] == 'test_seen')
    assert by_name[f'false_alarm_rate, alpha {row["alpha"]}', 'test_seen'] == row['value']


def test_a_licence_that_is_not_ours(shipped):
    """Guards weights of others: the hub shows 'other' and the terms, never Apache-2.0."""
    card = render_card(replace(shipped, licenses={**shipped.licenses, 'backbone': 'MIT'}))
    data = yaml.safe_load(card.split('---\n')[1])
    assert data['license'] == 'other' and 'MIT' in data['license_name']


def test_a_bundle_without_figures(shipped):
    """Guards a bundle that was not trained: it has no results, and is read all the same."""
    plain = replace(shipped, training=None, heads={}, success=replace(
        shipped.success, trained=False, training=None, metrics={}))
    card = render_card(plain)
    assert 'model-index' not in yaml.safe_load(card.split('---\n')[1])
    assert '**not trained**' in card


def test_the_shipped_card_is_what_is_written_now(shipped):
    """Guards the card in the tree: it is made by the template, never by hand."""
    assert (default_bundle() / 'card.md').read_text('utf-8') == render_card(shipped)
