# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Video a trajectory: as the robot did it, and as a human hand would have.

One MuJoCo model holds the task, the robot and the hand; which of the two is drawn is a setting of
the renderer, so that the objects move identically. The simulation itself runs elsewhere: this
only takes joint positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import os
from typing import Any
from zlib import crc32

from hralign_ros.simulation.appearance import Appearance, Perturbation, TEXTURE_SIZE
from hralign_ros.simulation.hand import FOREARM_M, Grip, HandMesh, pose_hand
import numpy as np
from numpy.typing import NDArray

os.environ.setdefault('MUJOCO_GL', 'egl')  # read when mujoco is imported

import mujoco  # noqa: E402, I100

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 320, 240
MAX_FACES = 1500
# Long enough to leave the image.
SLEEVE_M = 0.8
# Geoms of this group are never drawn; the hand's and the robot's are drawn in turn.
_HIDDEN, _ROBOT, _PERSON = 5, 4, 3
_DISTRACTORS = 6
# The last of them is what perturbations put before the camera; no scene has as many.
_COVER = f'hr_distractor_{_DISTRACTORS - 1}'
_SURFACES = ('table', 'floor', 'wall')
_SHAPES = {'box': mujoco.mjtGeom.mjGEOM_BOX, 'cylinder': mujoco.mjtGeom.mjGEOM_CYLINDER,
           'sphere': mujoco.mjtGeom.mjGEOM_SPHERE}


@dataclass(frozen=True)
class Stage:
    """
    What the renderer has to know about a task's model.

    :param spec: of the task's model, unchanged.
    :param model: compiled from it, with the edits that a reset made.
    :param robot_bodies: names of the roots of what belongs to the robot.
    :param surfaces: names of materials for table, floor and walls, where the model has such.
    :param hidden_bodies: names of bodies never drawn (drawings of goals).
    :param visual_groups: geom groups that are drawn.
    :param wrist_camera: its name.
    :param centre: [3] of the work, metres.
    :param distance: of the third-person camera, metres.
    :param behind_deg: azimuth, in MuJoCo's sense, of a camera straight behind the robot.
    :param table_height: metres.
    :param tinted: whether an appearance changes the colours of the task's things; not where an
        instruction names them.
    :param shadowed: share of the scenes that have shadows, which take half of the time.
    :param faces: of a mesh, at most; and primitives are as coarse.
    """

    spec: Any
    model: Any
    robot_bodies: tuple[str, ...]
    surfaces: dict[str, tuple[str, ...]]
    hidden_bodies: tuple[str, ...]
    visual_groups: tuple[int, ...]
    wrist_camera: str
    centre: tuple[float, float, float]
    distance: float
    behind_deg: float
    table_height: float
    tinted: bool = True
    shadowed: float = 1.0
    faces: int = MAX_FACES


@dataclass(frozen=True)
class Shot:
    """One frame to video: the joint positions and what the hand does."""

    qpos: Floats
    grip: Grip


