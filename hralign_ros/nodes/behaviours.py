# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Behaviours for trees of py_trees_ros; docs/how_to/behaviour_trees.md has a tree of them.

Nothing else imports this module, so that only who has py_trees_ros needs it.
"""

from typing import Any

from hralign_ros.nodes.interfaces import WaitForSuccess
import py_trees
from py_trees_ros.action_clients import FromConstant
from py_trees_ros.subscribers import CheckData
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool

# Where outcomes are written on the blackboard, unless told otherwise.
OUTCOME = '/outcome'
_RESULT = WaitForSuccess.Result
# Who may not get an answer from the node gives up so long after the goal's own time-out [s].
_PATIENCE = 10.0


class Wait(FromConstant):
    """
    Wait until the node has decided, and write the outcome on the blackboard.

    SUCCESS where the attempt succeeded; FAILURE in all other cases, which the outcome tells apart.
    Stopped by the tree, it cancels its goal, also one that was not accepted yet, and it takes no
    answer to an earlier goal for that of a later one: py_trees_ros 2.2.2 does neither.

    :param instruction: begins an episode of it; '': watch the one that is running.
    :param time_out: of the goal [s]; 0: none.
    :param alpha: false-alarm rate; 0: the node's.
    :param encoder: name of the node.
    :param key: where the outcome is written, one of WaitForSuccess.Result.OUTCOME_*.
    """

    def __init__(
        self, name: str, instruction: str = '', *, time_out: float = 0.0, alpha: float = 0.0,
        encoder: str = '/encoder', key: str = OUTCOME,
    ) -> None:
        super().__init__(
            name=name, action_type=WaitForSuccess, action_name=f'{encoder}/wait_for_success',
            action_goal=WaitForSuccess.Goal(
                instruction=instruction, time_out=time_out, alpha=alpha),
            generate_feedback_message=_said)
        self._key = key
        self._stopped = False
        self.blackboard.register_key(key, access=py_trees.common.Access.WRITE)

    def initialise(self) -> None:
        """Send the goal; nothing is known until it has an answer."""
        self._stopped = False
        self.blackboard.set(self._key, _RESULT.OUTCOME_CANNOT_TELL)
        super().initialise()

    def update(self) -> Any:
        """Look whether there is an answer."""
        status = super().update()
        if self.result_message is not None:
            result = self.result_message.result
            self.blackboard.set(self._key, result.outcome)
            self.feedback_message = result.message
        return status

    def terminate(self, new_status: Any) -> None:
        """Cancel the goal where the tree stops it."""
        self._stopped = new_status == py_trees.common.Status.INVALID
        super().terminate(new_status)

    def goal_response_callback(self, future: Any) -> None:
        """Take a goal that was accepted, or cancel it where nobody waits for it any more."""
        if future is self.send_goal_future and not self._stopped:
            super().goal_response_callback(future)
        elif future.result() is not None and future.result().accepted:
            future.result().cancel_goal_async()

    def get_result_callback(self, future: Any) -> None:
        """Take the answer to this goal, and to no other."""
        if future is self.get_result_future:
            super().get_result_callback(future)


def cannot_tell(name: str = 'cannot tell?', *, key: str = OUTCOME) -> Any:
    """Make a condition: SUCCESS where the node could not tell how the last attempt ended."""
    return py_trees.behaviours.CheckBlackboardVariableValue(
        name, py_trees.common.ComparisonExpression(
            key, _RESULT.OUTCOME_CANNOT_TELL, lambda outcome, value: outcome == value))


def says(topic: str, name: str = '') -> Any:
    """
    Make a condition that is asked at each tick: SUCCESS while the node says so.

    :param topic: ~/success/succeeded or ~/success/failed, which the node's parameters
        mirrors.succeeded and mirrors.failed switch on.
    """
    return CheckData(
        name or f'{topic}?', topic, Bool,
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL), 'data', True,
        fail_if_no_data=True, fail_if_bad_comparison=True,
        clearing_policy=py_trees.common.ClearingPolicy.NEVER)


def attempt(act: Any, wait: Wait, *, time_out: float = 0.0) -> Any:
    """
    Make an attempt: `act` acts until `wait` has its answer.

    :param time_out: give up so long after the beginning [s]: a node that is killed answers
        nobody. 0: 10 s after the goal's own time-out, where it has one.
    """
    own = wait.blackboard.goal.time_out
    limit = time_out or (own + _PATIENCE if own else 0.0)
    waiting = py_trees.decorators.Timeout(f'{wait.name} answered', wait, duration=limit) \
        if limit else wait
    return py_trees.composites.Parallel(
        f'{act.name} until {wait.name}',
        py_trees.common.ParallelPolicy.SuccessOnSelected([waiting]), [waiting, act])


def _said(message: Any) -> str:
    feedback = message.feedback
    return f'probability {feedback.probability:.2f}' if feedback.probability_valid else 'waiting'
