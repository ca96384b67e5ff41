# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A robot at work: cameras that stream, a node that has decided SUCCESS, and strict checks."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
import os
from pathlib import Path
from threading import Event, Thread
import time
from typing import Any

from hralign_msgs.msg import SuccessProbability, TaskEmbedding
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from support.harness import Harness, NodeProcess, noise, PATIENCE, published, stamp_of, VIEWS
from support.tiny_bundle import write_tiny_bundle
import yaml

SECOND = 1_000_000_000
RATE = 10.0
HEIGHT, WIDTH = 120, 160
TASK = 'open the drawer'
WRIST, THIRD = VIEWS
BOTH = frozenset(VIEWS)
Message = Image | CompressedImage
# First pixels of images on which the trapped bundle returns NaN, and its session raises.
NAN, RAISE = (0, 255, 0), (255, 0, 0)


def trapped_bundle(folder: Path) -> Path:
    """
    Make a variant of the tiny bundle for faults that only a model can have.

    Whatever it sees, it soon decides SUCCESS: that SUCCESS must be withdrawn. Images
    whose first pixel is NAN make NaN of all pixels, RAISE makes the session raise.
    """
    import onnx
    from onnx import helper, numpy_helper

    folder.mkdir()
    write_tiny_bundle(folder, VIEWS)
    model = onnx.load(str(folder / 'preprocess.onnx'))
    graph, node = model.graph, helper.make_node
    pixels = graph.output[0].name
    for one in graph.node:
        for i, name in enumerate(one.output):
            if name == pixels:
                one.output[i] = 'untrapped'
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in {
        'trap_flat': np.array([-1], np.int64), 'trap_red': np.int64(0), 'trap_green': np.int64(1),
        'trap_most': np.int32(255), 'trap_table': np.zeros(1, np.float32)}.items())
    graph.node.extend([
        node('Cast', [graph.input[0].name], ['trap_image'], to=onnx.TensorProto.INT32),
        node('Reshape', ['trap_image', 'trap_flat'], ['trap_values']),
        node('Gather', ['trap_values', 'trap_red'], ['trap_first']),
        node('Gather', ['trap_values', 'trap_green'], ['trap_second']),
        # 1 where red is full, which is beyond the end of the table.
        node('Div', ['trap_first', 'trap_most'], ['trap_index']),
        node('Gather', ['trap_table', 'trap_index'], ['trap_zero']),
        # 0 / 0 where green is full, and 0 for all others.
        node('Sub', ['trap_most', 'trap_second'], ['trap_rest']),
        node('Cast', ['trap_rest'], ['trap_float'], to=onnx.TensorProto.FLOAT),
        node('Div', ['trap_zero', 'trap_float'], ['trap_nothing']),
        node('Add', ['untrapped', 'trap_nothing'], [pixels])])
    (folder / 'preprocess.onnx').write_bytes(model.SerializeToString())
    tasks = yaml.safe_load((folder / 'tasks.yaml').read_text('utf-8'))
    (known,) = (task for task in tasks['tasks'] if 'calibrations' in task)
    for row in known['calibrations']:
        row['thresholds'] = {0.05: 1e-9}
    next(task for task in tasks['tasks'] if task['name'] == TASK)['calibrations'] \
        = known['calibrations']
    (folder / 'tasks.yaml').write_text(yaml.safe_dump(tasks, sort_keys=False), 'utf-8')
    document = yaml.safe_load((folder / 'bundle.yaml').read_text('utf-8'))
    document['ood']['threshold'] = 1e9
    for name in ('preprocess.onnx', 'tasks.yaml'):
        data = (folder / name).read_bytes()
        document['files'][name] = {'bytes': len(data), 'sha256': sha256(data).hexdigest()}
    (folder / 'bundle.yaml').write_text(yaml.safe_dump(document, sort_keys=False), 'utf-8')
    return folder


@dataclass(frozen=True)
class Shot:
    """
    One moment of one camera, as it really is.

    :param index: counts all moments.
    :param stamp: now [ns].
    :param image: uint8 [H, W, 3] RGB, never twice the same.
    """

    view: str
    index: int
    stamp: int
    image: np.ndarray

    def message(self, image: np.ndarray | None = None, **changes: Any) -> Image:
        """Make the message of a good camera, or of one that gets some fields wrong."""
        pixels = self.image if image is None else image
        height, width = pixels.shape[:2]
        fields = {'height': height, 'width': width, 'step': 3 * width, 'encoding': 'rgb8',
                  'data': array('B', pixels.tobytes()), **changes}
        made = Image(**fields)
        made.header.frame_id = f'{self.view}_optical_frame'
        return made


