# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The nearest-neighbour policy against cases worked out by hand or by another computation."""

from hralign_ros.evaluation.bootstrap import EvaluationError
import hralign_ros.evaluation.metrics.nearest_neighbour as own
from hralign_ros.evaluation.metrics.nearest_neighbour import nearest_neighbour_policy
import numpy as np
import pytest
from support.metric_cases import ids, noise


def demos_of(features, tasks=('a', 'b')):
    """8 episodes of 15 frames per task; the action is a function of a hidden state."""
    frames = 8 * 15 * len(tasks)
    state = noise(frames, 3)
    labels = {'episodes': np.repeat(ids(8 * len(tasks), 'e'), 15),
              'tasks': np.repeat(tasks, 8 * 15)}
    return features(state), state @ noise(3, 2, seed=5), labels


def test_a_policy_that_sees_the_state_beats_one_that_does_not():
    seeing, actions, labels = demos_of(lambda state: np.concatenate([state, state ** 2], 1))
    blind = noise(240, 6, seed=8)
    episodes, good = nearest_neighbour_policy(seeing, actions, **labels)
    same, poor = nearest_neighbour_policy(blind, actions, **labels)
    assert good.mean() < 0.7 * poor.mean()
    # The mean action is off by this much where actions are normal.
    assert poor.mean() > 0.95 * (2 / np.pi) ** 0.5
    assert np.array_equal(episodes, same) and len(good) == len(episodes)


def test_neighbours_by_hand():
    """Squared distances 1 and 4, mean 2.5: weights exp(-0.4) and exp(-1.6), normalised."""
    x, y = np.array([[1.0], [-2.0], [50.0]]), np.array([[0.0], [1.0], [9.0]])
    weight = np.exp(-1.6) / (np.exp(-0.4) + np.exp(-1.6))
    assert own._neighbours(x, y, np.zeros((1, 1)), 2)[0, 0] == pytest.approx(weight)
    # The scale of the features plays no part; an exact copy is taken as it is.
    assert own._neighbours(9 * x, y, np.zeros((1, 1)), 2)[0, 0] == pytest.approx(weight)
    assert own._neighbours(x, y, x[:1], 1)[0, 0] == 0.0


def test_errors_by_hand():
    """Two demos that act alike and constant features: each test frame gets their mean action."""
    actions = np.array([[0.0], [2.0]] * 3)
    labels = {'episodes': np.repeat(['e0', 'e1', 'e2'], 2), 'tasks': ['t'] * 6}
    episodes, errors = nearest_neighbour_policy(
        np.ones((6, 2)), 3 * actions, demos=2, k=4, seeds=(0, 1, 2, 3, 4, 5), **labels)
    # Mean 3 against 0 and 6, the demos' standard deviation being 3.
    np.testing.assert_allclose(errors, 1.0)
    assert set(episodes) <= {'e0', 'e1', 'e2'}


def test_neighbours_come_from_demos_of_the_same_task_only():
    """Tasks with opposite actions and the same images: the task decides."""
    x = np.tile(np.eye(4), (8, 1))
    actions = np.tile(np.arange(4.0)[:, None] + 1.0, (8, 1))
    actions[16:] *= -1
    labels = {'episodes': np.repeat(ids(8, 'e'), 4), 'tasks': np.repeat(['a', 'b'], 16)}
    _, errors = nearest_neighbour_policy(x, actions, k=2, **labels)
    np.testing.assert_allclose(errors, 0.0, atol=1e-12)


def test_the_choice_of_demos_is_paired():
    """Guards paired seeds: features and other tasks change nothing in who is a demo."""
    episodes = ids(10, 'e')
    first = own._choose_demos(episodes, 4, 0, 'open')
    assert len(first) == 4
    assert np.array_equal(first, own._choose_demos(episodes[::-1], 4, 0, 'open'))
    assert not np.array_equal(first, own._choose_demos(episodes, 4, 1, 'open'))
    with pytest.raises(EvaluationError, match='leave none to test'):
        own._choose_demos(episodes, 10, 0, 'open')


def test_what_a_policy_refuses():
    x, actions, labels = demos_of(lambda state: state)
    with pytest.raises(EvaluationError, match='two tasks'):
        nearest_neighbour_policy(
            x, actions, episodes=labels['episodes'], tasks=np.tile(['a', 'b'], 120))
    with pytest.raises(EvaluationError, match='never change'):
        nearest_neighbour_policy(x, np.ones((240, 2)), **labels)
    with pytest.raises(EvaluationError, match='30 needed'):
        nearest_neighbour_policy(x, actions, demos=1, k=30, **labels)
    with pytest.raises(EvaluationError, match='not finite'):
        nearest_neighbour_policy(x, actions * np.nan, **labels)
