# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The losses of Adapt2Reward, as far as they are known, over cosines of features of norm 1.

The paper's words name what is pulled to what; its denominators are not published. Those here are
a reconstruction, each spelt out below. `scale` is 1 / temperature throughout.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def cross_domain_loss(
    robot: Tensor, human: Tensor, robot_task: Tensor, human_task: Tensor, scale: Tensor,
) -> Tensor:
    """
    Pull together successes of one task by robots and by humans (L_CDC), in both directions.

    -log sum over same-task partners of exp(scale r.h) / sum over all of exp(scale r.h); an anchor
    without a partner of its task counts nowhere.

    :param robot: [m, D] features of robot successes.
    :param human: [n, D] features of human successes.
    :param robot_task: int64 [m].
    :param human_task: int64 [n].
    :returns: scalar; 0 where no task has both.
    """
    if not len(robot) or not len(human):
        return (robot.sum() + human.sum()) * 0.0
    logits = robot @ human.T * scale
    same = robot_task[:, None] == human_task[None]
    terms = [_fraction_loss(logits, same), _fraction_loss(logits.T, same.T)]
    return sum(terms, torch.zeros_like(terms[0])) / 2


def video_text_loss(
    similarity: Tensor, task: Tensor, prompts: Tensor, prompts_used: Tensor,
) -> Tensor:
    """
    Match success videos of one domain with their task's text (L_VLC), in both directions.

    From video to text the other tasks' texts are wrong, and so are the video's own task's failure
    texts. From text to video every success of the task is right, all other successes are wrong.

    :param similarity: [n, U], scaled cosines with the plain text of each task.
    :param task: int64 [n], column of each video's own task.
    :param prompts: [n, K], scaled cosines with the failure texts of the own task.
    :param prompts_used: [n, K], 1 where that failure text is a negative (none is, of humans).
    :returns: scalar; 0 where there is no video.
    """
    if not len(task):
        return similarity.sum() * 0.0
    wrong = prompts.masked_fill(prompts_used < 0.5, -math.inf)
    to_text = functional.cross_entropy(torch.cat([similarity, wrong], dim=1), task)
    own = functional.one_hot(task, similarity.shape[1]).bool()
    return (to_text + _fraction_loss(similarity.T, own.T)) / 2


def failure_text_loss(
    prompts: Tensor, similarity: Tensor, task: Tensor, mode: Tensor, used: Tensor,
) -> Tensor:
    """
    Match failure videos with the failure text of their cluster (L_fVLC), in both directions.

    From video to text the task's other failure texts are wrong, and so are all tasks' plain
    texts, its own among them. From text to video every failure of that task and cluster is right,
    and all other failures are wrong.

    :param prompts: [n, U, K], scaled cosines of failures with all failure texts.
    :param similarity: [n, U], scaled cosines with the plain texts.
    :param task: int64 [n], the own task's column.
    :param mode: int64 [n], the cluster.
    :param used: [U, K], 1 where a task uses that prompt.
    :returns: scalar; 0 where there is no failure.
    """
    if not len(task):
        return prompts.sum() * 0.0
    rows = torch.arange(len(task), device=task.device)
    own = prompts[rows, task].masked_fill(used[task] < 0.5, -math.inf)
    to_text = functional.cross_entropy(torch.cat([own, similarity], dim=1), mode)
    flat = prompts.flatten(1).T
    right = functional.one_hot(task * prompts.shape[2] + mode, flat.shape[0]).bool().T
    return (to_text + _fraction_loss(flat, right)) / 2


def accomplished_loss(
    scores: Tensor, done: Tensor, task: Tensor, *, other_weight: float = 1.0,
) -> Tensor:
    """
    Tell by the raw score whether the task is accomplished (L_BCE): also of tasks not asked for.

    :param scores: [n, U], raw scores of each clip for each task.
    :param done: [n], 1 where the own task is accomplished in the newest frame.
    :param task: int64 [n], the own task's column.
    :param other_weight: of all other tasks together, beside the own one's 1; of them none is
        accomplished.
    :returns: scalar.
    """
    rows = torch.arange(len(task), device=task.device)
    own = functional.binary_cross_entropy_with_logits(scores[rows, task], done)
    if scores.shape[1] < 2 or other_weight == 0:
        return own
    others = functional.softplus(scores)
    mean = (others.sum() - others[rows, task].sum()) / (scores.numel() - len(rows))
    return own + other_weight * mean


def grounding_loss(scores: Tensor, so: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """
    Tell by scores what is so, and rank it before what is not.

    :param scores: [n, U], of texts for clips.
    :param so: [n, U], 1 where the text has come true.
    :param used: [n, U], 0 where there is no text.
    :returns: two scalars: binary cross-entropy over all texts; and, averaged over clips of which
        something is so and something is not, -log of the softmax's share of what is so.
    """
    binary = told_loss(scores, so, used)
    right, there = (so * used) > 0.5, used > 0.5
    both = right.any(1) & (there & ~right).any(1)
    if not bool(both.any()):
        return binary, scores.sum() * 0.0
    return binary, _fraction_loss(scores.masked_fill(~there, -1e4)[both], right[both])


def told_loss(logits: Tensor, right: Tensor, used: Tensor) -> Tensor:
    """
    Tell one by one: the mean binary cross-entropy of those that are used, 0 where none is.

    :param logits: [...].
    :param right: [...], 1 or 0.
    :param used: [...], 1 or 0.
    """
    told = functional.binary_cross_entropy_with_logits(logits, right, reduction='none')
    return (told * used).sum() / used.sum().clamp(min=1.0)


def pointing_loss(looks: Tensor, cells: Tensor) -> Tensor:
    """
    Point at where things are: cross-entropy with the true places, of each look.

    :param looks: [..., M], logits over places.
    :param cells: int64 [...], the true ones, -1 where it is not known.
    :returns: [...], 0 where it is not known.
    """
    flat = functional.cross_entropy(
        looks.flatten(0, -2), cells.flatten(), ignore_index=-1, reduction='none')
    return flat.view(cells.shape)


def _fraction_loss(logits: Tensor, right: Tensor) -> Tensor:
    """Average over rows with anything right: -log of the fraction of all that is right."""
    there = right.any(1)
    if not bool(there.any()):
        return logits.sum() * 0.0
    logits, right = logits[there], right[there]
    good = torch.logsumexp(logits.masked_fill(~right, -math.inf), dim=1)
    return (torch.logsumexp(logits, dim=1) - good).mean()
