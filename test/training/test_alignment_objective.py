# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The objective of HR-Align: it learns from true pairs alone, and no text tells clips apart."""

import csv
from dataclasses import replace

from hralign_ros.models.hr_align import pool
from hralign_ros.training.alignment_batches import make_items, PairBatches
from hralign_ros.training.alignment_objective import batch_loss, LOSS, R1, validate
from hralign_ros.training.checkpoints import read_checkpoint
from hralign_ros.training.distributed import Ranks
import pytest
from support import tiny_run
import torch

OPTIONS = tiny_run.OPTIONS


def rows(folder):
    with (folder / 'log.csv').open() as file:
        return list(csv.DictReader(file))


def test_it_learns_a_tiny_set(tmp_path):
    """Guards the whole: R@1 of the pairs it trains on rises from chance to nearly all."""
    options = replace(OPTIONS, steps=100, validate_every=100, learning_rate=1e-2, batch=26)
    model, pairs = tiny_run.make_model(), tiny_run.make_pairs()
    cache = tiny_run.make_cache()
    batches = PairBatches(make_items(pairs, cache)[0], cache, tiny_run.make_texts(), batch=26,
                          length=3)
    before = validate(model, batches, options)[R1]
    tiny_run.run(tmp_path, options, model=model, pairs=pairs)
    last = read_checkpoint(tmp_path / 'last.pt')
    model.load_trained_state(last.model)
    assert before < 0.2
    assert validate(model, batches, options)[R1] > 0.7


def test_shuffled_pairs_teach_nothing_that_holds(tmp_path):
    """Guards against a leak: only true pairs raise R@1 of pairs never seen."""
    options = replace(OPTIONS, steps=100, validate_every=100, learning_rate=1e-2, batch=26)
    found = {}
    for name, offset in (('true', 0), ('shuffled', 5)):
        pairs = tiny_run.make_pairs(38, offset=offset)
        tiny_run.run(tmp_path / name, options, pairs=pairs)
        found[name] = float(rows(tmp_path / name)[-1][R1])
        start = float(rows(tmp_path / name)[0][R1])
    assert found['true'] > start + 0.25
    assert found['shuffled'] <= start + 0.1


@pytest.mark.parametrize('alike', [True, False])
def test_validation_is_the_same_however_much_is_kept(alike, monkeypatch):
    """Guards large data sets, whose clips are encoded twice; and features that are all equal."""
    items, _ = make_items(tiny_run.make_pairs(), cache := tiny_run.make_cache(alike=alike))
    batches = PairBatches(items, cache, tiny_run.make_texts(), batch=1, length=3)
    monkeypatch.setattr('hralign_ros.training.alignment_objective._CHUNK', 7)
    found = []
    for size in (1 << 30, 0):
        monkeypatch.setattr('hralign_ros.training.alignment_validation._KEPT', size)
        found.append(validate(tiny_run.make_model(), batches, OPTIONS))
    assert found[0] == found[1]
    # All at once, with negatives pooled with the text of the anchor.
    batch = PairBatches(items, cache, tiny_run.make_texts(), batch=len(items), length=3,
                        sampler='segment').load_even(slice(0, len(items)))
    options = replace(OPTIONS, decoupled=False, frozen_weight=1.0, mask_same_task=False,
                      negatives='anchor')
    with torch.no_grad():
        whole = float(batch_loss(tiny_run.make_model(), batch, options, Ranks()))
    assert found[0][LOSS] == pytest.approx(whole, rel=1e-6)
    assert not alike or found[0][R1] == 0.0, 'equal features are no success'


