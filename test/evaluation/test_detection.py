# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Detection against cases worked out by hand."""

from hralign_ros.evaluation.bootstrap import EvaluationError, resample
from hralign_ros.evaluation.metrics.detection import detection, RECALL
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from support.metric_cases import ids


def test_by_hand():
    done = np.array([1, 1, 0, 0, 0], bool)
    scores = np.array([0.9, 0.4, 0.5, 0.3, 0.1])
    found = detection(scores, done, ids(5), draws=20)
    # Five of the six pairs are in the right order; at full recall one of three is called.
    assert found['auroc'].value == pytest.approx(5 / 6)
    assert found['fpr_at_95_recall'].value == pytest.approx(1 / 3)
    assert found['average_precision'].value == pytest.approx((1 + 2 / 3) / 2)
    assert found['auroc'].low <= found['auroc'].value <= found['auroc'].high


def test_only_the_order_counts():
    rng = np.random.default_rng(0)
    done = rng.random(200) < 0.3
    scores = done + rng.normal(0, 1, 200)
    one = detection(scores, done, ids(200), draws=10)
    other = detection(np.exp(3 * scores), done, ids(200), draws=10)
    assert one['auroc'] == other['auroc']
    assert one['fpr_at_95_recall'] == other['fpr_at_95_recall']


def test_seeds_are_averaged():
    done = np.array([1, 0] * 10, bool)
    right, wrong = done.astype(float), 1.0 - done
    found = detection(np.stack([right, wrong]), done, ids(20), draws=10)
    assert found['auroc'].value == 0.5


def test_alike_rows_make_wide_intervals():
    """Guards against two ticks of one episode passing for two episodes."""
    rng = np.random.default_rng(1)
    done = np.repeat(rng.random(30) < 0.5, 10)
    scores = np.repeat(rng.normal(0, 1, 30), 10) + done
    apart = detection(scores, done, ids(300), draws=200)['auroc']
    together = detection(scores, done, np.repeat(ids(30), 10), draws=200)['auroc']
    assert together.value == apart.value
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_ties_are_called_together():
    """Guards against a threshold in the middle of equal scores."""
    found = detection([1.0, 1.0, 1.0, 0.0], [1, 0, 0, 0], ids(4), draws=10)
    assert found['fpr_at_95_recall'].value == pytest.approx(2 / 3)


@pytest.mark.parametrize('levels', [3, 50, 10_000])
def test_all_draws_at_once_are_the_draws_one_by_one(levels):
    """
    Guards intervals: draws are measured together, since one by one took most of an evaluation.

    Values and draws are those of scikit-learn, of rows repeated as often as they were drawn, also
    where many rows have one score and where some draws have rows of one kind alone.
    """
    rng = np.random.default_rng(levels)
    clusters = ids(6).repeat(7)
    done = rng.random(6).repeat(7) + rng.normal(0, 0.3, 42) > 0.9
    scores = np.round((done + rng.normal(0, 1, (2, 42))) * levels)

    def one_by_one(measure):
        def value(chosen):
            truth = done[chosen]
            return np.nan if truth.all() or not truth.any() else float(np.mean(
                [measure(truth, row[chosen]) for row in scores]))
        return resample(value, clusters, draws=80, seed=3)

    def alarms(truth, values):
        false, found, _ = roc_curve(truth, values, drop_intermediate=False)
        return false[np.argmax(found >= RECALL)]

    assert done.any() and not done.all()
    found = detection(scores, done, clusters, draws=80, seed=3)
    for name, measure in (('auroc', roc_auc_score), ('average_precision', average_precision_score),
                          ('fpr_at_95_recall', alarms)):
        assert vars(found[name]) == pytest.approx(vars(one_by_one(measure)), abs=1e-12), name


def test_what_cannot_be_measured_is_said():
    with pytest.raises(EvaluationError, match='0 of 3 rows'):
        detection(np.zeros(3), np.zeros(3, bool), ids(3))
    with pytest.raises(EvaluationError, match='not finite'):
        detection(np.array([np.nan, 1]), np.array([True, False]), ids(2))
    with pytest.raises(EvaluationError, match='a score for each'):
        detection(np.zeros(2), np.array([True, False, True]), ids(3))
