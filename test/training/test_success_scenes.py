# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Stills: where things are in fine tokens, what is told of them, and batches."""

from dataclasses import replace
import json
from types import SimpleNamespace

from hralign_ros.data.instructions import FILE_NAME, NOT_SO, Said, SO, STILL
from hralign_ros.data.manifest import DataError, DISCARDED, read_manifest, write_manifest
from hralign_ros.data.splits import HeldOut, read_splits
from hralign_ros.data.things import Places, write_things
from hralign_ros.runtime.bundle import TokenSpec
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.success_clips import without_stills
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_scenes import (
    cells_of,
    load_stills,
    require_some,
    Still,
    StillBatches,
    Stills,
    told,
)
import numpy as np
import pytest
from support.tiny_success import make_recording, make_stills, OPTIONS

GRID = TokenSpec(3, 4, 2)
VIEW = 'third_person'
LIFT, PUT, OPEN = 'lift the red mug', 'put the red mug in the bowl', 'open the blue drawer'
SAID = {LIFT: ('red-mug', ''), PUT: ('red-mug', 'bowl'), OPEN: ('blue', '')}


def at(thing, *points, view=VIEW):
    return Places(thing, view, np.array(points, np.float32))


@pytest.mark.parametrize(('point', 'cell'), [
    ((0.0, 0.0), 0), ((0.9999, 0.0), 3), ((0.0, 0.9999), 8), ((0.9999, 0.9999), 11),
    ((np.nextafter(np.float32(1), np.float32(0)), 0.5), 7), ((0.25, 0.34), 5),
    ((0.2499, 0.3333), 0), ((1.0, 0.5), -1), ((0.5, 1.0), -1), ((-0.001, 0.5), -1),
    ((0.5, -0.001), -1), ((1.4, 0.5), -1), ((np.nan, np.nan), -1), ((np.inf, 0.5), -1)])
def test_the_cell_of_a_point(point, cell):
    """Guards the edges: what is out of the image or behind the camera is in no cell."""
    places = [at('red mug', (0.6, 0.4), point)]
    assert cells_of(Said('', (), 'red mug', ''), places, VIEW, GRID) == (cell, 6, -1)


def test_the_cells_of_an_instruction():
    """Guards which is which: the thing now, the thing before, its place now, of the view alone."""
    places = [at('red mug', (0.1, 0.1), (0.9, 0.1)), at('bowl', (0.1, 0.9), (0.4, 0.9)),
              at('blue', (0.6, 0.6), (0.6, 0.9)),
              at('red mug', (0.9, 0.9), (0.9, 0.9), view='wrist')]
    cells = {text: cells_of(Said(text, (), *SAID[text]), places, VIEW, GRID) for text in SAID}
    assert cells == {LIFT: (3, 0, -1), PUT: (3, 0, 9), OPEN: (10, 6, -1)}
    with pytest.raises(KeyError):
        cells_of(Said('', (), 'green mug', ''), places, VIEW, GRID)
    with pytest.raises(KeyError):
        cells_of(Said('', (), 'red mug', ''), places, 'front', GRID)


def test_what_tags_tell():
    """Guards tags of other kinds: they say nothing of goals."""
    goals, so = told((STILL, 'try:2', f'{SO}{LIFT}', 'cause:language', f'{NOT_SO}{PUT}'))
    assert goals == (LIFT, PUT) and so.tolist() == [True, False] and so.dtype == bool
    goals, so = told(())
    assert goals == () and so.shape == (0,) and so.dtype == bool


class Words:
    """Gives each text a direction of its own."""

    name = 'words'

    def encode(self, texts):
        rows = np.stack([np.random.default_rng(list(text.encode())).standard_normal(6)
                         for text in texts]).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Features:
    """Stands where the store does: frame i of an episode has the fine tokens 1 + i."""

    def __init__(self, folder):
        self.folder = folder / 'features'
        self.folder.mkdir(exist_ok=True)

    def has(self, episode, human=False):
        return episode.episode_id != 'not-encoded'

    def load(self, episode):
        fine = np.arange(2, dtype=np.float16)[:, None, None] + np.ones((2, 12, 2), np.float16)
        return SimpleNamespace(fine=fine)


