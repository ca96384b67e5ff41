# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whatever values parameters have, they are used or refused in one sentence."""

from collections.abc import Iterator
import math
from typing import Any

from hralign_ros.nodes import parameters
import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter

DEFAULTS = {name: parameters.default_of(name, row)
            for name, row in parameters.table().items()}


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
