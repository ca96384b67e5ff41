# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One instruction on the table with one arm: attempts at it, from the simulator's own physics."""

from collections.abc import Sequence

from hralign_ros.simulation.behaviour import OPEN
from hralign_ros.simulation.lab_conduct import Carried, Conduct
from hralign_ros.simulation.lab_world import Attempt
from hralign_ros.simulation.renderer import Shot, Stage
from hralign_ros.simulation.tabletop_arm import (
    Arm,
    arm_spec,
    CONTROL_HZ,
    downward,
    read_arm,
    TABLE_M,
)
from hralign_ros.simulation.tabletop_build import add_thing
from hralign_ros.simulation.tabletop_conduct import draw_conduct, kind_of, kinds_of
from hralign_ros.simulation.tabletop_expert import Move, NoWay, script
from hralign_ros.simulation.tabletop_fixtures import (
    add_fixture,
    AT_FIRST,
    AT_LAST,
    FIXTURE,
    handle,
    TRAVEL,
)
from hralign_ros.simulation.tabletop_goals import accomplished, HAND, TABLE
from hralign_ros.simulation.tabletop_objects import things
from hralign_ros.simulation.tabletop_scene import (
    draw_layout,
    draw_scene,
    Layout,
    MISTAKES,
    mistakes,
)
from hralign_ros.simulation.tabletop_tasks import Goal, Instruction
from hralign_ros.simulation.worlds import resampled_at, Task, Trajectory
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TRIES = 12
LIMIT_STEPS = 24 * CONTROL_HZ
_SETTLE_STEPS = 10
_TOLERANCE, _LATE_S = 0.012, 0.5
# A recording goes on after the last thing that was to be done, seconds.
_AFTER_S = (1.6, 2.6)
# Materials that fixtures are painted with, but for what moves.
_FIXTURE_PAINTS = ('light-wood.png', 'grey', 'cream', 'brown', 'steel')
_POINTS = 8


