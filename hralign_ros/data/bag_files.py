# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
rosbag2 recordings without ROS: where the bags are, and their messages as far as they go.

A bag is a folder with metadata.yaml and one or more storage files, MCAP or sqlite3, or a storage
file alone. What metadata.yaml says is in the storage files as well, but for their order. So a bag
whose recorder was killed, and wrote none, is read like any other, and a file that is cut off is
read up to there. Compression by file, by message and by chunk is undone on the way.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
import io
import os
from pathlib import Path, PurePath
import re
import shutil
import sqlite3
import struct
from typing import Any, BinaryIO

from hralign_ros.runtime.errors import DataError, first_line, import_package, install_line
import yaml

METADATA = 'metadata.yaml'
# A folder that the recorder node had not finished.
PARTIAL = '.partial'
# Storage files, compressed as a whole or not.
_STORAGE = re.compile(r'(?P<stem>.*)(?P<kind>\.mcap|\.db3)(?P<packed>\.zstd|\.zst)?', re.I)
# How rosbag2 numbers the files of a bag.
_NUMBERED = re.compile(r'(?P<prefix>.*)_(?P<number>\d+)')
_ZSTD = b'\x28\xb5\x2f\xfd'
_MCAP = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 3, 4, 5, 6, 15
# A record of more than this is not one [bytes].
_LARGEST = 1 << 32


def import_bag_package(name: str) -> Any:
    """
    Import a package that bags need, or a module of it.

    :raises DataError: it is not installed.
    """
    return import_package(name, DataError, f'bags need it: {install_line("adapt")}')


@dataclass(frozen=True)
class Bag:
    """
    One bag.

    :param name: its path from the folder of bags, without suffixes.
    :param path: its folder, or its only file.
    :param files: storage files in order.
    """

    name: str
    path: Path
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Give the size of its files."""
        return sum(file.stat().st_size for file in self.files)

    def state(self) -> list[list[Any]]:
        """Give name, size and time of each file: another state is another recording."""
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in self.files]


@dataclass(frozen=True)
class RawMessage:
    """
    A serialised message.

    :param kind: such as sensor_msgs/msg/Image.
    :param definition: of the kind, with all that it needs, as the bag has it; '': it has none.
    :param received: when the recorder got it [ns].
    """

    topic: str
    kind: str
    definition: str
    received: int
    data: bytes

    @property
    def stamp(self) -> int:
        """Read the stamp of a message that begins with a header [ns]."""
        little = self.data[1] & 1
        seconds, rest = struct.unpack_from('<iI' if little else '>iI', self.data, 4)
        return int(seconds) * 1_000_000_000 + int(rest)


def find_bags(source: Path) -> list[Bag]:
    """
    Find the bags in a folder and in the folders below it, or take the one that is named.

    :returns: sorted by name.
    :raises DataError: there is none.
    """
    source = source.absolute()
    if source.is_file() and (match := _STORAGE.fullmatch(source.name)):
        return [Bag(match['stem'], source, (source,))]
    bags: list[Bag] = []
    for folder, below, names in os.walk(source):
        below[:] = sorted(name for name in below if not name.startswith('.'))
        files = [Path(folder, name) for name in names
                 if _STORAGE.fullmatch(name) and not name.startswith('.')]
        if files:
            bags += _bags_of(source, Path(folder), files)
    if not bags:
        raise DataError(f'{source}: no rosbag2 recording there; needed are .mcap or .db3 files, '
                        'alone or in folders with metadata.yaml (ROS 1 bags: convert them with '
                        'rosbags-convert)')
    return sorted(bags, key=lambda bag: bag.name)


def _bags_of(source: Path, folder: Path, files: list[Path]) -> list[Bag]:
    """Sort the storage files of a folder into bags."""
    whole = folder.name.removesuffix(PARTIAL)
    place = folder.relative_to(source).as_posix().removesuffix(PARTIAL)
    listed = _listed(folder / METADATA)

    def order(file: Path) -> tuple[int, int, str]:
        stem = _stem(file)
        match = _NUMBERED.fullmatch(stem)
        # What is written last, when the recorder is killed, is not in the list.
        return (listed.index(file.name) if file.name in listed else len(listed),
                int(match['number']) if match else 0, stem)

    files = sorted(files, key=order)
    if (folder / METADATA).exists():
        return [Bag(whole if folder == source else place, folder, tuple(files))]
    groups: dict[str, list[Path]] = {}
    for file in files:
        match = _NUMBERED.fullmatch(_stem(file))
        # Only rosbag2 names the parts of a bag like this: others count their recordings so.
        part = match and (match['prefix'] == whole or match['prefix'].startswith('rosbag2_'))
        groups.setdefault(match['prefix'] if match and part else _stem(file), []).append(file)
    return [Bag(
        (whole if folder == source else place) if name == whole else
        (name if folder == source else f'{place}/{name}'),
        folder if name == whole else of[0], tuple(of)) for name, of in groups.items()]


def _stem(file: Path) -> str:
    match = _STORAGE.fullmatch(file.name)
    return match['stem'] if match else file.stem


def _listed(path: Path) -> list[str]:
    """Read the order of a bag's files; nothing where metadata.yaml does not tell."""
    try:
        information = yaml.safe_load(path.read_text('utf-8'))['rosbag2_bagfile_information']
        return [PurePath(name).name for name in information['relative_file_paths']]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return []


