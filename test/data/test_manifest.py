# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The manifest: what is written is what is read, and what is not right is refused by name."""

from dataclasses import replace

from hralign_ros.data.manifest import (
    change_manifest,
    DataError,
    Episode,
    FILE_NAME,
    read_manifest,
    recording_of,
    write_manifest,
)
from hralign_ros.runtime.images import ViewGeometry
import pyarrow as pa
from pyarrow import parquet
import pytest

BARE = Episode('a', 'push', 'push it', 'train-0', 'front', 'panda', 'test', 'CC0-1.0')
FULL = replace(
    BARE, episode_id='b', split='train', seed=7, success=False, failure='slip',
    robot_videos={'wrist': 'b/w.mp4', 'third_person': 'b/t.mp4'}, human_video='b/h.mp4',
    human_from='b', human_span_s=(0.5, 1.5), robot_span_s=(0.0, 3.25),
    time_s=(0.0, 0.1, 0.2), success_flags=(False, False, True), progress=(0.0, 0.5, 1.0),
    actions=((0.5, 1.0), (0.25, 2.0), (0.0, 3.0)), proprio=((1.0,), (2.0,), (3.0,)),
    fault_s=0.125, tags=('distractor',), robot_offset_s={'wrist': -0.5}, session='monday',
    geometry={'wrist': ViewGeometry(90, (0.0, 0.25, 1.0, 1.0)), 'human': ViewGeometry(180)})


def plain(episode):
    """Turn tuples into lists, as they are read."""
    return {name: plain_value(value) for name, value in vars(episode).items()}


def plain_value(value):
    return [plain_value(v) for v in value] if isinstance(value, tuple | list) else value


def test_round_trip(tmp_path):
    """Guards every column, empty and full, unknown labels included."""
    unknown = replace(BARE, episode_id='c', success=None, seed=None, fault_s=None)
    path = write_manifest(tmp_path, [FULL, unknown, BARE])
    assert path == tmp_path / FILE_NAME
    data = read_manifest(tmp_path)
    assert data.folder == tmp_path and data.path('b/t.mp4') == tmp_path / 'b/t.mp4'
    assert [plain(e) for e in data.episodes] == [plain(e) for e in (BARE, FULL, unknown)]
    assert read_manifest(path).episodes == data.episodes
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_the_time_of_a_success(tmp_path):
    """Guards a time that is none of a success, and manifests that are older than the column."""
    good = replace(BARE, success=True, success_s=1.25)
    write_manifest(tmp_path, [good])
    assert read_manifest(tmp_path).episodes[0].success_s == 1.25
    for success, time in ((False, 1.0), (None, 1.0), (True, float('nan'))):
        with pytest.raises(DataError, match='success_s'):
            write_manifest(tmp_path, [replace(good, success=success, success_s=time)])
    table = parquet.read_table(tmp_path / FILE_NAME).drop_columns(['session', 'success_s'])
    parquet.write_table(table, tmp_path / FILE_NAME)
    old = read_manifest(tmp_path).episodes[0]
    assert (old.session, old.success_s) == ('', None)


def test_what_was_discarded(tmp_path):
    """Guards what learns from a split: a person has said that it is not to be used."""
    write_manifest(tmp_path, [replace(BARE, split='train', tags=('discard',)), FULL])
    data = read_manifest(tmp_path)
    assert [e.discarded for e in data.episodes] == [True, False]
    assert [e.episode_id for e in data.of_split('train').episodes] == ['b']


def test_some_of_what_is_there_for_every_frame(tmp_path):
    """Guards those who need flags alone: they get these, and nothing of the rest."""
    write_manifest(tmp_path, [FULL])
    row, = read_manifest(tmp_path, series=('time_s', 'success_flags')).episodes
    assert list(row.success_flags) == list(FULL.success_flags) and len(row.time_s) == 3
    assert not row.actions and not row.proprio and not row.progress


def test_without_what_is_there_for_every_frame(tmp_path):
    """Guards memory: 65,000 rows of RH20T with all their series are 14 GB of Python numbers."""
    write_manifest(tmp_path, [FULL])
    found = read_manifest(tmp_path, series=False).episodes[0]
    assert not any(map(len, (found.time_s, found.actions, found.success_flags)))
    assert (found.robot_videos, found.robot_span_s) == (FULL.robot_videos, [0.0, 3.25])


