# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Bags as people have them: stored in each way, split, cut off, damaged, without metadata."""

import shutil
import sqlite3

from hralign_ros.data.bag_files import BagReader, find_bags
from hralign_ros.data.bag_messages import MessageTypes
from hralign_ros.data.manifest import DataError
import pytest

pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
pytest.importorskip('zstandard', reason='zstandard is not installed')
bags = pytest.importorskip('support.bags')


def read(bag, scratch):
    """Read a bag's messages as (topic, arrival, data), and what was wrong."""
    reader = BagReader(bag, scratch)
    found = [(message.topic, message.received, message.data)
             for message in reader.messages(lambda topic, kind: True)]
    return found, reader


def read_only(path, scratch):
    bag, = find_bags(path)
    return read(bag, scratch)


@pytest.fixture(scope='module')
def recorded():
    return bags.images() + bags.moves()


@pytest.fixture(scope='module')
def stored(recorded, tmp_path_factory):
    """Write the same messages in each way."""
    root = tmp_path_factory.mktemp('stored')
    return {name: bags.write(root / name.replace(', ', '_').replace(' ', '_'), recorded, name)
            for name in bags.STORED}


@pytest.mark.parametrize('name', bags.STORED)
def test_every_way_of_storing(stored, recorded, name, tmp_path):
    """Guards all messages, their order and their bytes; also where metadata.yaml is lost."""
    found, reader = read_only(stored[name], tmp_path / 'scratch')
    assert not reader.cut_off
    expected = sorted(((topic, at) for topic, _, at in recorded), key=lambda one: one[1])
    assert [one[:2] for one in found] == expected
    types = MessageTypes()
    messages = list(BagReader(find_bags(stored[name])[0], tmp_path).messages(lambda *_: True))
    decoded = types.decode(messages[-1])
    assert decoded.header.stamp.sec == messages[-1].stamp // bags.SECOND
    copied = bags.copy(stored[name], tmp_path / stored[name].name)
    (copied / 'metadata.yaml').unlink()
    assert read_only(copied, tmp_path / 'scratch')[0] == found
    file, = copied.iterdir()
    assert read_only(file, tmp_path / 'scratch')[0] == found
    assert not [left for left in tmp_path.rglob('*') if 'scratch' in left.parts and
                left.is_file()]


@pytest.mark.parametrize('name', bags.STORED)
def test_cut_off_in_mid_file(stored, name, tmp_path):
    """
    Guards what a recorder that was killed leaves: all that comes before is read, nothing made up.

    sqlite3 fills the missing part of its last page with zeros, which came out as numbers.
    """
    whole, _ = read_only(stored[name], tmp_path / 'scratch')
    counts = []
    for share in (0.0, 0.11, 0.4, 0.63, 0.8, 0.97):
        path = bags.cut(bags.copy(stored[name], tmp_path / stored[name].name), share)
        found, reader = read_only(path, tmp_path / 'scratch')
        assert found == whole[:len(found)]
        assert len(found) == len(whole) or list(reader.cut_off) == [next(path.iterdir()).name]
        counts.append(len(found))
        shutil.rmtree(path)
    assert counts == sorted(counts) and counts[0] == 0
    # So small a file is compressed as one block, of which a part is nothing.
    assert counts[-1] > 0 or 'by file' in name


