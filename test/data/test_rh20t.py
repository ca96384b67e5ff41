# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""RH20T: the published layout is read whole, and nothing wrong in it ends the reading."""

import json
import shutil

from hralign_ros.data.importing import import_data
from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.pairs import make_pairs
from hralign_ros.data.rh20t import DESCRIPTIONS, EMBODIMENTS, IN_HAND, read_rh20t
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.video import read_frames
import numpy as np
import pytest
from support import rh20t_tree as tree


def read(root, **options):
    """Read quietly; return the episodes and the faults."""
    faults = Faults()
    return read_rh20t(root, report=lambda line: None, faults=faults, **options), faults


def only(root, name):
    """Make a tree of one scene that has this fault."""
    tree.make_tree(root, scenes=())
    tree.add_fault(root, name)
    return root


def test_good_scenes(rh20t):
    """Guards against a reader that leaves out a layout, a camera, or finds fault with nothing."""
    episodes, faults = read(rh20t)
    assert faults.found == []
    assert len(episodes) == len(tree.SCENES) * len(tree.GLOBAL)
    first = episodes[0]
    folder = tree.scene_name(1, 1, 3)
    assert first.episode_id == f'cfg3/{folder}#cam_{tree.GLOBAL[0]}'
    assert first.recording == f'cfg3/{folder}'
    assert (first.task_id, first.task_text) == ('task_0001', 'Press the button.')
    assert (first.scene, first.camera, first.embodiment) == (
        'cfg3-scene_0001', tree.GLOBAL[0], 'ur5')
    assert (first.source, first.license_id, first.seed) == ('rh20t', 'CC-BY-SA-4.0', None)
    assert first.robot_videos == {
        'third_person': f'RH20T_cfg3/{folder}/cam_{tree.GLOBAL[0]}/color.mp4',
        'wrist': f'RH20T_cfg3/{folder}/cam_{tree.HAND[3]}/color.mp4'}
    assert first.human_video == f'RH20T_cfg3/{folder}_human/cam_{tree.GLOBAL[0]}/color.mp4'
    assert first.human_from == ''
    deep = [e for e in episodes if e.episode_id.startswith('cfg5')]
    assert len(deep) == 6 and {e.embodiment for e in deep} == {'franka'}
    assert all(e.human_video.endswith('/color/color.mp4') for e in deep)
    for episode in episodes:
        for file in (*episode.robot_videos.values(), episode.human_video):
            assert (rh20t / file).is_file()


def test_trimming(rh20t):
    """Guards the clips' ends: what is outside the demonstration is not in them."""
    for episode in read(rh20t)[0]:
        _, human = read_frames(rh20t / episode.human_video, count=2, span_s=episode.human_span_s)
        _, robot = read_frames(rh20t / episode.robot_videos['third_person'], count=2,
                               span_s=episode.robot_span_s)
        assert np.allclose(human * tree.RATE_HZ, [tree.HUMAN_FROM, tree.HUMAN_TO])
        assert np.allclose(robot * tree.RATE_HZ, [0, tree.ROBOT_TO])


def test_proprioception(rh20t):
    """Guards the states: each frame gets the sample that was taken nearest to it."""
    episodes, _ = read(rh20t)
    for episode in episodes:
        assert np.allclose(episode.time_s, np.arange(tree.FRAMES) / tree.RATE_HZ)
        table = np.array(episode.proprio)
        assert table.shape == (tree.FRAMES, 8)
        # The second camera's frames are 7 ms later, which is one sample.
        late = 1 if episode.camera == tree.GLOBAL[1] else 0
        samples = 10 * np.arange(tree.FRAMES) + late
        assert np.allclose(table[:, 0], 0.01 * samples)
        assert np.allclose(table[:, 7], 110 - samples)


def test_in_hand_cameras_are_never_paired_by_themselves(rh20t):
    """Guards the pairs: the hand's camera is a view of an episode and no episode of its own."""
    episodes, _ = read(rh20t)
    assert not {e.camera for e in episodes} & {s for serials in IN_HAND.values() for s in serials}
    assert set(EMBODIMENTS) == set(IN_HAND)


@pytest.mark.parametrize('strict, expected', [(False, {9: True, 5: True, 2: True, 1: False}),
                                              (True, {9: True, 5: True, 2: None, 1: False})])
def test_ratings(tmp_path, strict, expected):
    """Guards the labels: a rating means what the publishers say, 0 and 1 failure."""
    tree.make_tree(tmp_path, scenes=[(1, scene + 1, 3, rating)
                                     for scene, rating in enumerate(expected)])
    episodes, _ = read(tmp_path, strict_success=strict)
    assert [e.success for e in episodes[::2]] == list(expected.values())


def test_zero_is_a_failure(tmp_path):
    """Guards against reading the emergency stop, rating 0, as no rating at all."""
    tree.make_tree(tmp_path, scenes=[(1, 1, 3, 0)])
    episodes, faults = read(tmp_path)
    assert [e.success for e in episodes] == [False, False] and not faults.found


def test_licence_filter(rh20t):
    """Guards commercial use: no file of a scene 0006 to 0010 is left."""
    episodes, faults = read(rh20t, commercial_only=True)
    assert len(episodes) == 6 and {e.license_id for e in episodes} == {'CC-BY-SA-4.0'}
    files = {file for e in episodes for file in (*e.robot_videos.values(), e.human_video)}
    assert not any('scene_0006' in file for file in files)
    assert faults.counts() == {'licence': 3}
    others = [e for e in read(rh20t)[0] if 'scene_0006' in e.scene]
    assert {e.license_id for e in others} == {'CC-BY-NC-4.0'}


