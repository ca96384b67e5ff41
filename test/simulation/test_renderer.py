# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Rendering: robot and hand in turn in the same scene. Needs the simulators' packages."""

from dataclasses import replace
import os

import pytest

os.environ.setdefault('MUJOCO_GL', 'egl')  # read when mujoco is imported
pytest.importorskip('mujoco', reason='the simulators are not installed')

from hralign_ros.simulation.appearance import make_appearance, Perturbation  # noqa: E402, I100
from hralign_ros.simulation.hand import Grip  # noqa: E402, I100
from hralign_ros.simulation.renderer import (  # noqa: E402, I100
    HEIGHT,
    Renderer,
    Shot,
    Stage,
    WIDTH,
)
import mujoco  # noqa: E402, I100
import numpy as np  # noqa: E402, I100
from support.small_hand import make_hand  # noqa: E402, I100

WORLD = """
<mujoco>
  <asset><material name="wood" rgba="0.6 0.5 0.4 1"/></asset>
  <worldbody>
    <light pos="0 0 2" dir="0 0 -1"/>
    <geom name="table" type="plane" size="1 1 0.1" material="wood"/>
    <body name="arm" pos="0 0 0.25">
      <geom type="box" size="0.05 0.05 0.1" rgba="0.9 0.02 0.02 1"/>
      <body name="gripper" pos="0 0 -0.12">
        <geom type="box" size="0.02 0.02 0.02" rgba="0.9 0.02 0.02 1"/>
        <camera name="wrist" pos="0.1 0 0" zaxis="1 0 1"/>
      </body>
    </body>
    <body name="thing" pos="0.1 0 0.04">
      <joint type="slide" axis="0 1 0"/>
      <geom type="box" size="0.04 0.04 0.04" rgba="0.02 0.9 0.02 1"/>
    </body>
    <body name="goal" pos="-0.1 0 0.05"><geom type="sphere" size="0.05" rgba="0.9 0 0.9 1"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope='module')
def stage():
    spec = mujoco.MjSpec.from_string(WORLD)
    return Stage(
        spec=spec, model=spec.compile(), robot_bodies=('arm',), surfaces={'table': ('wood',)},
        hidden_bodies=('goal',), visual_groups=(0,), wrist_camera='wrist', centre=(0, 0, 0.1),
        distance=1.0, behind_deg=0.0, table_height=0.0)


@pytest.fixture(scope='module')
def renderer(stage):
    renderer = Renderer(stage, make_hand())
    yield renderer
    renderer.close()


def appearance(scene='train-00', **changes):
    """Make a scene with a red robot, whose person wears blue; things keep their colours."""
    return replace(make_appearance(scene), sleeve=(0.2, 0.2, 0.9), skin=(0.8, 0.7, 0.6), **{
        'robot': (1.0, 0.02, 0.02),
        'tints': ((1.0, 1.0, 1.0),) * 3, 'distractors': (), **changes})


def shots(position=(0.0, 0.0, 0.13), slides=(-0.1, 0.1)):
    grip = Grip(np.array(position), np.array([0, 0, -1.0]), np.array([0, 1.0, 0]), 0.04)
    return [Shot(np.array([slide]), grip) for slide in slides]


def seen(image, colour):
    """Count the pixels in which one channel is thrice the others; find their middle column."""
    rest = [c for c in range(3) if c not in colour]
    there = image[..., colour].min(-1) > 3.0 * image[..., rest].max(-1) + 5
    return int(there.sum()), float(np.nonzero(there)[1].mean()) if there.any() else None


RED, GREEN, PURPLE = (0,), (1,), (0, 2)


def test_the_robot_or_the_hand(stage, renderer):
    """Guards paired clips: the arm is in its own video only, things and their motion in both."""
    third, wrist = renderer.record_robot(stage.model, shots(), appearance())
    human = renderer.record_human(stage.model, shots(), appearance())
    for video in (third, wrist, human):
        assert [p.shape for p in video] == [(HEIGHT, WIDTH, 3)] * 2
        assert all(p.dtype == np.uint8 for p in video)
    assert min(seen(p, RED)[0] for p in third) > 500
    assert max(seen(p, RED)[0] for p in human) == 0
    for robot, hand in zip(third, human, strict=True):
        assert min(seen(p, GREEN)[0] for p in (robot, hand)) > 100
    moves = [seen(video[1], GREEN)[1] - seen(video[0], GREEN)[1] for video in (third, human)]
    assert moves[0] * moves[1] > 0 and abs(moves[0]) > 20
    assert np.abs(third[0].astype(int) - wrist[0]).mean() > 5, 'another camera'


def test_what_is_hidden_is_in_no_video(stage, renderer):
    """Guards against drawings of goals, which would give the task away."""
    third, wrist = renderer.record_robot(stage.model, shots(), appearance())
    human = renderer.record_human(stage.model, shots(), appearance())
    assert all(seen(p, PURPLE)[0] == 0 for p in (*third, *wrist, *human))


def test_the_hand_is_where_it_grips(stage, renderer):
    """Guards the hand: where it grips changes its own video, and not the arm's."""
    near, far = shots(), shots(position=(0.0, 0.0, -3.0))
    with_hand, without = (renderer.record_human(stage.model, s, appearance())[0]
                          for s in (near, far))
    changed = np.abs(with_hand.astype(int) - without).max(-1) > 10
    assert changed.sum() > 1000
    robot = [renderer.record_robot(stage.model, s, appearance())[0][0] for s in (near, far)]
    np.testing.assert_array_equal(*robot)


