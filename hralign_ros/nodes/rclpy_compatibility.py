# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The only module that touches what rclpy does not publish, and the releases that need it.

- Up to rclpy 7 (Humble to Jazzy), a lifecycle transition that is not available raises, and whoever
  asked for it waits for an answer for ever: https://github.com/ros2/rclpy/issues/1209. rclpy 8.0.0
  (Kilted) refuses it: delete the override with the last distribution before Kilted.
- rclpy 3 (Humble) has the callbacks of middleware events in another module, no service for log
  levels, and no callbacks before and after parameters are set; all came with 4 (Iron).
- rclpy 9 (Kilted) destroys what nodes are left when it shuts down, also one whose constructor
  raised, with a destroy_node of ours that frees what is not there yet.
- No release publishes its error class, nor tells a node its own lifecycle state, nor which
  parameters it was given.

test/nodes/test_rclpy_compatibility.py fails once a release is listed here without need.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
import inspect
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode as RclpyLifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import get_default_context

# The first release that refuses transitions which are not available.
REFUSES_TRANSITIONS = (8, 0, 0)

RCLError = rclpy_implementation.RCLError
_events = import_module(
    'rclpy.event_handler' if find_spec('rclpy.event_handler') else 'rclpy.qos_event')
PublisherEventCallbacks = _events.PublisherEventCallbacks
SubscriptionEventCallbacks = _events.SubscriptionEventCallbacks

# For the constructor of a node: its log levels can be changed by a service, where that exists.
LOGGER_SERVICE: dict[str, Any] = (
    {'enable_logger_service': True}
    if 'enable_logger_service' in inspect.signature(Node.__init__).parameters else {})


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


def destroy_half_made_nodes() -> None:
    """
    Destroy the nodes that are left before rclpy shuts down, as rclpy alone would.

    To be called once the finished nodes are destroyed. With rclpy 9 a wrong parameter ended in an
    AttributeError of destroy_node, and its reason was lost.
    """
    left = getattr(get_default_context(), '_Context__node_weak_ref_list', ())
    for node in [reference() for reference in left]:
        if node is not None:
            Node.destroy_node(node)


class ParameterCallbacks:
    """
    Callbacks before and after parameters are set, for a node of a release that has none.

    As a base class it stands before rclpy's. They are called as by rclpy 4 and later, but not when
    a parameter is declared.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._before_setting: list[Callable[[list[Parameter]], Iterable[Parameter]]] = []
        self._after_setting: list[Callable[[list[Parameter]], None]] = []
        super().__init__(*args, **options)

    def add_pre_set_parameters_callback(
        self, callback: Callable[[list[Parameter]], Iterable[Parameter]],
    ) -> None:
        """Call something that gives what to set in the place of what somebody asks for."""
        self._before_setting.insert(0, callback)

    def add_post_set_parameters_callback(
        self, callback: Callable[[list[Parameter]], None],
    ) -> None:
        """Call something with the parameters that have been set."""
        self._after_setting.insert(0, callback)

    def set_parameters(self, parameter_list: Sequence[Parameter]) -> list[SetParametersResult]:
        """Set parameters, each by itself."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(
        self, parameter_list: Sequence[Parameter],
    ) -> SetParametersResult:
        """Set all of some parameters, or none."""
        wanted = list(parameter_list)
        if self._before_setting:
            wanted = [changed for callback in self._before_setting for changed in callback(wanted)]
        result = super().set_parameters_atomically(wanted)  # type: ignore[misc]
        if result.successful:
            for callback in self._after_setting:
                callback(wanted)
        return result


_Lifecycle: type = (
    RclpyLifecycleNode if hasattr(Node, 'add_post_set_parameters_callback')
    else type('_Lifecycle', (ParameterCallbacks, RclpyLifecycleNode), {}))


class LifecycleNode(_Lifecycle):
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
