# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Metrics against cases worked out by hand or by another way of computing them."""

import math
import subprocess
import sys

from hralign_ros.evaluate import metrics
from hralign_ros.evaluate.bootstrap import EvaluationError, join_labels
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score


def ids(count, name='p'):
    return np.array([f'{name}{i:03d}' for i in range(count)])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# E1 -------------------------------------------------------------------------------------------

def search(query, gallery, tasks=None, **options):
    tasks = ids(len(query), 't') if tasks is None else tasks
    options = {'identity': ids(len(query)), 'task_q': tasks, 'task_g': tasks, **options}
    return metrics.retrieval(query, gallery, **options)


def test_perfect_alignment_and_its_opposite():
    x = noise(20, 16).astype(np.float32)
    found = search(x, 3.0 * x)
    assert found.recall[1].value == 1.0 and found.recall[1].n == 20
    assert found.average_precision.value == 1.0 and found.median_rank.value == 1.0
    assert found.gallery == 20 and found.chance[1] == pytest.approx(0.05)
    # Everybody finds the neighbour's clip.
    assert search(x, np.roll(x, 1, axis=0)).recall[1].value == 0.0


def test_random_features_are_at_chance():
    found = search(noise(600, 16), noise(600, 16, seed=1), gallery_size=10, draws=10)
    assert found.chance == {1: pytest.approx(0.1), 5: pytest.approx(0.5)}
    assert found.recall[1].value == pytest.approx(0.1, abs=0.02)
    assert found.recall[5].value == pytest.approx(0.5, abs=0.04)
    assert found.recall[1].low < 0.1 < found.recall[1].high


def test_ranks_by_hand():
    """One query at 0 degrees; the clips at 0, 10, 20 and 30; the right ones at 10 and 30."""
    angles = np.radians([0, 10, 20, 30])
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1)
    query = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = metrics.retrieval(
        query, gallery, identity=['a', 'b'], identity_g=['x', 'a', 'y', 'b'],
        task_q=['red', 'blue'], task_g=['blue', 'red', 'blue', 'red'], level='task', ks=(1, 2))
    # Query a: red at ranks 2 and 4: AP (1/2 + 2/4) / 2. Query b, from 30 down: its own pair
    # (red, but its own) is first, then blue at 2 and 4: AP (1 + 2/2 + 3/4) / 3.
    assert found.precisions.tolist() == pytest.approx([0.5, 2.75 / 3])
    assert found.ranks.tolist() == [2, 1]
    assert found.hits[1].tolist() == [0, 1] and found.hits[2].tolist() == [1, 1]
    assert found.chance[1] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert found.median_rank.value == 1.5


def test_average_precision_agrees_with_another_one():
    query, gallery = noise(30, 8), noise(40, 8, seed=1)
    tasks = np.random.default_rng(0).choice(['a', 'b', 'c'], 70)
    found = metrics.retrieval(query, gallery, identity=ids(30, 'q'), identity_g=ids(40, 'g'),
                              task_q=tasks[:30], task_g=tasks[30:], level='task', own_pair=False)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    expected = [average_precision_score(tasks[30:] == task, row)
                for task, row in zip(tasks[:30], unit[0] @ unit[1].T, strict=True)]
    np.testing.assert_allclose(found.precisions, expected)


def test_ties_never_help():
    """Guards against collapse that looks like success: equal features find nothing."""
    same = np.ones((8, 4), np.float32)
    found = search(same, same)
    assert found.recall[1].value == 0.0 and found.ranks.tolist() == [8] * 8
    # Equal but for what float32 rounds.
    nearly = same * (1 + 1e-8 * noise(8, 4))
    assert search(same, nearly).recall[1].value == 0.0
    found = search(same, same, tasks=np.repeat(['a', 'b'], 4), level='task')
    assert found.ranks.tolist() == [5] * 8


def test_own_pair_can_be_taken_out():
    x = noise(6, 8)
    tasks = np.repeat(['a', 'b', 'c'], 2)
    gallery = x.copy()
    found = search(x, gallery, tasks=tasks, level='task', own_pair=False)
    assert found.gallery == 5 and found.chance[1] == pytest.approx(1 / 5)
    assert search(x, gallery, tasks=tasks, level='task').recall[1].value == 1.0
    lonely = search(x, gallery, tasks=['a', 'a', 'b', 'b', 'c', 'd'], level='task',
                    own_pair=False)
    assert lonely.left_out == 2 and lonely.index.tolist() == [0, 1, 2, 3]
    with pytest.raises(EvaluationError, match='own pair'):
        search(x, gallery, own_pair=False)


