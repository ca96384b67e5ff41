# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Pairs: who goes with whom, and who never does."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
import random

from hralign_ros.data.manifest import DataError, DataSet, Episode
from hralign_ros.data.pairs import HOW, make_pairs
import pytest

TASKS, SCENES, SEEDS = 4, 3, 3


def episode(task, scene, seed, **changes):
    """Make a simulated episode with a paired human."""
    name = f't{task}-s{scene}-{seed}'
    values = {
        'episode_id': name, 'task_id': f't{task}', 'task_text': f'do {task}',
        'scene': f'train-{scene}', 'camera': 'front', 'embodiment': 'panda', 'source': 'test',
        'license_id': 'CC0-1.0', 'seed': seed, 'success': True, 'human_from': name,
        'robot_videos': {'third_person': f'{name}/third.mp4', 'wrist': f'{name}/wrist.mp4'},
        'human_video': f'{name}/human.mp4', 'human_span_s': (0.5, 2.0),
        'robot_span_s': (0.0, 4.0)}
    return Episode(**{**values, **changes})


def data_set(episodes=None):
    if episodes is None:
        episodes = [episode(t, s, i) for t in range(TASKS) for s in range(SCENES)
                    for i in range(SEEDS)]
    return DataSet(Path('/data'), tuple(episodes))


def test_recorded():
    """Guards the plain pair: both clips of one row, with everything known of them."""
    pairs = make_pairs(data_set([episode(0, 0, 0)]))
    assert len(pairs) == 1
    human, robot = pairs[0].human, pairs[0].robot
    assert (human.file, human.view, human.embodiment, human.span_s) == (
        't0-s0-0/human.mp4', 'third_person', 'human', (0.5, 2.0))
    assert (robot.file, robot.view, robot.embodiment, robot.span_s) == (
        't0-s0-0/third.mp4', 'third_person', 'panda', (0.0, 4.0))
    for clip in (human, robot):
        assert (clip.task_id, clip.task_text, clip.scene, clip.episode_id) == (
            't0', 'do 0', 'train-0', 't0-s0-0')


def test_keys_tell_parts_of_a_file_apart():
    """Guards a cache of clips: two episodes in one video file are two clips."""
    clip = make_pairs(data_set([episode(0, 0, 0)]))[0].robot
    assert clip.key == 't0-s0-0/third.mp4#t=0.000,4.000'
    assert replace(clip, span_s=()).key == clip.file
    assert replace(clip, span_s=(4.0, 8.0)).key != clip.key


def test_the_wrist_goes_with_the_same_human_clip():
    """Guards the wrist's stream: it has no human counterpart of its own."""
    for how in HOW:
        pairs = make_pairs(data_set(), how, views=('third_person', 'wrist'))
        assert len(pairs) == 2 * TASKS * SCENES * SEEDS
        for third, wrist in zip(pairs[::2], pairs[1::2], strict=True):
            assert (third.robot.view, wrist.robot.view) == ('third_person', 'wrist')
            assert third.robot.episode_id == wrist.robot.episode_id
            assert third.human == wrist.human and third.human.view == 'third_person'


@pytest.mark.parametrize('how', HOW)
def test_failures_are_never_paired(how):
    """Guards the meaning of a pair: neither clip shows a task that was not done."""
    good = data_set().episodes
    failed = [replace(episode(t, s, 9), success=False) for t in range(TASKS)
              for s in range(SCENES)]
    # A person who repeats a failure, recorded with another episode.
    copy = replace(episode(0, 0, 8), human_from=failed[0].episode_id)
    pairs = make_pairs(data_set([*good, *failed, copy]), how)
    assert pairs
    ids = {e.episode_id for e in failed}
    assert not ids & {p.robot.episode_id for p in pairs}
    assert not {f'{i}/human.mp4' for i in ids} & {p.human.file for p in pairs}
    assert copy.human_video not in {p.human.file for p in pairs}


def test_a_person_beside_a_failed_robot_still_counts():
    """Guards human clips that show their own motion: the robot's failure is not theirs."""
    failed = episode(0, 1, 0, success=False, human_from='')
    pairs = make_pairs(data_set([failed, episode(0, 0, 0)]), 'cross_scene')
    assert [p.human.file for p in pairs] == [failed.human_video]


def test_unknown_success_is_paired():
    """Guards recordings without labels."""
    assert len(make_pairs(data_set([episode(0, 0, 0, success=None)]))) == 1


def test_twin():
    """Guards same-trajectory pairs: only human clips that show the robot's own motion."""
    rows = [episode(0, 0, 0), episode(0, 0, 1, human_from=''),
            episode(0, 0, 2, human_from='t0-s0-0')]
    assert [p.robot.episode_id for p in make_pairs(data_set(rows), 'same_motion')] == ['t0-s0-0']
    assert len(make_pairs(data_set(rows))) == 3


