# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Tasks against cases worked out by hand or by another way of computing them."""

from hralign_ros.evaluation import metrics
from hralign_ros.evaluation.bootstrap import EvaluationError, join_labels
import hralign_ros.evaluation.metrics.task_separability as own
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
    found = metrics.separability(x, classifier=classifier, **labels)
    assert found.accuracy.value == 1.0 and found.drop.value == 0.0
    assert found.chance == 0.25 and found.left_out == 0 and found.accuracy.n == 60


@pytest.mark.parametrize('classifier', ['knn', 'linear'])
def test_tasks_that_only_their_scene_shows(classifier):
    """Guards the leaving out: features of (task, scene) together do not carry over."""
    _, labels = rooms(1.0, 1.0, each=6)
    cell = np.unique(join_labels(labels['tasks'], labels['scenes']), return_inverse=True)[1]
    x = np.eye(20)[cell] + 0.05 * noise(120, 20)
    found = metrics.separability(x, classifier=classifier, **labels)
    assert found.within.value > 0.9 and found.accuracy.value < 0.5
    assert found.drop.value == pytest.approx(found.within.value - found.accuracy.value)
    assert found.drop.low > 0.3


def test_views_of_one_episode_do_not_vote_for_each_other():
    """Guards `within`: noise that an episode's two views share is not the task."""
    x = np.repeat(noise(30, 40), 2, axis=0)
    labels = {'tasks': np.repeat(ids(3, 't')[np.arange(30) % 3], 2),
              'scenes': np.repeat(ids(2, 's')[np.arange(30) // 3 % 2], 2)}
    apart = metrics.separability(x, k=1, episodes=np.repeat(ids(30, 'e'), 2), **labels)
    leaky = metrics.separability(x, k=1, episodes=ids(60, 'e'), **labels)
    assert leaky.within.value == 1.0 and apart.within.value < 0.7


def test_a_task_of_one_scene_is_left_out():
    x, labels = rooms(1.0, 1.0)
    labels['tasks'][0] = 'only here'
    found = metrics.separability(x, **labels)
    assert found.left_out == 1 and 0 not in found.index and found.accuracy.n == 59
    with pytest.raises(EvaluationError, match='at least 2'):
        metrics.separability(x, tasks=labels['tasks'], scenes=['s'] * 60, episodes=ids(60))


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
    assert metrics.task_distance_ratio(x, **labels).value == 0.0
    assert metrics.task_distance_ratio(np.ones((12, 2)), **labels).value == 1.0
    # 0 and 90 degrees within each task, scenes telling which: within a scene there is no distance.
    x = np.tile(np.eye(2), (6, 1))
    scenes = np.tile(['s0', 's1'], 6)
    assert metrics.task_distance_ratio(x, scenes=scenes, **labels).value == pytest.approx(1.0)
    within, between = 3 * 3 / 15, 18 / 36
    assert metrics.task_distance_ratio(x, **labels).value == pytest.approx(within / between)
