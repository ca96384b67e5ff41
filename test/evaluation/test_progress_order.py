# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Progress and instructions by hand."""

from hralign_ros.evaluation.bootstrap import EvaluationError
from hralign_ros.evaluation.metrics.progress_order import confusion, value_order_correlations
import numpy as np
import pytest


def test_order():
    found = value_order_correlations([
        np.array([0.1, 0.2, 0.9]), np.array([3.0, 2.0, 1.0]), np.ones(4), np.array([5.0])])
    np.testing.assert_allclose(found, [1.0, -1.0, 0.0, 0.0])


def test_confusion():
    scores = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [0.0, 5.0, 1.0]])
    table, accuracy, chance = confusion(scores, ['a', 'b', 'b'], ['a', 'b', 'c'])
    np.testing.assert_allclose(table, [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert accuracy == pytest.approx(2 / 3) and chance == pytest.approx(1 / 3)


def test_a_task_nobody_asked_for():
    with pytest.raises(EvaluationError, match='not among them: d'):
        confusion(np.zeros((1, 3)), ['d'], ['a', 'b', 'c'])
