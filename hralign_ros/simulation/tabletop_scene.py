# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is on the table for an instruction, where it lies, and what else could be meant.

Beside what the instruction is about there are things that it is not about: the same in another
colour, other things that can be carried, another place. A goal with one of them in it is what an
attempt does that did not understand. Nothing here needs a simulator.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hralign_ros.simulation.tabletop_objects import (
    BEARS,
    CARRIED,
    HOLDS,
    Thing,
    things,
    those_that,
)
from hralign_ros.simulation.tabletop_tasks import (
    fits,
    FIXED,
    Goal,
    MOVED,
    NEXT,
    PART_LOOKS,
    partners,
    PARTS,
    SIDES,
    STATES,
    WAYS,
)
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Ways to misunderstand; each is the behaviour's kind, too.
WRONG_OBJECT, WRONG_COLOUR = 'wrong_object', 'wrong_colour'
WRONG_PLACE, WRONG_RELATION = 'wrong_place', 'wrong_relation'
MISTAKES = (WRONG_OBJECT, WRONG_COLOUR, WRONG_PLACE, WRONG_RELATION)
# Where things may lie, from the middle of the table: x away from the robot, y to its left.
_AREA = ((-0.17, 0.11), (-0.25, 0.25))
_PLACE_AREA = ((-0.10, 0.06), (-0.19, 0.19))
_FIXTURE_AREA = ((0.10, 0.14), (-0.05, 0.05), (-9.0, 9.0))
_CLUTTER_AREA = ((-0.16, 0.02), (0.20, 0.29))
_PUSH_AREAS = {'left': ((-0.12, 0.08), (-0.20, 0.02)), 'right': ((-0.12, 0.08), (-0.02, 0.20)),
               'away': ((-0.14, -0.03), (-0.20, 0.20)), 'near': ((0.0, 0.08), (-0.20, 0.20))}
# Between what things cover; fingers go down between.
_GAP_M = 0.032
_TRIES = 40


@dataclass(frozen=True)
class Scene:
    """
    What is on the table.

    :param loose: names of things.
    :param parts: of the fixture, from the robot's right to its left; () for no fixture.
    """

    family: str
    loose: tuple[str, ...]
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """
    Where everything is.

    :param at: by name [x, y] from the middle of the table, and how it is turned, degrees.
    """

    at: dict[str, tuple[float, float, float]]


def draw_scene(
    goal: Goal, rng: np.random.Generator, avoid: tuple[str, ...] = (),
) -> Scene:
    """
    Draw what is on the table with what a goal is about.

    :param avoid: names of things that are not drawn.
    """
    def add(names: list[str], count: int, some: Iterable[Thing]) -> list[str]:
        """Add things that cannot be taken for one that is there."""
        known, made = things(), list(names)
        order = [thing for thing in some if thing.name not in avoid]
        for i in rng.permutation(len(order)):
            if len(made) < len(names) + count and not any(
                    order[i].like(known[name]) for name in made):
                made.append(order[i].name)
        return made

    if goal.family in FIXED:
        others = [look for look in PART_LOOKS if look != goal.it]
        count = PARTS[goal.family]
        parts = [goal.it, *rng.choice(others, count - 1, replace=False)]
        rng.shuffle(parts)
        clutter = add([], 1 + int(rng.random() < 0.5), those_that(CARRIED))
        return Scene(goal.family, tuple(clutter), tuple(str(part) for part in parts))
    it, place = things()[goal.it], things().get(goal.place)
    names = add(list(goal.needs), 1, (t for t in things().values()
                                      if t.kind.noun == it.kind.noun and t.look != it.look))
    role = MOVED.get(goal.family, CARRIED)
    names = add(names, 2, (t for t in those_that(role) if place is None or fits(
        goal.family, t, place)))
    if place is None:
        return Scene(goal.family, tuple(add(names, 1, (*those_that(HOLDS), *those_that(BEARS)))))
    role = HOLDS if place.does(HOLDS) else BEARS if place.does(BEARS) else ''
    return Scene(goal.family, tuple(add(names, 1, (
        t for t in partners(goal.family) if fits(goal.family, it, t) and (
            not role or t.does(role))))))


