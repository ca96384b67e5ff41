# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The one training loop; what is trained, on what, towards what, is an `Objective` of its own.

It works in one process or under torchrun. A run's folder holds last.pt, best.pt where there is
validation (see `checkpoints`), log.csv, and TensorBoard's files where that is installed. The same
options on the same data and number of CPU threads give the same weights to the bit, whether the
run was interrupted or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
import math
import os
from pathlib import Path
import time
from typing import Any, Generic, Protocol, Self, TypeVar

from hralign_ros.runtime.report import Report, silent
from hralign_ros.training.checkpoints import (
    check_same,
    Checkpoint,
    read_checkpoint,
    TrainingError,
    write_checkpoint,
)
from hralign_ros.training.devices import choose_device
from hralign_ros.training.distributed import (
    average_gradients,
    joined,
    meet,
    Ranks,
    share_from_first,
)
from hralign_ros.training.options import LoopOptions
from hralign_ros.training.run_folder import (
    BEST,
    LAST,
    last_seconds,
    prepare_folder,
    TrainingLog,
)
import torch
from torch import nn, Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """What one rank needs of the batch of a step."""

    def to(self, device: torch.device) -> Self:
        """Move its tensors; what is none stays as it is."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items()
                                if isinstance(value, (Tensor, Batch))})


B = TypeVar('B', bound=Batch)
C = TypeVar('C', bound=Batch, covariant=True)


class Batches(Protocol[C]):
    """
    Where batches come from.

    :ivar size: rows of a global batch, which have to be a multiple of the ranks.
    """

    size: int

    def load(self, step: int, ranks: Ranks) -> C:
        """Load this rank's part of the batch of a step (from 0), on the CPU, in any thread."""
        ...


