# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Training the head: it learns, names kinds of failure, and goes on exactly where it was."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the offline packages are not installed')
pytest.importorskip('transformers', reason='the offline packages are not installed')

from hralign_ros.adapt.checkpoints import TrainingError  # noqa: E402, I100
from hralign_ros.data.manifest import DataError  # noqa: E402
from hralign_ros.runtime.bundle import ClipSpec  # noqa: E402
from hralign_ros.success.options import SuccessOptions  # noqa: E402
from hralign_ros.success.prompts import Prompts  # noqa: E402
from hralign_ros.success.traces import mode_probabilities, raw_scores, trace  # noqa: E402
from hralign_ros.success.train import _newest, train  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from tiny_success import make_film, make_films, make_head, make_text, TASKS  # noqa: E402

SMALL = SuccessOptions(
    modes=2, prompt_length=2, steps=120, tasks_per_step=3, clips_per_task=12, warm_up=5,
    learning_rate=3e-3, cluster_every=20, checkpoint_every=40, average=0.9, noise=0.05,
    failure_text=1.0, human_share=0.2)
CLIP = ClipSpec(5, 0.2, 32, 0.1)


@pytest.fixture(scope='module')
def text():
    return make_text()


@pytest.fixture(scope='module')
def films():
    return make_films()


def run(films, text, folder, options=SMALL, report=lambda _: None):
    torch.manual_seed(options.seed)
    prompts = Prompts(text, TASKS, modes=options.modes, length=options.prompt_length,
                      human_prompt=options.human_prompt)
    return train(make_head(), prompts, films, options, folder, report=report)


def judged(trained, options=SMALL):
    """Score fresh films for their own tasks: last ticks' and middle ticks' scores and labels."""
    mask = np.full(options.modes, float(options.use_prompts), np.float32)
    scores, done = [], []
    for row, task in enumerate(TASKS):
        features = trained.prompts.features([row]).detach().numpy()[0]
        for i in range(12):
            film = make_film(task, i, kind='success' if i % 2 else i // 2 % 2, seed=7)
            got = raw_scores(trained.head, trace(trained.head, film, CLIP), features, mask)
            scores += [got[-1], got[len(got) // 3]]
            done += [film.done[-1], film.done[len(got) // 3]]
    return np.array(scores), np.array(done)


@pytest.fixture(scope='module')
def trained(films, text, tmp_path_factory):
    return run(films, text, tmp_path_factory.mktemp('run'))


def test_it_learns(trained):
    """Guards the whole: on films of other noise, accomplished and not are told apart."""
    scores, done = judged(trained)
    assert roc_auc_score(done, scores) > 0.95


def test_the_head_names_the_cluster(trained):
    """Guards prompts: a failure's mode is that of its cluster, and modes are a distribution."""
    right = []
    for row, task in enumerate(TASKS):
        features = trained.prompts.features([row]).detach().numpy()[0]
        modes = [trained.modes[f'{task}-{10 * i + 1}'] for i in range(6)]
        assert modes in ([0, 1] * 3, [1, 0] * 3)
        for i in range(6):
            film = make_film(task, 10 * i + 1, kind=i % 2)
            seen = mode_probabilities(
                trained.head, trace(trained.head, film, CLIP), features, np.ones(2, np.float32))
            np.testing.assert_allclose(seen.sum(1), 1.0, atol=1e-5)
            right.append(seen[-1].argmax() == trained.modes[film.episode.episode_id])
    assert np.mean(right) > 0.8


def test_another_instruction_is_not_accomplished(trained):
    """Guards wrong-task video: a success of one task scores low for the others."""
    ones = np.ones(2, np.float32)
    features = trained.prompts.features(range(3)).detach().numpy()
    for own, task in enumerate(TASKS):
        seen = trace(trained.head, make_film(task, 3, seed=7), CLIP)
        last = [raw_scores(trained.head, seen, f, ones)[-1] for f in features]
        assert int(np.argmax(last)) == own


def test_killed_and_resumed_is_the_same(films, text, tmp_path):
    """Guards resuming: stopped in the middle, the run ends as the one left alone, to the bit."""
    options = replace(SMALL, steps=80)
    whole = run(films, text, tmp_path / 'whole', options)

    class Stop(Exception):
        """Stand in for a kill."""

    def stop(line):
        if line.startswith('step 50/'):
            raise Stop
    with pytest.raises(Stop):
        run(films, text, tmp_path / 'parts', options, stop)
    lines = []
    parts = run(films, text, tmp_path / 'parts', options, lines.append)
    assert lines[0] == 'going on after step 40'
    for one, other in zip(whole.head.state_dict().values(), parts.head.state_dict().values(),
                          strict=True):
        assert torch.equal(one, other)
    assert torch.equal(whole.prompts.vectors, parts.prompts.vectors)
    assert whole.modes == parts.modes
    with pytest.raises(TrainingError, match='noise was 0.05 and is now 0.3'):
        run(films, text, tmp_path / 'parts', replace(options, noise=0.3))
    # Of the same names and labels, and of other pictures: recorded, or turned, anew.
    anew = [replace(films[0], features=replace(films[0].features, source='anew')), *films[1:]]
    with pytest.raises(TrainingError, match=f'films were {len(films)} and are now {len(films)}, '
                       f'{len(films) - 1} of them as they were'):
        run(anew, text, tmp_path / 'parts', options)


@pytest.mark.parametrize('change', [
    {'use_prompts': False, 'failure_text': 0.0}, {'assignment': 'balanced'},
    {'human_prompt': True}, {'accomplished': 0.0}, {'modes': 1}], ids=str)
def test_variants_run(films, text, tmp_path, change):
    """Guards the ablations: each ends, and keeps numbers finite."""
    options = replace(SMALL, steps=21, **change)
    trained = run(films, text, tmp_path, options)
    scores, _ = judged(trained, options)
    assert np.isfinite(scores).all()


def test_clips_end_on_the_brink_of_success():
    """
    Guards against deciding too early: what is nearly done is drawn often, and called not done.

    Drawn evenly, one clip of twenty or so ended in the second before a success, and a drawer was
    called open .7 s before it was.
    """
    film = make_film(next(iter(TASKS)), 0, kind='success', seed=7)
    film = replace(film, features=replace(
        film.features, time_s=np.arange(film.frames) * 0.1), done=np.arange(film.frames) >= 15)
    times = film.features.time_s
    near = ~film.done & (times >= times[15] - 1.0)
    shares = []
    for brink in (0.0, 0.5):
        rng = np.random.default_rng(0)
        drawn = np.array([_newest(film, rng, brink) for _ in range(4000)])
        shares.append(near[drawn].mean())
        assert set(drawn) == set(range(film.frames))
        assert film.done[drawn].mean() > 0.5
    even = 0.5 * near.mean()
    assert shares[0] == pytest.approx(even, abs=0.03)
    assert shares[1] == pytest.approx(0.25 + even / 2, abs=0.03)


def test_settings_that_cannot_work():
    for change, word in (({'assignment': 'luck'}, 'kmeans, balanced'), ({'modes': 0}, 'modes'),
                         ({'checkpoint_every': 30}, 'multiple of'),
                         ({'drop_view': 1.0}, 'drop_view')):
        with pytest.raises(TrainingError, match=word):
            replace(SMALL, **change)


def test_failures_alone_teach_nothing(text, tmp_path):
    """Guards against an empty data set: one sentence before any training."""
    with pytest.raises(DataError, match='no film of a success'):
        run([make_film('lift', 1, kind=0)], text, tmp_path)
