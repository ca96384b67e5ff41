# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Which episodes are made: a pure function of the split file and the number of rounds.

Every round holds a little of everything, so that a data set that was cut short is a smaller one
of the same kind, and one with more rounds contains the one with fewer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from hralign_ros.data.splits import Splits
from hralign_ros.simulation.appearance import PERTURBATIONS
from hralign_ros.simulation.behaviour import EXPERT, IDLE

# Seeds of failures are apart from those of successes, with the same meaning modulo 10.
_FAULT_SEEDS = 5000
_FINE_HZ = 5.0
PURPOSES = ('adaptation', 'success')
# Never-ending trouble in which nothing succeeds: in the video, or because the robot stands still.
STREAMS = (IDLE, *PERTURBATIONS)


@dataclass(frozen=True)
class Job:
    """
    One episode to make.

    :param fault: number of the fault among those that the task has; None for an expert.
    :param stream: one of STREAMS, or nothing.
    :param human: whether a success is also recorded with a human hand.
    :param wanted: in a lab, how it shall end; `fault` says nothing then.
    """

    scene: str
    seed: int
    fault: int | None
    stream: str = ''
    human: bool = True
    wanted: bool | None = None

    @property
    def kind(self) -> str:
        """Return a word for the episode's name."""
        if self.stream:
            return self.stream
        if self.wanted is not None:
            return 'success' if self.wanted else 'failure'
        return EXPERT if self.fault is None else f'fault{self.fault}'


@dataclass(frozen=True)
class Chunk:
    """
    Episodes that one worker makes in one go, with the simulator opened once.

    :param hz: recorded at this rate, see World.run.
    :param avoid: names of things that are not on the table.
    """

    simulator: str
    task_id: str
    embodiment: str
    round_number: int
    jobs: tuple[Job, ...]
    hz: float = 0.0
    avoid: tuple[str, ...] = ()


def plan_chunks(
    worlds: list[tuple[str, str, str]], splits: Splits, rounds: int, *, failures: bool = True,
    purpose: str = 'adaptation', hz: float | None = None, humans: bool = True,
) -> Iterator[Chunk]:
    """
    List all chunks, round by round.

    :param worlds: simulator, task and embodiment.
    :param failures: False: experts only, which is what adaptation needs; a later run with
        failures adds them.
    :param purpose: adaptation: mostly successes, each recorded with robot and human. success:
        mostly failures, recorded finely, of the robot; humans for training only.
    :param hz: frames a second; None: 5 for success, see World.run for adaptation.
    :param humans: False: robots only, of the same episodes.
    """
    if hz is None:
        hz = _FINE_HZ if purpose == 'success' else 0.0
    list_jobs = _success_jobs if purpose == 'success' else _jobs
    for number in range(rounds):
        for simulator, task, embodiment in worlds:
            # Robosuite takes three times as long: every second round.
            if simulator == 'robosuite' and number % 2:
                continue
            jobs = (replace(job, human=job.human and humans)
                    for job in list_jobs(task, embodiment, splits, number)
                    if failures or job.kind == EXPERT)
            yield Chunk(simulator, task, embodiment, number, tuple(jobs), hz)


# Attempts for which the simulator is opened once.
_LAB_JOBS = 20


def plan_lab(
    tasks: tuple[str, ...], arm: str, lab: str, *, successes: int, failures: int, first_seed: int,
    hz: float = _FINE_HZ,
) -> list[Chunk]:
    """
    List the attempts of a lab, so that one that is cut short has all tasks and both kinds alike.

    :param lab: name of the scene.
    :param successes: for each task; their seeds are first_seed and those that follow.
    :param failures: likewise.
    """
    order = [Job(lab, first_seed + i, None, human=False, wanted=wanted)
             for i in range(max(successes, failures))
             for wanted, count in ((True, successes), (False, failures)) if i < count]
    return [Chunk('lab', task, arm, number, tuple(order[start:start + _LAB_JOBS]), hz)
            for number, start in enumerate(range(0, len(order), _LAB_JOBS)) for task in tasks]


def _scene(task: str, embodiment: str, splits: Splits, kind: str, which: int) -> str:
    start = crc32(f'{task} {embodiment} {kind}'.encode())
    return f'{kind}-{(start + which) % splits.scenes[kind]:03d}'


# Training episodes of a round that have a scene of their own.
_LOOKS = 18


def _success_jobs(task: str, embodiment: str, splits: Splits, number: int) -> Iterator[Job]:
    def some(
        kind: str, which: int, base: int, experts: int, faults: int, *, human: bool = False,
    ) -> Iterator[Job]:
        """List successes and failures in one scene, all seeds with the same last digit."""
        place = _scene(task, embodiment, splits, kind, which)
        first = base + 1000 * number
        for i in range(experts):
            yield Job(place, first + 10 * i, None, human=human)
        for i in range(faults):
            yield Job(place, first + 500 + 10 * i, faults * number + i, human=human)

    # Apart from the seeds of adaptation, which are below 10,000.
    train, calibration, test = 20000, 20008, 20009
    if task in splits.test_tasks:
        yield from some('test', number, train, 2, 3)
        return
    if task in splits.validation_tasks:
        yield from some('validation', number, train, 1, 2)
        return
    yield from some('train', 5 * number, train, 3, 6, human=True)
    # Those differ only in how they go. Beside them as many appearances as possible: a head that
    # has seen few of them takes the appearance for the task.
    for i in range(_LOOKS):
        place = _scene(task, embodiment, splits, 'train', 50 + _LOOKS * number + i)
        seed = 60000 + 1000 * number + 10 * i
        fault = None if i % 3 == 0 else _LOOKS * 2 // 3 * number + i - i // 3 - 1
        yield Job(place, seed, fault)
    # Thresholds are guaranteed for scenes like those trained in: two each for calibration and
    # test.
    yield from some('train', 5 * number + 1, calibration, 1, 3)
    yield from some('train', 5 * number + 2, calibration + 200, 0, 2)
    yield from some('train', 5 * number + 3, test, 1, 5)
    yield from some('train', 5 * number + 4, test + 200, 0, 4)
    stream = STREAMS[(number + crc32(task.encode())) % len(STREAMS)]
    yield Job(_scene(task, embodiment, splits, 'train', 5 * number + 4),
              test + 1000 * number + 400, number, stream, human=False)
    for i, kind in enumerate(('view', 'distractor')):
        if (number + i) % 2 == 0:
            yield from some(kind, number, 40000 + 200 * i, 2, 2)


def _jobs(task: str, embodiment: str, splits: Splits, number: int) -> Iterator[Job]:
    def scene(kind: str, which: int) -> str:
        return _scene(task, embodiment, splits, kind, which)

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
