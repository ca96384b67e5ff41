# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The human's hand: rigid parts, a pinch exactly where the gripper grips, whole files."""


from hralign_ros.data.manifest import DataError
from hralign_ros.simulation.hand import (
    Grip,
    pose_hand,
    pose_joints,
    read_hand,
)
import numpy as np
import pytest
from support.small_hand import CENTRES, JOINTS, make_hand, rotation, write_glb

WIDTHS = np.linspace(0.0, 0.08, 9)


def place(motion, point):
    return motion[:3, :3] @ point + motion[:3, 3]


def tips(hand, motions):
    """Return where the tips of thumb and index finger are."""
    return np.stack([place(motions[hand.joints.index(name)], hand.centre(name))
                     for name in ('thumb-tip', 'index-finger-tip')])


def assert_rigid(motions):
    turns = motions[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(
        np.eye(3), turns.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1.0, atol=1e-12)
    np.testing.assert_array_equal(motions[:, 3], [[0, 0, 0, 1]] * len(motions))


def grips(count=40):
    """Draw grips as grippers do them: the axis across the approach, mostly from above."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        turn = rotation(rng)
        approach = turn[:, 0] * np.where(turn[2, 0] > 0, -1.0, 1.0)
        grip = Grip(rng.uniform(-1, 1, 3), approach, turn[:, 1], rng.uniform(0.0, 0.08))
        angle = rng.uniform(0, 2 * np.pi)
        yield grip, np.array([np.cos(angle), np.sin(angle), 0.0]), rng.uniform(0.3, 0.9)


@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_a_hand_is_read_as_it_was_written(tmp_path, scale):
    """Guards the file: offsets, columns first, repeated joints, weights that do not sum to 1."""
    hand, want = read_hand(write_glb(tmp_path / 'hand.glb', scale=scale)), make_hand()
    assert hand.joints == JOINTS and len(hand.joints) == 25
    np.testing.assert_allclose(hand.centres, CENTRES, atol=1e-6)
    np.testing.assert_allclose(hand.vertices, want.vertices, atol=1e-7)
    np.testing.assert_array_equal(hand.faces, want.faces)
    np.testing.assert_allclose(hand.weights.sum(1), 1.0, atol=1e-12)
    np.testing.assert_allclose(hand.weights, want.weights, atol=1e-6)


def test_files_that_are_no_hand(tmp_path):
    """Guards --hand: another file is refused by name, and so is a hand with other joints."""
    text = tmp_path / 'hand.gltf'
    text.write_text('{"asset": {"version": "2.0"}}')
    with pytest.raises(DataError, match=r'hand\.gltf: not a binary glTF file'):
        read_hand(text)
    names = tuple('mixamorig:' + j if 'tip' in j else j for j in JOINTS)
    with pytest.raises(DataError, match='no joint index-finger-tip, thumb-tip; .*WebXR'):
        read_hand(write_glb(tmp_path / 'other.glb', joints=names))
    whole = write_glb(tmp_path / 'whole.glb')
    cut = tmp_path / 'cut.glb'
    for length in (8, 15, 200, len(whole.read_bytes()) - 40):
        cut.write_bytes(whole.read_bytes()[:length])
        with pytest.raises(DataError, match=r'cut\.glb: .*complete'):
            read_hand(cut)


def test_a_pinch_is_made_of_rigid_motions():
    """Guards against a hand that is stretched: every part only turns; the palm stays."""
    hand = make_hand()
    for width in WIDTHS:
        motions, pinch = pose_joints(hand, width)
        assert motions.shape == (25, 4, 4)
        assert_rigid(motions)
        np.testing.assert_allclose(pinch, tips(hand, motions), atol=1e-12)
        for name in ('wrist', *(f'{f}-finger-metacarpal' for f in ('index', 'pinky'))):
            np.testing.assert_array_equal(motions[JOINTS.index(name)], np.eye(4))


def test_neighbouring_parts_stay_joined():
    """Guards the chain: a joint's centre is at one place for it and for the part before it."""
    hand = make_hand()
    motions, _ = pose_joints(hand, 0.03)
    chains = [[j for j in JOINTS if j.startswith(f'{f}-')]
              for f in ('thumb', 'index', 'middle', 'ring', 'pinky')]
    for chain in chains:
        for before, after in zip(chain, chain[1:], strict=False):
            i, j = JOINTS.index(before), JOINTS.index(after)
            np.testing.assert_allclose(place(motions[i], CENTRES[j]),
                                       place(motions[j], CENTRES[j]), atol=1e-12)


def test_the_gap_grows_with_the_grippers_width():
    """Guards what a person sees: a wider gripper is a wider pinch, fingers less bent."""
    hand = make_hand()
    gaps, bends = [], []
    for width in WIDTHS:
        motions, (thumb, index) = pose_joints(hand, width)
        gaps.append(np.linalg.norm(thumb - index))
        bends.append(np.arccos((np.trace(motions[JOINTS.index('ring-finger-tip')][:3, :3]) - 1)
                               / 2))
    assert (np.diff(gaps) > 0).all(), gaps
    assert (np.diff(bends) < 0).all(), bends
    assert gaps[0] < 0.02 and gaps[-1] - gaps[0] > 0.04


def test_the_pinch_is_where_the_gripper_grips():
    """Guards the hand itself: position to a nanometre, the fingers along the gripper's axis."""
    hand = make_hand()
    for grip, elbow, tilt in grips():
        motions, wrist, to_elbow = pose_hand(hand, grip, elbow=elbow, tilt=tilt)
        assert_rigid(motions)
        pinch = tips(hand, motions)
        np.testing.assert_allclose(pinch.mean(0), grip.position, atol=1e-9)
        np.testing.assert_allclose(wrist, place(motions[0], CENTRES[0]), atol=1e-12)
        forward = grip.position - wrist
        forward /= np.linalg.norm(forward)
        lean = np.cos(tilt) * grip.approach - np.sin(tilt) * elbow
        np.testing.assert_allclose(forward, lean / np.linalg.norm(lean), atol=1e-9)
        across, axis = (v - forward * (v @ forward) for v in (pinch[1] - pinch[0], grip.axis))
        cosine = across @ axis / np.linalg.norm(across) / np.linalg.norm(axis)
        assert abs(cosine) == pytest.approx(1.0, abs=1e-9)
        assert np.linalg.norm(to_elbow) == pytest.approx(1.0)


def test_the_back_of_the_hand_is_up():
    """Guards against a hand from below: of two ways to grip along an axis the natural one."""
    hand = make_hand()
    for grip, elbow, tilt in grips():
        motions, wrist, _ = pose_hand(hand, grip, elbow=elbow, tilt=tilt)
        turn = motions[0][:3, :3]
        forward = (grip.position - wrist) / np.linalg.norm(grip.position - wrist)
        half_turn = 2.0 * np.outer(forward, forward) - np.eye(3)
        back = np.array([1.0, 0.0, 0.0])
        assert (turn @ back)[2] >= (half_turn @ turn @ back)[2] - 1e-12
        turned = Grip(grip.position, grip.approach, -grip.axis, grip.width)
        again, _, _ = pose_hand(hand, turned, elbow=elbow, tilt=tilt)
        np.testing.assert_allclose(again, motions, atol=1e-9)


def test_the_elbow_is_behind_and_to_its_side():
    """Guards the forearm: from above it comes from the elbow's side, away from the table."""
    down = Grip(np.zeros(3), np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]), 0.02)
    for elbow in np.array([[1.0, 0, 0], [0, 1.0, 0], [-1.0, 0, 0]]):
        _, wrist, to_elbow = pose_hand(make_hand(), down, elbow=elbow, tilt=0.6)
        assert to_elbow @ elbow > 0.5 and to_elbow[2] > 0
        assert wrist[2] > 0, 'the wrist is above what is gripped'
