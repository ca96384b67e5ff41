# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Train a success head and its failure prompts on the features of episodes; resumes exactly."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
import math
from pathlib import Path
import time
from typing import Any
from zlib import crc32

from hralign_ros.data.manifest import DataError
from hralign_ros.models.failure_prompts import Prompts
from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.report import Report
from hralign_ros.training.checkpoints import (
    check_same,
    Checkpoint,
    read_checkpoint,
    TrainingError,
    write_checkpoint,
)
from hralign_ros.training.failure_clusters import cluster, motion_profile
from hralign_ros.training.success_clips import Choice, Clips, draw, Recording, take
from hralign_ros.training.success_losses import (
    accomplished_loss,
    cross_domain_loss,
    failure_text_loss,
    video_text_loss,
)
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional

LAST = 'last.pt'
_DRAW, _CHOOSE = 11, 12
# What is nearly a success: this long before it.
BRINK_S = 1.0
_REPORT_EVERY = 50


@dataclass(frozen=True, eq=False)
class Batch:
    """
    One step's clips with what is true of them.

    :param tasks: rows of the tasks in the batch, [U].
    :param task: int64 [n], each clip's column among those.
    :param done: [n]; `failing` [n], `human` [n]: bool.
    :param progress: [n], NaN where not known.
    :param recording: int64 [n], which recording a clip is of.
    """

    clips: Clips
    tasks: tuple[int, ...]
    task: Tensor
    done: Tensor
    failing: Tensor
    human: Tensor
    progress: Tensor
    recording: NDArray[np.int64]


class ClipSource:
    """
    Batches of clips, each a pure function of the seed and the step.

    :param recordings: of tasks known to `prompts`.
    """

    def __init__(
        self, recordings: Sequence[Recording], tasks: Sequence[str], options: SuccessOptions,
    ) -> None:
        self.recordings, self.options = list(recordings), options
        number = {task: row for row, task in enumerate(tasks)}
        self._by_task: dict[int, list[int]] = {}
        for row, recording in enumerate(self.recordings):
            self._by_task.setdefault(number[recording.episode.task_id], []).append(row)
        if not self._by_task or not any(recording.done.any() for recording in self.recordings):
            raise DataError('no recording of a success to train on')

    def load(self, step: int) -> Batch:
        """Draw the batch of a step."""
        options = self.options
        rng = np.random.default_rng([_DRAW, options.seed, step])
        rows = sorted(self._by_task)
        tasks = tuple(sorted(rng.choice(
            rows, min(options.tasks_per_step, len(rows)), replace=False).tolist()))
        recordings: list[int] = []
        newest: list[int] = []
        for task in tasks:
            for _ in range(options.clips_per_task):
                recording = self._recording(self._by_task[task], rng)
                recordings.append(recording)
                newest.append(_newest(self.recordings[recording], rng, options.pre_success))
        chosen = [self.recordings[row] for row in recordings]
        choices: list[Choice] = [
            draw(recording, row, options.length, rng, drop_view=options.drop_view,
                 late_view=options.late_view, rewind=options.rewind, stall=options.stall)
            for recording, row in zip(chosen, newest, strict=True)]
        pairs = list(zip(chosen, newest, strict=True))
        return Batch(
            take(chosen, choices), tasks,
            torch.arange(len(tasks)).repeat_interleave(options.clips_per_task),
            torch.tensor([bool(f.done[r]) for f, r in pairs]),
            torch.tensor([bool(f.failing[r]) for f, r in pairs]),
            torch.tensor([f.human for f in chosen]),
            torch.tensor([float(f.progress[r]) for f, r in pairs]), np.array(recordings))

    def _recording(self, rows: Sequence[int], rng: np.random.Generator) -> int:
        """Sample a recording of a task: humans by their share, successes as often as failures."""
        human = [row for row in rows if self.recordings[row].human]
        robot = [row for row in rows if not self.recordings[row].human]
        some = human if human and (not robot or rng.random() < self.options.human_share) \
            else robot
        good = [row for row in some if self.recordings[row].done.any()]
        bad = [row for row in some if not self.recordings[row].done.any()]
        some = good if good and (not bad or rng.random() < 0.5) else bad
        return int(some[rng.integers(len(some))])