def episode(name, *tags, split='train', **more):
    return replace(make_recording('lift', 0).episode, episode_id=name, tags=tags, split=split,
                   task_id='lift-the-red-mug', task_text=LIFT, **more)


def data_set(folder, episodes, *, things=True, said=SAID):
    if said:
        (folder / FILE_NAME).write_text(json.dumps([
            {'text': text, 'paraphrases': [f'{text}, please'], 'object': thing, 'place': place}
            for text, (thing, place) in said.items()]), 'utf-8')
    if things:
        write_things(folder, [(e.episode_id, [
            at('red-mug', (0.1, 0.1), (0.9, 0.1)), at('bowl', (0.1, 0.9), (0.4, 0.9)),
            at('blue', (0.6, 0.6), (0.6, 0.9))]) for e in episodes if e.episode_id != 'nowhere'])
    write_manifest(folder, episodes)
    return read_manifest(folder)


def load(data, rules=None, lines=None):
    return load_stills(data, Features(data.folder), VIEW, GRID, rules or read_splits(), Words(),
                       report=(lines if lines is not None else []).append)


TAGS = (STILL, f'{SO}{LIFT}', f'{NOT_SO}{PUT}', f'{SO}{OPEN}')


def test_stills_of_a_data_set(tmp_path):
    """Guards what is learned from: the stills of the training split, with all that is told."""
    data = data_set(tmp_path, [
        episode('one', *TAGS), episode('two', STILL, f'{NOT_SO}{OPEN}'),
        episode('attempt', f'{SO}{LIFT}'), episode('test', *TAGS, split='test_seen'),
        episode('not-encoded', *TAGS), episode('silent', STILL),
        episode('discarded', *TAGS, DISCARDED),
        episode('blind', *TAGS, robot_videos={'wrist': 'w.mp4'})])
    lines = []
    found = load(data, lines=lines)
    assert [still.episode_id for still in found.stills] == ['one', 'two']
    one = found.stills[0]
    assert one.goals == (LIFT, PUT, OPEN) and one.so.tolist() == [True, False, True]
    assert one.cells.tolist() == [[3, 0, -1], [3, 0, 9], [10, 6, -1]]
    assert one.fine.shape == (2, 12, 2) and one.fine[:, 0, 0].tolist() == [1.0, 2.0]
    assert found.texts == {text: (text, f'{text}, please') for text in SAID}
    assert set(found.vectors) == {text for ways in found.texts.values() for text in ways}
    np.testing.assert_allclose(found.mean, np.mean(list(found.vectors.values()), 0), atol=1e-6)
    assert '2 stills tell of 3 goals, by 6 texts' in lines
    # Texts are encoded once, and read from then on.
    before, lines = len(lines), []
    again = load(data, lines=lines)
    assert len(lines) < before
    for text, vector in found.vectors.items():
        np.testing.assert_array_equal(again.vectors[text], vector)
    for path in (tmp_path / 'features').iterdir():
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match='delete it, and texts are encoded anew'):
        load(data)


def test_what_is_held_out_is_not_told(tmp_path):
    """Guards tests of new instructions: stills tell of every one that could have been asked."""
    rules = replace(read_splits(), held_out={'test_object': HeldOut(tasks=('*-bowl',))})
    data = data_set(tmp_path, [
        episode('one', *TAGS), episode('two', STILL, f'{NOT_SO}{PUT}')])
    found = load(data, rules)
    assert [still.goals for still in found.stills] == [(LIFT, OPEN)]
    assert found.stills[0].so.tolist() == [True, True] and found.stills[0].cells.shape == (2, 3)
    assert not any('bowl' in text for text in found.vectors)
    named = replace(read_splits(), test_tasks=frozenset({'open-the-blue-drawer'}))
    assert not any('drawer' in text for text in load(data, named).vectors)


def test_no_stills_need_no_files(tmp_path):
    """Guards a second data set without stills: nothing is asked of it."""
    found = load(data_set(tmp_path, [episode('attempt')], things=False, said={}))
    assert found.stills == ()
    with pytest.raises(DataError, match='there is none to train on'):
        require_some(found.stills)


@pytest.mark.parametrize(('change', 'said'), [
    ({'things': False}, 'no things.parquet there'), ({'said': {}}, 'no instructions.json there'),
    ({'said': {LIFT: SAID[LIFT]}}, "one speaks of 'put the red mug in the bowl'"),
    ({'said': {**SAID, LIFT: ('green mug', '')}}, "one speaks of 'green-mug'")])
