# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The recorder as a process: what is in its bags, who labels them, and what no fault may do."""

from array import array
from collections.abc import Iterator
import os
from pathlib import Path
import resource
import signal
from typing import Any

from builtin_interfaces.msg import Time
import cv2
from diagnostic_msgs.msg import DiagnosticStatus
from hralign_msgs.msg import EncoderInfo, SuccessProbability, TaskEmbedding
from hralign_msgs.srv import LabelEpisode
from hralign_ros.nodes import recorder_parameters
from hralign_ros.nodes.conversions import image_message
from hralign_ros.runtime.labels import Label, read_labels
import numpy as np
import pytest
from rcl_interfaces.srv import DescribeParameters, ListParameters
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_srvs.srv import Trigger
from support.harness import episode_of, Harness, NodeProcess, noise, ROOT, stamp_of, VIEWS

mcap_stream = pytest.importorskip('mcap.stream_reader', reason='mcap is not installed')
rosbags = pytest.importorskip('rosbags.typesys', reason='rosbags is not installed')
rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')

SECOND = 1_000_000_000
MANY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)
PAGE = (ROOT / 'docs/reference/recorder.md').read_text('utf-8')


class Studio:
    """A recorder, and an encoder and cameras that the test plays."""

    def __init__(self, harness: Harness, folder: Path) -> None:
        self.harness, self.folder = harness, folder
        self.process: NodeProcess | None = None
        self.success = harness.node.create_publisher(SuccessProbability, '/encoder/success', MANY)
        self.camera = harness.node.create_publisher(
            CompressedImage, '/wrist/image_raw/compressed', MANY)
        self.info = harness.node.create_publisher(EncoderInfo, '/encoder/info', LATCHED)
        self.episode = 0

    def start(self, **parameters: str) -> NodeProcess:
        """Start a recorder, and wait until it listens."""
        before = self._listeners()
        # The encoder of a test is silent while the test waits for something.
        self.process = self.harness.start('recorder', folder=str(self.folder), **{
            'rate_hz': '0.0', 'silent_after_s': '600.0', **parameters})
        # One that was killed is still among them.
        self.harness.wait(lambda: {topic for topic, _ in self._listeners() - before} >= {
            '/encoder/success', '/wrist/image_raw'}, 'a recorder', self.process)
        self.harness.wait(lambda: 'recording into' in self.process.output, 'it', self.process)
        return self.process

    def _listeners(self) -> set[tuple[str, bytes]]:
        """List who listens to what the test plays, by topic and identity."""
        node = self.harness.node
        camera = '/wrist/image_raw'
        return {(topic.removesuffix('/compressed'), bytes(info.endpoint_gid))
                for topic in ('/encoder/success', camera, f'{camera}/compressed')
                for info in node.get_subscriptions_info_by_topic(topic)}

    def begin(self) -> int:
        """Begin an episode, as of now."""
        self.episode = self.harness.now()
        return self.episode

    def says(self, decision: int = SuccessProbability.DECISION_RUNNING, seen: int = 0) -> None:
        """Let the encoder say which episode it is in."""
        message = SuccessProbability(decision=decision)
        message.episode_id = time_of(self.episode)
        message.header.stamp = time_of(seen)
        self.success.publish(message)

    def sees(self, image: bytes = bytes(2000)) -> int:
        """Let the camera send a compressed image that nobody decodes; give its stamp."""
        message = CompressedImage(format='jpeg', data=array('B', image))
        stamp = self.harness.now()
        message.header.stamp = time_of(stamp)
        self.camera.publish(message)
        return stamp

    def shoot(self, count: int, size: int = 2000) -> list[int]:
        """Record an episode of so many images; give their stamps."""
        self.begin()
        stamps = []
        for _ in range(count):
            stamps.append(self.sees(bytes(size)))
            self.says()
            self.harness.spin(0.02)
        return stamps

    def recorded(self, count: int) -> str:
        """Wait until so many images of the current episode are in a bag; give its name."""
        ending = '_{}.{:09d}'.format(*divmod(self.episode, SECOND))

        def there() -> str:
            values = self.values()
            name = values.get('episode', '')
            return name if name.endswith(ending) \
                and values['images_wrist'] == str(count) else ''

        return str(self.harness.wait(there, f'{count} images', self.process))

    def message(self) -> str:
        """Read what the newest diagnostics say about the recording."""
        return str(self.harness.statuses['/recorder: recording'].message)

    def values(self) -> dict[str, str]:
        """Read the values of the newest diagnostics."""
        return {pair.key: pair.value for name in ('recording', 'disk')
                for pair in self.harness.statuses[f'/recorder: {name}'].values}

    def finished(self, count: int) -> list[Path]:
        """Wait until so many bags are whole; give them, oldest first."""
        def whole() -> list[Path]:
            found = sorted(path for path in self.folder.glob('*Z_*')
                           if path.suffix != '.partial')
            return found if len(found) >= count else []

        return list(self.harness.wait(whole, f'{count} bags', self.process))

    def label(self, **fields: Any) -> LabelEpisode.Response:
        """Call ~/label_episode."""
        return self.harness.call(
            LabelEpisode, '/recorder/label_episode', LabelEpisode.Request(**fields))

    def press(self, button: str) -> Trigger.Response:
        """Press a button."""
        return self.harness.call(Trigger, f'/recorder/label_{button}', Trigger.Request())


