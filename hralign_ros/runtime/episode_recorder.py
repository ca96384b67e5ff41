# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From a stream of messages to one bag an episode, on a thread of its own.

Which episode a message belongs to is known only when the encoder has said so, a little later, and
what the encoder says may overtake images that were taken before. So messages wait for HOLD before
they are written, and an episode begins GRACE after it was heard of. An episode's bag begins with
its first image; an episode without an image has no bag.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition, Lock, Thread
import time
import traceback

from hralign_ros.runtime.bags import BagWriter, Topic
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.errors import DataError, FrameError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.labels import (
    FAILURE,
    Label,
    LabelError,
    labelled_episodes,
    MODEL,
    set_label,
    SUCCESS,
)
from hralign_ros.runtime.recordings import DiskFullError, first_image_stamp, Recordings

# The encoder names a new episode within 0.5 s, also without images [ns].
HOLD, GRACE = 2_000_000_000, 1_000_000_000
DISK, INTERNAL, BUSY = 'disk', 'internal error', 'overload'
# What may wait for the thread, in bytes of images and in messages; more is dropped.
_MOST_BYTES, _MOST_MESSAGES = 128 << 20, 20_000
# The thread looks into its inbox so often [s], and when so much waits [bytes].
_LOOK_S = 0.2
_MANY_BYTES = 16 << 20
_CHECK = 1_000_000_000
# A success in the last image may be stamped with when it was seen [ns].
_LATE = 1_000_000_000
# Stamps that are further back are those of a clock that was set back [ns].
_BACK = 1_000_000_000


@dataclass(frozen=True)
class Rules:
    """
    When the recording of an episode ends, beside the encoder's next one.

    :param max_episode: duration after which it ends, whatever comes [ns]; 0: never.
    :param silent_after: it ends when the encoder has said nothing for so long [ns].
    :param label_by_model: label an episode with what the encoder has decided.
    """

    max_episode: int
    silent_after: int
    label_by_model: bool = False


@dataclass(frozen=True)
class Message:
    """
    A message on its way into a bag.

    :param data: makes what is written; on the recorder's thread.
    :param received: system time [ns].
    :param taken: when it was taken, on the clock of episode ids [ns].
    :param size: of what it was made of [bytes].
    :param view: the camera's name; '': no image.
    :param stamp: of an image, as labels count time [ns].
    """

    topic: Topic
    data: Callable[[], bytes]
    received: int
    taken: int
    size: int
    view: str = ''
    stamp: int = 0
    arrived: int = field(default_factory=time.monotonic_ns)


@dataclass(frozen=True)
class Heard:
    """What the encoder says: its episode, its decision, and the stamp of that [ns]."""

    episode_id: int
    decision: Decision
    stamp: int
    arrived: int = field(default_factory=time.monotonic_ns)


@dataclass
class Recorded:
    """
    An episode that is, or was, recorded.

    :param first: stamp of its first image [ns]; None: not looked up yet.
    :param last: stamp of its last image so far [ns]; None: not known.
    """

    name: str
    episode_id: int
    first: int | None = None
    last: int | None = None
    images: Counter[str] = field(default_factory=Counter)
    began: int = field(default_factory=time.monotonic_ns)


@dataclass(frozen=True)
class State:
    """
    How the recorder does.

    :param episode: the bag that is being recorded; '': none.
    :param images: in that bag, by view.
    :param heard: whether the encoder has said something lately.
    :param written: size of that bag [bytes].
    """

    episode: str
    images: dict[str, int]
    heard: bool
    written: int
    finished: int
    dropped: int


class Thinning:
    """
    Take at most so many images a second, of all cameras at the same times.

    A second is divided into as many intervals, and of each the first image is taken: images of two
    cameras that were taken together are kept together.

    :param rate_hz: 0: take all.
    """

    def __init__(self, rate_hz: float) -> None:
        self._interval = round(1e9 / rate_hz) if rate_hz else 1
        self._taken: int | None = None

    def takes(self, stamp: int) -> bool:
        """Tell whether to take an image; of stamps that go back it takes none for a second."""
        if self._taken is not None and self._taken - _BACK < stamp \
                and stamp // self._interval <= self._taken // self._interval:
            return False
        self._taken = stamp
        return True


