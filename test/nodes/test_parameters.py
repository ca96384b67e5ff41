# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whatever values parameters have, they are used or refused in one sentence."""

from collections.abc import Iterator
import math
from pathlib import Path
from typing import Any

from hralign_ros.nodes import parameters
from lifecycle_msgs.msg import Transition
import pytest
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from support.harness import Harness

DEFAULTS = {name: row.default for name, row in parameters.table().items()}


@pytest.fixture
def context() -> Iterator[rclpy.Context]:
    """Give a context of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(('name', 'value'), [
    ('alpha', 'low'), ('alpha', None), ('alpha', 1), ('alpha', True), ('threads', 2.0),
    ('threads', True), ('task', 5), ('require_gpu', 1), ('wrist.crop', 0.5),
    ('wrist.crop', [0, 0, 1, 1]), ('wrist.topic', b'x'), ('provider', ['cpu']), ('views', 'wrist'),
    ('views', [0.5]), ('views', []), ('views', ['a', 'a']), ('views', ['a b']), ('views', [[]])])
def test_a_value_of_another_type(name: str, value: Any) -> None:
    """Guards Settings.read, which met such values with whatever error Python has for them."""
    with pytest.raises(parameters.ParameterError, match=f'parameter {name} is .*needed'):
        parameters.Settings.read({**DEFAULTS, name: value})


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf, -0.1, 1e300])
@pytest.mark.parametrize('name', ['alpha', 'dwell_s', 'max_age_s', 'time_out_s'])
def test_a_number_beside_its_range(name: str, value: float) -> None:
    """Guards the rules: NaN seconds are no number of nanoseconds, and infinite ones neither."""
    with pytest.raises(parameters.ParameterError, match=f'parameter {name} is .*needed'):
        parameters.Settings.read({**DEFAULTS, name: value})


@pytest.mark.parametrize('topic', ['', 'a b', '1st/image', 'a//b', 'a/', '~wrist', '{x}/y', 'é'])
def test_a_topic_that_is_none(topic: str) -> None:
    """
    Guards configure against a traceback.

    A fuzzer found it: such a topic was accepted, the bundle was loaded and warmed, and then rclpy
    refused to subscribe, with an error that did not name the parameter.
    """
    with pytest.raises(parameters.ParameterError, match='parameter wrist.topic is'):
        parameters.Settings.read({**DEFAULTS, 'wrist.topic': topic})


@pytest.mark.parametrize('topic', ['image', '/a/b_1', '~/image', '{node}/image'])
def test_topics_that_are_good(topic: str) -> None:
    """Guards against refusing what ROS 2 takes."""
    read = parameters.Settings.read({**DEFAULTS, 'wrist.topic': topic})
    assert read.views['wrist'].topic == topic


@pytest.mark.parametrize('name', ['threads', 'alpha', 'wrist.topic', 'wrist.crop'])
def test_a_parameter_without_a_value(context: rclpy.Context, name: str) -> None:
    """
    Guards the start of the node against rclpy's own exception.

    A fuzzer found it: an override without a value counts as declared, and reading it raises.
    """
    node = Node('given', context=context, parameter_overrides=[Parameter(name)])
    try:
        with pytest.raises(parameters.ParameterError, match=f'parameter {name}'):
            parameters.declare(node)
    finally:
        node.destroy_node()


FILE = """
/**:
  ros__parameters:
    wait_s: 1.0
    tolerence_s: 0.1
    xyz: 1
    use_sim_time: false
    max_wait_s: 0
    wrist:
      crop: [0, 0, 1, 1]
"""


def test_a_parameter_file_written_by_hand(harness: Harness, tmp_path: Path) -> None:
    """
    Guards who writes 0 for 0.0, as our own pages do, and who mistypes a name.

    The node ended over the first, and ignored the second without a word.
    """
    (tmp_path / 'encoder.yaml').write_text(FILE)
    process = harness.start(arguments=('--params-file', str(tmp_path / 'encoder.yaml')),
                            stuck_after_s='0')
    assert harness.state() == 'unconfigured', process.output
    words = 'tolerence_s (did you mean tolerance_s?), wait_s (did you mean max_wait_s?), xyz\n'
    assert process.output.count(words) == 1, process.output
    assert harness.transition(Transition.TRANSITION_CONFIGURE), process.output
    names = ['stuck_after_s', 'max_wait_s', 'wrist.crop', 'time_out_s']

    def values() -> list[Any]:
        return list(harness.call(GetParameters, '/encoder/get_parameters',
                                 GetParameters.Request(names=names)).values)
    assert [value.type for value in values()] == [
        ParameterType.PARAMETER_DOUBLE, ParameterType.PARAMETER_DOUBLE,
        ParameterType.PARAMETER_DOUBLE_ARRAY, ParameterType.PARAMETER_DOUBLE]
    assert values()[0].double_value == 0.0 and list(values()[2].double_array_value) == [0, 0, 1, 1]
    assert harness.set_parameters(time_out_s=30, stuck_after_s=2).successful
    assert [values()[row].double_value for row in (0, 3)] == [2.0, 30.0]
    for refused in ({'max_age_s': 20}, {'time_out_s': -1}, {'time_out_s': True},
                    {'time_out_s': 'never'}):
        assert not harness.set_parameters(**refused).successful, refused
    assert [values()[row].double_value for row in (0, 3)] == [2.0, 30.0]


@pytest.mark.parametrize(('name', 'given', 'needed'), [
    ('stuck_after_s', 0, '0.0'), ('wrist.crop', [0, 0, 1, 1], '[0.0, 0.0, 1.0, 1.0]'),
    ('threads', 2, '2')])
def test_whole_numbers_are_taken(
    context: rclpy.Context, name: str, given: Any, needed: str,
) -> None:
    """Guards doctor, which declares the parameters as the node does, and takes the same values."""
    node = Node('given', context=context, parameter_overrides=[Parameter(name, value=given)])
    try:
        parameters.declare(node)
        assert repr(parameters.Settings.read(parameters.current(node))[name]) == needed
    finally:
        node.destroy_node()


@pytest.mark.parametrize(('name', 'value'), [
    ('stuck_after_s', 61), ('stuck_after_s', True), ('wrist.crop', [0, 1]), ('threads', 2.0)])
def test_other_numbers_are_refused(context: rclpy.Context, name: str, value: Any) -> None:
    """Guards ranges and types: what is taken for 0.0 is a whole number, and nothing else."""
    node = Node('given', context=context, parameter_overrides=[Parameter(name, value=value)])
    try:
        with pytest.raises(parameters.ParameterError, match=name.split('.')[0]):
            parameters.declare(node)
            parameters.Settings.read(parameters.current(node))
    finally:
        node.destroy_node()