def time_of(nanoseconds: int) -> Time:
    """Make a stamp."""
    seconds, rest = divmod(nanoseconds, SECOND)
    return Time(sec=seconds, nanosec=rest)


def read_bag(path: Path) -> dict[str, list[Any]]:
    """Read a bag's messages with somebody else's reader, by topic."""
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    found: dict[str, list[Any]] = {}
    with rosbag2.Reader(path) as reader:
        for connection in reader.connections:
            store.register(rosbags.get_types_from_msg(connection.msgdef.data, connection.msgtype))
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(
                store.deserialize_cdr(data, connection.msgtype))
        counts = {one.topic: one.msgcount for one in reader.connections}
    assert counts == {topic: len(messages) for topic, messages in found.items()}
    return found


def stamps_of(bag: Path, view: str = 'wrist') -> list[int]:
    """Read the stamps of a view's images in a bag [ns]."""
    return [stamp_of(one) for one in read_bag(bag)[f'/{view}/image_raw/compressed']]


@pytest.fixture
def studio(harness: Harness, tmp_path: Path) -> Iterator[Studio]:
    """Give a studio whose recorder listens to compressed images of one camera."""
    yield Studio(harness, tmp_path / 'bags')


# Reliable: a test that counts images does not depend on how busy the machine is.
ONE = {'views': '[wrist]', 'wrist.transport': 'compressed', 'wrist.reliability': 'reliable'}


# With all that a robot has.

