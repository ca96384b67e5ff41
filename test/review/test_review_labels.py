# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is said on the page, in the manifest's rows and in the tables of imports."""

from dataclasses import replace
import json

from hralign_ros.data.manifest import DataError
from hralign_ros.review.label_table import place_of, write_label
from hralign_ros.review.labels import human, Label, label_of, labelled
from hralign_ros.runtime.labels import DISCARD, FAILURE, SUCCESS
import pytest
from support.review_data import episode, TIMES

ANN = 'human:ann'


def test_a_time_makes_flags():
    """Guards the flags that a success head learns from: from the frame shown on, and no other."""
    row = labelled(episode(1), Label(SUCCESS, 1.2, ANN), TIMES)
    assert row.success and row.success_flags == [False] * 6 + [True] * 4
    assert row.time_s == list(TIMES) and label_of(row) == Label(SUCCESS, 1.2, ANN)


def test_a_success_without_a_time_has_no_flags():
    """Guards against frames that are called accomplished because nobody said when it was."""
    timed = labelled(episode(1), Label(SUCCESS, 1.2, ANN), TIMES)
    row = labelled(timed, Label(SUCCESS, None, ANN))
    assert row.success and row.success_flags == [] and label_of(row).time_s is None


def test_labels_replace_each_other():
    """Guards changes of mind: nothing of the label before is left."""
    simulated = episode(1, time_s=TIMES, success=False, success_flags=[False] * 10,
                        failure='dropped', fault_s=0.6, progress=[0.1] * 10, tags=['distractor'])
    assert labelled(simulated, Label(FAILURE, by=ANN)).progress == simulated.progress
    row = labelled(simulated, Label(SUCCESS, 0.0, ANN))
    assert row.failure == '' and row.fault_s is None and not row.progress
    row = labelled(row, Label(DISCARD, by='human:bob'))
    assert row.success is None and row.success_flags == []
    assert list(row.tags) == ['distractor', 'discard', 'by:human:bob']
    row = labelled(row, Label())
    assert label_of(row) == Label() and list(row.tags) == ['distractor']


def test_a_frame_after_the_last_number():
    """Guards views that end later than the row: its last frame shows the success."""
    row = labelled(episode(1, time_s=TIMES[:5]), Label(SUCCESS, 1.8, ANN), TIMES)
    assert row.success_flags == [False] * 4 + [True]


@pytest.mark.parametrize('name', [' ', 'a\nb', 'x' * 101])
def test_names(name):
    """Guards the table of labels against names that break its lines."""
    assert human('Ann Lee') == 'human:Ann Lee' and human().startswith('human:')
    with pytest.raises(DataError, match='--name'):
        human(name)


def table(folder, text, label, number=1, **values):
    (folder / 'labels.csv').write_bytes(text.encode())
    write_label(place_of(folder, episode(number, **values)), label)
    return (folder / 'labels.csv').read_bytes().decode()


def test_a_table_keeps_the_rest(tmp_path):
    """Guards what people have in their table: columns, lines, order, a spreadsheet's separator."""
    said = table(
        tmp_path, 'note;episode;success;done_s;operator\r\nx;pick up the cup/001;no;;"A; B"\r\n'
        ';pick up the cup/002;yes;1,5;C\r\n', Label(SUCCESS, 0.4, ANN))
    assert said == ('note;episode;success;done_s;operator;by\r\n'
                    'x;pick up the cup/001;success;0,400;"A; B";human:ann\r\n'
                    ';pick up the cup/002;yes;1,5;C;\r\n')


def test_letters_in_pieces(tmp_path):
    """Guards tables of systems that write ü as u and two dots: it is the same episode."""
    lines = 'episode,success\nTu\u0308r/001,no\n'
    said = table(tmp_path, lines, Label(SUCCESS, None, ANN), robot_videos={
        'wrist': 'T\u00fcr/001/wrist.mp4'})
    assert said == 'episode,success,time_s,by\nTu\u0308r/001,success,,human:ann\n'


def test_a_table_is_made(tmp_path):
    """Guards labels against the next import, which takes them from the table alone."""
    place = place_of(tmp_path, episode(2))
    write_label(place, Label())
    assert not (tmp_path / 'labels.csv').exists()
    write_label(place, Label(FAILURE, by=ANN))
    assert (tmp_path / 'labels.csv').read_text() == (
        'episode,success,time_s,note,by\npick up the cup/002,failure,,,human:ann\n')
    write_label(place, Label())
    assert (tmp_path / 'labels.csv').read_text() == 'episode,success,time_s,note,by\n'


