# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Train adapters and query on cached features, in one process or under torchrun.

A run's folder holds last.pt and best.pt (see `checkpoints`), log.csv, and TensorBoard's files
where it is installed. The same options on the same data and number of threads give the same
weights to the bit, whether the run was interrupted or not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
import csv
from dataclasses import asdict, dataclass
from hashlib import sha256
import math
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.adapt.batches import (
    Batch,
    digest,
    Item,
    make_items,
    PairBatches,
    Texts,
    VideoBatch,
    VideoBatches,
)
from hralign_ros.adapt.cache import FeatureCache
from hralign_ros.adapt.checkpoints import (
    check_same,
    Checkpoint,
    read_checkpoint,
    TrainingError,
    write_checkpoint,
)
from hralign_ros.adapt.distributed import (
    average_gradients,
    choose_device,
    gather,
    joined,
    meet,
    Ranks,
    share_from_first,
)
from hralign_ros.adapt.losses import alignment_loss, contrast, TEMPERATURE, video_text_loss
from hralign_ros.adapt.model import HRAlign, pool_for_each
from hralign_ros.data.pairs import Pair
import torch
from torch import nn, Tensor

Report = Callable[[str], None]
LAST, BEST, LOG = 'last.pt', 'best.pt', 'log.csv'
OBJECTIVES = ('align', 'video_text')
OPTIMISERS = ('adam', 'adamw')
SELECTIONS = ('r1', 'loss')
NEGATIVES = ('own', 'anchor')
# Pairs whose features validation computes at a time.
_CHUNK = 32
_LOG_COLUMNS = ('step', 'loss', 'validation_loss', 'r1', 'learning_rate', 'seconds')


