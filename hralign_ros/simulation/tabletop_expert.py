# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""An expert on the table: what the arm does for a goal, move by move."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hralign_ros.simulation.behaviour import CLOSED, OPEN
from hralign_ros.simulation.lab_conduct import CLUMSY, Conduct, FAR, GOOD, NEAR
from hralign_ros.simulation.tabletop_conduct import DRAG, LIFT, MOVES, PRESS, PUSH
from hralign_ros.simulation.tabletop_goals import NEXT_M, SIDE_M, State
from hralign_ros.simulation.tabletop_objects import Thing, things
from hralign_ros.simulation.tabletop_tasks import Goal, NEXT, SIDES, WAYS
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Above a thing, above where it is put, and above handles, metres.
_ABOVE_M, _OVER_M = 0.11, 0.12
# Fingers are so far from the middle when they are open, and go no lower than this.
_FINGERS_M, _LOWEST_M = 0.05, 0.011
# Where things are put: from the middle of the table.
_REACH = ((-0.20, 0.19), (-0.31, 0.31))


class Table(State, Protocol):
    """What the expert sees; positions in the world's frame, metres."""

    height: float
    rest: Floats

    def origin(self, name: str) -> Floats:
        """Return where the middle of a thing's bottom is."""

    def turned(self, name: str) -> float:
        """Return how a thing is turned, seen from above, degrees."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the loose things."""

    def path(self, part: str, relation: str) -> Floats:
        """Return where a handle goes, [n, 3], from where it is to where it is wanted."""

    def angles(self, part: str, relation: str) -> tuple[float, float]:
        """Return how its joint stands now, and how it is wanted."""

    def hand(self) -> Floats:
        """Return where the middle between the fingers is."""


@dataclass(frozen=True)
class Move:
    """
    Go along in so many seconds with this gripper command; named as in tabletop_conduct.

    :param path: [n, 3] positions, the last one is where it ends.
    :param axis_deg: how the fingers lie, seen from above.
    """

    name: str
    path: Floats
    seconds: float
    gripper: float
    axis_deg: float

    @property
    def target(self) -> Floats:
        """Return where it ends."""
        return np.asarray(self.path[-1])


class NoWay(Exception):
    """There is no room for what a goal asks for, as things lie."""


def script(
    table: Table, goal: Goal, conduct: Conduct, rng: np.random.Generator,
) -> Iterator[Move]:
    """
    List what the arm does; where things are is looked up when it is the next thing.

    :raises NoWay: as the first thing it does, if at all.
    """
    pace = rng.uniform(0.85, 1.15)
    moves = MOVES[goal.family]
    way = _press(table, goal, conduct, rng) if moves is PRESS else _drag(
        table, goal, conduct, rng) if moves is DRAG else _push(
        table, goal, conduct, rng) if moves is PUSH else _carry(table, goal, conduct, rng)
    first = next(way)
    yield Move('wait', table.rest[None], rng.uniform(0.2, 0.8), first.gripper, first.axis_deg)
    before = table.rest
    for move in _and(first, way):
        if conduct.kind == CLUMSY:
            yield from _clumsily(before, move, rng)
        yield Move(move.name, move.path, move.seconds * pace * rng.uniform(0.9, 1.1),
                   move.gripper, move.axis_deg)
        before = move.target


def _and(first: Move, others: Iterator[Move]) -> Iterator[Move]:
    yield first
    yield from others


def _to(name: str, target: Floats, seconds: float, gripper: float, axis: float) -> Move:
    return Move(name, np.asarray(target, np.float64)[None], seconds, gripper, axis)


def _clumsily(before: Floats, move: Move, rng: np.random.Generator) -> Iterator[Move]:
    """Hesitate before a move, or go too far first."""
    if rng.random() < 0.25:
        yield _to('hesitate', before, rng.uniform(0.2, 0.7), move.gripper, move.axis_deg)
    way = move.target - before
    length = float(np.linalg.norm(way))
    if move.name in ('above', 'carry') and length > 0.02 and rng.random() < 0.4:
        yield _to('too far', move.target + way / length * rng.uniform(0.015, 0.04),
                  move.seconds, move.gripper, move.axis_deg)


