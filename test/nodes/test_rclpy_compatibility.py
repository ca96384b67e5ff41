# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is changed in rclpy, and whether the release that is installed needs it."""

from hralign_ros.nodes import rclpy_compatibility
from hralign_ros.nodes.rclpy_compatibility import RCLError
import pytest
import rclpy
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn


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
