# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Batches are a pure function of seed and step, and ranks share them without rest."""

from dataclasses import replace

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.errors import HralignError
from hralign_ros.training.alignment_batches import digest, make_items, PairBatches, VideoBatches
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import Ranks
import numpy as np
import pytest
from support import tiny_run
import torch

CACHE, TEXTS = tiny_run.make_cache(), tiny_run.make_texts()
ITEMS, _ = make_items(tiny_run.make_pairs(), CACHE)


def batches(kind=PairBatches, *, seed=3, batch=8, **options):
    return kind(ITEMS, CACHE, TEXTS, batch=batch, length=3, seed=seed, **options)


def all_frames(clip):
    return CACHE.stack([clip], [np.arange(CACHE.frames)])[0]


def test_pairs_of_one_episode_are_one_item():
    assert len(ITEMS) == 26
    assert [list(item.robots) for item in ITEMS[:4]] == [
        ['third_person'], ['third_person', 'wrist'], ['third_person', 'wrist'],
        ['third_person']]
    fewer = ClipFeatures({k: v for k, v in tiny_run.make_entries().items() if k not in (
        'w1.mp4', 'h2.mp4', 'r3.mp4')}, '')
    items, left_out = make_items(tiny_run.make_pairs(), fewer)
    assert (len(items), left_out) == (24, 4)
    assert list(items[1].robots) == ['third_person']
    assert digest(items) != digest(ITEMS) == digest(list(ITEMS))


def test_an_epoch_takes_every_pair_once():
    source = batches()
    assert source.steps_per_epoch == 3
    epochs = [np.concatenate([source.plan(3 * epoch + step) for step in range(3)])
              for epoch in range(2)]
    assert all(len(set(epoch)) == 24 for epoch in epochs)
    assert not np.array_equal(*epochs)


@pytest.mark.parametrize('kind', [PairBatches, VideoBatches])
def test_a_batch_depends_on_seed_and_step_only(kind):
    """Guards resuming: no state is carried from step to step."""
    def first_maps(source, step):
        batch = source.load(step)
        return batch.human if kind is PairBatches else batch.maps

    source = batches(kind)
    later = first_maps(source, 5)
    assert torch.equal(later, first_maps(batches(kind), 5))
    assert torch.equal(later, first_maps(source, 5))
    assert not torch.equal(later, first_maps(source, 4))
    assert not torch.equal(later, first_maps(batches(kind, seed=4), 5))


def test_ranks_share_a_batch_of_pairs():
    source = batches()
    whole = source.load(4)
    halves = [source.load(4, Ranks(i, 2)) for i in range(2)]
    for name in ('human', 'text'):
        assert torch.equal(torch.cat([getattr(h, name) for h in halves]), getattr(whole, name))
    # Robot clips lie view by view within each rank.
    rebuilt = [part for parts in zip(*(h.robot.split(h.parts) for h in halves), strict=True)
               for part in parts]
    assert torch.equal(torch.cat(rebuilt), whole.robot)
    for half in halves:
        assert torch.equal(half.present, whole.present)
        assert torch.equal(half.same_task, whole.same_task)
    with pytest.raises(HralignError, match='multiple of 3'):
        source.load(0, Ranks(0, 3))


def test_ranks_share_a_batch_of_videos():
    source = batches(VideoBatches)
    whole = source.load(4)
    halves = [source.load(4, Ranks(i, 2)) for i in range(2)]
    assert torch.equal(torch.cat([h.maps for h in halves]), whole.maps)
    assert all(torch.equal(h.task, whole.task) for h in halves)


def test_rows_belong_together():
    """Guards against pairs that come apart: clips, owner, text, views and tasks of each row."""
    source = batches(sampler='segment')
    plan, batch = source.plan(2), source.load(2)
    chosen = [ITEMS[i] for i in plan]
    assert source.views == ('third_person', 'wrist')
    assert batch.present.tolist() == [[v in item.robots for item in chosen]
                                      for v in source.views]
    assert batch.parts == tuple(int(n) for n in batch.present.sum(1))
    for row, item in enumerate(chosen):
        stored = all_frames(item.human)
        assert all(any(torch.equal(frame, s) for s in stored) for frame in batch.human[row])
        np.testing.assert_array_equal(batch.text[row], TEXTS[item.robot.task_text])
    clips = [item.robots[v] for v in source.views for item in chosen if v in item.robots]
    for row, clip in enumerate(clips):
        stored = all_frames(clip)
        assert all(any(torch.equal(frame, s) for s in stored) for frame in batch.robot[row])
        assert clip.episode_id == chosen[batch.owner[row]].robot.episode_id
    tasks = [item.task_id for item in chosen]
    assert batch.same_task.tolist() == [[a == b for b in tasks] for a in tasks]


def test_validation_takes_even_frames():
    batch = batches().load_even(slice(1, 3))
    stored = all_frames(ITEMS[1].human)
    np.testing.assert_array_equal(batch.human[0], stored[[0, 2, 5]])
    assert batch.parts == (2, 2)


def test_maps_are_float32_with_channels_last():
    half = tiny_run.make_cache(dtype=np.float16)
    batch = PairBatches(ITEMS, half, TEXTS, batch=8, length=3).load(0)
    for maps in (batch.human, batch.robot):
        assert maps.dtype == torch.float32
        assert maps.shape[2:] == (tiny_run.CHANNELS, 3, 3)
        assert maps.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('share', [0.0, 0.25, 0.5, 1.0])
def test_the_control_keeps_its_mix(share):
    source = batches(VideoBatches, human_fraction=share)
    humans = [sum(c.embodiment == 'human' for c in source.plan(step)) for step in range(20)]
    assert humans == [round(8 * share)] * 20


def test_the_control_draws_evenly_among_embodiments_and_tasks():
    """Guards rare embodiments: one in 26 clips is drawn as often as all the others."""
    pairs = tiny_run.make_pairs(wrist=False)
    pairs[0] = replace(pairs[0], robot=replace(pairs[0].robot, embodiment='ur5e'))
    items, _ = make_items(pairs, CACHE)
    source = VideoBatches(items, CACHE, TEXTS, batch=100, human_fraction=0.0, length=3)
    drawn = [clip.embodiment for step in range(10) for clip in source.plan(step)]
    assert 430 < drawn.count('ur5e') < 570


def test_the_window_knows_the_rate_of_the_frames():
    """Guards the released window: at 10 Hz, 6 frames are no more than its first part."""
    source = batches(sampler='window')
    assert source.frames(ITEMS[0].human, np.random.default_rng(0)).tolist() == [0, 5, 5]
    slow = ClipFeatures({k: {**v, 'time_s': np.arange(6) * 0.9}
                         for k, v in tiny_run.make_entries().items()}, '')
    source = PairBatches(ITEMS, slow, TEXTS, batch=8, length=3, sampler='window')
    found = source.frames(ITEMS[0].human, np.random.default_rng(0))
    assert (found - found[0]).tolist() == [0, 1, 2]


def test_too_little_data_is_one_clear_error():
    with pytest.raises(DataError, match='a batch of 27 pairs, and there are 26'):
        batches(batch=27)
    with pytest.raises(DataError, match='random, segment, window'):
        batches(sampler='flip')
    with pytest.raises(DataError, match="no text feature of 'do the task 1'"):
        PairBatches(ITEMS, CACHE, {'do the task 0': TEXTS['do the task 0']}, batch=8)
    with pytest.raises(DataError, match='human_fraction is 1.5'):
        batches(VideoBatches, human_fraction=1.5)
