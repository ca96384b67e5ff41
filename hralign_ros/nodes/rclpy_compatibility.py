# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The only module that touches what rclpy does not publish, and the releases that need it.

- Up to rclpy 7 (Humble to Jazzy), a lifecycle transition that is not available raises, and whoever
  asked for it waits for an answer for ever: https://github.com/ros2/rclpy/issues/1209. rclpy 8.0.0
  (Kilted) refuses it: delete the override with the last distribution before Kilted.
- No release publishes its error class, nor tells a node its own lifecycle state, nor which
  parameters it was given.

test/nodes/test_rclpy_compatibility.py fails once a release is listed here without need.
"""

from importlib import metadata
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode as RclpyLifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node

# The first release that refuses transitions which are not available.
REFUSES_TRANSITIONS = (8, 0, 0)

RCLError = rclpy_implementation.RCLError


def rclpy_version() -> tuple[int, ...]:
    """Tell the version of rclpy; (0,) where it is not installed as a package of Python."""
    try:
        text = metadata.version('rclpy')
    except metadata.PackageNotFoundError:
        return (0,)
    return tuple(int(part) for part in text.split('.')[:3] if part.isdecimal())


def parameter_overrides(node: Node) -> dict[str, Any]:
    """Give the values that files and the command line hold for a node, declared or not."""
    return {name: parameter.value for name, parameter in node._parameter_overrides.items()}


class LifecycleNode(RclpyLifecycleNode):
    """A lifecycle node that knows its state, and refuses transitions that are not available."""

    @property
    def state_label(self) -> str:
        """Name the current state, such as 'inactive'."""
        return str(self._state_machine.current_state[1])

    if rclpy_version() < REFUSES_TRANSITIONS:
        def _LifecycleNodeMixin__change_state(  # noqa: N802
            self, transition: int,
        ) -> TransitionCallbackReturn:
            """Refuse a transition that is not available now, where rclpy would raise."""
            available = {number for number, *_ in self._state_machine.available_transitions}
            if transition not in available:
                self.get_logger().warning(
                    f'transition {transition} is refused in state {self.state_label}')
                return TransitionCallbackReturn.FAILURE
            return TransitionCallbackReturn(
                super()._LifecycleNodeMixin__change_state(transition))  # type: ignore[misc]
