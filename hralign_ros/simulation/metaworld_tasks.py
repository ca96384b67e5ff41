# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Meta-World's 50 tasks with their scripted experts (a Sawyer arm)."""

from typing import Any
import warnings

from hralign_ros.simulation.behaviour import Behaviour, EXPERT, FAULTS, IDLE
from hralign_ros.simulation.hand import Grip
from hralign_ros.simulation.renderer import Shot, Stage
from hralign_ros.simulation.worlds import every, resampled_at, Task, thin, Trajectory
import mujoco
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TEXTS = {
    'assembly': 'put the ring on the peg',
    'basketball': 'put the ball in the basket',
    'bin-picking': 'move the block to the other bin',
    'box-close': 'put the lid on the box',
    'button-press': 'press the button',
    'button-press-topdown': 'press the button from above',
    'button-press-topdown-wall': 'press the button behind the wall from above',
    'button-press-wall': 'press the button behind the wall',
    'coffee-button': 'press the button of the coffee machine',
    'coffee-pull': 'pull the mug away from the coffee machine',
    'coffee-push': 'push the mug under the coffee machine',
    'dial-turn': 'turn the dial',
    'disassemble': 'take the ring off the peg',
    'door-close': 'close the door',
    'door-lock': 'lock the door',
    'door-open': 'open the door',
    'door-unlock': 'unlock the door',
    'drawer-close': 'close the drawer',
    'drawer-open': 'open the drawer',
    'faucet-close': 'turn the faucet off',
    'faucet-open': 'turn the faucet on',
    'hammer': 'hammer the nail in',
    'hand-insert': 'put the block into the hole',
    'handle-press': 'press the handle down',
    'handle-press-side': 'press the handle down from the side',
    'handle-pull': 'pull the handle up',
    'handle-pull-side': 'pull the handle up from the side',
    'lever-pull': 'pull the lever up',
    'peg-insert-side': 'insert the peg into the hole in the side',
    'peg-unplug-side': 'pull the peg out of the hole',
    'pick-out-of-hole': 'take the block out of the hole',
    'pick-place': 'pick up the block and hold it at the goal',
    'pick-place-wall': 'lift the block over the wall',
    'plate-slide': 'slide the plate into the cabinet',
    'plate-slide-back': 'slide the plate out of the cabinet',
    'plate-slide-back-side': 'slide the plate out of the cabinet sideways',
    'plate-slide-side': 'slide the plate into the cabinet sideways',
    'push': 'push the block to the goal',
    'push-back': 'pull the block back to the goal',
    'push-wall': 'push the block around the wall',
    'reach': 'reach the goal',
    'reach-wall': 'reach the goal behind the wall',
    'shelf-place': 'put the block on the shelf',
    'soccer': 'push the ball into the goal',
    'stick-pull': 'pull the box with the stick',
    'stick-push': 'push the box with the stick',
    'sweep': 'sweep the block off the table',
    'sweep-into': 'sweep the block into the hole',
    'window-close': 'close the window',
    'window-open': 'open the window',
}
# Reaching moves nothing: without the drawing of the goal there is nothing to see.
_LEFT_OUT = {'reach', 'reach-wall'}
TASKS = tuple(Task(name, f'{name}-v3', text) for name, text in TEXTS.items()
              if name not in _LEFT_OUT)

# Where a gripper that stays open, or opens on the way, changes nothing.
_OPEN_IS_FINE = {
    'button-press', 'button-press-topdown', 'button-press-topdown-wall', 'button-press-wall',
    'coffee-button', 'door-close', 'door-lock', 'door-unlock', 'drawer-close', 'drawer-open',
    'faucet-close', 'faucet-open', 'handle-press', 'handle-press-side', 'lever-pull',
    'plate-slide', 'plate-slide-back', 'plate-slide-back-side', 'plate-slide-side',
    'window-close', 'window-open'}
_OPENING_IS_FINE = _OPEN_IS_FINE | {
    'dial-turn', 'door-open', 'hand-insert', 'handle-pull', 'sweep-into'}

# The experts move about five times as fast as a real arm does; time is stretched by as much.
STRETCH = 5.0
LIMIT_STEPS = 450
FRAME_STEPS = 5
MAX_FRAMES = 34
# After the success, in steps: up to 2.5 s of stretched time.
_AFTER = (16, 40)
_FRESH = 24