@dataclass(frozen=True)
class TrainOptions:
    """
    How to train. The defaults suit a few thousand pairs on a CPU.

    :param objective: align (Eq. 6), or video_text: the control without any alignment, in which a
        human is one more embodiment and every video is matched with its task's text.
    :param batch: pairs in a global batch; the control takes twice as many videos.
    :param length: T, frames of each clip in a step.
    :param sampler: of those frames: random, segment or window.
    :param temperature: tau of Eq. 6.
    :param decoupled: see `alignment_loss`.
    :param frozen_weight: see `alignment_loss`.
    :param mask_same_task: pairs of one task are no negatives of each other.
    :param negatives: text that a negative is pooled with: own, its own as in the paper, or
        anchor, that of the clip it is compared with, so that no text tells them apart.
    :param by_scene: batches of few scenes, so that background does not tell pairs apart.
    :param human_share: of the control's videos.
    :param optimiser: adam or adamw.
    :param learning_rate: at its highest.
    :param adapter_rate: factor on the adapters' rate; the query has the rate itself. It learns in
        a few steps what adapters as fast undo by learning the training tasks by heart.
    :param final_rate: at the end of the cosine.
    :param warm_up: steps in which the rate rises linearly.
    :param weight_decay: of weights; biases have none.
    :param clip_norm: L2 norm of the gradient at most; 0: never clipped.
    :param validate_every: steps from one validation to the next.
    :param patience: validations in a row without a new best, after which the run ends; 0: never.
    :param select: what the best one has: r1, the highest R@1 among the validation pairs (mean of
        both directions and all views; among equals the lower loss), or loss, the lowest loss.
    :param checkpoint_every: steps from one checkpoint to the next.
    :param device: auto, cpu or cuda. Not part of what a resumed run must have in common.
    """

    objective: str = 'align'
    steps: int = 1500
    batch: int = 64
    length: int = 5
    sampler: str = 'segment'
    seed: int = 0
    temperature: float = TEMPERATURE
    decoupled: bool = True
    frozen_weight: float = 1.0
    mask_same_task: bool = True
    negatives: str = 'anchor'
    by_scene: bool = False
    human_share: float = 0.5
    optimiser: str = 'adamw'
    learning_rate: float = 1e-3
    adapter_rate: float = 1.0
    final_rate: float = 1e-6
    warm_up: int = 50
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    validate_every: int = 50
    patience: int = 8
    select: str = 'r1'
    checkpoint_every: int = 50
    device: str = 'auto'

    def __post_init__(self) -> None:
        """
        Check everything that can be checked without data.

        :raises TrainingError: an option is none of those allowed.
        """
        for name, allowed in (('objective', OBJECTIVES), ('optimiser', OPTIMISERS),
                              ('select', SELECTIONS), ('negatives', NEGATIVES)):
            if getattr(self, name) not in allowed:
                raise TrainingError(
                    f"{name} is '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        for name in ('steps', 'batch', 'length', 'validate_every', 'checkpoint_every'):
            if getattr(self, name) < 1:
                raise TrainingError(f'{name} is {getattr(self, name)}; needed is 1 or more')
        for name in ('warm_up', 'weight_decay', 'clip_norm', 'patience', 'frozen_weight',
                     'learning_rate', 'adapter_rate', 'final_rate', 'seed'):
            if not getattr(self, name) >= 0:
                raise TrainingError(f'{name} is {getattr(self, name)}; needed is 0 or more')


PRESETS: dict[str, TrainOptions] = {
    'default': TrainOptions(),
    # Batch, rate, frames and length as in the paper; where it is silent (warm-up, cosine, decay,
    # clipping), as in the settings that the released weights carry.
    'paper': TrainOptions(
        steps=8000, batch=200, length=5, sampler='random', decoupled=False, frozen_weight=1.0,
        mask_same_task=False, negatives='own', optimiser='adam', learning_rate=1e-4,
        final_rate=1e-6, warm_up=267, weight_decay=1e-4, clip_norm=1.0, validate_every=200,
        patience=0, checkpoint_every=200),
}


@dataclass(frozen=True)
class Validation:
    """
    How good the model is on the validation pairs, with frames spread evenly over each clip.

    :param r1: share of clips whose own partner is the most similar one, both directions, all
        views; where same-task pairs are masked in the loss, they do not compete here either.
    """

    loss: float
    r1: float


@dataclass(frozen=True)
class Result:
    """
    What came out of a run; the model that was trained has the best weights.

    :param best: checkpoint of the best step.
    :param stopped_early: the patience ran out.
    """

    best: Path
    best_step: int
    validation: Validation
    steps: int
    stopped_early: bool


def train(
    options: TrainOptions, model: HRAlign, pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair], cache: FeatureCache, texts: Texts, output: Path, *,
    resume: bool = False, report: Report = print,
) -> Result:
    """
    Train a model, from the start or from where a killed run was.

    Under torchrun every process calls this with the same arguments; rank 0 reports and writes.

    :param model: changed in place; at the end it has the best weights, on the CPU.
    :param texts: float32 [D] by task text.
    :param output: the run's folder; made if need be.
    :param resume: go on with the run in the folder, where there is one. Without it, a folder that
        holds a run is refused.
    :raises TrainingError: the folder holds a run that this one is not, or the loss is not finite.
    :raises DataError: too few pairs with features, or no text feature of a task.
    """
    device = choose_device(options.device)
    if device.type == 'cuda':
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    with joined(device) as ranks, _deterministic():
        run = _Run(options, model, pairs, validation_pairs, cache, texts, Path(output), device,
                   ranks, report if ranks.first else _silent)
        return run.go(resume)


