# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A folder of bags: what they are called, which one goes, and what they hold."""

from pathlib import Path
import struct

from hralign_ros.runtime.errors import DataError
from hralign_ros.runtime.labels import LabelError
from hralign_ros.runtime.recordings import DiskFullError, Recordings
import pytest

SECOND = 1_000_000_000
pytest.importorskip('mcap', reason='mcap is not installed')

from hralign_ros.runtime.bags import BagWriter, Topic  # noqa: E402, I100
from hralign_ros.runtime.recordings import first_image_stamp  # noqa: E402

IMAGE = Topic('/wrist/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 'uint8 a')
INFO = Topic('/encoder/info', 'hralign_msgs/msg/EncoderInfo', 'uint8 a', latched=True)


def cdr(stamp: int, size: int = 100) -> bytes:
    """Make bytes that begin as a serialised message with a header does."""
    return b'\0\1\0\0' + struct.pack('<iI', *divmod(stamp, SECOND)) + bytes(size)


def recordings(folder: Path, *, max_bytes: int = 0, min_free: int = 0) -> Recordings:
    """Open a folder."""
    return Recordings(folder, max_bytes=max_bytes, min_free=min_free)


def make_bags(folder: Path, count: int = 5, size: int = 1000) -> list[str]:
    """Make folders that are named as bags are, oldest first."""
    made = recordings(folder)
    names = []
    for number in range(count):
        names.append(made.new_name(number * SECOND + 5, number * SECOND))
        (folder / names[-1]).mkdir()
        (folder / names[-1] / f'{names[-1]}_0.mcap').write_bytes(bytes(size))
    made.close()
    return names


def test_a_name_says_when_and_which(tmp_path: Path) -> None:
    """Names sort by time; a second recording of the same episode gets a name of its own."""
    made = recordings(tmp_path)
    name = made.new_name(1796030102 * SECOND + 250_000_000, 1796030103 * SECOND)
    assert name == '20261130T091503Z_1796030102.250000000'
    (tmp_path / f'{name}.partial').mkdir()
    assert made.new_name(1796030102 * SECOND + 250_000_000, 1796030103 * SECOND) == f'{name}_2'
    (bag,) = made.bags()
    assert (bag.name, bag.partial) == (name, True)
    assert bag.episode_id == 1796030102 * SECOND + 250_000_000


def test_the_oldest_without_a_label_goes_first(tmp_path: Path) -> None:
    """Labelled episodes, the one that is recorded and what is not ours stay."""
    names = make_bags(tmp_path)
    (tmp_path / 'my_own_bag').mkdir()
    (tmp_path / 'my_own_bag/data.mcap').write_bytes(bytes(10_000))
    made = recordings(tmp_path, max_bytes=3500)
    assert made.make_room(lambda: {names[0], names[2]}) == [names[1], names[3]]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        [names[0], names[2], names[4], 'my_own_bag'])
    assert made.make_room(set) == []


def test_a_recording_that_was_cut_off_can_go(tmp_path: Path) -> None:
    """Nobody will miss it; the one that goes on is kept."""
    names = make_bags(tmp_path, 2)
    for name in names:
        (tmp_path / name).rename(tmp_path / f'{name}.partial')
    made = recordings(tmp_path, max_bytes=1500)
    assert made.make_room(set, keep=names[0]) == [names[1]]


def test_labelled_episodes_never_go(tmp_path: Path) -> None:
    """What a human has looked at is not removed; the error says what to do."""
    names = make_bags(tmp_path, 3)
    made = recordings(tmp_path, max_bytes=1500)
    with pytest.raises(DiskFullError, match='max_gb'):
        made.make_room(lambda: names)
    assert len(made.bags()) == 3


def test_nothing_goes_while_labels_cannot_be_read(tmp_path: Path) -> None:
    """Guards labelled episodes against a labels.csv that somebody has broken."""
    make_bags(tmp_path, 3)
    made = recordings(tmp_path, max_bytes=1500)

    def broken() -> set[str]:
        raise LabelError('labels.csv is no table')

    with pytest.raises(DiskFullError, match='no table'):
        made.make_room(broken)
    assert len(made.bags()) == 3


def test_a_disk_that_others_fill(tmp_path: Path) -> None:
    """What must remain free is left free."""
    with pytest.raises(DiskFullError, match='min_free_gb'):
        recordings(tmp_path, min_free=1 << 60).make_room(set)


def test_one_recorder_a_folder(tmp_path: Path) -> None:
    """Two would count and remove each other's bags."""
    first = recordings(tmp_path)
    with pytest.raises(DataError, match='another recorder'):
        recordings(tmp_path)
    first.close()
    recordings(tmp_path).close()


def test_what_was_being_removed_is_removed(tmp_path: Path) -> None:
    """A recorder that ended in mid-removal leaves nothing that looks like a bag, nor anything."""
    (name,) = make_bags(tmp_path, 1)
    (tmp_path / name).rename(tmp_path / f'.{name}.removed')
    assert recordings(tmp_path).bags() == []
    assert not (tmp_path / f'.{name}.removed').exists()


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """It is said before the first episode."""
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='nothing can be recorded'):
        recordings(tmp_path / 'file' / 'folder')


def test_a_bag_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    """What is cut off is not taken for whole, and what is whole is read by others."""
    rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')
    bag = BagWriter(tmp_path, 'a')
    for number in range(10):
        bag.add(IMAGE, cdr(20 * SECOND - number), 100 + number)
    bag.add(INFO, cdr(1), 103)
    assert [path.name for path in tmp_path.iterdir()] == ['a.partial']
    assert not (tmp_path / 'a.partial/metadata.yaml').exists()
    assert bag.finish() == tmp_path / 'a'
    assert [path.name for path in tmp_path.iterdir()] == ['a']
    with rosbag2.Reader(tmp_path / 'a') as reader:
        assert {(one.topic, one.msgtype, one.msgcount) for one in reader.connections} == {
            (IMAGE.name, IMAGE.kind, 10), (INFO.name, INFO.kind, 1)}
        assert (reader.start_time, reader.message_count) == (100, 11)
        assert [stamp for *_, stamp, _ in ((c, t, d) for c, t, d in reader.messages())]
        durability = {one.topic: one.ext.offered_qos_profiles[0].durability.name
                      for one in reader.connections}
    assert durability == {IMAGE.name: 'VOLATILE', INFO.name: 'TRANSIENT_LOCAL'}
    assert first_image_stamp(tmp_path / 'a') == 20 * SECOND


def test_the_first_image_of_a_bag_that_is_cut_off(tmp_path: Path) -> None:
    """It is said which bag, and nothing else is thrown."""
    bag = BagWriter(tmp_path, 'a')
    bag.add(IMAGE, cdr(5), 100)
    bag.finish()
    file = tmp_path / 'a/a_0.mcap'
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DataError, match='cannot be read'):
        first_image_stamp(tmp_path / 'a')
