# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What others read in a recording of our messages: every field, under its name."""

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

from ament_index_python.packages import get_package_share_directory
from hralign_msgs.msg import EncoderInfo, SuccessProbability, TaskEmbedding
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from support.harness import Harness, noise, ROOT, VIEWS

mcap_reader = pytest.importorskip('mcap.reader', reason='mcap is not installed')
mcap_writer = pytest.importorskip('mcap.writer', reason='mcap is not installed')
mcap_ros2 = pytest.importorskip('mcap_ros2.decoder', reason='mcap-ros2-support is not installed')
rosbags = pytest.importorskip('rosbags.typesys', reason='rosbags is not installed')
rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='rosbags is not installed')

TOPICS = {'/encoder/embedding': TaskEmbedding, '/encoder/success': SuccessProbability,
          '/encoder/info': EncoderInfo}
DEFINITIONS = sorted(path for kind in ('msg', 'srv', 'action')
                     for path in (ROOT / 'hralign_msgs' / kind).glob(f'*.{kind}'))
RULE = '=' * 80


def fields_of(text: str) -> Iterator[tuple[str, str, bool]]:
    """Read type, name and whether it is a constant from each line of a definition."""
    for line in text.splitlines():
        found = re.match(r'(\S+)\s+(\w+)\s*(=?)', line.partition('#')[0].strip())
        if found:
            yield found[1], found[2], bool(found[3])


def complaints(text: str) -> list[str]:
    """
    Say what plotters cannot read in a definition.

    PlotJuggler takes of a type what its expression matches. It skips the rest, and reads all that
    comes behind from the wrong place; older releases do not know [<=N]. It plots doubles: an
    integer that a double cannot hold ends the message. It takes the time from a header, where that
    is the first entry, constants included. Foxglove gives a field the names of those constants
    that stand directly before it and are of its type.
    """
    found, waiting = [], []
    for number, (kind, name, constant) in enumerate(fields_of(text)):
        if not re.fullmatch(r'[a-zA-Z]\w*(/[a-zA-Z]\w*)?(\[\d*\])?', kind):
            found.append(f'{name}: {kind} is bounded')
        if re.match(r'u?int64', kind):
            found.append(f'{name}: {kind} does not fit into a double')
        if kind == 'std_msgs/Header' and number:
            found.append(f'{name} is not the first entry')
        if constant:
            waiting.append((kind, name))
            continue
        found += [f'{other} does not stand before its field' for type_, other in waiting
                  if type_ != kind or not other.startswith(f'{name.upper()}_')]
        waiting = []
    return found + [f'{other} has no field' for _, other in waiting]


@pytest.mark.parametrize('path', DEFINITIONS, ids=lambda path: path.name)
def test_plotters_can_read_the_definition(path: Path) -> None:
    """Each definition keeps the rules that PlotJuggler and Foxglove make."""
    for part in path.read_text('utf-8').split('\n---\n'):
        assert not complaints(part)


@pytest.mark.parametrize(('text', 'complaint'), [
    ('string<=64[<=8] view_names', 'view_names: string<=64[<=8] is bounded'),
    ('float32[<=8] view_ages', 'view_ages: float32[<=8] is bounded'),
    ('uint64 episode_id', 'episode_id: uint64 does not fit into a double'),
    ('uint8 OK=0\nstd_msgs/Header header\nuint8 ok', 'header is not the first entry'),
    ('uint32 STATUS_OK=0\nuint8 pooling\nuint32 status', 'STATUS_OK does not stand before'),
    ('uint8 STATUS_OK=0\nuint32 status', 'STATUS_OK does not stand before'),
    ('uint32 status\nuint32 STATUS_OK=0', 'STATUS_OK has no field'),
])
def test_rules_find_what_was_wrong(text: str, complaint: str) -> None:
    """
    Guards against the messages as they were: PlotJuggler read none of them.

    Its parser failed with "not enough data to decode" at the bounded strings in a bounded
    sequence, and behind those with "Floating point truncated" at the nanoseconds of the episode.
    """
    assert any(one.startswith(complaint) for one in complaints(text))


def definition(kind: str) -> str:
    """Put a message's definition together with all those that it needs, as rosbag2 does."""
    texts: dict[str, str] = {}
    todo = [kind]
    while todo:
        package, name = todo.pop().split('/')
        if f'{package}/{name}' in texts:
            continue
        text = (Path(get_package_share_directory(package)) / 'msg' / f'{name}.msg').read_text(
            'utf-8')
        texts[f'{package}/{name}'] = text
        for type_, _, _ in fields_of(text):
            inner = type_.partition('[')[0]
            if inner[0].isupper() or '/' in inner:
                todo.append(inner if '/' in inner else f'{package}/{inner}')
    root = texts.pop(kind)
    return root + ''.join(f'{RULE}\nMSG: {name}\n{text}' for name, text in texts.items())