def test_episodes_of_an_encoder_with_two_cameras(harness: Harness, tmp_path: Path) -> None:
    """
    Two episodes, raw cameras: each bag has the images of its own, as JPEG with their stamps.

    The first image of the second episode comes before anybody knows that it has begun.
    """
    folder = tmp_path / 'bags'
    recorder = harness.start('recorder', folder=str(folder), rate_hz='0.0',
                             record_embedding='true')
    encoder = harness.start_active(task="'open the drawer'")
    sent: dict[int, np.ndarray] = {}

    def send(seed: int) -> None:
        image = noise(seed)
        stamp, _ = harness.send_until_embedded(dict.fromkeys(VIEWS, image))
        sent[stamp] = image

    def heard() -> bool:
        send(9)
        status = harness.statuses['/recorder: recording']
        return all(pair.value != '0' for pair in status.values if pair.key.startswith('images_')) \
            and 'recording 2' in status.message

    # Images are lost until both nodes have found the cameras.
    harness.wait(heard, 'images of both cameras', recorder)
    sent.clear()
    for seed in range(3):
        send(seed)
    second = episode_of(harness.start_episode())
    for seed in range(3, 6):
        send(seed)
    ending = '_{}.{:09d}'.format(*divmod(second, SECOND))

    def caught_up() -> bool:
        values = {pair.key: pair.value for pair in harness.statuses['/recorder: recording'].values}
        return values['episode'].endswith(ending) \
            and all(int(values[f'images_{view}']) >= 3 for view in VIEWS)

    # What it has not taken yet when it ends is lost.
    harness.wait(caught_up, 'the images of the second episode', recorder)
    assert encoder.stop() == 0 and recorder.stop() == 0, recorder.output
    first_bag, second_bag = sorted(path for path in folder.iterdir() if path.is_dir())
    assert second_bag.name.endswith(ending)
    for bag, early in ((first_bag, True), (second_bag, False)):
        topics = read_bag(bag)
        for view in VIEWS:
            images = topics[f'/{view}/image_raw/compressed']
            stamps = [stamp_of(one) for one in images]
            wanted = [stamp for stamp in sent if (stamp < second) is early]
            assert set(wanted) <= set(stamps) and stamps == sorted(stamps)
            for one in images:
                assert one.header.frame_id == f'{view}_optical_frame'
                if stamp_of(one) in sent:
                    got = cv2.imdecode(one.data, cv2.IMREAD_COLOR)[..., ::-1]
                    assert np.abs(got.astype(int) - sent[stamp_of(one)]).mean() < 3.0
        assert {episode_of(one) for one in topics['/encoder/success']} == (
            {episode_of(topics['/encoder/success'][0])})
        assert (episode_of(topics['/encoder/success'][0]) == second) is not early
        assert len(topics['/encoder/info']) == 1
        assert all(one.bundle_sha256 for one in topics['/encoder/embedding'])
    assert 'Traceback' not in recorder.output


