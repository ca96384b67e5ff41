#!/usr/bin/env python3
# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The node arm_sim with a point in place of an arm, so that it runs without the simulators.

The point goes half of its way in each step. The task is accomplished while it is 5 cm above where
it was put; where that is, the seed says. In lab-2 there is one second for it.
"""

from functools import partial
from pathlib import Path
import sys

from hralign_ros.nodes.arm_sim import ArmSim
from hralign_ros.nodes.process import run_node
from hralign_ros.runtime.errors import DataError
import numpy as np

STEP_S = 0.05
SIZE = (64, 48)


class _Task:
    text = 'lift the cube'


class _Camera:
    focal = 60.0
    position = np.array([1.0, 2.0, 3.0])
    rotation = np.eye(3)


class ArmWorld:
    """What simulation.arm.ArmWorld is to the node."""

    task = _Task()

    def __init__(self, task_id, embodiment='panda', lab='lab-1'):
        self.enter(lab)
        self._place = self._goal = np.zeros(3)
        self._steps, self._width, self._closing = 0, 0.08, False

    def close(self):
        """Nothing to free."""

    def enter(self, lab):
        """Take a lab."""
        if lab not in ('lab-1', 'lab-2'):
            raise DataError(f"lab '{lab}'; allowed: lab-1, lab-2")
        self.limit_s = 1.0 if lab == 'lab-2' else 1000.0

    def reset(self, seed):
        """Put the point where this seed has it."""
        self._place = np.random.default_rng(seed).uniform(0.0, 0.1, 3)
        self._goal, self._first, self._steps, self._width = self._place, self._place[2], 0, 0.08

    @property
    def time_s(self):
        """Seconds since the reset."""
        return self._steps * STEP_S

    @property
    def accomplished(self):
        """Tell whether the point is high enough."""
        return self._place[2] > self._first + 0.05

    def state(self):
        """Return tool, width, object."""
        return np.array([*self._place, self._width, 0.0, 0.0, 0.0])

    def tool_rotation(self):
        """Return a hand that points down."""
        return np.diag([1.0, -1.0, -1.0])

    def joints(self):
        """Return a joint."""
        return {'joint_1': (float(self._place[0]), 0.0)}

    def cameras(self):
        """Return both cameras."""
        return {'wrist': _Camera(), 'third_person': _Camera()}

    def images(self):
        """Return noise that is another in each step."""
        rng = np.random.default_rng(self._steps)
        return {view: rng.integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
                for view in ('wrist', 'third_person')}

    def move(self, way, gripper):
        """Go somewhere."""
        self._goal = self._place + way
        self.grip(gripper)

    def grip(self, gripper):
        """Close above 0."""
        self._closing = gripper > 0

    def step(self):
        """Go half of the way."""
        self._place = self._place + 0.5 * (self._goal - self._place)
        self._width = 0.0 if self._closing else 0.08
        self._steps += 1


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(run_node('arm_sim', partial(ArmSim, sys.modules[__name__])))