class Tabletop:
    """
    One instruction with one arm, in one set of things.

    :param number: of the set of things; with another number there are other wrong things.
    :param avoid: names of things that are not among the wrong ones.
    """

    source = 'robosuite'
    license_id = 'Apache-2.0'
    faults = ()

    def __init__(
        self, instruction: Instruction, embodiment: str, number: int,
        avoid: tuple[str, ...] = (),
    ) -> None:
        goal = instruction.goal
        self.task = Task(instruction.task_id, f'Tabletop-{goal.family}', instruction.text)
        self.embodiment, self.goal = embodiment, goal
        rng = np.random.default_rng([*instruction.task_id.encode(), number])
        self.scene = draw_scene(goal, rng, avoid)
        # Each instruction begins elsewhere among the ways in which attempts go.
        self._phase = float(rng.random())
        self._mistakes = mistakes(goal, self.scene)
        arm = read_arm(embodiment)
        self._spec = arm_spec(arm)
        for name in self.scene.loose:
            add_thing(self._spec, things()[name])
        if self.scene.parts:
            paints = [p for p in _FIXTURE_PAINTS if p not in self.scene.parts]
            add_fixture(self._spec, goal.family, self.scene.parts, str(rng.choice(paints)))
            for part in self.scene.parts:
                self._spec.add_exclude(bodyname1=FIXTURE, bodyname2=f'part_{part}')
        self.model = self._spec.copy().compile()
        self._data = mujoco.MjData(self.model)
        self._arm = Arm(arm, self.model, self._data)
        self._names = self._owners()
        self._starts: dict[str, Floats] = {}
        self._touching: set[frozenset[str]] | None = None
        self.height, self.rest = TABLE_M, np.zeros(3)
        self._stage: Stage | None = None

    def close(self) -> None:
        """Free the simulator; there is nothing but memory."""

    @property
    def stage(self) -> Stage:
        """Return what the renderer needs."""
        if self._stage is None:
            names = [self.model.body(b).name for b in range(self.model.nbody)]
            materials = {m.name for m in self._spec.materials}
            self._stage = Stage(
                spec=self._spec, model=self.model,
                robot_bodies=tuple(n for n in names if n in ('robot0_base', 'base0', 'mount0')
                                   or n.startswith(('fixed_mount0_base', 'rethink'))),
                surfaces={surface: tuple(set(wanted) & materials) for surface, wanted in {
                    'table': ('table_ceramic',), 'floor': ('floorplane',),
                    'wall': ('walls_mat',)}.items()},
                hidden_bodies=tuple(n for n in names if n.endswith('eef_target')),
                visual_groups=(1,), wrist_camera='robot0_eye_in_hand',
                centre=(-0.01, 0.0, TABLE_M + 0.04), distance=0.78, behind_deg=0.0,
                table_height=TABLE_M, tinted=False, shadowed=0.5, faces=500)
        return self._stage

    def attempt(self, seed: int, wanted: bool, *, hz: float) -> Attempt | None:
        """
        Make an attempt that ends as wanted; None where none of TRIES does.

        One that is accomplished for a while only belongs to neither kind, and is made again.
        """
        shares = kinds_of(self.goal.family, self._mistakes)
        for tries in range(TRIES):
            # A way that does not end so with this seed gives way to the next one.
            kind = kind_of(seed, wanted, shares, self._phase + 0.2 * (tries // 4))
            rng = np.random.default_rng([seed, tries, 5])
            conduct = draw_conduct(kind, self.goal.family, rng)
            others = self._mistakes.get(kind) or [self.goal]
            meant = others[int(rng.integers(len(others)))]
            trajectory = self.roll(seed, conduct, meant, tries)
            if trajectory is None:
                continue
            first = trajectory.success_frame
            if all(trajectory.success[first:]) if wanted and first is not None else (
                    first is None and not wanted):
                kept = resampled_at(trajectory, hz)
                return Attempt(kind, kept, (
                    *self.tags(kind, wanted, meant), f'try:{tries}'), self.points(kept.shots))
        return None

    def tags(self, kind: str, wanted: bool, meant: Goal) -> tuple[str, ...]:
        """Say of an attempt what is on the table, and what else was done for what reason."""
        cause = 'language' if kind in MISTAKES else 'motion'
        return (f'family:{self.goal.family}', *(() if wanted else (f'cause:{cause}',)),
                *(f'done:{text}' for text in meant.texts[:1] if meant != self.goal),
                *(f'thing:{name}' for name in self.scene.loose),
                *(f'part:{part}' for part in self.scene.parts))

    def points(self, shots: Sequence[Shot]) -> dict[str, Floats]:
        """
        Return where things are: the middle of a loose one, the handle of a fixture's part.

        :returns: [F, 3] by name, metres.
        """
        known, thought = things(), mujoco.MjData(self.model)
        found: dict[str, list[Floats]] = {}
        for shot in shots:
            thought.qpos[:] = shot.qpos
            mujoco.mj_kinematics(self.model, thought)
            for name in self.scene.loose:
                body = thought.body(name)
                found.setdefault(name, []).append(np.array(
                    body.xpos + 0.5 * known[name].kind.height * body.xmat[2::3]))
            for part in self.scene.parts:
                found.setdefault(part, []).append(np.array(thought.site(handle(part)).xpos))
        return {name: np.stack(some) for name, some in found.items()}

    def roll(
        self, seed: int, conduct: Conduct, meant: Goal, take: int = 0,
    ) -> Trajectory | None:
        """
        Run one attempt.

        :param meant: the goal that the arm has.
        :param take: another one gives another start with the same seed.
        :returns: None where there is no room for it, or it is accomplished at the start.
        """
        rng = np.random.default_rng([seed, take, 3])
        try:
            self._begin(draw_layout(self.scene, (self.goal, meant), rng), meant, rng)
            moves = script(self, meant, conduct, rng)
            move = next(moves)
        except (NoWay, ValueError):
            return None
        data, arm = self._data, self._arm
        begin, elapsed, limit = self.rest, 0.0, LIMIT_STEPS
        turned, turn = arm.rest_deg, arm.turn_for(move.axis_deg, arm.rest_deg)
        shots: list[Shot] = []
        success: list[bool] = []
        actions: list[Floats] = []
        proprio: list[Floats] = []
        done, carried = False, Carried(conduct, CONTROL_HZ, rng)
        for step in range(LIMIT_STEPS):
            if step >= limit:
                break
            position, grip = arm.position, arm.grip()
            shots.append(Shot(data.qpos.copy(), grip))
            self._touching = None
            done = accomplished(self.goal, self, done)
            if done and step == 0:
                return None
            success.append(done)
            late = elapsed - move.seconds
            near = carried.frozen or conduct.noise or np.linalg.norm(
                position - move.target) < _TOLERANCE
            following = next(moves, None) if late >= 0.0 and (near or late > _LATE_S) else None
            if following is not None:
                begin, move, elapsed = move.target, following, 0.0
                turned, turn = turn, arm.turn_for(move.axis_deg, turn)
                if move.name == 'leave' and limit == LIMIT_STEPS:
                    limit = step + int(rng.uniform(*_AFTER_S) * CONTROL_HZ)
            elapsed += 1.0 / CONTROL_HZ
            part = min(elapsed / move.seconds, 1.0)
            goal, way = _along(begin, move, part), turned + _smooth(part) * (turn - turned)
            goal, gripper = carried.command(
                step, move.name, part, goal, move.gripper, actions[-1] if actions else None)
            actions.append(np.concatenate([goal, _rotvec(way), [gripper]]))
            proprio.append(np.array([*position, grip.width]))
            arm.step(goal, way, gripper)
        return Trajectory(
            tuple(shots), tuple(i / CONTROL_HZ for i in range(len(shots))), tuple(success),
            tuple(actions), tuple(proprio), carried.fault_s)

    def _begin(self, layout: Layout, meant: Goal, rng: np.random.Generator) -> None:
        """Put everything where this attempt begins."""
        model, data = self.model, self._data
        mujoco.mj_resetData(model, data)
        known = things()
        for name, (x, y, turn) in layout.at.items():
            half = np.deg2rad(turn) / 2
            if name in known:
                data.joint(name).qpos[:] = [
                    x, y, TABLE_M + 0.002, np.cos(half), 0.0, 0.0, np.sin(half)]
            else:
                model.body(FIXTURE).pos[:] = x, y, TABLE_M
                model.body(FIXTURE).quat[:] = np.cos(half), 0.0, 0.0, np.sin(half)
        wanted = {meant.it: meant.relation, self.goal.it: self.goal.relation}
        for part in self.scene.parts:
            # The others stand as the one that is meant, so that nothing but its name tells it.
            state = wanted.get(part, self.goal.relation)
            low, high = TRAVEL[self.goal.family]
            data.joint(f'joint_{part}').qpos[:] = low + AT_FIRST[state] * (high - low)
        self.rest = np.array([rng.uniform(-0.17, -0.10), rng.uniform(-0.06, 0.06),
                              TABLE_M + rng.uniform(0.22, 0.27)])
        self._arm.begin(self.rest)
        for _ in range(_SETTLE_STEPS):
            self._arm.step(self.rest, self._arm.rest_deg, OPEN)
        mujoco.mj_forward(model, data)
        self._touching = None
        self.rest = self._arm.position
        self._starts = {name: self.centre(name) for name in self.scene.loose}

    # What the goals and the expert see: tabletop_goals.State, tabletop_expert.Table.

    def names(self) -> tuple[str, ...]:
        """Return the names of the loose things."""
        return self.scene.loose

    def centre(self, name: str) -> Floats:
        """Return where the middle of a thing is."""
        body = self._data.body(name)
        return np.asarray(body.xpos + 0.5 * things()[name].kind.height * body.xmat[2::3])

    def start(self, name: str) -> Floats:
        """Return where that was at first."""
        return self._starts[name]

    def origin(self, name: str) -> Floats:
        """Return where the middle of a thing's bottom is."""
        return np.array(self._data.body(name).xpos)

    def turned(self, name: str) -> float:
        """Return how a thing is turned, seen from above, degrees."""
        rotation = self._data.body(name).xmat
        return float(np.rad2deg(np.arctan2(rotation[3], rotation[0])))

    def within(self, name: str, place: str) -> Floats:
        """Return where the middle of a thing is, as a place lies."""
        body = self._data.body(place)
        return np.asarray(body.xmat.reshape(3, 3).T @ (self.centre(name) - body.xpos))

    def speed(self, name: str) -> float:
        """Return how fast a thing is."""
        return float(np.linalg.norm(self._data.joint(name).qvel[:3]))

    def joint(self, part: str) -> float:
        """Return how a part of the fixture stands, 0 to 1."""
        low, high = TRAVEL[self.goal.family]
        return float((self._data.joint(f'joint_{part}').qpos[0] - low) / (high - low))

    def hand(self) -> Floats:
        """Return where the middle between the fingers is."""
        return self._arm.position

    def touch(self, one: str, other: str) -> bool:
        """Tell whether two touch."""
        if self._touching is None:
            pairs = self._data.contact.geom[:self._data.ncon]
            self._touching = {frozenset((self._names[a], self._names[b])) for a, b in pairs}
        return frozenset((one, other)) in self._touching

    def path(self, part: str, relation: str) -> Floats:
        """Return where a handle goes, [n, 3], from where it is to where it is wanted."""
        points = []
        thought = mujoco.MjData(self.model)
        thought.qpos[:] = self._data.qpos
        for value in np.linspace(*self.angles(part, relation), _POINTS):
            thought.joint(f'joint_{part}').qpos[:] = value
            mujoco.mj_kinematics(self.model, thought)
            points.append(np.array(thought.site(handle(part)).xpos))
        return np.array(points)

    def angles(self, part: str, relation: str) -> tuple[float, float]:
        """Return how its joint stands now, and how it is wanted, metres or radians."""
        low, high = TRAVEL[self.goal.family]
        now = float(self._data.joint(f'joint_{part}').qpos[0])
        return now, low + AT_LAST[relation] * (high - low)

    def _owners(self) -> list[str]:
        """Name for each geom what it belongs to."""
        names = []
        for geom in range(self.model.ngeom):
            body = self.model.body(int(self.model.geom_bodyid[geom])).name
            names.append(body if body in self.scene.loose else TABLE if body == 'table'
                         else HAND if body.startswith(('gripper0', 'robot0')) else body)
        return names


def _smooth(part: float) -> float:
    return part ** 3 * (10 - 15 * part + 6 * part ** 2)


def _along(begin: Floats, move: Move, part: float) -> Floats:
    """Return where to be in a part of a move, which begins and ends gently."""
    smooth = _smooth(part)
    points = np.concatenate([begin[None], move.path])
    if len(points) == 2:
        return np.asarray(begin + smooth * (points[1] - begin))
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return np.array([np.interp(smooth * lengths[-1], lengths, points[:, i]) for i in range(3)])


def _rotvec(turn_deg: float) -> Floats:
    """Return the rotation vector of a hand that points down."""
    quat, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quat, downward(turn_deg).ravel())
    mujoco.mju_quat2Vel(vector, quat, 1.0)
    return vector