def test_files_that_do_not_go_together(tmp_path, change, said):
    """Guards a set that was copied in part, or made by two versions: one sentence."""
    with pytest.raises(DataError, match=said):
        load(data_set(tmp_path, [episode('one', *TAGS)], **change))


def test_a_still_of_which_nobody_says_where_things_are(tmp_path):
    """Guards a simulation that was interrupted: the still is named, and what completes it."""
    with pytest.raises(DataError, match=r'nowhere speaks of .*\(--resume\)'):
        load(data_set(tmp_path, [episode('one', *TAGS), episode('nowhere', *TAGS)]))


def test_stills_are_no_attempts(tmp_path):
    """Guards thresholds of a grounded head: two frames, seconds apart, are no episode."""
    data = data_set(tmp_path, [episode('one', *TAGS), episode('attempt')])
    grounded = SuccessOptions(grounded=True, split_file='splits.yaml')
    assert [e.episode_id for e in without_stills(data, grounded).episodes] == ['attempt']
    assert without_stills(data, SuccessOptions()) is data, 'other heads learn from them, too'


BATCH = replace(OPTIONS, grounded=True, split_file='splits.yaml', stills_per_step=16,
                texts_per_still=6)


def many(goals=9, so=5, count=40):
    """Make stills of many goals; the first are so."""
    stills = make_stills(count)
    names = tuple(f'goal {i}' for i in range(goals))
    vectors = {f'{name}{end}': np.eye(32, dtype=np.float32)[row]
               for row, name in enumerate(names) for end in ('', '!')}
    return Stills(tuple(Still(
        one.episode_id, one.fine, names, np.arange(goals) < so,
        np.arange(goals)[:, None].repeat(3, 1)) for one in stills.stills),
        {name: (name, f'{name}!') for name in names}, vectors)


def test_a_batch_is_a_function_of_seed_and_step():
    """Guards resuming: the batch of a step is the same whenever, and of others another one."""
    one, again = (StillBatches(many(), BATCH).load(7, Ranks()) for _ in range(2))
    for name, value in vars(one).items():
        assert value.equal(getattr(again, name)), name
    for other in (StillBatches(many(), BATCH).load(8, Ranks()),
                  StillBatches(many(), replace(BATCH, seed=1)).load(7, Ranks())):
        assert not other.text.equal(one.text) and not other.fine.equal(one.fine)


def test_a_batch_is_shared_among_ranks():
    """Guards training on two: both know all texts, and each has the tokens of its own stills."""
    source = StillBatches(many(), BATCH)
    whole = source.load(4, Ranks())
    halves = [source.load(4, Ranks(i, 2)) for i in range(2)]
    for half in halves:
        for name in ('text', 'so', 'used', 'cells'):
            assert getattr(half, name).equal(getattr(whole, name)), name
    assert all(len(half.fine) == 8 for half in halves)
    assert whole.fine[:8].equal(halves[0].fine) and whole.fine[8:].equal(halves[1].fine)


@pytest.mark.parametrize(('goals', 'so', 'good', 'bad'), [
    (9, 5, 3, 3), (9, 1, 1, 5), (9, 0, 0, 6), (9, 9, 3, 0), (4, 2, 2, 2), (1, 1, 1, 0)])
def test_half_of_the_texts_are_so(goals, so, good, bad):
    """Guards a head that would say no to everything: few goals are so, and half of those told."""
    batch = StillBatches(many(goals, so), BATCH).load(0, Ranks())
    used = batch.used > 0
    assert ((batch.so > 0) & used).sum(1).tolist() == [good] * 16
    assert ((batch.so == 0) & used).sum(1).tolist() == [bad] * 16
    # What is told goes with its text: goal i is the direction i, and its things are in cell i.
    goal = batch.text.argmax(-1)
    assert ((goal < so) == (batch.so > 0))[used].all()
    assert (batch.cells[used] == goal[used][:, None]).all()
    assert (batch.cells[~used] == -1).all() and not batch.text[~used].any()
    # No goal twice.
    for row in range(16):
        assert len(set(goal[row][used[row]].tolist())) == good + bad
