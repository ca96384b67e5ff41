# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
An expert that says in every state what to do next: its answers are the labels of demonstrations.

It knows where the thing is, and follows no schedule, so that what it says depends on what a
policy can see, and it finds its way back from wherever noise has taken the arm.
"""

from collections.abc import Sequence

from hralign_ros.simulation.arm import ArmWorld
from hralign_ros.simulation.behaviour import CLOSED, OPEN
from hralign_ros.simulation.robosuite_tasks import GRASP_ABOVE
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# The tool is led down a funnel: so far above for each metre aside.
_SLOPE, _ABOVE_M = 2.5, 0.10
# As near as this is there, metres.
_NEAR_M = 0.012
_STEP_M, _PLACE_M = 0.045, 0.025
# Fingers that moved less than this since the last step hold something, or are closed, metres.
_STILL_M = 0.0015
_LIFT_M, _CARRY_M = 0.15, 0.13
# How an attempt fails: beside the thing, never closed, let go on the way, stopped before it.
FAILURES = ('near_miss', 'no_grasp', 'drops', 'stops_early')
# By how much it misses, metres; after how many steps it stops, or lets go of what it carries.
_MISSES_M, _STOPS, _DROPS = (0.05, 0.09), (4, 13), (2, 14)


class Expert:
    """
    One attempt of the expert.

    :param rng: of its pace.
    :param aside: [3] metres by which the thing seems to it to be elsewhere than it is.
    """

    def __init__(
        self, world: ArmWorld, rng: np.random.Generator, aside: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        self._world, self._aside = world, np.array(aside)
        self._step = _STEP_M * rng.uniform(0.85, 1.15)
        self._above = GRASP_ABOVE.get(world.task.environment, 0.0)
        self._phase = self._approach
        self._width = 0.0
        self._rest = float(world.state()[6])
        self._places = world.task.environment.startswith('PickPlace')

    @property
    def steady(self) -> bool:
        """Tell whether the hand is to be still: fingers are at work."""
        return self._phase in (self._close, self._open)

    @property
    def carries(self) -> bool:
        """Tell whether it means to hold the thing."""
        return self._phase == self._carry

    def action(self) -> Floats:
        """Say what to do now, float64 [4], see arm.ACTIONS."""
        state = self._world.state()
        target, gripper = self._phase(state[:3], state[3], state[4:] + self._aside)
        self._width = state[3]
        way = target - state[:3]
        length = float(np.linalg.norm(way))
        return np.array([*(way * min(1.0, self._step / max(length, 1e-9))), gripper])

    def _approach(self, tool: Floats, width: float, thing: Floats) -> tuple[Floats, float]:
        grasp = thing + (0.0, 0.0, self._above)
        if np.linalg.norm(tool - grasp) < _NEAR_M:
            self._phase = self._close
            self._width = width + 1.0
            return self._close(tool, width, thing)
        return _down_to(grasp, tool), OPEN

    def _close(self, tool: Floats, width: float, thing: Floats) -> tuple[Floats, float]:
        if 0.0 <= self._width - width < _STILL_M:
            self._phase = self._carry
        return tool, CLOSED

    def _carry(self, tool: Floats, width: float, thing: Floats) -> tuple[Floats, float]:
        if np.linalg.norm(tool - thing) > 0.06:  # it slipped
            self._phase = self._approach
            return self._approach(tool, width, thing)
        if not self._places:
            return np.array([tool[0], tool[1], self._rest + _LIFT_M]), CLOSED
        placed = self._bin()
        aside = float(np.linalg.norm(tool[:2] - placed[:2]))
        if np.linalg.norm(tool - placed) < _PLACE_M:
            self._phase = self._open
            return self._open(tool, width, thing)
        if aside > 0.05 and tool[2] < placed[2] + _CARRY_M - 0.03:
            return np.array([tool[0], tool[1], placed[2] + _CARRY_M]), CLOSED
        return _down_to(placed, tool, _CARRY_M), CLOSED

    def _open(self, tool: Floats, width: float, thing: Floats) -> tuple[Floats, float]:
        if 0.0 <= width - self._width < _STILL_M and width > 0.05:
            self._phase = self._leave
        return tool, OPEN

    def _leave(self, tool: Floats, width: float, thing: Floats) -> tuple[Floats, float]:
        return np.array([tool[0], tool[1], self._rest + 0.15]), OPEN

    def _bin(self) -> Floats:
        """Return where the hand lets go, as an attempt in a lab does without its spread."""
        environment = self._world._environment
        goal = np.array(environment.target_bin_placements[environment.object_id])
        return np.array([goal[0] - 0.04, goal[1] - 0.02, self._rest + self._above + 0.02])


def _down_to(place: Floats, tool: Floats, above: float = _ABOVE_M) -> Floats:
    """Return where to go next on the way down to a place, above it as far as it is aside."""
    aside = float(np.linalg.norm(tool[:2] - place[:2]))
    return place + (0.0, 0.0, min(above, _SLOPE * max(0.0, aside - _NEAR_M)))


class FailingExpert:
    """
    An attempt that fails in one of FAILURES, by an expert that does not notice.

    :param kind: of FAILURES.
    :param rng: of its pace, and of when and by how much it goes wrong.
    :ivar steady: see Expert.
    """

    def __init__(self, world: ArmWorld, rng: np.random.Generator, kind: str) -> None:
        self._kind, self._steps, self._carried = kind, 0, 0
        turn, far = rng.uniform(0.0, 2 * np.pi), rng.uniform(*_MISSES_M)
        self._expert = Expert(world, rng, (far * np.cos(turn), far * np.sin(turn), 0.0)
                              if kind == 'near_miss' else (0.0, 0.0, 0.0))
        self._stops_at = int(rng.integers(*_STOPS))
        # The way up is short where lifting is all.
        self._drops_at = 1 if not self._expert._places else int(rng.integers(*_DROPS))

    @property
    def steady(self) -> bool:
        """Tell whether the hand is to be still: fingers are at work, or it has stopped."""
        return self._expert.steady or self._stopped

    @property
    def _stopped(self) -> bool:
        return self._kind == 'stops_early' and self._steps > self._stops_at

    def action(self) -> Floats:
        """Say what it does now, float64 [4], see arm.ACTIONS."""
        action = self._expert.action()
        self._steps += 1
        self._carried += self._expert.carries
        if self._stopped:
            return np.array([0.0, 0.0, 0.0, action[3]])
        if self._kind == 'no_grasp':
            return np.array([*action[:3], OPEN])
        if self._kind == 'drops' and self._carried > self._drops_at:
            return np.array([0.0, 0.0, _STEP_M, OPEN])
        return action
