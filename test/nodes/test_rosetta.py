# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Rosetta's own loader and decoders, where rosetta is installed."""

from pathlib import Path
from typing import Any

from hralign_msgs.msg import SuccessProbability, TaskEmbedding
from hralign_ros.cli.main import main
from hralign_ros.runtime.bundle import load_bundle
from hralign_ros.runtime.parts import choose_parts
from hralign_ros.runtime.rosetta_contract import STATE
import numpy as np
import pytest
from support.harness import VIEWS
from support.tiny_bundle import robot_bundle

schema = pytest.importorskip(
    'rosetta.contract.schema', reason='rosetta (a ROS 2 package, not on a package index) is not '
    'installed: put its folder and that of rosidl_runtime_py on PYTHONPATH')
pytest.importorskip('rosidl_runtime_py', reason='rosetta finds message types by it')
PARTS = ('keypoints', 'task')


@pytest.fixture(scope='module')
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Write a contract by our command, and read it with rosetta's loader."""
    from rosetta.contract.specs import iter_specs

    path = tmp_path_factory.mktemp('contract') / 'contract.yaml'
    assert main(['bundle', 'contract', '--bundle', str(robot_bundle()), '--part', *PARTS,
                 '--output', str(path)]) == 0
    return list(iter_specs(schema.load_contract(path)))


def spec_of(specs: list[Any], topic: str) -> Any:
    """Find the stream of a topic."""
    return next(spec for spec in specs if spec.source.channel.topic == topic)


def test_it_decodes_what_the_encoder_publishes(specs: list[Any]) -> None:
    """Every number arrives, part by part and view by view."""
    from rosetta.frames.codecs import decode_value

    parts = choose_parts(('spatial', *PARTS), load_bundle(robot_bundle()), 'attention')
    dim = sum(part.size for part in parts)
    rows = np.arange(len(VIEWS) * dim, dtype=np.float32).reshape(len(VIEWS), dim)
    message = TaskEmbedding(
        view_names=list(VIEWS), view_valid=[True] * len(VIEWS), dim=dim, data=rows.ravel(),
        part_names=[part.name for part in parts], part_offsets=[part.offset for part in parts])
    value = decode_value(message, spec_of(specs, '/encoder/embedding'))
    assert np.array_equal(value, np.concatenate([part.of(rows).ravel() for part in parts[1:]]))
    result = SuccessProbability(probability=0.5, probability_valid=True, decision=1)
    value = decode_value(result, spec_of(specs, '/encoder/success'))
    assert value.tolist() == [0.5, 1.0] + [0.0] * 6 + [1.0, 0.0]


def test_the_columns_of_a_data_set(specs: list[Any]) -> None:
    """Guards the names and widths that LeRobot sees."""
    from rosetta.frames.layout import FrameLayout

    features = FrameLayout(specs).lerobot_features()
    parts = choose_parts(PARTS, load_bundle(robot_bundle()), 'attention')
    assert features[STATE]['shape'] == (len(VIEWS) * sum(part.size for part in parts),)
    assert {key: feature['dtype'] for key, feature in features.items()} == {
        STATE: 'float32', 'hralign.result': 'float32', 'next.reward': 'float64',
        'next.success': 'bool'}


def test_a_missing_view_is_dropped(specs: list[Any], tmp_path: Path) -> None:
    """Its ingest drops a message that our decoder refuses; the buffer has a gap, and no zeros."""
    from rosetta.frames.resample import StreamBuffer
    from rosetta.robots.ros2.ingest import StreamIngest

    said: list[str] = []
    spec = spec_of(specs, '/encoder/embedding')
    buffer = StreamBuffer.from_spec(spec)
    parts = choose_parts(PARTS, load_bundle(robot_bundle()), 'attention')
    dim = sum(part.size for part in parts)
    message = TaskEmbedding(
        view_names=list(VIEWS), view_valid=[False, True], dim=dim, data=np.zeros(2 * dim),
        part_names=[part.name for part in parts], part_offsets=[part.offset for part in parts])
    message.header.stamp.sec = 1
    StreamIngest(said.append, said.append).ingest(message, spec, buffer, 0, 10 ** 9)
    assert buffer.sample(10 ** 9) is None
    assert 'the view wrist is missing' in said[0]