def _carry(
    table: Table, goal: Goal, conduct: Conduct, rng: np.random.Generator,
) -> Iterator[Move]:
    """Pick something up and, unless that was all, put it somewhere."""
    it, known = things()[goal.it], things()
    lifting = MOVES[goal.family] is LIFT
    spots = [(table.rest[:2], 0.0)] if lifting else list(
        spots_for(table, goal, conduct.place, rng))
    axes = axes_of(table, it)
    # Fingers that lie across the way from the place to the spot do not touch the place.
    across = 0.02 if goal.family == 'beside' and conduct.place == GOOD else 0.0
    choices = [(_clear(table, it, axis) + across * abs(np.sin(np.deg2rad(axis) - angle))
                + rng.uniform(0.0, 0.012), axis, spot)
               for axis in axes for spot, angle in spots
               if not across or _has_room(table, it, known[goal.place], spot, axis, angle)]
    if not choices:
        raise NoWay
    _, axis, spot = max(choices, key=lambda choice: choice[0])
    for again in range(3):
        grasp = grasp_of(table, it) + np.array(conduct.aside)
        if conduct.kind == CLUMSY:  # it looks closer after it missed
            grasp += rng.normal(0.0, 0.004 if again else 0.011, 3) * (1, 1, 0)
        yield _to('above', grasp + (0, 0, _ABOVE_M), 0.8 if again else 1.3, OPEN, axis)
        yield _to('down', grasp, 0.8, OPEN, axis)
        yield _to('close', grasp, 0.5, CLOSED, axis)
        if conduct.kind != CLUMSY or again == 2:
            break
        yield _to('try', grasp + (0, 0, 0.04), 0.5, CLOSED, axis)
        if np.linalg.norm(table.centre(it.name) - table.hand()) < 0.06 + it.kind.height / 2 \
                and table.centre(it.name)[2] > table.start(it.name)[2] + 0.015:
            break
        yield _to('let go', grasp + (0, 0, 0.06), 0.6, OPEN, axis)
    high = grasp + (0, 0, rng.uniform(0.12, 0.16) if lifting else _OVER_M)
    yield _to('lift', high, 1.2 if lifting else 0.9, CLOSED, axis)
    if lifting:
        yield _to('leave', high, 1.0, CLOSED, axis)
        return
    # As it hangs in the hand.
    held = table.hand() - table.origin(it.name)
    if np.linalg.norm(held) > 0.14:
        held = np.array([0.0, 0.0, it.kind.grip[0]])
    bottom = bottom_of(table, goal, it, conduct.place)
    placed = np.array([spot[0], spot[1], bottom]) + held
    if conduct.kind == CLUMSY:
        placed = placed + rng.normal(0.0, 0.006, 3) * (1, 1, 0)
    over = np.array([placed[0], placed[1], max(placed[2] + 0.08, high[2])])
    yield _to('carry', over, 1.4, CLOSED, axis)
    yield _to('place', placed, 0.9, CLOSED, axis)
    yield _to('open', placed, 0.4, OPEN, axis)
    yield _to('leave', over + (-0.03, 0, 0.03), 0.9, OPEN, axis)


def grasp_of(table: Table, it: Thing) -> Floats:
    """Return where the fingers close."""
    angle = np.deg2rad(table.turned(it.name))
    x = it.kind.grip[1]
    point = table.origin(it.name) + (x * np.cos(angle), x * np.sin(angle), it.kind.grip[0])
    point[2] = max(point[2], table.height + _LOWEST_M)
    return point