def test_fixed_gallery_is_the_mean_over_galleries():
    """R@1 from 50 clips where exactly 3 wrong ones are nearer: all 3 must miss the gallery."""
    query = np.zeros((50, 2))
    query[:, 0] = 1.0
    angle = np.full(50, 1.0)
    angle[:4] = [0.1, 0.2, 0.3, 0.4]
    gallery = np.stack([np.cos(angle), np.sin(angle)], 1)
    found = search(query[:4], gallery, task_q=['t'] * 4, task_g=['t'] * 50,
                   identity_g=ids(50), gallery_size=10, draws=3000)
    expected = math.comb(46, 9) / math.comb(49, 9)
    assert found.gallery == 10 and found.draws == 3000
    assert found.hits[1][3] == pytest.approx(expected, abs=0.03)
    assert found.hits[1][0] == 1.0
    assert found.ranks[3] == pytest.approx(1 + 3 * 9 / 49, abs=0.05)


def test_galleries_do_not_depend_on_the_features():
    """Guards pairing: two variants are asked about the same galleries."""
    first = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=7)
    again = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=7)
    other = search(noise(30, 4), noise(30, 4, seed=1), gallery_size=5, draws=3, seed=8)
    assert np.array_equal(first.ranks, again.ranks)
    assert not np.array_equal(first.ranks, other.ranks)
    x = noise(30, 4)
    scaled = search(x * 5, noise(30, 4, seed=1) * 3, gallery_size=5, draws=3, seed=7)
    assert np.array_equal(first.ranks, scaled.ranks)


def test_hard_gallery_holds_the_same_scene_and_other_tasks():
    """Features that know the scene alone solve the easy gallery's scene, and not the hard one."""
    scenes, tasks = np.repeat(['s0', 's1', 's2'], 4), np.tile(['a', 'b', 'c', 'c'], 3)
    scene = np.repeat(np.eye(3), 4, axis=0)
    found = search(scene, scene, tasks=tasks, scene_q=scenes, scene_g=scenes, ks=(1, 4))
    # Own pair and three others, except task c, which has one clip fewer of another task.
    assert found.gallery == pytest.approx((4 + 4 + 3 + 3) / 4)
    assert found.recall[1].value == 0.0 and found.recall[4].value == 1.0
    assert found.recall[1].clusters == 9
    task = np.concatenate([scene, np.tile([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], (3, 1))],
                          axis=1)
    assert search(task, task, tasks=tasks, scene_q=scenes,
                  scene_g=scenes).recall[1].value == 1.0


def test_text_of_the_query_cannot_tell_the_clip():
    """Guards against the leak: features that are the text alone find nothing."""
    tasks, number = ids(6, 't'), np.arange(6)
    text = np.eye(6)

    def text_only(rows, text_number):
        return np.repeat(text[[text_number]], len(rows), axis=0)

    options = {'identity': ids(6), 'task_q': tasks, 'task_g': tasks}
    # With its own text in each clip the same features would be perfect.
    assert search(text, text, tasks=tasks).recall[1].value == 1.0
    found = metrics.retrieval_with_queries(text_only, text_only, text=number, **options)
    assert found.recall[1].value == 0.0 and found.ranks.tolist() == [6] * 6


def test_each_query_meets_the_gallery_pooled_with_its_text():
    """One text turns the gallery round: each query gets its own rows."""
    x, asked = noise(6, 8), []

    def pool_gallery(rows, text):
        asked.append((rows.tolist(), text))
        return x if text == 0 else np.roll(x, 1, axis=0)

    found = metrics.retrieval_with_queries(
        lambda rows, text: x[rows], pool_gallery, text=[0, 0, 0, 1, 1, 1], identity=ids(6),
        task_q=ids(6), task_g=ids(6))
    assert found.hits[1].tolist() == [1, 1, 1, 0, 0, 0]
    assert asked == [(list(range(6)), 0), (list(range(6)), 1)]
    with pytest.raises(EvaluationError, match='integer'):
        metrics.retrieval_with_queries(pool_gallery, pool_gallery, text=['a'], identity=['a'],
                                       task_q=['a'], task_g=['a'])


