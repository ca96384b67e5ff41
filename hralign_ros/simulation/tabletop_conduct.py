# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
How an attempt on the table goes: well, clumsily, clumsily enough to fail, or at the wrong goal.

As in a lab, failures go on like successes: the arm makes the same movements at the same pace.
"""

from collections.abc import Mapping
from dataclasses import replace

from hralign_ros.simulation.behaviour import EXPERT
from hralign_ros.simulation.lab_conduct import (
    CLUMSY,
    Conduct,
    LIFT,
    make_conduct,
    PLACE,
    PUSH,
    SUCCESSES,
)
from hralign_ros.simulation.tabletop_scene import MISTAKES
import numpy as np

# Grip a handle and lead it along; press something.
DRAG = ('wait', 'above', 'down', 'close', 'drag', 'open', 'leave')
PRESS = ('wait', 'above', 'press', 'leave')
MOVES = {'lift': LIFT, 'into': PLACE, 'on': PLACE, 'stack': PLACE, 'beside': PLACE,
         'insert': PLACE, 'push': PUSH, 'drawer': DRAG, 'door': DRAG, 'chest': DRAG,
         'dial': DRAG, 'slider': DRAG, 'button': PRESS}
# Shares of the ways to fail: half of them are seen only by one who knows the instruction.
_MISTAKEN = 0.5
_FAULTS = {'near_miss': 0.36, 'drops': 0.24, 'stops_early': 0.2, 'no_grasp': 0.1, 'noise': 0.1}
# Handles that open fingers take along all the same.
_SIDEWAYS = ('door', 'dial', 'slider')
# The servos here are stiffer than the controller that the noise of a lab was drawn for.
_STIFFER = 0.35


def kinds_of(family: str, mistakes: Mapping[str, object]) -> dict[str, float]:
    """
    Return the ways to fail at a goal, and how often each is chosen.

    :param mistakes: those that the scene has something for, see tabletop_scene.mistakes.
    """
    without = {'drops', 'no_grasp'} if family == 'button' else {'drops'} \
        if family in (*_SIDEWAYS, 'push') else set()
    faults = {kind: share for kind, share in _FAULTS.items() if kind not in without}
    wrong = [kind for kind in MISTAKES if mistakes.get(kind)]
    whole = sum(faults.values()) / (1.0 - _MISTAKEN if wrong else 1.0)
    return {**{kind: _MISTAKEN / len(wrong) for kind in wrong},
            **{kind: share / whole for kind, share in faults.items()}}


def kind_of(
    seed: int, wanted: bool, shares: Mapping[str, float], first: float = 0.0,
) -> str:
    """
    Return the way in which the attempt of a seed is made.

    Seeds in a row have all ways in about their shares, however few they are.

    :param wanted: whether it shall succeed.
    :param shares: of the ways to fail, see kinds_of.
    :param first: added to the seed's place among the shares, to go on to another way.
    """
    chosen = SUCCESSES if wanted else shares
    ends = np.cumsum(list(chosen.values())) / sum(chosen.values())
    golden = (5 ** 0.5 - 1) / 2
    return list(chosen)[int(np.searchsorted(ends, (seed * golden + first) % 1.0, side='right'))]


def draw_conduct(kind: str, family: str, rng: np.random.Generator) -> Conduct:
    """
    Draw the details of an attempt.

    :param kind: EXPERT, CLUMSY, a fault, or one of MISTAKES, which goes as an expert's or a
        clumsy attempt at another goal does.
    """
    if kind in MISTAKES:
        return replace(make_conduct(
            EXPERT if rng.random() < SUCCESSES[EXPERT] else CLUMSY, PLACE, rng), kind=kind)
    moves = MOVES[family]
    if moves not in (DRAG, PRESS):
        conduct = make_conduct(kind, moves, rng)
        return replace(conduct, noise=_STIFFER * conduct.noise)
    conduct = Conduct(kind)
    if kind == 'near_miss':
        angle, length = rng.uniform(0.0, 2 * np.pi), rng.uniform(0.034, 0.05)
        return replace(conduct, aside=(
            float(length * np.cos(angle)), float(length * np.sin(angle)), 0.0))
    if kind == 'stops_early':
        move, low, high = ('press', 0.1, 0.6) if moves is PRESS else (
            ('down', 0.2, 1.0) if rng.random() < 0.3 else ('drag', 0.1, 0.55))
        return replace(conduct, stops=(move, float(rng.uniform(low, high))))
    if kind == 'drops':
        return replace(conduct, drops=('drag', float(rng.uniform(0.05, 0.5))))
    if kind == 'no_grasp':
        # Open fingers would take some handles along: there it passes above.
        if family in _SIDEWAYS:
            return replace(conduct, aside=(0.0, 0.0, float(rng.uniform(0.06, 0.075))))
        return replace(conduct, never_closes=True)
    if kind == 'noise':
        return replace(conduct, noise=float(rng.uniform(0.008, 0.016)))
    return conduct
