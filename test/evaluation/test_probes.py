# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Probes against cases worked out by hand or by another way of computing them."""

from hralign_ros.evaluation.bootstrap import EvaluationError
import hralign_ros.evaluation.metrics.probes as own
from hralign_ros.evaluation.metrics.probes import action_probe, proprio_probe
from hralign_ros.evaluation.metrics.rows import group_folds
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from support.metric_cases import ids, noise

RUNS = np.repeat(ids(10, 'e'), 20)


def test_linear_targets_are_read_and_noise_is_not():
    x = noise(200, 6)
    y = np.concatenate([x @ noise(6, 2, seed=1) + 3.0, np.ones((200, 1))], 1)
    found = proprio_probe(x, y, episodes=RUNS)
    # The third target never changes, and is left out.
    assert found.value > 0.999 and (found.n, found.clusters) == (200, 10)
    unrelated = proprio_probe(x, noise(200, 2, seed=9), episodes=RUNS)
    assert unrelated.value < 0.05


def test_r2_is_against_the_mean_of_the_training_episodes():
    """Guards against flattery: the mean of the tested rows is not known to anybody."""
    y = np.repeat(noise(10, 1, seed=4), 20, axis=0) + 0.1 * noise(200, 1)
    # Features that say nothing at all leave that very mean.
    assert proprio_probe(np.ones((200, 3)), y, episodes=RUNS).value == 0.0


@pytest.mark.parametrize('width', [6, 300])
def test_ridge_agrees_with_another_one(width):
    """Both ways of solving, few columns and few rows, on one fold."""
    x = noise(100, width)
    y = x[:, :2] + noise(100, 2, seed=1)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    test = noise(7, width, seed=2)
    found, penalty = own._ridge(x, y, np.repeat(ids(10), 10), test, 0)
    expected = Ridge(alpha=penalty * 100, fit_intercept=False).fit(x, y).predict(test)
    np.testing.assert_allclose(found, expected, atol=1e-8)

    def loss(alpha):
        total = 0.0
        for train, held in group_folds(np.repeat(ids(10), 10), 3, 0):
            model = Ridge(alpha=alpha * len(train), fit_intercept=False).fit(x[train], y[train])
            total += ((model.predict(x[held]) - y[held]) ** 2).sum()
        return total

    assert penalty == min(own.RIDGE_ALPHAS, key=loss)


def test_actions_need_both_frames():
    """The action is the change to the next frame: one frame alone does not tell it."""
    x = noise(200, 4)
    actions = np.zeros((200, 2))
    actions[:-1] = x[1:, :2] - x[:-1, :2]
    found = action_probe(x, actions, episodes=RUNS)
    assert found.value > 0.99
    assert found.n == 190, 'a last frame has no next one'
    # Rows of different episodes may be mixed as long as each keeps its order.
    mixed = np.argsort(np.tile(np.arange(20), 10), kind='stable')
    again = action_probe(x[mixed], actions[mixed], episodes=RUNS[mixed])
    assert again.value == pytest.approx(found.value)
    with pytest.raises(EvaluationError, match='no episode has more than 1 frame'):
        action_probe(x, actions, episodes=ids(200))


def test_what_an_episode_has_of_its_own_does_not_help():
    """Guards the folds by episode: a target constant in each episode cannot be read off noise."""
    offsets = noise(10, 30)
    x = np.repeat(offsets, 20, axis=0) + 0.01 * noise(200, 30)
    y = np.repeat(noise(10, 1, seed=4), 20, axis=0)
    assert proprio_probe(x, y, episodes=RUNS).value < 0.5
    assert proprio_probe(x, y, episodes=ids(200)).value > 0.95


def test_a_column_that_hardly_moves_in_training_decides_nothing():
    """
    Guards against an R2 of -113497.

    Attention had left one column almost constant in most episodes. Divided by its tiny spread, it
    was thousands in the one episode where it moved, and so was what was read off it.
    """
    x = noise(200, 6)
    y = x[:, :2]
    x[:, 5] *= 1e-6
    x[RUNS == 'e003', 5] += 0.1
    y[RUNS != 'e003', 0] += 3e5 * x[RUNS != 'e003', 5]
    assert proprio_probe(x, y, episodes=RUNS).value > 0.9


def test_what_a_probe_refuses():
    x = noise(40, 3)
    with pytest.raises(EvaluationError, match='2 group'):
        proprio_probe(x, x, episodes=RUNS[:40])
    with pytest.raises(EvaluationError, match='varies'):
        proprio_probe(x, np.ones((40, 1)), episodes=ids(40))
    with pytest.raises(EvaluationError, match='proprio'):
        proprio_probe(x, x[:-1], episodes=ids(40))