@pytest.mark.parametrize('name', bags.STORED)
def test_damage_ends_nothing_else(stored, name, tmp_path):
    """Guards against a traceback at flipped bytes, wherever they are."""
    for place in range(1, 30):
        path = bags.copy(stored[name], tmp_path / 'bag')
        (path / 'metadata.yaml').write_text(': no yaml [')
        file, = (one for one in path.iterdir() if one.name != 'metadata.yaml')
        data = bytearray(file.read_bytes())
        data[len(data) * place // 30] ^= 0xFF
        file.write_bytes(data)
        read_only(path, tmp_path / 'scratch')
        shutil.rmtree(path)


def test_files_of_one_bag(recorded, tmp_path):
    """
    Guards recordings that are split by size or time.

    metadata.yaml has the order of the files; without it their numbers have, 10 after 9. Other
    people number their recordings in the same way: those are bags of their own.
    """
    half = len(recorded) // 2
    parts = [sorted(recorded, key=lambda one: one[2])[:half],
             sorted(recorded, key=lambda one: one[2])[half:]]
    folder = tmp_path / 'bags' / 'rosbag2_x'
    folder.mkdir(parents=True)
    for number, part in zip((9, 10), parts, strict=True):
        made = bags.write(tmp_path / f'part{number}', part)
        shutil.copy(made / f'part{number}.mcap', folder / f'rosbag2_x_{number}.mcap')
    found, _ = read_only(tmp_path / 'bags', tmp_path / 'scratch')
    assert len(found) == len(recorded) and [one[1] for one in found] == sorted(
        one[1] for one in found)
    (folder / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  relative_file_paths: [rosbag2_x_10.mcap, '
        'rosbag2_x_9.mcap]\n')
    assert read_only(tmp_path / 'bags', tmp_path / 'scratch')[0][0][1] == parts[1][0][2]
    (folder / 'metadata.yaml').unlink()
    for number in (9, 10):
        (folder / f'rosbag2_x_{number}.mcap').rename(folder / f'take_{number}.mcap')
    assert [bag.name for bag in find_bags(tmp_path / 'bags')] == [
        'rosbag2_x/take_10', 'rosbag2_x/take_9']


def test_names(recorded, tmp_path):
    """Guards what labels.csv names: the folder of a bag, also of one that the recorder left."""
    for name in ('a', 'b.partial', 'deep/c', '.hidden'):
        bags.write(tmp_path / 'bags' / name, recorded[:2])
    (tmp_path / 'bags/b.partial/b.partial.mcap').rename(tmp_path / 'bags/b.partial/b_0.mcap')
    (tmp_path / 'bags/b.partial/metadata.yaml').unlink()
    shutil.copy(tmp_path / 'bags/a/a.mcap', tmp_path / 'bags/alone.mcap')
    assert [bag.name for bag in find_bags(tmp_path / 'bags')] == ['a', 'alone', 'b', 'deep/c']
    assert [bag.name for bag in find_bags(tmp_path / 'bags/a')] == ['a']
    assert [bag.name for bag in find_bags(tmp_path / 'bags/alone.mcap')] == ['alone']
    with pytest.raises(DataError, match='no rosbag2 recording'):
        find_bags(tmp_path / 'bags/.hidden/none')


def test_the_journal_of_a_killed_recorder(stored, tmp_path):
    """Guards rosbag2's resilient storage: the newest messages are in a file beside the bag's."""
    bag = bags.copy(stored['sqlite3'], tmp_path / 'bag')
    file, = bag.glob('*.db3')
    whole, _ = read_only(bag, tmp_path / 'scratch')
    connection = sqlite3.connect(file)
    connection.execute('PRAGMA journal_mode=WAL')
    connection.execute('PRAGMA wal_autocheckpoint=0')
    connection.execute('INSERT INTO messages (topic_id, timestamp, data) '
                       'SELECT topic_id, timestamp + 1, data FROM messages WHERE id = 1')
    connection.commit()
    killed = bags.copy(bag, tmp_path / 'killed')
    connection.close()
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    found, _ = read_only(killed, tmp_path / 'scratch')
    assert len(found) == len(whole) + 1
    assert {path.name: path.read_bytes() for path in killed.iterdir()} == before


def test_a_kind_that_nobody_defines(recorded, tmp_path):
    """Guards the message of Humble's sqlite3 bags, which have no definitions of messages."""
    file, = bags.write(tmp_path / 'bag', recorded[:1], 'sqlite3').glob('*.db3')
    connection = sqlite3.connect(file)
    connection.execute("UPDATE topics SET type = 'own_msgs/msg/State'")
    connection.execute('DROP TABLE message_definitions')
    connection.commit()
    connection.close()
    message, = BagReader(find_bags(tmp_path)[0], tmp_path).messages(lambda *_: True)
    with pytest.raises(DataError, match='does not define own_msgs/msg/State'):
        MessageTypes().decode(message)
