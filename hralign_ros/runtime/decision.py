# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The decider: from a probability over time to a decision.

`decide` is a pure function; `Decider` keeps its state over one episode. The node, offline replays,
calibration and evaluation all decide by it, with the rules below unless told otherwise. The status
bits and decisions are those of hralign_msgs/SuccessProbability; a test keeps the two in step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag
from threading import Lock


class Status(IntFlag):
    """Why a result should not be taken at face value; any number of these."""

    OK = 0
    UNCALIBRATED = 1
    NO_TASK = 2
    UNKNOWN_TASK = 4
    OUT_OF_DISTRIBUTION = 8
    STALE_VIEW = 16
    VIEW_MISSING = 32


class Decision(IntEnum):
    """What follows from the probability; SUCCESS and FAILURE hold until the next episode."""

    ABSTAIN = 0
    RUNNING = 1
    SUCCESS = 2
    FAILURE = 3


USUAL_FAILURE_THRESHOLD = 0.9


@dataclass(frozen=True)
class DecisionRules:
    """
    When a probability becomes a decision; these defaults are the node's.

    :param alpha: the false-alarm rate whose calibrated threshold decides SUCCESS, (0, 1); None:
        see `tasks.Calibration.rate`.
    :param dwell: time the probability has to stay above the threshold [ns].
    :param failure_threshold: FAILURE needs a probability of having failed in one mode above it;
        1: modes never fail. None: the threshold that the task was calibrated for, or else
        USUAL_FAILURE_THRESHOLD.
    :param failure_dwell: time one and the same mode has to stay above its threshold [ns].
    :param time_out: FAILURE this long after the episode's first frame [ns]; 0: never.
    :param max_gap: dwell times start again after a longer gap between results [ns]: two results
        say nothing of the time between them.
    :param allow_unknown_tasks: UNKNOWN_TASK does not make the decision ABSTAIN.
    """

    alpha: float | None = None
    dwell: int = 300_000_000
    failure_threshold: float | None = None
    failure_dwell: int = 1_000_000_000
    time_out: int = 0
    max_gap: int = 1_000_000_000
    allow_unknown_tasks: bool = False


DEFAULT_RULES = DecisionRules()


@dataclass(frozen=True)
class DecisionState:
    """
    What one decision leaves for the next.

    :param start: stamp of the episode's first frame [ns]; None: none so far.
    :param above_since: stamp since when the probability is above the threshold.
    :param failing: per failure mode, since when it is above its threshold; None: it is not.
    :param latched: SUCCESS or FAILURE, once decided.
    :param newest: stamp of the last result that could be decided on [ns].
    """

    start: int | None = None
    above_since: int | None = None
    failing: tuple[int | None, ...] = ()
    latched: Decision | None = None
    newest: int | None = None


def decide(
    state: DecisionState,
    rules: DecisionRules,
    *,
    stamp: int,
    probability: float | None,
    threshold: float | None,
    modes: Sequence[float],
    status: Status,
    failure_threshold: float | None = None,
    dwell: int = 0,
) -> tuple[DecisionState, Decision]:
    """
    Decide for one result.

    :param stamp: acquisition time of the newest frame [ns], never older than the last one.
    :param probability: P(accomplished), or None where there is none.
    :param threshold: SUCCESS needs a probability above it, [0, 1]; None: not calibrated for the
        rules' alpha, ABSTAIN.
    :param modes: probability of having failed in each mode; may be empty.
    :param failure_threshold: that the task was calibrated for; None: it was not.
    :param dwell: that it was calibrated for, where it is more than that of the rules [ns].
    :returns: the state for the next call, and the decision. While a status bit other than
        VIEW_MISSING is set the decision is ABSTAIN and dwell times start again; a latched
        decision comes back once the bits are gone.
    """
    start = stamp if state.start is None else state.start
    harmless = Status.VIEW_MISSING | (
        Status.UNKNOWN_TASK if rules.allow_unknown_tasks else Status.OK)
    if status & ~harmless or probability is None or threshold is None:
        return replace(state, start=start, above_since=None, failing=()), Decision.ABSTAIN
    if state.latched is not None:
        return state, state.latched

    if state.newest is not None and stamp - state.newest > rules.max_gap:
        state = replace(state, above_since=None, failing=())
    above = probability > threshold
    above_since = (stamp if state.above_since is None else state.above_since) if above else None
    # 1 is what calibration rules out: no parameter brings it back.
    most = 1.0 if failure_threshold is not None and failure_threshold >= 1.0 else next(
        limit for limit in (rules.failure_threshold, failure_threshold, USUAL_FAILURE_THRESHOLD)
        if limit is not None)
    before = state.failing if len(state.failing) == len(modes) else (None,) * len(modes)
    failing = tuple(
        None if value <= most else stamp if since is None else since
        for value, since in zip(modes, before, strict=True))
    latched = None
    if above_since is not None and stamp - above_since >= max(rules.dwell, dwell):
        latched = Decision.SUCCESS
    elif any(since is not None and stamp - since >= rules.failure_dwell for since in failing):
        latched = Decision.FAILURE
    elif rules.time_out and stamp - start >= rules.time_out:
        latched = Decision.FAILURE
    after = DecisionState(start, above_since, failing, latched, stamp)
    return after, Decision.RUNNING if latched is None else latched


class Decider:
    """
    Decide over one episode, result by result; may be called from any thread.

    :ivar rules: may be changed between results.
    """

    def __init__(self, rules: DecisionRules = DEFAULT_RULES) -> None:
        self.rules = rules
        self._state = DecisionState()
        self._lock = Lock()

    def __call__(
        self, stamp: int, *, probability: float | None, threshold: float | None,
        modes: Sequence[float] = (), status: Status = Status.OK,
        failure_threshold: float | None = None, dwell: int = 0,
    ) -> Decision:
        """Decide for one result; see `decide`."""
        with self._lock:
            self._state, decision = decide(
                self._state, self.rules, stamp=stamp, probability=probability,
                threshold=threshold, modes=modes, status=status,
                failure_threshold=failure_threshold, dwell=dwell)
        return decision

    @property
    def latched(self) -> Decision | None:
        """Tell SUCCESS or FAILURE once it is decided, also while it cannot be repeated."""
        return self._state.latched

    def interrupt(self) -> Decision:
        """Note that no result can be had for now: ABSTAIN, and dwell times start again."""
        with self._lock:
            self._state = replace(self._state, above_since=None, failing=())
        return Decision.ABSTAIN
