# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tasks against cases worked out by hand or by another way of computing them."""

from hralign_ros.evaluation.bootstrap import EvaluationError, join_labels
import hralign_ros.evaluation.metrics.task_separability as own
from hralign_ros.evaluation.metrics.task_separability import separability, task_distance_ratio
import numpy as np
import pytest
from support.metric_cases import ids, noise


def rooms(task_weight, scene_weight, each=3):
    """Features of 4 tasks in 5 scenes, `each` episodes of both."""
    tasks = np.tile(np.repeat(np.arange(4), each), 5)
    scenes = np.repeat(np.arange(5), 4 * each)
    x = np.concatenate([task_weight * np.eye(4)[tasks], scene_weight * np.eye(5)[scenes]], 1)
    return x + 0.05 * noise(*x.shape), {
        'tasks': ids(4, 't')[tasks], 'scenes': ids(5, 's')[scenes], 'episodes': ids(len(x), 'e')}


@pytest.mark.parametrize('classifier', ['knn', 'linear'])
def test_tasks_that_show_in_all_scenes(classifier):
    x, labels = rooms(1.0, 0.1)
    accuracy, drop = separability(x, classifier=classifier, **labels)
    assert accuracy.value == 1.0 and drop.value == 0.0 and accuracy.n == 60


@pytest.mark.parametrize('classifier', ['knn', 'linear'])
def test_tasks_that_only_their_scene_shows(classifier):
    """Guards the leaving out: features of (task, scene) together do not carry over."""
    _, labels = rooms(1.0, 1.0, each=6)
    cell = np.unique(join_labels(labels['tasks'], labels['scenes']), return_inverse=True)[1]
    x = np.eye(20)[cell] + 0.05 * noise(120, 20)
    accuracy, drop = separability(x, classifier=classifier, **labels)
    assert accuracy.value + drop.value > 0.9 and accuracy.value < 0.5
    assert drop.low > 0.3


def test_views_of_one_episode_do_not_vote_for_each_other():
    """Guards the drop: noise that an episode's two views share is not the task."""
    x = np.repeat(noise(30, 40), 2, axis=0)
    labels = {'tasks': np.repeat(ids(3, 't')[np.arange(30) % 3], 2),
              'scenes': np.repeat(ids(2, 's')[np.arange(30) // 3 % 2], 2)}
    apart = separability(x, k=1, episodes=np.repeat(ids(30, 'e'), 2), **labels)
    leaky = separability(x, k=1, episodes=ids(60, 'e'), **labels)
    within = [sum(estimate.value for estimate in found) for found in (apart, leaky)]
    assert within[0] < 0.7 and within[1] == 1.0


def test_a_task_of_one_scene_is_left_out():
    x, labels = rooms(1.0, 1.0)
    labels['tasks'][0] = 'only here'
    accuracy, drop = separability(x, **labels)
    assert accuracy.n == drop.n == 59
    with pytest.raises(EvaluationError, match='at least 2'):
        separability(x, tasks=labels['tasks'], scenes=['s'] * 60, episodes=ids(60))


def test_knn_votes_by_hand():
    """Three nearest: two far votes of b beat the one nearest of a; k = 1 takes the nearest."""
    angles = np.radians([0, 5, 20, 25, 80])
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    names = np.array(['a', 'a', 'b', 'b', 'a'])
    each = np.arange(5).astype(str)
    assert own._vote(x, names, each, 1)[0] == 'a'
    assert own._vote(x, names, each, 3)[0] == 'b'
    # Two votes, one each: the nearer one decides.
    assert own._vote(x, names, each, 2)[0] == 'a'


def test_distance_ratio_by_hand():
    """Tasks along two axes: nothing within, distance 1 between; then all the same."""
    x = np.repeat(np.eye(2), 6, axis=0)
    labels = {'tasks': np.repeat(['a', 'b'], 6), 'episodes': ids(12)}
    assert task_distance_ratio(x, **labels).value == 0.0
    assert task_distance_ratio(np.ones((12, 2)), **labels).value == 1.0
    # 0 and 90 degrees within each task.
    x = np.tile(np.eye(2), (6, 1))
    within, between = 3 * 3 / 15, 18 / 36
    assert task_distance_ratio(x, **labels).value == pytest.approx(within / between)