@pytest.mark.parametrize(('change', 'message'), [
    ({'query': np.zeros((4, 8))}, '4 of 4 features are zero'),
    ({'query': np.full((4, 8), np.nan)}, '4 of 4 rows are not finite'),
    ({'query': np.zeros((0, 8))}, 'not empty'),
    ({'query': np.ones(4)}, 'channels'),
    ({'gallery': np.ones((4, 7))}, '8 channels, the gallery 7'),
    ({'task_q': ['a']}, 'task_q'),
    ({'gallery_size': 5}, 'smaller size'),
    ({'scene_q': ['a'] * 4}, 'scenes'),
    ({'ks': ()}, 'at least 1'),
    ({'level': 'clip'}, 'level'),
    ({'identity_g': ids(4, 'other')}, 'no query'),
])
def test_what_retrieval_refuses(change, message):
    options = {'query': noise(4, 8), 'gallery': noise(4, 8), 'identity': ids(4),
               'task_q': ids(4), 'task_g': ids(4), **change}
    with pytest.raises(EvaluationError, match=message):
        metrics.retrieval(options.pop('query'), options.pop('gallery'), **options)


# E2 -------------------------------------------------------------------------------------------

GROUPS = np.repeat(ids(10, 'g'), 10)


@pytest.mark.parametrize('classifier', ['linear', 'mlp'])
def test_proxy_distance_of_equal_and_of_separate_domains(classifier):
    human, robot = noise(100, 6), noise(100, 6, seed=1)
    options = {'groups_h': GROUPS, 'groups_r': GROUPS, 'classifier': classifier}
    equal = metrics.proxy_a_distance(human, robot, **options)
    assert equal.distance.value == pytest.approx(0.0, abs=0.35)
    assert equal.error.value == pytest.approx(0.5, abs=0.09)
    assert equal.distance.value == pytest.approx(2 * (1 - 2 * equal.error.value))
    separate = metrics.proxy_a_distance(human, robot + 6.0, **options)
    assert separate.distance.value == 2.0 and separate.error.value == 0.0
    control = metrics.proxy_a_distance(human, robot + 6.0, shuffled=True, **options)
    assert control.distance.value == pytest.approx(0.0, abs=0.4) and control.shuffled
    assert (equal.distance.n, equal.distance.clusters) == (200, 10)


def test_an_mlp_sees_what_a_line_cannot():
    """Domains that differ by the sign of a product: no line separates them."""
    x = noise(400, 2)
    product = x[:, 0] * x[:, 1] > 0
    human, robot = x[product], x[~product]
    options = {'groups_h': ids(10)[np.arange(len(human)) % 10],
               'groups_r': ids(10)[np.arange(len(robot)) % 10]}
    assert metrics.proxy_a_distance(human, robot, **options).distance.value < 0.5
    assert metrics.proxy_a_distance(
        human, robot, classifier='mlp', **options).distance.value > 1.5


def test_groups_are_never_in_two_folds():
    """Guards against knowing a domain by its scene: memorable groups help nobody."""
    folds = metrics.group_folds(GROUPS, 5, seed=0)
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested.tolist()) == list(range(100))
    for train, test in folds:
        assert not set(GROUPS[train]) & set(GROUPS[test])
    # Each group's own offset tells its domain, and tells nothing about other groups.
    offsets = 20 * noise(20, 30)
    human = np.repeat(offsets[:10], 10, axis=0) + noise(100, 30)
    robot = np.repeat(offsets[10:], 10, axis=0) + noise(100, 30, seed=2)
    known = metrics.proxy_a_distance(human, robot, groups_h=GROUPS, groups_r=GROUPS)
    leaky = metrics.proxy_a_distance(human, robot, groups_h=ids(100, 'h'),
                                     groups_r=ids(100, 'r'))
    assert leaky.distance.low > 1.5 and known.distance.high < 1.2


