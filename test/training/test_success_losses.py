# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The losses of Adapt2Reward, against slow loops written from their description."""

import math

from hralign_ros.training import success_losses as losses
import numpy as np
import pytest
import torch

U, K, D = 3, 2, 8


def unit(*shape, seed=0):
    rows = np.random.default_rng(seed).standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def t(array, dtype=torch.float64):
    return torch.tensor(array, dtype=dtype)


def share(logits, right):
    """Give -log of the part of exp(logits) that is right."""
    total = sum(math.exp(x) for x in logits)
    return -math.log(sum(math.exp(x) for x, r in zip(logits, right, strict=True) if r) / total)


def test_cross_domain():
    """Guards L_CDC: same-task partners together are right; anchors without one do not count."""
    robot, human = unit(4, D), unit(3, D, seed=1)
    robot_task, human_task = [0, 0, 1, 2], [0, 1, 1]
    scale = 7.0
    both = []
    for one, other, mine, theirs in ((robot, human, robot_task, human_task),
                                     (human, robot, human_task, robot_task)):
        terms = [share(scale * other @ x, [task == k for k in theirs])
                 for x, task in zip(one, mine, strict=True) if task in theirs]
        both.append(np.mean(terms))
    got = losses.cross_domain_loss(
        t(robot), t(human), torch.tensor(robot_task), torch.tensor(human_task), t(scale))
    assert float(got) == pytest.approx(np.mean(both), abs=1e-9)


def test_video_text():
    """Guards L_VLC: failure texts of the own task are wrong, where they are used."""
    similarity, prompts = 3 * unit(4, U), 3 * unit(4, K, seed=2)
    task = [0, 1, 1, 0]
    used = np.array([[1, 1], [1, 0], [0, 0], [1, 1]])
    to_text = [share([*row, *(p for p, u in zip(mine, use, strict=True) if u)],
                     [k == own for k in range(U)] + [False] * int(use.sum()))
               for row, mine, use, own in zip(similarity, prompts, used, task, strict=True)]
    to_video = [share(similarity[:, k], [own == k for own in task]) for k in (0, 1)]
    got = losses.video_text_loss(t(similarity), torch.tensor(task), t(prompts), t(used))
    assert float(got) == pytest.approx((np.mean(to_text) + np.mean(to_video)) / 2, abs=1e-9)


def test_failure_text():
    """Guards L_fVLC: own cluster's text right; own other prompts and all plain texts wrong."""
    prompts, similarity = 3 * unit(4, U, K), 3 * unit(4, U, seed=3)
    task, mode = [0, 1, 1, 2], [1, 0, 1, 0]
    used = np.ones((U, K))
    used[2, 1] = 0
    to_text = [share([*(prompts[i, k, m] for m in range(K) if used[k, m]), *similarity[i]],
                     [m == mode[i] for m in range(K) if used[k, m]] + [False] * U)
               for i, k in enumerate(task)]
    to_video = []
    for k in range(U):
        for m in range(K):
            right = [a == k and b == m for a, b in zip(task, mode, strict=True)]
            if any(right):
                to_video.append(share(prompts[:, k, m], right))
    got = losses.failure_text_loss(
        t(prompts), t(similarity), torch.tensor(task), torch.tensor(mode), t(used))
    assert float(got) == pytest.approx((np.mean(to_text) + np.mean(to_video)) / 2, abs=1e-9)


@pytest.mark.parametrize('weight', [0.0, 0.5, 2.0])
def test_accomplished(weight):
    """Guards L_BCE: the own task by its label, any other task as not accomplished."""
    scores = 4 * unit(5, U)
    done, task = [1, 0, 1, 0, 0], [0, 1, 2, 0, 1]

    def bce(score, label):
        return math.log1p(math.exp(-score)) if label else math.log1p(math.exp(score))
    own = np.mean([bce(scores[i, k], d) for i, (k, d) in enumerate(
        zip(task, done, strict=True))])
    others = np.mean([bce(scores[i, k], 0) for i in range(5) for k in range(U) if k != task[i]])
    got = losses.accomplished_loss(
        t(scores), t(done), torch.tensor(task), other_weight=weight)
    assert float(got) == pytest.approx(own + weight * others, abs=1e-9)


def test_nothing_to_compare_is_no_loss():
    """Guards batches without successes, humans or failures: 0 with a gradient, never NaN."""
    none = torch.zeros(0, D, dtype=torch.float64, requires_grad=True)
    some = t(unit(2, D)).requires_grad_()
    empty = torch.zeros(0, dtype=torch.int64)
    values = [
        losses.cross_domain_loss(none, some, empty, torch.tensor([0, 1]), t(5.0)),
        losses.cross_domain_loss(some, some, torch.tensor([0, 0]), torch.tensor([1, 1]), t(5.0)),
        losses.video_text_loss(none[:, :U], empty, none[:, :K], none[:, :K]),
        losses.failure_text_loss(none[:, :U, None], none[:, :U], empty, empty,
                                 torch.ones(U, 1)),
    ]
    for value in values:
        assert float(value.detach()) == 0.0
        value.backward()


def test_grounding():
    """Guards telling and ranking: texts that are not there count nowhere, in neither."""
    rng = np.random.default_rng(4)
    scores, so, used = rng.normal(size=(5, 4)), rng.random((5, 4)) < 0.5, rng.random((5, 4)) < 0.7
    so[0], so[1], used[2] = True, False, False
    binary, ranking = losses.grounding_loss(t(scores), t(so * 1.0), t(used * 1.0))
    told = [math.log(1 + math.exp(-x if right else x))
            for row in range(5) for x, right, there in zip(
                scores[row], so[row], used[row], strict=True) if there]
    assert float(binary) == pytest.approx(np.mean(told))
    ranked = [share(scores[row][used[row]], so[row][used[row]]) for row in range(5)
              if 0 < so[row][used[row]].sum() < used[row].sum()]
    assert ranked and float(ranking) == pytest.approx(np.mean(ranked))


def test_grounding_of_nothing():
    """Guards batches in which nothing is told, or nothing can be ranked: 0, with a gradient."""
    scores = t(np.ones((2, 3))).requires_grad_()
    for so, used in ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        binary, ranking = losses.grounding_loss(
            scores, torch.full_like(scores, so).detach(), torch.full_like(scores, used).detach())
        assert ranking.item() == 0.0 and (binary.item() > 0) == (used > 0)
        (binary + ranking).backward()
        assert torch.isfinite(scores.grad).all()


def test_pointing():
    """Guards the cross-entropy with the true places: what is not known costs nothing."""
    looks = np.random.default_rng(5).normal(size=(2, 3, 2, 7))
    cells = np.array([[[0, 6], [-1, 3], [-1, -1]], [[2, 2], [5, -1], [1, 4]]])
    found = losses.pointing_loss(t(looks), t(cells, torch.int64)).numpy()
    assert found.shape == cells.shape
    for at in np.ndindex(cells.shape):
        want = 0.0 if cells[at] < 0 else share(looks[at], np.arange(7) == cells[at])
        assert found[at] == pytest.approx(want)
