# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Robosuite's picking tasks on a Panda or a UR5e, each done by a small state machine."""

from dataclasses import dataclass
import logging
from typing import Any

from hralign_ros.simulation.behaviour import (
    Behaviour,
    CLOSED,
    EXPERT,
    FAULTS,
    IDLE,
    OPEN,
)
from hralign_ros.simulation.hand import Grip
from hralign_ros.simulation.renderer import Shot, Stage
from hralign_ros.simulation.worlds import every, resampled_at, Task, thin, Trajectory
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROBOTS = {'panda': 'Panda', 'ur5e': 'UR5e'}
# Arms of labs: no other episode has them.
LAB_ROBOTS = {'kinova3': 'Kinova3', 'iiwa': 'IIWA'}
TASKS = (
    Task('lift', 'Lift', 'lift the cube'),
    Task('stack', 'Stack', 'stack the small cube on the other cube'),
    Task('pick-can', 'PickPlaceCan', 'put the can in the bin'),
    Task('pick-milk', 'PickPlaceMilk', 'put the milk in the bin'),
    Task('pick-bread', 'PickPlaceBread', 'put the bread in the bin'),
    Task('pick-cereal', 'PickPlaceCereal', 'put the cereal box in the bin'),
)
CONTROL_HZ = 20
LIMIT_STEPS = 240
FRAME_STEPS = 6
MAX_FRAMES = 34
SETTLE_STEPS = 8
_AFTER_STEPS = 40
# How far above the object's centre the fingers close, metres.
GRASP_ABOVE = {'PickPlaceMilk': 0.03, 'PickPlaceCereal': 0.035, 'PickPlaceCan': 0.012}
TOLERANCE = 0.012


@dataclass(frozen=True)
class _Phase:
    """Go to a position in so many seconds with this gripper command."""

    target: Floats
    seconds: float
    gripper: float