def axes_of(table: Table, it: Thing) -> list[float]:
    """List how the fingers may lie, degrees."""
    if not it.kind.axes:
        return [22.5 * i for i in range(8)]
    return [table.turned(it.name) + axis for axis in it.kind.axes]


def _clear(table: Table, it: Thing, axis: float) -> float:
    """Return how far open fingers stay off other things, at most 4 cm."""
    known, grasp = things(), grasp_of(table, it)
    way = np.array([np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))])
    rooms = [float(np.linalg.norm(grasp[:2] + side * _FINGERS_M * way - table.origin(name)[:2]))
             - known[name].kind.radius - 0.012
             for name in table.names() if name != it.name for side in (-1, 1)]
    return min([0.04, *rooms])


def spots_for(
    table: Table, goal: Goal, where: str, rng: np.random.Generator,
) -> Iterator[tuple[Floats, float]]:
    """
    List where a thing may be put, and the direction there from the place, radians.

    :param where: GOOD, NEAR (just outside of where it counts) or FAR.
    """
    known = things()
    it, place = known[goal.it], known[goal.place]
    at = table.origin(place.name)[:2]
    both = it.kind.radius + place.kind.radius
    for _ in range(60):
        angle = float(rng.uniform(-np.pi, np.pi))
        if goal.family == 'beside':
            side = SIDES.get(goal.relation, (np.cos(angle), np.sin(angle)))
            angle = float(np.arctan2(side[1], side[0]))
            gap = rng.uniform(0.014, 0.03 if goal.relation == NEXT else SIDE_M - 0.035)
            if where == GOOD and goal.relation != NEXT:
                angle += rng.uniform(-0.38, 0.38)
            elif where == NEAR and goal.relation != NEXT and rng.random() < 0.6:
                angle += rng.choice((-1, 1)) * rng.uniform(0.9, 1.3)
            elif where != GOOD:
                gap = (NEXT_M if goal.relation == NEXT else SIDE_M) + rng.uniform(0.02, 0.07)
            far = both + gap
        elif where == GOOD:
            far = rng.uniform(0.0, {'stack': 0.006, 'insert': 0.001}.get(goal.family, max(
                0.004, min(0.02, min(place.kind.inner) - it.kind.radius))))
        else:
            far = min(place.kind.inner) + rng.uniform(0.02, 0.06)
        if where == FAR:
            far = both + rng.uniform(0.10, 0.2)
        spot = at + far * np.array([np.cos(angle), np.sin(angle)])
        if all(low < x < high for x, (low, high) in zip(spot, _REACH, strict=True)) and (
                goal.family != 'beside' and where == GOOD or _is_free(table, goal, spot)):
            yield spot, angle


def _is_free(table: Table, goal: Goal, spot: Floats) -> bool:
    """Tell whether nothing else lies at a spot."""
    known = things()
    return all(np.linalg.norm(spot - table.origin(name)[:2])
               > known[name].kind.radius + known[goal.it].kind.radius + 0.012
               for name in table.names() if name not in goal.needs)


def _has_room(
    table: Table, it: Thing, place: Thing, spot: Floats, axis: float, angle: float,
) -> bool:
    """Tell whether open fingers keep off the place and other things at a spot."""
    known = things()
    way = np.array([np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))])
    # Low things do not matter where fingers are above them.
    return all(np.linalg.norm(spot + side * _FINGERS_M * way - table.origin(name)[:2])
               > known[name].kind.radius + 0.008
               for name in table.names() if name != it.name
               and known[name].kind.height > it.kind.grip[0] - 0.008 for side in (-1, 1))


def bottom_of(table: Table, goal: Goal, it: Thing, where: str) -> float:
    """Return how high the bottom of a thing is when it is let go."""
    if goal.family == 'beside' or where == FAR:
        return table.height + 0.003
    place = things()[goal.place]
    base = float(table.origin(place.name)[2])
    low = base + place.kind.floor + 0.004
    if goal.family == 'into' or where == NEAR:
        # Fingers stay above the rim.
        return max(low, base + place.kind.height + 0.003 - it.kind.grip[0])
    return low + 0.008 * (goal.family == 'insert')