def test_cross_seed():
    """Guards pairs of one task and place: never the robot's own motion."""
    pairs = make_pairs(data_set(), 'cross_seed')
    assert len(pairs) == TASKS * SCENES * SEEDS
    for pair in pairs:
        assert pair.human.task_id == pair.robot.task_id
        assert pair.human.scene == pair.robot.scene
        assert pair.human.episode_id != pair.robot.episode_id
    # A motion in another row is still the same motion.
    own = [episode(0, 0, 0, human_video='', human_from=''),
           episode(0, 0, 1, human_from='t0-s0-0', success=True)]
    assert {p.robot.episode_id for p in make_pairs(data_set(own), 'cross_seed')} == {'t0-s0-1'}


def test_other_cameras_of_a_recording_are_the_same_motion():
    """Guards multi-camera recordings: a second view of it is not another demonstration."""
    rows = [episode(0, 0, 0, episode_id=f'{name}#cam_{camera}', camera=camera, human_from='',
                    human_video=f'{name}/{camera}.mp4')
            for name in ('one', 'two') for camera in 'ab']
    alone = make_pairs(data_set(rows[:2]), 'cross_seed')
    assert alone == []
    pairs = make_pairs(data_set(rows), 'cross_seed')
    assert len(pairs) == 4
    for pair in pairs:
        human, robot = (clip.episode_id.split('#') for clip in (pair.human, pair.robot))
        assert human[1] == robot[1] and human[0] != robot[0]


def test_a_human_clip_that_rows_share_counts_once():
    """Guards the draw: five robots beside one person do not make that clip five times likelier."""
    shared = [episode(0, 1, i, human_video='shared.mp4', human_from='') for i in range(5)]
    robots = [episode(0, 0, i, human_video='') for i in range(300)]
    pairs = make_pairs(data_set([*shared, episode(0, 2, 0), *robots]), 'cross_scene')
    drawn = Counter(p.human.file for p in pairs if p.robot.scene == 'train-0')
    assert drawn.total() == 300 and 110 < drawn['shared.mp4'] < 190


def test_cross_scene():
    """Guards pairs across places."""
    pairs = make_pairs(data_set(), 'cross_scene')
    assert len(pairs) == TASKS * SCENES * SEEDS
    for pair in pairs:
        assert pair.human.task_id == pair.robot.task_id
        assert pair.human.scene != pair.robot.scene
    assert make_pairs(data_set([episode(0, 0, i) for i in range(3)]), 'cross_scene') == []


@pytest.mark.parametrize('sizes', [(9, 9, 9, 9), (1, 1), (5, 5), (6, 3, 3), (1, 2, 3, 1), (3, 1)])
def test_shuffled_never_has_the_same_task(sizes):
    """Guards the negative control, down to two tasks and to one that has half of everything."""
    rows = [episode(t, s, 0) for t, size in enumerate(sizes) for s in range(size)]
    surplus = max(0, 2 * max(sizes) - sum(sizes))
    for seed in range(30):
        pairs = make_pairs(data_set(rows), 'shuffled', seed=seed)
        assert len(pairs) == len(rows) - surplus
        assert all(p.human.task_id != p.robot.task_id for p in pairs)
        assert len({p.human.file for p in pairs}) == len(pairs), 'a human clip was dealt twice'
        if not surplus:
            assert {p.human.file for p in pairs} == {e.human_video for e in rows}


def test_shuffled_maps_no_task_to_one_other():
    """Guards the control: could one task be learnt for another, it would control nothing."""
    rows = [episode(t, s, 0) for t in range(4) for s in range(12)]
    met = Counter((p.robot.task_id, p.human.task_id)
                  for p in make_pairs(data_set(rows), 'shuffled'))
    assert max(met.values()) <= 9 and len(met) >= 10


def test_shuffled_of_one_task():
    """Guards against an endless search for what cannot be."""
    with pytest.raises(DataError, match='two tasks'):
        make_pairs(data_set([episode(0, s, 0) for s in range(3)]), 'shuffled')


@pytest.mark.parametrize('how', HOW)
def test_seeds(how):
    """Guards repeatability: by the seed, and not by the order of the rows."""
    data = data_set()
    pairs = make_pairs(data, how, seed=3)
    rows = list(data.episodes)
    random.Random(0).shuffle(rows)
    assert make_pairs(data_set(rows), how, seed=3) == pairs
    assert (make_pairs(data, how, seed=4) == pairs) == (how in ('recorded', 'same_motion'))


def test_wrong_requests():
    """Guards the messages: what was asked for and what there is."""
    with pytest.raises(DataError, match="'magic'.*recorded"):
        make_pairs(data_set(), 'magic')
    with pytest.raises(DataError, match='ceiling.*third_person, wrist'):
        make_pairs(data_set(), views=('ceiling',))


def test_rows_of_one_domain():
    """Guards unpaired rows: a person alone serves others, a robot alone gets a partner."""
    person = episode(0, 1, 0, robot_videos={}, embodiment='human', human_from='', success=None)
    robot = episode(0, 0, 0, human_video='', human_from='', human_span_s=())
    assert make_pairs(data_set([person, robot])) == []
    pairs = make_pairs(data_set([person, robot]), 'cross_scene')
    assert [(p.robot.episode_id, p.human.file) for p in pairs] == [
        (robot.episode_id, person.human_video)]
