# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How an attempt in a lab goes: well, clumsily, or in one of six ways that fail.

Unlike the behaviours of the other episodes, failures here go on like successes: the arm makes the
same movements at the same pace, so that neither time nor motion tells how an attempt ends.
"""

from dataclasses import dataclass

from hralign_ros.simulation.behaviour import EXPERT, FAULTS, OPEN
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Hesitates, goes too far, misses, looks again and tries again, as a learned policy does; ends in
# success or failure.
CLUMSY = 'clumsy'
# Shares of the ways among attempts.
SUCCESSES = {EXPERT: 0.8, CLUMSY: 0.2}
FAILURES = {'near_miss': 0.27, 'drops': 0.21, 'stops_early': 0.14, 'wrong_place': 0.09,
            'noise': 0.07, 'no_grasp': 0.07, CLUMSY: 0.15}
# Where a thing is put.
GOOD, NEAR, FAR = 'good', 'near', 'far'
# What an arm does for a task, move by move.
LIFT = ('wait', 'above', 'down', 'close', 'lift', 'leave')
PLACE = ('wait', 'above', 'down', 'close', 'lift', 'carry', 'place', 'open', 'leave')
PUSH = ('wait', 'above', 'down', 'push', 'leave')
# Stands still from here on: in which move, how far into it, and how often.
_STOPS = {
    LIFT: (('down', 0.2, 1.0, 2), ('close', 0.9, 1.0, 2), ('lift', 0.05, 0.38, 4)),
    PLACE: (('down', 0.2, 1.0, 1), ('lift', 0.05, 0.9, 2), ('carry', 0.1, 1.0, 3),
            ('place', 0.4, 1.0, 3), ('open', 0.0, 0.0, 3)),
    PUSH: (('down', 0.2, 1.0, 2), ('push', 0.15, 0.7, 6))}
# Lets go, likewise.
_DROPS = {LIFT: (('lift', 0.15, 0.45, 1),),
          PLACE: (('lift', 0.3, 1.0, 3), ('carry', 0.05, 0.75, 6), ('place', 0.0, 0.4, 1))}
# A hand is steady to this, metres.
_STEADY = 0.002

Moment = tuple[str, float]


@dataclass(frozen=True)
class Conduct:
    """
    How one attempt goes.

    :param kind: EXPERT, CLUMSY or one of the faults.
    :param aside: [3] metres by which the thing seems to be elsewhere when it is gripped or pushed.
    :param place: GOOD, NEAR (just outside of where it counts) or FAR.
    :param stops: move, and part of it, from which on the arm stands still.
    :param drops: move, and part of it, in which the gripper opens.
    :param closes_again: half a second after that; the thing slipped.
    :param never_closes: the gripper.
    :param noise: standard deviation of every command, metres.
    """

    kind: str
    aside: tuple[float, float, float] = (0.0, 0.0, 0.0)
    place: str = GOOD
    stops: Moment | None = None
    drops: Moment | None = None
    closes_again: bool = False
    never_closes: bool = False
    noise: float = 0.0


class Carried:
    """
    A conduct while it is carried out: what it makes of the commands, step by step.

    :param hz: steps a second.
    :ivar frozen: the arm stands still from here on.
    :ivar fault_s: when it last went wrong, seconds; None: it has not.
    """

    def __init__(self, conduct: Conduct, hz: int, rng: np.random.Generator) -> None:
        self._conduct, self._hz, self._rng = conduct, hz, rng
        self._dropped: int | None = None
        self.frozen = False
        self.fault_s: float | None = None

    def command(
        self, step: int, move: str, part: float, goal: Floats, gripper: float,
        last: Floats | None,
    ) -> tuple[Floats, float]:
        """
        Say what is commanded in a step.

        :param move: its name, and how much of it is done.
        :param goal: [3] metres; gripper: what is meant.
        :param last: action of the step before: position first, gripper last; None: there is none.
        """
        conduct = self._conduct
        gripper = OPEN if conduct.never_closes else gripper
        if not self.frozen and _reached(conduct.stops, move, part):
            self.frozen, self.fault_s = True, step / self._hz
        if self._dropped is None and _reached(conduct.drops, move, part):
            self._dropped, self.fault_s = step, step / self._hz
        if self._dropped is not None and (
                not conduct.closes_again or step < self._dropped + self._hz // 2):
            gripper = OPEN
        if self.frozen and last is not None:
            return last[:3], float(last[-1])
        if conduct.noise and not self.frozen:
            goal = goal + self._rng.normal(0.0, conduct.noise, 3)
        return goal, gripper


def _reached(moment: Moment | None, move: str, part: float) -> bool:
    return moment is not None and move == moment[0] and part >= moment[1]


def kind_of(seed: int, wanted: bool, moves: tuple[str, ...], first: float = 0.0) -> str:
    """
    Return the way in which the attempt of a seed is made.

    Seeds in a row have all ways in about their shares, however few they are.

    :param wanted: whether it shall succeed.
    :param moves: LIFT, PLACE or PUSH; what makes no difference to these is not drawn.
    :param first: added to the seed's place among the shares, to go on to another way.
    """
    shares = SUCCESSES if wanted else {
        kind: share for kind, share in FAILURES.items() if kind != 'drops' or moves in _DROPS}
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    golden = (5 ** 0.5 - 1) / 2
    return list(shares)[int(np.searchsorted(ends, (seed * golden + first) % 1.0, side='right'))]


def make_conduct(kind: str, moves: tuple[str, ...], rng: np.random.Generator) -> Conduct:
    """
    Draw the details of an attempt.

    :param moves: LIFT, PLACE or PUSH.
    :raises ValueError: another kind, or drops where nothing is held.
    """
    steady = _around(rng, 0.0, 2 * _STEADY)
    if kind in (EXPERT, CLUMSY):
        return Conduct(kind, steady)
    if kind == 'near_miss':
        return _near_miss(moves, rng, steady)
    if kind == 'wrong_place':
        if moves is PLACE and rng.random() < 0.7:
            return Conduct(kind, steady, place=FAR)
        return Conduct(kind, _around(rng, 0.075, 0.14))
    if kind == 'stops_early':
        return Conduct(kind, steady, stops=_moment(_STOPS[moves], rng))
    if kind == 'drops' and moves in _DROPS:
        return Conduct(kind, steady, drops=_moment(_DROPS[moves], rng),
                       closes_again=bool(rng.random() < 0.5))
    if kind == 'noise':
        return Conduct(kind, steady, noise=float(rng.uniform(0.02, 0.045)))
    if kind == 'no_grasp':
        # A closed gripper that only pushes passes above.
        high = (steady[0], steady[1], float(rng.uniform(0.045, 0.07)))
        return Conduct(kind, high if moves is PUSH else steady, never_closes=moves is not PUSH)
    raise ValueError(f"kind '{kind}' of a {moves[-2]} task; allowed: {EXPERT}, {CLUMSY}, "
                     f'{", ".join(FAULTS)}; drops only where something is held')


def _near_miss(
    moves: tuple[str, ...], rng: np.random.Generator, steady: tuple[float, float, float],
) -> Conduct:
    """Pass by the thing, grip above it, or put it just outside of where it counts."""
    draw = rng.random()
    if moves is PUSH or (moves is PLACE and draw < 0.6):
        return Conduct('near_miss', steady, place=NEAR)
    if draw < 0.85:
        return Conduct('near_miss', _around(rng, 0.028, 0.05))
    x, y, _ = steady
    return Conduct('near_miss', (x, y, float(rng.uniform(0.03, 0.045))))


def _around(rng: np.random.Generator, low: float, high: float) -> tuple[float, float, float]:
    """Draw a horizontal offset of such a length."""
    angle, length = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(low, high)
    return float(length * np.cos(angle)), float(length * np.sin(angle)), 0.0


def _moment(
    choices: tuple[tuple[str, float, float, int], ...], rng: np.random.Generator,
) -> Moment:
    shares = np.array([often for *_, often in choices], dtype=float)
    name, low, high, _ = choices[int(rng.choice(len(choices), p=shares / shares.sum()))]
    return name, float(rng.uniform(low, high))