class Robosuite:
    """One task of robosuite with one robot."""

    source = 'robosuite'
    license_id = 'Apache-2.0'

    def __init__(self, task: Task, embodiment: str) -> None:
        import robosuite
        from robosuite.controllers import load_composite_controller_config

        logging.getLogger('robosuite_logs').setLevel(logging.ERROR)
        self.task = task
        self.embodiment = embodiment
        robot = (ROBOTS | LAB_ROBOTS)[embodiment]
        controller = load_composite_controller_config(controller='BASIC', robot=robot)
        controller['body_parts']['right'].update(input_type='absolute', input_ref_frame='world')
        self._environment: Any = robosuite.make(
            task.environment, robots=robot, controller_configs=controller,
            control_freq=CONTROL_HZ, has_renderer=False, has_offscreen_renderer=False,
            use_camera_obs=False, ignore_done=True, hard_reset=False, seed=0)
        self._environment.reset()
        self._stage: Stage | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the faults that make a difference to this task."""
        return FAULTS

    def close(self) -> None:
        """Free the simulator."""
        self._environment.close()

    @property
    def model(self) -> Any:
        """Return the model as the last run left it."""
        return self._environment.sim.model._model

    @property
    def stage(self) -> Stage:
        """Return what the renderer needs."""
        if self._stage is None:
            model = self.model
            names = [model.body(b).name for b in range(model.nbody)]
            spec = mujoco.MjSpec.from_string(self._environment.model.get_xml())
            materials = {m.name for m in spec.materials}
            bins = self.task.environment.startswith('PickPlace')
            self._stage = Stage(
                spec=spec, model=model,
                robot_bodies=tuple(n for n in names if n in ('robot0_base', 'base0', 'mount0')
                                   or n.startswith(('fixed_mount0_base', 'rethink'))),
                surfaces={surface: tuple(set(wanted) & materials) for surface, wanted in {
                    'table': ('table_ceramic', 'light-wood', 'dark-wood'),
                    'floor': ('floorplane',), 'wall': ('walls_mat',)}.items()},
                hidden_bodies=tuple(n for n in names if n.startswith('Visual')),
                visual_groups=(1,), wrist_camera='robot0_eye_in_hand',
                centre=(0.1, 0.0, 0.92) if bins else (0.0, 0.0, 0.88),
                distance=1.25 if bins else 0.85, behind_deg=0.0, table_height=0.82)
        return self._stage

    def run(
        self, seed: int, behaviour: Behaviour, *, hz: float = 0.0,
    ) -> Trajectory | None:
        """Run one episode; None where even the expert never succeeds with this seed."""
        rng = np.random.default_rng([seed, 2])
        limit = LIMIT_STEPS
        first: int | None = None
        if behaviour.kind in ('stops_early', 'drops'):
            expert = self._roll(seed, Behaviour(EXPERT), LIMIT_STEPS, None)
            first = expert.success_frame
            if first is None:
                return None
            limit = int(min(first * rng.uniform(0.9, 1.3) + _AFTER_STEPS / 2, LIMIT_STEPS))
        elif behaviour.kind != EXPERT:
            limit = int(rng.uniform(0.6, 0.95) * LIMIT_STEPS)
        trajectory = self._roll(seed, behaviour, limit, first)
        if behaviour.kind == EXPERT and trajectory.success_frame is None:
            return None
        if hz:
            return resampled_at(trajectory, hz)
        return every(trajectory, slice(0, None, thin(
            len(trajectory.shots), MAX_FRAMES, FRAME_STEPS)))

    def _roll(
        self, seed: int, behaviour: Behaviour, limit: int, first: int | None,
    ) -> Trajectory:
        """Run up to `limit` steps, or until a little after success."""
        environment = self._environment
        rng = np.random.default_rng([seed, 3])
        environment.rng = np.random.default_rng(seed)
        reseed(getattr(environment, 'placement_initializer', None), environment.rng)
        environment.reset()
        data = environment.sim.data._data
        site = environment.robots[0].eef_site_id['right']
        rotation = level(data.site_xmat[site].reshape(3, 3))
        rest = data.site_xpos[site].copy()
        for _ in range(SETTLE_STEPS):
            environment.step(np.concatenate([rest, rotation, [OPEN]]))
        rest = data.site_xpos[site].copy()
        phases = self._plan(rest, behaviour, rng)
        shots: list[Shot] = []
        success: list[bool] = []
        actions: list[Floats] = []
        proprio: list[Floats] = []
        index, elapsed, begin = 0, 0.0, rest
        start = int(behaviour.start * (first or 0))
        since = None
        for step in range(limit):
            position = data.site_xpos[site].copy()
            grip = self._grip(position)
            shots.append(Shot(data.qpos.copy(), grip))
            done = bool(environment._check_success())
            success.append(done)
            phase = phases[index]
            late = elapsed - phase.seconds
            near = np.linalg.norm(position - phase.target) < TOLERANCE
            if index + 1 < len(phases) and ((late >= 0.0 and near) or late > 0.8):
                index, elapsed, begin = index + 1, 0.0, phase.target
                phase = phases[index]
            elapsed += 1.0 / CONTROL_HZ
            part = min(elapsed / phase.seconds, 1.0)
            goal = begin + (part ** 3 * (10 - 15 * part + 6 * part ** 2)) * (
                phase.target - begin)
            gripper = phase.gripper
            if behaviour.kind == 'no_grasp' or (
                    behaviour.kind == 'drops' and step >= start):
                gripper = OPEN
            if behaviour.kind in ('stops_early', IDLE) and step >= start:
                goal = actions[start - 1][:3] if start else rest
                gripper = float(actions[start - 1][6]) if start else OPEN
            goal = goal + rng.normal(0.0, 0.02 * behaviour.noise, 3) * (
                behaviour.kind != EXPERT)
            action = np.concatenate([goal, rotation, [gripper]])
            actions.append(action)
            proprio.append(np.array([*position, grip.width]))
            environment.step(action)
            since = step if done and since is None else since
            if since is not None and step >= since + _AFTER_STEPS:
                break
        fault = None if behaviour.kind == EXPERT else start / CONTROL_HZ
        return Trajectory(
            tuple(shots), tuple(i / CONTROL_HZ for i in range(len(shots))), tuple(success),
            tuple(actions), tuple(proprio), fault)

    def _plan(
        self, hand: Floats, behaviour: Behaviour, rng: np.random.Generator,
    ) -> list[_Phase]:
        """List where to go, from where the hand and the object are."""
        environment, data = self._environment, self._environment.sim.data._data
        name = self.task.environment
        thing = self._object(data) + behaviour.offset
        grasp = thing + (0.0, 0.0, GRASP_ABOVE.get(name, 0.0))
        pace = rng.uniform(0.85, 1.2)
        above = grasp + (0.0, 0.0, 0.11)
        phases = [_Phase(above, 1.4 * pace, OPEN), _Phase(grasp, 0.9 * pace, OPEN),
                  _Phase(grasp, 0.45, CLOSED)]
        if name == 'Lift':
            return [*phases, _Phase(grasp + (0.0, 0.0, 0.15), 1.4 * pace, CLOSED)]
        if name == 'Stack':
            goal = data.body(environment.cubeB.root_body).xpos.copy()
            placed = goal + (0.0, 0.0, 0.047)
        else:
            # The middle of a compartment is at the limit of the arms' reach: a little nearer.
            goal = np.array(environment.target_bin_placements[environment.object_id])
            goal = goal - (0.04, 0.02, 0.0)
            placed = np.array([goal[0], goal[1], grasp[2] + 0.02])
        over = np.array([goal[0], goal[1], max(grasp[2], placed[2]) + 0.13])
        return [
            *phases, _Phase(grasp + (0.0, 0.0, 0.14), 0.9 * pace, CLOSED),
            _Phase(over, 1.5 * pace, CLOSED), _Phase(placed, 0.9 * pace, CLOSED),
            _Phase(placed, 0.35, OPEN), _Phase(over + (-0.05, -0.03, 0.03), 0.9, OPEN)]

    def _object(self, data: Any) -> Floats:
        environment = self._environment
        if self.task.environment in ('Lift', 'Stack'):
            cube = environment.cube if self.task.environment == 'Lift' else environment.cubeA
            return np.array(data.body(cube.root_body).xpos)
        thing = environment.objects[environment.object_id]
        return np.array(data.body(thing.root_body).xpos)

    def _grip(self, position: Floats) -> Grip:
        """Read where the gripper is and how far it is open."""
        data, model = self._environment.sim.data._data, self.model
        gripper = self._environment.robots[0].gripper['right']
        pads = gripper.important_geoms
        left, right = (np.mean([data.geom_xpos[model.geom(g).id] for g in pads[side]], axis=0)
                       for side in ('left_fingerpad', 'right_fingerpad'))
        axis = left - right
        width = float(np.clip(np.linalg.norm(axis) - 0.012, 0.0, 0.09))
        return Grip(position=position, approach=np.array([0.0, 0.0, -1.0]), axis=axis,
                    width=width)


def reseed(sampler: Any, rng: np.random.Generator) -> None:
    """Make the placement of objects follow this episode's seed."""
    if sampler is None:
        return
    sampler.rng = rng
    for inner in getattr(sampler, 'samplers', {}).values():
        reseed(inner, rng)


def level(rotation: Floats) -> Floats:
    """Return the rotation vector of a hand pointing straight down, turned as it is."""
    import cv2

    forward = np.array([rotation[0, 0], rotation[1, 0], 0.0])
    forward /= np.linalg.norm(forward)
    down = np.array([0.0, 0.0, -1.0])
    matrix = np.stack([forward, np.cross(down, forward), down], axis=1)
    return np.asarray(cv2.Rodrigues(matrix)[0], dtype=np.float64).ravel()
