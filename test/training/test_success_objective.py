# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The objective of the success head: it learns, and names kinds of failure."""

from dataclasses import replace

from hralign_ros.calibration.traces import judge, mode_probabilities, trace
from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.loop import train
from hralign_ros.training.success_batches import sample_newest
from hralign_ros.training.success_clips import sample_clip, stack_clips
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.tiny_success import make_objective, make_recording, OPTIONS, TASKS
import torch

SMALL = replace(OPTIONS, steps=120, cluster_every=20, checkpoint_every=40)
CLIP = ClipSpec(5, 0.2, 32, 0.1)


def run(folder, options=SMALL, **more):
    objective = make_objective(options, **more)
    train(objective, folder, device='cpu', report=lambda _: None)
    return objective


def judged(trained, options=SMALL):
    """Score fresh recordings for their own tasks: scores and labels of last and middle ticks."""
    mask = np.full(options.modes, float(options.use_prompts), np.float32)
    scores, done = [], []
    for row, task in enumerate(TASKS):
        features = trained.prompts.features([row]).detach().numpy()[0]
        for i in range(12):
            recording = make_recording(task, i, kind='success' if i % 2 else i // 2 % 2, seed=7)
            got, _ = judge(trained.head, trace(trained.head, recording, CLIP), features, mask)
            scores += [got[-1], got[len(got) // 3]]
            done += [recording.done[-1], recording.done[len(got) // 3]]
    return np.array(scores), np.array(done)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    return run(tmp_path_factory.mktemp('run'))


def test_it_learns(trained):
    """Guards the whole: on recordings of other noise, accomplished and not are told apart."""
    scores, done = judged(trained)
    assert roc_auc_score(done, scores) > 0.95


def test_it_learns_against_the_texts_of_all_tasks(tmp_path):
    """Guards all_texts: with one task in a batch nothing else says which task it is."""
    trained = run(tmp_path, replace(
        SMALL, all_texts=True, tasks_per_step=1, other_tasks=0.0, video_text=3.0))
    scores, done = judged(trained)
    assert roc_auc_score(done, scores) > 0.9
    texts = trained.prompts.plain
    for row, task in enumerate(TASKS):
        clips = stack_clips(*zip(*[
            (f, sample_clip(f, f.frames - 1, 5, np.random.default_rng(i)))
            for i, f in enumerate(make_recording(task, i, seed=7) for i in range(4))],
            strict=True))
        with torch.no_grad():
            nearest = (trained.head.encode(*clips).video @ texts.T).argmax(1)
        assert (nearest == row).all()


def failed_otherwise(number, text):
    """Make a failure at lifting in which the drawer was opened well."""
    lift, opened = (make_recording(task, number) for task in ('lift', 'open'))
    return replace(
        opened, done=np.zeros(opened.frames, bool), failing=opened.done,
        progress=np.full(opened.frames, np.nan, np.float32), episode=replace(
            lift.episode, success=False, failure='wrong_object', tags=(f'done:{text}',)))


def test_what_was_done_instead_is_learned(tmp_path):
    """
    Guards hindsight: an attempt that failed shows what something else looks like when done.

    No recording here is of opening the drawer as a task; the failures alone show it, and what
    they are called is the nearest text of others like them.
    """
    text = 'open the drawer'
    recordings = [make_recording('lift', i) for i in range(6)] + [
        make_recording('lift', i, kind=0) for i in range(6, 9)] + [
        failed_otherwise(i, text) for i in range(10, 16)]
    options = replace(SMALL, hindsight=1.0, split_file='splits.yaml', tasks_per_step=1,
                      all_texts=True, video_text=3.0)
    objective = make_objective(options, recordings=recordings, others=(text,), tasks=('lift',))
    batch = objective.batches.load(0, Ranks())
    rows = batch.instead.tolist()
    assert set(rows) == {-1, 1}
    for row, number in zip(rows, batch.recording, strict=True):
        assert row < 0 or recordings[number].instead == text
    train(objective, tmp_path, device='cpu', report=lambda _: None)
    texts = objective.prompts.every
    for fresh, want in ((failed_otherwise(30, text), 1), (make_recording('lift', 31), 0)):
        clip = stack_clips([fresh], [
            sample_clip(fresh, fresh.frames - 1, 5, np.random.default_rng(0))])
        with torch.no_grad():
            assert int((objective.head.encode(*clip).video @ texts.T).argmax()) == want


def test_hindsight_needs_to_know_what_is_held_out():
    """Guards held-out instructions: what was done instead may be one of them."""
    with pytest.raises(TrainingError, match='--split-file'):
        replace(OPTIONS, hindsight=1.0)


def test_the_head_names_the_cluster(trained):
    """Guards prompts: a failure's mode is that of its cluster, and modes are a distribution."""
    right = []
    for row, task in enumerate(TASKS):
        features = trained.prompts.features([row]).detach().numpy()[0]
        modes = [trained.modes[f'{task}-{10 * i + 1}'] for i in range(6)]
        assert modes in ([0, 1] * 3, [1, 0] * 3)
        for i in range(6):
            recording = make_recording(task, 10 * i + 1, kind=i % 2)
            seen = mode_probabilities(
                trained.head, trace(trained.head, recording, CLIP), features,
                np.ones(2, np.float32))
            np.testing.assert_allclose(seen.sum(1), 1.0, atol=1e-5)
            right.append(seen[-1].argmax() == trained.modes[recording.episode.episode_id])
    assert np.mean(right) > 0.8


def test_another_instruction_is_not_accomplished(trained):
    """Guards wrong-task video: a success of one task scores low for the others."""
    ones = np.ones(2, np.float32)
    features = trained.prompts.features(range(3)).detach().numpy()
    for own, task in enumerate(TASKS):
        seen = trace(trained.head, make_recording(task, 3, seed=7), CLIP)
        last = [judge(trained.head, seen, f, ones)[0][-1] for f in features]
        assert int(np.argmax(last)) == own


@pytest.mark.parametrize('change', [
    {'use_prompts': False, 'failure_text': 0.0}, {'assignment': 'balanced'},
    {'human_prompt': True}, {'accomplished': 0.0}, {'modes': 1}], ids=str)
def test_variants_run(tmp_path, change):
    """Guards the ablations: each ends, and keeps numbers finite."""
    options = replace(SMALL, steps=21, **change)
    trained = run(tmp_path, options)
    scores, _ = judged(trained, options)
    assert np.isfinite(scores).all()


def test_clips_end_just_before_success():
    """
    Guards against deciding too early: what is nearly done is sampled often, as not done.

    Sampled evenly, one clip of twenty or so ended in the second before a success, and a drawer was
    called open .7 s before it was.
    """
    recording = make_recording(next(iter(TASKS)), 0, kind='success', seed=7)
    recording = replace(recording, features=replace(
        recording.features, time_s=np.arange(recording.frames) * 0.1),
        done=np.arange(recording.frames) >= 15)
    times = recording.features.time_s
    near = ~recording.done & (times >= times[15] - 1.0)
    shares = []
    for pre_success in (0.0, 0.5):
        rng = np.random.default_rng(0)
        drawn = np.array([sample_newest(recording, rng, pre_success) for _ in range(4000)])
        shares.append(near[drawn].mean())
        assert set(drawn) == set(range(recording.frames))
        assert recording.done[drawn].mean() > 0.5
    even = 0.5 * near.mean()
    assert shares[0] == pytest.approx(even, abs=0.03)
    assert shares[1] == pytest.approx(0.25 + even / 2, abs=0.03)


def test_settings_that_cannot_work():
    for change, word in (({'assignment': 'luck'}, 'kmeans, balanced'), ({'modes': 0}, 'modes'),
                         ({'checkpoint_every': 30}, 'multiple of'),
                         ({'drop_view': 1.0}, 'drop_view')):
        with pytest.raises(TrainingError, match=word):
            replace(SMALL, **change)


def test_failures_alone_teach_nothing(tmp_path):
    """Guards against an empty data set: one sentence before any training."""
    with pytest.raises(DataError, match='no recording of a success'):
        run(tmp_path, recordings=[make_recording('lift', 1, kind=0)])
