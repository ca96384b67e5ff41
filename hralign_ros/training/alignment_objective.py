# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a training step makes smaller, and what validation measures."""

from collections.abc import Sequence
from dataclasses import dataclass
import math

from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training.alignment_batches import Batch, PairBatches, VideoBatch
from hralign_ros.training.alignment_losses import contrast, video_text_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.distributed import gather, Ranks
import torch
from torch import Tensor

# Pairs whose features validation computes at a time.
_CHUNK = 32


@dataclass(frozen=True)
class Validation:
    """
    How good the model is on the validation pairs, with frames spread evenly over each clip.

    :param loss: Eq. 6 as published, negatives anchored.
    :param r1: share of clips whose own partner is the most similar one, both directions, all
        views; pairs of the same task do not compete.
    """

    loss: float
    r1: float


def batch_loss(model: HRAlign, batch: Batch, options: TrainOptions, ranks: Ranks) -> Tensor:
    """
    Compute Eq. 6 of the global batch from this rank's rows: the mean over views.

    A view's matrix holds the pairs that have the view; a view that no pair has drops out.
    """
    human, frozen, adapted = _streams(
        model, batch, options.negatives == 'anchor', human_adapted=False)
    texts = human.shape[1]
    # Of one shape on every rank, whoever lacks a view: what is missing is zero, and is taken out
    # again when all are together.
    blank = torch.zeros_like(human)
    columns = [human.flatten(1)]
    for owner, still, moved in zip(*(part.split(batch.parts) for part in (
            batch.owner, frozen, adapted)), strict=True):
        columns += [blank[:, 0].index_copy(0, owner, still),
                    blank.index_copy(0, owner, moved).flatten(1)]
    widths = [column.shape[1] for column in columns]
    first, *others = gather(torch.cat(columns, dim=1), ranks).split(widths, dim=1)
    every = first.unflatten(1, (texts, -1))
    terms = []
    for there, still, moved in zip(batch.present, others[::2], others[1::2], strict=True):
        if there.any():
            mask = batch.same_task[there][:, there] if options.mask_same_task else None
            terms.append(contrast(
                *anchored_cosines(every[there], still[there],
                                  moved[there].unflatten(1, (texts, -1)), batch.text_of[there]),
                temperature=options.temperature, decoupled=options.decoupled,
                frozen_weight=options.frozen_weight, same_task=mask))
    return torch.stack(terms).mean()