def test_error_is_balanced():
    """A domain of a tenth of the clips counts as much as the other."""
    human, robot = noise(200, 3), noise(20, 3, seed=1)
    found = metrics.proxy_a_distance(human, robot, groups_h=np.repeat(ids(10), 20),
                                     groups_r=np.repeat(ids(10), 2))
    assert found.error.value > 0.3
    wrong = found.wrong
    assert found.error.value == pytest.approx((wrong[:200].mean() + wrong[200:].mean()) / 2)


def test_the_smaller_domain_is_learned_too():
    """Guards the weights: without them a tenth of the clips would be given up as noise."""
    human, robot = noise(400, 3), noise(40, 3, seed=1) + 1.0
    found = metrics.proxy_a_distance(human, robot, groups_h=np.repeat(ids(10), 40),
                                     groups_r=np.repeat(ids(10), 4))
    assert found.wrong[400:].mean() < 0.4 and found.error.value < 0.3


def test_the_span_of_few_rows_changes_nothing():
    """Guards the shortcut for more channels than clips against the plain model."""
    x, test = noise(40, 90), noise(30, 90, seed=1)
    y = (x[:, 0] > 0).astype(int)
    small, small_test = metrics._span(x, test)
    assert small.shape[1] <= 40
    direct = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(x, y)
    short = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(small, y)
    np.testing.assert_allclose(short.decision_function(small_test),
                               direct.decision_function(test), atol=1e-5)


def test_what_proxy_distance_refuses():
    x = noise(10, 4)
    with pytest.raises(EvaluationError, match='2 group'):
        metrics.proxy_a_distance(x, x, groups_h=['a'] * 10, groups_r=['b'] * 10)
    with pytest.raises(EvaluationError, match='one domain'):
        metrics.proxy_a_distance(x, x, groups_h=['a'] * 10, groups_r=['b'] * 10, folds=2)
    with pytest.raises(EvaluationError, match='allowed are'):
        metrics.proxy_a_distance(x, x, groups_h=ids(10), groups_r=ids(10), classifier='svm')
    with pytest.raises(EvaluationError, match='robot 3'):
        metrics.proxy_a_distance(x, x[:, :3], groups_h=ids(10), groups_r=ids(10))


# E3 -------------------------------------------------------------------------------------------

def test_cka_does_not_see_rotation_scale_or_shift():
    x = noise(60, 12)
    rotation = np.linalg.qr(noise(12, 12, seed=3))[0]
    found = metrics.linear_cka(x, 7.0 * x @ rotation + 5.0, clusters=ids(60))
    assert found.value == pytest.approx(1.0) and found.method == 'jackknife'
    assert found.high - found.low < 1e-6


def test_debiased_cka_of_unrelated_features_is_zero():
    """Guards the debiasing: with more channels than clips the plain one is near 1."""
    x, y = noise(60, 600), noise(60, 600, seed=1)
    centred = [v - v.mean(0) for v in (x, y)]
    cross, own = centred[0].T @ centred[1], [v.T @ v for v in centred]
    biased = (cross ** 2).sum() / np.sqrt((own[0] ** 2).sum() * (own[1] ** 2).sum())
    found = metrics.linear_cka(x, y, clusters=ids(60))
    assert biased > 0.8
    assert found.value == pytest.approx(0.0, abs=0.05)
    assert found.low <= 0.0 <= found.high


def test_cka_of_half_shared_variance():
    """Y = X + N of equal variance: HSIC d / sqrt(d * 4 d) = 1/2."""
    x = noise(400, 40)
    found = metrics.linear_cka(x, x + noise(400, 40, seed=1), clusters=ids(400))
    assert found.value == pytest.approx(0.5, abs=0.03)


def test_what_cka_refuses():
    x = noise(20, 4)
    with pytest.raises(EvaluationError, match='not pairs'):
        metrics.linear_cka(x, x[:-1], clusters=ids(20))
    with pytest.raises(EvaluationError, match='at least 4'):
        metrics.linear_cka(x[:4], x[:4], clusters=ids(4))
    with pytest.raises(EvaluationError, match='do not vary'):
        metrics.linear_cka(x, np.ones((20, 4)), clusters=ids(20))


