# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Splits: what is held out is held out everywhere."""

from collections import Counter
from dataclasses import replace

from hralign_ros.data.manifest import DataError, Episode
from hralign_ros.data.splits import read_splits, SCENE_KINDS, share_out, SHARES, SPLITS
from hypothesis import given
from hypothesis import strategies as st
import pytest
import yaml

RULES = read_splits()
HELD_OUT = sorted(RULES.test_tasks | RULES.validation_tasks)
SCENES = st.builds('{}-{}'.format, st.sampled_from(SCENE_KINDS), st.integers(0, 99))
SEEDS = st.none() | st.integers(0, 10**6)


def of(task='open-the-drawer', scene='train-0', embodiment='panda', seed=0, episode_id='e'):
    return RULES.of(task_id=task, scene=scene, embodiment=embodiment, seed=seed,
                    episode_id=episode_id)


@given(st.sampled_from(HELD_OUT), SCENES, SEEDS, st.text(min_size=1),
       st.sampled_from(['panda', 'sawyer', 'ur5e']))
def test_a_held_out_task_is_never_trained_on(task, scene, seed, name, embodiment):
    """Guards the results: in no scene, by no seed, with no robot."""
    split = of(task, scene, embodiment, seed, name)
    assert split not in ('train', 'calibration', 'test_seen')
    if embodiment not in RULES.test_embodiments:
        assert split == ('test_task' if task in RULES.test_tasks else 'validation')


@pytest.mark.parametrize('name', ['Open the drawer', 'open-the-drawer', 'open the drawer.'])
def test_tasks_may_be_written_as_instructions(tmp_path, name):
    """Guards a held-out task: a folder's name, in place of its short form, was trained on."""
    write(tmp_path / 's.yaml', test_tasks=[name])
    rules = read_splits(tmp_path / 's.yaml')
    for task in ('open-the-drawer', 'open the drawer'):
        assert rules.of(task_id=task, scene='a', embodiment='panda', seed=0,
                        episode_id='e') == 'test_task'


@given(st.sampled_from([kind for kind in SCENE_KINDS if kind != 'train']), st.integers(0, 99),
       SEEDS)
def test_a_test_scene_is_never_trained_in(kind, number, seed):
    """Guards the scenes: nor is anything calibrated in them."""
    split = of(scene=f'{kind}-{number}', seed=seed)
    assert split == {'validation': 'validation', 'test': 'test_seen', 'view': 'test_view',
                     'distractor': 'test_distractor'}[kind]


@given(st.text(min_size=1), SCENES, SEEDS)
def test_a_test_robot_is_never_trained_on(task, scene, seed):
    """Guards the embodiments."""
    for embodiment in RULES.test_embodiments:
        assert of(task, scene, embodiment, seed) == 'test_embodiment'


def test_seeds_part_the_rest():
    """Guards the shares: of ten seeds one calibrates, one tests, eight train."""
    splits = [of(seed=seed) for seed in range(20)]
    assert splits == ([*['train'] * 8, 'calibration', 'test_seen']) * 2
    assert set(splits) <= set(SPLITS)


def test_without_a_seed_the_recording_decides():
    """Guards recordings: all cameras of one go together, and all splits come about."""
    for number in range(50):
        cameras = {of(seed=None, episode_id=f'r{number}#cam_{camera}') for camera in range(8)}
        assert len(cameras) == 1
    assert {of(seed=None, episode_id=f'r{n}') for n in range(200)} == {
        'train', 'calibration', 'test_seen'}


def write(path, **changes):
    values = {'schema_version': 1, 'test_embodiments': [], 'test_tasks': ['a'],
              'validation_tasks': ['b'], 'scenes': {'train': 3},
              'seeds': {'calibration': [8], 'test_seen': [9]}}
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False), encoding='utf-8')
    return path


@pytest.mark.parametrize('changes, message', [
    ({'more': 1}, 'exactly the keys'),
    ({'schema_version': 2}, 'schema 2'),
    ({'validation_tasks': ['a']}, 'two splits'),
    ({'seeds': {'calibration': [8], 'test_seen': [8]}}, 'two splits'),
    ({'seeds': {'calibration': [8]}}, 'test_seen'),
    ({'scenes': {'moon': 1}}, 'moon'),
    ({'scenes': ['train']}, 'split file'),
    ({'held_out': {'test_moon': {'tasks': ['a']}}}, 'held_out has test_moon; allowed are train'),
    ({'held_out': {'test_lab': {'rooms': ['a']}}}, 'rooms'),
    ({'held_out': {'test_lab': ['a']}}, 'split file'),
])
def test_files_that_are_refused(tmp_path, changes, message):
    """Guards the one file that everything is split by."""
    with pytest.raises(DataError, match=message):
        read_splits(write(tmp_path / 's.yaml', **changes))


def test_a_file_of_ones_own(tmp_path):
    """Guards the option: another file's rules are used, the shipped one's are not."""
    rules = read_splits(write(tmp_path / 's.yaml'))
    assert (rules.test_tasks, rules.scenes) == (frozenset('a'), {'train': 3})
    with pytest.raises(DataError, match='none'):
        read_splits(tmp_path / 'none.yaml')


