# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Folders of videos: the folder names are enough, labels.csv says the rest."""

import unicodedata

from hralign_ros.data.folders import read_folders
from hralign_ros.data.importing import import_data
from hralign_ros.data.manifest import DataError, read_manifest
from hralign_ros.data.pairs import make_pairs
from hralign_ros.data.skipped import Faults
from hralign_ros.runtime.resources import find_share
from hralign_ros.runtime.video import write_video
import numpy as np
import pytest
import yaml


def add(root, *names):
    for name in names:
        write_video(root / name, [np.zeros((16, 16, 3), np.uint8)] * 3, 10)
    return root


def read(root, **options):
    faults = Faults()
    return read_folders(root, report=lambda line: None, faults=faults, **options), faults


def test_names_are_enough(tmp_path):
    """Guards the simplest use: two folders deep, and no file besides the videos."""
    add(tmp_path, 'open_the drawer/001/human.mp4', 'open_the drawer/001/third_person.mp4',
        'open_the drawer/001/wrist.mp4', 'open_the drawer/002/human.MP4',
        'Push it/a/third_person.mkv')
    (tmp_path / 'Push it' / 'a' / 'notes.txt').write_text('x')
    (tmp_path / '.cache' / 'x').mkdir(parents=True)
    episodes, faults = read(tmp_path, license_id='CC0-1.0', embodiment='panda')
    assert not faults.found
    push, pair, person = episodes
    assert [e.episode_id for e in episodes] == [
        'Push it/a', 'open_the drawer/001', 'open_the drawer/002']
    assert (pair.task_text, pair.task_id) == ('open the drawer', 'open-the-drawer')
    assert pair.robot_videos == {'third_person': 'open_the drawer/001/third_person.mp4',
                                 'wrist': 'open_the drawer/001/wrist.mp4'}
    assert pair.human_video == 'open_the drawer/001/human.mp4' and pair.success is None
    assert (pair.embodiment, person.embodiment, pair.license_id) == ('panda', 'human', 'CC0-1.0')
    assert person.robot_videos == {} and push.human_video == ''


def test_a_folder_with_the_mark_of_cameras(tmp_path):
    """Guards "take #1", "take #2": all of them were one recording by several cameras."""
    add(tmp_path, *(f'push/take #{i}/third_person.mp4' for i in range(12)))
    (tmp_path / 'labels.csv').write_text('episode,success\npush/take #3,yes\n')
    episodes, faults = read(tmp_path)
    assert len({e.recording for e in episodes}) == 12 and not faults.found
    assert [e.success for e in episodes if e.success is not None] == [True]


def test_labels(tmp_path):
    """Guards the table: it overrules the folder's name, and says how an episode ended."""
    add(tmp_path, *(f'push/{i}/third_person.mp4' for i in range(4)))
    (tmp_path / 'labels.csv').write_text(
        '\ufeffepisode,task_text,success,failure,scene,embodiment,license_id\n'
        'push/0,"Push the box, gently",Yes,,kitchen,ur5,MIT\npush/1,,no,slip,,,\npush/2,,,,,,\n'
        'push/9,,,,,,\n', encoding='utf-8')
    episodes, faults = read(tmp_path)
    assert [e.success for e in episodes] == [True, False, None, None]
    first, second = episodes[:2]
    assert (first.task_text, first.task_id) == ('Push the box, gently', 'push-the-box-gently')
    assert (first.scene, first.embodiment, first.license_id) == ('kitchen', 'ur5', 'MIT')
    assert (second.task_text, second.failure, second.scene) == ('push', 'slip', 'default')
    assert [(f.kind, f.path) for f in faults.found] == [('no_episode', 'push/9')]


def test_names_of_files(tmp_path):
    """
    Guards the views: those of other suffixes were left out without a word, others renamed.

    Wrist.MP4 was another view than wrist.mp4, and Human.mp4 a robot's. What is not read is said.
    """
    add(tmp_path, 'push/1/Human.mp4', 'push/1/third-person.mp4', 'push/1/Wrist.MP4',
        'push/2/Third Person.m4v', 'push/2/side-view.ts', 'push/2/wrist.3gp')
    (tmp_path / 'push/2/more.asf').write_bytes(b'x')
    said, faults = [], Faults()
    first, second = read_folders(tmp_path, report=said.append, faults=faults)
    assert first.robot_videos == {'third_person': 'push/1/third-person.mp4',
                                  'wrist': 'push/1/Wrist.MP4'}
    assert first.human_video == 'push/1/Human.mp4'
    assert sorted(second.robot_videos) == ['side-view', 'third_person', 'wrist']
    assert faults.counts() == {'other_video': 1}
    assert 'views: third_person 2, wrist 2, side-view 1' in said


