# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Five tasks of a lab in robosuite, on arms that nothing was trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from hralign_ros.simulation.behaviour import CLOSED, OPEN
from hralign_ros.simulation.lab_conduct import (
    Carried,
    CLUMSY,
    Conduct,
    FAR,
    GOOD,
    kind_of,
    LIFT,
    make_conduct,
    NEAR,
    PLACE,
    PUSH,
)
from hralign_ros.simulation.renderer import Shot, Stage
from hralign_ros.simulation.robosuite_tasks import (
    CONTROL_HZ,
    GRASP_ABOVE,
    level,
    reseed,
    Robosuite,
    SETTLE_STEPS,
    TOLERANCE,
)
from hralign_ros.simulation.worlds import resampled_at, Task, Trajectory
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ARMS = ('kinova3', 'iiwa')
# The first two are tasks of the shipped bundle.
TASKS = (
    Task('lift', 'Lift', 'lift the cube'),
    Task('pick-can', 'PickPlaceCan', 'put the can in the bin'),
    Task('cube-left', 'Lift', 'put the cube on the left side of the table'),
    Task('cube-beside', 'Stack', 'put the small cube beside the other cube'),
    Task('cube-push', 'Lift', 'push the cube away from the robot'),
)
MOVES = {'lift': LIFT, 'cube-push': PUSH, 'pick-can': PLACE, 'cube-left': PLACE,
         'cube-beside': PLACE}
# Where things lie at first: x away from the robot, y to its left, metres from the table's middle.
_STARTS = {'lift': ((-0.10, 0.10), (-0.13, 0.13)), 'cube-left': ((-0.10, 0.10), (-0.16, 0.02)),
           'cube-beside': ((-0.11, 0.11), (-0.13, 0.13)),
           'cube-push': ((-0.12, -0.02), (-0.13, 0.13)),
           # From the middle of its bin, within every arm's reach.
           'pick-can': ((-0.12, 0.08), (-0.12, 0.16))}
# Accomplished: the cube is so high, so far to the left, so near to the other, so far away.
LIFTED_M, LEFT_M, BESIDE_M, AWAY_M = 0.06, 0.12, 0.085, 0.10
_APART_M = 0.14
_BINS_DISTANCE = 1.75
# Slower than this is at rest, metres a second.
_REST = 0.03
LIMIT_STEPS = 20 * CONTROL_HZ
# A recording goes on after the last thing that was to be done, seconds: 1.5 to 2.5 after a
# success, as a cube is lifted before that, and a pushed one comes to rest after it.
AFTER_S = {LIFT: (1.2, 2.2), PLACE: (1.6, 2.6), PUSH: (2.0, 3.0)}
_LATE_S = 0.6
TRIES = 12


@dataclass(frozen=True)
class Move:
    """Go to a position in so many seconds with this gripper command; named as in lab_conduct."""

    name: str
    target: Floats
    seconds: float
    gripper: float


@dataclass(frozen=True)
class Attempt:
    """
    An attempt that ended as it was wanted.

    :param kind: how it was made.
    :param tags: what else the episode is tagged with.
    :param points: by name, where things are in each frame, [F, 3]; none: not known.
    """

    kind: str
    trajectory: Trajectory
    tags: tuple[str, ...] = ()
    points: Mapping[str, Floats] = field(default_factory=dict)


