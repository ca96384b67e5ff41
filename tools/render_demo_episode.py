# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0
"""
Render the two-view robot episode of the demo: two videos and an episode.yaml.

A Panda arm in the robosuite simulator does one task under a small scripted state machine that
sends absolute poses to robosuite's OSC_POSE controller. A third-person camera and a wrist camera
are rendered at the same instants, 1/30 s of simulated time apart, and written as H.264 videos of
the same length. Nothing of the package needs this script: the videos it made are kept in demo/.

It needs robosuite 1.5.2 with mujoco 3.3.0 (robosuite 1.5.2 does not load with mujoco 4), numpy
below 2, av, opencv-python-headless and PyYAML. As robosuite wants numpy 1, use a virtual
environment of its own, apart from the ROS 2 one:

    python3 -m venv simvenv
    simvenv/bin/pip install 'robosuite==1.5.2' 'mujoco==3.3.0' 'numpy<2' av \
        opencv-python-headless PyYAML
    simvenv/bin/python tools/render_demo_episode.py --task can --output demo/can

Rendering is headless (EGL unless MUJOCO_GL says otherwise). The motion depends on the seed alone.
"""

import argparse
from dataclasses import dataclass
import logging
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import av
import cv2
import numpy as np
import yaml

os.environ.setdefault('MUJOCO_GL', 'egl')  # read when mujoco is imported

import mujoco  # noqa: E402, I100
import robosuite  # noqa: E402
from robosuite import macros  # noqa: E402
from robosuite.controllers import load_composite_controller_config  # noqa: E402

FPS = 30
SIM_STEPS_PER_FRAME = 20
WIDTH, HEIGHT = 640, 480
SUPERSAMPLING = 2
SETTLE_FRAMES = 15
POSITION_TOLERANCE = 0.012
MAX_EXTRA_SECONDS = 0.8
OPEN, CLOSED = -1.0, 1.0
WRIST_CAMERA = 'robot0_eye_in_hand'
# The wrist camera in the frame of the hand (x forward, z towards the finger tips), and how far
# it looks back at the fingers.
WRIST_CAMERA_POSITION = (0.085, 0.0, 0.025)
WRIST_CAMERA_TILT_DEG = 20.0

LICENCE = {
    'videos': 'Apache-2.0, rendered by the hralign_ros maintainers',
    'assets': (
        'Robot, objects, arena and textures are those that the robosuite wheel ships. Its licence '
        'file is the MIT License, Copyright (c) 2022 Stanford Vision and Learning Lab and UT '
        'Robot Perception and Learning Lab; it says that the software includes a partial '
        'implementation of DeepMind MuJoCo (Apache-2.0). The MJCF models, meshes and textures '
        'rendered here carry no terms of their own in the wheel; a separate robot description of '
        'the Panda in it, not loaded here, is marked Apache 2.0.'),
    'simulator': 'robosuite: MIT. MuJoCo: Apache-2.0. Neither is part of these files.',
}


@dataclass(frozen=True)
class Task:
    """What is done, in which environment, and from where it is watched."""

    text: str
    environment: str
    object_key: str
    look_at: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class Phase:
    """One state of the script: go to a position in so many seconds, with this gripper command."""

    name: str
    target: np.ndarray
    seconds: float
    gripper: float


