# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Demonstrations for a policy: an expert whose hand trembles, and what it meant to do.

What is done is the expert's command plus noise, so that the arm strays; what is written down as
the action is the command without it, so that a policy learns the way back.
"""

from collections.abc import Sequence
from dataclasses import asdict
import json
import os
from pathlib import Path
from typing import Any

from hralign_ros.data.channels import Channels, write_channels
from hralign_ros.data.manifest import DataError, Episode, write_manifest
from hralign_ros.runtime.report import Progress, Report
from hralign_ros.runtime.video import RecordingWriter
from hralign_ros.simulation.arm import ACTIONS, ArmWorld, HZ, STATE
from hralign_ros.simulation.behaviour import EXPERT
from hralign_ros.simulation.expert import Expert, FailingExpert, FAILURES
from hralign_ros.simulation.simulate import EPISODES, make_folders, VIDEOS
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of the noise: standard deviation of what is new in each step, metres, and how much of it stays.
_NOISE_M, _STAYS = 0.008, 0.7
# Recorded after the success, so that the last command before it is followed by others.
_AFTER_STEPS = 8
# An attempt that fails takes this part of the time that there is, from and to.
_PATIENCE = (0.45, 0.75)
# What the episodes are called.
_GOOD, _FAILING = 'demonstration', 'failure'


def simulate_demonstrations(
    output: Path, *, tasks: Sequence[str], arm: str = 'panda', lab: str = 'lab-1',
    episodes: int = 20, failing: int = 0, first_seed: int = 0, resume: bool = False,
    report: Report = print,
) -> Path:
    """
    Record demonstrations, or complete or extend what is there.

    A seed with which the expert does not succeed is left out, and the next one taken.

    :param tasks: of arm.LIMIT_S.
    :param arm: one of arm.ARMS.
    :param lab: see ArmWorld.
    :param episodes: for each task.
    :param failing: attempts beside them, for each task, that fail in one of expert.FAILURES.
    :param first_seed: seeds go up from there.
    :param resume: there may be demonstrations already; those that are missing are made.
    :returns: the manifest file.
    :raises DataError: unknown task, arm or lab, nothing to make, or there are episodes that are
        not to be completed.
    """
    if episodes < 1 or failing < 0 or first_seed < 0:
        raise DataError(f'{episodes} episodes and {failing} that fail, from seed {first_seed}: '
                        'needed are one or more, and numbers that are not negative')
    output = Path(output)
    make_folders(output, resume=resume)
    for task in tasks:
        world = ArmWorld(task, arm, lab)
        try:
            for count, kind in ((episodes, _GOOD), (failing, _FAILING)):
                _complete(output, world, lab, count, first_seed, kind, report)
        finally:
            world.close()
    rows = [Episode(**row) for row in map(_read, sorted((output / EPISODES).glob('*.json')))
            if 'left_out' not in row]
    write_channels(output, Channels(STATE, ACTIONS))
    return write_manifest(output, rows)


def _complete(
    output: Path, world: ArmWorld, lab: str, episodes: int, first_seed: int, kind: str,
    report: Report,
) -> None:
    """Make what is missing of a task's demonstrations, or of those that fail."""
    done, progress = 0, Progress(episodes, f'{kind}s of {world.task.task_id}', report)
    for seed in range(first_seed, first_seed + 2 * episodes):
        if done == episodes:
            return
        name = f'{world.task.task_id}_{world.embodiment}_{lab}_{seed:05d}_{kind}'
        path = output / EPISODES / f'{name}.json'
        row = _read(path) if path.exists() else _record(
            output, world, lab, seed, name, kind == _FAILING)
        if not path.exists():
            scratch = path.with_name(f'.{name}.{os.getpid()}.tmp')
            scratch.write_text(json.dumps(row), encoding='utf-8')
            scratch.replace(path)
        if 'left_out' not in row:
            done += 1
            progress.step()
    if done < episodes:
        raise DataError(f'{output}: {2 * episodes} seeds gave {done} {kind}s of '
                        f'{world.task.task_id}; {episodes} were asked for')


def _read(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
    return row


def _record(
    output: Path, world: ArmWorld, lab: str, seed: int, name: str, failing: bool,
) -> dict[str, Any]:
    """Record one attempt with the videos of both cameras, without loss."""
    files = {view: f'{VIDEOS}/{world.task.task_id}/{name}_{view}.mp4'
             for view in ('third_person', 'wrist')}
    rng = np.random.default_rng([seed, 17 if failing else 13])
    world.reset(seed)
    fault, limit_s = FAILURES[seed % len(FAILURES)] if failing else '', world.limit_s
    expert: Expert | FailingExpert = Expert(world, rng)
    if failing:
        expert = FailingExpert(world, rng, fault)
        limit_s *= rng.uniform(*_PATIENCE)
    noise, left = np.zeros(3), _AFTER_STEPS
    times: list[float] = []
    states, actions, flags, images = [], [], [], []
    while world.time_s < limit_s and left:
        times.append(round(world.time_s, 6))
        states.append(world.state())
        flags.append(world.accomplished)
        images.append(world.images())
        meant = expert.action()
        actions.append(meant)
        noise = _STAYS * noise + rng.normal(0.0, _NOISE_M, 3)
        world.act(meant + np.append(0.0 * noise if expert.steady else noise, 0.0))
        left -= world.accomplished
    if left != (_AFTER_STEPS if failing else 0):
        return {'left_out': 'it did not end as it was to with this seed'}
    for view, file in files.items():
        with RecordingWriter(output / file) as video:
            for time_s, image in zip(times, images, strict=True):
                video.add(image[view], time_s)
    return asdict(Episode(
        episode_id=name, task_id=world.task.task_id, task_text=world.task.text, scene=lab,
        camera=lab, embodiment=world.embodiment, source=world.source,
        license_id=world.license_id, seed=seed, success=not failing, failure=fault,
        robot_videos=files, time_s=times, success_flags=flags,
        actions=[[float(x) for x in action] for action in actions],
        proprio=[[float(x) for x in state] for state in states],
        tags=[f'behaviour:{fault or EXPERT}', f'hz:{HZ}']))