# What a camera sends at a moment: messages and the stamps that they carry.
Sends = Callable[[Shot], Sequence[tuple[Message, int]]]


def good(shot: Shot) -> list[tuple[Message, int]]:
    """Send what is seen, as of now."""
    return [(shot.message(), shot.stamp)]


class Cameras(Thread):
    """
    Two cameras that stream until they are told to end; what each sends can be changed.

    :ivar sends: by view.
    :ivar taken: by view, when the pixels sent under a stamp were really seen.
    """

    def __init__(self, harness: Harness) -> None:
        super().__init__(daemon=True)
        machine()
        self.harness = harness
        self.sends: dict[str, Sends] = dict.fromkeys(VIEWS, good)
        self.taken: dict[str, dict[int, int]] = {view: {} for view in VIEWS}
        self.rate = RATE
        self.index = 0
        # When each moment was, on a clock of our own [s].
        self.moments: list[float] = []
        self._end = Event()
        self._rng = np.random.default_rng(0)
        self._scene = {view: noise(i, HEIGHT, WIDTH) for i, view in enumerate(VIEWS)}
        self.publishers: dict[str, Any] = {}
        self._topic_kinds: dict[str, type] = {}
        for view in VIEWS:
            self.connect(view)

    def connect(self, view: str, kind: type = Image) -> None:
        """Make a camera's publisher, in place of the one it has."""
        topic = f'/{view}/image_raw' + ('/compressed' if kind is CompressedImage else '')
        old = self.publishers.get(view)
        self.publishers[view] = self.harness.node.create_publisher(
            kind, topic, QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE))
        if old is not None:
            self.harness.node.destroy_publisher(old)

    def run(self) -> None:
        """Stream."""
        due = time.monotonic()
        while not self._end.is_set():
            self.shoot()
            due = max(due + 1.0 / self.rate, time.monotonic() - 0.5)
            self._end.wait(max(due - time.monotonic(), 0.0))

    def shoot(self) -> None:
        """Let both cameras send once."""
        self.index += 1
        self.moments.append(time.monotonic())
        now = self.harness.now()
        for view in VIEWS:
            scene = self._scene[view]
            image = scene ^ self._rng.integers(0, 4, scene.shape, np.uint8)
            image[0, 0] = 0
            for message, stamp in self.sends[view](Shot(view, self.index, now, image)):
                # The first time that a stamp is used is when its pixels were seen.
                self.taken[view].setdefault(stamp, now)
                self.publish(view, message, stamp)

    def publish(self, view: str, message: Message, stamp: int) -> None:
        """Publish a message under a stamp."""
        stamp = max(stamp, 0)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, SECOND)
        self.publishers[view].publish(message)

    def stalled(self, since: int) -> bool:
        """Whether this machine was so busy that frames came late, since some moment."""
        return bool((np.diff(self.moments[max(since - 2, 0):]) > 3.0 / RATE).any())

    def end(self) -> None:
        """End the stream."""
        self._end.set()
        self.join()


@dataclass(frozen=True)
class Row:
    """
    What came of a fault.

    :param fault: its name.
    :param response: what the node did, seen.
    :param diagnostic: its report: status, level and text; or where else it was told.
    :param recovery_s: from the end of the fault to the first good result; None: nothing to
        recover from.
    :param lost: images sent in that time by good cameras of which there is no embedding.
    :param busy: this machine was so busy meanwhile that frames came late: times say little.
    """

    fault: str
    response: str
    diagnostic: str
    recovery_s: float | None = None
    lost: int | None = None
    busy: bool = False


