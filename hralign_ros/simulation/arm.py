# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
An arm in a lab that takes commands step by step: what a policy is tried on.

The arm's controller is robosuite's, in operational space; the hand points down throughout. The
lab looks as `hralign data simulate-lab` has it, without shadows, which cost most of the time.
"""

from dataclasses import dataclass
import math

from hralign_ros.data.channels import Channel
from hralign_ros.data.manifest import DataError
from hralign_ros.simulation.appearance import LAB, make_appearance
from hralign_ros.simulation.behaviour import OPEN
from hralign_ros.simulation.lab_world import Lab, TASKS
from hralign_ros.simulation.renderer import Renderer, Shot
from hralign_ros.simulation.robosuite_tasks import CONTROL_HZ, LAB_ROBOTS, ROBOTS
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

HZ = 10
SIZE = (256, 192)
ARMS = tuple(ROBOTS | LAB_ROBOTS)
# What the arm tells, and the place of the thing, which no robot knows.
STATE = (Channel('tool.x', 'm'), Channel('tool.y', 'm'), Channel('tool.z', 'm'),
         Channel('gripper.width', 'm'), Channel('object.x', 'm'), Channel('object.y', 'm'),
         Channel('object.z', 'm'))
# By how much the tool shall be elsewhere, from where it is; the gripper opens below 0.
ACTIONS = (Channel('tool.dx', 'm'), Channel('tool.dy', 'm'), Channel('tool.dz', 'm'),
           Channel('gripper', '-1 open, 1 closed'))
# A longer way is cut to this, metres.
LONGEST_M = 0.08
# An attempt that takes longer has failed, seconds.
LIMIT_S = {'lift': 8.0, 'pick-can': 14.0}
STEP_S = 1.0 / CONTROL_HZ


@dataclass(frozen=True)
class Camera:
    """
    A pinhole camera, without distortion.

    :param focal: of both axes [pixels]; the principal point is the middle of the image.
    :param position: [3] in the world's frame [m].
    :param rotation: [3, 3] from the optical frame (REP 103: z ahead, x right, y down) to the
        world's.
    """

    focal: float
    position: Floats
    rotation: Floats


class ArmWorld(Lab):
    """
    One task in one lab with one arm; close it before the process ends.

    :param task_id: one of LIMIT_S.
    :param lab: lab-<number>, or that with a change, see make_appearance.
    :raises DataError: unknown task, arm or lab.
    """

    def __init__(self, task_id: str, embodiment: str = 'panda', lab: str = 'lab-1') -> None:
        if task_id not in LIMIT_S:
            raise DataError(f"task '{task_id}'; allowed: {', '.join(LIMIT_S)}")
        if embodiment not in ARMS:
            raise DataError(f"arm '{embodiment}'; allowed: {', '.join(ARMS)}")
        self.enter(lab)
        super().__init__({task.task_id: task for task in TASKS}[task_id], embodiment)
        self._renderer = Renderer(self.stage, None, size=SIZE, shadows=False)
        self.limit_s = LIMIT_S[task_id]
        self._rotation = np.zeros(3)
        self._command = np.zeros(7)
        self._steps = 0
        self._accomplished_now = False

    def close(self) -> None:
        """Free renderer and simulator."""
        self._renderer.close()
        super().close()

    def enter(self, lab: str) -> None:
        """
        Make everything look as it does in this lab.

        :raises DataError: unknown lab.
        """
        kind, _, number = lab.partition('@')[0].rpartition('-')
        if kind != LAB or not number.isdecimal():
            raise DataError(f"lab '{lab}'; allowed: {LAB}-<number>, for example {LAB}-1")
        self._appearance = make_appearance(lab)

    def reset(self, seed: int) -> None:
        """Put everything where the attempt of this seed begins; the arm holds."""
        _, self._rotation = self._begin(np.random.default_rng([seed, 11]))
        self._steps, self._accomplished_now = 0, False
        self.move(np.zeros(3), OPEN)

    @property
    def time_s(self) -> float:
        """Seconds since the reset."""
        return self._steps / CONTROL_HZ

    @property
    def accomplished(self) -> bool:
        """Tell from the simulator whether the task is accomplished now."""
        return self._accomplished_now

    def state(self) -> Floats:
        """Return what STATE names, float64 [7]."""
        position = self._position()
        thing = self._object(self._environment.sim.data._data)
        return np.array([*position, self._grip(position).width, *thing])

    def images(self) -> dict[str, Pixels]:
        """Return what both cameras see: wrist and third_person, uint8 [192, 256, 3] RGB."""
        shot = Shot(self._environment.sim.data._data.qpos.copy(), self._grip(self._position()))
        (third,), (wrist,) = self._renderer.record_robot(
            self.model, (shot,), self._appearance)
        return {'wrist': wrist, 'third_person': third}

    def tool_rotation(self) -> Floats:
        """Return how the tool is turned, float64 [3, 3] from its frame to the world's."""
        data, site = self._environment.sim.data._data, self._environment.robots[0].eef_site_id
        return np.array(data.site_xmat[site['right']]).reshape(3, 3)

    def joints(self) -> dict[str, tuple[float, float]]:
        """Return position and velocity of the arm's joints, rad and rad/s, by name."""
        robot, data = self._environment.robots[0], self._environment.sim.data._data
        names = robot.robot_model.joints
        return {name.removeprefix('robot0_'): (float(data.joint(name).qpos[0]),
                                               float(data.joint(name).qvel[0])) for name in names}

    def cameras(self) -> dict[str, Camera]:
        """Return where both cameras are now, and how they see; of images of SIZE."""
        data, stage = self._environment.sim.data._data, self.stage
        wrist = data.camera(stage.wrist_camera)
        # MuJoCo's cameras look along -z, and y is up.
        turned = np.array(wrist.xmat).reshape(3, 3) @ np.diag([1.0, -1.0, -1.0])
        free = self._renderer.camera(self._appearance)
        azimuth, elevation = math.radians(free.azimuth), math.radians(free.elevation)
        ahead = np.array([math.cos(elevation) * math.cos(azimuth),
                          math.cos(elevation) * math.sin(azimuth), math.sin(elevation)])
        right = np.array([math.sin(azimuth), -math.cos(azimuth), 0.0])
        return {
            'wrist': Camera(_focal(float(self.model.camera(stage.wrist_camera).fovy[0])),
                            np.array(wrist.xpos), turned),
            'third_person': Camera(
                _focal(float(self.model.vis.global_.fovy)),
                np.array(free.lookat) - free.distance * ahead,
                np.stack([right, np.cross(ahead, right), ahead], axis=1))}

    def act(self, action: Floats) -> None:
        """
        Follow one command for a tenth of a second.

        :param action: [4], what ACTIONS names.
        """
        self.move(np.asarray(action[:3], np.float64), float(action[3]))
        for _ in range(CONTROL_HZ // HZ):
            self.step()

    def move(self, way: Floats, gripper: float) -> None:
        """
        Take a command: from here on the tool goes there, or stays.

        :param way: [3] from where the tool is now, metres along the world's axes.
        :param gripper: below 0: open; above: closed; 0: open.
        """
        length = float(np.linalg.norm(way))
        goal = self._position() + way * min(1.0, LONGEST_M / max(length, 1e-9))
        self._command = np.concatenate([goal, self._rotation, [float(np.sign(gripper)) or OPEN]])

    def grip(self, gripper: float) -> None:
        """Open the gripper below 0, close it above; the arm's motion goes on."""
        self._command[6] = float(np.sign(gripper)) or OPEN

    def step(self) -> None:
        """Let STEP_S go by."""
        self._environment.step(self._command)
        self._accomplished_now = self._accomplished(self._accomplished_now)
        self._steps += 1

    def _position(self) -> Floats:
        data, site = self._environment.sim.data._data, self._environment.robots[0].eef_site_id
        return np.array(data.site_xpos[site['right']])


def _focal(fovy_deg: float) -> float:
    """Return the focal length [pixels] of a camera that sees so much from top to bottom."""
    return 0.5 * SIZE[1] / math.tan(math.radians(fovy_deg) / 2.0)