def batch_loss(model: HRAlign, batch: Batch, options: TrainOptions, ranks: Ranks) -> Tensor:
    """
    Compute Eq. 6 of the global batch from this rank's rows: the mean over views.

    A view's matrix holds the pairs that have the view; a view that no pair has drops out.
    """
    if options.negatives == 'anchor' and model.pooling == 'attention':
        return _anchored_loss(model, batch, options, ranks)
    streams = model(batch.human, batch.robot, batch.text, batch.owner)
    # Of one shape on every rank, whoever lacks a view: what is missing is zero, and is taken out
    # again when all are together.
    blank = torch.zeros_like(streams.human)
    columns = [streams.human]
    robot = zip(*(part.split(batch.parts) for part in (
        batch.owner, streams.robot_frozen, streams.robot_adapted)), strict=True)
    for owner, frozen, adapted in robot:
        columns += [blank.index_copy(0, owner, frozen), blank.index_copy(0, owner, adapted)]
    human, *robots = gather(torch.cat(columns, dim=1), ranks).chunk(len(columns), dim=1)
    terms = []
    for there, frozen, adapted in zip(batch.present, robots[::2], robots[1::2], strict=True):
        if there.any():
            mask = batch.same_task[there][:, there] if options.mask_same_task else None
            terms.append(alignment_loss(
                human[there], frozen[there], adapted[there], temperature=options.temperature,
                decoupled=options.decoupled, frozen_weight=options.frozen_weight,
                same_task=mask))
    return torch.stack(terms).mean()


def _anchored_loss(model: HRAlign, batch: Batch, options: TrainOptions, ranks: Ranks) -> Tensor:
    """Compute the same with all candidates pooled with the text of the clip they are held to."""
    human, frozen, adapted = model.forward_each(
        batch.human, batch.robot, batch.texts, batch.text, batch.owner)
    texts = len(batch.texts)
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
            towards, back, own = anchored_cosines(
                every[there], still[there], moved[there].unflatten(1, (texts, -1)),
                batch.text_of[there])
            terms.append(contrast(
                towards, back, own, temperature=options.temperature,
                decoupled=options.decoupled, frozen_weight=options.frozen_weight,
                same_task=mask))
    return torch.stack(terms).mean()