class MetaWorld:
    """One task of Meta-World."""

    source = 'metaworld'
    license_id = 'Apache-2.0'
    embodiment = 'sawyer'

    def __init__(self, task: Task) -> None:
        from metaworld import policies
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        warnings.filterwarnings('ignore', category=UserWarning)
        self.task = task
        self._environment: Any = ALL_V3_ENVIRONMENTS[task.environment]()
        # As Meta-World's own benchmarks set it up, but with the goal visible to the expert.
        self._environment._partially_observable = False
        self._environment._freeze_rand_vec = False
        self._environment._set_task_called = True
        self._environment.seeded_rand_vec = True
        self._environment.__dict__.pop('sawyer_observation_space', None)
        words = ''.join(word.capitalize() for word in task.task_id.split('-'))
        words = {'PegInsertSide': 'PegInsertionSide'}.get(words, words)
        self._policy = getattr(policies, f'Sawyer{words}V3Policy')
        self._stage: Stage | None = None

    @property
    def faults(self) -> tuple[str, ...]:
        """Return the faults that make a difference to this task."""
        without = {'no_grasp'} if self.task.task_id in _OPEN_IS_FINE else set()
        without |= {'drops'} if self.task.task_id in _OPENING_IS_FINE else set()
        return tuple(kind for kind in FAULTS if kind not in without)

    def close(self) -> None:
        """Free the simulator."""
        self._environment.close()

    @property
    def model(self) -> Any:
        """Return the model as the last run left it."""
        return self._environment.model

    @property
    def stage(self) -> Stage:
        """Return what the renderer needs."""
        if self._stage is None:
            model = self.model
            names = {model.body(b).name for b in range(model.nbody)}
            spec = mujoco.MjSpec.from_file(self._environment.model_name)
            materials = {m.name for m in spec.materials}
            self._stage = Stage(
                spec=spec, model=model,
                robot_bodies=tuple({'base', 'mocap'} & names),
                surfaces={surface: tuple(set(wanted) & materials) for surface, wanted in {
                    'table': ('table_wood',), 'floor': ('basic_floor',),
                    'wall': ('wall_metal',)}.items()},
                hidden_bodies=(), visual_groups=(0, 1, 2), wrist_camera='gripperPOV',
                centre=(0.0, 0.68, 0.09), distance=0.98, behind_deg=90.0, table_height=0.0)
        return self._stage

    def run(
        self, seed: int, behaviour: Behaviour, *, hz: float = 0.0,
    ) -> Trajectory | None:
        """Run one episode; None where even the expert never succeeds with this seed."""
        rng = np.random.default_rng([seed, 1])
        expert = self._roll(seed, Behaviour(EXPERT, noise=0.08), LIMIT_STEPS, None, rng)
        first = expert.success_frame
        if first is None or first < _FRESH:
            return None
        if behaviour.kind == EXPERT:
            steps = min(first + int(rng.integers(*_AFTER)), len(expert.shots))
            return _framed(expert, steps, hz)
        steps = int(min(first * rng.uniform(0.8, 1.5) + rng.integers(*_AFTER), LIMIT_STEPS))
        return _framed(self._roll(seed, behaviour, steps, first, rng), steps, hz)

    def _roll(
        self, seed: int, behaviour: Behaviour, limit: int, first: int | None,
        rng: np.random.Generator,
    ) -> Trajectory:
        """Run up to `limit` steps, an expert until a little after its success."""
        environment, policy = self._environment, self._policy()
        environment.seed(seed)
        environment.curr_path_length = 0
        observed, _ = environment.reset(seed=seed)
        shots, success, actions, proprio = [], [], [], []
        start = int(behaviour.start * (first or 0))
        stop = limit
        done = False
        for step in range(limit):
            shots.append(Shot(environment.data.qpos.copy(), self._grip()))
            proprio.append(np.asarray(observed[:4], dtype=np.float64))
            success.append(done)
            seen = observed.copy()
            seen[4:7] += behaviour.offset
            action = np.asarray(policy.get_action(seen), dtype=np.float64)
            action[:3] += rng.normal(0.0, behaviour.noise, 3)
            action = np.clip(action, -1.0, 1.0)
            if done and first is None:
                action[:3] = 0.0  # stay, so that what was achieved is not undone
            if step >= start:
                if behaviour.kind in ('stops_early', IDLE):
                    action[:3] = 0.0
                elif behaviour.kind in ('no_grasp', 'drops'):
                    action[3] = -1.0
            actions.append(action)
            environment.curr_path_length = 0
            observed, _, _, _, info = environment.step(action.astype(np.float32))
            done = bool(info['success'])
            if done and first is None and stop == limit:
                stop = min(limit, step + 1 + _AFTER[1])
            if step + 1 >= stop:
                break
        period = float(environment.dt) * STRETCH
        fault = None if behaviour.kind == EXPERT else start * period
        return Trajectory(
            tuple(shots), tuple(i * period for i in range(len(shots))), tuple(success),
            tuple(actions), tuple(proprio), fault)

    def _grip(self) -> Grip:
        """Read where the gripper is and how far it is open."""
        data = self._environment.data
        left, right = data.body('leftpad').xpos, data.body('rightpad').xpos
        axis = left - right
        width = float(np.clip(np.linalg.norm(axis) - 0.035, 0.0, 0.09))
        return Grip(position=(left + right) / 2 + (0.0, 0.0, -0.02),
                    approach=np.array([0.0, 0.0, -1.0]), axis=axis.copy(), width=width)


def _framed(trajectory: Trajectory, steps: int, hz: float) -> Trajectory:
    """Keep frames at a rate, or where that is 0 so many that a video has at most MAX_FRAMES."""
    if hz:
        return resampled_at(every(trajectory, slice(0, steps)), hz)
    return every(trajectory, slice(0, steps, thin(steps, MAX_FRAMES, FRAME_STEPS)))
