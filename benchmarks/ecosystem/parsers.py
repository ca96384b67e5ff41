# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Do other programs read all fields and constants of our messages? Their own parsers say.

    python -m benchmarks.ecosystem.parsers

asks `rosbags` and `mcap-ros2-support`. Foxglove's parser is on npm, PlotJuggler's is built of its
sources (plotjuggler_parser.cpp beside this file says how):

    npm install --prefix FOLDER @mcap/core @foxglove/rosmsg @foxglove/rosmsg2-serialization
    python -m benchmarks.ecosystem.parsers --foxglove FOLDER --plotjuggler PROGRAM --record
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
import json
import math
from pathlib import Path
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ecosystem.measure import record
from benchmarks.ecosystem.messages import differences, flat, Sample, samples, write_bag

HERE = Path(__file__).resolve().parent
# Of an action, which is no message of its own.
_FEEDBACK = '_FeedbackMessage'


@dataclass
class Read:
    """
    What a parser found in one message.

    :param values: by path.
    :param constants: by name; None: the program has no notion of them.
    :param error: '': it could read the message.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, int] | None = field(default_factory=dict)
    error: str = ''


def read_by_rosbags(bag: Path) -> dict[str, Read]:
    """Read a bag's messages, by topic."""
    from rosbags.highlevel import AnyReader  # optional

    found = {}
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            constants = {name: getattr(message, name) for name in dir(message) if name.isupper()}
            found[connection.topic] = Read(dict(flat(message)), constants)
    return found


def read_by_mcap_ros2(bag: Path) -> dict[str, Read]:
    """Read a bag's messages, by topic."""
    from mcap.reader import make_reader  # optional, like the others
    from mcap_ros2._vendor.rosidl_adapter.parser import parse_message_string
    from mcap_ros2.decoder import DecoderFactory

    factory, found = DecoderFactory(), {}
    with next(bag.glob('*.mcap')).open('rb') as file:
        for schema, channel, message in make_reader(file).iter_messages():
            assert schema is not None
            try:
                decoder = factory.decoder_for(channel.message_encoding, schema)
                assert decoder is not None
                decoded = decoder(message.data)
                package, _, name = schema.name.split('/')
                own = parse_message_string(
                    package, name, schema.data.decode().partition('\n====')[0])
                found[channel.topic] = Read(
                    dict(flat(decoded)), {one.name: one.value for one in own.constants})
            except Exception as error:  # what is reported
                found[channel.topic] = Read(error=f'{type(error).__name__}: {error}')
    return found


def read_by_program(command: list[str | Path], bag: Path) -> dict[str, Read]:
    """Let a program read the bag's MCAP file, and print what it found as JSON."""
    ran = subprocess.run([*command, next(bag.glob('*.mcap'))], check=True, stdout=subprocess.PIPE)
    return {topic: Read(**one) for topic, one in json.loads(ran.stdout).items()}


def faults(sample: Sample, read: Read | None) -> list[str]:
    """List what a parser made wrong of a message, first what it says itself."""
    if read is None:
        return ['it was not read']
    if read.error:
        return [read.error]
    wrong = differences({path: _plain(value) for path, value in sample.values.items()},
                        {path: _plain(value) for path, value in read.values.items()})
    if read.constants is not None:
        wrong += differences(sample.constants, read.constants)
    return wrong


def _plain(value: Any) -> Any:
    """Let truth values be numbers: PlotJuggler has no others."""
    if isinstance(value, bool):
        return int(value)
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() \
        else value


def main() -> int:
    """Ask each parser that there is; the exit code counts those that failed."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--foxglove', type=Path, metavar='FOLDER', help='with node_modules')
    parser.add_argument('--plotjuggler', type=Path, metavar='PROGRAM')
    parser.add_argument('--record', action='store_true', help='write results/ecosystem.json')
    given = parser.parse_args()
    readers: dict[str, Callable[[Path], dict[str, Read]]] = {
        f'rosbags {version("rosbags")}': read_by_rosbags,
        f'mcap-ros2-support {version("mcap-ros2-support")}': read_by_mcap_ros2}
    if given.foxglove:
        package = given.foxglove / 'node_modules/@foxglove/rosmsg2-serialization/package.json'
        name = f'Foxglove rosmsg2-serialization {json.loads(package.read_text())["version"]}'
        # Packages are looked for beside the program.
        program = given.foxglove / 'foxglove_parser.mjs'
        program.write_bytes((HERE / program.name).read_bytes())
        readers[name] = partial(read_by_program, ['node', program])
    if given.plotjuggler:
        told = subprocess.run([given.plotjuggler, '--version'], check=True, text=True,
                              stdout=subprocess.PIPE).stdout.strip()
        readers[f'PlotJuggler {told}'] = partial(read_by_program, [given.plotjuggler])
    expected = samples()
    whole = []
    with TemporaryDirectory() as folder:
        bag = write_bag(Path(folder), 'samples')
        for name, reader in readers.items():
            read = reader(bag)
            wrong = {one.kind: faults(one, read.get(one.topic)) for one in expected}
            failed = {kind: said for kind, said in wrong.items() if said}
            values = sum(len(one.values) for one in expected if one.kind not in failed)
            constants = sum(len(found.constants or ()) for found in read.values())
            print(f'{name}: {len(expected) - len(failed)} of {len(expected)} messages, '
                  f'{values} values, {constants} constants')
            for kind, said in failed.items():
                print(f'  {kind}: ' + '; '.join(said[:5]))
            title, _, number = name.rpartition(' ')
            if not failed:
                whole.append(name)
            elif all(kind.endswith(_FEEDBACK) for kind in failed):
                whole.append(f'{title} without action feedback {number}')
    if given.record:
        record('python -m benchmarks.ecosystem.parsers --foxglove FOLDER --plotjuggler PROGRAM',
               consumers=list(readers), without_glue=list(readers), parsers=whole)
    return len(readers) - len(whole)


if __name__ == '__main__':
    sys.exit(main())
