# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Domain gap against cases worked out by hand or by another way of computing them."""

from hralign_ros.evaluation.bootstrap import EvaluationError
import hralign_ros.evaluation.metrics.classifiers as classify
from hralign_ros.evaluation.metrics.domain_gap import proxy_a_distance
from hralign_ros.evaluation.metrics.rows import group_folds
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support.metric_cases import ids, noise

GROUPS = np.repeat(ids(10, 'g'), 10)


@pytest.mark.parametrize('classifier', ['linear', 'mlp'])
def test_proxy_distance_of_equal_and_of_separate_domains(classifier):
    human, robot = noise(100, 6), noise(100, 6, seed=1)
    options = {'groups_h': GROUPS, 'groups_r': GROUPS, 'classifier': classifier}
    equal = proxy_a_distance(human, robot, **options)
    assert equal.value == pytest.approx(0.0, abs=0.35)
    separate = proxy_a_distance(human, robot + 6.0, **options)
    assert separate.value == 2.0
    control = proxy_a_distance(human, robot + 6.0, shuffled=True, **options)
    assert control.value == pytest.approx(0.0, abs=0.4)
    assert (equal.n, equal.clusters) == (200, 10)


def test_an_mlp_sees_what_a_line_cannot():
    """Domains that differ by the sign of a product: no line separates them."""
    x = noise(400, 2)
    product = x[:, 0] * x[:, 1] > 0
    human, robot = x[product], x[~product]
    options = {'groups_h': ids(10)[np.arange(len(human)) % 10],
               'groups_r': ids(10)[np.arange(len(robot)) % 10]}
    assert proxy_a_distance(human, robot, **options).value < 0.5
    assert proxy_a_distance(
        human, robot, classifier='mlp', **options).value > 1.5


def test_groups_are_never_in_two_folds():
    """Guards against knowing a domain by its scene: memorable groups help nobody."""
    folds = group_folds(GROUPS, 5, seed=0)
    tested = np.concatenate([test for _, test in folds])
    assert sorted(tested.tolist()) == list(range(100))
    for train, test in folds:
        assert not set(GROUPS[train]) & set(GROUPS[test])
    # Each group's own offset tells its domain, and tells nothing about other groups.
    offsets = 20 * noise(20, 30)
    human = np.repeat(offsets[:10], 10, axis=0) + noise(100, 30)
    robot = np.repeat(offsets[10:], 10, axis=0) + noise(100, 30, seed=2)
    known = proxy_a_distance(human, robot, groups_h=GROUPS, groups_r=GROUPS)
    leaky = proxy_a_distance(human, robot, groups_h=ids(100, 'h'),
                             groups_r=ids(100, 'r'))
    assert leaky.low > 1.5 and known.high < 1.2


def test_error_is_balanced():
    """A domain of a tenth of the clips counts as much as the other."""
    human, robot = noise(200, 3), noise(20, 3, seed=1)
    found = proxy_a_distance(human, robot, groups_h=np.repeat(ids(10), 20),
                             groups_r=np.repeat(ids(10), 2))
    # Who calls all of them human is wrong in half of the cases, and not in a tenth.
    assert found.value < 0.8


def test_the_smaller_domain_is_learned_too():
    """Guards the weights: without them a tenth of the clips would be given up as noise."""
    human, robot = noise(400, 3), noise(40, 3, seed=1) + 1.0
    found = proxy_a_distance(human, robot, groups_h=np.repeat(ids(10), 40),
                             groups_r=np.repeat(ids(10), 4))
    # An error of less than 0.3: half of the smaller domain given up is 0.25 at least.
    assert found.value > 0.8


def test_the_span_of_few_rows_changes_nothing():
    """Guards the shortcut for more channels than clips against the plain model."""
    x, test = noise(40, 90), noise(30, 90, seed=1)
    y = (x[:, 0] > 0).astype(int)
    small, small_test = classify.span(x, test)
    assert small.shape[1] <= 40
    direct = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(x, y)
    short = LogisticRegression(C=0.01, tol=1e-10, max_iter=5000).fit(small, y)
    np.testing.assert_allclose(short.decision_function(small_test),
                               direct.decision_function(test), atol=1e-5)


def test_what_proxy_distance_refuses():
    x = noise(10, 4)
    with pytest.raises(EvaluationError, match='2 group'):
        proxy_a_distance(x, x, groups_h=['a'] * 10, groups_r=['b'] * 10)
    with pytest.raises(EvaluationError, match='one domain'):
        proxy_a_distance(x, x, groups_h=['a'] * 10, groups_r=['b'] * 10, folds=2)
    with pytest.raises(EvaluationError, match='allowed are'):
        proxy_a_distance(x, x, groups_h=ids(10), groups_r=ids(10), classifier='svm')
    with pytest.raises(EvaluationError, match='robot 3'):
        proxy_a_distance(x, x[:, :3], groups_h=ids(10), groups_r=ids(10))