def test_letters_in_pieces(tmp_path):
    """Guards folders of macOS, where an Ö is an O and its dots: they missed their labels."""
    apart = unicodedata.normalize('NFD', 'Öffne die Tür')
    add(tmp_path, f'{apart}/1/third_person.mp4')
    for text in ('Öffne die Tür', apart):
        (tmp_path / 'labels.csv').write_text(f'episode,success\n{text}/1,no\n')
        (episode,), faults = read(tmp_path)
        assert (episode.success, episode.task_text) == (False, 'Öffne die Tür')
        assert not faults.found and (tmp_path / episode.robot_videos['third_person']).is_file()


def test_success_flags(tmp_path):
    """
    Guards training a success head on one's own videos: frames have to say when it is done.

    Imported folders had no flags, whatever labels.csv said, and all of them were left out of
    training once they had been encoded.
    """
    add(tmp_path, *(f'push/{i}/{view}.mp4' for i in range(5)
                    for view in ('wrist', 'third_person')), 'push/5/human.mp4')
    (tmp_path / 'labels.csv').write_text(
        'episode,success,done_s,failed_s\npush/0,yes,0.1,\npush/1,no,,0.15\npush/2,yes,,\n'
        'push/3,yes,7,\npush/5,yes,0,\n', encoding='utf-8')
    lines = []
    faults = Faults()
    episodes = read_folders(tmp_path, report=lines.append, faults=faults)
    assert [list(e.success_flags) for e in episodes] == [
        [False, True, True], [False] * 3, [], [], [], []]
    assert episodes[0].time_s == pytest.approx([0.0, 0.1, 0.2])
    assert (episodes[1].fault_s, episodes[0].fault_s) == (0.15, None)
    assert [(f.kind, f.path) for f in faults.found] == [('done_after_end', 'push/3')]
    assert '2 with success flags' in lines[0]
    import_data('folders', tmp_path, report=lambda line: None)
    assert list(read_manifest(tmp_path).episodes[0].success_flags) == [False, True, True]


def test_sessions_and_splits(tmp_path):
    """Guards what labels.csv says of them, and what it wants left out."""
    add(tmp_path, *(f'push/{i}/third_person.mp4' for i in range(4)))
    (tmp_path / 'labels.csv').write_text(
        'episode,success,time_s,session,split\npush/0,success,0.1,a,validation\n'
        'push/1,failure,,a,\npush/2,discard,,,\n')
    import_data('folders', tmp_path, report=lambda line: None)
    first, second, third = read_manifest(tmp_path).episodes
    assert (first.split, second.split, third.episode_id) == (
        'validation', 'validation', 'push/3')
    assert (first.session, first.success_s, third.session) == ('a', 0.1, '')


def test_videos_of_two_recorders(tmp_path):
    """
    Guards videos that were started by hand: they are matched by the seconds since each began.

    One that ends earlier was stretched over the other; that is said before hours of training.
    """
    add(tmp_path, 'push/0/third_person.mp4')
    write_video(tmp_path / 'push/0/wrist.mp4', [np.zeros((16, 16, 3), np.uint8)] * 3, 10)
    write_video(tmp_path / 'push/1/wrist.mp4', [np.zeros((16, 16, 3), np.uint8)] * 10, 10)
    write_video(tmp_path / 'push/1/third_person.mp4', [np.zeros((16, 16, 3), np.uint8)] * 20, 10)
    (tmp_path / 'labels.csv').write_text('episode,success\npush/0,no\npush/1,no\n')
    episodes, faults = read(tmp_path)
    assert len(episodes) == 2
    assert [(f.kind, f.path) for f in faults.found] == [('views_apart', 'push/1')]
    assert 'begin and end together' in faults.found[0].text


def test_what_cannot_be_used(tmp_path):
    """Guards the reports: broken, empty and doubled files end nothing."""
    add(tmp_path, 'push/1/human.mp4', 'push/1/third_person.mkv', 'push/1/third_person.mp4')
    for name in ('push/1/wrist.mp4', 'push/2/human.mp4'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'no video')
    (tmp_path / 'push' / '3').mkdir()
    episodes, faults = read(tmp_path)
    assert [e.episode_id for e in episodes] == ['push/1']
    assert list(episodes[0].robot_videos) == ['third_person']
    assert faults.counts() == {'corrupt_video': 2, 'no_video': 2, 'two_videos': 1}


