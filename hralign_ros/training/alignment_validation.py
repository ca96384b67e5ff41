# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Loss and R@1 of any number of pairs, with memory for one pooled feature a clip.

Every clip is compared with every other one, both pooled with the first one's text. All clips
pooled with all texts would be n x K x C numbers, and all cosines n x n: tens of gigabytes at
RH20T's 56,000 pairs. So clips are encoded some at a time, compared with the own features of all
others, and forgotten; where they are few, they are kept in between, and else encoded twice.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

# Features of this size are kept and not encoded again [bytes].
_KEPT = 1 << 29
# Cosines nearer than this are a tie: single precision does not tell them apart.
TIE = 1e-6


class Encoded(NamedTuple):
    """
    Robot clips of some pairs, each with its human clip.

    :param human: float [r, K, C] of norm 1, by text; K is 1 where all texts give the same.
    :param frozen: float [r, C], the robot's without adapters, with its own text.
    :param adapted: float [r, K, C].
    :param view: int64 [r].
    :param text: int64 [r], the own one.
    :param task: int64 [r].
    """

    human: Tensor
    frozen: Tensor
    adapted: Tensor
    view: Tensor
    text: Tensor
    task: Tensor


def rows_by_text(text: Tensor) -> list[tuple[int, Tensor]]:
    """Group the rows of clips by their text, int64 [M]: each text that there is, its rows."""
    order = torch.argsort(text, stable=True)
    texts, sizes = torch.unique_consecutive(text[order], return_counts=True)
    return list(zip(texts.tolist(), order.split(sizes.tolist()), strict=True))


def loss_and_recall(
    parts: int, encode: Callable[[int], Encoded], temperature: float,
) -> tuple[float, float]:
    """
    Measure pairs, each view in a gallery of its own.

    :param encode: encodes a part of the pairs, from 0 to parts - 1; the same each time.
    :returns: Eq. 6 as published, mean over views; and the fraction of clips whose own partner is
        the most similar one, both directions, mean over views. Clips of the same task do not
        compete, unless there is one task only. Ties lose: features that have all become the same
        are no success.
    """
    kept: dict[int, Encoded] = {}
    own, space = [], 0
    for part in range(parts):
        some = encode(part)
        rows = torch.arange(len(some.text), device=some.text.device)
        text = some.text.clamp(max=some.human.shape[1] - 1)
        human, adapted = some.human[rows, text], some.adapted[rows, text]
        own.append((human, adapted, (human * some.frozen).sum(-1), some.view, text, some.task))
        space += 8 * some.human.numel()
        if space <= _KEPT:
            kept[part] = some
    human, adapted, frozen, view, text, task = (torch.cat(p) for p in zip(*own, strict=True))
    own.clear()
    count, device = len(view), human.device
    number = torch.arange(count, device=device)
    groups = rows_by_text(text)
    views = torch.unique(view)
    several = torch.zeros(int(views.max()) + 1, dtype=torch.bool, device=device)
    for one in views:
        several[one] = len(torch.unique(task[view == one])) > 1
    # Of each direction: the sum of all exponentials, the best other clip, the own partner.
    total = torch.full((2, count), -torch.inf, dtype=torch.float64, device=device)
    best = torch.full((2, count), -torch.inf, device=device)
    positive = torch.zeros((2, count), device=device)
    first = 0
    for part in range(parts):
        some = kept.pop(part) if part in kept else encode(part)
        columns = number[first:first + len(some.view)]
        first += len(columns)
        for way, (query, answer) in enumerate(((human, some.adapted), (adapted, some.human))):
            for word, rows in groups:
                cosines = query[rows] @ answer[:, word].T
                apart = view[rows, None] != some.view
                itself = rows[:, None] == columns
                positive[way, rows] += (cosines * itself).sum(1)
                logits = (cosines / temperature).masked_fill(apart, -torch.inf)
                total[way, rows] = torch.logaddexp(
                    total[way, rows], torch.logsumexp(logits, 1).double())
                neutral = (task[rows, None] == some.task) & several[view[rows], None]
                others = cosines.masked_fill(apart | itself | neutral, -torch.inf)
                best[way, rows] = torch.maximum(best[way, rows], others.amax(1))
    loss = torch.logaddexp(total, (frozen / temperature).double()) - positive / temperature
    right = (positive > best + TIE).double()
    means = [[values[:, view == one].mean() for one in views] for values in (loss, right)]
    return tuple(float(torch.stack(some).mean()) for some in means)  # type: ignore[return-value]
