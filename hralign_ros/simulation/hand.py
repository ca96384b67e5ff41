# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The human's hand: a skinned model that pinches where the gripper grips.

The mesh and its 25 joints come from a glTF file (WebXR's generic hand, MIT). In the mesh's own
frame, metres, the fingers point to -y, the palm faces -x and the thumb is on the -z side. A pose
is one rigid motion per joint, from the pose of the file to the world; the skin follows.
"""

from dataclasses import dataclass
import json
from pathlib import Path
import struct
from typing import Any

import cv2
from hralign_ros.data.manifest import DataError
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FINGERS = ('index', 'middle', 'ring', 'pinky')
_PHALANGES = ('proximal', 'intermediate', 'distal')
# Flexion of the three joints of each finger in a pinch, degrees; the others rest more curled.
_PINCH = {'index': (48.0, 42.0, 26.0), 'middle': (54.0, 46.0, 28.0), 'ring': (62.0, 52.0, 30.0),
          'pinky': (68.0, 56.0, 32.0)}
FOREARM_M = 0.24
_COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {'SCALAR': 1, 'VEC2': 2, 'VEC3': 3, 'VEC4': 4, 'MAT4': 16}


@dataclass(frozen=True)
class HandMesh:
    """
    A skinned hand.

    :param vertices: [n, 3].
    :param faces: [m, 3] vertex numbers.
    :param joints: names, in the order of `centres` and of the columns of `weights`.
    :param centres: [25, 3] of the joints.
    :param weights: [n, 25], rows sum to 1.
    """

    vertices: Floats
    faces: NDArray[np.int64]
    joints: tuple[str, ...]
    centres: Floats
    weights: Floats

    def centre(self, joint: str) -> Floats:
        """Return where a joint is in the mesh's own frame."""
        return self.centres[self.joints.index(joint)]


@dataclass(frozen=True)
class Grip:
    """
    What the hand is to do, world frame.

    :param position: [3] of the pinch.
    :param approach: [3] the way the gripper points.
    :param axis: [3] from one finger of the gripper to the other.
    :param width: of the gripper's opening, metres.
    """

    position: Floats
    approach: Floats
    axis: Floats
    width: float


def read_hand(path: Path) -> HandMesh:
    """
    Read a skinned hand from a binary glTF file.

    :raises DataError: it is none, it is cut short, or its joints are not WebXR's.
    """
    data = Path(path).read_bytes()
    if data[:4] != b'glTF':
        raise DataError(f'{path}: not a binary glTF file')
    try:
        return _parse_hand(path, data)
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise DataError(f'{path}: {type(error).__name__} {error}; needed is the hand of WebXR, '
                        'complete, with its 25 joints') from error


def _parse_hand(path: Path, data: bytes) -> HandMesh:
    length = struct.unpack('<I', data[12:16])[0]
    document = json.loads(data[20:20 + length])
    blob = data[20 + length + 8:]

    def array(number: int) -> NDArray[np.float64]:
        accessor = document['accessors'][number]
        view = document['bufferViews'][accessor['bufferView']]
        width = _WIDTHS[accessor['type']]
        flat = np.frombuffer(
            blob, _COMPONENTS[accessor['componentType']], accessor['count'] * width,
            view.get('byteOffset', 0) + accessor.get('byteOffset', 0))
        return flat.reshape(-1, width).astype(np.float64)

    skin = document['skins'][0]
    primitive = document['meshes'][0]['primitives'][0]
    joints = tuple(document['nodes'][node]['name'] for node in skin['joints'])
    missing = {'wrist', 'thumb-tip', 'index-finger-tip'} - set(joints)
    if missing:
        raise ValueError(f'no joint {", ".join(sorted(missing))}')
    # Column-major matrices from the mesh to each joint; the joint is where they map to zero.
    inverse = array(skin['inverseBindMatrices']).reshape(-1, 4, 4).transpose(0, 2, 1)
    centres: Floats = np.linalg.inv(inverse)[:, :3, 3].astype(np.float64)
    attributes = primitive['attributes']
    vertices = array(attributes['POSITION'])
    chosen = array(attributes['JOINTS_0']).astype(int)
    weights = np.zeros((len(vertices), len(joints)))
    np.add.at(weights, (np.arange(len(vertices))[:, None], chosen),
              array(attributes['WEIGHTS_0']))
    return HandMesh(
        vertices=vertices, faces=array(primitive['indices']).astype(np.int64).reshape(-1, 3),
        joints=joints, centres=centres, weights=weights / weights.sum(1, keepdims=True))


def pose_joints(mesh: HandMesh, gap: float) -> tuple[Floats, Floats]:
    """
    Pinch with a gap between thumb and index finger.

    :param gap: metres, 0 for closed.
    :returns: one 4 x 4 motion per joint, within the mesh's frame; the pinch: [2, 3] the tips of
        thumb and index finger.
    """
    motions = np.tile(np.eye(4), (len(mesh.joints), 1, 1))
    # A wide gripper is met with straighter fingers.
    relaxed = 1.0 - 0.55 * min(gap / 0.08, 1.0)
    for finger in FINGERS:
        motion = np.eye(4)
        for phalanx, angle in zip(_PHALANGES, _PINCH[finger], strict=True):
            name = f'{finger}-finger-phalanx-{phalanx}'
            turn = _about(mesh.centre(name), cv2.Rodrigues(
                np.array([0.0, 0.0, -np.deg2rad(angle * relaxed)]))[0])
            motion = motion @ turn
            motions[mesh.joints.index(name)] = motion
        motions[mesh.joints.index(f'{finger}-finger-tip')] = motion
    index_tip = _apply(motions[mesh.joints.index('index-finger-tip')],
                       mesh.centre('index-finger-tip'))
    # The thumb swings about its root so that its tip points to the index finger's, less the gap.
    goal = index_tip + gap * np.array([-0.35, 0.15, -0.92])
    names = ('thumb-metacarpal', 'thumb-phalanx-proximal', 'thumb-phalanx-distal')
    thumb = np.tile(np.eye(4), (len(names), 1, 1))
    for _ in range(4):  # cyclic coordinate descent
        for k, name in enumerate(names):
            root = _apply(thumb[k], mesh.centre(name))
            tip = _apply(thumb[-1], mesh.centre('thumb-tip'))
            thumb[k:] = _about(root, _between(tip - root, goal - root, limit=0.3)) @ thumb[k:]
    for name, motion in zip((*names, 'thumb-tip'), (*thumb, thumb[-1]), strict=True):
        motions[mesh.joints.index(name)] = motion
    return motions, np.stack([_apply(thumb[-1], mesh.centre('thumb-tip')), index_tip])


def pose_hand(
    mesh: HandMesh, grip: Grip, *, elbow: Floats, tilt: float,
) -> tuple[Floats, Floats, Floats]:
    """
    Place the hand so that it pinches where the gripper grips.

    :param elbow: [3] horizontal direction from the hand to the elbow, world.
    :param tilt: how far the hand leans from the gripper's approach towards the elbow, radians.
    :returns: [25, 4, 4] motions from the mesh's frame to the world, the wrist [3], and the
        direction from it to the elbow [3].
    """
    motions, tips = pose_joints(mesh, grip.width)
    pinch = tips.mean(0)
    wrist = mesh.centre('wrist')
    forward = _unit(pinch - wrist)
    across = tips[1] - tips[0] if np.linalg.norm(tips[1] - tips[0]) > 1e-3 \
        else np.array([0.2, 0.0, 1.0])
    approach = _unit(np.cos(tilt) * _unit(grip.approach) - np.sin(tilt) * _unit(elbow))
    # Of the two ways to grip along the axis the one with the back of the hand up.
    best = max((_frame(approach, sign * grip.axis) @ _frame(forward, across).T
                for sign in (1.0, -1.0)), key=lambda turned: float(turned[2, 0]))
    world = np.eye(4)
    world[:3, :3] = best
    world[:3, 3] = grip.position - best @ pinch
    to_elbow = _unit(-0.55 * approach + _unit(elbow) + np.array([0.0, 0.0, 0.15]))
    return world @ motions, _apply(world, wrist), to_elbow


def _unit(v: Floats) -> Floats:
    return v / max(float(np.linalg.norm(v)), 1e-12)


def _about(centre: Floats, rotation: NDArray[Any]) -> Floats:
    motion = np.eye(4)
    motion[:3, :3] = rotation
    motion[:3, 3] = centre - rotation @ centre
    return motion


def _apply(motion: Floats, point: Floats) -> Floats:
    return motion[:3, :3] @ point + motion[:3, 3]


def _between(a: Floats, b: Floats, *, limit: float) -> Floats:
    """Rotate direction a towards b, by no more than `limit` radians."""
    a, b = _unit(a), _unit(b)
    axis = np.cross(a, b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        return np.eye(3)
    turn = axis / sine * min(float(np.arctan2(sine, a @ b)), limit)
    return np.asarray(cv2.Rodrigues(turn)[0], np.float64)


def _frame(forward: Floats, across: Floats) -> Floats:
    """Make a right-handed frame from a direction and one that is roughly across it."""
    forward = _unit(forward)
    across = _unit(across - forward * (across @ forward))
    return np.stack([forward, across, np.cross(forward, across)], axis=1)