def anchored_cosines(
    human: Tensor, frozen: Tensor, adapted: Tensor, text_of: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Compare every clip with every other one, both pooled with the first one's text.

    :param human: float [M, K, C] of norm 1, by text.
    :param frozen: float [M, C], each with its own text.
    :param adapted: float [M, K, C].
    :param text_of: int64 [M].
    :returns: cosines human to robot [M, M], robot to human [M, M], human to own frozen robot [M].
    """
    rows = torch.arange(len(human), device=human.device)
    own_human, own_adapted = human[rows, text_of], adapted[rows, text_of]
    towards = torch.einsum('ic,jic->ij', own_human, adapted[:, text_of])
    back = torch.einsum('ic,jic->ij', own_adapted, human[:, text_of])
    return towards, back, (own_human * frozen).sum(-1)


def video_batch_loss(
    model: HRAlign, batch: VideoBatch, options: TrainOptions, ranks: Ranks,
) -> Tensor:
    """Compute the control's loss of the global batch from this rank's rows."""
    scores = gather(model.text_scores(batch.maps, batch.texts), ranks)
    return video_text_loss(scores, batch.task, temperature=options.temperature)


def validate(model: HRAlign, batches: PairBatches, options: TrainOptions) -> Validation:
    """Measure loss and R@1 of all pairs at once, each view in a gallery of its own."""
    device = next(iter(model.trained_parameters().values())).device
    anchored = options.negatives == 'anchor' and model.pooling == 'attention'
    model.eval()
    parts: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for start in range(0, len(batches.items), _CHUNK):
            batch = batches.load_even(slice(start, start + _CHUNK)).to(device)
            if anchored:
                human, frozen, adapted = model.forward_each(
                    batch.human, batch.robot, batch.texts, batch.text, batch.owner)
                if options.objective == 'video_text':
                    human = pool_for_each(
                        model.adapted_maps(batch.human), model.attention.query(batch.texts))
            else:
                human, frozen, adapted = model(
                    batch.human, batch.robot, batch.text, batch.owner)
                if options.objective == 'video_text':
                    human = model.pooled(model.adapted_maps(batch.human), batch.text)
            views = torch.arange(len(batch.parts), device=device).repeat_interleave(
                torch.tensor(batch.parts, device=device))
            parts.append((human[batch.owner], frozen, adapted, views,
                          batch.text_of[batch.owner]))
        human, frozen, adapted, views, text_of = (
            torch.cat(p) for p in zip(*parts, strict=True))
        losses, hits = [], []
        for view in range(len(batches.views)):
            there = views == view
            if anchored:
                towards, back, own = anchored_cosines(
                    human[there], frozen[there], adapted[there], text_of[there])
            else:
                towards = human[there] @ adapted[there].T
                back, own = towards.T, (human[there] * frozen[there]).sum(1)
            losses.append(contrast(towards, back, own, temperature=options.temperature))
            tasks = [item.task_id for item in batches.items
                     if batches.views[view] in item.robots]
            # With a single task there would be nothing left to be told from.
            neutral = _same_task(tasks, device) \
                if options.mask_same_task and len(set(tasks)) > 1 else None
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


def learning_rate(options: TrainOptions, step: int) -> float:
    """Give the rate of a step (from 0): linear warm-up, then a cosine down to the final rate."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    share = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    falling = (1 + math.cos(math.pi * min(1.0, share))) / 2
    return options.final_rate + (options.learning_rate - options.final_rate) * falling


class _Run:
    """One call of `train`."""

    def __init__(
        self, options: TrainOptions, model: HRAlign, pairs: Sequence[Pair],
        validation_pairs: Sequence[Pair], cache: FeatureCache, texts: Texts, output: Path,
        device: torch.device, ranks: Ranks, report: Report,
    ) -> None:
        ranks.rows(options.batch)
        self.options, self.model, self.output = options, model, output
        self.device, self.ranks, self.report = device, ranks, report
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
                         human_share=options.human_share, **common))
        self.validation = PairBatches(held_out, cache, texts, batch=1, **common)
        self.settings = _settings(options, model, cache, texts, items, held_out)
        self.step = 0
        self._last_line = ''
        self.progress: dict[str, Any] = {
            'best_step': 0, 'best_loss': None, 'best_r1': None, 'since_best': 0,
            'finished': False}

    def go(self, resume: bool) -> Result:
        """Train to the end, or from a checkpoint to the end."""
        options, report = self.options, self.report
        self.output.mkdir(parents=True, exist_ok=True)
        last = self.output / LAST
        if last.exists() and not resume:
            raise TrainingError(f'{self.output} holds a run already; resume it, or name another '
                                'folder')
        self.model.to(self.device).train()
        trained = self.model.trained_parameters()
        self.optimiser = _optimiser(options, trained)
        if last.exists():
            self._restore(read_checkpoint(last), last)
            report(f'going on after step {self.step}')
        # Nobody writes before all have looked.
        meet(self.ranks)
        share_from_first(trained.values(), self.ranks)
        report(f'{len(self.batches.items)} pairs for training, {len(self.validation.items)} for '
               f'validation, {sum(p.numel() for p in trained.values())} weights to train, '
               f'{self.ranks.count} rank(s) on {self.device.type}')
        if self.ranks.first:
            with _Log(self.output, self.step, report) as log:
                self._steps(trained, log)
        else:
            self._steps(trained, None)
        meet(self.ranks)
        best = read_checkpoint(self.output / BEST)
        self.model.to('cpu').load_trained_state(best.model)
        self.model.eval()
        return Result(
            self.output / BEST, self.progress['best_step'],
            Validation(self.progress['best_loss'], self.progress['best_r1']), self.step,
            self.step < options.steps)

    def _steps(self, trained: Mapping[str, nn.Parameter], log: '_Log | None') -> None:
        options = self.options
        if self.step == 0 and not self.progress['finished']:
            # The untrained model is a candidate: no run ends worse than it began.
            self._validate(log, math.nan, 0.0)
            self._save(LAST)
        began, first = time.monotonic(), self.step
        if self.progress['finished']:
            return
        # The next batch is loaded while the current one is computed.
        load: Callable[[int, Ranks], Batch | VideoBatch] = self.batches.load
        with ThreadPoolExecutor(1) as loader:
            coming = loader.submit(load, self.step, self.ranks)
            while self.step < options.steps and not self._out_of_patience():
                batch = coming.result().to(self.device)
                if self.step + 1 < options.steps:
                    coming = loader.submit(load, self.step + 1, self.ranks)
                loss = self._step(batch, trained)
                self.step += 1
                done = self.step == options.steps
                if done or self.step % options.validate_every == 0:
                    self._validate(log, loss, learning_rate(options, self.step - 1))
                    spent = time.monotonic() - began
                    rate = (self.step - first) / max(spent, 1e-9)
                    left = (options.steps - self.step) / rate
                    self.report(f'step {self.step}/{options.steps}  loss {loss:.4f}  '
                                f'{self._last_line}  {rate:.2f} steps/s  {left:.0f} s to go')
                elif log:
                    log.row(self.step, loss, None, learning_rate(options, self.step - 1))
                self.progress['finished'] = done or self._out_of_patience()
                if self.progress['finished'] or self.step % options.checkpoint_every == 0:
                    if log:
                        log.flush()
                    self._save(LAST)
        if self._out_of_patience():
            self.report(f'stopped after step {self.step}: no new best in {options.patience} '
                        'validations')

    def _step(self, batch: Batch | VideoBatch, trained: Mapping[str, nn.Parameter]) -> float:
        options = self.options
        for group in self.optimiser.param_groups:
            group['lr'] = group['factor'] * learning_rate(options, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = batch_loss(self.model, batch, options, self.ranks) if isinstance(batch, Batch) \
            else video_batch_loss(self.model, batch, options, self.ranks)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f'the loss of step {self.step + 1} is {value}; a lower learning rate may help')
        loss.backward()
        average_gradients(trained.values(), self.ranks)
        if options.clip_norm > 0:
            nn.utils.clip_grad_norm_(trained.values(), options.clip_norm)
        self.optimiser.step()
        return value

    def _validate(self, log: '_Log | None', loss: float, rate: float) -> None:
        """Measure on rank 0, tell the others, keep what is best."""
        measured = torch.zeros(2, dtype=torch.float64, device=self.device)
        if self.ranks.first:
            found = validate(self.model, self.validation, self.options)
            measured += torch.tensor([found.loss, found.r1], device=self.device)
        share_from_first([measured], self.ranks)
        now = Validation(*measured.tolist())
        progress = self.progress
        better = progress['best_loss'] is None or _rank(now, self.options) > _rank(
            Validation(progress['best_loss'], progress['best_r1']), self.options)
        progress['since_best'] = 0 if better else progress['since_best'] + 1
        if better:
            progress.update(best_step=self.step, best_loss=now.loss, best_r1=now.r1)
            self._save(BEST)
        if log:
            log.row(self.step, loss, now, rate)
        self._last_line = (f'validation loss {now.loss:.4f}  R@1 {now.r1:.3f} (best '
                           f'{progress["best_r1"]:.3f} at {progress["best_step"]})')

    def _out_of_patience(self) -> bool:
        return 0 < self.options.patience <= int(self.progress['since_best'])

    def _save(self, name: str) -> None:
        if not self.ranks.first:
            return
        generators = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            generators['cuda'] = torch.cuda.get_rng_state(self.device)
        write_checkpoint(self.output / name, Checkpoint(
            self.step, self.model.trained_state(),
            self.optimiser.state_dict() if name == LAST else {}, generators, self.settings,
            self.progress))

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        check_same(self.settings, checkpoint.settings, path)
        self.model.load_trained_state(checkpoint.model)
        self.optimiser.load_state_dict(checkpoint.optimiser)
        torch.set_rng_state(checkpoint.generators['cpu'])
        if self.device.type == 'cuda' and 'cuda' in checkpoint.generators:
            torch.cuda.set_rng_state(checkpoint.generators['cuda'], self.device)
        self.step = checkpoint.step
        self.progress = dict(checkpoint.progress)


