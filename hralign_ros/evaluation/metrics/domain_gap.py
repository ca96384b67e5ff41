# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How easily a classifier tells human from robot features."""

from hralign_ros.evaluation.bootstrap import (
    cluster_bootstrap,
    Estimate,
    EvaluationError,
    Labels,
)
from hralign_ros.evaluation.metrics.classifiers import Classifier, classify
from hralign_ros.evaluation.metrics.rows import features_of, group_folds, labels_of
import numpy as np
from numpy.typing import ArrayLike


def proxy_a_distance(
    human: ArrayLike, robot: ArrayLike, *, groups_h: Labels, groups_r: Labels,
    classifier: Classifier = 'linear', folds: int = 5, shuffled: bool = False, seed: int = 0,
) -> Estimate:
    """
    Return the proxy A-distance between human and robot features: 2 (1 - 2 epsilon).

    Epsilon is the mean of the two domains' error rates on held-out groups: 2 where the classifier
    is always right, 0 where it guesses; below 0 by bad luck only, and not clipped, so that means
    stay unbiased.

    A classifier on standardised features learns on some groups and is tested on others, so that it
    cannot know a domain by its task or its background. Linear: logistic regression, C 0.01. MLP:
    one layer of 64 ReLU units, Adam, 100 epochs, weight decay 1e-3. Both weigh the domains alike.
    The interval draws groups of held-out predictions; it does not train again.

    :param human: [n, C]; every clip once, also where it has several robot partners.
    :param robot: [m, C].
    :param groups_h: task and scene of each human clip, [n]: join_labels(task, scene).
    :param groups_r: [m].
    :param shuffled: control: permute the domain labels; the distance must come out near 0.
    :raises EvaluationError: fewer groups than folds, a fold that trains on one domain only, or
        values that are not finite.
    """
    h, r = features_of('human', human), features_of('robot', robot)
    if h.shape[1] != r.shape[1]:
        raise EvaluationError(f'human has {h.shape[1]} channels, robot {r.shape[1]}')
    if classifier not in ('linear', 'mlp'):
        raise EvaluationError(f"classifier '{classifier}': allowed are linear and mlp")
    inputs = np.concatenate([h, r])
    domain = np.repeat([0, 1], [len(h), len(r)])
    groups = np.concatenate([labels_of('groups_h', groups_h, len(h)),
                             labels_of('groups_r', groups_r, len(r))])
    if shuffled:
        domain = np.random.default_rng(seed).permutation(domain)
    wrong = np.zeros(len(inputs), bool)
    for train, test in group_folds(groups, folds, seed):
        if len(np.unique(domain[train])) < 2:
            raise EvaluationError('a fold has one domain only: both need clips of most groups')
        wrong[test] = classify(
            classifier, inputs[train], domain[train], inputs[test], seed) != domain[test]
    counted = np.stack([domain == 0, domain == 1], -1).astype(np.float64)
    columns = np.concatenate([wrong[:, None] * counted, counted], -1)
    # Both error rates together are 2 epsilon.
    return cluster_bootstrap(
        columns[None], groups,
        lambda sums: 2 * (1 - (sums[:, 0] / sums[:, 2] + sums[:, 1] / sums[:, 3])), seed=seed)