TASKS = {
    'can': Task('pick up the can and place it in the bin', 'PickPlaceCan', 'Can_pos',
                (0.08, 0.015, 0.97), 1.2, 152.0, -34.0),
    'lift': Task('lift the red cube', 'Lift', 'cube_pos',
                 (-0.05, 0.0, 0.92), 1.05, 150.0, -25.0),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Render a two-view robot episode (needs robosuite; see the docstring).')
    parser.add_argument('--task', choices=sorted(TASKS), default='can')
    parser.add_argument('--output', type=Path, help='folder to write to (default: demo/TASK)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=10.5,
                        help='length of the episode in simulated seconds')
    parser.add_argument('--max-megabytes', type=float, default=2.7,
                        help='upper bound on both videos together')
    parsed = parser.parse_args(arguments)
    if parsed.seconds <= 0.0 or parsed.max_megabytes <= 0.0:
        parser.error('--seconds and --max-megabytes must be above zero')
    if parsed.output is None:
        parsed.output = Path('demo') / parsed.task
    return parsed


def make_environment(task: Task, seed: int) -> Any:
    """Make the robosuite environment, with a time step that divides a frame exactly."""
    logging.getLogger('robosuite_logs').setLevel(logging.ERROR)
    macros.SIMULATION_TIMESTEP = 1.0 / FPS / SIM_STEPS_PER_FRAME
    np.random.seed(seed)
    controller = load_composite_controller_config(controller='BASIC', robot='Panda')
    arm = controller['body_parts']['right']
    arm.update(input_type='absolute', input_ref_frame='world')
    environment = robosuite.make(
        task.environment, robots='Panda', controller_configs=controller, control_freq=FPS,
        has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False,
        ignore_done=True, seed=seed)
    environment.reset()
    return environment


def prepare_image(model: mujoco.MjModel) -> None:
    """Set rendering quality and the wrist camera, and hide the drawings of the goals."""
    model.vis.quality.offsamples = 4
    model.vis.quality.shadowsize = 8192
    model.vis.global_.offwidth = WIDTH * SUPERSAMPLING
    model.vis.global_.offheight = HEIGHT * SUPERSAMPLING
    # Clipping planes and the shadow map scale with the extent: make it that of the work space.
    model.stat.extent = 2.0
    model.stat.center[:] = (0.0, 0.0, 0.9)
    model.vis.map.znear = 0.005
    model.vis.map.zfar = 20.0
    model.light_castshadow[:] = 1
    model.vis.headlight.ambient[:] = 0.15
    for geom in range(model.ngeom):
        body = mujoco.mj_id2name(
            model, mujoco.mjtObj.mjOBJ_BODY, model.geom_bodyid[geom]) or ''
        if body.startswith('Visual'):
            model.geom_rgba[geom, 3] = 0.0
    camera = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, WRIST_CAMERA)
    tilt = np.deg2rad(WRIST_CAMERA_TILT_DEG)
    appearance = np.array([-np.sin(tilt), 0.0, np.cos(tilt)])
    up = np.array([np.cos(tilt), 0.0, np.sin(tilt)])
    axes = np.stack([np.cross(appearance, up), up, -appearance], axis=1)
    model.cam_pos[camera] = WRIST_CAMERA_POSITION
    mujoco.mju_mat2Quat(model.cam_quat[camera], axes.flatten())