@pytest.mark.parametrize('name', tree.FAULTS)
def test_fault(tmp_path, name):
    """Guards each line of the table of faults: what is counted, and what is left."""
    _, counts, kept, paired = tree.FAULTS[name]
    episodes, faults = read(only(tmp_path, name))
    assert faults.counts() == counts
    assert len(episodes) == kept
    assert sum(bool(e.human_video) for e in episodes) == paired


def test_what_a_fault_leaves_unknown(tmp_path):
    """Guards against values made up for what a broken file did not say."""
    for name in ('no rating', 'too few time stamps', 'empty in-hand video',
                 'states of another time', 'no time stamps'):
        (tmp_path / name).mkdir()
    assert {e.success for e in read(only(tmp_path / 'no rating', 'no rating'))[0]} == {None}
    few, whole = read(only(tmp_path / 'too few time stamps', 'too few time stamps'))[0]
    assert few.robot_span_s == few.time_s == few.proprio == ()
    assert len(whole.robot_span_s) == 2
    for episode in read(only(tmp_path / 'empty in-hand video', 'empty in-hand video'))[0]:
        assert list(episode.robot_videos) == ['third_person']
    for episode in read(only(tmp_path / 'states of another time', 'states of another time'))[0]:
        assert episode.proprio == () and len(episode.time_s) == tree.FRAMES
    human = read(only(tmp_path / 'no time stamps', 'no time stamps'))[0][0]
    assert human.human_span_s == () and human.robot_span_s


def test_all_faults_at_once(rh20t, tmp_path):
    """Guards the good scenes among bad ones, and the summary that a person reads."""
    root = tmp_path / 'RH20T'
    shutil.copytree(rh20t, root)
    expected = tree.add_faults(root)
    good = {e.episode_id for e in read(rh20t)[0]}
    lines = []
    faults = Faults()
    episodes = read_rh20t(root, report=lines.append, faults=faults)
    assert faults.counts() == expected
    assert good <= {e.episode_id for e in episodes}
    assert 'corrupt_video: 4' in lines and '  and 1 more' in lines
    assert all(str(root) not in fault.path for fault in faults.found)


def test_a_pickle_that_runs_something(rh20t, tmp_path):
    """Guards the machine: time stamps that name a function are refused, and nothing is run."""
    class Evil:

        def __reduce__(self):
            return (open, (str(tmp_path / 'touched'), 'w'))

    root = tree.make_tree(tmp_path / 'RH20T', scenes=[(1, 1, 3, 9)])
    folder = tree.scene_folder(root, 1, 1, 3)
    np.save(folder / f'cam_{tree.GLOBAL[0]}' / 'timestamps.npy', np.array(Evil(), object),
            allow_pickle=True)
    np.save(folder / 'transformed' / 'gripper.npy', np.array({'x': Evil()}, object))
    episodes, faults = read(root)
    assert not (tmp_path / 'touched').exists()
    assert faults.counts() == {'no_timestamps': 1, 'no_state': 1} and len(episodes) == 2
    assert 'io.open' in faults.found[0].text


def test_unknown_folders_and_tasks(tmp_path):
    """Guards against guessing: what is not described is skipped by name."""
    root = tree.make_tree(tmp_path, scenes=[(1, 1, 3, 9), (9, 1, 3, 9)])
    (root / 'RH20T_cfg3' / 'task_of_mine').mkdir()
    (root / 'RH20T_cfg3' / tree.scene_name(1, 1, 8)).mkdir()
    episodes, faults = read(root)
    assert {e.task_id for e in episodes} == {'task_0001'}
    assert faults.counts() == {'folder_name': 2, 'no_task_text': 1}


def test_one_configuration_as_the_root(rh20t):
    """Guards a download of one configuration: the same episodes, named from its own folder."""
    whole = [e for e in read(rh20t)[0] if e.episode_id.startswith('cfg3')]
    alone, faults = read(rh20t / 'RH20T_cfg3')
    assert not faults.found and [e.episode_id for e in alone] == [e.episode_id for e in whole]
    assert all(f'RH20T_cfg3/{a.human_video}' == w.human_video
               for a, w in zip(alone, whole, strict=True))


def test_what_is_not_rh20t(tmp_path):
    """Guards the messages: what to do about a wrong folder or missing descriptions."""
    with pytest.raises(DataError, match='RH20T_cfg1'):
        read(tmp_path)
    (tmp_path / 'RH20T_cfg1').mkdir()
    with pytest.raises(DataError, match='https://rh20t.github.io'):
        read(tmp_path)
    (tmp_path / DESCRIPTIONS).write_text(json.dumps(['task']), encoding='utf-8')
    with pytest.raises(DataError, match='not the task descriptions'):
        read(tmp_path)


def test_import(rh20t, tmp_path):
    """Guards the way to training: manifest, splits and pairs of the miniature tree."""
    root = tmp_path / 'RH20T'
    shutil.copytree(rh20t, root)
    import_data('rh20t', root, report=lambda line: None)
    data = read_manifest(root)
    assert len(data.episodes) == 12 and all(e.split for e in data.episodes)
    by_recording = {}
    for episode in data.episodes:
        by_recording.setdefault(episode.recording, set()).add(episode.split)
    assert all(len(splits) == 1 for splits in by_recording.values())
    pairs = make_pairs(data, views=('third_person', 'wrist'))
    assert len(pairs) == 24
    for pair in pairs:
        assert data.path(pair.human.file).is_file() and data.path(pair.robot.file).is_file()
        if pair.robot.view == 'third_person':
            assert pair.human.file == pair.robot.file.replace('/cam_', '_human/cam_')
    cross = make_pairs(data, 'cross_scene')
    assert len(cross) == 12
    assert all(p.human.scene != p.robot.scene and p.human.task_id == p.robot.task_id
               for p in cross)