def mistakes(goal: Goal, scene: Scene) -> dict[str, list[Goal]]:
    """List what could be done instead in a scene, by how it differs."""
    found: dict[str, list[Goal]] = {kind: [] for kind in MISTAKES}
    if goal.family in FIXED:
        found[WRONG_COLOUR] = [replace(goal, it=part) for part in scene.parts if part != goal.it]
        found[WRONG_RELATION] = [
            replace(goal, relation=state) for state in STATES[goal.family]
            if state != goal.relation and 'open' not in STATES[goal.family]]
        return found
    known = things()
    it, place = known[goal.it], known.get(goal.place)
    role = MOVED.get(goal.family, CARRIED)
    for other in (known[name] for name in scene.loose):
        if other.name not in goal.needs and other.does(role) and (
                place is None or fits(goal.family, other, place)):
            kind = WRONG_COLOUR if other.kind.noun == it.kind.noun else WRONG_OBJECT
            found[kind].append(replace(goal, it=other.name))
        if place is not None and other.name not in goal.needs and other in partners(
                goal.family) and fits(goal.family, it, other):
            found[WRONG_PLACE].append(replace(goal, place=other.name))
    if goal.family == 'beside' and goal.relation != NEXT:
        found[WRONG_RELATION] = [replace(goal, relation=side) for side in SIDES
                                 if side != goal.relation]
    elif goal.family == 'push':
        found[WRONG_RELATION] = [replace(goal, relation=way) for way in WAYS
                                 if way != goal.relation]
    elif goal.family in ('into', 'on') and place is not None and fits('beside', it, place):
        found[WRONG_RELATION] = [Goal('beside', it.name, NEXT, place.name)]
    return found


def draw_layout(scene: Scene, goals: tuple[Goal, ...], rng: np.random.Generator) -> Layout:
    """
    Draw where everything lies, no two things on one another.

    :param goals: what is pushed in these lies where it can be pushed.
    :raises ValueError: there is no room, with this generator.
    """
    known = things()
    for _ in range(40):
        at: dict[str, tuple[float, float, float]] = {}
        if scene.parts:
            x, y, turn = (float(rng.uniform(*part)) for part in _FIXTURE_AREA)
            at['fixture'] = (x, y, turn)
        pushed = {goal.it: goal.relation for goal in goals if goal.family == 'push'}
        names = sorted(scene.loose, key=lambda n: (n not in pushed, -known[n].kind.radius))
        taken: list[tuple[float, float, float]] = []
        for name in names:
            thing = known[name]
            moves = thing.does(MOVED.get(scene.family, CARRIED)) or thing.does(CARRIED)
            area = _PUSH_AREAS[pushed[name]] if name in pushed else _CLUTTER_AREA \
                if scene.parts else _AREA if moves else _PLACE_AREA
            spot = _free_spot(thing.kind.radius, taken, area, rng)
            if spot is None:
                break
            turns = (-180.0, 180.0) if moves else (-15.0, 15.0)
            at[name] = (*spot, float(rng.uniform(*turns)))
            taken.append((*spot, thing.kind.radius))
            if name in pushed:
                # The way there, and the hand behind it.
                x, y = WAYS[pushed[name]]
                taken += [(spot[0] + far * x, spot[1] + far * y, thing.kind.radius - 0.01)
                          for far in (-0.08, 0.07, 0.14)]
        else:
            return Layout(at)
    raise ValueError(f'no room on the table for {", ".join(scene.loose)}')


def _free_spot(
    radius: float, taken: list[tuple[float, float, float]],
    area: tuple[tuple[float, float], tuple[float, float]], rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Find room for a thing that covers a circle."""
    for _ in range(_TRIES):
        x, y = (float(rng.uniform(*part)) for part in area)
        if area is _CLUTTER_AREA and rng.random() < 0.5:
            y = -y
        if all(np.hypot(x - other[0], y - other[1]) > radius + other[2] + _GAP_M
               for other in taken):
            return x, y
    return None
