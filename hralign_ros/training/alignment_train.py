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
from dataclasses import asdict, dataclass
from hashlib import sha256
import math
import os
from pathlib import Path
import time
from typing import Any

from hralign_ros.data.pairs import Pair
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.runtime.report import Report
from hralign_ros.training.alignment_batches import (
    Batch,
    digest,
    Item,
    make_items,
    PairBatches,
    Texts,
    VideoBatch,
    VideoBatches,
)
from hralign_ros.training.alignment_objective import (
    batch_loss,
    validate,
    Validation,
    video_batch_loss,
)
from hralign_ros.training.alignment_options import TrainOptions
from hralign_ros.training.checkpoints import (
    check_same,
    Checkpoint,
    read_checkpoint,
    TrainingError,
    write_checkpoint,
)
from hralign_ros.training.clip_features import ClipFeatures
from hralign_ros.training.distributed import (
    average_gradients,
    choose_device,
    joined,
    meet,
    Ranks,
    share_from_first,
)
from hralign_ros.training.log import last_seconds, TrainingLog
import torch
from torch import nn

LAST, BEST = 'last.pt', 'best.pt'


@dataclass(frozen=True)
class Result:
    """
    What came out of a run; the model that was trained has the best weights.

    :param best: checkpoint of the best step.
    :param stopped_early: the patience ran out.
    :param seconds: that training took, what came before an interruption included.
    """

    best: Path
    best_step: int
    validation: Validation
    steps: int
    stopped_early: bool
    seconds: float


def train(
    options: TrainOptions, model: HRAlign, pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair], cache: ClipFeatures, texts: Texts, output: Path, *,
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


def prepare_folder(output: Path, *, resume: bool) -> None:
    """
    Make a run's folder.

    :raises TrainingError: it cannot be made, or holds a run that is not to be resumed.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f'{output}: no run can be written there: {error}') from error
    if (output / LAST).exists() and not resume:
        raise TrainingError(f'{output} holds a run already; add --resume to continue it, or '
                            'name another folder')


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
        validation_pairs: Sequence[Pair], cache: ClipFeatures, texts: Texts, output: Path,
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
        prepare_folder(self.output, resume=resume)
        last = self.output / LAST
        self.model.to(self.device).train()
        trained = self.model.trained_parameters()
        self.optimiser = _optimiser(options, trained)
        self.average = {name: p.detach().clone() for name, p in trained.items()} \
            if options.average > 0 else {}
        if last.exists():
            self._restore(read_checkpoint(last), last)
            report(f'going on after step {self.step}')
        # Nobody writes before all have looked.
        meet(self.ranks)
        share_from_first([*trained.values(), *self.average.values()], self.ranks)
        report(f'{len(self.batches.items)} pairs for training, {len(self.validation.items)} for '
               f'validation, {sum(p.numel() for p in trained.values())} weights to train, '
               f'{self.ranks.count} rank(s) on {self.device.type}')
        if self.ranks.first:
            with TrainingLog(self.output, self.step, report) as log:
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
            self.step < options.steps, last_seconds(self.output))

    def _steps(self, trained: Mapping[str, nn.Parameter], log: TrainingLog | None) -> None:
        options = self.options
        if self.progress['best_loss'] is None:
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
        with torch.no_grad():
            for name, mean in self.average.items():
                mean.lerp_(trained[name], 1.0 - options.average)
        return value

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the average in the place of the weights for a while, where one is kept."""
        trained = self.model.trained_parameters()
        now = {name: trained[name].detach().clone() for name in self.average}
        with torch.no_grad():
            for name, mean in self.average.items():
                trained[name].copy_(mean)
        yield
        with torch.no_grad():
            for name, value in now.items():
                trained[name].copy_(value)

    def _validate(self, log: TrainingLog | None, loss: float, rate: float) -> None:
        """Measure on rank 0, tell the others, keep what is best."""
        with self._averaged():
            self._measure(log, loss, rate)

    def _measure(self, log: TrainingLog | None, loss: float, rate: float) -> None:
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
            {name: mean.cpu() for name, mean in self.average.items()} if name == LAST else {},
            self.optimiser.state_dict() if name == LAST else {}, generators, self.settings,
            self.progress))

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        check_same(self.settings, checkpoint.settings, path)
        self.model.load_trained_state(checkpoint.model)
        for name, mean in self.average.items():
            mean.copy_(checkpoint.average[name])
        self.optimiser.load_state_dict(checkpoint.optimiser)
        torch.set_rng_state(checkpoint.generators['cpu'])
        if self.device.type == 'cuda' and 'cuda' in checkpoint.generators:
            torch.cuda.set_rng_state(checkpoint.generators['cuda'], self.device)
        self.step = checkpoint.step
        self.progress = dict(checkpoint.progress)


def _settings(
    options: TrainOptions, model: HRAlign, cache: ClipFeatures, texts: Texts,
    items: Sequence[Item], held_out: Sequence[Item],
) -> dict[str, Any]:
    """Name everything that the result depends on."""
    chosen = {name: value for name, value in asdict(options).items() if name != 'device'}
    words = sha256()
    for text in sorted({item.robot.task_text for item in (*items, *held_out)}):
        words.update(text.encode() + texts[text].tobytes())
    shapes = sorted((name, list(v.shape)) for name, v in model.trained_state().items())
    return {**chosen, 'pooling': model.pooling,
            'attention_floor': model.attention.floor, 'cache': cache.key, 'pairs': digest(items),
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