class TwoViews:
    """Both cameras of an episode, rendered larger than asked for and averaged down."""

    def __init__(self, model: mujoco.MjModel, task: Task) -> None:
        """Open the renderer and place the third-person camera."""
        self._renderer = mujoco.Renderer(model, HEIGHT * SUPERSAMPLING, WIDTH * SUPERSAMPLING)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._option.sitegroup[:] = 0
        third_person = mujoco.MjvCamera()
        third_person.type = mujoco.mjtCamera.mjCAMERA_FREE
        third_person.lookat[:] = task.look_at
        third_person.distance = task.distance
        third_person.azimuth = task.azimuth
        third_person.elevation = task.elevation
        self._cameras = {'third_person': third_person, 'wrist': WRIST_CAMERA}
        self.frames: dict[str, list[np.ndarray]] = {name: [] for name in self._cameras}

    def render(self, data: mujoco.MjData) -> None:
        """Add one frame to each view."""
        for name, camera in self._cameras.items():
            self._renderer.update_scene(data, camera, self._option)
            image = cv2.resize(
                self._renderer.render(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
            self.frames[name].append(image)

    def close(self) -> None:
        """Free the renderer, which must happen before the interpreter ends."""
        self._renderer.close()


class Script:
    """
    A state machine over end-effector poses, always pointing down.

    Each phase blends from where it began to its target (minimum jerk), and ends when its time is
    over and the hand is there, or a little later at the latest.
    """

    def __init__(self, phases: list[Phase], position: np.ndarray, rotation: np.ndarray) -> None:
        """Start at a position, with the rotation to level out."""
        self._phases = phases
        self._index = 0
        self._elapsed = 0.0
        self._start = position.copy()
        forward = np.array([rotation[0, 0], rotation[1, 0], 0.0])
        forward /= np.linalg.norm(forward)
        down = np.array([0.0, 0.0, -1.0])
        level = np.stack([forward, np.cross(down, forward), down], axis=1)
        self._rotation_vector = cv2.Rodrigues(level)[0].ravel()

    @property
    def phase(self) -> str:
        """Name of the current phase."""
        return self._phases[self._index].name

    def action(self, position: np.ndarray, period: float) -> np.ndarray:
        """Return the next command, and move on to the next phase where this one is done."""
        phase = self._phases[self._index]
        late = self._elapsed - phase.seconds
        arrived = np.linalg.norm(position - phase.target) < POSITION_TOLERANCE
        last = self._index == len(self._phases) - 1
        if not last and ((late >= 0.0 and arrived) or late > MAX_EXTRA_SECONDS):
            self._index += 1
            self._elapsed = 0.0
            self._start = phase.target
            phase = self._phases[self._index]
        self._elapsed += period
        part = min(self._elapsed / phase.seconds, 1.0)
        blend = part ** 3 * (10.0 - 15.0 * part + 6.0 * part ** 2)
        goal = self._start + blend * (phase.target - self._start)
        return np.concatenate([goal, self._rotation_vector, [phase.gripper]])


def plan(name: str, environment: Any, hand: np.ndarray, thing: np.ndarray) -> list[Phase]:
    """List the phases of a task from where the hand and the object are."""
    above = thing + (0.0, 0.0, 0.12)
    grasp = thing + (0.0, 0.0, 0.012)
    phases = [
        Phase('wait', hand, 0.4, OPEN),
        Phase('reach', above, 1.5, OPEN),
        Phase('descend', thing.copy() if name == 'lift' else grasp, 1.0, OPEN),
    ]
    grasp = phases[-1].target
    phases.append(Phase('grasp', grasp, 0.5, CLOSED))
    if name == 'lift':
        return phases + [Phase('lift', thing + (0.0, 0.0, 0.16), 1.6, CLOSED)]
    # The middle of the compartment is at the limit of the arm's reach: stay a little nearer.
    goal = np.array(environment.target_bin_placements[environment.object_id])
    goal -= (0.05, 0.03, 0.0)
    lifted = grasp + (0.0, 0.0, 0.125)
    over = np.array([goal[0], goal[1], lifted[2]])
    placed = np.array([goal[0], goal[1], grasp[2] + 0.01])
    return phases + [
        Phase('lift', lifted, 0.9, CLOSED),
        Phase('transfer', over, 1.7, CLOSED),
        Phase('lower', placed, 1.0, CLOSED),
        Phase('release', placed, 0.35, OPEN),
        Phase('retreat', over + (-0.06, -0.04, 0.04), 1.1, OPEN),
    ]


def rollout(name: str, seed: int, frame_count: int) -> dict[str, Any]:
    """Simulate and render one episode: frames by view, success frame and phase starts."""
    task = TASKS[name]
    environment = make_environment(task, seed)
    model, data = environment.sim.model._model, environment.sim.data._data
    prepare_image(model)
    site = environment.robots[0].eef_site_id['right']

    def hand() -> np.ndarray:
        return data.site_xpos[site].copy()

    rest = hand()
    settle = Script([Phase('settle', rest, 1.0, OPEN)], rest, data.site_xmat[site].reshape(3, 3))
    period = 1.0 / FPS
    for _ in range(SETTLE_FRAMES):
        observation = environment.step(settle.action(hand(), period))[0]
    phases = plan(name, environment, rest, observation[task.object_key].copy())
    script = Script(phases, rest, data.site_xmat[site].reshape(3, 3))

    views = TwoViews(model, task)
    success: list[bool] = []
    starts: dict[str, int] = {}
    began, start_time = time.monotonic(), data.time
    try:
        for frame in range(frame_count):
            if abs(data.time - start_time - frame * period) > 1e-6:
                raise RuntimeError(f'frame {frame} is not at {frame}/{FPS} s of simulated time')
            views.render(data)
            success.append(bool(environment._check_success()))
            environment.step(script.action(hand(), period))
            starts.setdefault(script.phase, frame)
            if sys.stderr.isatty() or frame % FPS == 0 or frame + 1 == frame_count:
                print(f'\rframe {frame + 1}/{frame_count}  {script.phase:10s} '
                      f'success: {"yes" if success[-1] else "no"}  '
                      f'{time.monotonic() - began:.0f} s', end='', file=sys.stderr, flush=True)
        print(file=sys.stderr)
    finally:
        views.close()
        environment.close()
    if not success[-1]:
        raise RuntimeError('the episode does not end in success')
    # The first frame from which the check holds up to the end.
    first = len(success) - success[::-1].index(False) if False in success else 0
    return {'frames': views.frames, 'success_frame': success.index(True), 'stays_from': first,
            'phases': starts}


def encode(frames: list[np.ndarray], path: Path, quality: int) -> int:
    """Write frames as H.264 (yuv420p) at a constant rate factor, and return the size in bytes."""
    with av.open(str(path), 'w', options={'movflags': 'faststart'}) as container:
        stream = container.add_stream('libx264', rate=FPS, options={
            'crf': str(quality), 'preset': 'veryslow', 'g': str(2 * FPS)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode(None))
    return path.stat().st_size


def encode_views(frames: dict[str, list[np.ndarray]], folder: Path, limit: int) -> int:
    """Write all views at the best common quality that stays under the limit, and return it."""
    for quality in range(16, 40):
        total = 0
        for name, images in frames.items():
            total += encode(images, folder / f'{name}.mp4', quality)
            if total > limit:
                break
        else:
            return quality
    raise RuntimeError('no quality keeps the videos under the size limit')


def count_frames(path: Path) -> int:
    """Decode a video and return how many frames of the right size came out."""
    with av.open(str(path)) as container:
        return sum((frame.height, frame.width) == (HEIGHT, WIDTH)
                   for frame in container.decode(video=0))


def describe(arguments: argparse.Namespace, result: dict[str, Any], quality: int) -> str:
    """Return the text of episode.yaml."""
    task = TASKS[arguments.task]
    output = arguments.output
    where = output.name if output.is_absolute() else output.as_posix()
    descriptions = {'third_person': 'free camera in front of the robot',
                    'wrist': 'camera on the hand; fingers at the bottom, the top points '
                             'away from the robot'}
    content = {
        'schema_version': 1,
        'task': task.text,
        'robot': {'name': 'Franka Emika Panda', 'gripper': 'PandaGripper',
                  'controller': 'OSC_POSE', 'policy': 'scripted state machine'},
        'simulator': {
            'name': 'robosuite', 'environment': task.environment,
            'versions': {'robosuite': robosuite.__version__, 'mujoco': mujoco.__version__,
                         'numpy': np.__version__},
            'changes': 'goal drawings hidden, wrist camera moved to see the finger tips, '
                       'shadows on, a little more ambient light'},
        'seed': arguments.seed,
        'fps': FPS,
        'frame_count': len(result['frames']['wrist']),
        'views': {name: {'file': f'{name}.mp4', 'width': WIDTH, 'height': HEIGHT,
                         'description': descriptions[name]} for name in result['frames']},
        'encoding': {'codec': 'h264', 'pixel_format': 'yuv420p', 'crf': quality},
        'success': True,
        'success_frame': result['success_frame'],
        'phase_first_frame': result['phases'],
        'licence': LICENCE,
        'command': f'python3 tools/render_demo_episode.py --task {arguments.task} '
                   f'--seed {arguments.seed} --seconds {arguments.seconds:g} --output {where}',
    }
    header = ('# Copyright 2026 hralign_ros maintainers\n# SPDX-License-Identifier: Apache-2.0\n'
              '# Written by tools/render_demo_episode.py. Frame k is at k / fps seconds.\n')
    return header + yaml.safe_dump(content, sort_keys=False, width=95)


def main(arguments: list[str] | None = None) -> int:
    """Render, encode, check and describe the episode."""
    parsed = parse_arguments(arguments)
    frame_count = round(parsed.seconds * FPS)
    try:
        result = rollout(parsed.task, parsed.seed, frame_count)
        parsed.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parsed.output) as scratch:
            folder = Path(scratch)
            quality = encode_views(
                result['frames'], folder, int(parsed.max_megabytes * 1_000_000))
            for name in result['frames']:
                count = count_frames(folder / f'{name}.mp4')
                if count != frame_count:
                    raise RuntimeError(f'{name}: {count} of {frame_count} frames decode')
            for name in result['frames']:
                (folder / f'{name}.mp4').replace(parsed.output / f'{name}.mp4')
    except RuntimeError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    (parsed.output / 'episode.yaml').write_text(
        describe(parsed, result, quality), encoding='utf-8')
    print(f'{parsed.output}: {frame_count} frames, success at frame {result["success_frame"]} '
          f'(for good from {result["stays_from"]}), crf {quality}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
