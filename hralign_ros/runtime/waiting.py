# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Waiting for the decision of one episode: when the wait is over, and what to say then."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from hralign_ros.runtime.decision import Decision, DecisionRules, Status
from hralign_ros.runtime.tasks import same_rate
from hralign_ros.runtime.text import TaskFeatures


class Outcome(IntEnum):
    """What a wait ends with, as in hralign_msgs/WaitForSuccess; a test keeps the two in step."""

    SUCCESS = 1
    FAILURE = 2
    TIMED_OUT = 3
    CANNOT_TELL = 4


@dataclass(frozen=True)
class Ending:
    """Why a wait is over, and a sentence for a person."""

    outcome: Outcome
    message: str


# What each bit says while it keeps a decision away.
_REASONS = {
    Status.UNCALIBRATED: 'the bundle has no calibration that fits this task with these views',
    Status.NO_TASK: 'no instruction is set',
    Status.UNKNOWN_TASK: 'the bundle does not know this task',
    Status.OUT_OF_DISTRIBUTION: 'the images are unlike those that the bundle was made with',
    Status.STALE_VIEW: 'no required camera is fresh, or the model gives no result',
}


class Wait:
    """
    One wait for the decision of an episode.

    :param episode_id: of the episode that is watched.
    :param time_out: over after so long on the clock of the stamps [ns]; 0: never.
    :param now: time of that clock at the beginning [ns].
    :param elapsed: monotonic time at the beginning [ns].
    :ivar ending: None while it is not over; once there it does not change.
    """

    def __init__(self, episode_id: int, *, time_out: int, now: int, elapsed: int) -> None:
        self.episode_id = episode_id
        self.ending: Ending | None = None
        self._time_out = time_out
        self._began = now
        # Since when nothing could be decided, by monotonic time; None: something can be.
        self._blind_since: int | None = elapsed
        self._status: Status | None = None

    def result(self, status: Status, decision: Decision, elapsed: int) -> bool:
        """
        Take a result of the episode.

        :param elapsed: monotonic time [ns].
        :returns: whether it ends the wait.
        """
        self._status = status
        if decision == Decision.ABSTAIN:
            if self._blind_since is None:
                self._blind_since = elapsed
            return False
        self._blind_since = None
        if decision == Decision.SUCCESS:
            return self.end(Outcome.SUCCESS, 'the task is accomplished')
        if decision == Decision.FAILURE:
            return self.end(Outcome.FAILURE, 'the attempt has failed')
        return False

    def check(self, now: int, elapsed: int, patience: int) -> bool:
        """
        Look at the clocks; to be called a few times a second.

        :param patience: how long nothing may be decided, in monotonic time [ns].
        :returns: whether that ends the wait.
        """
        # Simulated time is 0 until somebody publishes /clock.
        self._began = self._began or now
        if self._time_out and now - self._began >= self._time_out:
            return self.end(Outcome.TIMED_OUT, (
                f'nothing was decided in {self._time_out * 1e-9:g} s; the episode goes on'))
        if self._blind_since is not None and elapsed - self._blind_since >= patience:
            return self.end(Outcome.CANNOT_TELL, (
                f'for {patience * 1e-9:g} s no result could be decided on: {self._why_blind()}. '
                '/diagnostics says what is wrong'))
        return False

    def end(self, outcome: Outcome, message: str) -> bool:
        """
        End the wait, unless it is over.

        :returns: whether this has ended it.
        """
        if self.ending is not None:
            return False
        self.ending = Ending(outcome, message)
        return True

    def since(self, now: int) -> float:
        """Tell for how long it has lasted on the clock of the stamps [s]; never negative."""
        return max(now - self._began, 0) * 1e-9

    def _why_blind(self) -> str:
        """Say what keeps decisions away, by the last result."""
        if self._status is None:
            return 'none came'
        reasons = [text for bit, text in _REASONS.items() if self._status & bit]
        return '; '.join(reasons) or 'no threshold is calibrated for these views'


def refusal(
    features: TaskFeatures, views: Sequence[str], rules: DecisionRules, alpha: float,
) -> str:
    """
    Say why nobody should wait for a decision: there will be none, or none at this rate.

    :param features: the instruction.
    :param views: of the bundle.
    :param rules: that the episode is decided by, or will be.
    :param alpha: the false-alarm rate that is asked for; 0: that of the rules.
    :returns: '' where a decision can be waited for.
    """
    task = features.task
    if not features.text:
        return 'no instruction is set, and without one nothing is decided; give one'
    if not features.known and not rules.allow_unknown_tasks:
        return (f"the bundle does not know '{features.text}', so nothing is decided; say it by a "
                'name or alias of a task (~/info lists them), or teach it '
                '(docs/start/your_robot.md)')
    whole = task.calibration(views)
    # Where some views suffice and all of them do not, waiting may still be of use.
    rates = whole.rates if whole and whole.rates else sorted(
        {rate for one in task.calibrations for rate in one.rates})
    if not rates:
        return f'nothing is decided for the task {task.task_id}. {task.verdict(views)}'
    allowed = ', '.join(f'{rate:.3g}' for rate in rates)
    if alpha and not any(same_rate(rate, alpha) for rate in rates):
        return (f'alpha is {alpha:g}; the task {task.task_id} has thresholds for {allowed}; 0 '
                'takes that of the node')
    if not alpha and rules.alpha is not None \
            and not any(same_rate(rate, rules.alpha) for rate in rates):
        return (f"the node's alpha is {rules.alpha:g}; the task {task.task_id} has thresholds for "
                f'{allowed}; give one of these')
    return ''
