# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The contract for rosetta: all of a robot's is kept, and ours has the names of our decoders."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hralign_ros.nodes.values_by_name import embedding_values, RESULT_FIELDS
from hralign_ros.runtime.parts import EmbeddingPart
from hralign_ros.runtime.rosetta_contract import (
    check_node,
    contract_text,
    ContractError,
    make_contract,
    read_robot,
    require_writable,
    RESULT_NAMES,
    STATE,
)
import numpy as np
import pytest
import yaml

VIEWS = ('wrist', 'third_person')
PARTS = (EmbeddingPart('keypoints', 3, (2, 2), 1, False, ''),
         EmbeddingPart('task', 7, (3,), 1, True, ''))
ROBOT = """
robot_type: arm
robot_interface: ros2
fps: 15
x-qos: {event: &event {depth: 1}}
observations:
  observation.images.wrist:
    channel: {topic: /wrist, type: sensor_msgs/msg/Image, qos: *event}
    align: {strategy: hold, timeline: header}
    apply: [resize: [224, 224]]
  observation.state:
    channel: {topic: /joints, type: sensor_msgs/msg/JointState, qos: *event}
    align: {strategy: hold, timeline: header}
    select: [position.a, position.b]
actions:
  action:
    channel: {topic: /commands, type: sensor_msgs/msg/JointState, safety: hold}
    align: {strategy: hold, timeline: header}
    select: [position.a]
rewards:
  next.reward:
    channel: {topic: /judge, type: std_msgs/msg/Float64, dtype: float64}
    align: {strategy: hold, timeline: receive}
"""


def robot(tmp_path: Path, text: str = ROBOT) -> dict[str, Any]:
    """Write a robot's contract and read it."""
    path = tmp_path / 'robot.yaml'
    path.write_text(text, 'utf-8')
    return read_robot(path, fps=30)


def test_its_names_are_those_of_the_decoders() -> None:
    """Guards both sides: what the contract selects is what the decoder finds, in this order."""
    made = make_contract(PARTS, VIEWS, robot=read_robot(None, fps=30))
    dim = 10
    data = np.arange(len(VIEWS) * dim, dtype=np.float32)
    message = SimpleNamespace(
        view_names=VIEWS, view_valid=(True, True), part_names=('mean', 'keypoints', 'task'),
        part_offsets=(0, 3, 7), dim=dim, data=data)
    taken = embedding_values(message, made['observations'][STATE]['select'])
    assert taken.tolist() == [3, 4, 5, 6, 13, 14, 15, 16, 7, 8, 9, 17, 18, 19]
    # A number goes with its flag: a gap is not a probability of 0.
    assert {RESULT_FIELDS[name] for name in RESULT_NAMES} - {''} <= set(RESULT_NAMES)


def test_a_robot_keeps_all_it_has(tmp_path: Path) -> None:
    """Its state comes first, its reward stays its own, and only our topics are added."""
    before = robot(tmp_path)
    made = make_contract(PARTS, VIEWS, robot=before, node='/left/encoder')
    assert made['fps'] == 15 and made['actions'] == before['actions']
    assert made['rewards'] == before['rewards']
    ours, theirs = made['observations'], before['observations']
    assert ours['observation.images.wrist'] == theirs['observation.images.wrist']
    joints, embedding = ours[STATE]
    assert joints['select'] == ['position.a', 'position.b']
    # Rosetta joins what is of one type.
    assert joints['channel'].pop('dtype') == embedding['channel']['dtype'] == 'float32'
    assert joints == theirs[STATE] and 'dtype' not in theirs[STATE]['channel']
    assert embedding['channel']['topic'] == '/left/encoder/embedding'
    assert made['info']['hralign.result']['channel']['topic'] == '/left/encoder/success'
    assert not [key for key in made if key.startswith('x-')]