def test_a_video_as_a_camera(studio: Studio) -> None:
    """A camera of 30 Hz is recorded at the rate that is asked for."""
    studio.start(views='[wrist]', rate_hz='5')
    studio.begin()
    studio.says()
    camera = studio.harness.start(
        'video_publisher', file=str(ROOT / 'demo/can/wrist.mp4'), wait_for_subscribers='1',
        arguments=('-r', 'image_raw:=wrist/image_raw'))

    def ended() -> bool:
        studio.says()
        studio.harness.spin(0.05)
        return camera.process.poll() is not None

    studio.harness.wait(ended, 'the end of the video')
    studio.process.stop()
    (bag,) = studio.finished(1)
    stamps = stamps_of(bag)
    # Of each fifth of a second one, however many frames a busy machine has lost.
    fifths = [stamp // (SECOND // 5) for stamp in stamps]
    assert len(fifths) == len(set(fifths)) > 5


def test_what_is_passed_through(studio: Studio) -> None:
    """Compressed images, joints and topics of other types arrive to the bit."""
    studio.start(**ONE, topics='[joint_states, tcp, nobody]', record_embedding='true')
    node = studio.harness.node
    joints = node.create_publisher(JointState, '/joint_states', MANY)
    other = node.create_publisher(Image, '/tcp', LATCHED)
    other.publish(Image(height=7))
    embedding = node.create_publisher(TaskEmbedding, '/encoder/embedding', MANY)
    studio.info.publish(EncoderInfo(node_version='1.2.3'))
    for publisher in (joints, other, embedding, studio.info):
        count = 2 if publisher in (embedding, studio.info) else 1
        studio.harness.wait(lambda one=publisher, count=count:
                            one.get_subscription_count() >= count, 'the recorder', studio.process)
    image = cv2.imencode('.jpg', noise(1))[1].tobytes()
    studio.begin()
    stamp = studio.sees(image)
    studio.says()
    for tick in range(20):
        joints.publish(JointState(name=['a', 'b'], position=[tick * 0.1, 2.0]))
        embedding.publish(TaskEmbedding(dim=tick))
        studio.harness.spin(0.01)
    studio.harness.wait(lambda: studio.values()['waiting_for'] == '/nobody', '/nobody')
    studio.harness.spin(0.5)
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    topics = read_bag(bag)
    (got,) = topics['/wrist/image_raw/compressed']
    assert (bytes(got.data), stamp_of(got), got.format) == (image, stamp, 'jpeg')
    assert [list(one.position) for one in topics['/joint_states']] == [
        [tick * 0.1, 2.0] for tick in range(20)]
    assert [one.dim for one in topics['/encoder/embedding']] == list(range(20))
    assert [one.node_version for one in topics['/encoder/info']] == ['1.2.3']
    assert [one.height for one in topics['/tcp']] == [7]


def test_no_image_no_bag(studio: Studio) -> None:
    """A camera that is dead is said; nothing is left of the episode."""
    studio.start(**ONE)
    assert 'no encoder' in studio.harness.wait(studio.message, 'a status')

    def said() -> bool:
        studio.says()
        studio.harness.spin(0.05)
        return 'no image comes on /wrist' in studio.message()

    studio.begin()
    studio.harness.wait(said, 'the dead camera', studio.process)
    studio.begin()
    studio.says()
    assert studio.process.stop(signal.SIGTERM) == 0
    assert not [path for path in studio.folder.iterdir() if path.is_dir()]


# Labels.

def test_labels_by_service_and_button(studio: Studio) -> None:
    """A button labels the newest; the service labels any; a later label of a human counts."""
    studio.start(**ONE, label_by='human:bo')
    assert not studio.press('success').success
    refused = studio.label(outcome=LabelEpisode.Request.OUTCOME_SUCCESS)
    assert not refused.accepted and 'no recording' in refused.message
    stamps = studio.shoot(5)
    first = studio.episode
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    assert studio.press('failure').success
    assert read_labels(studio.folder) == {bag.name: Label(bag.name, 'failure', by='human:bo')}
    answer = studio.label(
        episode_id=time_of(first), outcome=LabelEpisode.Request.OUTCOME_SUCCESS, note='a\nb',
        success_time=time_of(stamps[3]), by='human:anna')
    assert answer.accepted and answer.episode == bag.name and bag.name in answer.message
    assert episode_of(answer) == first
    label = read_labels(studio.folder)[bag.name]
    assert (label.success, label.note, label.by) == ('success', 'a b', 'human:anna')
    assert label.time_s == pytest.approx((stamps[3] - stamps[0]) / SECOND, abs=1e-3)
    for wrong in ({'by': 'model'}, {'by': 'anna'}, {'outcome': 0}, {'outcome': 9},
                  {'success_time': time_of(5)}, {'episode_id': time_of(7)}):
        answer = studio.label(**{'outcome': LabelEpisode.Request.OUTCOME_SUCCESS, **wrong})
        assert not answer.accepted and answer.message.startswith('refused: '), wrong
    assert read_labels(studio.folder)[bag.name] == label
    # The next one is being recorded now, and goes on once it is labelled.
    studio.shoot(3)
    studio.recorded(3)
    assert studio.press('success').success
    studio.sees()
    studio.recorded(4)
    studio.begin()
    studio.says()
    _, second = studio.finished(2)
    assert read_labels(studio.folder)[second.name] == Label(second.name, 'success', by='human:bo')
    assert len(stamps_of(second)) == 4


def test_the_model_labels_only_where_it_is_asked_to(studio: Studio) -> None:
    """Its decision is a label by the model, with the time of the image that it decided on."""
    studio.start(**ONE, label_by_model='true')
    stamps = studio.shoot(3)
    studio.says(SuccessProbability.DECISION_SUCCESS, stamps[2])
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    label = studio.harness.wait(lambda: read_labels(studio.folder).get(bag.name), 'the label')
    assert (label.success, label.by) == ('success', 'model')
    assert label.time_s == pytest.approx((stamps[2] - stamps[0]) / SECOND, abs=1e-3)


# Faults.

def test_a_recorder_that_is_killed(studio: Studio) -> None:
    """
    What it leaves is not called whole, can be read as far as it goes, and is left as it is.

    The next recorder names it, and records on.
    """
    process = studio.start(**ONE)
    stamps = studio.shoot(6, size=100_000)
    studio.recorded(6)
    # Written are full chunks, once a second.
    studio.harness.wait(lambda: sum(
        path.stat().st_size for path in studio.folder.rglob('*.mcap')) > 600_000, 'six images')
    process.process.kill()
    process.wait()
    (partial,) = [path for path in studio.folder.iterdir() if path.is_dir()]
    assert partial.name.endswith('.partial') and not (partial / 'metadata.yaml').exists()
    assert len(list(records(partial, 'Message'))) >= len(stamps)
    process = studio.start(**ONE)
    assert partial.name in process.output
    studio.harness.wait(lambda: studio.values().get('cut_off') == '1', 'the cut off one')
    studio.shoot(2)
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    assert len(stamps_of(bag)) == 2 and partial.is_dir()


def records(bag: Path, kind: str) -> Iterator[Any]:
    """Read records of a kind from an MCAP file that has no end."""
    with open(next(bag.glob('*.mcap')), 'rb') as file:
        try:
            for record in mcap_stream.StreamReader(file).records:
                if type(record).__name__ == kind:
                    yield record
        except Exception:  # noqa: B902 - the end of what there is
            return


def test_a_disk_that_is_full(studio: Studio) -> None:
    """
    A write that fails is one fault; the node lives, and records once there is room again.

    The limit of a file's size stands for the disk's. The camera runs at 20 Hz: a camera that sent
    whenever the test looked sent thousands of images a second, which were still on their way when
    the next episode began, and some of them came into its bag.
    """
    process = studio.start(**ONE)
    studio.shoot(1)
    studio.recorded(1)
    before = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (300_000, before[1]))

    def full() -> bool:
        studio.sees(bytes(100_000))
        studio.says()
        studio.harness.spin(0.05)
        disk = studio.harness.statuses['/recorder: disk']
        return disk.level == disk.ERROR and 'was cut off' in disk.message

    studio.harness.wait(full, 'the fault', process)
    resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, before)
    (partial,) = [path for path in studio.folder.iterdir() if path.is_dir()]
    assert partial.name.endswith('.partial')
    stamps = studio.shoot(3)
    studio.recorded(3)
    studio.harness.wait(
        lambda: studio.harness.statuses['/recorder: disk'].level == DiagnosticStatus.OK,
        'the end of the fault', process)
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    assert stamps_of(bag) == stamps
    assert process.output.count('was cut off') == 1 and 'Traceback' not in process.output


