# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The action ~/wait_for_success: one goal at a time, until the node has decided."""

from collections.abc import Callable
from dataclasses import dataclass
import math
from threading import Lock
import time
import traceback
from typing import Any

from hralign_ros.nodes.conversions import ns_to_stamp, stamp_to_ns
from hralign_ros.nodes.interfaces import SuccessProbability, WaitForSuccess
from hralign_ros.runtime.decision import Decision, Status
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.waiting import Ending, Outcome, Wait
from rclpy.action import ActionServer, CancelResponse
from rclpy.clock import Clock
from rclpy.node import Node

# Feedback comes this often at most, and clocks are looked at this often [s].
_PERIOD = 0.1
# An answer is kept so long for who has not asked for it yet [s]. Usual are 15 minutes, and
# every message on goals lists them all: too many where a planner tries again and again.
_KEPT = 10
# How long an answer may take to be fetched, before the node may end; and how long what has been
# asked for by then may take to be handed over [s].
_FETCHED, _HANDED_OVER = 1.0, 0.2
# Who gives the largest float for a time-out means this [s].
_FOR_EVER = 1e9


class GoalError(HralignError):
    """A goal asks for what the node cannot do now."""


@dataclass
class _Goal:
    """A goal that was taken on, and the newest result of its episode."""

    handle: Any
    wait: Wait
    newest: SuccessProbability | None = None
    told: SuccessProbability | None = None