def _newest(recording: Recording, rng: np.random.Generator, pre_success: float) -> int:
    """Draw the newest frame of a clip: half of the time one of those that matter most."""
    marked = recording.done if recording.done.any() else recording.failing
    if marked.any() and rng.random() < 0.5:
        return int(rng.choice(np.flatnonzero(marked)))
    if recording.done.any() and rng.random() < pre_success:
        # Nearly there: what a decision that comes too early would be made on.
        first = int(recording.done.argmax())
        times = recording.features.time_s
        near = np.flatnonzero(times[:first] >= times[first] - BRINK_S)
        if len(near):
            return int(rng.choice(near))
    return int(rng.integers(recording.frames))


@dataclass(frozen=True)
class Trained:
    """
    A trained head.

    :param modes: cluster number by episode id, of the failures trained on.
    :param seconds: that training took, in this sitting.
    """

    head: SuccessHead
    prompts: Prompts
    modes: Mapping[str, int]
    seconds: float


def train(
    head: SuccessHead, prompts: Prompts, recordings: Sequence[Recording], options: SuccessOptions,
    output: Path, *, settings: Mapping[str, Any] | None = None, report: Report = print,
) -> Trained:
    """
    Train, from the start or from the checkpoint in the folder.

    :param head: changed in place, as are `prompts`; both end with the averaged weights.
    :param settings: what else the result depends on.
    :raises TrainingError: the checkpoint is of another run, or the loss is not finite.
    """
    run = _Run(head, prompts, recordings, options, Path(output), dict(settings or {}), report)
    return run.go()


