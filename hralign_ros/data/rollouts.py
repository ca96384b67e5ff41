# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attempts of policies: one line of rollouts.jsonl for each that is finished."""

from dataclasses import asdict, dataclass
from pathlib import Path

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.json_lines import add_line, read_lines

FILE_NAME = 'rollouts.jsonl'


@dataclass(frozen=True)
class Rollout:
    """
    One attempt of a policy.

    :param policy: its name, that of its folder.
    :param policy_sha256: of its policy.yaml.
    :param seed: of the start.
    :param time_s: when the task was accomplished, or the attempt ended without.
    """

    policy: str
    policy_sha256: str
    task_id: str
    arm: str
    lab: str
    seed: int
    success: bool
    time_s: float

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """Tell which attempt it is, whatever came of it."""
        return self.policy_sha256, self.task_id, self.arm, self.lab, self.seed


def read_rollouts(folder: Path) -> list[Rollout]:
    """
    Read the attempts that are finished, in the order in which they were made.

    :raises DataError: a line is not a good one, but for a last one that is cut off.
    """
    path, found = folder / FILE_NAME, []
    for number, row in read_lines(path):
        try:
            found.append(Rollout(**row))
        except TypeError as error:
            raise DataError(f'{path}: line {number} is no attempt of a policy ({error}); delete '
                            'it, and the attempt is made again') from error
    return found


def add_rollout(folder: Path, rollout: Rollout) -> None:
    """Add an attempt; a last line that is cut off is taken away first."""
    add_line(folder / FILE_NAME, asdict(rollout))
