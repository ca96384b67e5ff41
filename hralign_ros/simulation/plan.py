# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Which episodes are made: a pure function of the split file and the number of rounds.

Every round holds a little of everything, so that a data set that was cut short is a smaller one
of the same kind, and one with more rounds contains the one with fewer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from hralign_ros.data.splits import Splits
from hralign_ros.simulation.behaviour import EXPERT

# Seeds of failures are apart from those of successes, with the same meaning modulo 10.
_FAULT_SEEDS = 5000


@dataclass(frozen=True)
class Job:
    """
    One episode to make.

    :param fault: number of the fault among those that the task has; None for an expert.
    """

    scene: str
    seed: int
    fault: int | None

    @property
    def kind(self) -> str:
        """Return a word for the episode's name."""
        return EXPERT if self.fault is None else f'fault{self.fault}'


@dataclass(frozen=True)
class Chunk:
    """Episodes that one worker makes in one go, with the simulator opened once."""

    simulator: str
    task_id: str
    embodiment: str
    round_number: int
    jobs: tuple[Job, ...]


def plan_chunks(
    worlds: list[tuple[str, str, str]], splits: Splits, rounds: int, *, failures: bool = True,
) -> Iterator[Chunk]:
    """
    List all chunks, round by round.

    :param worlds: simulator, task and embodiment.
    :param failures: False: experts only, which is what adaptation needs; a later run with
        failures adds them.
    """
    for number in range(rounds):
        for simulator, task, embodiment in worlds:
            # Robosuite takes three times as long: every second round.
            if simulator == 'robosuite' and number % 2:
                continue
            jobs = (job for job in _jobs(task, embodiment, splits, number)
                    if failures or job.fault is None)
            yield Chunk(simulator, task, embodiment, number, tuple(jobs))


def _jobs(task: str, embodiment: str, splits: Splits, number: int) -> Iterator[Job]:
    def scene(kind: str, which: int) -> str:
        start = crc32(f'{task} {embodiment} {kind}'.encode())
        return f'{kind}-{(start + which) % splits.scenes[kind]:03d}'

    if task in splits.test_tasks or embodiment in splits.test_embodiments:
        few = embodiment in splits.test_embodiments
        places = [scene('test', number), scene('view', number)]
        for j, place in enumerate(places):
            yield from (Job(place, 10 * number + 4 * j + i, None) for i in range(2 if few else 3))
            yield Job(place, _FAULT_SEEDS + 10 * number + 4 * j, 2 * number + j)
        return
    if task in splits.validation_tasks:
        place = scene('validation', number)
        yield from (Job(place, 10 * number + i, None) for i in range(4))
        yield from (Job(place, _FAULT_SEEDS + 10 * number + i, 2 * number + i) for i in range(2))
        return
    # Seeds ending in 0 to 7 train, four to a scene, so that a scene has pairs of different
    # motions; those ending in 8 and 9 calibrate and test, in scenes that change every other round.
    first, second = scene('train', 3 * number), scene('train', 3 * number + 1)
    apart = scene('train', 3 * (number // 2) + 2)
    for digit in range(10):
        place = first if digit < 4 else second if digit < 8 else apart
        yield Job(place, 10 * number + digit, None)
    for i, digit in enumerate((0, 5, 7, 8, 9)):
        place = first if digit < 4 else second if digit < 8 else apart
        yield Job(place, _FAULT_SEEDS + 10 * number + digit, 5 * number + i)
    if number % 3 == 0:
        for kind in ('view', 'distractor'):
            place = scene(kind, number)
            yield from (Job(place, 2000 + 10 * number + i, None) for i in range(2))
            yield Job(place, _FAULT_SEEDS + 2000 + 10 * number, number)
