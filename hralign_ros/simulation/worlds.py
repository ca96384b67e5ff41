# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What both simulators give: a stage to video, and trajectories of one task."""

from dataclasses import dataclass
from typing import Any, Protocol

from hralign_ros.simulation.behaviour import Behaviour
from hralign_ros.simulation.hand import Grip
from hralign_ros.simulation.renderer import Shot, Stage
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """
    A task of a simulator.

    :param task_id: as the split file and the manifest name it.
    :param environment: its name in the simulator.
    :param text: the instruction.
    """

    task_id: str
    environment: str
    text: str


@dataclass(frozen=True)
class Trajectory:
    """
    One episode before it is recorded; all lists have one entry for each frame.

    :param success_frame: first frame in which the task is accomplished; None: never.
    :param fault_s: when a fault began to act; None for an expert.
    """

    shots: tuple[Shot, ...]
    time_s: tuple[float, ...]
    success: tuple[bool, ...]
    actions: tuple[Floats, ...]
    proprio: tuple[Floats, ...]
    fault_s: float | None

    @property
    def success_frame(self) -> int | None:
        """Return the first frame with the flag set."""
        return self.success.index(True) if True in self.success else None

    def progress(self) -> list[float]:
        """Return the part of the way to success by time; nothing where there was none."""
        first = self.success_frame
        if first is None:
            return []
        end = max(self.time_s[first], 1e-6)
        return [min(t / end, 1.0) for t in self.time_s]


class World(Protocol):
    """One task in one simulator, with one robot."""

    task: Task
    embodiment: str
    source: str
    license_id: str

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the faults that make a difference to this task."""

    @property
    def stage(self) -> Stage:
        """Return what the renderer needs."""

    @property
    def model(self) -> Any:
        """Return the model as the last run left it."""

    def run(
        self, seed: int, behaviour: Behaviour, *, hz: float = 0.0,
    ) -> Trajectory | None:
        """
        Run one episode; None where even the expert never succeeds with this seed.

        :param hz: keep frames at this rate or more, see resampled_at, however many; 0: at about
            3 Hz, and fewer where an episode is long.
        """

    def close(self) -> None:
        """Free the simulator."""


def resampled_at(trajectory: Trajectory, hz: float) -> Trajectory:
    """
    Keep as many frames as this rate needs; between steps that are further apart, draw them in.

    What is drawn in lies on the straight way from one step to the next, and is accomplished where
    both are. Steps are divided evenly: what is over the rate may be up to its double.
    """
    period = trajectory.time_s[1] - trajectory.time_s[0]
    stride = int(1.0 / (hz * period) + 1e-6)
    if stride:
        return every(trajectory, slice(0, None, stride))
    parts = int(np.ceil(hz * period - 1e-6))
    last = len(trajectory.shots) - 1
    rows = [(i // parts, i % parts / parts) for i in range(last * parts + 1)]
    shots, time_s = trajectory.shots, trajectory.time_s
    return Trajectory(
        tuple(shots[i] if part == 0.0 else _between(shots[i], shots[i + 1], part)
              for i, part in rows),
        tuple(time_s[i] + part * period for i, part in rows),
        tuple(trajectory.success[i] and (part == 0.0 or trajectory.success[i + 1])
              for i, part in rows),
        tuple(trajectory.actions[i] for i, _ in rows),
        tuple(trajectory.proprio[i] for i, _ in rows), trajectory.fault_s)


def every(trajectory: Trajectory, part: slice) -> Trajectory:
    """Keep a part of the frames."""
    return Trajectory(
        trajectory.shots[part], trajectory.time_s[part], trajectory.success[part],
        trajectory.actions[part], trajectory.proprio[part], trajectory.fault_s)


def _between(one: Shot, other: Shot, part: float) -> Shot:
    """Go part of the way; MuJoCo brings quaternions back to length 1."""
    def mix(a: Floats, b: Floats) -> Floats:
        return (1.0 - part) * a + part * b

    return Shot(mix(one.qpos, other.qpos), Grip(
        mix(one.grip.position, other.grip.position), one.grip.approach,
        mix(one.grip.axis, other.grip.axis),
        (1.0 - part) * one.grip.width + part * other.grip.width))


def thin(count: int, limit: int, every: int) -> int:
    """Return the stride between frames kept: `every`, or more where that would be over `limit`."""
    return max(every, -(-count // limit))