@dataclass
class BagReader:
    """
    Reads the messages of a bag, as far as they go.

    :param scratch: folder for what has to be unpacked.
    :ivar topics: kind of each topic that was met.
    :ivar cut_off: why a file could not be read to its end, of each such file.
    """

    bag: Bag
    scratch: Path
    topics: dict[str, str] = field(default_factory=dict)
    cut_off: dict[str, str] = field(default_factory=dict)

    def messages(self, wanted: Callable[[str, str], bool]) -> Iterator[RawMessage]:
        """
        Give messages in the order in which they were recorded.

        :param wanted: tells by topic and kind.
        """
        for file in self.bag.files:
            try:
                yield from self._file(file, wanted)
            except _CutOffError as error:
                self.cut_off[file.name] = str(error)

    def _file(self, file: Path, wanted: Callable[[str, str], bool]) -> Iterator[RawMessage]:
        match = _STORAGE.fullmatch(file.name)
        assert match
        read = _read_mcap if match['kind'].lower() == '.mcap' else _read_sqlite
        with _unpacked(file, self.scratch, bool(match['packed'])) as plain:
            for message in read(plain, self._noting(wanted)):
                if message.data.startswith(_ZSTD):
                    message = RawMessage(message.topic, message.kind, message.definition,
                                         message.received, _decompress(message.data))
                yield message

    def _noting(self, wanted: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
        def look(topic: str, kind: str) -> bool:
            self.topics[topic] = kind
            return wanted(topic, kind)
        return look


class _CutOffError(Exception):
    """A file ends before its end, or what follows is damaged."""


def _decompress(data: bytes) -> bytes:
    zstandard = import_bag_package('zstandard')
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    try:
        plain = bytes(unpacker.decompress(data))
    except zstandard.ZstdError as error:
        raise _CutOffError(f'a compressed message is damaged ({error})') from error
    if not unpacker.eof:
        raise _CutOffError('a compressed message is not whole')
    return plain


@contextmanager
def _unpacked(file: Path, scratch: Path, packed: bool) -> Iterator[Path]:
    """Unpack a file that is compressed as a whole, as far as it goes, for the block's time."""
    killed = _is_killed(file)
    is_sqlite = '.mcap' not in file.name.lower()
    if not packed and not killed and not (is_sqlite and _pages(file)[1]):
        yield file
        return
    scratch.mkdir(parents=True, exist_ok=True)
    plain = scratch / f'{os.getpid()}_{_stem(file)}{".db3" if is_sqlite else ".mcap"}'
    try:
        if packed:
            zstandard = import_bag_package('zstandard')
            with file.open('rb') as source, plain.open('wb') as target:
                # A damaged end shows in what was unpacked.
                with suppress(zstandard.ZstdError):
                    zstandard.ZstdDecompressor().copy_stream(source, target)
        else:
            shutil.copyfile(file, plain)
            if killed:  # the newest messages of a recorder that was killed are in its journal
                shutil.copyfile(_journal(file), _journal(plain))
        if is_sqlite and not killed:
            # Of a part of a page sqlite3 makes a whole one, with zeros.
            os.truncate(plain, _pages(plain)[0])
        yield plain
    finally:
        for left in scratch.glob(f'{plain.name}*'):
            left.unlink(missing_ok=True)


def _journal(file: Path) -> Path:
    return file.with_name(f'{file.name}-wal')


def _is_killed(file: Path) -> bool:
    """Tell whether messages of an sqlite3 file are still in its journal."""
    return _journal(file).is_file() and _journal(file).stat().st_size > 0


def _read_sqlite(path: Path, wanted: Callable[[str, str], bool]) -> Iterator[RawMessage]:
    """Read an sqlite3 file in the order of its rows, up to the first that is damaged."""
    killed = _is_killed(path)
    connection = None
    try:
        connection = sqlite3.connect(
            path.absolute().as_uri() + ('' if killed else '?mode=ro&immutable=1'), uri=True)
        # Also opens a file that is shorter than it says.
        connection.execute('PRAGMA writable_schema=ON')
        topics = {number: (str(topic), str(kind)) for number, topic, kind in
                  connection.execute('SELECT id, name, type FROM topics')}
        definitions: dict[str, str] = {}
        # Humble and older have none.
        with suppress(sqlite3.OperationalError):
            definitions = dict(connection.execute(
                'SELECT topic_type, encoded_message_definition FROM message_definitions'))
        chosen = [number for number, topic in topics.items() if wanted(*topic)]
        marks = ','.join('?' * len(chosen))
        for number, received, data in connection.execute(
                'SELECT topic_id, timestamp, data FROM messages '
                f'WHERE topic_id IN ({marks}) ORDER BY rowid', chosen):
            topic, kind = topics[number]
            yield RawMessage(topic, kind, definitions.get(kind, ''), int(received), bytes(data))
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise _CutOffError('it is cut off' if _pages(path)[2] else first_line(error)) from error
    finally:
        if connection is not None:
            connection.close()


def _pages(path: Path) -> tuple[int, int, bool]:
    """Return the whole pages of an sqlite3 file, what is left behind them, and if some miss."""
    with path.open('rb') as file:
        head = file.read(32)
    if len(head) < 32:
        return 0, len(head), True
    size, pages = struct.unpack_from('>H', head, 16)[0], struct.unpack_from('>I', head, 28)[0]
    size = 65536 if size == 1 else max(size, 512)
    whole, rest = divmod(path.stat().st_size, size)
    return whole * size, rest, whole < pages


def _read_mcap(path: Path, wanted: Callable[[str, str], bool]) -> Iterator[RawMessage]:
    """Read an MCAP file from its start to where its data end, or are cut off."""
    schemas: dict[int, tuple[str, str]] = {}
    # Of each channel topic, kind and definition; None: not wanted.
    channels: dict[int, tuple[str, str, str] | None] = {}
    with path.open('rb') as file:
        if file.read(len(_MCAP)) != _MCAP:
            raise _CutOffError('it is no MCAP file')
        try:
            for code, content in _records(file):
                if code == _SCHEMA:
                    number, = struct.unpack_from('<H', content)
                    name, at = _string(content, 2)
                    at = _string(content, at)[1]
                    schemas[number] = name, _string(content, at)[0]
                elif code == _CHANNEL:
                    number, schema = struct.unpack_from('<HH', content)
                    topic, _ = _string(content, 4)
                    kind, definition = schemas.get(schema, ('', ''))
                    channels[number] = (topic, kind, definition) if wanted(topic, kind) else None
                elif code == _MESSAGE:
                    number, received = struct.unpack_from('<H4xQ', content)
                    channel = channels.get(number)
                    if channel is not None:
                        yield RawMessage(*channel, received, content[22:])
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise _CutOffError(f'it is damaged ({first_line(error)})') from error


def _records(stream: BinaryIO, *, inner: bool = False) -> Iterator[tuple[int, bytes]]:
    """
    Give code and content of each record, those in chunks too.

    :param inner: the stream is a chunk's, which may end after any record.
    """
    while head := stream.read(9):
        if len(head) < 9:
            raise _CutOffError('it is cut off')
        code, length = struct.unpack('<BQ', head)
        if code == 0 or length > _LARGEST:
            raise _CutOffError('it is damaged')
        content = stream.read(length)
        whole = len(content) == length
        if code == _CHUNK and len(content) > 40:
            yield from _records(io.BytesIO(_chunk(content, whole)), inner=True)
        elif whole:
            yield code, content
        if not whole:
            raise _CutOffError('it is cut off')
        if code == _DATA_END:
            return
    if not inner:
        raise _CutOffError('it is cut off')


def _chunk(content: bytes, whole: bool) -> bytes:
    """Unpack the records of a chunk; of one that is cut off, those that are there."""
    compression, at = _string(content, 28)
    data = content[at + 8:]
    if not compression:
        return data
    if compression == 'zstd':
        unpacker = import_bag_package('zstandard').ZstdDecompressor().decompressobj()
    elif compression == 'lz4':
        unpacker = import_bag_package('lz4.frame').LZ4FrameDecompressor()
    else:
        raise DataError(f"an MCAP file has chunks compressed by '{compression}'; read are zstd "
                        'and lz4: convert it with `mcap compress`')
    try:
        return bytes(unpacker.decompress(data))
    except Exception as error:  # each package has errors of its own
        raise _CutOffError('it is damaged' if whole else 'it is cut off') from error


def _string(content: bytes, at: int) -> tuple[str, int]:
    """Read a text with its length before it; return it, and where it ends."""
    length, = struct.unpack_from('<I', content, at)
    if at + 4 + length > len(content):
        raise struct.error('a text is longer than its record')
    return content[at + 4:at + 4 + length].decode(), at + 4 + length
