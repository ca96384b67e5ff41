# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""When a goal is accomplished: from where things are, what touches what and how joints stand."""

from typing import Protocol

from hralign_ros.simulation.tabletop_objects import Thing, things
from hralign_ros.simulation.tabletop_tasks import FIXED, Goal, NEXT, SIDES, WAYS
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

HAND, TABLE = 'hand', 'table'
LIFTED_M = 0.06
# A thing beside another one: their edges are no further apart than this, and for a side, so near
# to its direction.
NEXT_M, SIDE_M, SIDE_DEG = 0.04, 0.11, 38.0
PUSHED_M = 0.08
# Joints go from 0 to 1: what counts as there, of those that go up and of those that go down.
UP = {'drawer': 0.7, 'door': 0.6, 'chest': 0.6, 'button': 0.7, 'dial': 0.75, 'slider': 0.75}
DOWN = {'drawer': 0.15, 'door': 0.15, 'chest': 0.15, 'dial': 0.25, 'slider': 0.25}
# Slower than this is at rest, metres a second; once there it takes more to be undone.
_REST, _SLACK = 0.03, 0.01


class State(Protocol):
    """What the simulator knows now; names are those of things, HAND and TABLE."""

    def centre(self, name: str) -> Floats:
        """Return where the middle of a thing is, metres."""

    def start(self, name: str) -> Floats:
        """Return where it was at first."""

    def within(self, name: str, place: str) -> Floats:
        """Return where the middle of a thing is from the bottom of another one, as that lies."""

    def touch(self, one: str, other: str) -> bool:
        """Tell whether two touch."""

    def speed(self, name: str) -> float:
        """Return how fast a thing is, metres a second."""

    def joint(self, part: str) -> float:
        """Return how a part of the fixture stands, 0 to 1."""


def accomplished(goal: Goal, state: State, before: bool = False) -> bool:
    """
    Tell whether a goal is accomplished.

    :param before: it was; then it takes a little more to undo it.
    """
    if goal.family in FIXED:
        return _stands(goal, state.joint(goal.it), 0.05 * before)
    it, slack = things()[goal.it], _SLACK * before
    moved = state.centre(it.name) - state.start(it.name)
    if goal.family == 'lift':
        return bool(moved[2] > LIFTED_M - slack) and (before or state.touch(it.name, HAND))
    if goal.family == 'push':
        way = np.array(WAYS[goal.relation])
        along = float(moved[:2] @ way)
        there = along > PUSHED_M - slack and float(
            np.linalg.norm(moved[:2] - along * way)) < 0.5 * along and abs(float(moved[2])) < 0.015
        return there and (before or state.speed(it.name) < _REST)
    place = things()[goal.place]
    if goal.family == 'beside':
        there = _is_beside(goal.relation, it, place, state, slack)
    else:
        offset = state.within(it.name, place.name)
        there = is_over(place, offset[:2], slack) and (
            before or state.touch(it.name, place.name))
        if goal.family == 'into':
            there = there and bool(offset[2] < place.kind.height + 0.02 + slack)
        elif goal.family == 'insert':
            there = there and bool(offset[2] < place.kind.height / 2 + slack)
        else:
            there = there and not state.touch(it.name, TABLE) and bool(
                offset[2] > place.kind.floor)
    if before or not there:
        return bool(there)
    return state.speed(it.name) < _REST and not state.touch(it.name, HAND)


def is_over(place: Thing, offset: Floats, slack: float = 0.0) -> bool:
    """Tell whether a point, from the middle of a place as that lies, is over what it holds."""
    inner = place.kind.inner
    if len(inner) == 1:
        return bool(np.linalg.norm(offset) < inner[0] + slack)
    return bool((np.abs(offset) < np.array(inner) + slack).all())


def _is_beside(relation: str, it: Thing, place: Thing, state: State, slack: float) -> bool:
    way = (state.centre(it.name) - state.centre(place.name))[:2]
    apart = float(np.linalg.norm(way))
    gap = apart - it.kind.radius - place.kind.radius
    if not state.touch(it.name, TABLE) or state.touch(it.name, place.name):
        return False
    if relation == NEXT:
        return gap < NEXT_M + slack
    aside = float(way @ np.array(SIDES[relation])) / max(apart, 1e-9)
    return gap < SIDE_M + slack and aside > np.cos(np.deg2rad(SIDE_DEG)) - slack


def _stands(goal: Goal, joint: float, slack: float) -> bool:
    if goal.relation in ('open', 'press', 'left', 'counterclockwise'):
        return joint > UP[goal.family] - slack
    return joint < DOWN[goal.family] + slack
