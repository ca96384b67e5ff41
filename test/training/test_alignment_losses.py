# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Losses against slow references that are written from the equations, in float64."""

from itertools import product
import math

from hralign_ros.training.alignment_losses import video_text_loss
import pytest
from support import tiny_run
import torch

TASKS = torch.tensor([0, 1, 0, 2, 1, 0])
SAME = TASKS[:, None] == TASKS[None]


def features(count=6, channels=8):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, channels, dtype=torch.float64, generator=generator,
                        requires_grad=True) for _ in range(3)]


def reference(human, frozen, adapted, *, temperature, decoupled, weight, same):
    """Compute Eq. 6 term by term, with nothing but dot products, exp and log."""
    def unit(rows):
        return [row / row.dot(row).sqrt() for row in rows]

    h, f, a = unit(human), unit(frozen), unit(adapted)

    def s(x, y):
        return torch.exp(x.dot(y) / temperature)

    total, count = 0.0, len(h)
    for i in range(count):
        for x, others in ((h, a), (a, h)):
            positive = s(x[i], others[i])
            negatives = [weight * s(h[i], f[i])] if weight else []
            negatives += [s(x[i], others[j]) for j in range(count)
                          if j != i and not (same is not None and same[i, j])]
            if not (decoupled and negatives):
                negatives.append(positive)
            total = total - torch.log(positive / sum(negatives))
    return total / (2 * count)


@pytest.mark.parametrize(
    ('decoupled', 'weight', 'masked', 'temperature'),
    list(product([False, True], [1.0, 0.3, 0.0], [False, True], [0.1, 1.0])))
def test_values_and_gradients_of_eq_6(decoupled, weight, masked, temperature):
    """Guards every option of the loss, and the gradient into all three streams."""
    same = SAME if masked else None
    mine, theirs = features(), features()
    loss = tiny_run.loss_of(*mine, temperature=temperature, decoupled=decoupled,
                            frozen_weight=weight, same_task=same)
    expected = reference(*theirs, temperature=temperature, decoupled=decoupled, weight=weight,
                         same=same)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for x, y in zip(mine, theirs, strict=True):
        got, wanted = (torch.autograd.grad(z, v, retain_graph=True, allow_unused=True)[0]
                       for z, v in ((loss, x), (expected, y)))
        if wanted is None:
            assert weight == 0 and x is mine[1]
            assert got is None or not got.any()
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_a_row_without_negatives_contributes_nothing():
    """Guards the decoupled loss against the logarithm of zero, and its gradient against NaN."""
    rows = features(3)
    everybody = torch.ones(3, 3, dtype=torch.bool)
    loss = tiny_run.loss_of(*rows, decoupled=True, frozen_weight=0.0, same_task=everybody)
    loss.backward()
    assert loss.item() == 0.0
    assert all(not r.grad.any() for r in (rows[0], rows[2]))
    # One row that has a negative beside two that have none.
    some = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    rows = features(3)
    loss = tiny_run.loss_of(*rows, decoupled=True, frozen_weight=0.0, same_task=some)
    expected = reference(*features(3), temperature=0.1, decoupled=True, weight=0.0, same=some)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert all(r.grad.isfinite().all() for r in (rows[0], rows[2]))


def test_large_features_do_not_overflow():
    rows = [r.detach().float() * 1e6 for r in features()]
    assert math.isfinite(tiny_run.loss_of(*rows, temperature=0.01))


def test_the_frozen_feature_is_a_negative():
    """Guards the first of the paper's two principles: closer than the frozen feature."""
    human, frozen, adapted = (r.detach() for r in features())
    near = tiny_run.loss_of(human, human, adapted)
    far = tiny_run.loss_of(human, -human, adapted)
    assert near > far + 1.0
    without = [tiny_run.loss_of(human, f, adapted, frozen_weight=0.0) for f in (human, -human)]
    assert without[0] == without[1]
    assert frozen.shape == human.shape


def test_shapes_and_options_are_checked():
    human, frozen, adapted = features()
    with pytest.raises(ValueError, match='needed are two of'):
        tiny_run.loss_of(human, frozen, adapted[:3])
    with pytest.raises(ValueError, match='same_task is'):
        tiny_run.loss_of(human, frozen, adapted, same_task=SAME[:2])
    with pytest.raises(ValueError, match='frozen_weight'):
        tiny_run.loss_of(human, frozen, adapted, frozen_weight=-1)
    with pytest.raises(ValueError, match='needed are'):
        video_text_loss(human, torch.zeros(2, dtype=torch.int64))


def test_values_and_gradients_of_the_control():
    """Guards the multi-positive direction: a text has as many right answers as videos."""
    task = torch.tensor([0, 1, 0, 2, 1, 0])
    scores = torch.randn(6, 4, dtype=torch.float64,
                         generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = video_text_loss(scores, task, temperature=0.2)
    s = [[torch.exp(scores[i, k] / 0.2) for k in range(4)] for i in range(6)]
    to_text = sum(-torch.log(s[i][task[i]] / sum(s[i])) for i in range(6)) / 6
    to_video = 0.0
    for k in range(3):  # the fourth text has no video
        column = sum(s[i][k] for i in range(6))
        mine = [i for i in range(6) if task[i] == k]
        to_video = to_video + sum(-torch.log(s[i][k] / column) for i in mine) / len(mine)
    expected = (to_text + to_video / 3) / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(x, scores)[0] for x in (loss, expected)))