def test_the_disk_limit_keeps_what_is_labelled(studio: Studio) -> None:
    """The oldest goes, but not the first one, which a human has labelled."""
    studio.start(**ONE, max_gb='0.0007')
    names = []
    for episode in range(5):
        studio.shoot(2, size=100_000)
        names.append(studio.recorded(2))
        if not episode:
            assert studio.press('success').success
    assert studio.process.stop() == 0
    left = sorted(path.name for path in studio.folder.iterdir() if path.is_dir())
    assert left[0] == names[0] and left[-1] == names[-1] and len(left) < 5
    assert studio.process.output.count('removed ') == 5 - len(left)


def test_an_image_that_cannot_be_used(studio: Studio) -> None:
    """It is left out and said; those before and after it are there."""
    raw = studio.harness.node.create_publisher(Image, '/wrist/image_raw', MANY)
    studio.start(views='[wrist]', wrist__reliability='reliable')
    studio.begin()
    sent = {}
    for encoding in ('rgb8', 'nonsense', 'mono8', 'bgr8'):
        image, stamp = noise(len(sent)), studio.harness.now()
        pixels = image[..., ::-1] if encoding == 'bgr8' else image[..., 0] \
            if encoding == 'mono8' else image
        raw.publish(image_message(pixels, stamp, 'wrist', encoding=encoding))
        if encoding != 'nonsense':
            sent[stamp] = image if encoding != 'mono8' else np.repeat(image[..., :1], 3, -1)
        studio.says()
        studio.harness.spin(0.1)
    studio.harness.wait(lambda: 'nonsense' in studio.process.output, 'the fault', studio.process)
    studio.begin()
    studio.says()
    (bag,) = studio.finished(1)
    images = read_bag(bag)['/wrist/image_raw/compressed']
    assert [stamp_of(one) for one in images] == list(sent)
    for one in images:
        assert 'jpeg' in one.format
        got = cv2.imdecode(one.data, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(got.astype(int) - sent[stamp_of(one)]).mean() < 3.0


@pytest.mark.parametrize(('parameters', 'said'), [
    ({'label_by': 'anna'}, 'label_by'), ({'folder': "''"}, 'folder is empty'),
    ({'rate_hz': '-1.0'}, 'rate_hz'), ({'topics': "['a b']"}, "topics is 'a b'"),
    ({'encoder': "'a b'"}, 'parameter encoder is'),
    ({'folder': '/proc/nowhere'}, '/proc/nowhere')])
def test_no_start_with_values_that_cannot_be_used(
    harness: Harness, tmp_path: Path, parameters: dict[str, str], said: str,
) -> None:
    """One sentence says which, and what is needed."""
    process = harness.start('recorder', **{'folder': str(tmp_path), **parameters})
    assert process.wait() == 1
    assert said in process.output and 'Traceback' not in process.output


def test_no_start_without_mcap(harness: Harness, tmp_path: Path) -> None:
    """A robot that lacks the package learns it at once, and how to get it."""
    (tmp_path / 'mcap').mkdir()
    (tmp_path / 'mcap/__init__.py').write_text("raise ImportError('hidden by the test')")
    process = harness.start('recorder', folder=str(tmp_path / 'bags'), environment={
        'PYTHONPATH': f'{tmp_path}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'})
    assert process.wait() == 1
    assert "pip install 'mcap" in process.output and 'Traceback' not in process.output


def test_two_recorders_of_one_folder(studio: Studio) -> None:
    """The second one would remove bags that the first one writes."""
    studio.start(**ONE)
    second = studio.harness.start('recorder', folder=str(studio.folder))
    assert second.wait() == 1
    assert 'another recorder' in second.output and 'Traceback' not in second.output


# What is written about it.

def test_the_page_and_the_node_agree(studio: Studio) -> None:
    """Services and parameters on the page are those of the running node."""
    studio.start()

    def services() -> dict[str, str]:
        return {name: kind for name, kind in studio.harness.offered('recorder', 'service').items()
                if 'label' in name}

    studio.harness.wait(lambda: len(services()) == 3, 'the services in the graph')
    for name, kind in services().items():
        assert f'| `{name.replace("/recorder/", "~/")}` | {kind.replace("/srv/", "/")} |' in PAGE
    for status in ('/recorder: recording', '/recorder: disk'):
        studio.harness.wait(lambda status=status: status in studio.harness.statuses, status)
        assert f'| `{status}` |' in PAGE
    listed = studio.harness.call(
        ListParameters, '/recorder/list_parameters', ListParameters.Request()).result.names
    rows = recorder_parameters.table()
    names = {name for name in listed if name in rows}
    assert names == set(rows)
    described = studio.harness.call(
        DescribeParameters, '/recorder/describe_parameters',
        DescribeParameters.Request(names=sorted(names))).descriptors
    for descriptor in described:
        assert descriptor.description == rows[descriptor.name].text and descriptor.read_only


@pytest.mark.parametrize('name', ['recorder', 'encoder', 'franka', 'ur'])
def test_parameter_files_for_both(studio: Studio, name: str) -> None:
    """The launch file gives the recorder the encoder's file: no name in it is unknown to it."""
    process = studio.harness.start(
        'recorder', arguments=('--params-file', str(ROOT / f'config/{name}.yaml'),
                               '-p', f'folder:={studio.folder}', '-p', 'xyz:=1'))
    studio.harness.wait(lambda: 'recording into' in process.output, 'the start', process)
    assert process.output.count('and ignores: xyz\n') == 1, process.output
