# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
From a probability over time to a decision: a pure function, replayed offline as it runs live.

The status bits and decisions are those of hralign_msgs/SuccessProbability; a test keeps the two
in step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, IntFlag

# What a mode needs for FAILURE unless a robot says otherwise.
FAILURE_THRESHOLD = 0.9


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


@dataclass(frozen=True)
class DecisionRules:
    """
    When a probability becomes a decision.

    :param threshold: SUCCESS needs a probability above it, [0, 1]; None: not calibrated, ABSTAIN.
    :param alpha: the false-alarm rate that `threshold` was calibrated for, (0, 1).
    :param dwell: time the probability has to stay above the threshold [ns].
    :param failure_threshold: FAILURE needs a probability of having failed in one mode above it;
        None: modes never fail.
    :param failure_dwell: time one and the same mode has to stay above its threshold [ns].
    :param time_out: FAILURE this long after the episode's first frame [ns]; 0: never.
    :param max_gap: dwell times start again after a gap between results that is longer [ns]: who
        has looked twice has not looked all the time.
    """

    threshold: float | None = None
    alpha: float = 0.05
    dwell: int = 300_000_000
    failure_threshold: float | None = None
    failure_dwell: int = 1_000_000_000
    time_out: int = 0
    max_gap: int = 1_000_000_000


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
    modes: Sequence[float],
    status: Status,
) -> tuple[DecisionState, Decision]:
    """
    Decide for one result.

    :param stamp: acquisition time of the newest frame [ns], never older than the last one. Before
        there is one there is nothing to decide.
    :param probability: P(accomplished), or None where there is none.
    :param modes: probability of having failed in each mode; may be empty.
    :returns: the state for the next call, and the decision. While a status bit other than
        VIEW_MISSING is set the decision is ABSTAIN and dwell times start again; a latched
        decision comes back once the bits are gone.
    """
    start = stamp if state.start is None else state.start
    if status & ~Status.VIEW_MISSING or probability is None or rules.threshold is None:
        return replace(state, start=start, above_since=None, failing=()), Decision.ABSTAIN
    if state.latched is not None:
        return state, state.latched

    if state.newest is not None and stamp - state.newest > rules.max_gap:
        state = replace(state, above_since=None, failing=())
    above = probability > rules.threshold
    above_since = (stamp if state.above_since is None else state.above_since) if above else None
    failing = _failing(state, rules, stamp, modes)
    latched = None
    if above_since is not None and stamp - above_since >= rules.dwell:
        latched = Decision.SUCCESS
    elif any(since is not None and stamp - since >= rules.failure_dwell for since in failing):
        latched = Decision.FAILURE
    elif rules.time_out and stamp - start >= rules.time_out:
        latched = Decision.FAILURE
    after = DecisionState(start, above_since, failing, latched, stamp)
    return after, Decision.RUNNING if latched is None else latched


def _failing(
    state: DecisionState, rules: DecisionRules, stamp: int, modes: Sequence[float],
) -> tuple[int | None, ...]:
    """Tell of each failure mode since when it is above its threshold."""
    if rules.failure_threshold is None:
        return ()
    before = state.failing if len(state.failing) == len(modes) else (None,) * len(modes)
    return tuple(
        None if value <= rules.failure_threshold else stamp if since is None else since
        for value, since in zip(modes, before, strict=True))