@pytest.mark.parametrize('older', [[], ['session', 'success_s', 'geometry', 'robot_offset_s']])
def test_a_change_of_some_rows(tmp_path, older):
    """
    Guards all other rows of a manifest of which one changes, whatever there is in them.

    A page that labels changes one of thousands at a time. To read and write all of them took ten
    seconds for each thousand, and gigabytes.
    """
    others = [replace(FULL, episode_id=f'{number:05d}') for number in (0, 1, 2, 4)]
    write_manifest(tmp_path, [*others, FULL, BARE])
    table = parquet.read_table(tmp_path / FILE_NAME).drop_columns(older)
    parquet.write_table(table, tmp_path / FILE_NAME)
    before = read_manifest(tmp_path).episodes
    said = change_manifest(tmp_path, {
        'a': lambda row: replace(row, success=True, success_s=0.5), 'x': lambda row: row,
        'b': lambda row: replace(row, tags=[*row.tags, 'new']),
        '00001': lambda row: replace(row, success_flags=[True] * 3)})
    assert said == {'x'}
    after = {e.episode_id: e for e in read_manifest(tmp_path).episodes}
    assert list(after) == [e.episode_id for e in before]
    assert after['b'].tags == ['distractor', 'new'] and after['a'].success_s == 0.5
    assert after['00001'].success_flags == [True] * 3
    for row in before:
        if row.episode_id not in ('a', 'b', '00001'):
            assert after[row.episode_id] == row
    bytes_before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(DataError, match='success_flags has 1 values for 3 frames'):
        change_manifest(tmp_path, {'b': lambda row: replace(row, success_flags=[True])})
    assert (tmp_path / FILE_NAME).read_bytes() == bytes_before
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]


def test_splits_of_a_data_set(tmp_path):
    """Guards against training on nothing where a split's name is wrong."""
    write_manifest(tmp_path, [BARE, FULL])
    data = read_manifest(tmp_path)
    assert [e.episode_id for e in data.of_split('train', 'validation').episodes] == ['b']
    with pytest.raises(DataError, match=r'no episode of split test_task.*\(none\) 1, train 1'):
        data.of_split('test_task')


@pytest.mark.parametrize('changes, message', [
    ({'episode_id': ''}, 'must not be empty'),
    ({'task_text': ' '}, 'must not be empty'),
    ({'actions': ((0.0,),)}, 'actions has 1 values for 3 frames'),
    ({'time_s': (0.0, 0.2, 0.2)}, 'does not increase'),
    ({'human_video': '/a.mp4'}, 'not below'),
    ({'robot_videos': {'wrist': '../a.mp4'}}, 'not below'),
    ({'human_span_s': (2.0, 1.0)}, 'human_span_s'),
    ({'robot_span_s': (2.0,)}, 'robot_span_s'),
    ({'geometry': {'side': ViewGeometry(90)}}, 'geometry is of side; there are videos of human'),
])
def test_rows_that_are_refused(tmp_path, changes, message):
    """Guards later steps against rows that they would stumble over."""
    with pytest.raises(DataError, match=message):
        write_manifest(tmp_path, [replace(FULL, **changes)])
    assert not list(tmp_path.iterdir())


def test_two_of_one_name(tmp_path):
    """Guards everything that is looked up by the episode's id."""
    with pytest.raises(DataError, match="two episodes are named 'a'"):
        write_manifest(tmp_path, [BARE, BARE])


def test_what_is_no_manifest(tmp_path):
    """Guards the messages for a wrong folder and for files of another kind."""
    with pytest.raises(DataError, match='hralign data import'):
        read_manifest(tmp_path)
    file = tmp_path / FILE_NAME
    file.write_bytes(b'nothing of the kind')
    with pytest.raises(DataError, match=FILE_NAME):
        read_manifest(tmp_path)
    table = pa.table({'episode_id': ['a']})
    parquet.write_table(table, file)
    with pytest.raises(DataError, match='schema none'):
        read_manifest(tmp_path)
    parquet.write_table(table.replace_schema_metadata({'hralign_manifest': '1'}), file)
    with pytest.raises(DataError, match='no column.*task_text'):
        read_manifest(tmp_path)


def test_recordings():
    """Guards what joins the cameras of one recording."""
    assert recording_of('cfg3/task#cam_1') == recording_of('cfg3/task#cam_2') == 'cfg3/task'
    assert replace(BARE, episode_id='x#y').recording == 'x' and BARE.recording == 'a'
