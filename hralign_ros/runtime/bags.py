# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Writing a rosbag2 folder: one MCAP file and metadata.yaml, without ROS.

While it is being written the folder is called NAME.partial and has no metadata.yaml. It gets its
name in one step when it is whole. A partial one can be read as far as it goes: messages lie in
small chunks, uncompressed, which are handed to the system as they are filled.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from hralign_ros.runtime.errors import DataError, import_package, install_line
from hralign_ros.runtime.labels import sync_folder, write_whole
import yaml

PARTIAL = '.partial'
METADATA = 'metadata.yaml'
# Of a process that is killed at most so much is lost, beside what was not written yet [bytes].
_CHUNK = 64 << 10
# The version of metadata.yaml that Humble writes and all later releases read.
_VERSION = 5
# rmw's numbers for keep last, reliable, transient local, volatile, automatic; and its infinity.
_KEEP_LAST, _RELIABLE, _TRANSIENT_LOCAL, _VOLATILE, _AUTOMATIC = 1, 1, 1, 2, 1
_INFINITE = {'sec': 9223372036, 'nsec': 854775807}


@dataclass(frozen=True)
class Topic:
    """
    A topic in a bag.

    :param kind: full name of the message type, such as sensor_msgs/msg/JointState.
    :param definition: the type's .msg text, followed by those of all types that it needs.
    :param latched: its last message is for whoever comes later.
    """

    name: str
    kind: str
    definition: str
    latched: bool = False


def import_mcap(module: str) -> Any:
    """
    Import a module of the package mcap.

    :raises DataError: it is not installed.
    """
    return import_package(f'mcap.{module}', DataError,
                          f"bags are MCAP files: pip install 'mcap>=1.1,<2', or "
                          f'{install_line("record")}')


class BagWriter:
    """
    One bag that is being written.

    :param folder: that the bag's own folder is made in.
    :param name: of the bag's folder once it is whole.
    :raises DataError: mcap is not installed.
    :raises OSError: from here and from all methods: the disk is full, or cannot be written to.
    :ivar partial: the folder while the bag is not whole.
    :ivar written: bytes of messages so far.
    """

    def __init__(self, folder: Path, name: str) -> None:
        writer = import_mcap('writer')
        self.path = folder / name
        self.partial = folder / f'{name}{PARTIAL}'
        self.partial.mkdir(parents=True)
        self._file = open(self.partial / f'{name}_0.mcap', 'xb')
        self._writer = writer.Writer(self._file, chunk_size=_CHUNK,
                                     compression=writer.CompressionType.NONE)
        self._writer.start('ros2', library='hralign_ros')
        self._topics: dict[str, Topic] = {}
        self._channels: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self._first = self._last = self.written = 0

    def add(self, topic: Topic, data: bytes, received: int) -> None:
        """
        Add a message.

        :param data: serialised as CDR, with its encapsulation.
        :param received: system time [ns].
        """
        if topic.name not in self._channels:
            schema = self._writer.register_schema(
                topic.kind, 'ros2msg', topic.definition.encode())
            self._channels[topic.name] = self._writer.register_channel(
                topic.name, 'cdr', schema, {'offered_qos_profiles': _qos(topic)})
            self._topics[topic.name] = topic
        self._writer.add_message(
            self._channels[topic.name], log_time=received, data=data, publish_time=received)
        self._first = min(self._first or received, received)
        self._last = max(self._last, received)
        self._counts[topic.name] += 1
        self.written += len(data)

    def flush(self) -> None:
        """Hand what is in full chunks over to the system: it outlives this process."""
        self._file.flush()

    def finish(self) -> Path:
        """
        Finish the bag and give it its name.

        :returns: its folder.
        """
        description = self._metadata()
        # As rosbag2 does it, for who reads the file without its folder.
        self._writer.add_metadata('rosbag2', {'serialized_metadata': _dump(description)})
        self._writer.finish()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        write_whole(self.partial / METADATA, _dump(
            {'rosbag2_bagfile_information': description}).encode())
        self.partial.rename(self.path)
        sync_folder(self.path.parent)
        return self.path

    def abandon(self) -> None:
        """Let go of a bag that cannot be finished; it stays partial."""
        with suppress(OSError):
            self._file.close()

    def _metadata(self) -> dict[str, Any]:
        """Describe the bag as rosbag2 does."""
        file = f'{self.path.name}_0.mcap'
        duration = {'nanoseconds': self._last - self._first}
        start = {'nanoseconds_since_epoch': self._first}
        count = sum(self._counts.values())
        return {
            'version': _VERSION, 'storage_identifier': 'mcap', 'duration': duration,
            'starting_time': start, 'message_count': count,
            'topics_with_message_count': [
                {'topic_metadata': {
                    'name': topic.name, 'type': topic.kind, 'serialization_format': 'cdr',
                    'offered_qos_profiles': _qos(topic)},
                 'message_count': self._counts[topic.name]} for topic in self._topics.values()],
            'compression_format': '', 'compression_mode': '', 'relative_file_paths': [file],
            'files': [{'path': file, 'starting_time': start, 'duration': duration,
                       'message_count': count}]}


def _qos(topic: Topic) -> str:
    """Say with which QoS a bag is to be played: reliable meets every subscription."""
    return _dump([{
        'history': _KEEP_LAST, 'depth': 10, 'reliability': _RELIABLE,
        'durability': _TRANSIENT_LOCAL if topic.latched else _VOLATILE, 'deadline': _INFINITE,
        'lifespan': _INFINITE, 'liveliness': _AUTOMATIC, 'liveliness_lease_duration': _INFINITE,
        'avoid_ros_namespace_conventions': False}])


class _Dumper(yaml.SafeDumper):
    """Write what occurs twice in full."""

    def ignore_aliases(self, data: Any) -> bool:
        """Make no reference of anything."""
        return True


def _dump(document: Any) -> str:
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, default_flow_style=False))
