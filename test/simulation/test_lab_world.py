# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Attempts in a lab: they end as wanted, told from the simulator. Needs the simulators."""

import pytest

pytest.importorskip('robosuite', reason='the simulators are not installed')

from hralign_ros.simulation.lab_conduct import Conduct, make_conduct, NEAR  # noqa: E402, I100
from hralign_ros.simulation.lab_world import (  # noqa: E402, I100
    ARMS,
    Lab,
    LEFT_M,
    LIFTED_M,
    TASKS,
)
import numpy as np  # noqa: E402, I100

NAMED = {task.task_id: task for task in TASKS}


@pytest.fixture(scope='module', params=ARMS)
def lift(request):
    world = Lab(NAMED['lift'], request.param)
    yield world
    world.close()


@pytest.fixture(scope='module')
def left():
    world = Lab(NAMED['cube-left'], 'kinova3')
    yield world
    world.close()


def cube(world):
    """Return where the cube is, its height from where it lay at first."""
    x, y, z = world._object(world._environment.sim.data._data)
    return np.array([x, y, z - world._height])


def expert(seed):
    return make_conduct('expert', ('lift',), np.random.default_rng([seed, 9]))


def test_an_attempt_ends_as_wanted(lift):
    """Guards the labels: a success stays one to the end, a failure never is one."""
    good, bad = (lift.attempt(3, wanted, hz=5.0) for wanted in (True, False))
    first = good.trajectory.success_frame
    assert first > 0 and all(good.trajectory.success[first:])
    assert bad.trajectory.success_frame is None
    for attempt in (good, bad):
        times = np.array(attempt.trajectory.time_s)
        np.testing.assert_allclose(np.diff(times), 0.2)
    after = good.trajectory.time_s[-1] - good.trajectory.time_s[first]
    assert 1.0 < after < 4.0, 'it goes on for a while'


def test_lifted_is_held_up(lift):
    """Guards lifts: the flag is the cube's height; a cube that slips early has none."""
    assert lift.roll(3, expert(3)).success_frame is not None
    assert cube(lift)[2] > LIFTED_M
    slipped = lift.roll(3, Conduct('drops', drops=('lift', 0.2), closes_again=True))
    assert slipped.success_frame is None and slipped.fault_s > 2.0
    assert abs(cube(lift)[2]) < 0.01


def test_a_seed_is_one_attempt(lift):
    """Guards sets that grow: the same again, whatever was done before."""
    one = lift.roll(1, expert(1))
    lift.roll(2, Conduct('drops', drops=('lift', 0.3)))
    again = lift.roll(1, expert(1))
    np.testing.assert_array_equal(
        [s.qpos for s in one.shots], [s.qpos for s in again.shots])


def test_just_outside_is_no_success(left):
    """Guards near misses: the cube lies still, let go, a little short of where it counts."""
    assert left.roll(0, expert(0)).success_frame is not None
    assert cube(left)[1] > LEFT_M
    near = left.roll(0, Conduct('near_miss', place=NEAR))
    assert near.success_frame is None
    assert LEFT_M - 0.08 < cube(left)[1] < LEFT_M and abs(cube(left)[2]) < 0.01


def test_held_in_place_is_no_success(left):
    """Guards the end of an attempt: what is not let go is not put down."""
    held = left.roll(0, Conduct('stops_early', stops=('open', 0.0)))
    assert held.success_frame is None
    assert cube(left)[1] > LEFT_M, 'it is where it belongs, in the gripper'


def test_failures_take_as_long_as_successes(left):
    """Guards against elapsed time as a shortcut: the same movements, the same length."""
    faults = (Conduct('near_miss', aside=(0.0, 0.045, 0.0)),
              Conduct('no_grasp', never_closes=True),
              Conduct('stops_early', stops=('carry', 0.5)),
              Conduct('drops', drops=('carry', 0.1)))
    lengths = [len(left.roll(0, conduct).shots) for conduct in (expert(0), *faults)]
    assert max(lengths) - min(lengths) < 0.15 * max(lengths), lengths