class EpisodeRecorder:
    """
    Record episodes into a folder. Messages and labels may come from any thread.

    :param faults: gets what is wrong with the disk.
    :param log: told, in a sentence, what was recorded and removed.
    """

    def __init__(
        self, recordings: Recordings, rules: Rules, faults: Faults, log: Callable[[str], object],
    ) -> None:
        self._recordings, self._rules, self._faults = recordings, rules, faults
        self._log = log
        self._changed = Condition()
        self._inbox: deque[Message | Heard] = deque()
        self._bytes_waiting = self._dropped = 0
        self._stopping = False
        # Of the thread alone.
        self._held: deque[Message] = deque()
        self._latched: dict[str, Message] = {}
        self._episode_id: int | None = None
        # Episodes that were heard of and begin soon, in order.
        self._coming: deque[Heard] = deque()
        self._over = False
        # By episode, when SUCCESS or FAILURE was said first.
        self._decided: dict[int, Heard] = {}
        self._bag: BagWriter | None = None
        self._checked = 0
        # Of all threads.
        self._lock = Lock()
        self._current: Recorded | None = None
        self._last: Recorded | None = None
        self._last_heard = 0
        self._finished = 0
        self._thread = Thread(target=self._run, name='recorder', daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, patience: float = 30.0) -> bool:
        """Write what waits, finish the bag; return whether that was done in time [s]."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(patience)
        return not self._thread.is_alive()

    def offer(self, entry: Message | Heard) -> None:
        """Take a message, or what the encoder says; never waits for the disk."""
        size = entry.size if isinstance(entry, Message) else 0
        with self._changed:
            full = self._bytes_waiting + size > _MOST_BYTES or len(self._inbox) >= _MOST_MESSAGES
            if full:
                self._dropped += 1
            else:
                self._inbox.append(entry)
                self._bytes_waiting += size
                # Little can wait: to wake the thread costs more than to take a message.
                if self._bytes_waiting >= _MANY_BYTES:
                    self._changed.notify()
        self._faults.note(BUSY, '' if not full else (
            'images or messages come faster than they can be encoded and written; some are left '
            'out. Lower rate_hz, record fewer topics, or use a faster disk'))

    def state(self) -> State:
        """Tell how it does."""
        with self._lock:
            current, bag = self._current, self._bag
            silent = time.monotonic_ns() - self._last_heard > self._rules.silent_after
            return State(
                current.name if current else '', dict(current.images) if current else {},
                bool(self._last_heard) and not silent, bag.written if current and bag else 0,
                self._finished, self._dropped)

    # Labels.

    def label(
        self, episode_id: int, success: str, *, by: str, success_stamp: int = 0, note: str = '',
    ) -> Recorded:
        """
        Label an episode that is, or was, recorded.

        :param episode_id: [ns]; 0: the one that is being recorded, or else the last one.
        :param success: as in labels.csv.
        :param success_stamp: of the first image with the success [ns]; 0: not known.
        :returns: the episode.
        :raises DataError: there is no such episode, or it cannot be labelled so.
        """
        recorded = self._find(episode_id)
        time_s = None
        if success_stamp:
            if success != SUCCESS:
                raise LabelError(f'success_time is given and the outcome is {success}; only a '
                                 'success has a time: leave it 0')
            time_s = self._time_s(recorded, success_stamp)
        try:
            set_label(self._recordings.folder,
                      Label(recorded.name, success, time_s, ' '.join(note.split()), by))
        except OSError as error:
            raise LabelError(f'the label cannot be written: {error}') from error
        return recorded

    def _find(self, episode_id: int) -> Recorded:
        with self._lock:
            known = [one for one in (self._current, self._last)
                     if one and episode_id in (0, one.episode_id)]
        if known:
            return known[0]
        bags = [bag for bag in self._recordings.bags() if episode_id in (0, bag.episode_id)]
        whole = [bag for bag in bags if not bag.partial]
        if whole:
            return Recorded(whole[-1].name, whole[-1].episode_id)
        wanted = f'of the episode {episode_id * 1e-9:.9f} ' if episode_id else ''
        raise LabelError(
            f'there is no recording {wanted}in {self._recordings.folder}'
            + (f', but one that was cut off: {bags[-1].path.name}' if bags else '')
            + '; an episode is recorded from its first image on')

    def _time_s(self, recorded: Recorded, stamp: int) -> float:
        """
        Turn a stamp into seconds from the episode's first image.

        :raises DataError: it is not of this episode.
        """
        if recorded.first is None:
            recorded.first = first_image_stamp(self._recordings.folder / recorded.name)
        first, last = recorded.first, recorded.last
        running = recorded is self._current
        if first is None or stamp < first or (
                last is not None and not running and stamp > last + _LATE):
            span = 'has no image' if first is None else f'has images from {first * 1e-9:.3f} s' + (
                f' to {last * 1e-9:.3f} s' if last and not running else '')
            raise LabelError(f'success_time is {stamp * 1e-9:.3f} s and {recorded.name} {span}; '
                             'needed is the stamp of an image of this episode, or 0')
        return (stamp - first) * 1e-9

    # The thread.

    def _run(self) -> None:
        done = False
        while not done:
            with self._changed:
                if self._bytes_waiting < _MANY_BYTES and not self._stopping:
                    self._changed.wait(_LOOK_S)
                done = self._stopping
                entries, self._inbox = self._inbox, deque()
                self._bytes_waiting = 0
            steps: list[Callable[[], None]] = [partial(self._take, entry) for entry in entries]
            steps.append(self._close if done else self._settle)
            for step in steps:
                try:
                    step()
                except Exception:  # a fault of ours; the next episode may go well
                    self._give_up(INTERNAL, traceback.format_exc())

    def _take(self, entry: Message | Heard) -> None:
        if isinstance(entry, Heard):
            self._last_heard = time.monotonic_ns()
            newest = self._coming[-1].episode_id if self._coming else self._episode_id
            if entry.episode_id != newest:
                self._coming.append(entry)
            if entry.decision in (Decision.SUCCESS, Decision.FAILURE):
                self._decided.setdefault(entry.episode_id, entry)
            return
        try:
            data = entry.data()
        except FrameError as error:
            self._faults.bad(f'{entry.view} image', f'view {entry.view}: {error}')
            return
        if entry.view:
            self._faults.good(f'{entry.view} image')
        ready = replace(entry, data=lambda: data)
        if not entry.topic.latched:
            self._held.append(ready)
            return
        self._latched[entry.topic.name] = ready
        if self._bag is not None:
            self._write(ready)

    def _change(self, episode_id: int | None) -> None:
        """Finish the episode; what was taken after the next one began belongs to that."""
        held, self._held = self._held, deque()
        for message in held:
            if episode_id is None or message.taken < episode_id:
                self._write(message)
            else:
                self._held.append(message)
        self._finish()
        self._decided = {one: said for one, said in self._decided.items()
                         if one != self._episode_id}
        self._episode_id, self._over = episode_id, False

    def _close(self) -> None:
        """Write all that there is, and finish."""
        while self._coming:
            self._change(self._coming.popleft().episode_id)
        self._change(None)

    def _settle(self) -> None:
        """Write what has waited long enough, and look whether the episode is over."""
        now = time.monotonic_ns()
        while self._coming and now - self._coming[0].arrived >= GRACE:
            self._change(self._coming.popleft().episode_id)
        while self._held and now - self._held[0].arrived >= HOLD:
            self._write(self._held.popleft())
        if self._current is not None:
            if 0 < self._rules.max_episode <= now - self._current.began:
                self._end(f'it has lasted {self._rules.max_episode * 1e-9:g} s (max_episode_s)')
            elif now - self._last_heard > self._rules.silent_after:
                self._end('the encoder has fallen silent')
        if now - self._checked >= _CHECK:
            self._checked = now
            self._check_disk()

    def _end(self, why: str) -> None:
        """End the recording before the encoder begins another episode."""
        assert self._current is not None
        self._log(f'the recording of {self._current.name} ends: {why}')
        self._finish()
        self._over = True

    def _check_disk(self) -> None:
        """Make room for what is being recorded, and see whether there is some again."""
        if self._bag is None and DISK not in self._faults.lasting():
            return
        try:
            if self._bag is not None:
                self._bag.flush()
            self._make_room()
        except (OSError, DiskFullError) as error:
            self._give_up(DISK, str(error))
        else:
            self._faults.good(DISK)

    def _make_room(self) -> None:
        for name in self._recordings.make_room(
                lambda: labelled_episodes(self._recordings.folder),
                keep=self._current.name if self._current else ''):
            self._log(f'removed {name}, the oldest without a label: max_gb is reached')

    def _write(self, message: Message) -> None:
        """
        Write a message into the episode's bag; the first image opens it.

        What was taken before the episode began, and came when its own was finished, is left out.
        """
        if self._episode_id is None or self._over or (self._bag is None and not message.view):
            return
        if message.view and message.taken < self._episode_id:
            behind = message.received - message.taken
            if behind > HOLD:
                self._faults.bad(f'{message.view} behind', (
                    f'view {message.view}: its stamps are {behind * 1e-9:.1f} s behind the clock, '
                    'and what seems to be from before the episode is left out; synchronise the '
                    'clocks, or set stamp_source to arrival, here and for the encoder'))
            return
        if message.view:
            self._faults.good(f'{message.view} behind')
        try:
            if self._bag is None:
                self._open(message)
            assert self._bag is not None and self._current is not None
            self._bag.add(message.topic, message.data(), message.received)
        except (OSError, DataError) as error:
            self._give_up(DISK, str(error))
            return
        if message.view:
            with self._lock:
                one = self._current
                one.images[message.view] += 1
                one.first = min(one.first or message.stamp, message.stamp)
                one.last = max(one.last or message.stamp, message.stamp)

    def _open(self, message: Message) -> None:
        """Begin a bag, with the latched messages that were there before."""
        assert self._episode_id is not None
        self._make_room()
        name = self._recordings.new_name(self._episode_id, message.received)
        bag = BagWriter(self._recordings.folder, name)
        with self._lock:
            self._bag, self._current = bag, Recorded(name, self._episode_id)
        for latched in self._latched.values():
            bag.add(latched.topic, latched.data(), message.received)
        self._faults.good(INTERNAL)
        self._log(f'recording {name}')

    def _finish(self) -> None:
        """Finish the bag, if there is one, and let the model label it."""
        bag, recorded = self._bag, self._current
        if bag is None or recorded is None:
            return
        try:
            bag.finish()
        except OSError as error:
            self._give_up(DISK, str(error))
            return
        with self._lock:
            self._bag, self._current, self._last = None, None, recorded
            self._finished += 1
        images = ', '.join(f'{count} of {view}' for view, count in recorded.images.items())
        self._log(f'recorded {recorded.name}: images {images}')
        decided = self._decided.get(recorded.episode_id)
        if self._rules.label_by_model and decided is not None:
            self._label_by_model(recorded, decided)

    def _label_by_model(self, recorded: Recorded, decided: Heard) -> None:
        success = decided.decision == Decision.SUCCESS
        try:
            self.label(recorded.episode_id, SUCCESS if success else FAILURE, by=MODEL,
                       success_stamp=decided.stamp if success else 0)
        except DataError as error:
            self._log(f'{recorded.name} has no label by the model: {error}')

    def _give_up(self, key: str, text: str) -> None:
        """Leave the episode as far as it came; the next one is tried again."""
        bag, recorded = self._bag, self._current
        with self._lock:
            self._bag = self._current = None
        self._over = True
        if bag is not None:
            bag.abandon()
        self._faults.bad(key, text + (
            f'. The recording of {recorded.name} was cut off; what there is of it lies in '
            f'{bag.partial.name}' if bag is not None and recorded is not None else ''))
