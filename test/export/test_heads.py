# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Task attention against a slow reference, and what the success head guarantees."""

from importlib import import_module
import math

import pytest
import torch

heads = import_module('hralign_ros.models.hr_align')

V, T, N, C, D, K = 2, 5, 7, 12, 6, 3


def clip(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(V, T, N, C, generator=generator)


def slow_attention(module, tokens, mask, task):
    """Compute Eq. 4 and 5 of HR-Align token by token, in double precision."""
    weight, bias = (p.detach().double() for p in module.query.parameters())
    query = [float(row @ task.double() + b) for row, b in zip(weight, bias, strict=True)]
    attention = torch.zeros(mask.shape + tokens.shape[2:3], dtype=torch.float64)
    pooled = torch.zeros(tokens.shape[0], tokens.shape[3], dtype=torch.float64)
    for v in range(tokens.shape[0]):
        places = [(t, n) for t in range(tokens.shape[1]) for n in range(tokens.shape[2])
                  if mask[v, t] > 0]
        scores = [sum(q * float(x) for q, x in zip(query, tokens[v, t, n], strict=True))
                  for t, n in places]
        highest = max(scores, default=0.0)
        total = sum(math.exp(s - highest) for s in scores)
        for (t, n), score in zip(places, scores, strict=True):
            attention[v, t, n] = (1 - module.floor) * math.exp(score - highest) / total \
                + module.floor / len(places)
            pooled[v] += attention[v, t, n] * tokens[v, t, n].double()
        if places:
            pooled[v] /= pooled[v].norm()
    return pooled, attention


@pytest.mark.parametrize('mask', [
    [[1] * T, [1] * T], [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1]], [[0, 1, 0, 1, 1], [0] * T]])
@pytest.mark.parametrize('floor', [0.0, 0.5, 1.0])
def test_attention_is_that_of_the_paper(mask, floor):
    """
    Guards Eq. 4 and 5: one softmax over frames and tokens, no scaling, masked frames out.

    And the floor, which is not in the paper: its share is even over the frames that are there.
    """
    torch.manual_seed(0)
    module = heads.TaskAttention(D, C, floor=floor)
    mask, task = torch.tensor(mask, dtype=torch.float32), torch.randn(D)
    with torch.no_grad():
        pooled, attention = module(clip(), mask, task)
    want_pooled, want_attention = slow_attention(module, clip(), mask, task)
    torch.testing.assert_close(attention.double(), want_attention, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(pooled.double(), want_pooled, atol=1e-5, rtol=1e-4)
    present = mask.sum(1) > 0
    torch.testing.assert_close(attention.sum((1, 2)), present.float())
    torch.testing.assert_close(pooled.norm(dim=1), present.float())


def test_a_floor_is_a_share():
    with pytest.raises(ValueError, match='needed is 0 to 1'):
        heads.TaskAttention(D, C, floor=1.5)


def test_masked_frames_do_not_count():
    """Guards padding: whatever stands in a masked slot changes nothing."""
    torch.manual_seed(0)
    module, task = heads.TaskAttention(D, C), torch.randn(D)
    mask = torch.tensor([[0, 0, 1, 1, 1]] * V, dtype=torch.float32)
    other = clip()
    other[:, :2] = 1e4
    with torch.no_grad():
        one, two = module(clip(), mask, task), module(other, mask, task)
    torch.testing.assert_close(one[0], two[0])
    torch.testing.assert_close(one[1], two[1])


def test_large_scores_stay_finite():
    """Guards against an overflow where a query fits a token a thousandfold."""
    module = heads.TaskAttention(D, C)
    with torch.no_grad():
        module.query.weight.fill_(100.0)
        pooled, attention = module(clip() * 100, torch.ones(V, T), torch.ones(D))
    assert torch.isfinite(pooled).all() and torch.isfinite(attention).all()


def test_one_clip_of_one_frame_is_a_plain_softmax():
    """Guards the smallest case, which needs no reference: softmax of token times query."""
    torch.manual_seed(0)
    module, task = heads.TaskAttention(D, C), torch.randn(D)
    tokens = clip()[:1, :1]
    with torch.no_grad():
        _, attention = module(tokens, torch.ones(1, 1), task)
        want = torch.softmax(tokens[0, 0] @ module.query(task), dim=0)
    torch.testing.assert_close(attention[0, 0], want)
