# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The rate of a video: steps left out where there are too many, drawn in where too few."""

import pytest

pytest.importorskip('mujoco', reason='the simulators are not installed')

from hralign_ros.simulation.hand import Grip  # noqa: E402, I100
from hralign_ros.simulation.renderer import Shot  # noqa: E402, I100
from hralign_ros.simulation.worlds import resampled_at, Trajectory  # noqa: E402, I100
import numpy as np  # noqa: E402, I100

PERIOD = 0.0625
STEPS = 9


@pytest.fixture
def trajectory():
    """Make steps that go evenly; from the sixth on it is accomplished."""
    shots = tuple(Shot(np.full(3, float(i)), Grip(
        np.full(3, float(i)), np.array([0.0, 0.0, -1.0]), np.array([1.0, 0.0, 0.0]), 0.01 * i))
        for i in range(STEPS))
    rows = tuple(np.full(4, float(i)) for i in range(STEPS))
    return Trajectory(shots, tuple(i * PERIOD for i in range(STEPS)),
                      tuple(i >= 5 for i in range(STEPS)), rows, rows, None)


@pytest.mark.parametrize(('hz', 'kept'), [
    (5.0, [0, 3, 6]), (16.0, list(range(STEPS))), (8.0, [0, 2, 4, 6, 8])])
def test_steps_are_left_out(trajectory, hz, kept):
    """Guards data made before: 5 Hz is every third of these steps, as it always was."""
    video = resampled_at(trajectory, hz)
    assert [int(shot.qpos[0]) for shot in video.shots] == kept
    assert video.time_s == tuple(i * PERIOD for i in kept)


def test_steps_are_drawn_in(trajectory):
    """Guards a delay measured at 30 Hz: evenly spaced, and accomplished never too early."""
    video = resampled_at(trajectory, 30.0)
    halves = np.arange(0.0, STEPS - 0.5, 0.5)
    np.testing.assert_allclose([shot.qpos[1] for shot in video.shots], halves)
    np.testing.assert_allclose([shot.grip.width for shot in video.shots], 0.01 * halves)
    np.testing.assert_allclose(video.time_s, halves * PERIOD)
    assert video.time_s[video.success_frame] == pytest.approx(5 * PERIOD)
    assert len(video.success) == len(video.actions) == len(video.proprio) == len(video.shots)