def test_written_and_read_again(tmp_path: Path) -> None:
    """What is read is what was made; the first lines say how the encoder has to be started."""
    made = make_contract(PARTS, VIEWS, robot=robot(tmp_path), node='/left/eyes')
    text = contract_text(made, PARTS, bundle=Path('my bundle'), node='/left/eyes', command='here')
    assert yaml.safe_load(text) == made
    assert '&' not in text and max(map(len, text.splitlines())) < 130
    for words in ('-r __ns:=/left -r __node:=eyes', "embedding_parts:='[keypoints, task]'",
                  '-r /left/eyes/reward:=/reward', 'bundle:=my bundle'):
        assert words in text
    plain = contract_text(made, PARTS, bundle=None, node='/encoder', command='here')
    assert '__n' not in plain and 'bundle:=' not in plain


@pytest.mark.parametrize(('old', 'new', 'says'), [
    ('    select: [position.a, position.b]\n', '', "without 'select'.*/joints"),
    ('type: sensor_msgs/msg/JointState, qos', 'type: hralign_msgs/msg/TaskEmbedding, qos',
     'an embedding in observation.state already'),
    ('robot_type: arm', 'robot: arm', 'robot_type is missing'),
    ('rewards:\n  next.reward:', 'rewards:\n  - next.reward:', "'rewards' is no mapping"),
    ('fps: 15', 'fps: [', 'is no YAML'),
])
def test_what_cannot_be_added_to(tmp_path: Path, old: str, new: str, says: str) -> None:
    """One sentence says what is wrong with the robot's contract."""
    assert old in ROBOT
    with pytest.raises(ContractError, match=says):
        make_contract(PARTS, VIEWS, robot=robot(tmp_path, ROBOT.replace(old, new, 1)))


@pytest.mark.parametrize(('text', 'says'), [
    ('robot_type: arm\nobservations: {observation.state: text}', 'needed is a source'),
    ('robot_type: arm\nobservations: {observation.state: [a, b]}', 'needed is a source'),
    ('robot_type: arm\nobservations: {observation.state: {channel: /js}}', 'needed is a source'),
    ('robot_type: arm\nadjunct: abc', "'adjunct' is no list"),
    ('robot_type: &a [*a]', 'refers to what it is in'),
    ('robot_type: arm\ninfo: text', "'info' is no mapping")])
def test_a_contract_of_another_form(tmp_path: Path, text: str, says: str) -> None:
    """Guards hand-written contracts: these ended in a traceback, or as a list of letters."""
    (tmp_path / 'robot.yaml').write_text(text, 'utf-8')
    with pytest.raises(ContractError, match=says):
        read_robot(tmp_path / 'robot.yaml', fps=30)


def test_an_empty_section_is_none(tmp_path: Path) -> None:
    """`info:` with nothing behind it was refused as no mapping."""
    (tmp_path / 'robot.yaml').write_text(
        'robot_type: arm\ninfo:\nobservations: {observation.state: }\n', 'utf-8')
    made = make_contract(PARTS, VIEWS, robot=read_robot(tmp_path / 'robot.yaml', fps=30))
    assert 'hralign.result' in made['info'] and made['observations'][STATE]['select']


def test_nothing_else_is_written_over(tmp_path: Path) -> None:
    """With the robot's contract as --output, its comments and its own keys were lost."""
    path = tmp_path / 'robot.yaml'
    path.write_text(ROBOT, 'utf-8')
    for wrong in (path, tmp_path):
        with pytest.raises(ContractError, match='name another file'):
            require_writable(wrong)
    ours = tmp_path / 'ours.yaml'
    ours.write_text(contract_text(make_contract(PARTS, VIEWS, robot=read_robot(path, fps=30)),
                                  PARTS, bundle=None, node='/encoder', command='it'), 'utf-8')
    require_writable(ours)
    require_writable(tmp_path / 'new.yaml')


@pytest.mark.parametrize('node', ['', 'encoder', '/a b', '/robot1/', '//encoder'])
def test_a_node_by_no_full_name(node: str) -> None:
    """Guards topics such as /robot1//success, which nobody publishes."""
    with pytest.raises(ContractError, match='/robot1/encoder'):
        check_node(node)
