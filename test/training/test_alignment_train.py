# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Training: it learns, goes on exactly where it was killed, and ranks do not change it."""

import csv
from dataclasses import replace
from pathlib import Path
import signal
import subprocess
import sys

from hralign_ros.data.manifest import DataError
from hralign_ros.models.hr_align import pool
from hralign_ros.training.alignment_batches import make_items, PairBatches
from hralign_ros.training.alignment_objective import batch_loss, recall_at_1, validate
from hralign_ros.training.alignment_options import AdaptOptions, PRESETS, TrainOptions
from hralign_ros.training.alignment_train import learning_rate
from hralign_ros.training.checkpoints import read_checkpoint, TrainingError
from hralign_ros.training.distributed import Ranks
import pytest
from support import tiny_run
import torch

PROGRAM = Path(tiny_run.__file__)
OPTIONS = tiny_run.OPTIONS


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def program(*arguments, ranks=1):
    launcher = [] if ranks == 1 else [
        '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(ranks)]
    return subprocess.run(
        [sys.executable, *launcher, str(PROGRAM), *map(str, arguments)], capture_output=True,
        text=True, timeout=200, check=False)


def rows(folder):
    with (folder / 'log.csv').open() as file:
        return list(csv.DictReader(file))


def same_state(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Train without interruption."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('whole')
    lines = []
    result, model = tiny_run.run(folder, report=lines.append)
    return folder, result, model, lines


def last_weights(folder):
    return read_checkpoint(folder / 'last.pt').model


def test_a_run_is_reproducible_to_the_bit(whole, tmp_path):
    folder = whole[0]
    for name, seed in (('again', 0), ('other', 1)):
        tiny_run.run(tmp_path / name, replace(OPTIONS, seed=seed))
    assert same_state(last_weights(folder), last_weights(tmp_path / 'again'))
    assert not same_state(last_weights(folder), last_weights(tmp_path / 'other'))
    assert not same_state(last_weights(folder), tiny_run.make_model().trained_state())


def test_killed_and_resumed_ends_the_same_to_the_bit(whole, tmp_path):
    """Guards resuming: SIGKILL in step 13, in mid-epoch and after the checkpoint of step 10."""
    folder, result, _, _ = whole
    killed = program(tmp_path, '--kill-in-step', 13)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(tmp_path / 'last.pt').step == 10
    lines = []
    again, model = tiny_run.run(tmp_path, resume=True, report=lines.append)
    assert 'going on after step 10' in lines
    expected, got = (read_checkpoint(f / 'last.pt') for f in (folder, tmp_path))
    assert got.step == expected.step == OPTIONS.steps
    assert same_state(got.model, expected.model)
    assert expected.average and same_state(got.average, expected.average)
    for i, state in expected.optimiser['state'].items():
        assert same_state(got.optimiser['state'][i], state)
    assert got.progress == expected.progress
    assert (again.best_step, again.validation) == (result.best_step, result.validation)
    best = [read_checkpoint(f / 'best.pt').model for f in (folder, tmp_path)]
    assert same_state(*best)
    assert same_state(model.trained_state(), best[0])
    for name in ('step', 'loss', 'r1', 'learning_rate'):
        assert [r[name] for r in rows(tmp_path)] == [r[name] for r in rows(folder)]


def test_a_finished_run_is_resumed_without_a_step(whole):
    folder, result, _, _ = whole
    before = (folder / 'last.pt').read_bytes()
    again, _ = tiny_run.run(folder, resume=True)
    assert again == result
    assert (folder / 'last.pt').read_bytes() == before


def test_other_settings_are_refused_by_name(whole):
    folder, _, _, _ = whole
    with pytest.raises(TrainingError, match='learning_rate was 0.01 and is now 0.5'):
        tiny_run.run(folder, replace(OPTIONS, learning_rate=0.5), resume=True)
    with pytest.raises(TrainingError, match='pairs was'):
        tiny_run.run(folder, pairs=tiny_run.make_pairs(24), resume=True)
    with pytest.raises(TrainingError, match='holds a run already'):
        tiny_run.run(folder)


def test_a_damaged_checkpoint_is_one_sentence(whole, tmp_path):
    data = (whole[0] / 'last.pt').read_bytes()
    (tmp_path / 'last.pt').write_bytes(data[:len(data) // 2])
    with pytest.raises(TrainingError, match='no checkpoint of a training run'):
        tiny_run.run(tmp_path, resume=True)


def test_progress_and_logs(whole):
    folder, _, _, lines = whole
    line = next(x for x in lines if x.startswith('step 12/24'))
    assert all(word in line for word in ('loss', 'R@1', 'steps/s', 's to go'))
    logged = rows(folder)
    assert [int(r['step']) for r in logged] == list(range(25))
    assert [int(r['step']) for r in logged if r['r1']] == [0, 6, 12, 18, 24]
    assert list(folder.glob('events.out.tfevents.*'))


@pytest.mark.parametrize(('objective', 'negatives'), [
    ('align', 'anchor'), ('align', 'own'), ('video_text', 'anchor')])
def test_two_ranks_are_one(objective, negatives, tmp_path):
    """Guards gathering: loss, gradients and a whole run are those of a single process."""
    file = tmp_path / 'gradients.pt'
    done = program(tmp_path / 'two', '--gradients', file, '--objective', objective,
                   '--negatives', negatives, ranks=2)
    assert done.returncode == 0, done.stderr[-2000:]
    options = replace(OPTIONS, objective=objective, negatives=negatives)
    one, two = tiny_run.first_gradients(options, Ranks()), torch.load(file)
    assert one.keys() == two.keys()
    largest = max(float((one[k] - two[k]).abs().max()) for k in one)
    print(f'largest difference of loss and gradients: {largest:.1e}')
    assert largest <= 1e-5
    assert all(one[k].abs().max() > 1e-4 for k in one if k.endswith('weight'))
    tiny_run.run(tmp_path / 'one', options)
    ends = [read_checkpoint(tmp_path / name / 'last.pt') for name in ('one', 'two')]
    for name, value in ends[0].model.items():
        torch.testing.assert_close(value, ends[1].model[name], rtol=0, atol=1e-4)


def test_it_learns_a_tiny_set(tmp_path):
    """Guards the whole: R@1 of the pairs it trains on rises from chance to nearly all."""
    options = replace(OPTIONS, steps=100, validate_every=100, learning_rate=1e-2, batch=26)
    model, pairs = tiny_run.make_model(), tiny_run.make_pairs()
    cache = tiny_run.make_cache()
    batches = PairBatches(make_items(pairs, cache)[0], cache, tiny_run.make_texts(), batch=26,
                          length=3)
    before = validate(model, batches, options).r1
    tiny_run.run(tmp_path, options, model=model, pairs=pairs)
    last = read_checkpoint(tmp_path / 'last.pt')
    model.load_trained_state(last.model)
    assert before < 0.2
    assert validate(model, batches, options).r1 > 0.7


def test_shuffled_pairs_teach_nothing_that_holds(tmp_path):
    """Guards against a leak: only true pairs raise R@1 of pairs never seen."""
    options = replace(OPTIONS, steps=100, validate_every=100, learning_rate=1e-2, batch=26)
    found = {}
    for name, offset in (('true', 0), ('shuffled', 5)):
        pairs = tiny_run.make_pairs(38, offset=offset)
        tiny_run.run(tmp_path / name, options, pairs=pairs)
        found[name] = float(rows(tmp_path / name)[-1]['r1'])
        start = float(rows(tmp_path / name)[0]['r1'])
    assert found['true'] > start + 0.25
    assert found['shuffled'] <= start + 0.1


def test_early_stopping_keeps_the_best(tmp_path):
    options = replace(OPTIONS, steps=400, learning_rate=0.0, validate_every=2, patience=3,
                      weight_decay=0.0)
    result, model = tiny_run.run(tmp_path, options)
    assert result.stopped_early
    assert (result.best_step, result.steps) == (0, 6)
    fresh = tiny_run.make_model().trained_state()
    assert same_state(model.trained_state(), fresh)


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    """Guards hours of training on NaN: the message names the step."""
    model = tiny_run.make_model()
    torch.nn.init.constant_(model.adapters[0].up.bias, float('nan'))
    with pytest.raises(TrainingError, match='the loss of step 1 is nan'):
        tiny_run.run(tmp_path, model=model)


def test_pairs_without_features_are_counted_not_fatal(tmp_path):
    pairs = tiny_run.make_pairs()
    gone = replace(pairs[0], robot=replace(pairs[0].robot, file='gone.mp4'))
    lines = []
    tiny_run.run(tmp_path, replace(OPTIONS, steps=2), pairs=[gone, *pairs],
                 report=lines.append)
    assert any('left out: 1 pairs for training' in line for line in lines)
    with pytest.raises(DataError, match='choose a smaller batch'):
        tiny_run.run(tmp_path / 'none', pairs=[gone])


def test_the_rate_warms_up_and_falls():
    options = replace(OPTIONS, steps=104, warm_up=4, learning_rate=1.0, final_rate=0.1)
    rates = [learning_rate(options, step) for step in range(105)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == pytest.approx(0.1)


def test_equal_features_are_no_success():
    assert recall_at_1(torch.ones(4, 4)) == 0.0
    assert recall_at_1(torch.eye(4)) == 1.0


def test_presets_and_options():
    assert PRESETS['paper'].attention_floor == 0.0
    paper = PRESETS['paper'].train
    assert (paper.optimiser, paper.learning_rate, paper.batch, paper.steps, paper.length,
            paper.sampler, paper.temperature, paper.decoupled, paper.mask_same_task,
            paper.frozen_weight) == ('adam', 1e-4, 200, 8000, 5, 'random', 0.1, False, False, 1.0)
    for wrong in ({'objective': 'x'}, {'steps': 0}, {'weight_decay': -1.0}, {'select': 'x'},
                  {'average': 1.0}):
        with pytest.raises(TrainingError, match=next(iter(wrong))):
            TrainOptions(**wrong)
    for wrong in ({'attention_floor': 1.5}, {'draws': 2}, {'trained': 'x'}, {'pooling': 'x'}):
        with pytest.raises(TrainingError, match=next(iter(wrong))):
            AdaptOptions(**wrong)


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
                return pool(maps[k:k + 1], queries[by:by + 1])[0]

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


def test_the_best_weights_are_the_average(tmp_path):
    """What is validated and kept is the running average, by hand; the steps do not know of it."""
    options = replace(OPTIONS, average=0.0, warm_up=0, final_rate=OPTIONS.learning_rate,
                      validate_every=1)
    weights = [tiny_run.make_model().trained_state()]
    for steps in (1, 2, 3):
        tiny_run.run(tmp_path / str(steps), replace(options, steps=steps))
        weights.append(last_weights(tmp_path / str(steps)))
    tiny_run.run(tmp_path / 'averaged', replace(options, steps=3, average=0.75))
    assert same_state(last_weights(tmp_path / 'averaged'), weights[3])
    best = read_checkpoint(tmp_path / 'averaged' / 'best.pt')
    for name, value in best.model.items():
        mean = weights[0][name]
        for step in range(1, best.step + 1):
            mean = 0.75 * mean + 0.25 * weights[step][name]
        torch.testing.assert_close(value, mean)
    assert best.step and not same_state(best.model, weights[best.step])


def test_adapters_may_learn_more_slowly_than_the_query(tmp_path):
    """At a factor of 0 they stay what they were, and the query learns all the same."""
    _, model = tiny_run.run(tmp_path, replace(OPTIONS, adapter_rate=0.0, select='loss'))
    before, after = tiny_run.make_model().trained_state(), last_weights(tmp_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {'attention.query.weight', 'attention.query.bias'}
