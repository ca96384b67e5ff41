# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Filming: robot and hand in turn, the same scene around them. Needs the simulators' packages."""

from dataclasses import replace
import os

import pytest

os.environ.setdefault('MUJOCO_GL', 'egl')  # read when mujoco is imported
pytest.importorskip('mujoco', reason='the simulators are not installed')

from hralign_ros.simulation.hand import Grip  # noqa: E402, I100
from hralign_ros.simulation.looks import Disturbance, make_look  # noqa: E402
from hralign_ros.simulation.studio import HEIGHT, Shot, Stage, Studio, WIDTH  # noqa: E402
import mujoco  # noqa: E402
import numpy as np  # noqa: E402
from small_hand import make_hand  # noqa: E402

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
def studio(stage):
    studio = Studio(stage, make_hand())
    yield studio
    studio.close()


def look(scene='train-00', **changes):
    """Make a scene with a red robot, whose person wears blue; things keep their colours."""
    return replace(make_look(scene), sleeve=(0.2, 0.2, 0.9), skin=(0.8, 0.7, 0.6), **{
        'robot': (1.0, 0.02, 0.02),
        'tints': ((1.0, 1.0, 1.0),) * 3, 'distractors': (), **changes})


def shots(position=(0.0, 0.0, 0.13), slides=(-0.1, 0.1)):
    grip = Grip(np.array(position), np.array([0, 0, -1.0]), np.array([0, 1.0, 0]), 0.04)
    return [Shot(np.array([slide]), grip) for slide in slides]


def seen(picture, colour):
    """Count the pixels in which one channel is thrice the others; find their middle column."""
    rest = [c for c in range(3) if c not in colour]
    there = picture[..., colour].min(-1) > 3.0 * picture[..., rest].max(-1) + 5
    return int(there.sum()), float(np.nonzero(there)[1].mean()) if there.any() else None


RED, GREEN, PURPLE = (0,), (1,), (0, 2)


def test_the_robot_or_the_hand(stage, studio):
    """Guards the twin: the arm is in its own film only; things and their motion are in both."""
    third, wrist = studio.film_robot(stage.model, shots(), look())
    human = studio.film_human(stage.model, shots(), look())
    for film in (third, wrist, human):
        assert [p.shape for p in film] == [(HEIGHT, WIDTH, 3)] * 2
        assert all(p.dtype == np.uint8 for p in film)
    assert min(seen(p, RED)[0] for p in third) > 500
    assert max(seen(p, RED)[0] for p in human) == 0
    for robot, hand in zip(third, human, strict=True):
        assert min(seen(p, GREEN)[0] for p in (robot, hand)) > 100
    moves = [seen(film[1], GREEN)[1] - seen(film[0], GREEN)[1] for film in (third, human)]
    assert moves[0] * moves[1] > 0 and abs(moves[0]) > 20
    assert np.abs(third[0].astype(int) - wrist[0]).mean() > 5, 'another camera'


def test_what_is_hidden_is_in_no_film(stage, studio):
    """Guards against drawings of goals, which would give the task away."""
    third, wrist = studio.film_robot(stage.model, shots(), look())
    human = studio.film_human(stage.model, shots(), look())
    assert all(seen(p, PURPLE)[0] == 0 for p in (*third, *wrist, *human))


def test_the_hand_is_where_it_grips(stage, studio):
    """Guards the hand: where it grips changes its own film, and not the arm's."""
    near, far = shots(), shots(position=(0.0, 0.0, -3.0))
    with_hand, without = (studio.film_human(stage.model, s, look())[0] for s in (near, far))
    changed = np.abs(with_hand.astype(int) - without).max(-1) > 10
    assert changed.sum() > 1000
    robot = [studio.film_robot(stage.model, s, look())[0][0] for s in (near, far)]
    np.testing.assert_array_equal(*robot)


def test_a_film_is_the_same_again(stage, studio):
    """Guards resuming: one scene gives one film, whatever was filmed before."""
    first = studio.film_robot(stage.model, shots(), look())
    other = studio.film_robot(stage.model, shots(), look('train-01'))
    again = studio.film_robot(stage.model, shots(), look())
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.array(first[0], int) - other[0]).mean() > 5


def test_distractors(stage, studio):
    """Guards test_distractor: things on the table, and none left over in the next scene."""
    plain = studio.film_robot(stage.model, shots(), look('x-1'))[0][0]
    full = look('x-2', **{f: getattr(look('x-1'), f) for f in (
        'bearing_deg', 'elevation_deg', 'distance', 'target', 'light', 'lightness', 'textures')},
        distractors=make_look('distractor-00').distractors)
    crowded = studio.film_robot(stage.model, shots(), full)[0][0]
    assert (np.abs(plain.astype(int) - crowded).max(-1) > 20).sum() > 200
    np.testing.assert_array_equal(
        studio.film_robot(stage.model, shots(), look('x-1'))[0][0], plain)


def test_a_disturbance_is_in_the_film_and_gone_in_the_next(stage, studio):
    """Guards idle, dark and covered streams: lights change and cover come frame by frame."""
    still = shots(slides=(0.0, 0.0, 0.0))
    plain = studio.film_robot(stage.model, still, look())
    there = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    covered = studio.film_robot(
        stage.model, still, look(), Disturbance(np.ones(3), there))[0]
    np.testing.assert_array_equal(covered[0], plain[0][0])
    np.testing.assert_array_equal(covered[2], plain[0][2])
    changed = np.abs(covered[1].astype(int) - plain[0][1]).max(-1) > 20
    middle = np.argwhere(changed).mean(0)
    assert 0.08 < changed.mean() < 0.5
    # Its shadow on the table changes pixels too.
    assert np.allclose(middle, (HEIGHT / 2, WIDTH / 2), atol=30), 'in the middle of the picture'
    darker = studio.film_robot(
        stage.model, still, look(), Disturbance(np.array([1.0, 0.4, 2.0]), np.zeros((3, 3))))
    for film in darker:
        assert film[1].mean() < 0.8 * film[0].mean() < film[2].mean()
    np.testing.assert_array_equal(studio.film_robot(stage.model, still, look()), plain)