def test_a_failure_and_its_kind(tmp_path):
    """Guards what only a failure has: an import refuses it of a success."""
    lines = 'episode,success,time_s,failure,failed_s\npick up the cup/001,no,,dropped,0.6\n'
    assert ',failure,,dropped,0.6,' in table(tmp_path, lines, Label(FAILURE, by=ANN))
    assert ',success,1.000,,,' in table(tmp_path, lines, Label(SUCCESS, 1.0, ANN))


def test_two_lines_about_one_episode(tmp_path):
    """Guards against an older line that would count again."""
    said = table(
        tmp_path, 'episode,success,time_s,note,by\npick up the cup/001,success,1,,human:bob\n'
        'pick up the cup/001,failure,,late,human:bob\n', Label(SUCCESS, None, ANN))
    assert said == ('episode,success,time_s,note,by\n'
                    'pick up the cup/001,success,,late,human:ann\n')


def test_no_table(tmp_path):
    """Guards a table that is something else: it stays as it is, and is named."""
    with pytest.raises(DataError, match='needed is episode'):
        table(tmp_path, 'a,b\n1,2\n', Label(FAILURE, by=ANN))
    assert (tmp_path / 'labels.csv').read_text() == 'a,b\n1,2\n'
    assert place_of(tmp_path, episode(1, source='metaworld')) is None


def bag_episode(root, bag, name, number='', **values):
    """Lay out what an import of bags leaves."""
    folder = root / 'videos' / name / '0123456789ab'
    folder.mkdir(parents=True)
    (folder / 'bag.json').write_text(json.dumps({'bag': str(bag)}))
    file = (folder / number / 'wrist.mp4').relative_to(root).as_posix()
    other = (folder / number / 'third_person.mp4').relative_to(root).as_posix()
    return episode(1, episode_id=f'{name}/{number}' if number else name, source='rosbag',
                   robot_videos={'third_person': other, 'wrist': file}, **values)


def test_labels_lie_beside_the_bags(tmp_path):
    """
    Guards labels of bags, whose table lies in another folder than the data set.

    Seconds count from the first image of any view there: the wrist's, which came 0.3 s sooner.
    """
    bags, root = tmp_path / 'bags', tmp_path / 'data'
    (bags / 'monday/take1').mkdir(parents=True)
    one = bag_episode(root, bags / 'monday/take1', 'monday/take1', robot_offset_s={'wrist': 0.3})
    place = place_of(root, one)
    assert place.table == bags / 'monday/labels.csv' and place.name == 'take1'
    assert place.start_s == -0.3
    (bags / 'labels.csv').write_text('episode,success\nmonday/take1,no\n')
    assert place_of(root, one).table == bags / 'labels.csv'
    write_label(place_of(root, one), Label(SUCCESS, 1.0, ANN))
    assert (bags / 'labels.csv').read_text() == (
        'episode,success,time_s,by\nmonday/take1,success,1.300,human:ann\n')
    (bags / 'monday/take1').rmdir()
    assert place_of(root, one) is None


def test_parts_of_a_bag(tmp_path):
    """Guards episodes that the table itself cuts out of a bag: their line says where they are."""
    bags, root = tmp_path / 'bags', tmp_path / 'data'
    bag = bags / 'long'
    bag.mkdir(parents=True)
    one = bag_episode(root, bag, 'long', 'a')
    (bags / 'labels.csv').write_text('episode,bag,start_s,end_s,success\na,long,1,2.5,no\n')
    write_label(place_of(root, one), Label(SUCCESS, None, ANN))
    assert (bags / 'labels.csv').read_text() == (
        'episode,bag,start_s,end_s,success,time_s,by\na,long,1,2.5,success,,human:ann\n')
    other = replace(one, episode_id='long/17')
    write_label(place_of(root, other), Label(FAILURE, by=ANN))
    assert (bags / 'labels.csv').read_text().endswith('\nlong/17,,,,failure,,human:ann\n')


def test_a_data_set_of_lerobot(tmp_path):
    """Guards LeRobot, whose files hold many episodes: seconds count from the episode's own."""
    (tmp_path / 'set/meta').mkdir(parents=True)
    (tmp_path / 'set/meta/info.json').write_text('{}')
    place = place_of(tmp_path, episode(
        1, episode_id='episode_000004#wrist', source='lerobot', robot_span_s=(12.0, 15.0),
        robot_videos={'wrist': 'set/videos/front/chunk-000/file-000.mp4'}))
    assert (place.table, place.name, place.start_s) == (
        tmp_path / 'set/labels.csv', 'episode_000004', 12.0)
