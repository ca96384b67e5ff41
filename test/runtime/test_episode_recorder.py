# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""From a stream of messages to one bag an episode: where each begins, ends, and what it holds."""

from collections.abc import Callable, Iterator
from pathlib import Path
import struct
from threading import Event
import time
from typing import Any

from hralign_ros.runtime import episode_recorder
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.errors import DataError, FrameError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.labels import Label, read_labels, set_label
from hralign_ros.runtime.recordings import Recordings
import pytest

mcap_reader = pytest.importorskip('mcap.reader', reason='mcap is not installed')
mcap_stream = pytest.importorskip('mcap.stream_reader', reason='mcap is not installed')

from hralign_ros.runtime.bags import Topic  # noqa: E402, I100
from hralign_ros.runtime.episode_recorder import (  # noqa: E402, I100
    DISK,
    EpisodeRecorder,
    Heard,
    INTERNAL,
    Message,
    Rules,
    State,
    Thinning,
)

SECOND = 1_000_000_000
# When the first episode began, on the cameras' clock.
START = 1_796_030_102 * SECOND
PATIENCE = 60.0
IMAGE = Topic('/wrist/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 'uint8 a')
JOINTS = Topic('/joint_states', 'sensor_msgs/msg/JointState', 'uint8 a')
INFO = Topic('/encoder/info', 'hralign_msgs/msg/EncoderInfo', 'uint8 a', latched=True)


def cdr(stamp: int, size: int = 100) -> bytes:
    """Make bytes that begin as a serialised message with a header does."""
    return b'\0\1\0\0' + struct.pack('<iI', *divmod(stamp, SECOND)) + bytes(size)


class Robot:
    """Offer what a robot's cameras and its encoder send, at times that the test says."""

    def __init__(self, folder: Path, **rules: Any) -> None:
        self.folder = folder
        self.log: list[str] = []
        self.faults = Faults(lambda key, text: self.log.append(text), lambda key: None)
        self.recordings = Recordings(
            folder, max_bytes=rules.pop('max_bytes', 0), min_free=rules.pop('min_free', 0))
        self.recorder = EpisodeRecorder(
            self.recordings, Rules(**{'max_episode': 0, 'silent_after': 60 * SECOND, **rules}),
            self.faults, self.log.append)
        self.recorder.start()

    def hears(self, at: float, decision: Decision = Decision.RUNNING, seen: float = 0.0) -> None:
        """Let the encoder name an episode, by the second at which it began."""
        self.recorder.offer(Heard(ns(at), decision, ns(seen)))

    def sees(
        self, at: float, view: str = 'wrist', size: int = 100, late: float = 0.0,
    ) -> None:
        """Let a camera send an image, which comes some seconds later."""
        self.recorder.offer(Message(
            IMAGE, lambda: cdr(ns(at), size), ns(at + late) + 5, ns(at), size, view, ns(at)))

    def moves(self, at: float, topic: Topic = JOINTS) -> None:
        """Let the arm send its joints."""
        self.recorder.offer(Message(topic, lambda: cdr(ns(at)), ns(at), ns(at), 100))

    def wait(self, condition: Callable[[State], Any], what: str) -> None:
        """Wait until the recorder's state is such."""
        until = time.monotonic() + PATIENCE
        while not condition(self.recorder.state()):
            assert time.monotonic() < until, f'{what} did not come: {self.log}'
            time.sleep(0.01)

    def end(self) -> list[Path]:
        """Stop; give the bags, oldest first."""
        assert self.recorder.stop()
        self.recordings.close()
        return sorted(path for path in self.folder.iterdir() if path.is_dir())


def ns(seconds: float) -> int:
    """Turn seconds since the first episode began into nanoseconds."""
    return START + round(seconds * 1e9)


def times(bag: Path, topic: Topic = IMAGE) -> list[float]:
    """Read the stamps of a topic in a bag, in seconds since the first episode began."""
    with open(next(bag.glob('*.mcap')), 'rb') as file:
        found = mcap_reader.make_reader(file).iter_messages(topics=[topic.name])
        return [round((stamp_of(one.data) - START) / SECOND, 3) for *_, one in found]


def stamp_of(data: bytes) -> int:
    """Read the stamp of such bytes [ns]."""
    seconds, rest = struct.unpack_from('<iI', data, 4)
    return int(seconds) * SECOND + int(rest)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Robot]]:
    """Make robots that are ended afterwards; nothing is held back for long."""
    monkeypatch.setattr(episode_recorder, 'HOLD', SECOND // 20)
    monkeypatch.setattr(episode_recorder, 'GRACE', SECOND // 40)
    made: list[Robot] = []

    def make_one(**rules: Any) -> Robot:
        made.append(Robot(tmp_path, **rules))
        return made[-1]

    yield make_one
    for one in made:
        one.recorder.stop()


def test_each_message_is_in_its_episode(
    make: Callable[..., Robot], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The encoder names an episode when its first images have come already."""
    monkeypatch.setattr(episode_recorder, 'HOLD', 3600 * SECOND)
    robot = make()
    robot.hears(0.0)
    for tick in range(10):
        robot.sees(tick)
        robot.moves(tick + 0.5)
    robot.hears(7.6)
    robot.sees(10)
    first, second = robot.end()
    assert times(first) == list(range(8)) and times(second) == [8, 9, 10]
    assert times(first, JOINTS) == [tick + 0.5 for tick in range(8)]
    assert times(second, JOINTS) == [8.5, 9.5]
    assert first.name.endswith(f'_{START // SECOND}.000000000')


def test_an_image_that_comes_when_its_episode_is_over(make: Callable[..., Robot]) -> None:
    """
    It is left out: images that were a second late went into the bag of the next episode.

    A camera over a slow network had sent them before the reset, and the bag began with the end of
    another attempt.
    """
    robot = make()
    robot.hears(0.0)
    robot.sees(1)
    robot.hears(2.0)
    robot.wait(lambda state: state.finished == 1, 'the end of the first')
    robot.sees(1.5)
    robot.sees(3)
    robot.wait(lambda state: sum(state.images.values()) == 1, 'an image of the second')
    first, second = robot.end()
    assert times(first) == [1] and times(second) == [3]


def test_a_camera_whose_clock_is_behind(make: Callable[..., Robot]) -> None:
    """What it seems to have seen before the episode is left out, and that is told."""
    robot = make()
    robot.hears(100.0)
    robot.sees(101, 'third_person')
    robot.wait(lambda state: state.images.get('third_person') == 1, 'an image in time')
    robot.sees(95, late=6.0)
    robot.wait(lambda state: len(robot.log) > 1, 'the fault')
    assert 'view wrist: its stamps are 6.0 s behind' in robot.log[1]
    assert 'stamp_source' in robot.log[1]
    robot.sees(102, late=6.0)
    robot.wait(lambda state: state.images.get('wrist') == 1, 'an image of the episode')
    assert times(*robot.end()) == [101, 102]


def test_what_is_late_is_in_its_episode_all_the_same(
    make: Callable[..., Robot], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    Guards the last images of an episode on a busy machine.

    The encoder's first message of the next episode was taken before them, and they were recorded
    in that.
    """
    monkeypatch.setattr(episode_recorder, 'HOLD', 3600 * SECOND)
    monkeypatch.setattr(episode_recorder, 'GRACE', SECOND)
    robot = make()
    robot.hears(0.0)
    robot.sees(1.0)
    robot.hears(3.0)
    robot.sees(2.0)
    robot.sees(3.5)
    robot.wait(lambda state: state.finished == 1, 'the end of the first')
    first, second = robot.end()
    assert times(first) == [1.0, 2.0] and times(second) == [3.5]


def test_no_image_no_bag(make: Callable[..., Robot]) -> None:
    """An episode that nobody saw is none, and leaves nothing on the disk."""
    robot = make()
    for episode in range(3):
        robot.hears(episode)
        robot.moves(episode + 0.5)
    assert robot.end() == []


def test_nothing_before_the_encoder_has_spoken(make: Callable[..., Robot]) -> None:
    """Images that belong to no episode are not recorded."""
    robot = make()
    robot.sees(0.0)
    assert robot.end() == []


def test_what_is_latched_is_in_every_bag(make: Callable[..., Robot]) -> None:
    """~/info is published once, when the encoder is configured, and each bag needs it."""
    robot = make()
    robot.moves(0.0, INFO)
    for episode in (1, 2):
        robot.hears(episode)
        robot.sees(episode + 0.5)
    bags = robot.end()
    assert [times(bag, INFO) for bag in bags] == [[0.0], [0.0]]


def test_an_episode_ends_when_the_encoder_falls_silent(make: Callable[..., Robot]) -> None:
    """A dead encoder ends no episode any more; its last one is whole all the same."""
    robot = make(silent_after=SECOND // 5)
    robot.hears(0.0)
    robot.sees(0.5)
    robot.wait(lambda state: state.finished == 1, 'the end')
    robot.sees(1.0)
    robot.hears(0.0)
    robot.sees(1.5)
    (bag,) = robot.end()
    assert times(bag) == [0.5]


def test_an_episode_that_nobody_ends(make: Callable[..., Robot]) -> None:
    """Guards the disk against an encoder that is left running over night."""
    robot = make(max_episode=SECOND // 5)
    robot.hears(0.0)
    robot.sees(0.5)
    robot.wait(lambda state: state.finished == 1, 'the end')
    robot.hears(0.0)
    robot.sees(700.0)
    robot.hears(800.0)
    robot.sees(801.0)
    first, second = robot.end()
    assert times(first) == [0.5] and times(second) == [801.0]


def test_a_bad_image_is_left_out(make: Callable[..., Robot]) -> None:
    """One image that cannot be decoded costs this image, and is said."""
    def broken() -> bytes:
        raise FrameError('truncated', 'half of it is missing')

    robot = make()
    robot.hears(0.0)
    robot.sees(0.1)
    robot.recorder.offer(Message(IMAGE, broken, ns(0.2), ns(0.2), 9, 'wrist', ns(0.2)))
    robot.sees(0.3)
    (bag,) = robot.end()
    assert times(bag) == [0.1, 0.3]
    assert any('half of it is missing' in text for text in robot.log)


def test_a_fault_of_ours_costs_one_episode(make: Callable[..., Robot]) -> None:
    """Whatever is raised on the thread, the thread lives, and the next episode is recorded."""
    def faulty() -> bytes:
        raise ZeroDivisionError('a fault of ours')

    robot = make()
    robot.hears(0.0)
    robot.sees(0.1)
    robot.recorder.offer(Message(IMAGE, faulty, ns(0.2), ns(0.2), 9, 'wrist', ns(0.2)))
    robot.hears(1.0)
    robot.sees(1.1)
    assert times(robot.end()[-1]) == [1.1]
    assert INTERNAL in robot.faults.lasting() or any('a fault of ours' in one for one in robot.log)


def test_more_than_can_be_written(
    make: Callable[..., Robot], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guards the memory of the robot: what is too much is left out, counted and said."""
    go = Event()

    def slow() -> bytes:
        assert go.wait(PATIENCE)
        return cdr(ns(0.1))

    robot = make()
    robot.hears(0.0)
    robot.recorder.offer(Message(IMAGE, slow, ns(0.1), ns(0.1), 100, 'wrist', ns(0.1)))
    # In units of what may wait: two fit in, of five.
    for number in range(5):
        robot.recorder.offer(Message(
            IMAGE, lambda: cdr(ns(0.2)), ns(0.2), ns(0.2), 60 << 20, 'wrist', ns(0.2 + number)))
        robot.moves(0.3 + number)
    robot.wait(lambda state: state.dropped, 'an image that is left out')
    go.set()
    (bag,) = robot.end()
    assert len(times(bag)) < 6 and any('faster than' in text for text in robot.log)


# Labels.

def test_the_newest_is_the_one_that_runs_or_else_the_last(make: Callable[..., Robot]) -> None:
    """A button names no episode; a label ends nothing."""
    robot = make()
    with pytest.raises(DataError, match='no recording'):
        robot.recorder.label(0, 'success', by='human:anna')
    robot.hears(0.0)
    robot.sees(0.5)
    robot.wait(lambda state: state.episode, 'the first bag')
    first = robot.recorder.label(0, 'success', by='human:anna').name
    assert robot.recorder.state().episode == first
    robot.hears(10.0)
    robot.wait(lambda state: state.finished == 1, 'the end of the first')
    assert robot.recorder.label(0, 'failure', by='human:anna').name == first
    robot.sees(10.5)
    robot.wait(lambda state: state.episode, 'the second bag')
    second = robot.recorder.label(0, 'failure', by='human:anna').name
    assert robot.recorder.label(ns(0.0), 'success', by='human:bo').name == first
    bags = robot.end()
    assert [bag.name for bag in bags] == [first, second]
    assert read_labels(robot.folder) == {
        first: Label(first, 'success', by='human:bo'),
        second: Label(second, 'failure', by='human:anna')}


@pytest.mark.parametrize('later', [False, True])
def test_a_time_of_success(make: Callable[..., Robot], later: bool) -> None:
    """It counts from the first image, also in a bag of an earlier process."""
    robot = make()
    robot.hears(0.0)
    for seconds in (0.5, 1.0, 3.0):
        robot.sees(seconds)
    (bag,) = robot.end()
    if later:
        robot = make()
    robot.recorder.label(ns(0.0), 'success', by='human:anna', success_stamp=ns(1.0))
    assert read_labels(robot.folder)[bag.name].time_s == 0.5
    with pytest.raises(DataError, match='success_time'):
        robot.recorder.label(0, 'success', by='human:anna', success_stamp=ns(0.4))
    with pytest.raises(DataError, match='only a success'):
        robot.recorder.label(0, 'failure', by='human:anna', success_stamp=ns(1.0))
    if not later:
        with pytest.raises(DataError, match='success_time'):
            robot.recorder.label(0, 'success', by='human:anna', success_stamp=ns(9.0))
    with pytest.raises(DataError, match='no recording of the episode'):
        robot.recorder.label(ns(77.0), 'success', by='human:anna')
    assert read_labels(robot.folder)[bag.name].time_s == 0.5


def test_the_model_labels_where_it_may(make: Callable[..., Robot]) -> None:
    """Its decision counts once it is latched, whatever comes after; a human's label stays."""
    robot = make(label_by_model=True)
    robot.hears(0.0)
    robot.sees(0.5)
    robot.hears(0.0, Decision.SUCCESS, seen=0.75)
    robot.hears(0.0, Decision.ABSTAIN)
    robot.hears(10.0)
    robot.sees(10.5)
    robot.hears(10.0, Decision.FAILURE, seen=12.0)
    robot.hears(20.0, Decision.ABSTAIN)
    robot.sees(20.5)
    robot.hears(30.0)
    robot.sees(30.5)
    robot.wait(lambda state: state.finished == 3 and state.episode, 'the fourth bag')
    robot.recorder.label(0, 'failure', by='human:anna')
    robot.hears(30.0, Decision.SUCCESS, seen=30.5)
    bags = [bag.name for bag in robot.end()]
    assert read_labels(robot.folder) == {
        bags[0]: Label(bags[0], 'success', 0.25), bags[1]: Label(bags[1], 'failure'),
        bags[3]: Label(bags[3], 'failure', by='human:anna')}


def test_the_model_says_nothing_unless_it_is_asked(make: Callable[..., Robot]) -> None:
    """A label that nobody asked for would be trained on."""
    robot = make()
    robot.hears(0.0, Decision.SUCCESS)
    robot.sees(0.5)
    robot.end()
    assert read_labels(robot.folder) == {}


# The disk.

def test_the_limit_holds_while_episodes_come(make: Callable[..., Robot]) -> None:
    """The oldest without a label goes; the labelled first one is there at the end."""
    robot = make(max_bytes=300_000)
    for episode in range(5):
        robot.hears(episode)
        robot.sees(episode + 0.5, size=90_000)
        if not episode:
            robot.wait(lambda state: state.episode, 'the first bag')
            robot.recorder.label(0, 'success', by='human:anna')
    bags = robot.end()
    starts = [times(bag) for bag in bags]
    assert starts[0] == [0.5] and starts[-1] == [4.5] and len(bags) < 5
    assert sum('removed' in text for text in robot.log) == 5 - len(bags)


def test_a_full_disk(make: Callable[..., Robot]) -> None:
    """It is said once, nothing is recorded, nothing ends; with room again, it goes on."""
    robot = make(min_free=1 << 60)
    for episode in range(3):
        robot.hears(episode)
        robot.sees(episode + 0.5)
    robot.wait(lambda _: DISK in robot.faults.lasting(), 'the fault')
    robot.recordings.min_free = 0

    def room(state: State) -> bool:
        robot.faults.settle()
        return DISK not in robot.faults.lasting()

    robot.wait(room, 'the end of the fault')
    robot.hears(10.0)
    robot.sees(10.5)
    (bag,) = robot.end()
    assert times(bag) == [10.5]
    assert sum('min_free_gb' in text for text in robot.log) == 1


def test_a_disk_that_fills_in_mid_episode(make: Callable[..., Robot]) -> None:
    """What there is stays, readable as far as it goes, and is not called whole."""
    robot = make()
    robot.hears(0.0)
    for tick in range(5):
        robot.sees(0.5 + tick, size=100_000)
    robot.wait(lambda state: state.images.get('wrist') == 5, 'five images')
    robot.recordings.min_free = 1 << 60
    robot.wait(lambda state: not state.episode, 'the end of the recording')
    robot.sees(9.0)
    (bag,) = robot.end()
    assert bag.name.endswith('.partial') and not (bag / 'metadata.yaml').exists()
    assert any(bag.name in text and 'min_free_gb' in text for text in robot.log)
    assert images_as_far_as_it_goes(bag) == 5
    with pytest.raises(DataError, match='was cut off'):
        make().recorder.label(0, 'success', by='human:anna')


def test_a_label_of_a_bag_that_was_cut_off_protects_it(make: Callable[..., Robot]) -> None:
    """Somebody has looked at it."""
    robot = make(max_bytes=1000)
    name = robot.recordings.new_name(ns(-9.0), ns(-9.0))
    (robot.folder / f'{name}.partial').mkdir()
    (robot.folder / f'{name}.partial/data').write_bytes(bytes(2000))
    set_label(robot.folder, Label(name, 'success', by='human:anna'))
    robot.hears(0.0)
    robot.sees(0.5)
    assert [bag.name for bag in robot.end()] == [f'{name}.partial']
    assert any('labelled episodes' in text for text in robot.log)


def images_as_far_as_it_goes(bag: Path) -> int:
    """Count the images in a file that has no end."""
    count = 0
    with open(next(bag.glob('*.mcap')), 'rb') as file:
        try:
            for record in mcap_stream.StreamReader(file).records:
                count += type(record).__name__ == 'Message'
        except Exception:  # noqa: B902 - the end of what there is
            pass
    return count


# How many images.

@pytest.mark.parametrize(('rate_hz', 'count'), [(0.0, 90), (5.0, 15), (10.0, 30), (100.0, 90)])
def test_so_many_images_a_second(rate_hz: float, count: int) -> None:
    """Three seconds of a camera of 30 Hz; a rate that is higher than the camera's takes all."""
    thinning = Thinning(rate_hz)
    assert sum(thinning.takes(START + tick * SECOND // 30) for tick in range(90)) == count


def test_two_cameras_are_thinned_alike() -> None:
    """Images taken together are kept together, whichever camera was heard first."""
    first, second = Thinning(5.0), Thinning(5.0)
    stamps = [START + tick * SECOND // 30 for tick in range(90)]
    kept = [stamp for stamp in stamps if first.takes(stamp)]
    late = [stamp for stamp in stamps[4:] if second.takes(stamp)]
    assert set(late[1:]) <= set(kept)


def test_stamps_that_repeat_or_go_back() -> None:
    """A frame that is sent twice counts once; after a clock was set back all goes on."""
    thinning = Thinning(5.0)
    assert [thinning.takes(START + at * SECOND // 10) for at in (0, 0, 4, 2, 6, -100, -98)] == [
        True, False, True, False, True, True, True]
