# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A contract for rosetta: which of our topics become which columns of a data set.

Rosetta wants every number of an embedding named. LeRobot, behind it, knows one vector of a robot's
state, so the embedding is appended to what the robot's own contract has there.
"""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
from typing import Any

from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.parts import EmbeddingPart
import yaml

STATE, RESULT, REWARD, SUCCESS = (
    'observation.state', 'hralign.result', 'next.reward', 'next.success')
# Where its manager of episodes publishes the reward that it muxes from ours and a person's.
REWARD_TOPIC = '/reward'
EMBEDDING_TYPE = 'hralign_msgs/msg/TaskEmbedding'
RESULT_TYPE = 'hralign_msgs/msg/SuccessProbability'
# Of a result, each number with the flag that says whether it is known.
RESULT_NAMES = ('probability', 'probability_valid', 'progress', 'progress_valid',
                'failure_probability', 'failure_valid', 'ood_score', 'ood_valid', 'decision',
                'status')
# An encoder calls a view stale after this time by default [ms]; rosetta then fills in zeros.
TOLERANCE_MS = 500
_NEWEST = {'reliability': 'reliable', 'history': 'keep_last', 'depth': 1}
_KEPT = _NEWEST | {'durability': 'transient_local'}
_FIRST_LINE = '# A contract of rosetta, written by'
_HEADER = _FIRST_LINE + """
#     {command}
# The encoder publishes what stands here when it is started with
#     ros2 run hralign_ros encoder_node --ros-args {node}-p autostart:=true \\
{bundle}#       -p embedding_parts:='[{parts}]' \\
#       -p mirrors.succeeded:=true -p mirrors.reward:=true -p mirrors.reset:=true \\
#       -p mirrors.task:=true -r {topic}/reward:={reward}
# To a manager of episodes (hil_manager) the reward goes under its prefix: /hil/reward{reward}.
# A number of an embedding is PART.VIEW.ELEMENT. A gap (no fresh image, a view missing) is zeros.
"""


class ContractError(HralignError):
    """A contract of a robot cannot take our topics."""


def make_contract(
    parts: Sequence[EmbeddingPart], views: Sequence[str], *, robot: Mapping[str, Any],
    node: str = '/encoder',
) -> dict[str, Any]:
    """
    Add our topics to a robot's contract; what it has already is kept.

    :param parts: of the embedding that go into the robot's state, from the encoder's own layout.
    :param robot: its contract: robot_type, robot_interface, fps, and sections.
    :param node: the encoder's, with its namespace.
    :raises ContractError: the robot's contract takes an embedding already, or its state has a
        source without `select`.
    """
    names = [f'{part.name}.{view}.{element}'
             for part in parts for view in views for element in range(part.size)]
    embedding = {
        'channel': {'topic': f'{node}/embedding', 'type': EMBEDDING_TYPE, 'dtype': 'float32',
                    'qos': dict(_NEWEST)},
        'align': _fresh(), 'select': names}
    made = {key: value for key, value in robot.items() if not str(key).startswith('x-')}
    observations = dict(made.get('observations') or {})
    state = observations.get(STATE) or []
    sources = [dict(source) for source in (state if isinstance(state, list) else [state])]
    for source in sources:
        channel = source.get('channel') or {}
        if channel.get('type') == EMBEDDING_TYPE:
            raise ContractError(f"the robot's contract has an embedding in {STATE} already: give "
                                'the one without')
        if not source.get('select'):
            raise ContractError(
                f"{STATE} of the robot's contract has a source without 'select' (topic "
                f"{channel.get('topic')}); rosetta joins only what is selected by name: add it")
        # Of several sources rosetta wants one type.
        source['channel'] = channel | {'dtype': 'float32'}
    observations[STATE] = [*sources, embedding] if sources else embedding
    made['observations'] = observations
    for section, key, entry in (
            ('info', RESULT, {
                'channel': {'topic': f'{node}/success', 'type': RESULT_TYPE, 'dtype': 'float32',
                            'qos': dict(_NEWEST)},
                'align': _fresh(), 'select': list(RESULT_NAMES)}),
            ('rewards', REWARD, {
                'channel': {'topic': REWARD_TOPIC, 'type': 'std_msgs/msg/Float64',
                            'dtype': 'float64', 'qos': dict(_NEWEST)},
                'align': {'strategy': 'hold', 'timeline': 'receive'}}),
            ('signals', SUCCESS, {
                'channel': {'topic': f'{node}/success/succeeded', 'type': 'std_msgs/msg/Bool',
                            'dtype': 'bool', 'qos': dict(_KEPT)},
                'align': {'strategy': 'hold', 'timeline': 'receive'}}),
            ('tasks', 'task', {
                'channel': {'topic': f'{node}/task', 'type': 'std_msgs/msg/String',
                            'qos': dict(_NEWEST)}})):
        made[section] = {key: entry} | dict(made.get(section) or {})
    made['adjunct'] = [*(made.get('adjunct') or []), {'channel': {
        'topic': f'{node}/info', 'type': 'hralign_msgs/msg/EncoderInfo', 'qos': dict(_KEPT)}}]
    return made


def read_robot(path: Path | None, *, fps: int) -> dict[str, Any]:
    """
    Read a robot's contract.

    :param path: None: a robot without any topics.
    :param fps: of that one.
    :raises ContractError: the file is no contract.
    """
    if path is None:
        return {'robot_type': 'hralign', 'robot_interface': 'ros2', 'fps': fps}
    try:
        read = yaml.safe_load(path.read_text('utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(f'{path} is no YAML: {str(error).splitlines()[0]}') from error
    if not isinstance(read, dict) or 'robot_type' not in read:
        raise ContractError(f'{path} is no contract of rosetta: robot_type is missing')
    try:
        json.dumps(read, default=str)
    except (ValueError, RecursionError) as error:
        raise ContractError(f'{path}: an alias in it refers to what it is in') from error
    for section in ('observations', 'info', 'rewards', 'signals', 'tasks'):
        # An empty section is none.
        if not isinstance(read.get(section) or {}, dict):
            raise ContractError(f"{path}: '{section}' is no mapping of keys, which rosetta 0.2 "
                                'and later want')
    if not isinstance(read.get('adjunct') or [], list):
        raise ContractError(f"{path}: 'adjunct' is no list of channels")
    state = (read.get('observations') or {}).get(STATE) or []
    for source in state if isinstance(state, list) else [state]:
        if not isinstance(source, dict) or not isinstance(source.get('channel') or {}, dict):
            raise ContractError(f'{path}: {STATE} is {str(source)[:60]!r}; needed is a source, or '
                                'a list of them, each a mapping with a mapping `channel`')
    return read


def require_writable(output: Path) -> None:
    """
    Refuse to write over what is no contract of ours, such as the robot's own.

    :raises ContractError: there is something else.
    """
    if output.is_dir() or (output.exists() and not output.read_bytes().startswith(
            _FIRST_LINE.encode())):
        raise ContractError(f'{output} is there already and was not written by this command; '
                            'name another file')


def check_node(node: str) -> str:
    """
    Check the full name of the encoder's node.

    :raises ContractError: it is none; topics would be named after it.
    """
    if not re.fullmatch(r'(/[A-Za-z_][A-Za-z0-9_]*)+', node):
        raise ContractError(f"node is '{node}'; needed is its full name, as /encoder or "
                            '/robot1/encoder')
    return node


def contract_text(
    contract: Mapping[str, Any], parts: Sequence[EmbeddingPart], *, bundle: Path | None,
    node: str, command: str,
) -> str:
    """
    Write a contract as YAML; its first lines say what the encoder has to be started with.

    :param bundle: None: the shipped one, which the encoder takes without being told.
    """
    namespace, _, name = node.rpartition('/')
    renamed = f'-r __ns:={namespace} ' * bool(namespace) + f'-r __node:={name} ' * (
        name != 'encoder')
    header = _HEADER.format(
        command=command, node=renamed, topic=node, reward=REWARD_TOPIC,
        bundle=f'#       -p bundle:={bundle} \\\n' if bundle else '',
        parts=', '.join(part.name for part in parts))
    return header + yaml.dump(dict(contract), Dumper=_Plain, sort_keys=False, width=98,
                              default_flow_style=None)


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice: an anchor says nothing to who reads it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _fresh() -> dict[str, Any]:
    return {'strategy': 'asof', 'timeline': 'header', 'tolerance_ms': TOLERANCE_MS}