class _Log:
    """Rows of log.csv, and the same in TensorBoard where that is installed."""

    def __init__(self, folder: Path, step: int, report: Report) -> None:
        self._path = folder / LOG
        self._began = time.monotonic()
        kept: list[list[str]] = []
        if step and self._path.exists():
            with self._path.open(newline='', encoding='utf-8') as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            # What was written after the checkpoint comes again.
            kept = [row for row in rows if int(row[0]) <= step]
        self._file = self._path.open('w', newline='', encoding='utf-8')
        self._writer = csv.writer(self._file)
        self._writer.writerows([_LOG_COLUMNS, *kept])
        self._before = float(kept[-1][-1]) if kept else 0.0
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
        except ModuleNotFoundError as error:
            report(f'no TensorBoard files: the package {error.name} is not installed')

    def __enter__(self) -> '_Log':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board:
            self._board.close()

    def flush(self) -> None:
        """Write down what is noted, before the checkpoint that counts on it."""
        self._file.flush()

    def row(self, step: int, loss: float, found: Validation | None, rate: float) -> None:
        """Note a step; a value that is not known stays empty."""
        seconds = self._before + time.monotonic() - self._began
        known = {'loss': None if math.isnan(loss) else loss, 'learning_rate': rate,
                 'validation_loss': found and found.loss, 'r1': found and found.r1}
        self._writer.writerow([step, *('' if known[name] is None else f'{known[name]:.6g}'
                                       for name in _LOG_COLUMNS[1:-1]), f'{seconds:.1f}'])
        if self._board:
            for name, value in known.items():
                if value is not None:
                    self._board.add_scalar(name, value, step)


