# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Clusters of failures: found, kept in their numbers, never empty, even where asked to be."""

from hralign_ros.training.failure_clusters import ASSIGNMENTS, cluster
import numpy as np
import pytest

MIDDLES = np.eye(3, 8) * 5.0


def points(counts=(20, 20, 20), seed=0):
    rng = np.random.default_rng(seed)
    rows = np.concatenate([MIDDLES[k] + rng.normal(0, 0.6, (n, 8)) for k, n in enumerate(counts)])
    return rows, np.repeat(np.arange(3), counts)


@pytest.mark.parametrize('assignment', ASSIGNMENTS)
def test_plain_groups_are_found(assignment):
    """Guards the pseudo-labels: three directions apart are three clusters."""
    rows, truth = points()
    labels, centres = cluster(rows, 3, assignment=assignment)
    pairs = {(int(a), int(b)) for a, b in zip(labels, truth, strict=True)}
    assert len(pairs) == 3, 'one cluster for each direction'
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0)


def test_prompt_k_keeps_its_meaning():
    """
    Guards training: from epoch to epoch a mode is the same mode.

    Clusters that came back in another order would make every prompt unlearn what it had learnt.
    """
    rows, _ = points()
    labels, centres = cluster(rows, 3)
    moved, _ = points(seed=1)
    again, _ = cluster(moved, 3, before=centres)
    np.testing.assert_array_equal(again, labels)
    swapped, _ = cluster(rows, 3, before=centres[[2, 0, 1]])
    np.testing.assert_array_equal(np.array([2, 0, 1])[swapped], labels)


def test_fewer_failures_than_modes():
    """Guards tasks that hardly fail: no more clusters than failures, and no crash."""
    for count in (1, 2):
        labels, centres = cluster(MIDDLES[:count], 3)
        assert sorted(labels) == list(range(count)) and len(centres) == count
    labels, _ = cluster(np.ones((4, 8)), 3)
    assert set(labels) <= {0, 1, 2}
    with pytest.raises(ValueError, match='no points'):
        cluster(np.zeros((0, 8)), 3)
    with pytest.raises(ValueError, match='kmeans, balanced'):
        cluster(MIDDLES, 3, assignment='random')


def test_balanced_is_balanced():
    """Guards the option: forty alike and two others still share three prompts evenly."""
    rng = np.random.default_rng(2)
    rows = np.concatenate([MIDDLES[:1] + rng.normal(0, 1.0, (40, 8)), MIDDLES[1:]])
    counts = np.bincount(cluster(rows, 3, assignment='balanced')[0], minlength=3)
    assert counts.min() >= 9
