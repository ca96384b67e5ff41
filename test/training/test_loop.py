# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The training loop: it resumes exactly where it was killed, and ranks do not change it."""

import csv
from dataclasses import replace
from pathlib import Path
import signal
import subprocess
import sys

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.errors import HralignError
from hralign_ros.training.alignment_options import AdaptOptions, PRESETS, TrainOptions
from hralign_ros.training.checkpoints import read_checkpoint, TrainingError
from hralign_ros.training.devices import choose_device
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import learning_rate, train
import pytest
from support import tiny_run
import torch

# tiny_run imports its package.
PROGRAM = ('-m', 'support.tiny_run')
SUPPORT = Path(tiny_run.__file__).parents[1]
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
        [sys.executable, *launcher, *PROGRAM, *map(str, arguments)], capture_output=True,
        text=True, timeout=200, check=False, cwd=SUPPORT)


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


@pytest.mark.parametrize('kind', ['align', 'success', 'success, grounded'])
def test_killed_and_resumed_ends_the_same_to_the_bit(kind, tmp_path):
    """Guards resuming: SIGKILL in step 13, in mid-epoch and after the checkpoint of step 10."""
    killed = program(tmp_path, kind, '--kill-in-step', 13)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert read_checkpoint(tmp_path / kind / 'last.pt').step == 10
    lines, ends, results = [], [], []
    for name in ('whole', kind):
        objective = tiny_run.KINDS[kind]()
        results.append(train(objective, tmp_path / name, resume=True, device='cpu',
                             report=lines.append))
        ends.append((read_checkpoint(tmp_path / name / 'last.pt'), objective))
    assert 'resumed after step 10' in lines
    (expected, one), (got, other) = ends
    assert got.step == expected.step == 24
    assert same_state(got.model, expected.model)
    assert expected.average and same_state(got.average, expected.average)
    for i, state in expected.optimiser['state'].items():
        assert same_state(got.optimiser['state'][i], state)
    assert got.progress == expected.progress
    assert replace(results[0], seconds=0.0) == replace(results[1], seconds=0.0)
    assert same_state(one.weights(), other.weights())
    logs = [rows(tmp_path / name) for name in ('whole', kind)]
    assert [{**row, 'seconds': ''} for row in logs[0]] == [
        {**row, 'seconds': ''} for row in logs[1]]


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
    assert all(word in line for word in ('loss', 'validation_r1', 'steps/s', 's to go'))
    logged = rows(folder)
    assert [int(r['step']) for r in logged] == list(range(25))
    assert [int(r['step']) for r in logged if r['validation_r1']] == [0, 6, 12, 18, 24]
    assert list(folder.glob('events.out.tfevents.*'))


@pytest.fixture(scope='module')
def two_ranks(tmp_path_factory):
    """Train all kinds in two processes."""
    folder = tmp_path_factory.mktemp('ranks')
    done = program(folder, *tiny_run.KINDS, '--gradients', ranks=2)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.parametrize('kind', tiny_run.KINDS)
def test_two_ranks_are_one(kind, two_ranks, tmp_path):
    """
    Guards gathering: loss, gradients and a whole run are those of a single process.

    Prompts that do not learn in a step have no gradient. A gradient of 0 in its place, averaged
    over two ranks, let Adam move them on.
    """
    one = tiny_run.first_gradients(tiny_run.KINDS[kind](), Ranks())
    two = torch.load(two_ranks / kind / 'gradients.pt')
    assert one.keys() == two.keys()
    largest = max(float((one[k] - two[k]).abs().max()) for k in one)
    print(f'largest difference of loss and gradients: {largest:.1e}')
    assert largest <= 1e-5
    assert all(one[k].abs().max() > 1e-4 for k in one if k.endswith('weight'))
    train(tiny_run.KINDS[kind](), tmp_path, device='cpu')
    for mine, theirs in zip(rows(tmp_path), rows(two_ranks / kind), strict=True):
        for name in mine.keys() - {'seconds'}:
            assert float(mine[name] or 0) == pytest.approx(float(theirs[name] or 0), abs=1e-3)
    ends = [read_checkpoint(folder / 'last.pt') for folder in (tmp_path, two_ranks / kind)]
    assert ends[0].progress['objective'].get('mode') == ends[1].progress['objective'].get('mode')
    for name, value in ends[0].model.items():
        # What is added to all keys alike has no effect; its gradient is rounding alone.
        if not name.endswith(('in_proj_bias', 'key.bias')):
            torch.testing.assert_close(value, ends[1].model[name], rtol=0, atol=1e-4)


def test_a_batch_that_ranks_cannot_split():
    with pytest.raises(HralignError, match='a batch of 35 cannot be split over 2 ranks'):
        Ranks(0, 2).rows(35)


def test_devices():
    """Guards --device: what is not there is said before any work."""
    assert choose_device('cpu').torch.type == 'cpu'
    assert choose_device('auto').torch.type == (
        'cuda' if torch.cuda.is_available() else 'cpu')
    with pytest.raises(HralignError, match='allowed: auto, cpu, cuda'):
        choose_device('tpu')


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
    for wrong in ({'attention_floor': 1.5}, {'partners': 2}, {'trained': 'x'}, {'pooling': 'x'}):
        with pytest.raises(TrainingError, match=next(iter(wrong))):
            AdaptOptions(**wrong)


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