def test_a_video_is_the_same_again(stage, renderer):
    """Guards resuming: one scene gives one video, whatever was recorded before."""
    first = renderer.record_robot(stage.model, shots(), appearance())
    other = renderer.record_robot(stage.model, shots(), appearance('train-01'))
    again = renderer.record_robot(stage.model, shots(), appearance())
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.array(first[0], int) - other[0]).mean() > 5


def test_distractors(stage, renderer):
    """Guards test_distractor: things on the table, and none left over in the next scene."""
    plain = renderer.record_robot(stage.model, shots(), appearance('x-1'))[0][0]
    full = appearance('x-2', **{f: getattr(appearance('x-1'), f) for f in (
        'bearing_deg', 'elevation_deg', 'distance', 'target', 'light', 'lightness', 'textures')},
        distractors=make_appearance('distractor-00').distractors)
    crowded = renderer.record_robot(stage.model, shots(), full)[0][0]
    assert (np.abs(plain.astype(int) - crowded).max(-1) > 20).sum() > 200
    np.testing.assert_array_equal(
        renderer.record_robot(stage.model, shots(), appearance('x-1'))[0][0], plain)


def test_a_perturbation_is_in_the_video_and_gone_in_the_next(stage, renderer):
    """Guards idle, dark and covered streams: lights change and cover come frame by frame."""
    still = shots(slides=(0.0, 0.0, 0.0))
    plain = renderer.record_robot(stage.model, still, appearance())
    there = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    covered = renderer.record_robot(
        stage.model, still, appearance(), Perturbation(np.ones(3), there))[0]
    np.testing.assert_array_equal(covered[0], plain[0][0])
    np.testing.assert_array_equal(covered[2], plain[0][2])
    changed = np.abs(covered[1].astype(int) - plain[0][1]).max(-1) > 20
    middle = np.argwhere(changed).mean(0)
    assert 0.08 < changed.mean() < 0.5
    # Its shadow on the table changes pixels too.
    assert np.allclose(middle, (HEIGHT / 2, WIDTH / 2), atol=30), 'in the middle of the image'
    darker = renderer.record_robot(
        stage.model, still, appearance(),
        Perturbation(np.array([1.0, 0.4, 2.0]), np.zeros((3, 3))))
    for video in darker:
        assert video[1].mean() < 0.8 * video[0].mean() < video[2].mean()
    np.testing.assert_array_equal(renderer.record_robot(stage.model, still, appearance()), plain)


def test_the_skin_follows_its_bodies(renderer):
    """Guards the hand: every vertex with weights that sum to 1, and the body of each joint."""
    model, hand = renderer._model, make_hand()
    np.testing.assert_allclose(model.skin_vert, hand.vertices, atol=1e-7)
    np.testing.assert_array_equal(model.skin_face, hand.faces)
    assert [model.body(body).name for body in model.skin_bonebodyid] == [
        f'hr_{joint}' for joint in hand.joints]
    total = np.bincount(model.skin_bonevertid, model.skin_bonevertweight)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_a_camera_that_moved_aside(stage, renderer):
    """Guards lab-1@10cm: a camera further to the right sees things further to the left."""
    before, after = (renderer.record_robot(stage.model, shots(), appearance(aside=aside))
                     for aside in (0.0, 0.1))
    columns = [seen(video[0][0], GREEN)[1] for video in (before, after)]
    assert columns[1] < columns[0] - 10
    np.testing.assert_array_equal(before[1], after[1], 'the wrist camera stays')
