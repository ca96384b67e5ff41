# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Things of the catalogue as MuJoCo bodies, with robosuite's textures and meshes (MIT)."""

from pathlib import Path
from typing import Any

from hralign_ros.simulation.tabletop_objects import COLOURS, MATERIALS, Part, Thing
import mujoco
import numpy as np

# Below the floor: where the origin of a body is put until a scene has a place for it.
_AWAY = (0.0, 0.0, -1.0)
_SHAPES = {'box': mujoco.mjtGeom.mjGEOM_BOX, 'cylinder': mujoco.mjtGeom.mjGEOM_CYLINDER,
           'sphere': mujoco.mjtGeom.mjGEOM_SPHERE, 'capsule': mujoco.mjtGeom.mjGEOM_CAPSULE,
           'ellipsoid': mujoco.mjtGeom.mjGEOM_ELLIPSOID}
# What robosuite scales its mesh by, beside the scale here.
_STRETCH = {'lemon': (1.5, 1.0, 1.0)}
# Textures that are wrapped around all sides of a thing; those of meshes are flat.
_WRAPPED = frozenset({'light-wood.png', 'steel-brushed.png', 'ceramic.png'})


def _assets() -> Path:
    import robosuite

    return Path(robosuite.__file__).parent / 'models' / 'assets'


def add_thing(spec: Any, thing: Thing) -> None:
    """Put a thing into a scene, free to move."""
    kind = thing.kind
    body = spec.worldbody.add_body(name=thing.name, pos=list(_AWAY))
    body.add_freejoint(name=thing.name)
    # That of a box as large as the thing, low and where it is gripped, so that it hangs level.
    body.explicitinertial, body.mass = True, kind.mass
    body.ipos = [kind.grip[1], 0.0, 0.45 * kind.height]
    wide, high = (2 * kind.radius * 0.8) ** 2, kind.height ** 2
    body.inertia = [max(kind.mass / 12 * square, 2e-6) for square in (
        wide + high, wide + high, 2 * wide)]
    for part in kind.parts:
        add_part(spec, body, part, thing.look, rolls=kind.rolls)


def add_part(
    spec: Any, body: Any, part: Part, look: str = '', *, rolls: bool = False,
    slips: bool = False,
) -> None:
    """
    Add a part of a thing, which is seen and touched.

    :param slips: it turns between the fingers, as a handle does that is led around something.
    """
    paint = part.paint or look
    if paint in MATERIALS:
        texture, rgb = MATERIALS[paint]
    elif paint.endswith('.png'):
        texture, rgb = paint, (1.0, 1.0, 1.0)
    else:
        texture, rgb = '', COLOURS.get(paint, part.rgb)
    _material(spec, paint, texture, rgb)
    geom = body.add_geom(
        pos=list(part.at), quat=_quat(part.turn), group=1, material=f'tt_{paint}', mass=0.0,
        rgba=[*rgb, 1.0], friction=[1.2, 0.05, 0.003 if rolls else 0.0005],
        condim=6 if rolls else 3 if slips else 4, priority=int(slips), solref=[0.005, 1.0])
    if part.shape in _SHAPES:
        geom.type = _SHAPES[part.shape]
        geom.size = [*part.size, 0.0, 0.0][:3]
        return
    geom.type = mujoco.mjtGeom.mjGEOM_MESH
    geom.meshname = f'tt_{part.shape}'
    if all(mesh.name != geom.meshname for mesh in spec.meshes):
        folder = _assets() / 'objects' / 'meshes'
        file = next(path for ending in ('msh', 'stl')
                    if (path := folder / f'{part.shape}.{ending}').is_file())
        spec.add_mesh(name=geom.meshname, file=str(file), scale=[
            part.size[0] * x for x in _STRETCH.get(part.shape, (1.0, 1.0, 1.0))])


def _quat(turn: tuple[float, float, float]) -> list[float]:
    """Return turns about the fixed axes x, y and z, one after the other, as a quaternion."""
    made = np.array([1.0, 0.0, 0.0, 0.0])
    for axis, angle in zip(np.eye(3), np.deg2rad(turn), strict=True):
        part, whole = np.zeros(4), np.zeros(4)
        mujoco.mju_axisAngle2Quat(part, axis, angle)
        mujoco.mju_mulQuat(whole, part, made)
        made = whole
    return [float(x) for x in made]


def _material(spec: Any, paint: str, texture: str, rgb: tuple[float, float, float]) -> None:
    """Add the material of a paint, once."""
    name = f'tt_{paint}'
    if any(material.name == name for material in spec.materials):
        return
    shiny = paint in ('metal', 'steel')
    material = spec.add_material(
        name=name, rgba=[*rgb, 1.0], specular=0.7 if shiny else 0.25,
        shininess=0.7 if shiny else 0.3, texuniform=texture in _WRAPPED)
    if not texture:
        return
    image = spec.add_texture(name=name, file=str(_assets() / 'textures' / texture))
    image.type = mujoco.mjtTexture.mjTEXTURE_CUBE if texture in _WRAPPED \
        else mujoco.mjtTexture.mjTEXTURE_2D
    material.texrepeat = [4.0, 4.0] if texture in _WRAPPED else [1.0, 1.0]
    textures = list(material.textures)
    textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name
    material.textures = textures