def _settings(
    options: TrainOptions, model: HRAlign, cache: FeatureCache, texts: Texts,
    items: Sequence[Item], held_out: Sequence[Item],
) -> dict[str, Any]:
    """Name everything that the result depends on."""
    chosen = {name: value for name, value in asdict(options).items() if name != 'device'}
    words = sha256()
    for text in sorted({item.robot.task_text for item in (*items, *held_out)}):
        words.update(text.encode() + texts[text].tobytes())
    shapes = sorted((name, list(v.shape)) for name, v in model.trained_state().items())
    return {**chosen, 'pooling': model.pooling, 'cache': cache.key, 'pairs': digest(items),
            'validation_pairs': digest(held_out), 'texts': words.hexdigest()[:16],
            'model': sha256(repr(shapes).encode()).hexdigest()[:16]}


def _optimiser(
    options: TrainOptions, trained: Mapping[str, nn.Parameter],
) -> torch.optim.Optimizer:
    groups = []
    for adapters, factor in ((False, 1.0), (True, options.adapter_rate)):
        chosen = [p for name, p in trained.items() if name.startswith('adapters.') == adapters]
        for biases, decay in ((False, options.weight_decay), (True, 0.0)):
            some = [p for p in chosen if (p.dim() <= 1) == biases]
            if some:
                groups.append({'params': some, 'weight_decay': decay, 'factor': factor})
    kind = torch.optim.AdamW if options.optimiser == 'adamw' else torch.optim.Adam
    return kind(groups, lr=options.learning_rate)


def _rank(found: Validation, options: TrainOptions) -> tuple[float, float]:
    """Order validations: the greater is the better one."""
    return (found.r1, -found.loss) if options.select == 'r1' else (-found.loss, found.r1)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Make torch refuse operations whose result depends on timing."""
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Every new tensor would be filled with NaN first; all are written before they are read.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filling


def _silent(text: str) -> None:
    """Report nothing: rank 0 does."""