def _streams(
    model: HRAlign, batch: Batch, anchored: bool, *, human_adapted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Pool a batch for `anchored_cosines`.

    :param anchored: pool each clip with every text of the batch, not only with its own.
    :param human_adapted: put the humans through the adapters too.
    :returns: human [b, K, C]; frozen robot, each with its own text [r, C]; adapted robot
        [r, K, C]. K is 1 where each clip is pooled with its own text only, or with none.
    """
    human = model.adapted_maps(batch.human) if human_adapted else model.frozen_maps(batch.human)
    adapted, own = model.adapted_maps(batch.robot), batch.text[batch.owner]
    frozen = model.pooled(model.frozen_maps(batch.robot), own)
    if anchored:
        return (model.pooled_for_each(human, batch.texts), frozen,
                model.pooled_for_each(adapted, batch.texts))
    return (model.pooled(human, batch.text)[:, None], frozen,
            model.pooled(adapted, own)[:, None])


def anchored_cosines(
    human: Tensor, frozen: Tensor, adapted: Tensor, text_of: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Compare every clip with every other one, both pooled with the first one's text.

    :param human: float [M, K, C] of norm 1, by text; K is 1 where there is nothing to choose.
    :param frozen: float [M, C], each with its own text.
    :param adapted: float [M, K, C].
    :param text_of: int64 [M].
    :returns: cosines human to robot [M, M], robot to human [M, M], human to own frozen robot [M].
    """
    text_of = text_of.clamp(max=human.shape[1] - 1)
    rows = torch.arange(len(human), device=human.device)
    own_human, own_adapted = human[rows, text_of], adapted[rows, text_of]
    towards, back = [], []
    # Text by text: all at once would need M x M x C numbers.
    order = torch.argsort(text_of, stable=True)
    for text, some in zip(*_runs(text_of[order], order), strict=True):
        towards.append(own_human[some] @ adapted[:, text].T)
        back.append(own_adapted[some] @ human[:, text].T)
    place = torch.argsort(order)
    return torch.cat(towards)[place], torch.cat(back)[place], (own_human * frozen).sum(-1)


def _runs(ordered: Tensor, rows: Tensor) -> tuple[list[int], list[Tensor]]:
    """Split rows where the ordered number beside them changes: the numbers, their rows."""
    numbers, counts = torch.unique_consecutive(ordered, return_counts=True)
    return numbers.tolist(), list(rows.split(counts.tolist()))


def video_batch_loss(
    model: HRAlign, batch: VideoBatch, options: TrainOptions, ranks: Ranks,
) -> Tensor:
    """Compute the control's loss of the global batch from this rank's rows."""
    scores = gather(model.text_scores(batch.maps, batch.texts), ranks)
    return video_text_loss(scores, batch.task, temperature=options.temperature)


def validate(model: HRAlign, batches: PairBatches, options: TrainOptions) -> Validation:
    """
    Measure loss and R@1 of all pairs at once, each view in a gallery of its own.

    In one way for all: whatever a model trains with, no text may tell clips apart here, and pairs
    of one task are no mistakes. So the best step is chosen alike for every variant.
    """
    device = next(iter(model.trained_parameters().values())).device
    model.eval()
    parts: list[tuple[Tensor, ...]] = []
    losses, hits = [], []
    with torch.no_grad():
        for start in range(0, len(batches.items), _CHUNK):
            batch = batches.load_even(slice(start, start + _CHUNK)).to(device)
            human, frozen, adapted = _streams(
                model, batch, anchored=True, human_adapted=options.objective == 'video_text')
            views = torch.arange(len(batch.parts), device=device).repeat_interleave(
                torch.tensor(batch.parts, device=device))
            parts.append((human[batch.owner], frozen, adapted, views,
                          batch.text_of[batch.owner]))
        human, frozen, adapted, views, text_of = (
            torch.cat(p) for p in zip(*parts, strict=True))
        for number, view in enumerate(batches.views):
            there = views == number
            towards, back, own = anchored_cosines(
                human[there], frozen[there], adapted[there], text_of[there])
            losses.append(contrast(towards, back, own, temperature=options.temperature))
            tasks = [item.task_id for item in batches.items if view in item.robots]
            # With a single task there would be nothing left to be told from.
            neutral = _same_task(tasks, device) if len(set(tasks)) > 1 else None
            hits.append((recall_at_1(towards, neutral) + recall_at_1(back, neutral)) / 2)
    model.train()
    return Validation(float(torch.stack(losses).mean()), sum(hits) / len(hits))


def _same_task(tasks: Sequence[str], device: torch.device) -> Tensor:
    numbers = torch.tensor([sorted(set(tasks)).index(task) for task in tasks], device=device)
    return numbers[:, None] == numbers[None]


def recall_at_1(similarity: Tensor, neutral: Tensor | None = None) -> float:
    """
    Compute the share of rows whose own partner is strictly the most similar.

    :param similarity: float [n, n]; the partner of row i is column i.
    :param neutral: bool [n, n], columns that are neither right nor wrong for a row; None: none.
    """
    own = similarity.diagonal()
    aside = torch.eye(len(own), dtype=torch.bool, device=own.device)
    # Ties lose: features that have all become the same are no success.
    others = similarity.masked_fill(aside if neutral is None else aside | neutral, -math.inf)
    return float((own > others.amax(1)).float().mean())