def test_spread_of_known_features():
    """Vectors along 4 axes in equal share: rank 4 uncentred; symmetric, so centring keeps it."""
    axes = np.concatenate([np.eye(6)[:4], -np.eye(6)[:4]])
    found = metrics.spread(np.tile(axes, (5, 1)), clusters=ids(40))
    assert found.effective_rank.value == pytest.approx(4.0)
    assert found.norm_entropy.value == pytest.approx(1.0)
    assert found.variation.value == pytest.approx(1.0)
    line = np.outer(np.linspace(1, 2, 30), [1.0, 2.0, 2.0])
    collapsed = metrics.spread(line, clusters=ids(30))
    assert collapsed.effective_rank.value == pytest.approx(1.0)
    assert collapsed.variation.value == pytest.approx(0.0, abs=1e-9)


def test_effective_rank_is_the_same_by_singular_values():
    for shape in ((30, 8), (8, 30)):
        x = noise(*shape) * np.linspace(1, 5, shape[1])
        values = np.linalg.svd(x - x.mean(0), compute_uv=False)
        shares = values[values > 1e-6 * values.max()]
        shares = shares / shares.sum()
        expected = np.exp(-(shares * np.log(shares)).sum())
        found = metrics.spread(x, clusters=ids(shape[0]))
        assert found.effective_rank.value == pytest.approx(expected)


def test_norm_entropy_by_hand():
    found = metrics.spread(np.diag([2.0, 1.0, 1.0]), clusters=ids(3))
    assert found.norm_entropy.value == pytest.approx(1.5 * np.log(2) / np.log(3))


# E4 -------------------------------------------------------------------------------------------

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
    allowed = ~np.eye(5, dtype=bool)
    similarity = x @ x.T
    assert metrics._vote(similarity, names, allowed, 1)[0] == 'a'
    assert metrics._vote(similarity, names, allowed, 3)[0] == 'b'
    # Two votes, one each: the nearer one decides.
    assert metrics._vote(similarity, names, allowed, 2)[0] == 'a'


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


# E5 -------------------------------------------------------------------------------------------

RUNS = np.repeat(ids(10, 'e'), 20)


def test_linear_targets_are_read_and_noise_is_not():
    x = noise(200, 6)
    y = np.concatenate([x @ noise(6, 2, seed=1) + 3.0, np.ones((200, 1))], 1)
    found = metrics.proprio_probe(x, y, episodes=RUNS)
    assert found.r2.value > 0.999 and found.targets.tolist() == [0, 1]
    assert (found.r2.n, found.r2.clusters, len(found.penalties)) == (200, 10, 5)
    assert min(found.penalties) == metrics.RIDGE_ALPHAS[0]
    unrelated = metrics.proprio_probe(x, noise(200, 2, seed=9), episodes=RUNS)
    assert unrelated.r2.value < 0.05
    assert min(unrelated.penalties) >= 1.0


def test_r2_is_against_the_mean_of_the_training_episodes():
    """Guards against flattery: the mean of the tested rows is not known to anybody."""
    y = np.repeat(noise(10, 1, seed=4), 20, axis=0) + 0.1 * noise(200, 1)
    found = metrics.proprio_probe(noise(200, 3, seed=2), y, episodes=RUNS)
    expected = np.empty_like(y)
    for train, test in metrics.group_folds(RUNS, 5, seed=0):
        expected[test] = (y[test] - y[train].mean(0)) ** 2
    np.testing.assert_allclose(found.baseline, expected)
    assert found.r2.value == pytest.approx(1 - found.errors.sum() / expected.sum())


@pytest.mark.parametrize('width', [6, 300])
def test_ridge_agrees_with_another_one(width):
    """Both ways of solving, few columns and few rows, on one fold."""
    x = noise(100, width)
    y = x[:, :2] + noise(100, 2, seed=1)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
    test = noise(7, width, seed=2)
    found, penalty = metrics._ridge(x, y, np.repeat(ids(10), 10), test, 0)
    expected = Ridge(alpha=penalty * 100, fit_intercept=False).fit(x, y).predict(test)
    np.testing.assert_allclose(found, expected, atol=1e-8)

    def loss(alpha):
        total = 0.0
        for train, held in metrics.group_folds(np.repeat(ids(10), 10), 3, 0):
            model = Ridge(alpha=alpha * len(train), fit_intercept=False).fit(x[train], y[train])
            total += ((model.predict(x[held]) - y[held]) ** 2).sum()
        return total

    assert penalty == min(metrics.RIDGE_ALPHAS, key=loss)


