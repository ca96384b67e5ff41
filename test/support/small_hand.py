# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A hand of 25 joints and two vertices each, at plausible places, and its binary glTF file."""

import json
import struct

from hralign_ros.simulation.hand import FINGERS, HandMesh
import numpy as np

THUMB = ('thumb-metacarpal', 'thumb-phalanx-proximal', 'thumb-phalanx-distal', 'thumb-tip')
PARTS = ('metacarpal', 'phalanx-proximal', 'phalanx-intermediate', 'phalanx-distal', 'tip')
JOINTS = ('wrist', *THUMB, *(f'{finger}-finger-{part}' for finger in FINGERS for part in PARTS))
# Metres: fingers to -y, palm to -x, thumb on the side of -z.
CENTRES = np.array([
    (0.0, 0.0, 0.0),
    (-0.015, -0.03, -0.025), (-0.02, -0.06, -0.045), (-0.02, -0.09, -0.055),
    (-0.02, -0.115, -0.06),
    *((0.0, -y * (1.0 - 0.06 * abs(i - 1)), -0.025 + 0.02 * i)
      for i in range(4) for y in (0.025, 0.09, 0.13, 0.155, 0.178))])


def make_hand():
    """Make the hand: the second vertex of a joint also follows the joint before it."""
    count = len(JOINTS)
    vertices = np.concatenate([CENTRES + (0.005, 0, 0), CENTRES - (0.005, 0, 0)])
    weights = np.zeros((2 * count, count))
    for i in range(count):
        weights[i, i] = 1.0
        weights[count + i, i] = 0.75
        weights[count + i, max(i - 1, 0)] += 0.25
    faces = np.stack([np.arange(count), np.arange(count) + count,
                      (np.arange(count) + 1) % count], 1)
    return HandMesh(vertices, faces, JOINTS, CENTRES, weights)


def rotation(rng):
    """Draw a rotation matrix."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def write_glb(path, *, joints=JOINTS, scale=1.0, seed=0):
    """
    Write the hand as other programs do.

    Joints are turned at random; joint 0 is named twice where a vertex has one joint only.

    :param scale: of all skin weights, which need not sum to 1 in a file.
    """
    hand = make_hand()
    rng = np.random.default_rng(seed)
    inverses = []
    for centre in hand.centres:
        bind = np.eye(4)
        bind[:3, :3] = rotation(rng)
        bind[:3, 3] = centre
        inverses.append(np.linalg.inv(bind).T)  # a file has columns first
    numbers, shares = [], []
    for row in hand.weights:
        used = [int(j) for j in np.flatnonzero(row)]
        values = [row[j] for j in used]
        if len(used) == 1:  # the same joint twice: its shares add up
            used, values = used * 2, [0.4 * values[0], 0.6 * values[0]]
        numbers.append(used + [0] * (4 - len(used)))
        shares.append([scale * v for v in values] + [0.0] * (4 - len(values)))
    arrays = [
        (hand.vertices, np.float32, 5126, 'VEC3'), (numbers, np.uint8, 5121, 'VEC4'),
        (shares, np.float32, 5126, 'VEC4'), (hand.faces.ravel(), np.uint16, 5123, 'SCALAR'),
        (np.reshape(inverses, (-1, 16)), np.float32, 5126, 'MAT4')]
    blob, views, accessors = b'', [], []
    for values, dtype, component, kind in arrays:
        data = np.asarray(values, dtype).tobytes()
        blob += bytes(-len(blob) % 4)
        # Half of the place is told by the view, half by the accessor.
        views.append({'buffer': 0, 'byteOffset': max(len(blob) - 4, 0),
                      'byteLength': len(data) + 4})
        accessors.append({
            'bufferView': len(accessors), 'byteOffset': 4 if blob else 0, 'type': kind,
            'componentType': component, 'count': len(np.asarray(values))})
        blob += data
    document = json.dumps({
        'asset': {'version': '2.0'}, 'bufferViews': views, 'accessors': accessors,
        # Behind a node that is no joint.
        'nodes': [{'name': 'hand'}, *({'name': name} for name in joints)],
        'skins': [{'joints': list(range(1, 1 + len(joints))), 'inverseBindMatrices': 4}],
        'meshes': [{'primitives': [{'indices': 3, 'attributes': {
            'POSITION': 0, 'JOINTS_0': 1, 'WEIGHTS_0': 2}}]}]}).encode()
    document += b' ' * (-len(document) % 4)
    chunks = struct.pack('<I4s', len(document), b'JSON') + document
    chunks += struct.pack('<I4s', len(blob), b'BIN\0') + blob
    path.write_bytes(struct.pack('<4sII', b'glTF', 2, 12 + len(chunks)) + chunks)
    return path