class Objective(ABC, Generic[B]):
    """
    What a paper's method plugs into the loop.

    :ivar options: of the loop.
    :ivar settings: everything that the result depends on, for `check_same`; JSON.
    :ivar batches: what it is trained on.
    :ivar terms: of the loss, columns of the log.
    :ivar validation: names of what `validate` finds, columns of the log too; none: no validation.
    :ivar patience: validations in a row without a new best, after which the run ends; 0: never.
    :ivar average_warm_up: the average's decay rises as step / (step + this) at first.
    :ivar strict: torch refuses operations whose result may depend on timing; else it warns.
    """

    options: LoopOptions
    settings: Mapping[str, Any]
    batches: Batches[B]
    terms: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    patience = 0
    average_warm_up = 0
    strict = True

    @abstractmethod
    def parameters(self) -> dict[str, nn.Parameter]:
        """Give what is trained, by name; the order is that of the gradients' norm."""

    @abstractmethod
    def optimiser(self) -> torch.optim.Optimizer:
        """Make the optimiser; each group has a `factor` on the learning rate."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move what is trained, and what it needs."""

    @abstractmethod
    def loss(self, batch: B, step: int, ranks: Ranks) -> tuple[Tensor, Mapping[str, Tensor]]:
        """
        Compute the loss of the global batch, of which the ranks' mean is minimised.

        :returns: the loss, and by name those of its terms that the batch has.
        """

    def prepare(self, step: int, ranks: Ranks) -> None:
        """Do what is to be done before a step."""

    def validate(self) -> dict[str, float]:
        """Measure the weights as they are now on held-out data."""
        raise NotImplementedError

    def order(self, found: Mapping[str, float]) -> tuple[float, ...]:
        """Order what `validate` finds: the greater is the better one."""
        raise NotImplementedError

    def weights(self) -> dict[str, Tensor]:
        """Copy to the CPU what a checkpoint keeps of the model."""
        return {name: p.detach().to('cpu', copy=True) for name, p in self.parameters().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `weights` gave."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(weights[name])

    def state(self) -> dict[str, Any]:
        """Give what else a checkpoint keeps, as JSON has it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""


@dataclass(frozen=True)
class Result:
    """
    How a run went.

    The model has its best weights, where there is validation, or else their running average.

    :param best: what validation found at the best step, by column.
    :param stopped_early: the patience ran out.
    :param seconds: that training took, what came before an interruption included.
    """

    steps: int
    best_step: int
    best: Mapping[str, float]
    stopped_early: bool
    seconds: float


def train(
    objective: Objective[B], output: Path, *, resume: bool = False, device: str = 'auto',
    report: Report = print,
) -> Result:
    """
    Train, from the start or from where a killed run was.

    Under torchrun every process calls this with the same arguments; rank 0 reports and writes.

    :param objective: its model is changed in place, and is on the CPU in the end.
    :param output: the run's folder; made if need be.
    :param resume: continue the run in the folder, where there is one. Without it, a folder that
        holds a run is refused.
    :param device: auto, cpu or cuda; a resumed run may have another one.
    :raises TrainingError: the folder holds a run that this one is not, or the loss is not finite.
    """
    place = choose_device(device).torch
    if place.type == 'cuda':
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    with joined(place) as ranks, _deterministic(objective.strict):
        run = _Run(objective, Path(output), place, ranks, report if ranks.first else silent)
        return run.go(resume)


def learning_rate(options: LoopOptions, step: int) -> float:
    """Give the rate of a step (from 0): linear warm-up, then a cosine down to the final rate."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    done = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    falling = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return options.final_rate + (options.learning_rate - options.final_rate) * falling


class _Run(Generic[B]):
    """One call of `train`."""

    def __init__(self, objective: Objective[B], output: Path, device: torch.device, ranks: Ranks,
                 report: Report) -> None:
        ranks.rows(objective.batches.size)
        self.objective, self.options, self.output = objective, objective.options, output
        self.device, self.ranks, self.report = device, ranks, report
        self.step = 0
        self.progress: dict[str, Any] = {
            'best_step': 0, 'best': {}, 'since_best': 0, 'finished': False}

    def go(self, resume: bool) -> Result:
        """Train to the end, or from a checkpoint to the end."""
        objective, options = self.objective, self.options
        prepare_folder(self.output, resume=resume)
        last = self.output / LAST
        objective.to(self.device)
        self.trained = objective.parameters()
        self.optimiser = objective.optimiser()
        self.average = {name: p.detach().clone() for name, p in self.trained.items()} \
            if options.average > 0 else {}
        torch.manual_seed(options.seed)
        resumed = last.exists()
        if resumed:
            self._restore(read_checkpoint(last), last)
            self.report(f'resumed after step {self.step}')
        # Nobody writes before all have read it.
        meet(self.ranks)
        share_from_first([*self.trained.values(), *self.average.values()], self.ranks)
        self.report(f'{sum(p.numel() for p in self.trained.values())} weights to train, '
                    f'{self.ranks.count} rank(s) on {self.device.type}, '
                    f'{torch.get_num_threads()} CPU thread(s)')
        columns = (*objective.terms, *objective.validation)
        with TrainingLog(self.output, columns, self.step if resumed else None, self.report) \
                if self.ranks.first else nullcontext() as log:
            if not resumed:
                # The untrained model is a candidate: no run ends worse than it began.
                found = self._validate()
                if log and found:
                    log.row(0, found, 0.0)
                self._save(LAST)
            self._steps(log)
        meet(self.ranks)
        if self.progress['best']:
            objective.load_weights(read_checkpoint(self.output / BEST).model)
        else:
            self._swap_average()
        objective.to(torch.device('cpu'))
        return Result(self.step, self.progress['best_step'], self.progress['best'],
                      self.step < options.steps, last_seconds(self.output))

    def _steps(self, log: TrainingLog | None) -> None:
        options, objective, progress = self.options, self.objective, self.progress
        began, first = time.monotonic(), self.step
        # The next batch is loaded while the current one is computed.
        with ThreadPoolExecutor(1) as loader:
            coming = loader.submit(objective.batches.load, self.step, self.ranks)
            while not progress['finished']:
                objective.prepare(self.step, self.ranks)
                batch = coming.result().to(self.device)
                if self.step + 1 < options.steps:
                    coming = loader.submit(
                        objective.batches.load, self.step + 1, self.ranks)
                found, rate = self._step(batch), learning_rate(options, self.step)
                self.step += 1
                done = self.step == options.steps
                told = done or self.step % options.validate_every == 0
                if told:
                    found |= self._validate()
                    speed = (self.step - first) / max(time.monotonic() - began, 1e-9)
                    words = [f'step {self.step}/{options.steps}', *(
                        f'{name} {value:.4f}' for name, value in found.items())]
                    if objective.validation:
                        words.append(f'best at {progress["best_step"]}')
                    self.report('  '.join((
                        *words, f'{speed:.2f} steps/s',
                        f'{(options.steps - self.step) / speed:.0f} s to go')))
                if log:
                    log.row(self.step, found, rate)
                early = 0 < objective.patience <= progress['since_best']
                progress['finished'] = done or early
                if progress['finished'] or self.step % options.checkpoint_every == 0:
                    if log:
                        log.flush()
                    self._save(LAST)
        if self.step < options.steps:
            self.report(f'stopped after step {self.step}: no new best in {objective.patience} '
                        'validations')

    def _step(self, batch: B) -> dict[str, float]:
        """Take one step; return the loss and its terms."""
        options, rate = self.options, learning_rate(self.options, self.step)
        for group in self.optimiser.param_groups:
            group['lr'] = group['factor'] * rate
        self.optimiser.zero_grad(set_to_none=True)
        loss, terms = self.objective.loss(batch, self.step, self.ranks)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f'the loss of step {self.step + 1} is {value}; a lower learning rate may help')
        loss.backward()
        average_gradients(self.trained.values(), self.ranks)
        if options.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.trained.values(), options.clip_norm)
        self.optimiser.step()
        done = self.step + 1
        decay = min(options.average, done / (done + self.objective.average_warm_up))
        with torch.no_grad():
            for name, mean in self.average.items():
                mean.lerp_(self.trained[name], 1.0 - decay)
        return {'loss': value, **{name: float(term.detach()) for name, term in terms.items()}}

    def _swap_average(self) -> None:
        """Exchange the weights and their average, where one is kept."""
        with torch.no_grad():
            for name, mean in self.average.items():
                now = self.trained[name].detach().clone()
                self.trained[name].copy_(mean)
                mean.copy_(now)

    def _validate(self) -> dict[str, float]:
        """Measure the average on rank 0, tell the others, keep what is best."""
        names, progress = self.objective.validation, self.progress
        if not names:
            return {}
        self._swap_average()
        measured = torch.zeros(len(names), dtype=torch.float64, device=self.device)
        if self.ranks.first:
            found = self.objective.validate()
            measured += torch.tensor([found[name] for name in names], device=self.device)
        share_from_first([measured], self.ranks)
        now = dict(zip(names, measured.tolist(), strict=True))
        order = self.objective.order
        progress['since_best'] += 1
        if not progress['best'] or order(now) > order(progress['best']):
            progress.update(best_step=self.step, best=now, since_best=0)
            self._save(BEST)
        self._swap_average()
        return now

    def _save(self, name: str) -> None:
        if not self.ranks.first:
            return
        generators = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            generators['cuda'] = torch.cuda.get_rng_state(self.device)
        whole = name == LAST
        write_checkpoint(self.output / name, Checkpoint(
            self.step, self.objective.weights(),
            {name: mean.cpu() for name, mean in self.average.items()} if whole else {},
            self.optimiser.state_dict() if whole else {}, generators, self.objective.settings,
            {**self.progress, 'threads': torch.get_num_threads(),
             'objective': self.objective.state()}))

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        check_same(self.objective.settings, checkpoint.settings, path)
        self.objective.load_weights(checkpoint.model)
        for name, mean in self.average.items():
            mean.copy_(checkpoint.average[name])
        self.optimiser.load_state_dict(checkpoint.optimiser)
        torch.set_rng_state(checkpoint.generators['cpu'])
        if self.device.type == 'cuda' and 'cuda' in checkpoint.generators:
            torch.cuda.set_rng_state(checkpoint.generators['cuda'], self.device)
        progress = dict(checkpoint.progress)
        # Sums of floating-point numbers depend on how many threads add them.
        torch.set_num_threads(progress.pop('threads'))
        self.objective.restore(progress.pop('objective'))
        self.step, self.progress = checkpoint.step, progress


@contextmanager
def _deterministic(strict: bool) -> Iterator[None]:
    """Make torch refuse operations whose result depends on timing, or warn of them."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filling = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=not strict)
    # Every new tensor would be filled with NaN first; all are written before they are read.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
        memory.fill_uninitialized_memory = filling