def test_actions_need_both_frames():
    """The action is the change to the next frame: one frame alone does not tell it."""
    x = noise(200, 4)
    actions = np.zeros((200, 2))
    actions[:-1] = x[1:, :2] - x[:-1, :2]
    found = metrics.action_probe(x, actions, episodes=RUNS)
    assert found.r2.value > 0.99
    assert found.r2.n == 190, 'a last frame has no next one'
    assert metrics.action_probe(x, actions, episodes=RUNS, step=2).r2.value < 0.7
    # Rows of different episodes may be mixed as long as each keeps its order.
    mixed = np.argsort(np.tile(np.arange(20), 10), kind='stable')
    again = metrics.action_probe(x[mixed], actions[mixed], episodes=RUNS[mixed])
    assert again.r2.value == pytest.approx(found.r2.value)
    with pytest.raises(EvaluationError, match='no episode has more than 20'):
        metrics.action_probe(x, actions, episodes=RUNS, step=20)


def test_what_an_episode_has_of_its_own_does_not_help():
    """Guards the folds by episode: a target constant in each episode cannot be read off noise."""
    offsets = noise(10, 30)
    x = np.repeat(offsets, 20, axis=0) + 0.01 * noise(200, 30)
    y = np.repeat(noise(10, 1, seed=4), 20, axis=0)
    assert metrics.proprio_probe(x, y, episodes=RUNS).r2.value < 0.5
    assert metrics.proprio_probe(x, y, episodes=ids(200)).r2.value > 0.95


def test_paired_r2():
    x = noise(200, 4)
    y = x[:, :2] + 0.5 * noise(200, 2, seed=1)
    good = metrics.proprio_probe(x, y, episodes=RUNS)
    poor = metrics.proprio_probe(x + noise(200, 4, seed=2), y, episodes=RUNS)
    gain = metrics.r2_difference(good, poor)
    assert gain.value == pytest.approx(good.r2.value - poor.r2.value)
    assert gain.low > 0.0
    same = metrics.r2_difference(good, good)
    assert same.low == same.high == 0.0
    with pytest.raises(EvaluationError, match='same frames'):
        metrics.r2_difference(good, metrics.proprio_probe(x[20:], y[20:], episodes=RUNS[20:]))


def test_what_a_probe_refuses():
    x = noise(40, 3)
    with pytest.raises(EvaluationError, match='2 group'):
        metrics.proprio_probe(x, x, episodes=RUNS[:40])
    with pytest.raises(EvaluationError, match='varies'):
        metrics.proprio_probe(x, np.ones((40, 1)), episodes=ids(40))
    with pytest.raises(EvaluationError, match='proprio'):
        metrics.proprio_probe(x, x[:-1], episodes=ids(40))


# E6 -------------------------------------------------------------------------------------------

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
    good = metrics.nearest_neighbour_policy(seeing, actions, metric='euclidean', **labels)
    poor = metrics.nearest_neighbour_policy(blind, actions, metric='euclidean', **labels)
    gain = metrics.policy_difference(good, poor)
    assert gain.value == pytest.approx(good.normalised.value - poor.normalised.value)
    assert gain.high < 0.0 and good.normalised.high < good.baseline.low
    assert poor.normalised.value > 0.95 * poor.baseline.value
    assert set(good.per_task) == {'a', 'b'} and good.seeds == (0, 1, 2, 3, 4)
    assert np.array_equal(good.episodes, poor.episodes)


def test_neighbours_by_hand():
    """Squared distances 1 and 4, mean 2.5: weights exp(-0.4) and exp(-1.6), normalised."""
    x, y = np.array([[1.0], [-2.0], [50.0]]), np.array([[0.0], [1.0], [9.0]])
    weight = np.exp(-1.6) / (np.exp(-0.4) + np.exp(-1.6))
    assert metrics._neighbours(x, y, np.zeros((1, 1)), 2)[0, 0] == pytest.approx(weight)
    # The scale of the features plays no part; an exact copy is taken as it is.
    assert metrics._neighbours(9 * x, y, np.zeros((1, 1)), 2)[0, 0] == pytest.approx(weight)
    assert metrics._neighbours(x, y, x[:1], 1)[0, 0] == 0.0


