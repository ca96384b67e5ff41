# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Goals of ~/wait_for_success, as a task planner sends them."""

import time
from typing import Any

from action_msgs.msg import GoalStatus
from hralign_msgs.action import WaitForSuccess
from rclpy.action import ActionClient
from support.harness import Harness

SUCCEEDED, ABORTED, CANCELED = (
    GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED)
SUCCESS, FAILURE, TIMED_OUT, CANNOT_TELL = (
    WaitForSuccess.Result.OUTCOME_SUCCESS, WaitForSuccess.Result.OUTCOME_FAILURE,
    WaitForSuccess.Result.OUTCOME_TIMED_OUT, WaitForSuccess.Result.OUTCOME_CANNOT_TELL)


class Planner:
    """Who sends goals."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.client = ActionClient(harness.node, WaitForSuccess, '/encoder/wait_for_success')
        self.ready()

    def ready(self) -> None:
        """Wait for the server, and give it a moment to know this client."""
        self.harness.wait(self.client.server_is_ready, 'the action server')
        self.harness.spin(0.3)

    def close(self) -> None:
        """Let the client go."""
        self.client.destroy()

    def send(self, instruction: str = '', *, time_out: float = 0.0, alpha: float = 0.0) -> 'Goal':
        """Send a goal and wait until it is taken."""
        return Goal(self, WaitForSuccess.Goal(
            instruction=instruction, time_out=time_out, alpha=alpha))

    def ask(self, instruction: str = '', **fields: float) -> tuple[int, Any]:
        """Send a goal and wait for its answer."""
        return self.send(instruction, **fields).answer()


class Goal:
    """One goal that was taken, and its feedback."""

    def __init__(self, planner: Planner, request: WaitForSuccess.Goal) -> None:
        self.harness = planner.harness
        self.feedback: list[Any] = []
        sent: list[Any] = []
        due = 0.0

        def taken() -> Any:
            # A server that ended, or does not know the client yet, may take it into the void.
            nonlocal due
            if time.monotonic() >= due:
                sent.append(planner.client.send_goal_async(request, feedback_callback=lambda one:
                                                           self.feedback.append(one.feedback)))
                due = time.monotonic() + 10.0
            return next((one for one in reversed(sent) if one.done()), None)

        self.handle = self.harness.wait(taken, 'the goal to be taken').result()
        assert self.handle.accepted
        self._result = self.handle.get_result_async()

    @property
    def over(self) -> bool:
        """Whether the answer is there."""
        return bool(self._result.done())

    def answer(self) -> tuple[int, Any]:
        """Wait for the answer: the goal's status and its result."""
        self.harness.wait(self._result.done, 'the answer')
        response = self._result.result()
        return response.status, response.result

    def cancel(self) -> bool:
        """Ask for its end; tell whether the node takes that."""
        asked = self.handle.cancel_goal_async()
        self.harness.wait(asked.done, 'the answer to the cancel')
        return bool(asked.result().goals_canceling)
