# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Splits: what is held out is held out everywhere."""

from hralign_ros.data.manifest import DataError
from hralign_ros.data.splits import read_splits, SCENE_KINDS, SPLITS
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
    path.write_text(yaml.safe_dump({**values, **changes}), encoding='utf-8')
    return path


@pytest.mark.parametrize('changes, message', [
    ({'more': 1}, 'exactly the keys'),
    ({'schema_version': 2}, 'schema 2'),
    ({'validation_tasks': ['a']}, 'two splits'),
    ({'seeds': {'calibration': [8], 'test_seen': [8]}}, 'two splits'),
    ({'seeds': {'calibration': [8]}}, 'test_seen'),
    ({'scenes': {'moon': 1}}, 'moon'),
    ({'scenes': ['train']}, 'split file'),
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


@pytest.mark.parametrize('scene', ['test', 'view', 'validation', 'view-of-the-lab', 'test-bench'])
def test_a_place_of_ones_own_is_no_kind_of_scene(scene):
    """Guards imported recordings: a folder called test was a test scene, with all in it."""
    assert of(scene=scene, seed=0) == 'train'