def test_errors_by_hand():
    """Two demos that act alike and constant features: each test frame gets their mean action."""
    actions = np.array([[0.0], [2.0]] * 3)
    labels = {'episodes': np.repeat(['e0', 'e1', 'e2'], 2), 'tasks': ['t'] * 6}
    found = metrics.nearest_neighbour_policy(
        np.ones((6, 2)), actions, demos=2, k=4, seeds=(0, 1), **labels)
    # Mean 1 against 0 and 2, the demos' standard deviation being 1.
    assert found.error.value == pytest.approx(1.0)
    assert found.normalised.value == pytest.approx(1.0)
    assert found.baseline.value == pytest.approx(1.0)


def test_neighbours_come_from_demos_of_the_same_task_only():
    """Tasks with opposite actions and the same pictures: the task decides."""
    x = np.tile(np.eye(4), (8, 1))
    actions = np.tile(np.arange(4.0)[:, None] + 1.0, (8, 1))
    actions[16:] *= -1
    labels = {'episodes': np.repeat(ids(8, 'e'), 4), 'tasks': np.repeat(['a', 'b'], 16)}
    found = metrics.nearest_neighbour_policy(x, actions, k=2, **labels)
    assert found.error.value == pytest.approx(0.0)


def test_the_choice_of_demos_is_paired():
    """Guards paired seeds: features and other tasks change nothing in who is a demo."""
    episodes = ids(10, 'e')
    first = metrics._choose_demos(episodes, 4, 0, 'open')
    assert len(first) == 4
    assert np.array_equal(first, metrics._choose_demos(episodes[::-1], 4, 0, 'open'))
    assert not np.array_equal(first, metrics._choose_demos(episodes, 4, 1, 'open'))
    with pytest.raises(EvaluationError, match='leave none to test'):
        metrics._choose_demos(episodes, 10, 0, 'open')


def test_time_alone_can_be_a_feature():
    """The control by elapsed time: one channel, not normalised to 1."""
    time = np.tile(np.arange(15.0), 16)[:, None]
    labels = {'episodes': np.repeat(ids(16, 'e'), 15), 'tasks': ['t'] * 240}
    found = metrics.nearest_neighbour_policy(time, np.sin(time), metric='euclidean', **labels)
    assert found.normalised.value < 0.05 * found.baseline.value


def test_what_a_policy_refuses():
    x, actions, labels = demos_of(lambda state: state)
    with pytest.raises(EvaluationError, match='two tasks'):
        metrics.nearest_neighbour_policy(
            x, actions, episodes=labels['episodes'], tasks=np.tile(['a', 'b'], 120))
    with pytest.raises(EvaluationError, match='never change'):
        metrics.nearest_neighbour_policy(x, np.ones((240, 2)), **labels)
    with pytest.raises(EvaluationError, match='30 needed'):
        metrics.nearest_neighbour_policy(x, actions, demos=1, k=30, **labels)
    with pytest.raises(EvaluationError, match='not finite'):
        metrics.nearest_neighbour_policy(x, actions * np.nan, **labels)
    good = metrics.nearest_neighbour_policy(x, actions, **labels)
    other = metrics.nearest_neighbour_policy(x, actions, seeds=(7, 8), **labels)
    with pytest.raises(EvaluationError, match='same episodes and seeds'):
        metrics.policy_difference(good, other)


def test_nothing_is_changed():
    x, gallery = noise(20, 8), noise(20, 8, seed=1)
    before = x.copy(), gallery.copy()
    search(x, gallery)
    metrics.linear_cka(x, gallery, clusters=ids(20))
    metrics.spread(x, clusters=ids(20))
    metrics.proprio_probe(x, gallery, episodes=ids(20))
    assert np.array_equal(x, before[0]) and np.array_equal(gallery, before[1])


def test_metrics_without_torch():
    """Guards the layering at run time: numbers can be recomputed where there is no torch."""
    program = ('import sys, hralign_ros.evaluate.metrics, hralign_ros.evaluate.report\n'
               'print("torch" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.stdout.strip() == 'False', done.stderr
