# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Losses: the human-robot alignment of HR-Align (Eq. 6), and its control without any alignment."""

import math

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.1


def alignment_loss(
    human_to_robot: Tensor, robot_to_human: Tensor, own_frozen: Tensor, *,
    temperature: float = TEMPERATURE, decoupled: bool = False, frozen_weight: float = 1.0,
    same_task: Tensor | None = None,
) -> Tensor:
    """
    Pull each adapted robot clip to its human clip (HR-Align, Eq. 6), from cosines.

    With S(x, y) = exp(x.y / temperature) on features of norm 1, h the human, f the frozen and a
    the adapted robot features, M rows, the loss is the mean over i and over both directions of

        -log S(h_i, a_i) / [S(h_i, a_i) + w S(h_i, f_i) + sum over j != i of S(h_i, a_j)]
        -log S(a_i, h_i) / [S(a_i, h_i) + w S(f_i, h_i) + sum over j != i of S(a_i, h_j)]

    The pair's own frozen robot feature is a negative in both; those of other pairs are none. The
    two directions need not be each other's transpose.

    :param human_to_robot: float [M, M], row i: human clip i with every adapted robot clip.
    :param robot_to_human: float [M, M], row i: adapted robot clip i with every human clip.
    :param own_frozen: float [M], human clip i with its own robot clip, not adapted.
    :param decoupled: leave the positive out of the denominator. A row that has no negative at all
        keeps it, and so contributes 0.
    :param frozen_weight: w above, 0 or more; the paper's is 1.
    :param same_task: bool [M, M], symmetric; where it is true off the diagonal, the pair (i, j)
        is no negative. None: all others are, as in the paper.
    :returns: float scalar.
    :raises ValueError: shapes that do not fit, a weight below 0 or a temperature that is not
        above 0.
    """
    count = len(own_frozen)
    if not human_to_robot.shape == robot_to_human.shape == (count, count):
        raise ValueError(
            f'cosines are {list(human_to_robot.shape)} and {list(robot_to_human.shape)}; needed '
            f'are two of [{count}, {count}]')
    if frozen_weight < 0 or temperature <= 0:
        raise ValueError(f'frozen_weight is {frozen_weight} and temperature {temperature}; needed '
                         'are 0 or more, and more than 0')
    if same_task is not None and same_task.shape != (count, count):
        raise ValueError(f'same_task is {list(same_task.shape)}, needed is [{count}, {count}]')
    own = torch.eye(count, dtype=torch.bool, device=own_frozen.device)
    left_out = torch.zeros_like(own) if same_task is None else same_task & ~own
    if decoupled:
        lonely = (left_out | own).all(1) if frozen_weight == 0 else torch.zeros_like(own[0])
        left_out = left_out | (own & ~lonely[:, None])
    terms = []
    for cosines in (human_to_robot, robot_to_human):
        similarity = cosines / temperature
        positive = similarity.diagonal()
        logits = similarity.masked_fill(left_out, -math.inf)
        if frozen_weight > 0:
            extra = own_frozen / temperature + math.log(frozen_weight)
            logits = torch.cat([logits, extra[:, None]], dim=1)
        terms.append(torch.logsumexp(logits, dim=1) - positive)
    return (terms[0].mean() + terms[1].mean()) / 2


def video_text_loss(scores: Tensor, task: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """
    Match videos with their task's text, whoever is seen in them: no pair term at all.

    From video to text each row has one right answer. From text to video every video of the task
    is right: the mean over them of -log of their fraction among all videos.

    :param scores: float [n, K], cosine of each video with each text.
    :param task: int64 [n], column of each video's own text.
    :returns: float scalar, the mean of both directions. A text without a video counts nowhere.
    :raises ValueError: shapes that do not fit.
    """
    if scores.dim() != 2 or task.shape != scores.shape[:1]:
        raise ValueError(f'scores are {list(scores.shape)} and task {list(task.shape)}; needed '
                         'are [n, K] and [n]')
    logits = scores / temperature
    to_text = functional.cross_entropy(logits, task)
    own = functional.one_hot(task, scores.shape[1]).to(logits.dtype)
    videos = own.sum(0)
    fraction = -(torch.log_softmax(logits, dim=0) * own).sum(0)
    there = videos > 0
    return (to_text + (fraction[there] / videos[there]).mean()) / 2