def test_patterns_hold_out_by_name(tmp_path):
    """Guards things and labs that are held out: the first rule that fits decides."""
    rules = read_splits(write(tmp_path / 's.yaml', test_embodiments=['ur5e'], held_out={
        'test_object': {'tasks': ['*-duck*']}, 'test_lab': {'scenes': ['test-*']}}))

    def split(task, scene='train-1', embodiment='panda'):
        return rules.of(task_id=task, scene=scene, embodiment=embodiment, seed=0, episode_id='e')

    assert split('Lift the duck') == split('lift-the-duck', 'test-1') == 'test_object'
    assert split('lift-the-cube') == 'train' and split('lift-the-cube', 'test-1') == 'test_lab'
    assert split('a') == 'test_task' and split('lift-the-duck', embodiment='ur5e') == (
        'test_embodiment')
    assert [rules.of_task(task) for task in ('lift the duck', 'a', 'b', 'c')] == [
        'test_object', 'test_task', 'validation', '']


@pytest.mark.parametrize('scene', ['test', 'view', 'validation', 'view-of-the-lab', 'test-bench'])
def test_a_place_of_ones_own_is_no_kind_of_scene(scene):
    """Guards imported recordings: a folder called test was a test scene, with all in it."""
    assert of(scene=scene, seed=0) == 'train'


def attempts(count, task='push', **more):
    """Make as many successes and as many failures."""
    return [Episode(
        episode_id=f'{task}-{i:03d}', task_id=task, task_text=task, scene='lab', camera='c',
        embodiment='panda', source='rosbag', license_id='', success=i % 2 == 0,
        **{name: make(i) for name, make in more.items()}) for i in range(2 * count)]


def shared(episodes, before=None, balance=True):
    said = []
    out = share_out(RULES, episodes, before=before or {}, balance=balance, report=said.append)
    return {e.episode_id: e.split for e in out}, out, said


@pytest.mark.parametrize('count', [3, 5, 10, 50, 200])
def test_every_split_has_both_kinds(count):
    """
    Guards small sets: ten attempts of each kind left nothing to calibrate on.

    The calibration split was one attempt in ten, by chance; that was noticed after training.
    """
    _, out, said = shared(attempts(count))
    counts = Counter((e.split, e.success) for e in out)
    assert all(counts[split, kind] for split in SHARES for kind in (True, False))
    assert set(dict.fromkeys(e.split for e in out)) == set(SHARES) and not said


def test_what_is_missing_is_said():
    """Guards two attempts of each kind: an hour of training later it would be known."""
    for episodes, words in ((attempts(2), 'test_seen has no success, test_seen has no failure'),
                            (attempts(9)[::2], 'train has no failure, calibration has no')):
        said, = shared(episodes)[2]
        assert words in said and 'task push' in said
    assert not shared([replace(e, success=None) for e in attempts(5)])[2]


def test_splits_stay_when_attempts_are_added():
    """Guards against training on what a test had used before."""
    some = attempts(4)
    before, _, _ = shared(some)
    after, _, _ = shared(attempts(40), before)
    assert all(after[name] == split for name, split in before.items())
    # Where a split file is given, it decides.
    ruled, _, _ = shared(some, before, balance=False)
    assert ruled == {e.episode_id: RULES.of(
        task_id=e.task_id, scene=e.scene, embodiment=e.embodiment, seed=None,
        episode_id=e.episode_id) for e in some}


@pytest.mark.parametrize('count', [6, 40, 200])
def test_a_session_is_in_one_split(count):
    """Guards against takes that are alike on both sides of a split."""
    episodes = attempts(count, session=lambda i: f's{i // 4}') + attempts(
        count, task='pull', session=lambda i: f's{i // 4}')
    for balance in (True, False):
        _, out, _ = shared(episodes, balance=balance)
        sessions = {}
        for episode in out:
            sessions.setdefault(episode.session, set()).add(episode.split)
        assert all(len(splits) == 1 for splits in sessions.values())


def test_a_session_with_a_task_that_is_held_out():
    """Guards what is held out: the session's other tasks train nothing either."""
    held = sorted(RULES.test_tasks)[0]
    _, out, said = shared(attempts(3, session=lambda i: 's') + attempts(
        1, task=held, session=lambda i: 's'), balance=False)
    assert {(e.task_id, e.split) for e in out} == {('push', ''), (held, 'test_task')}
    assert any('their session is held back as test_task' in line for line in said)


def test_splits_that_labels_give():
    """Guards what somebody decided: it stays, and its session goes with it."""
    episodes = attempts(6, session=lambda i: f's{i // 2}')
    episodes[0] = replace(episodes[0], split='test_view')
    splits, _, _ = shared(episodes)
    assert splits['push-000'] == splits['push-001'] == 'test_view'
    episodes[1] = replace(episodes[1], split='train')
    with pytest.raises(DataError, match="session 's0' is given the splits test_view and train"):
        shared(episodes)
