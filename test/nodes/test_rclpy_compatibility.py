# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is changed in rclpy, and whether the release that is installed needs it."""

from hralign_ros.nodes import rclpy_compatibility
from hralign_ros.nodes.rclpy_compatibility import ParameterCallbacks, RCLError
import pytest
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter


@pytest.fixture
def context():
    """Start rclpy for one test."""
    context = Context()
    rclpy.init(context=context, args=[])
    yield context
    rclpy.try_shutdown(context=context)


def make(kind, context):
    return kind('probe', context=context, use_global_arguments=False, enable_rosout=False)


def activates(kind, context):
    """Activate an unconfigured node; return what comes of it, None: it raised."""
    node = make(kind, context)
    try:
        return node.trigger_activate()
    except RCLError:
        return None
    finally:
        node.destroy_node()


def test_the_override_is_needed_where_it_is_made(context):
    """
    Guards against an override of rclpy's privates that no release needs any more.

    A plain node raised up to rclpy 7, and refuses from 8.0.0 on. Where this fails, the installed
    release refuses by itself: lower REFUSES_TRANSITIONS to it, or delete the override.
    """
    needed = rclpy_compatibility.rclpy_version() < rclpy_compatibility.REFUSES_TRANSITIONS
    assert (activates(LifecycleNode, context) is None) == needed
    overridden = '_LifecycleNodeMixin__change_state' in vars(rclpy_compatibility.LifecycleNode)
    assert overridden == needed


def test_a_transition_that_is_not_available_is_refused(context):
    """Guards whoever asks: there is an answer, with every release."""
    assert activates(rclpy_compatibility.LifecycleNode, context) in (
        TransitionCallbackReturn.FAILURE, TransitionCallbackReturn.ERROR)


def test_a_node_knows_its_state(context):
    """Guards diagnostics, which name it."""
    node = make(rclpy_compatibility.LifecycleNode, context)
    assert node.state_label == 'unconfigured'
    node.trigger_configure()
    assert node.state_label == 'inactive'
    node.destroy_node()


class OnOlder(ParameterCallbacks, Node):
    """A node as it is with rclpy 3, which has no callbacks of its own before and after."""


@pytest.mark.parametrize('kind', [Node, OnOlder])
def test_callbacks_around_setting_parameters(context, kind):
    """
    Guards Humble, whose rclpy has no callbacks before and after: ours are called as a later one's.

    The encoder takes whole numbers for floating-point parameters before they are checked, and
    applies what has been set afterwards; refused changes are not applied.
    """
    if not hasattr(Node, 'add_post_set_parameters_callback') and kind is Node:
        pytest.skip('this release has none to compare with')
    node = make(kind, context)
    node.declare_parameter('rate', 1.0)
    node.declare_parameter('name', 'a')
    seen = []
    node.add_pre_set_parameters_callback(lambda changed: [
        Parameter(p.name, value=float(p.value)) if p.name == 'rate' else p for p in changed])
    node.add_on_set_parameters_callback(lambda changed: SetParametersResult(
        successful=all(p.value != -1.0 for p in changed), reason='not minus one'))
    node.add_post_set_parameters_callback(lambda changed: seen.append(
        [(p.name, p.value) for p in changed]))
    rate, name = Parameter('rate', value=2), Parameter('name', value='b')
    assert node.set_parameters_atomically([rate, name]).successful
    refused = node.set_parameters([Parameter('name', value='c'), Parameter('rate', value=-1)])
    assert [result.successful for result in refused] == [True, False]
    assert refused[1].reason == 'not minus one'
    assert seen == [[('rate', 2.0), ('name', 'b')], [('name', 'c')]]
    assert (node.get_parameter('rate').value, node.get_parameter('name').value) == (2.0, 'c')
    node.destroy_node()


def test_log_levels_can_be_changed_where_rclpy_has_the_service(context):
    """Guards Humble: an option that its nodes do not know ends the node at its start."""
    node = Node('levels', context=context, use_global_arguments=False,
                **rclpy_compatibility.LOGGER_SERVICE)
    offered = any(service.srv_name.endswith('/set_logger_levels') for service in node.services)
    assert offered == (rclpy_compatibility.rclpy_version() >= (4,))
    node.destroy_node()