def write_mcap(path: Path, recorded: list[tuple[str, bytes]]) -> None:
    """Write serialised messages as rosbag2 does; the log time counts them."""
    with open(path, 'wb') as file:
        writer = mcap_writer.Writer(file)
        writer.start('ros2')
        channels = {}
        for topic, kind in TOPICS.items():
            name = kind.__name__
            schema = writer.register_schema(
                f'hralign_msgs/msg/{name}', 'ros2msg', definition(f'hralign_msgs/{name}').encode())
            channels[topic] = writer.register_channel(topic, 'cdr', schema)
        for number, (topic, data) in enumerate(recorded):
            writer.add_message(channels[topic], log_time=number, data=data, publish_time=number)
        writer.finish()


def differences(ours: Any, theirs: Any, path: str = '') -> list[str]:
    """Name the fields of a message that somebody else's object holds differently."""
    if hasattr(ours, 'get_fields_and_field_types'):
        return [one for name in ours.get_fields_and_field_types()
                for one in differences(getattr(ours, name), getattr(theirs, name, None),
                                       f'{path}.{name}')]
    if isinstance(ours, (str, int, float, np.generic)):
        return [] if ours == theirs else [f'{path}: {ours!r} is read as {theirs!r}']
    if theirs is None or len(ours) != len(theirs):
        return [f'{path}: {len(ours)} values are read as {theirs!r}']
    return [one for index, pair in enumerate(zip(ours, theirs, strict=True))
            for one in differences(*pair, f'{path}[{index}]')]


def test_recorded_messages_are_read_in_full(harness: Harness, tmp_path: Path) -> None:
    """A recording of a running node gives rosbags and mcap-ros2-support every value in it."""
    recorded: list[tuple[str, bytes]] = []
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for topic, kind in TOPICS.items():
        harness.node.create_subscription(
            kind, topic, lambda data, topic=topic: recorded.append((topic, data)),
            latched if topic.endswith('info') else 10, raw=True)
    process = harness.start_active(task="'open the drawer'")

    def complete() -> bool:
        harness.send_until_embedded({view: noise(index) for index, view in enumerate(VIEWS)})
        return {topic for topic, _ in recorded} == set(TOPICS)

    harness.wait(complete, 'a message on every topic', process)
    path = tmp_path / 'recording.mcap'
    write_mcap(path, recorded)
    ours = [deserialize_message(data, TOPICS[topic]) for topic, data in recorded]
    assert all(message.bundle_sha256 for message in ours)
    assert len({message.embedding_sha256 for message in ours
                if hasattr(message, 'embedding_sha256')}) == 1

    with open(path, 'rb') as file:
        reader = mcap_reader.make_reader(file, decoder_factories=[mcap_ros2.DecoderFactory()])
        decoded = [message for *_, message in reader.iter_decoded_messages()]
    assert len(decoded) == len(ours)
    for message, other in zip(ours, decoded, strict=True):
        assert not differences(message, other)

    # Only the types of ROS itself: ours come from the definitions in the recording.
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    with rosbag2.Reader(path) as reader:
        for connection in reader.connections:
            store.register(rosbags.get_types_from_msg(
                connection.msgdef.data, connection.msgtype))
        decoded = [store.deserialize_cdr(data, connection.msgtype)
                   for connection, _, data in reader.messages()]
    assert len(decoded) == len(ours)
    for message, other in zip(ours, decoded, strict=True):
        assert not differences(message, other)


@pytest.mark.parametrize('name', ['SetTask', 'StartEpisode'])
def test_answers_are_read_in_full(harness: Harness, name: str) -> None:
    """What the services answer can be read from their definition alone, as service tools do."""
    harness.start_active()
    answer = harness.set_task('open the drawer') if name == 'SetTask' else harness.start_episode()
    assert answer.accepted and answer.episode_id.sec > 0
    text = (ROOT / f'hralign_msgs/srv/{name}.srv').read_text('utf-8').split('\n---\n')[1]
    kind = f'hralign_msgs/msg/{name}_Response'
    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    store.register(rosbags.get_types_from_msg(text, kind))
    assert not differences(answer, store.deserialize_cdr(serialize_message(answer), kind))