class Robot:
    """
    A node at work with both cameras streaming, and everything it says kept under watch.

    :param parameters: of the node, beside those that make faults quick to see.
    """

    def __init__(self, harness: Harness, bundle: Path, **parameters: str) -> None:
        self.harness = harness
        self.cameras = Cameras(harness)
        self.process: NodeProcess = harness.start(
            autostart='true', bundle=str(bundle), task=f"'{TASK}'", stuck_after_s='0.5',
            threads='1', **parameters)
        harness.wait(lambda: harness.infos, 'EncoderInfo', self.process)
        self.cameras.start()
        self._checked = [0, 0]

    def close(self) -> None:
        """End the cameras, then the node; that must end well."""
        self.cameras.end()
        assert self.process.stop() == 0, self.process.output
        assert 'Traceback' not in self.process.output, self.process.output

    # What is seen.

    @property
    def embedding(self) -> TaskEmbedding | None:
        """Give the newest embedding."""
        return self.harness.embeddings[-1] if self.harness.embeddings else None

    @property
    def success(self) -> SuccessProbability | None:
        """Give the newest result."""
        return self.harness.successes[-1] if self.harness.successes else None

    def wait(self, condition: Callable[[], Any], what: str, limit: float = PATIENCE) -> Any:
        """Spin until a condition holds; everything that comes is checked."""
        def checked() -> Any:
            self.check()
            return condition()

        return self.harness.wait(checked, what, self.process, limit)

    def spin(self, seconds: float) -> None:
        """Look on for a while."""
        self.harness.spin(seconds)
        self.check()

    def sees(self, views: frozenset[str], since: int) -> bool:
        """
        Whether the newest result is of these views, and newer than that.

        Of no view: ~/success says so, and whatever was decided is not repeated.
        """
        if not views:
            result = self.success
            return result is not None and published(result) > since \
                and bool(result.status & result.STATUS_STALE_VIEW) \
                and result.decision == result.DECISION_ABSTAIN and not result.probability_valid
        message = self.embedding
        return message is not None and stamp_of(message) > since \
            and frozenset(v for v, valid in zip(VIEWS, message.view_valid, strict=True)
                          if valid) == views

    def diagnosis(self, text: str) -> str:
        """Tell which status that is not OK says this: its name, level and words; or ''."""
        for name, status in self.harness.statuses.items():
            if text in status.message and status.level != status.OK:
                level = {status.WARN: 'WARN', status.ERROR: 'ERROR'}.get(status.level, '?')
                return f'{name.removeprefix("/encoder: ")} {level}: {status.message}'
        return ''

    def well(self) -> bool:
        """Whether every status is OK."""
        statuses = self.harness.statuses
        return len(statuses) >= 5 and all(s.level == s.OK for s in statuses.values())

    def all_told(self) -> bool:
        """Whether the log has as many ends of faults as begins."""
        lines = [line for line in self.process.output.splitlines() if 'set_task' not in line]
        return sum('[WARN]' in line for line in lines) \
            == sum('recovered: ' in line for line in lines)

    def steady(self) -> None:
        """Wait until all is well and SUCCESS has been decided."""
        def steady() -> bool:
            return self.well() and self.all_told() \
                and self.sees(BOTH, self.harness.now() - SECOND) \
                and self.success is not None \
                and self.success.decision == self.success.DECISION_SUCCESS

        self.wait(steady, 'a robot that is well')

    # What must always hold.

    def check(self) -> None:
        """
        Check all that has come since the last time.

        Numbers are finite; a missing view is zeros; a stamp is one that the camera gave, and no
        newer than its pixels; stamps rise; a result of no fresh view decides nothing.
        """
        embeddings, successes = self.harness.embeddings, self.harness.successes
        for message in embeddings[self._checked[0]:]:
            data = np.frombuffer(message.data, np.float32).reshape(len(VIEWS), message.dim)
            assert np.isfinite(data).all()
            for row, view in enumerate(VIEWS):
                stamp = message.view_stamps[row].sec * SECOND + message.view_stamps[row].nanosec
                if not message.view_valid[row]:
                    assert not data[row].any() and stamp == 0
                    continue
                assert stamp in self.cameras.taken[view], 'a stamp that the camera never gave'
        for result in successes[self._checked[1]:]:
            assert np.isfinite([result.probability, result.progress, result.raw_score,
                                *result.mode_probabilities]).all()
            if result.status & ~result.STATUS_VIEW_MISSING:
                assert result.decision == result.DECISION_ABSTAIN
        for messages, since in ((embeddings, self._checked[0]), (successes, self._checked[1])):
            # 0: nothing seen yet in this episode.
            stamps = [s for m in messages[max(since - 1, 0):] if (s := stamp_of(m))]
            assert stamps == sorted(stamps), 'a result older than the one before'
        self._checked = [len(embeddings), len(successes)]
        assert self.process.process.poll() is None, self.process.output

    def lag(self, view: str) -> float:
        """Tell by how many seconds pixels were older than their stamp, at most, so far."""
        taken = self.cameras.taken[view]
        row = VIEWS.index(view)
        most = 0
        for message in self.harness.embeddings:
            if message.view_valid[row]:
                stamp = message.view_stamps[row].sec * SECOND + message.view_stamps[row].nanosec
                most = max(most, stamp - taken[stamp])
        return most / SECOND