class Lab(Robosuite):
    """One task of a lab with one arm."""

    def __init__(self, task: Task, embodiment: str) -> None:
        super().__init__(task, embodiment)
        self.moves = MOVES[task.task_id]
        sampler = self._environment.placement_initializer
        if task.task_id == 'pick-can':
            sampler = sampler.samplers['CollisionObjectSampler']
        sampler.x_range, sampler.y_range = map(list, _STARTS[task.task_id])

    @property
    def stage(self) -> Stage:
        """Return what the renderer needs; both bins are in the image."""
        stage = super().stage
        bins = self.task.environment.startswith('PickPlace')
        return replace(stage, distance=_BINS_DISTANCE) if bins else stage

    def attempt(self, seed: int, wanted: bool, *, hz: float) -> Attempt | None:
        """
        Make an attempt that ends as wanted; None where none of TRIES does.

        One that is accomplished for a while only belongs to neither kind, and is made again.
        """
        for tries in range(TRIES):
            # A way that does not end so with this seed gives way to the next one.
            kind = kind_of(seed, wanted, self.moves, 0.2 * (tries // 4))
            trajectory = self.roll(seed, make_conduct(
                kind, self.moves, np.random.default_rng([seed, tries, 5])), tries)
            first = trajectory.success_frame
            if all(trajectory.success[first:]) if wanted and first is not None else (
                    first is None and not wanted):
                return Attempt(kind, resampled_at(trajectory, hz))
        return None

    def roll(self, seed: int, conduct: Conduct, take: int = 0) -> Trajectory:
        """
        Run one attempt.

        :param take: another one gives another start with the same seed.
        """
        environment = self._environment
        rng = np.random.default_rng([seed, take, 3])
        rest, rotation = self._begin(np.random.default_rng([seed, take]))
        data, site = environment.sim.data._data, environment.robots[0].eef_site_id['right']
        moves = self._script(rest, conduct, rng)
        move, begin, elapsed = next(moves), rest, 0.0
        shots: list[Shot] = []
        success: list[bool] = []
        actions: list[Floats] = []
        proprio: list[Floats] = []
        done, limit, carried = False, LIMIT_STEPS, Carried(conduct, CONTROL_HZ, rng)
        for step in range(LIMIT_STEPS):
            if step >= limit:
                break
            position = data.site_xpos[site].copy()
            grip = self._grip(position)
            shots.append(Shot(data.qpos.copy(), grip))
            done = self._accomplished(done)
            success.append(done)
            late = elapsed - move.seconds
            near = carried.frozen or conduct.noise or np.linalg.norm(
                position - move.target) < TOLERANCE
            following = next(moves, None) if late >= 0.0 and (near or late > _LATE_S) else None
            if following is not None:
                begin, move, elapsed = move.target, following, 0.0
                if move.name == 'leave' and limit == LIMIT_STEPS:
                    limit = step + int(rng.uniform(*AFTER_S[self.moves]) * CONTROL_HZ)
            elapsed += 1.0 / CONTROL_HZ
            part = min(elapsed / move.seconds, 1.0)
            goal = begin + (part ** 3 * (10 - 15 * part + 6 * part ** 2)) * (move.target - begin)
            goal, gripper = carried.command(
                step, move.name, part, goal, move.gripper, actions[-1] if actions else None)
            action = np.concatenate([goal, rotation, [gripper]])
            actions.append(action)
            proprio.append(np.array([*position, grip.width]))
            environment.step(action)
        return Trajectory(
            tuple(shots), tuple(i / CONTROL_HZ for i in range(len(shots))), tuple(success),
            tuple(actions), tuple(proprio), carried.fault_s)

    def _begin(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Put everything where this attempt begins; return where the hand is and how turned."""
        environment = self._environment
        environment.rng = rng
        reseed(environment.placement_initializer, rng)
        while True:
            environment.reset()
            if self.task.environment != 'Stack' or self._apart() > _APART_M:
                break
        data = environment.sim.data._data
        site = environment.robots[0].eef_site_id['right']
        rotation = level(data.site_xmat[site].reshape(3, 3))
        rest = data.site_xpos[site].copy()
        for _ in range(SETTLE_STEPS):
            environment.step(np.concatenate([rest, rotation, [OPEN]]))
        self._height = float(self._object(data)[2])
        return data.site_xpos[site].copy(), rotation

    def _script(
        self, rest: Floats, conduct: Conduct, rng: np.random.Generator,
    ) -> Iterator[Move]:
        """List what the arm does; where things are is looked up when it is the next thing."""
        pace = rng.uniform(0.85, 1.2)
        ready = CLOSED if self.moves is PUSH else OPEN
        yield Move('wait', rest, rng.uniform(0.2, 1.0), ready)
        way = self._push(conduct, rng) if self.moves is PUSH else self._pick(rest, conduct, rng)
        before = rest
        for move in way:
            if conduct.kind == CLUMSY:
                yield from _clumsily(before, move, rng)
            seconds = move.seconds * pace * rng.uniform(0.9, 1.1)
            yield Move(move.name, move.target, seconds, move.gripper)
            before = move.target

    def _push(self, conduct: Conduct, rng: np.random.Generator) -> Iterator[Move]:
        cube = self._object(self._environment.sim.data._data)
        aside = np.array(conduct.aside)
        behind = np.array([cube[0] - 0.075, cube[1], cube[2] + 0.005]) + aside
        end = {GOOD: rng.uniform(0.025, 0.075), NEAR: rng.uniform(-0.06, -0.02),
               FAR: -0.15}[conduct.place]
        if conduct.kind == CLUMSY:
            behind += rng.normal(0.0, 0.012, 3) * (1, 1, 0)
            end = rng.normal(0.035, 0.03)
        # The gripper's closed fingers are this far behind the cube's middle.
        reach = np.array([AWAY_M + end - 0.034, behind[1], behind[2]])
        yield Move('above', behind + (0.0, 0.0, 0.11), 1.4, CLOSED)
        yield Move('down', behind, 0.9, CLOSED)
        yield Move('push', reach, 2.2, CLOSED)
        yield Move('leave', reach + (-0.06, 0.0, 0.11), 1.0, CLOSED)

    def _pick(
        self, rest: Floats, conduct: Conduct, rng: np.random.Generator,
    ) -> Iterator[Move]:
        data = self._environment.sim.data._data
        aside = np.array(conduct.aside)
        clumsy = conduct.kind == CLUMSY
        for again in range(3):
            thing = self._object(data)
            grasp = thing + (0.0, 0.0, GRASP_ABOVE.get(self.task.environment, 0.0)) + aside
            if clumsy:
                # It looks closer after it missed.
                grasp += rng.normal(0.0, 0.008 if again else 0.022, 3) * (1, 1, 0.3)
            yield Move('above', grasp + (0.0, 0.0, 0.11), 0.8 if again else 1.4, OPEN)
            yield Move('down', grasp, 0.9, OPEN)
            yield Move('close', grasp, 0.5, CLOSED)
            if not clumsy or again == 2:
                break
            yield Move('try', grasp + (0.0, 0.0, 0.04), 0.5, CLOSED)
            if self._object(data)[2] > self._height + 0.015:
                break
            if rng.random() < 0.25:  # it does not notice, and goes on with nothing
                break
            if again and rng.random() < 0.4:  # it gives up
                yield Move('leave', rest, 1.2, OPEN)
                return
            yield Move('let go', grasp + (0.0, 0.0, 0.06), 0.6, OPEN)
        if self.moves is LIFT:
            high = grasp + (0.0, 0.0, rng.uniform(0.12, 0.16))
            yield Move('lift', high, 1.4, CLOSED)
            yield Move('leave', high, 1.0, CLOSED)
            return
        placed = self._goal(conduct, rng, float(grasp[2]))
        if clumsy:
            placed = placed + rng.normal(0.0, 0.03, 3) * (1, 1, 0.2)
        over = placed + (0.0, 0.0, 0.13)
        yield Move('lift', grasp + (0.0, 0.0, 0.13), 0.9, CLOSED)
        far = self.task.environment.startswith('PickPlace')
        yield Move('carry', over, 2.0 if far else 1.5, CLOSED)
        yield Move('place', placed, 0.9, CLOSED)
        yield Move('open', placed, 0.4, OPEN)
        away = (-0.10, -0.15, 0.05) if far else (-0.05, -0.03, 0.02)
        yield Move('leave', over + away, 0.9, OPEN)

    def _goal(self, conduct: Conduct, rng: np.random.Generator, height: float) -> Floats:
        """Draw where the hand lets go, metres."""
        environment, where = self._environment, conduct.place
        if self.task.task_id == 'cube-left':
            y = LEFT_M + rng.uniform(*{
                GOOD: (0.025, 0.085), NEAR: (-0.06, -0.018), FAR: (-0.30, -0.10)}[where])
            return np.array([rng.uniform(-0.10, 0.10), y, height + 0.004])
        data = environment.sim.data._data
        if self.task.task_id == 'cube-beside':
            other = data.body(environment.cubeB.root_body).xpos.copy()
            if where == FAR and rng.random() < 0.4:
                return np.array([other[0], other[1], other[2] + 0.047])  # on it, not beside
            # Across the fingers, which would touch the other cube.
            axis = self._grip(np.zeros(3)).axis[:2]
            across = np.array([axis[1], -axis[0]]) / np.linalg.norm(axis)
            # The nearer side; past the other cube the arm would reach over it.
            across *= -np.sign(across @ other[:2]) or 1.0
            gap = rng.uniform(*{
                GOOD: (0.058, 0.072), NEAR: (0.103, 0.145), FAR: (0.17, 0.24)}[where])
            x, y = other[:2] + gap * across
            return np.array([x, y, height + 0.004])
        return self._bin_goal(where, rng, height)

    def _bin_goal(self, where: str, rng: np.random.Generator, height: float) -> Floats:
        """Draw where the hand lets go of the can."""
        environment = self._environment
        goal = np.array(environment.target_bin_placements[environment.object_id])
        # The middle of a compartment is at the limit of the arms' reach: a little nearer.
        x, y = goal[0] - 0.04, goal[1] - 0.02
        half_x, half_y = environment.bin_size[0] / 4, environment.bin_size[1] / 4
        z = height + 0.02
        if where == GOOD:
            return np.array([x + rng.uniform(-0.02, 0.02), y + rng.uniform(-0.03, 0.03), z])
        if where == NEAR:
            # On the wall of its compartment, or just across it.
            short = rng.uniform(-0.005, 0.05)
            if rng.random() < 0.5:
                return np.array([goal[0] - half_x - short, y + rng.uniform(-0.04, 0.04), z + 0.05])
            return np.array([x, goal[1] - half_y - short, z + 0.05])
        if rng.random() < 0.5:  # two compartments off, or back where it came from
            return np.array([goal[0] - 2 * half_x, goal[1] - 2 * half_y, z])
        return np.array([x, environment.bin1_pos[1] + rng.uniform(-0.05, 0.12), z])

    def _apart(self) -> float:
        environment = self._environment
        data = environment.sim.data._data
        one, other = (data.body(cube.root_body).xpos[:2]
                      for cube in (environment.cubeA, environment.cubeB))
        return float(np.linalg.norm(one - other))

    def _accomplished(self, before: bool) -> bool:
        """
        Tell from the simulator's state whether the task is accomplished now.

        :param before: it was; then it takes more than a touch to undo it.
        """
        environment, task = self._environment, self.task.task_id
        data = environment.sim.data._data
        if self.task.environment.startswith('PickPlace'):
            body = environment.objects[environment.object_id]
        else:
            body = environment.cube if self.task.environment == 'Lift' else environment.cubeA
        place = data.body(body.root_body).xpos
        touched = environment.check_contact(environment.robots[0].gripper['right'], body)
        rise = float(place[2]) - self._height
        if task == 'lift':
            return rise > (LIFTED_M - 0.01 if before else LIFTED_M) and bool(touched or before)
        there = {
            'pick-can': lambda: not environment.not_in_bin(place, environment.object_id),
            'cube-left': lambda: place[1] > LEFT_M and abs(rise) < 0.01,
            'cube-beside': lambda: self._apart() < BESIDE_M and abs(rise) < 0.01,
            'cube-push': lambda: place[0] > AWAY_M and abs(rise) < 0.01}[task]()
        if before or not there:
            return bool(there)
        speed = np.linalg.norm(data.joint(body.joints[0]).qvel[:3])
        return bool(speed < _REST and (not touched or task == 'cube-push'))


def _clumsily(before: Floats, move: Move, rng: np.random.Generator) -> Iterator[Move]:
    """Hesitate before a move, or go too far first."""
    if rng.random() < 0.25:
        yield Move('hesitate', before, rng.uniform(0.2, 0.7), move.gripper)
    way = move.target - before
    length = float(np.linalg.norm(way))
    if move.name in ('above', 'carry') and length > 0.02 and rng.random() < 0.4:
        too_far = move.target + way / length * rng.uniform(0.015, 0.04)
        yield Move('too far', too_far, move.seconds, move.gripper)