class _Run:
    """One call of `train`."""

    def __init__(
        self, head: SuccessHead, prompts: Prompts, recordings: Sequence[Recording],
        options: SuccessOptions, output: Path, settings: dict[str, Any], report: Report,
    ) -> None:
        self.head, self.prompts, self.options = head, prompts, options
        self.output, self.report = output, report
        self.source = ClipSource(recordings, prompts.tasks, options)
        self.model = nn.ModuleDict({'head': head, 'prompts': prompts})
        # In their order, by which they are drawn.
        self.settings = {**settings, **asdict(options), 'texts': prompts.texts, 'recordings': [
            (f.episode.episode_id, f.human, f.episode.task_id, crc32(
                f.done.tobytes() + f.failing.tobytes() + f.progress.tobytes()),
             f.features.source[:16])
            for f in recordings]}
        self.step = 0
        self.mode = np.full((2, len(self.source.recordings)), 0, np.int64)
        self.centres: dict[str, Any] = {}
        self.texts: list[Tensor] = []

    def go(self) -> Trained:
        options, report = self.options, self.report
        self.output.mkdir(parents=True, exist_ok=True)
        weights = dict(self.model.named_parameters())
        average = {name: p.detach().clone() for name, p in weights.items()}
        slow = [p for name, p in weights.items() if not name.startswith('prompts.')]
        fast = [p for name, p in weights.items() if name.startswith('prompts.')]
        optimiser = torch.optim.AdamW([
            {'params': [p for p in slow if p.dim() > 1], 'factor': 1.0,
             'weight_decay': options.weight_decay},
            {'params': [p for p in slow if p.dim() <= 1], 'factor': 1.0, 'weight_decay': 0.0},
            {'params': fast, 'factor': options.prompt_rate, 'weight_decay': 0.0}],
            lr=options.learning_rate)
        torch.manual_seed(options.seed)
        last = self.output / LAST
        if last.exists():
            checkpoint = read_checkpoint(last)
            check_same(self.settings, checkpoint.settings, last)
            self.model.load_state_dict(checkpoint.model)
            average = dict(checkpoint.average)
            optimiser.load_state_dict(checkpoint.optimiser)
            torch.set_rng_state(checkpoint.generators['cpu'])
            self.step = checkpoint.step
            self.mode = np.array(checkpoint.progress['mode'], np.int64)
            self.centres = {k: np.array(v) for k, v in checkpoint.progress['centres'].items()}
            report(f'going on after step {self.step}')
        report(f'{len(self.source.recordings)} recordings of {len(self.prompts.tasks)} tasks, '
               f'{sum(p.numel() for p in weights.values())} weights')
        began, first = time.monotonic(), self.step
        with ThreadPoolExecutor(1) as loader:
            coming = loader.submit(self.source.load, self.step)
            while self.step < options.steps:
                if self.step % options.cluster_every == 0 and options.use_prompts:
                    self._cluster()
                    self._encode_texts()
                batch = coming.result()
                if self.step + 1 < options.steps:
                    coming = loader.submit(self.source.load, self.step + 1)
                terms = self._step(batch, optimiser)
                self.step += 1
                decay = min(options.average, self.step / (self.step + 10))
                with torch.no_grad():
                    for name, mean in average.items():
                        mean.lerp_(weights[name], 1.0 - decay)
                if self.step % _REPORT_EVERY == 0 or self.step == options.steps:
                    rate = (self.step - first) / (time.monotonic() - began)
                    words = '  '.join(f'{k} {v:.3f}' for k, v in terms.items())
                    report(f'step {self.step}/{options.steps}  {words}  {rate:.2f} steps/s  '
                           f'{(options.steps - self.step) / rate:.0f} s to go')
                if self.step % options.checkpoint_every == 0 or self.step == options.steps:
                    self._save(last, average, optimiser)
        with torch.no_grad():
            for name, mean in average.items():
                weights[name].copy_(mean)
        self.head.eval()
        modes = {recording.episode.episode_id: int(mode) for recording, mode in zip(
            self.source.recordings, self.mode[0], strict=True) if recording.failing.any()}
        return Trained(self.head, self.prompts, modes, time.monotonic() - began)

    def _step(self, batch: Batch, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        options = self.options
        for group in optimiser.param_groups:
            group['lr'] = group['factor'] * _rate(options, self.step)
        optimiser.zero_grad(set_to_none=True)
        self.head.train()
        terms = self._losses(batch)
        weights = {'cdc': options.cross_domain, 'vlc': options.video_text,
                   'fvlc': options.failure_text, 'bce': options.accomplished,
                   'progress': options.progress, 'failed': options.failed}
        loss = sum((weights[name] * term for name, term in terms.items()),
                   torch.zeros(()))
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(f'the loss of step {self.step + 1} is {float(loss.detach())}; a '
                                'lower learning rate may help')
        loss.backward()
        if options.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        optimiser.step()
        return {'loss': float(loss.detach()), **{
            name: float(term.detach()) for name, term in terms.items()}}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        options, head = self.options, self.head
        shared = self.step // options.prompt_every % options.shared_every \
            == options.shared_every - 1
        tokens = batch.clips.tokens
        if options.noise:
            tokens = tokens + options.noise * torch.randn_like(tokens)
        judged = head.judge(tokens, batch.clips.mask, batch.clips.age)
        video, scale = judged.video, head.scale
        robot = ~batch.human
        good_robot, good_human = batch.done & robot, batch.done & batch.human
        bad = batch.failing & robot
        # [U, 1 + K, D]; without prompts only the plain texts.
        texts = self._texts(batch.tasks, shared) if options.use_prompts \
            else self.prompts.plain[list(batch.tasks)][:, None]
        similarity = torch.einsum('nd,ukd->nuk', video, texts) * scale
        used = torch.ones(texts.shape[0], texts.shape[1] - 1)
        scores = head.scores(similarity, used) if options.use_prompts \
            else similarity[..., 0] + head.bias
        rows = torch.arange(len(batch.task))
        own = similarity[rows, batch.task][:, 1:]
        human_similarity = similarity[..., 0] if self.prompts.human is None else (
            video @ self.prompts.human_texts(batch.tasks).T * scale)
        terms = {
            'cdc': cross_domain_loss(
                video[good_robot], video[good_human], batch.task[good_robot],
                batch.task[good_human], scale),
            'vlc': (video_text_loss(
                similarity[good_robot][..., 0], batch.task[good_robot], own[good_robot],
                torch.ones_like(own[good_robot])) + video_text_loss(
                human_similarity[good_human], batch.task[good_human], own[good_human],
                torch.zeros_like(own[good_human]))) / 2,
            'bce': accomplished_loss(
                scores, batch.done.to(scores.dtype), batch.task,
                other_weight=options.other_tasks),
            'failed': functional.binary_cross_entropy_with_logits(
                judged.failed, bad.to(scores.dtype)),
        }
        if options.use_prompts:
            mode = torch.from_numpy(self.mode[int(shared)][batch.recording])
            terms['fvlc'] = failure_text_loss(
                similarity[bad][..., 1:], similarity[bad][..., 0], batch.task[bad], mode[bad],
                used)
        known = ~torch.isnan(batch.progress)
        if known.any():
            terms['progress'] = functional.binary_cross_entropy_with_logits(
                judged.progress[known], batch.progress[known])
        return terms

    def _texts(self, tasks: Sequence[int], shared: bool) -> Tensor:
        """Give texts with prompts [U, 1 + K, D]; with a gradient only where prompts learn."""
        known = self.texts[int(shared)]
        if self.step % self.options.prompt_every:
            return known[list(tasks)]
        fresh = self.prompts.features(tasks, shared=shared)
        known[list(tasks)] = fresh.detach()
        return fresh

    @torch.no_grad()
    def _encode_texts(self) -> None:
        """Encode all tasks with their own and with the shared prompts, as they are now."""
        every = range(len(self.prompts.tasks))
        self.texts = [self.prompts.features(every, shared=shared) for shared in (False, True)]

    @torch.no_grad()
    def _cluster(self) -> None:
        """Give every failure its mode: among its task's, and among all tasks' together."""
        options, recordings = self.options, self.source.recordings
        rows = [row for row, recording in enumerate(recordings) if recording.failing.any()
                and not recording.human]
        if not rows:
            return
        points = self._points(rows)
        tasks = np.array([recordings[row].episode.task_id for row in rows])
        rest = points.copy()
        for task in np.unique(tasks):
            here = tasks == task
            # What is left of a failure once what all failures of its task share is taken out of
            # it: that would be most of every cosine.
            rest[here] -= points[here].mean(0)
            rest[here] += 1e-9
            labels, centres = cluster(
                rest[here], options.modes, before=self.centres.get(task),
                assignment=options.assignment, seed=options.seed)
            self.mode[0, np.array(rows)[here]] = labels
            self.centres[task] = centres
        labels, centres = cluster(
            rest, options.modes, before=self.centres.get(''), assignment=options.assignment,
            seed=options.seed)
        self.mode[1, rows] = labels
        self.centres[''] = centres

    def _points(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """Describe failed recordings [n, ...] by what they are grouped by."""
        recordings, options = [self.source.recordings[row] for row in rows], self.options
        if options.cluster_on == 'motion':
            return np.stack([motion_profile(recording.features.tokens)
                             for recording in recordings])
        self.head.eval()
        rng = np.random.default_rng([_CHOOSE, options.seed])
        features = []
        for start in range(0, len(recordings), 64):
            some = recordings[start:start + 64]
            clips = take(some, [draw(f, f.frames - 1, options.length, rng) for f in some])
            features.append(self.head.judge(clips.tokens, clips.mask, clips.age).video.numpy())
        return np.concatenate(features).astype(np.float64)

    def _save(
        self, path: Path, average: dict[str, Tensor], optimiser: torch.optim.Optimizer,
    ) -> None:
        write_checkpoint(path, Checkpoint(
            self.step, self.model.state_dict(), average, optimiser.state_dict(),
            {'cpu': torch.get_rng_state()}, self.settings,
            {'mode': self.mode.tolist(),
             'centres': {k: v.tolist() for k, v in self.centres.items()}}))


def _rate(options: SuccessOptions, step: int) -> float:
    """Give the learning rate of a step: linear warm-up, then a cosine down to a hundredth."""
    if step < options.warm_up:
        return options.learning_rate * (step + 1) / options.warm_up
    share = (step - options.warm_up) / max(1, options.steps - options.warm_up)
    return options.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2)