def slow_anchored_loss(model, batch, options):
    """Pool again for each pair of clips, and write Eq. 6 as it stands."""
    queries = model.attention.query(batch.text)
    terms = []
    for view in range(len(batch.parts)):
        start = sum(batch.parts[:view])
        owner = batch.owner[start:start + batch.parts[view]].tolist()
        robot = batch.robot[start:start + batch.parts[view]]
        frozen, adapted = model.frozen_maps(robot), model.adapted_maps(robot)
        total = 0.0
        for i, pair in enumerate(owner):
            def look(maps, k, by=pair):
                return pool(maps[k:k + 1], queries[None, by:by + 1])[0, 0]

            own = {'to robot': look(batch.human, pair) @ look(adapted, i),
                   'frozen': look(batch.human, pair) @ look(frozen, i)}
            others = [(j, other) for j, other in enumerate(owner)
                      if j != i and not batch.same_task[pair, other]]
            for negatives in (
                    [look(batch.human, pair) @ look(adapted, j) for j, _ in others],
                    [look(adapted, i) @ look(batch.human, other) for _, other in others]):
                below = sum(torch.exp(s / options.temperature) for s in negatives)
                below += options.frozen_weight * torch.exp(own['frozen'] / options.temperature)
                if not options.decoupled:
                    below += torch.exp(own['to robot'] / options.temperature)
                total += torch.log(below) - own['to robot'] / options.temperature
        terms.append(total / (2 * len(owner)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize('decoupled', [True, False])
def test_anchored_negatives_are_pooled_with_the_anchors_text(decoupled):
    """Guards against the text leak: own texts tell tasks apart without a look at the image."""
    options = replace(OPTIONS, decoupled=decoupled, frozen_weight=2.0)
    model = tiny_run.make_model()
    torch.manual_seed(3)
    for parameter in model.trained_parameters().values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    items = make_items(tiny_run.make_pairs(), tiny_run.make_cache())[0]
    batches = PairBatches(items, tiny_run.make_cache(), tiny_run.make_texts(), batch=8, length=3)
    batch = batches.load(0)
    fast = batch_loss(model, batch, options, Ranks())
    torch.testing.assert_close(
        fast, slow_anchored_loss(model, batch, options), rtol=1e-5, atol=1e-5)
    own = batch_loss(model, batch, replace(options, negatives='own'), Ranks())
    assert abs((own - fast).item()) > 1e-3


def test_anchored_negatives_learn_nothing_from_texts_alone():
    """
    Clips that all show the same are a guess, whatever their texts say.

    With negatives pooled with their own texts the loss falls far below a guess here.
    """
    cache = tiny_run.make_cache(alike=True)
    items = make_items(tiny_run.make_pairs(wrist=False), cache)[0]
    losses = {}
    for negatives in ('anchor', 'own'):
        options = replace(OPTIONS, negatives=negatives, frozen_weight=0.0, decoupled=False)
        model = tiny_run.make_model()
        batches = PairBatches(items, cache, tiny_run.make_texts(), batch=8, length=3)
        optimiser = torch.optim.Adam(model.trained_parameters().values(), lr=0.02)
        for step in range(30):
            optimiser.zero_grad()
            loss = batch_loss(model, batches.load(step), options, Ranks())
            loss.backward()
            optimiser.step()
        losses[negatives] = float(loss)
        others = float((~batches.load(29).same_task).sum(1).float().add(1).log().mean())
    assert losses['anchor'] == pytest.approx(others, abs=1e-3)
    assert losses['own'] < others - 0.3


def test_batches_by_scene_hold_few_scenes():
    """Each pair once an epoch all the same, and another order in the next."""
    pairs = [replace(pair, robot=replace(pair.robot, scene=f'scene-{i % 5}'))
             for i, pair in enumerate(tiny_run.make_pairs(40, wrist=False))]
    items = make_items(pairs, tiny_run.make_cache())[0]
    batches = PairBatches(items, tiny_run.make_cache(), tiny_run.make_texts(), batch=8, length=3,
                          by_scene=True)
    first = [batches.plan(step) for step in range(5)]
    assert sorted(i for plan in first for i in plan) == list(range(40))
    assert all(len({items[i].robot.scene for i in plan}) == 1 for plan in first)
    assert [list(p) for p in first] != [list(batches.plan(step)) for step in range(5, 10)]


def test_adapters_may_learn_more_slowly_than_the_query(tmp_path):
    """At a factor of 0 they stay what they were, and the query learns all the same."""
    _, model = tiny_run.run(tmp_path, replace(OPTIONS, adapter_rate=0.0, select='loss'))
    before = tiny_run.make_model().trained_state()
    after = read_checkpoint(tmp_path / 'last.pt').model
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {'attention.query.weight', 'attention.query.bias'}