class SuccessWaiter:
    """
    Serve the action.

    A goal takes no thread, and no coroutine either: rclpy's executor polls one that waits without
    a rest. It is executed, as rclpy calls it, once its result is there.

    Results and episodes come from any thread; all else runs on the executor's.

    :param steady: a clock that advances when simulated time does not.
    :param prepare: checks an instruction and an alpha, raises HralignError where they cannot be
        used, and returns what begins the episode, or finds the one that runs, and tells its id.
    :param patience: tells for how long nothing may be decided [ns].
    """

    def __init__(
        self, node: Node, steady: Clock, prepare: Callable[[str, float], Callable[[], int]],
        patience: Callable[[], int],
    ) -> None:
        self._node, self._prepare, self._patience = node, prepare, patience
        # Never held while the pipeline is called, which holds its own lock when it calls us.
        self._lock = Lock()
        self._goal: _Goal | None = None
        # When a goal was answered last, by monotonic time [s].
        self._answered = -math.inf
        self._guard = node.create_guard_condition(self._settle)
        self._timer = node.create_timer(_PERIOD, self._settle, clock=steady)
        self._timer.cancel()
        self._server = ActionServer(
            node, WaitForSuccess, '~/wait_for_success', execute_callback=_abort,
            handle_accepted_callback=self._on_goal, cancel_callback=self._on_cancel,
            result_timeout=_KEPT)

    # From any thread.

    def take(self, message: SuccessProbability) -> None:
        """Take a result that was published."""
        if self._goal is None:  # nearly always; needs no lock
            return
        with self._lock:
            goal = self._goal
            if goal is None or goal.wait.ending is not None \
                    or stamp_to_ns(message.episode_id) != goal.wait.episode_id:
                return
            goal.newest = message
            over = goal.wait.result(
                Status(message.status), Decision(message.decision), time.monotonic_ns())
        if over:
            self._guard.trigger()

    def episode_began(self, episode_id: int) -> None:
        """Note that an episode has begun; a goal that waits for another one is over."""
        with self._lock:
            over = self._goal is not None and self._goal.wait.episode_id != episode_id \
                and self._goal.wait.end(Outcome.CANNOT_TELL, (
                    'another episode has begun, by ~/set_task, ~/start_episode or one of their '
                    'mirrors, or because the clock went back'))
        if over:
            self._guard.trigger()

    # From the executor's thread.

    def end(self, message: str) -> None:
        """End the goal that is running, if there is one; `message` says why."""
        with self._lock:
            if self._goal is None:
                return
            self._goal.wait.end(Outcome.CANNOT_TELL, message)
        self._settle()

    def to_be_fetched(self) -> float:
        """Tell for how long the executor is needed, so that the last answer arrives [s]."""
        since = time.monotonic() - self._answered
        return max(_FETCHED - since, _HANDED_OVER) if since < _KEPT else 0.0

    def destroy(self) -> None:
        """Close the action; goals have ended before."""
        self._server.destroy()

    def _on_goal(self, handle: Any) -> None:
        """Take a goal on, or answer at once why not; whatever happens it is answered."""
        try:
            request = handle.request
            if not 0.0 <= request.time_out < math.inf:
                raise GoalError(f'time_out is {request.time_out:g}; needed are seconds, 0 or '
                                'more; 0: none')
            begin = self._prepare(request.instruction, request.alpha)
            self.end('another goal has taken over')
            goal = _Goal(handle, Wait(
                begin(), time_out=math.ceil(min(request.time_out, _FOR_EVER) * 1e9),
                now=self._now(), elapsed=time.monotonic_ns()))
        except HralignError as error:
            self._node.get_logger().warning(f'wait_for_success refused: {error}')
            self._answer(handle, Ending(Outcome.CANNOT_TELL, f'refused: {error}'))
            return
        except Exception:  # a fault of ours; the client must not wait for ever all the same
            self._node.get_logger().error(f'wait_for_success failed: {traceback.format_exc()}')
            self._answer(handle, Ending(
                Outcome.CANNOT_TELL, "failed: a fault of the node's own; its log says more"))
            return
        with self._lock:
            self._goal = goal
        self._timer.reset()

    def _on_cancel(self, handle: Any) -> CancelResponse:
        """Let the running goal be cancelled; others have their answer."""
        if self._goal is None or self._goal.handle is not handle:
            return CancelResponse.REJECT
        # The goal is not being cancelled before this has returned.
        self._guard.trigger()
        return CancelResponse.ACCEPT

    def _settle(self) -> None:
        """Answer the goal once it is over; before that, tell how it goes."""
        with self._lock:
            goal = self._goal
            if goal is None:
                return
            if goal.handle.is_cancel_requested:
                goal.wait.end(Outcome.CANNOT_TELL, 'cancelled')
            goal.wait.check(self._now(), time.monotonic_ns(), self._patience())
            newest, ending = goal.newest, goal.wait.ending
            if ending is not None:
                self._goal = None
        if ending is not None:
            self._timer.cancel()
            self._node.get_logger().info(
                f'wait_for_success: {ending.outcome.name}: {ending.message}')
            self._answer(goal.handle, ending, newest, goal.wait.episode_id)
        elif newest is not None and newest is not goal.told:
            goal.told = newest
            goal.handle.publish_feedback(WaitForSuccess.Feedback(
                probability_valid=newest.probability_valid, probability=newest.probability,
                progress_valid=newest.progress_valid, progress=newest.progress,
                status=newest.status, decision=newest.decision,
                elapsed=goal.wait.since(self._now())))

    def _answer(
        self, handle: Any, ending: Ending, newest: SuccessProbability | None = None,
        episode_id: int = 0,
    ) -> None:
        """Hand over the result; it goes out when the executor turns to it."""
        result = WaitForSuccess.Result(
            outcome=int(ending.outcome), message=ending.message,
            episode_id=ns_to_stamp(episode_id))
        if newest is not None:
            result.stamp = newest.header.stamp
            result.probability_valid = newest.probability_valid
            result.probability = newest.probability

        def finish(handle: Any) -> Any:
            if ending.outcome == Outcome.SUCCESS:
                handle.succeed()
            elif handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
            return result

        self._answered = time.monotonic()
        # Without them nobody is served any more.
        if self._node.executor is not None and self._node.context.ok():
            handle.execute(finish)

    def _now(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


def _abort(handle: Any) -> Any:
    """Stand where rclpy asks for what executes a goal; each is given its own."""
    handle.abort()
    return WaitForSuccess.Result(outcome=int(Outcome.CANNOT_TELL))