@dataclass(frozen=True)
class Fault:
    """
    A fault of the stream.

    :param name: as the table calls it.
    :param sends: what cameras send while it lasts, by view.
    :param views: what results are of meanwhile.
    :param says: words of the diagnosis; '' where nothing is wrong with it.
    :param rate: of both cameras meanwhile [Hz].
    """

    name: str
    sends: dict[str, Sends]
    views: frozenset[str]
    says: str = ''
    rate: float = RATE


RESPONSES = {
    BOTH: 'continues with both views',
    frozenset({THIRD}): 'continues without the wrist view',
    frozenset({WRIST}): 'continues without the third-person view',
    frozenset(): 'no embedding; ~/success says STALE and ABSTAIN at 2 Hz',
}


def suffer(robot: Robot, fault: Fault) -> Row:
    """Let a robot that is well have a fault of its cameras, and be well again."""
    cameras = robot.cameras

    def begin() -> None:
        cameras.sends.update(fault.sends)
        cameras.rate = fault.rate

    def end() -> None:
        cameras.sends.update(dict.fromkeys(VIEWS, good))
        cameras.rate = RATE

    return endure(robot, fault.name, begin, end, views=fault.views, says=fault.says,
                  most=2 * max(len(fault.sends), 1))


def endure(
    robot: Robot, name: str, begin: Callable[[], None], end: Callable[[], None], *,
    views: frozenset[str] = BOTH, says: str = '', most: int = 2,
) -> Row:
    """
    Let a robot that is well have any fault, and be well again.

    :param views: what results are of meanwhile.
    :param says: words of the diagnosis; '' where nothing is wrong with it.
    :param most: log lines that may tell of its begin: a cause and what follows from it, for each
        camera.
    """
    robot.steady()
    cameras, before = robot.cameras, len(robot.process.output)
    began, first, start = robot.harness.now(), cameras.index, time.monotonic()
    begin()
    said = ''
    if says:
        said = robot.wait(lambda: robot.diagnosis(says), f"the diagnosis '{says}'")
    robot.wait(lambda: robot.sees(views, max(began, robot.harness.now() - SECOND)),
               f'results of {sorted(views) or "no view"}')
    robot.spin(0.6)
    ended = robot.harness.now()
    end()
    robot.wait(lambda: robot.sees(BOTH, ended), 'results of both views')
    recovered = published(robot.embedding)
    last = cameras.index
    robot.wait(robot.well, 'all well again')

    robot.wait(robot.all_told, 'a line for the end of each fault')
    told = robot.process.output[before:]
    begins = told.count('[WARN]')
    busy = cameras.stalled(first) or machine().busy(start)
    if not busy:
        assert begins <= most and bool(begins) == bool(says), told
    assert '[ERROR]' not in told and '[FATAL]' not in told, told
    embedded = {stamp_of(m) for m in robot.harness.embeddings if stamp_of(m) > began}
    return Row(name, RESPONSES[views], said, (recovered - ended) / SECOND,
               max(last - first - len(embedded), 0), busy)


class Machine(Thread):
    """
    How many threads want to run on this machine, ever since.

    The load average knows of four busy neighbours only minutes after they have begun.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        # (time [s], threads that run or could).
        self._seen: list[tuple[float, int]] = []
        self.start()

    def run(self) -> None:
        """Look ten times a second."""
        while True:
            self._seen.append((time.monotonic(), self._runnable()))
            time.sleep(0.1)

    @staticmethod
    def _runnable() -> int:
        """Count the threads that run or could; the one that asks is none of them."""
        with open('/proc/loadavg', encoding='ascii') as file:
            return int(file.read().split()[3].split('/')[0]) - 1

    def busy(self, since: float) -> bool:
        """
        Whether so much wanted to run that a delay says nothing of the node.

        :param since: on the monotonic clock [s].
        """
        seen = [count for when, count in self._seen if when >= since - 0.2]
        return float(np.mean(seen or [self._runnable()])) > 1.5 * (os.cpu_count() or 1)


@cache
def machine() -> Machine:
    """Watch this machine from the first call on."""
    return Machine()


def mapped_bytes(process: NodeProcess) -> int:
    """Tell the virtual memory that a process has mapped [bytes]."""
    with open(f'/proc/{process.process.pid}/statm', encoding='ascii') as statm:
        return int(statm.read().split()[0]) * os.sysconf('SC_PAGE_SIZE')
