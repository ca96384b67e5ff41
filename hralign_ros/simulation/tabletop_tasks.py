# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What is asked for on the table: families of goals, and how each goal is said.

A goal is what the simulator checks; an instruction is a goal with its words. Left, right, in
front of and behind are meant as the robot sees them: in front of a thing is the side towards the
robot. Nothing here needs a simulator.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from hralign_ros.data.manifest import slug
from hralign_ros.runtime.errors import DataError
from hralign_ros.simulation.tabletop_objects import (
    BEARS,
    CARRIED,
    HOLDS,
    PEG,
    PUSHED,
    STACKED,
    Thing,
    things,
    those_that,
    THREADED,
)

# Families that are about loose things, and those about a fixture.
LOOSE = ('lift', 'into', 'on', 'stack', 'beside', 'push', 'insert')
FIXED = ('drawer', 'door', 'chest', 'button', 'dial', 'slider')
FAMILIES = (*LOOSE, *FIXED)
# What is moved in each family, where not everything that is carried.
MOVED = {'stack': STACKED, 'push': PUSHED, 'insert': THREADED}
# Where one thing is to be beside the other, from there: x away from the robot, y to its left.
SIDES = {'left': (0.0, 1.0), 'right': (0.0, -1.0), 'front': (-1.0, 0.0), 'behind': (1.0, 0.0)}
NEXT = 'next'
WAYS = {'left': (0.0, 1.0), 'right': (0.0, -1.0), 'away': (1.0, 0.0), 'near': (-1.0, 0.0)}
# What can be wanted of a part of a fixture.
STATES = {'drawer': ('open', 'close'), 'door': ('open', 'close'), 'chest': ('open', 'close'),
          'button': ('press',), 'dial': ('clockwise', 'counterclockwise'),
          'slider': ('left', 'right')}
PART_LOOKS = ('red', 'blue', 'green', 'yellow', 'orange', 'purple', 'white', 'black')
# How many parts a fixture has, each in a colour of its own.
PARTS = {'drawer': 2, 'door': 2, 'chest': 2, 'button': 3, 'dial': 2, 'slider': 2}
# The first is the instruction, the others are paraphrases.
_SAID: dict[tuple[str, str], tuple[str, ...]] = {
    ('lift', ''): ('pick up the {it}', 'lift the {it}', 'raise the {it} off the table'),
    ('into', ''): ('put the {it} into the {place}', 'place the {it} in the {place}',
                   'drop the {it} inside the {place}'),
    ('on', ''): ('put the {it} on the {place}', 'set the {it} down on top of the {place}',
                 'place the {it} onto the {place}'),
    ('stack', ''): ('stack the {it} on the {place}', 'put the {it} on top of the {place}',
                    'build a tower with the {it} on the {place}'),
    ('beside', 'left'): ('put the {it} to the left of the {place}',
                         'place the {it} on the left side of the {place}',
                         'move the {it} left of the {place}'),
    ('beside', 'right'): ('put the {it} to the right of the {place}',
                          'place the {it} on the right side of the {place}',
                          'move the {it} right of the {place}'),
    ('beside', 'front'): ('put the {it} in front of the {place}',
                          'place the {it} before the {place}',
                          'move the {it} to the near side of the {place}'),
    ('beside', 'behind'): ('put the {it} behind the {place}',
                           'place the {it} at the back of the {place}',
                           'move the {it} to the far side of the {place}'),
    ('beside', NEXT): ('put the {it} next to the {place}', 'place the {it} beside the {place}',
                       'set the {it} down close to the {place}'),
    ('push', 'left'): ('push the {it} to the left', 'slide the {it} leftwards',
                       'shove the {it} over to the left'),
    ('push', 'right'): ('push the {it} to the right', 'slide the {it} rightwards',
                        'shove the {it} over to the right'),
    ('push', 'away'): ('push the {it} away from the robot', 'push the {it} forward',
                       'shove the {it} towards the back of the table'),
    ('push', 'near'): ('pull the {it} towards the robot', 'draw the {it} closer',
                       'drag the {it} back to the robot'),
    ('insert', ''): ('put the {it} over the {place}', 'hang the {it} on the {place}',
                     'slide the {it} down onto the {place}'),
    ('drawer', 'open'): ('open the {it} drawer', 'pull the {it} drawer out',
                         'slide the {it} drawer open'),
    ('drawer', 'close'): ('close the {it} drawer', 'push the {it} drawer in',
                          'shut the {it} drawer'),
    ('door', 'open'): ('open the {it} door', 'swing the {it} door open',
                       'pull the {it} door open'),
    ('door', 'close'): ('close the {it} door', 'shut the {it} door', 'push the {it} door shut'),
    ('chest', 'open'): ('open the {it} chest', 'lift the lid of the {it} chest',
                        'raise the {it} lid'),
    ('chest', 'close'): ('close the {it} chest', 'lower the lid of the {it} chest',
                         'shut the {it} lid'),
    ('button', 'press'): ('press the {it} button', 'push the {it} button down',
                          'hit the {it} button'),
    ('dial', 'clockwise'): ('turn the {it} dial clockwise', 'rotate the {it} dial clockwise',
                            'turn the {it} dial to the right'),
    ('dial', 'counterclockwise'): (
        'turn the {it} dial counterclockwise', 'rotate the {it} dial counterclockwise',
        'turn the {it} dial to the left'),
    ('slider', 'left'): ('slide the {it} handle to the left', 'move the {it} handle left',
                         'push the {it} slider to the left end'),
    ('slider', 'right'): ('slide the {it} handle to the right', 'move the {it} handle right',
                          'push the {it} slider to the right end')}
