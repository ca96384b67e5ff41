# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Before and after, without the motion between: what a table looks like once something was done.

Most of an attempt's time goes into the way there. What words mean can be learned from its two
ends alone, and those are made much faster: things are put where an expert would leave
them, the hand where it would go, physics settles what is left, and the same goals as ever say
what is accomplished.
"""

from collections.abc import Iterable

from hralign_ros.data.instructions import NOT_SO, SO, STILL
from hralign_ros.simulation.behaviour import CLOSED, EXPERT, OPEN
from hralign_ros.simulation.lab_conduct import GOOD, NEAR
from hralign_ros.simulation.lab_world import Attempt
from hralign_ros.simulation.renderer import Shot
from hralign_ros.simulation.tabletop_arm import TABLE_M
from hralign_ros.simulation.tabletop_expert import axes_of, bottom_of, grasp_of, NoWay, spots_for
from hralign_ros.simulation.tabletop_fixtures import AT_LAST, handle, TRAVEL
from hralign_ros.simulation.tabletop_goals import accomplished
from hralign_ros.simulation.tabletop_objects import things
from hralign_ros.simulation.tabletop_scene import draw_layout, MISTAKES, mistakes, Scene
from hralign_ros.simulation.tabletop_tasks import FIXED, Goal, WAYS
from hralign_ros.simulation.tabletop_world import Tabletop, TRIES
from hralign_ros.simulation.worlds import Trajectory
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Ways to fail that are seen in the end: near where it counts, and nothing was moved.
NEAR_MISS, UNTOUCHED = 'near_miss', 'untouched'
_MISTAKEN, _NEAR = 0.5, 0.32
# An attempt takes about as long, seconds.
_LONG_S = (4.0, 12.0)
_APPROACHES, _SETTLE_STEPS = 70, 9


class Stills(Tabletop):
    """One instruction with one arm in one set of things; its attempts have two frames each."""

    def attempt(self, seed: int, wanted: bool, *, hz: float = 0.0) -> Attempt | None:
        """
        Make the two ends of an attempt that ends as wanted; None where none of TRIES does.

        :param hz: says nothing: there are two frames.
        :returns: tagged with SO and NOT_SO and words, for every goal that one could have there
            and that was not accomplished at first.
        """
        goals = goals_in(self.goal, self.scene)
        for tries in range(TRIES):
            rng = np.random.default_rng([seed, tries, 9])
            # A way that does not end so gives way to another one later than a start does.
            kind, meant = self._drawn(wanted, np.random.default_rng([seed, tries // 4, 11]))
            try:
                self._begin(draw_layout(self.scene, (self.goal, meant), rng), meant, rng)
                open_goals = [goal for goal in goals if not accomplished(goal, self)]
                if self.goal not in open_goals or meant not in open_goals:
                    continue
                before, first = self._shot(), self._state()
                self._go(meant, kind, rng)
            except (NoWay, ValueError):
                continue
            self._touching = None
            mujoco.mj_forward(self.model, self._data)
            if accomplished(self.goal, self) != wanted:
                continue
            after, last = self._shot(), self._state()
            long = float(rng.uniform(*_LONG_S))
            return Attempt(kind, Trajectory(
                (before, after), (0.0, long), (False, wanted), (last[0], last[0]),
                (first[1], last[1]), None if wanted else 0.0), (
                    *self.tags(kind, wanted, meant), STILL, f'try:{tries}',
                    *(f'{SO if accomplished(goal, self) else NOT_SO}{goal.texts[0]}'
                      for goal in open_goals)), self.points((before, after)))
        return None

    def _drawn(self, wanted: bool, rng: np.random.Generator) -> tuple[str, Goal]:
        """Draw a way for it to end, and the goal that was pursued."""
        if wanted:
            return EXPERT, self.goal
        kinds = [kind for kind in MISTAKES if self._mistakes.get(kind)]
        draw = float(rng.random())
        if kinds and draw < _MISTAKEN:
            kind = kinds[int(rng.integers(len(kinds)))]
            others = self._mistakes[kind]
            return kind, others[int(rng.integers(len(others)))]
        return NEAR_MISS if draw < _MISTAKEN + _NEAR else UNTOUCHED, self.goal

    def _shot(self) -> Shot:
        return Shot(self._data.qpos.copy(), self._arm.grip())

    def _state(self) -> tuple[Floats, Floats]:
        """Return a command to stay, and the arm's own state."""
        position, grip = self._arm.position, self._arm.grip()
        return np.array([*position, np.pi, 0.0, 0.0, OPEN]), np.array([*position, grip.width])

    def _go(self, meant: Goal, kind: str, rng: np.random.Generator) -> None:
        """Put everything to where it is in the end."""
        turn = self._arm.rest_deg + float(rng.uniform(-60.0, 60.0))
        if kind == UNTOUCHED:
            hand = self._arm.position + rng.normal(0.0, 0.06, 3) * (1, 1, 0.4) - (0, 0, 0.05)
            self._leave(hand, turn, OPEN)
        elif meant.family in FIXED:
            self._leave(self._turn(meant, kind, rng), turn,
                        CLOSED if meant.family == 'button' else OPEN)
        elif meant.family == 'lift':
            self._lift(meant, kind, rng)
        else:
            hand = self._push(meant, kind, rng) if meant.family == 'push' \
                else self._place(meant, kind, rng)
            noise = rng.normal(0.0, 0.015, 3) * (1, 1, 0.5)
            self._leave(hand + noise, turn, CLOSED if meant.family == 'push' else OPEN)

    def _turn(self, meant: Goal, kind: str, rng: np.random.Generator) -> Floats:
        """Move a part of the fixture; return where the hand is then."""
        low, high = TRAVEL[meant.family]
        joint = self._data.joint(f'joint_{meant.it}')
        now = (float(joint.qpos[0]) - low) / (high - low)
        part = rng.uniform(0.1, 0.5) if kind == NEAR_MISS else rng.uniform(0.93, 1.0)
        joint.qpos[:] = low + (now + part * (AT_LAST[meant.relation] - now)) * (high - low)
        mujoco.mj_kinematics(self.model, self._data)
        above = np.array([0.0, 0.0, rng.uniform(0.10, 0.15)])
        return np.asarray(self._data.site(handle(meant.it)).xpos + above)

    def _push(self, meant: Goal, kind: str, rng: np.random.Generator) -> Floats:
        place = self._data.joint(meant.it).qpos
        way = np.array(WAYS[meant.relation])
        far = rng.uniform(0.02, 0.06) if kind == NEAR_MISS else rng.uniform(0.09, 0.15)
        place[:2] += far * (way + rng.normal(0.0, 0.15) * np.array([-way[1], way[0]]))
        self._twist(meant.it, float(rng.normal(0.0, 0.25)))
        return np.array([*(place[:2] - 0.04 * way), TABLE_M + rng.uniform(0.10, 0.15)])

    def _place(self, meant: Goal, kind: str, rng: np.random.Generator) -> Floats:
        it, where = things()[meant.it], NEAR if kind == NEAR_MISS else GOOD
        spot = next((spot for spot, _ in spots_for(self, meant, where, rng)), None)
        if spot is None:
            raise NoWay
        bottom = bottom_of(self, meant, it, where)
        self._data.joint(meant.it).qpos[:3] = [*spot, bottom]
        self._twist(meant.it, float(rng.uniform(-np.pi, np.pi)))
        return np.array([spot[0] - 0.03, spot[1],
                         bottom + rng.uniform(0.10, 0.16) + 0.5 * it.kind.height])

    def _twist(self, name: str, angle: float) -> None:
        turned = self._data.joint(name).qpos[3:]
        turn = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
        mujoco.mju_mulQuat(turned, turn, turned.copy())

    def _lift(self, meant: Goal, kind: str, rng: np.random.Generator) -> None:
        """Grip a thing and raise it, as only physics can."""
        it, arm = things()[meant.it], self._arm
        axes = axes_of(self, it)
        grasp, turn = grasp_of(self, it), arm.turn_for(
            axes[int(rng.integers(len(axes)))], arm.rest_deg)
        self._hand_to(grasp, turn)
        for _ in range(10):
            arm.step(grasp, turn, CLOSED)
        high = rng.uniform(0.0, 0.04) if kind == NEAR_MISS else rng.uniform(0.10, 0.15)
        aside = rng.normal(0.0, 0.01, 2)
        for part in np.minimum(np.arange(1, 17) / 12.0, 1.0):
            arm.step(grasp + part * np.array([*aside, high]), turn, CLOSED)

    def _leave(self, hand: Floats, turn_deg: float, gripper: float) -> None:
        """Put the hand somewhere above the table, and let all settle."""
        hand = np.array([hand[0], hand[1], max(hand[2], TABLE_M + 0.08)])
        self._hand_to(hand, turn_deg)
        for _ in range(_SETTLE_STEPS):
            self._arm.step(hand, turn_deg, gripper)

    def _hand_to(self, position: Floats, turn_deg: float) -> None:
        self._arm.jump(position, turn_deg, _APPROACHES)
        mujoco.mj_forward(self.model, self._data)


def goals_in(goal: Goal, scene: Scene) -> tuple[Goal, ...]:
    """List the goals that one could have in a scene: one's own, its mistakes, and theirs."""
    def with_mistakes(some: Iterable[Goal]) -> set[Goal]:
        return {other for one in some for kind in mistakes(one, scene).values()
                for other in kind} | set(some)

    once = with_mistakes([goal])
    # Next to something is a mistake of other families: sides of it would be more than all others.
    return tuple(sorted(once | with_mistakes(
        one for one in list(once) if one.family == goal.family), key=lambda one: one.texts[0]))
