# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The objective of HR-Align (Eq. 6) and of its control: batches, loss, optimiser, validation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from hralign_ros.data.pairs import Pair
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.runtime.report import Report
from hralign_ros.training.alignment_batches import (
    digest,
    make_items,
    PairBatch,
    PairBatches,
    Texts,
    VideoBatch,
    VideoBatches,
)
from hralign_ros.training.alignment_losses import alignment_loss, video_text_loss
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.alignment_validation import Encoded, loss_and_recall, rows_by_text
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import gather, Ranks
from hralign_ros.training.loop import Objective
import torch
from torch import nn, Tensor

# Pairs whose features validation computes at a time.
_CHUNK = 32
# What validation finds, see `validate`.
LOSS, R1 = 'validation_loss', 'validation_r1'


class AlignmentObjective(Objective[PairBatch | VideoBatch]):
    """
    Adapters and query that bring robot clips to the human clips that they are paired with.

    :param texts: float32 [D] by task text.
    :raises DataError: too few pairs with features, or no text feature of a task.
    """

    validation = (LOSS, R1)

    def __init__(
        self, options: TrainOptions, model: HRAlign, pairs: Sequence[Pair],
        validation_pairs: Sequence[Pair], cache: ClipFeatures, texts: Texts, report: Report,
    ) -> None:
        self.options: TrainOptions = options
        self.model, self.patience = model, options.patience
        items, left_out = make_items(pairs, cache)
        held_out, also_left_out = make_items(validation_pairs, cache)
        if left_out or also_left_out:
            report(f'without features, and left out: {left_out} pairs for training, '
                   f'{also_left_out} for validation')
        common: Mapping[str, Any] = {
            'length': options.length, 'sampler': options.sampler, 'seed': options.seed}
        self.batches: PairBatches | VideoBatches = (
            PairBatches(items, cache, texts, batch=options.batch, by_scene=options.by_scene,
                        **common)
            if options.objective == 'align' else
            VideoBatches(items, cache, texts, batch=2 * options.batch,
                         human_fraction=options.human_fraction, **common))
        self.held_out = PairBatches(held_out, cache, texts, batch=1, **common)
        words = sha256()
        for text in sorted({item.robot.task_text for item in (*items, *held_out)}):
            words.update(text.encode() + texts[text].tobytes())
        shapes = sorted((name, list(v.shape)) for name, v in model.trained_state().items())
        self.settings = {
            **asdict(options), 'pooling': model.pooling, 'attention_floor': model.attention.floor,
            'cache': cache.key, 'pairs': digest(items), 'validation_pairs': digest(held_out),
            'texts': words.hexdigest()[:16],
            'model': sha256(repr(shapes).encode()).hexdigest()[:16]}
        report(f'{len(items)} pairs for training, {len(held_out)} for validation')

    def parameters(self) -> dict[str, nn.Parameter]:
        """Give adapters and query."""
        return self.model.trained_parameters()

    def optimiser(self) -> torch.optim.Optimizer:
        """Make one in which adapters have a rate, and biases a decay, of their own."""
        options, groups = self.options, []
        for adapters, factor in ((False, 1.0), (True, options.adapter_rate)):
            chosen = [p for name, p in self.parameters().items()
                      if name.startswith('adapters.') == adapters]
            for biases, decay in ((False, options.weight_decay), (True, 0.0)):
                some = [p for p in chosen if (p.dim() <= 1) == biases]
                if some:
                    groups.append({'params': some, 'weight_decay': decay, 'factor': factor})
        kind = torch.optim.AdamW if options.optimiser == 'adamw' else torch.optim.Adam
        return kind(groups, lr=options.learning_rate)

    def to(self, device: torch.device) -> None:
        """Move the model, and switch it to training."""
        self.model.to(device).train()

    def loss(self, batch: PairBatch | VideoBatch, step: int,
             ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of the global batch."""
        compute = batch_loss if isinstance(batch, PairBatch) else video_batch_loss
        return compute(self.model, batch, self.options, ranks), {}  # type: ignore[arg-type]

    def validate(self) -> dict[str, float]:
        """Measure the held-out pairs."""
        return validate(self.model, self.held_out, self.options)

    def order(self, found: Mapping[str, float]) -> tuple[float, ...]:
        """Order by what is to be selected by, among equals by the other one."""
        both = found[R1], -found[LOSS]
        return both if self.options.select == 'r1' else both[::-1]

    def weights(self) -> dict[str, Tensor]:
        """Copy everything that is not the frozen backbone, trained or not."""
        return self.model.trained_state()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `weights` gave."""
        self.model.load_trained_state(dict(weights))


def batch_loss(model: HRAlign, batch: PairBatch, options: TrainOptions, ranks: Ranks) -> Tensor:
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
            terms.append(alignment_loss(
                *anchored_cosines(every[there], still[there],
                                  moved[there].unflatten(1, (texts, -1)), batch.text_of[there]),
                temperature=options.temperature, decoupled=options.decoupled,
                frozen_weight=options.frozen_weight, same_task=mask))
    return torch.stack(terms).mean()


def _streams(
    model: HRAlign, batch: PairBatch, anchored: bool, *, human_adapted: bool,
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
    groups = rows_by_text(text_of)
    for text, some in groups:
        towards.append(own_human[some] @ adapted[:, text].T)
        back.append(own_adapted[some] @ human[:, text].T)
    place = torch.argsort(torch.cat([some for _, some in groups]))
    return torch.cat(towards)[place], torch.cat(back)[place], (own_human * frozen).sum(-1)


def video_batch_loss(
    model: HRAlign, batch: VideoBatch, options: TrainOptions, ranks: Ranks,
) -> Tensor:
    """Compute the control's loss of the global batch from this rank's rows."""
    scores = gather(model.text_scores(batch.maps, batch.texts), ranks)
    return video_text_loss(scores, batch.task, temperature=options.temperature)


def validate(model: HRAlign, batches: PairBatches, options: TrainOptions) -> dict[str, float]:
    """
    Measure all pairs at once, each view in a gallery of its own, frames spread over each clip.

    In one way for all: whatever a model trains with, no text may tell clips apart here, and pairs
    of one task are no mistakes. So the best step is chosen alike for every variant.

    :returns: LOSS, Eq. 6 as published, negatives anchored; R1, the fraction of clips whose own
        partner is the most similar one, both directions, all views.
    """
    device = model.device
    model.eval()
    tasks = torch.tensor(batches.task_numbers, device=device)

    def encode(part: int) -> Encoded:
        chosen = slice(part * _CHUNK, (part + 1) * _CHUNK)
        batch = batches.load_even(chosen).to(device)
        human, frozen, adapted = _streams(
            model, batch, anchored=True, human_adapted=options.objective == 'video_text')
        views = torch.arange(len(batch.parts), device=device).repeat_interleave(
            torch.tensor(batch.parts, device=device))
        return Encoded(human[batch.owner], frozen, adapted, views, batch.text_of[batch.owner],
                       tasks[chosen][batch.owner])

    with torch.no_grad():
        loss, r1 = loss_and_recall(
            -(-len(batches.items) // _CHUNK), encode, options.temperature)
    model.train()
    return {LOSS: loss, R1: r1}