class Renderer:
    """
    Renderer of one task; close it before the process ends.

    :param mesh: of the hand; None: only the robot is recorded.
    :param size: width and height of the images, pixels.
    :param shadows: without them an image takes a third of the time.
    """

    def __init__(self, stage: Stage, mesh: HandMesh | None, *,
                 size: tuple[int, int] = (WIDTH, HEIGHT), shadows: bool = True) -> None:
        self._stage = stage
        self._mesh, self._shadows = mesh, shadows
        self._model = _twin(stage, mesh, size, shadows)
        self._data = mujoco.MjData(self._model)
        # Numbers of what was in the task's own model, all before what was added.
        self._bodies, self._geoms = stage.model.nbody, stage.model.ngeom
        self._groups()
        self._colours = self._model.geom_rgba.copy(), self._model.mat_rgba.copy()
        self._renderer = mujoco.Renderer(self._model, size[1], size[0])
        self._look: Appearance | None = None
        self._joint_ids = [self._mocap(f'hr_{joint}') for joint in mesh.joints] if mesh else []
        self._arm_ids = [self._mocap(name) for name in ('hr_forearm', 'hr_sleeve')]

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def record_robot(
        self, model: Any, shots: Sequence[Shot], appearance: Appearance,
        perturbation: Perturbation | None = None,
    ) -> tuple[list[Pixels], list[Pixels]]:
        """Video third-person and wrist view of the robot; `model` holds what a reset edited."""
        self._dress(model, appearance)
        third, wrist = [], []
        option, camera = self._option(_ROBOT), self.camera(appearance)
        for number, shot in enumerate(shots):
            self._data.qpos[:] = shot.qpos
            if perturbation is not None:
                self._shine(appearance, float(perturbation.light[number]))
                self._cover(camera, perturbation.cover[number])
            self._settle()
            third.append(self._image(camera, option))
            wrist.append(self._image(self._stage.wrist_camera, option))
        return third, wrist

    def record_human(self, model: Any, shots: Sequence[Shot],
                     appearance: Appearance) -> list[Pixels]:
        """Video the third-person view of a hand doing the same."""
        self._dress(model, appearance)
        option, camera = self._option(_PERSON), self.camera(appearance)
        frames = []
        for shot in shots:
            self._data.qpos[:] = shot.qpos
            self._pose(shot.grip, appearance)
            self._settle()
            frames.append(self._image(camera, option))
        return frames

    def _mocap(self, body: str) -> int:
        return int(self._model.body_mocapid[self._model.body(body).id])

    def _settle(self) -> None:
        """Compute where everything is; no forces are needed to draw."""
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        if self._model.ntendon:
            mujoco.mj_tendon(self._model, self._data)

    def _image(self, camera: Any, option: Any) -> Pixels:
        self._renderer.update_scene(self._data, camera, option)
        image: Pixels = self._renderer.render().copy()
        return image

    def _option(self, who: int) -> Any:
        option = mujoco.MjvOption()
        option.geomgroup[:] = 0
        option.geomgroup[[1, who]] = 1
        option.sitegroup[:] = 0
        option.tendongroup[:] = 0
        option.skingroup[:] = who == _PERSON
        return option

    def camera(self, appearance: Appearance) -> Any:
        """Return where a scene is seen from in third person, an MjvCamera of MuJoCo."""
        stage, camera = self._stage, mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.distance = stage.distance * appearance.distance
        camera.azimuth = stage.behind_deg + appearance.bearing_deg
        azimuth = np.deg2rad(camera.azimuth)
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        camera.lookat[:] = np.array(stage.centre) + appearance.target + appearance.aside * right
        camera.elevation = -appearance.elevation_deg
        return camera

    def locate(
        self, model: Any, shots: Sequence[Shot], appearance: Appearance, points: Floats,
    ) -> tuple[Floats, Floats]:
        """
        Tell where points are in the images of `record_robot`: third-person view and wrist view.

        :param points: [F, n, 3], in the world's frame in each of the shots, metres.
        :returns: [F, n, 2] each, x from the left and y from the top as parts of width and height;
            outside of 0 to 1 where that is out of the image, NaN behind the camera.
        """
        self._dress(model, appearance)
        camera = self.camera(appearance)
        azimuth, elevation = np.deg2rad(camera.azimuth), np.deg2rad(camera.elevation)
        ahead = np.array([np.cos(elevation) * np.cos(azimuth),
                          np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        where = np.array(camera.lookat) - camera.distance * ahead
        third = [self._projected(some - where, right, ahead, self._model.vis.global_.fovy)
                 for some in points]
        wrist, number = [], self._model.camera(self._stage.wrist_camera).id
        for shot, some in zip(shots, points, strict=True):
            self._data.qpos[:] = shot.qpos
            self._settle()
            turn = self._data.cam_xmat[number].reshape(3, 3)
            wrist.append(self._projected(some - self._data.cam_xpos[number], turn[:, 0],
                                         -turn[:, 2], self._model.cam_fovy[number]))
        return np.stack(third), np.stack(wrist)

    def _projected(
        self, points: Floats, right: Floats, ahead: Floats, high_deg: float,
    ) -> Floats:
        """Return where points [n, 3] from the camera are in its image."""
        depth = points @ ahead
        far = np.where(depth > 0.0, depth, np.nan) * 2.0 * np.tan(np.deg2rad(high_deg) / 2.0)
        x = points @ right / far * self._renderer.height / self._renderer.width
        return np.stack([0.5 + x, 0.5 - points @ np.cross(right, ahead) / far], axis=-1)

    def _groups(self) -> None:
        """Sort all geoms into task (1), robot, person and hidden."""
        model, stage = self._model, self._stage
        robot, hidden = (_descendants(model, names) for names in (
            stage.robot_bodies, stage.hidden_bodies))
        for geom in range(self._geoms):
            body, group = int(model.geom_bodyid[geom]), int(model.geom_group[geom])
            drawn = group in stage.visual_groups and body not in hidden
            model.geom_group[geom] = _HIDDEN if not drawn else _ROBOT if body in robot else 1

    def _dress(self, model: Any, appearance: Appearance) -> None:
        """Take over what a reset changed in the task's model, and the scene's appearance."""
        mine, bodies, geoms = self._model, self._bodies, self._geoms
        mine.body_pos[:bodies] = model.body_pos
        mine.body_quat[:bodies] = model.body_quat
        mine.geom_pos[:geoms] = model.geom_pos
        mine.geom_quat[:geoms] = model.geom_quat
        mine.geom_size[:geoms] = model.geom_size
        mine.light_dir[0] = appearance.light
        mine.light_pos[0] = np.array(self._stage.centre) - 2.5 * np.array(appearance.light)
        mine.light_ambient[0] = 0.0
        if mine.nlight:
            share = crc32(f'shadow {appearance.name}'.encode()) % 100 / 100
            mine.light_castshadow[0] = self._shadows and share < self._stage.shadowed
        mine.geom_group[mine.geom(_COVER).id] = _HIDDEN
        self._shine(appearance, 1.0)
        if self._look is None or self._look.name != appearance.name:
            self._paint(appearance)
        self._look = appearance

    def _shine(self, appearance: Appearance, factor: float) -> None:
        """Set all light to the scene's, times a factor."""
        model = self._model
        model.light_diffuse[0] = appearance.lightness[0] * factor
        model.vis.headlight.ambient[:] = appearance.lightness[1] * factor
        model.vis.headlight.diffuse[:] = 0.25 * factor

    def _cover(self, camera: Any, place: Floats) -> None:
        """Put a ball half-way between camera and table, or take it away."""
        model = self._model
        geom = model.geom(_COVER).id
        model.geom_group[geom] = 1 if place[2] else _HIDDEN
        azimuth, elevation = np.deg2rad(camera.azimuth), np.deg2rad(camera.elevation)
        ahead = np.array([np.cos(elevation) * np.cos(azimuth),
                          np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        half = 0.5 * camera.distance
        # Half the image's height at that distance; MuJoCo's field of view is 45 degrees.
        side = half * np.tan(np.deg2rad(22.5))
        model.geom_type[geom] = mujoco.mjtGeom.mjGEOM_SPHERE
        model.geom_size[geom] = 0.55 * side
        model.geom_rgba[geom, :3] = 0.12
        model.body_pos[model.geom_bodyid[geom]] = (
            np.array(camera.lookat) - half * ahead
            + side * (place[0] * right + place[1] * np.cross(right, ahead)))

    def _paint(self, appearance: Appearance) -> None:
        model = self._model
        for surface, texture in zip(_SURFACES, appearance.textures, strict=True):
            number = model.texture(f'hr_{surface}').id
            start = model.tex_adr[number]
            model.tex_data[start:start + texture.size] = texture.ravel()
            mujoco.mjr_uploadTexture(model, self._renderer._mjr_context, number)
        geom_rgba, mat_rgba = self._colours
        model.geom_rgba[:], model.mat_rgba[:] = geom_rgba, mat_rgba
        surfaces = {model.material(f'hr_{s}').id for s in _SURFACES}
        tinted: set[int] = set()
        for geom in range(self._geoms):
            group, material = int(model.geom_group[geom]), int(model.geom_matid[geom])
            if group not in (1, _ROBOT) or material in surfaces or (
                    group == 1 and not self._stage.tinted):
                continue
            paint = np.array(appearance.robot if group == _ROBOT else appearance.tints[
                (material if material >= 0 else geom) % len(appearance.tints)])
            model.geom_rgba[geom, :3] = _painted(geom_rgba[geom, :3], paint, group)
            if material >= 0 and material not in tinted:
                tinted.add(material)
                model.mat_rgba[material, :3] = _painted(mat_rgba[material, :3], paint, group)
        for name, colour in (('hr_forearm', appearance.skin), ('hr_sleeve', appearance.sleeve)):
            model.geom_rgba[model.geom(name).id, :3] = colour
        if self._mesh is not None:
            model.skin_rgba[model.skin('hr_hand').id, :3] = appearance.skin
        for i in range(_DISTRACTORS):
            geom = model.geom(f'hr_distractor_{i}').id
            model.geom_group[geom] = _HIDDEN
            if i < len(appearance.distractors):
                shape = appearance.distractors[i]
                model.geom_group[geom] = 1
                model.geom_type[geom] = _SHAPES[shape.kind]
                model.geom_size[geom] = shape.size
                model.geom_rgba[geom, :3] = shape.colour
                # The body's position: MuJoCo takes the geom's to be the same.
                model.body_pos[model.geom_bodyid[geom]] = (
                    self._stage.centre[0] + shape.position[0],
                    self._stage.centre[1] + shape.position[1],
                    self._stage.table_height + shape.size)

    def _pose(self, grip: Grip, appearance: Appearance) -> None:
        assert self._mesh is not None, 'a person has a hand'
        behind = np.deg2rad(self._stage.behind_deg + 180.0 + appearance.elbow_deg)
        elbow = np.array([np.cos(behind), np.sin(behind), 0.0])
        motions, wrist, forearm = pose_hand(
            self._mesh, grip, elbow=elbow, tilt=float(np.deg2rad(appearance.tilt_deg)))
        for number, motion in zip(self._joint_ids, motions, strict=True):
            self._data.mocap_pos[number] = motion[:3, 3]
            mujoco.mju_mat2Quat(self._data.mocap_quat[number], motion[:3, :3].ravel())
        sleeve = wrist + forearm * (appearance.sleeve_from * FOREARM_M + SLEEVE_M / 2)
        for number, position in zip(
                self._arm_ids, (wrist + forearm * (FOREARM_M / 2), sleeve), strict=True):
            self._data.mocap_pos[number] = position
            mujoco.mju_quatZ2Vec(self._data.mocap_quat[number], forearm)


def _painted(rgb: Floats, paint: Floats, group: int) -> Floats:
    """Tint a thing; a robot takes the paint by its brightness, so that a red arm can be blue."""
    painted: Floats = np.clip((rgb.max() if group == _ROBOT else rgb) * paint, 0.02, 1.0)
    return painted


def _descendants(model: Any, names: Sequence[str]) -> set[int]:
    """Return the numbers of the bodies named and of all that hang on them."""
    found = {model.body(name).id for name in names}
    for body in range(1, model.nbody):  # a parent always comes before its children
        if int(model.body_parentid[body]) in found:
            found.add(body)
    return found


def _twin(
    stage: Stage, mesh: HandMesh | None, size: tuple[int, int], shadows: bool,
) -> Any:
    """Compile the task's model with a hand, an arm, distractors and our surfaces added."""
    spec = stage.spec.copy()
    for joint in mesh.joints if mesh else ():
        spec.worldbody.add_body(name=f'hr_{joint}', mocap=True, pos=[0, 0, -2])
    for name, radius, half in (('hr_forearm', 0.027, FOREARM_M / 2),
                               ('hr_sleeve', 0.042, SLEEVE_M / 2)):
        body = spec.worldbody.add_body(name=name, mocap=True, pos=[0, 0, -2])
        _visual_geom(body, name, _PERSON, mujoco.mjtGeom.mjGEOM_CAPSULE, [radius, half, 0])
    for i in range(_DISTRACTORS):
        body = spec.worldbody.add_body(name=f'hr_distractor_{i}')
        _visual_geom(body, body.name, _HIDDEN, mujoco.mjtGeom.mjGEOM_BOX, [0.03, 0.03, 0.03])
    if mesh is not None:
        _add_hand(spec, mesh)
    for surface, repeat in zip(_SURFACES, ([3, 3], [8, 8], [3, 3]), strict=True):
        texture = spec.add_texture(name=f'hr_{surface}', width=TEXTURE_SIZE,
                                   height=TEXTURE_SIZE, nchannel=3)
        texture.type = mujoco.mjtTexture.mjTEXTURE_2D
        texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_FLAT
        material = spec.add_material(name=f'hr_{surface}', texrepeat=repeat,
                                     specular=0.2, shininess=0.2, reflectance=0.0)
        textures = list(material.textures)
        textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = f'hr_{surface}'
        material.textures = textures
    owner = {name: surface for surface, names in stage.surfaces.items() for name in names}
    for geom in spec.geoms:
        if geom.material in owner:
            geom.material = f'hr_{owner[geom.material]}'
    model = spec.compile()
    model.vis.quality.shadowsize = 1024
    model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, size[0])
    model.vis.global_.offheight = max(model.vis.global_.offheight, size[1])
    model.stat.extent = 1.3
    model.stat.center[:] = stage.centre
    model.vis.map.znear = 0.005
    model.vis.map.zfar = 20.0
    if model.nlight:
        model.light_active[1:] = 0
        model.light_castshadow[:] = 0
        model.light_castshadow[0] = shadows
        model.light_directional[0] = 1
        model.light_specular[0] = 0.2
        model.light_bodyid[0] = 0
        model.light_mode[0] = 0
    if stage.faces < MAX_FACES:
        model.vis.quality.numslices, model.vis.quality.numstacks = 18, 10
    _decimate(model, stage.faces)
    return model


def _add_hand(spec: Any, mesh: HandMesh) -> None:
    skin = spec.add_skin(name='hr_hand', group=0, inflate=0.0, rgba=[0.8, 0.6, 0.5, 1.0])
    skin.vert, skin.face = mesh.vertices.ravel(), mesh.faces.ravel()
    # Each joint follows its body, posed from the mesh's own frame.
    bones = [(joint, np.flatnonzero(weights > 1e-4), weights)
             for joint, weights in zip(mesh.joints, mesh.weights.T, strict=True)
             if (weights > 1e-4).any()]
    skin.bodyname = [f'hr_{joint}' for joint, _, _ in bones]
    skin.bindpos, skin.bindquat = np.zeros(3 * len(bones)), np.tile([1.0, 0, 0, 0], len(bones))
    skin.vertid = [rows.tolist() for _, rows, _ in bones]
    skin.vertweight = [weights[rows].tolist() for _, rows, weights in bones]


def _visual_geom(body: Any, name: str, group: int, kind: Any, size: list[float]) -> None:
    body.add_geom(name=name, type=kind, size=size, group=group, contype=0, conaffinity=0, mass=0,
                  rgba=[0.7, 0.6, 0.5, 1.0])


def _decimate(model: Any, most: int) -> None:
    """
    Merge vertices of large meshes on a grid, in place.

    Drawing time goes with the number of faces: the arms' own meshes have 70,000, which nobody
    sees at 320 x 240.
    """
    for mesh in range(model.nmesh):
        start, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        if count <= most:
            continue
        first = int(model.mesh_vertadr[mesh])
        vertices = model.mesh_vert[first:first + int(model.mesh_vertnum[mesh])]
        faces = model.mesh_face[start:start + count]
        key = crc32(vertices.tobytes()), crc32(faces.tobytes()), most
        if key not in _MERGED:
            _MERGED[key] = _merge(vertices, faces, most)
        merged, kept = _MERGED[key]
        end = start + len(kept)
        model.mesh_face[start:end] = merged
        for extra in (model.mesh_facenormal, model.mesh_facetexcoord):
            extra[start:end] = extra[start:start + count][kept]
        model.mesh_facenum[mesh] = len(kept)


# By what a mesh is: an arm is drawn in scene after scene.
_MERGED: dict[tuple[int, int, int], tuple[Any, Any]] = {}


def _merge(vertices: Any, faces: Any, most: int) -> tuple[Any, Any]:
    """Return the faces that are left, and which of all these are."""
    cell = 0.004
    kept = np.arange(len(faces))
    merged = faces
    while len(kept) > most:
        cells = np.floor(vertices / cell).astype(np.int64)
        _, leader, which = np.unique(cells, axis=0, return_index=True, return_inverse=True)
        merged = leader[which.ravel()][faces]
        kept = np.flatnonzero((merged[:, 0] != merged[:, 1]) & (merged[:, 1] != merged[:, 2])
                              & (merged[:, 0] != merged[:, 2]))
        cell *= 1.3
    return merged[kept], kept