# Instructions of each, and in how many of these one thing may be carried or be the place.
_WANTED = {('lift', ''): (64, 1), ('into', ''): (112, 3), ('on', ''): (112, 3),
           ('stack', ''): (44, 5), ('insert', ''): (30, 6),
           **{('beside', side): (32, 2) for side in (*SIDES, NEXT)},
           **{('push', way): (16, 1) for way in WAYS}}
_AS_PLACE = 9


@dataclass(frozen=True)
class Goal:
    """
    What is to be so.

    :param family: one of FAMILIES.
    :param it: name of the thing, or the colour of a fixture's part.
    :param relation: of beside, push and the fixtures.
    :param place: name of the thing that it goes into, on or beside; '' for none.
    """

    family: str
    it: str
    relation: str = ''
    place: str = ''

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the instruction, and ways to say it otherwise."""
        known = things()
        words = {'it': known[self.it].words if self.it in known else self.it,
                 'place': known[self.place].words if self.place in known else self.place}
        return tuple(text.format(**words) for text in _SAID[self.family, self.relation])

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the names of the loose things that it is about."""
        return tuple(name for name in (self.it, self.place) if name in things())


@dataclass(frozen=True)
class Instruction:
    """
    A goal and its words.

    :param task_id: as the manifest and the split file name it.
    :param text: as one says it.
    :param paraphrases: two or more.
    """

    task_id: str
    text: str
    paraphrases: tuple[str, ...]
    goal: Goal


@cache
def instructions() -> tuple[Instruction, ...]:
    """
    Return all instructions, of all families by turns.

    So the first of them are as diverse as all are, and each longer list holds the shorter one.
    """
    chosen: list[tuple[float, int, Goal]] = []
    for family in FAMILIES:
        goals = _chosen(family)
        chosen += [((i + 0.5) / len(goals), FAMILIES.index(family), goal)
                   for i, goal in enumerate(goals)]
    return tuple(_said(goal) for _, _, goal in sorted(chosen, key=lambda one: one[:2]))


@cache
def goals_by_text() -> dict[str, Goal]:
    """Return all goals that one could have, listed or not, by their first words."""
    fixed = (Goal(family, look, state) for family in FIXED for look in PART_LOOKS
             for state in STATES[family])
    loose = [goal for family, relation in _WANTED for goal in _possible(family, relation)]
    # What misses a place lies next to it, and some of those are places for nothing else.
    beside = (Goal('beside', goal.it, NEXT, goal.place) for goal in loose
              if goal.family in ('into', 'on'))
    return {goal.texts[0]: goal for goal in (*fixed, *loose, *beside)}


def find_instructions(wanted: tuple[str, ...]) -> tuple[Instruction, ...]:
    """
    Return the instructions that have these ids, or words.

    :raises DataError: there is none of one.
    """
    named = {slug(one): one for one in wanted}
    found = tuple(i for i in instructions() if i.task_id in named)
    missing = set(named) - {i.task_id for i in found}
    if missing:
        raise DataError(f"no instruction '{named[min(missing)]}' on the table; `hralign data "
                        'instructions` prints all')
    return found


def _said(goal: Goal) -> Instruction:
    text, *others = goal.texts
    return Instruction(slug(text), text, tuple(others), goal)


def _chosen(family: str) -> list[Goal]:
    """Choose goals of a family, always the same, in the order of their hash."""
    if family in FIXED:
        return sorted((Goal(family, look, state) for look in PART_LOOKS
                       for state in STATES[family]), key=_hash)
    found: list[Goal] = []
    for (of, relation), (count, often) in _WANTED.items():
        if of != family:
            continue
        carried: Counter[str] = Counter()
        places: Counter[str] = Counter()
        some: list[Goal] = []
        for goal in sorted(_possible(family, relation), key=_hash):
            if len(some) < count and carried[goal.it] < often and (
                    places[goal.place] < _AS_PLACE or not goal.place):
                some.append(goal)
                carried[goal.it] += 1
                places[goal.place] += 1
        found += some
    return sorted(found, key=_hash)


def _possible(family: str, relation: str) -> Iterator[Goal]:
    if family in ('lift', 'push'):
        for it in those_that(MOVED.get(family, CARRIED)):
            yield Goal(family, it.name, relation)
        return
    for it in those_that(MOVED.get(family, CARRIED)):
        for place in partners(family):
            if fits(family, it, place):
                yield Goal(family, it.name, relation, place.name)


@cache
def partners(family: str) -> tuple[Thing, ...]:
    """Return the things that something can be put into, on or beside."""
    if family == 'into':
        return those_that(HOLDS)
    if family == 'on':
        return those_that(BEARS)
    if family == 'insert':
        return those_that(PEG)
    if family == 'stack':
        return tuple(t for t in those_that(STACKED) if t.kind.noun in (
            'block', 'big block', 'brick'))
    return tuple(
        t for t in things().values() if not t.kind.rolls and t.kind.noun != 'stand' and (
            t.does(HOLDS) or t.does(BEARS) or (t.does(CARRIED) and t.kind.radius < 0.035)))


def fits(family: str, it: Thing, place: Thing) -> bool:
    """Tell whether a thing can be put into, on or beside another one, and both can be told."""
    if it.like(place) or (family != 'beside' and it.kind.rolls and not place.does(HOLDS)):
        return False
    if family == 'beside':
        return not it.kind.rolls
    if family == 'insert':
        return it.does(THREADED)
    if family == 'stack':
        return it.kind.radius <= place.kind.radius + 0.006
    inner = min(place.kind.inner)
    # What sticks out over the rim could not be told from what lies on it.
    return it.kind.radius <= inner and (family != 'into' or it.kind.height < 0.1)


def _hash(goal: Goal) -> int:
    return crc32(f'{goal.family} {goal.it} {goal.relation} {goal.place}'.encode())