def _push(
    table: Table, goal: Goal, conduct: Conduct, rng: np.random.Generator,
) -> Iterator[Move]:
    it = things()[goal.it]
    way = np.array([*WAYS[goal.relation], 0.0])
    axis = float(np.rad2deg(np.arctan2(way[1], way[0]))) + 90.0
    there = table.centre(it.name)
    low = max(table.height + 0.016, float(table.origin(it.name)[2]) + 0.4 * it.kind.height)
    low = min(low, table.height + 0.03)
    far = rng.uniform(*{GOOD: (0.115, 0.15), NEAR: (0.025, 0.055), FAR: (0.03, 0.05)}[
        conduct.place])
    known = things()
    for name in table.names():
        offset = table.origin(name)[:2] - there[:2]
        along = float(offset @ way[:2])
        aside = abs(float(offset @ np.array([-way[1], way[0]])))
        both = it.kind.radius + known[name].kind.radius
        if name != it.name and aside < both + 0.02 and -both - 0.06 < along < far + both + 0.01:
            raise NoWay
    behind = there - way * (it.kind.radius + 0.035) + np.array(conduct.aside)
    behind[2] = low + conduct.aside[2]
    if conduct.kind == CLUMSY:
        behind += rng.normal(0.0, 0.006, 3) * (1, 1, 0)
    # The closed fingers' own thickness, and that most things are narrower than what they cover.
    end = there + way * (far - it.kind.radius - 0.004) + np.array(conduct.aside)
    end[2] = behind[2]
    yield _to('above', behind + (0, 0, _ABOVE_M), 1.3, CLOSED, axis)
    yield _to('down', behind, 0.8, CLOSED, axis)
    yield _to('push', end, 2.0, CLOSED, axis)
    yield _to('leave', end - 0.04 * way + (0, 0, _ABOVE_M), 1.0, CLOSED, axis)


def _drag(
    table: Table, goal: Goal, conduct: Conduct, rng: np.random.Generator,
) -> Iterator[Move]:
    """Grip a handle and lead it along."""
    axis = end = table.turned('fixture') + 90.0
    if goal.family == 'door':
        # The fingers stay on either side of the post along the door, and turn with it.
        axis, end = (axis - float(np.rad2deg(angle)) for angle in table.angles(
            goal.it, goal.relation))
    path = table.path(goal.it, goal.relation) + np.array(conduct.aside)
    if conduct.kind == CLUMSY:
        path = path + rng.normal(0.0, 0.003, 3) * (1, 1, 0)
    yield _to('above', path[0] + (0, 0, 0.10), 1.4, OPEN, axis)
    yield _to('down', path[0], 0.9, OPEN, axis)
    yield _to('close', path[0], 0.5, CLOSED, axis)
    yield Move('drag', path[1:], 2.2, CLOSED, end)
    yield _to('open', path[-1], 0.45, OPEN, end)
    yield _to('leave', path[-1] + (0, 0, 0.12), 0.9, OPEN, end)


def _press(
    table: Table, goal: Goal, conduct: Conduct, rng: np.random.Generator,
) -> Iterator[Move]:
    """Press something from above with closed fingers."""
    axis = table.turned('fixture') + 90.0
    top = table.path(goal.it, goal.relation)[0] + np.array(conduct.aside)
    if conduct.kind == CLUMSY:
        top = top + rng.normal(0.0, 0.004, 3) * (1, 1, 0)
    yield _to('above', top + (0, 0, 0.09), 1.5, CLOSED, axis)
    yield _to('press', top - (0, 0, 0.012), 1.2, CLOSED, axis)
    yield _to('leave', top + (0, 0, 0.11), 0.9, CLOSED, axis)