@pytest.mark.parametrize('text, message', [
    ('name\npush/1\n', 'needed is episode'),
    ('episode,colour\npush/1,red\n', 'colour'),
    ('episode,success\npush/1,perhaps\n', "line 2: success is 'perhaps'"),
    ('episode\npush/1\npush/1/\n', "line 3: 'push/1' is named twice"),
    ('episode,success,done_s\npush/1,yes,soon\n', "line 2: done_s is 'soon'"),
    ('episode,success,failed_s\npush/1,no,-1\n', "line 2: failed_s is '-1'"),
    ('episode,success,done_s\npush/1,no,3\n', 'done_s is given, and success is not yes'),
    ('episode\npush/1,yes\n', 'line 2: more values'),
    ('', 'needed is episode'),
])
def test_labels_that_are_refused(tmp_path, text, message):
    """Guards labels against being read as something else."""
    add(tmp_path, 'push/1/human.mp4')
    (tmp_path / 'labels.csv').write_text(text, encoding='utf-8')
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_import(tmp_path):
    """Guards the manifest beside and above the videos: its files are found from where it lies."""
    source = add(tmp_path / 'mine', 'push/1/human.mp4', 'push/1/third_person.mp4')
    for output in (None, tmp_path):
        path = import_data('folders', source, output, report=lambda line: None)
        assert path.parent == (output or source)
        data = read_manifest(path)
        pair, = make_pairs(data)
        assert data.path(pair.human.file) == source / 'push/1/human.mp4'
        assert data.path(pair.robot.file) == source / 'push/1/third_person.mp4'
        assert data.episodes[0].split in ('train', 'calibration', 'test_seen')


def test_import_elsewhere(tmp_path):
    """Guards the message for a disk that nothing can be written to, and the way it shows."""
    source = add(tmp_path / 'mine', 'push/1/human.mp4')
    output = tmp_path / 'other'
    output.mkdir()
    with pytest.raises(DataError, match='ln -s'):
        import_data('folders', source, output)
    (output / 'mine').symlink_to(source)
    data = read_manifest(import_data('folders', output / 'mine', output, report=lambda _: None))
    assert data.episodes[0].human_video == 'mine/push/1/human.mp4'


def test_imports_that_are_refused(tmp_path):
    """Guards against an empty manifest."""
    with pytest.raises(DataError, match='folders, lerobot, rh20t'):
        import_data('magic', tmp_path)
    with pytest.raises(DataError, match='no such folder'):
        import_data('folders', tmp_path / 'none')
    with pytest.raises(DataError, match='no episode'):
        import_data('folders', tmp_path, report=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_an_import_does_not_replace_what_it_has_not_read(tmp_path):
    """
    Guards a manifest: a second import below one folder left only its own episodes, silently.

    The same source again is a new look at it, and may be.
    """
    for name in ('a', 'b'):
        add(tmp_path / name, 'push/1/third_person.mp4')
    import_data('folders', tmp_path / 'a', tmp_path, report=str)
    import_data('folders', tmp_path / 'a', tmp_path, report=str)
    with pytest.raises(DataError, match="1 episodes of something else .'push/1' of folder"):
        import_data('folders', tmp_path / 'b', tmp_path, report=str)
    import_data('folders', tmp_path / 'b', report=str)
    assert len(read_manifest(tmp_path).episodes) == 1


def test_a_split_file_that_names_nothing_there(tmp_path):
    """Guards a misspelt task of a split file: it was trained on, and nobody was told."""
    add(tmp_path, 'open the drawer/1/third_person.mp4', 'push it/1/third_person.mp4')
    rules = yaml.safe_load(find_share('config/splits.yaml').read_text('utf-8'))
    rules |= {'test_tasks': ['open the drawer'], 'validation_tasks': ['push-id'],
              'test_embodiments': []}
    (tmp_path / 'own.yaml').write_text(yaml.safe_dump(rules))
    lines = []
    import_data('folders', tmp_path, splits=tmp_path / 'own.yaml', report=lines.append)
    assert any('no episode has the task push-id; there are: open-the-drawer, push-it' in line
               for line in lines)
    assert [e.split for e in read_manifest(tmp_path).episodes][0] == 'test_task'


def test_videos_of_a_robot_that_the_shipped_splits_hold_out(tmp_path):
    """Somebody imports a UR5e with the shipped split file, which keeps that robot for the test."""
    add(tmp_path, *(f'push it/{i}/third_person.mp4' for i in range(3)))
    lines = []
    import_data('folders', tmp_path, embodiment='ur5e', report=lines.append)
    assert 'splits: test_embodiment 3; held-out robots: ur5e' in lines
    assert any(line.startswith('no episode trains: ') and '--split-file FILE' in line
               for line in lines)
    with pytest.raises(DataError, match='no episode of split train; .* held-out robots: ur5e'):
        read_manifest(tmp_path).of_split('train')
