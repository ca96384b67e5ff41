# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Ways to do a task: well, in one of six ways that mostly fail, or not at all.

What an episode is labelled as is the simulator's own success flag; the way it was done is kept
beside it, as some attempts succeed all the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXPERT = 'expert'
# Misses the object altogether; passes it by a few centimetres; stops half-way; trembles; never
# closes the gripper (or presses with nothing); opens it on the way.
FAULTS = ('wrong_place', 'near_miss', 'stops_early', 'noise', 'no_grasp', 'drops')
# The robot stands where it starts.
IDLE = 'idle'
# Commands of the gripper.
OPEN, CLOSED = -1.0, 1.0


@dataclass(frozen=True)
class Behaviour:
    """
    How one episode is done.

    :param kind: EXPERT, IDLE or one of FAULTS.
    :param offset: [3] metres by which the object seems to be elsewhere.
    :param start: part of the expert's own time at which the fault begins, 0 to 1.
    :param noise: standard deviation added to every command.
    """

    kind: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start: float = 0.0
    noise: float = 0.0


def make_behaviour(kind: str, rng: np.random.Generator) -> Behaviour:
    """Draw the details of a way to do a task."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    aside = np.array([np.cos(angle), np.sin(angle)])
    if kind == 'wrong_place':
        x, y = aside * rng.uniform(0.09, 0.16)
        return Behaviour(kind, (float(x), float(y), float(rng.uniform(0.0, 0.06))))
    if kind == 'near_miss':
        x, y = aside * rng.uniform(0.035, 0.06)
        return Behaviour(kind, (float(x), float(y), float(rng.uniform(0.0, 0.02))))
    if kind == 'stops_early':
        return Behaviour(kind, start=float(rng.uniform(0.35, 0.8)))
    if kind == 'noise':
        return Behaviour(kind, noise=float(rng.uniform(1.2, 2.5)))
    if kind == 'drops':
        return Behaviour(kind, start=float(rng.uniform(0.5, 0.85)))
    if kind not in (EXPERT, IDLE, *FAULTS):
        raise ValueError(f"behaviour '{kind}'; allowed: {', '.join((EXPERT, IDLE, *FAULTS))}")
    # A person's and a robot's good attempts are never quite the same.
    return Behaviour(kind, noise=0.08 if kind == EXPERT else 0.0)
