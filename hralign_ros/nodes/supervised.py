# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A lifecycle node that tells what is wrong with it: transitions, faults, diagnostics."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
import time
import traceback
from typing import TypeAlias

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hralign_ros.nodes.network import Network
from hralign_ros.nodes.rclpy_compatibility import LifecycleNode, LOGGER_SERVICE
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.faults import Faults
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

# Diagnostics go out this often, and at once when a level changes [s].
_REPORT_S = 1.0
_CHECK_PERIOD = 0.2

Return: TypeAlias = TransitionCallbackReturn


class SupervisedNode(LifecycleNode, ABC):
    """
    What the encoder and the policy have in common; a node of this kind says what it does.

    /diagnostics works in every state, and while simulated time does not advance.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, **LOGGER_SERVICE)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._faults = Faults(
            on_begin=lambda key, text: self.get_logger().warning(text),
            on_end=lambda key: self.get_logger().info(f'recovered: {key}'))
        self._network = Network(self, self._faults)
        # Why the last transition failed; empty: it did not.
        self._problem = ''
        self._active = False
        self._last_levels: tuple[bytes, ...] = ()
        self._last_report = 0.0
        # For what must continue while simulated time does not advance.
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_CHECK_PERIOD, self._report, clock=self._steady)

    def _warn_of_unknown(self, names: Iterable[str]) -> None:
        """Say which parameters are given and not known."""
        if unknown := list(names):
            self.get_logger().warning(
                'parameters that this node does not have, and ignores: ' + ', '.join(unknown))

    def autostart(self) -> None:
        """Configure and activate where the parameter `autostart` says so."""
        if self.get_parameter('autostart').value and self.trigger_configure() == Return.SUCCESS:
            self.trigger_activate()

    # What a node of this kind does.

    @abstractmethod
    def _configure(self) -> None:
        """Load everything; an error is told, and `_teardown` frees what was made."""

    @abstractmethod
    def _activate(self, state: LifecycleState) -> None:
        """Let results out."""

    @abstractmethod
    def _deactivate(self, state: LifecycleState) -> None:
        """Nothing is published once this has returned."""

    @abstractmethod
    def _teardown(self, *, keep_problem: bool = False) -> None:
        """Free what there is; works from any half-made state."""

    def _open_publishers(self, state: LifecycleState) -> None:
        """Let the lifecycle's publishers publish."""
        super().on_activate(state)

    def _shut_publishers(self, state: LifecycleState) -> None:
        super().on_deactivate(state)

    def _check(self, due: bool) -> None:
        """Look for faults, a few times a second; `due`: diagnostics go out in any case."""

    @abstractmethod
    def _statuses(self) -> list[DiagnosticStatus]:
        """Say what diagnostics say now."""

    # Lifecycle. rclpy swallows what these raise, so each is wrapped.

    def on_configure(self, state: LifecycleState) -> Return:
        """Load and verify everything."""
        return self._transition('configure', self._configure)

    def on_activate(self, state: LifecycleState) -> Return:
        """Open the gates."""
        return self._transition('activate', lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> Return:
        """Close the gates; nothing is published once this has returned."""
        return self._transition('deactivate', lambda: self._deactivate(state))

    def on_cleanup(self, state: LifecycleState) -> Return:
        """Free what configure has made."""
        return self._transition('cleanup', self._teardown)

    def on_shutdown(self, state: LifecycleState) -> Return:
        """Stop, from whatever state."""
        return self._transition('shutdown', self._teardown)

    def on_error(self, state: LifecycleState) -> Return:
        """Go back to unconfigured, so that configure can be tried again."""
        return self._transition('recover from an error', self._teardown)

    def _transition(self, name: str, action: Callable[[], None]) -> Return:
        """Run a transition; an error is logged and reported, and the state stays what it was."""
        try:
            action()
        except HralignError as error:
            self._problem = str(error)
            self.get_logger().error(f'cannot {name}: {error}')
        except Exception:  # anything else is a fault of ours, and must be seen all the same
            self._problem = f'cannot {name}: {traceback.format_exc()}'
            self.get_logger().error(self._problem)
        else:
            return Return.SUCCESS
        if name == 'configure':
            self._teardown(keep_problem=True)
        self._report(force=True)
        return Return.FAILURE

    def _report(self, *, force: bool = False) -> None:
        """Publish diagnostics once a second, and at once when a level changes."""
        now = time.monotonic()
        due = force or now - self._last_report >= _REPORT_S
        if due:
            self._network.check()
        self._check(due)
        self._faults.settle()
        statuses = self._statuses()
        levels = tuple(one.level for one in statuses)
        if not due and levels == self._last_levels:
            return
        self._last_levels, self._last_report = levels, now
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
