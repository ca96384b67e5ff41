# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Attempts of policies: one line of rollouts.jsonl for each that is finished.

A process that is killed may leave a line that is cut off; it counts as not there.
"""

from dataclasses import asdict, dataclass
import json
from pathlib import Path

from hralign_ros.data.manifest import DataError

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
    path = folder / FILE_NAME
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding='utf-8').split('\n')[:-1], 1):
        try:
            found.append(Rollout(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f'{path}: line {number} is no attempt of a policy ({error}); delete '
                            'it, and the attempt is made again') from error
    return found


def add_rollout(folder: Path, rollout: Rollout) -> None:
    """Add an attempt; a last line that is cut off is taken away first."""
    line = (json.dumps(asdict(rollout)) + '\n').encode()
    with open(folder / FILE_NAME, 'ab+') as file:
        end = file.seek(0, 2)
        file.seek(0)
        text = file.read(end)
        file.truncate(text.rfind(b'\n') + 1)
        file.write(line)
