# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The objective of Adapt2Reward: losses, failure prompts, and which failure is of which mode.

Under torchrun each rank pools the frames of its own clips, which is most of the work. The pooled
frames of all ranks are gathered, gradient included, and every rank joins them to clips, compares
all clips with all texts and computes the loss of the global batch. So negatives are those of the
global batch, a mean is over all of its rows, and noise and dropout are the same numbers as in one
process: two ranks give what one gives, but for the order of sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

from hralign_ros.models.failure_prompts import Prompts
from hralign_ros.models.success import SuccessHead
from hralign_ros.training.distributed import gather, Ranks, share_from_first
from hralign_ros.training.failure_clusters import cluster, motion_profile
from hralign_ros.training.loop import Objective
from hralign_ros.training.success_batches import ClipBatch, ClipBatches
from hralign_ros.training.success_clips import Recording, sample_clip, stack_clips
from hralign_ros.training.success_losses import (
    accomplished_loss,
    cross_domain_loss,
    failure_text_loss,
    grounding_loss,
    pointing_loss,
    told_loss,
    video_text_loss,
)
from hralign_ros.training.success_options import SuccessOptions
from hralign_ros.training.success_scenes import StillBatch, StillBatches, Stills
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional

# First word of a generator's seed.
_CHOOSE = 12
# Weight of ranking what is so in a still before what is not, beside telling each.
_RANKING = 0.5


class SuccessObjective(Objective[ClipBatch]):
    """
    A success head and its failure prompts, trained together.

    :param recordings: of tasks known to `prompts`.
    :param settings: what the result depends on, beside options, texts and recordings.
    :param stills: what a head with a grounding learns from, too.
    :raises DataError: no recording shows a success; or there are no stills for a grounding.
    """

    # As the options name their weights.
    terms = ('cross_domain', 'video_text', 'accomplished', 'failed', 'failure_text', 'progress',
             'hindsight', 'grounding', 'scenes', 'pointing')
    average_warm_up = 10
    # On a GPU torch has no deterministic cumulative sum; those of masks are exact in any order.
    strict = False

    def __init__(
        self, options: SuccessOptions, head: SuccessHead, prompts: Prompts,
        recordings: Sequence[Recording], settings: Mapping[str, Any],
        stills: Stills | None = None,
    ) -> None:
        self.options: SuccessOptions = options
        self.head, self.prompts = head, prompts
        self.batches: ClipBatches = ClipBatches(
            recordings, prompts.tasks, options, (*prompts.texts.values(), *prompts.others),
            None if stills is None else StillBatches(stills, options))
        self.model = nn.ModuleDict({'head': head, 'prompts': prompts})
        # In their order, by which they are sampled.
        self.settings = {**settings, **asdict(options), 'texts': prompts.texts, 'recordings': [
            (f.episode.episode_id, f.human, f.episode.task_id, crc32(
                f.done.tobytes() + f.failing.tobytes() + f.progress.tobytes()),
             f.features.source[:16])
            for f in recordings], **({} if stills is None else {'stills': [
                # Tens of goals each, whose words would be most of a checkpoint.
                (still.episode_id, crc32('\n'.join(still.goals).encode() + still.so.tobytes()
                                         + still.cells.tobytes()))
                for still in stills.stills]})}
        # Mode of each recording: among its task's own, and among those of the fallback task.
        self.mode = np.zeros((2, len(recordings)), np.int64)
        self.centres: dict[str, NDArray[np.float64]] = {}
        self.texts: list[Tensor] = []

    @property
    def modes(self) -> dict[str, int]:
        """Give the mode of each failure that was trained on, by episode id."""
        return {recording.episode.episode_id: int(mode) for recording, mode in zip(
            self.batches.recordings, self.mode[0], strict=True) if recording.failing.any()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """Give head and prompts."""
        return dict(self.model.named_parameters())

    def optimiser(self) -> torch.optim.Optimizer:
        """Make one in which prompts have a rate, and weights a decay, of their own."""
        options = self.options
        head, prompts = list(self.head.parameters()), list(self.prompts.parameters())
        return torch.optim.AdamW([
            {'params': [p for p in head if p.dim() > 1], 'factor': 1.0,
             'weight_decay': options.weight_decay},
            {'params': [p for p in head if p.dim() <= 1], 'factor': 1.0, 'weight_decay': 0.0},
            {'params': prompts, 'factor': options.prompt_rate, 'weight_decay': 0.0}],
            lr=options.learning_rate)

    def to(self, device: torch.device) -> None:
        """Move head, prompts and the text encoder behind them."""
        self.model.to(device)
        self.head.eval()

    def prepare(self, step: int, ranks: Ranks) -> None:
        """Give failures their modes, and encode all texts, every so many steps."""
        if step % self.options.cluster_every or not self.options.use_prompts:
            return
        if ranks.first:
            self._cluster()
        modes = torch.from_numpy(self.mode).to(self.prompts.plain.device)
        share_from_first([modes], ranks)
        self.mode = modes.cpu().numpy()
        every = range(len(self.prompts.tasks))
        with torch.no_grad():
            self.texts = [self.prompts.features(every, fallback=fallback)
                          for fallback in (False, True)]

    def loss(self, batch: ClipBatch, step: int, ranks: Ranks) -> tuple[Tensor, dict[str, Tensor]]:
        """Add up the weighted terms of the global batch."""
        terms = self._terms(batch, step, ranks)
        return sum((getattr(self.options, name) * term for name, term in terms.items()),
                   torch.zeros((), device=batch.task.device)), terms

    def _terms(self, batch: ClipBatch, step: int, ranks: Ranks) -> dict[str, Tensor]:
        options, head = self.options, self.head
        head.train()
        fallback = step // options.prompt_every % options.fallback_every \
            == options.fallback_every - 1
        tokens, mine = batch.tokens, ranks.rows(len(batch.task))
        if options.noise:
            # Of all clips, so that no clip's noise depends on the number of ranks.
            noise = torch.randn((len(batch.task), *tokens.shape[1:]), device=tokens.device)
            tokens = tokens + options.noise * noise[mine]
        frames = gather(head.pool_frames(tokens, batch.mask[mine]), ranks)
        encoded = head.outputs(head.join(frames, batch.mask, batch.age))
        video, scale = encoded.video, head.scale
        robot = ~batch.human
        good_robot, good_human = batch.done & robot, batch.done & batch.human
        bad = batch.failing & robot
        # [U, 1 + K, D]; without prompts only the plain texts.
        texts = self._texts(batch.tasks, step, fallback) if options.use_prompts \
            else self.prompts.plain[list(batch.tasks)][:, None]
        similarity = torch.einsum('nd,ukd->nuk', video, texts) * scale
        used = similarity.new_ones(texts.shape[0], texts.shape[1] - 1)
        scores = head.scores(similarity, used) if options.use_prompts \
            else similarity[..., 0] + head.bias
        own = similarity[torch.arange(len(batch.task), device=video.device), batch.task][:, 1:]
        human_similarity = similarity[..., 0] if self.prompts.human is None else (
            video @ self.prompts.human_texts(batch.tasks).T * scale)
        plain, column = similarity[..., 0], batch.task
        if options.all_texts:
            plain = video @ self.prompts.every.T * scale
            column = torch.tensor(batch.tasks, device=video.device)[batch.task]
        terms = {
            'cross_domain': cross_domain_loss(
                video[good_robot], video[good_human], batch.task[good_robot],
                batch.task[good_human], scale),
            'video_text': (video_text_loss(
                plain[good_robot], column[good_robot], own[good_robot],
                torch.ones_like(own[good_robot])) + video_text_loss(
                human_similarity[good_human], batch.task[good_human], own[good_human],
                torch.zeros_like(own[good_human]))) / 2,
            'accomplished': accomplished_loss(
                scores, batch.done.to(scores.dtype), batch.task,
                other_weight=options.other_tasks),
            'failed': functional.binary_cross_entropy_with_logits(
                encoded.failed, bad.to(scores.dtype)),
        }
        if options.use_prompts:
            mode = torch.from_numpy(self.mode[int(fallback)][batch.recording]).to(bad.device)
            terms['failure_text'] = failure_text_loss(
                similarity[bad][..., 1:], similarity[bad][..., 0], batch.task[bad], mode[bad],
                used)
        if options.hindsight:
            terms['hindsight'] = self._hindsight(
                video, scale, torch.where(robot, batch.instead, -1))
        if batch.fine is not None and batch.asked is not None and batch.stills is not None:
            terms['grounding'], of_attempts = self._grounding(
                batch, batch.fine, batch.asked, ranks)
            terms['scenes'], terms['pointing'], of_stills = self._scenes(batch.stills, ranks)
            terms['failed'] = terms['failed'] + of_attempts + of_stills
        known = ~torch.isnan(batch.progress)
        if known.any():
            terms['progress'] = functional.binary_cross_entropy_with_logits(
                encoded.progress[known], batch.progress[known])
        return terms

    def _grounding(
        self, batch: ClipBatch, fine: Tensor, asked: Tensor, ranks: Ranks,
    ) -> tuple[Tensor, Tensor]:
        """Tell what is accomplished, and has failed, in clips of robots with fine tokens."""
        assert self.head.grounding is not None
        mine = ranks.rows(len(asked))
        text = self.prompts.every[asked.clamp(min=0)]
        found = self.head.grounding(self._noisy(fine, len(asked), mine), text[mine])
        there = (asked >= 0) & (batch.mask[:, -1].amax(-1) > 0.5)[:, None] \
            & ~batch.human[:, None]
        # In order: the task's own, another one's, and what was done instead.
        so = torch.stack([batch.done, torch.zeros_like(batch.done), batch.instead >= 0], 1)
        binary, _ = grounding_loss(
            gather(found.scores, ranks), so.to(text.dtype), there.to(text.dtype))
        # Whether one has failed at what nobody attempted is not known.
        attempted = there & torch.tensor([True, False, True], device=there.device)
        failing = torch.stack([batch.failing, *[torch.zeros_like(batch.failing)] * 2], 1)
        return binary, told_loss(
            gather(found.failed, ranks), failing.to(text.dtype), attempted.to(text.dtype))

    def _scenes(self, stills: StillBatch, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        """Tell what is so in stills and what has failed; point at what the texts name."""
        assert self.head.grounding is not None
        mine = ranks.rows(len(stills.text))
        found = self.head.grounding(
            self._noisy(stills.fine, len(stills.text), mine), stills.text[mine])
        binary, ranking = grounding_loss(
            gather(found.scores, ranks), stills.so, stills.used)
        missed = gather(pointing_loss(found.looks, stills.cells[mine]), ranks)
        known = (stills.cells >= 0).sum().clamp(min=1)
        # Where something else has come true, an attempt at the rest has failed. Where nothing has,
        # it may not have begun.
        done = (stills.so * stills.used).amax(1, keepdim=True)
        failed = told_loss(
            gather(found.failed, ranks), 1.0 - stills.so, stills.used * done)
        return binary + _RANKING * ranking, missed.sum() / known, failed

    def _noisy(self, fine: Tensor, count: int, mine: slice) -> Tensor:
        """Add noise to this rank's fine tokens, the same whatever the number of ranks."""
        if not self.options.noise:
            return fine
        noise = torch.randn((count, *fine.shape[1:]), device=fine.device)
        return fine + self.options.noise * noise[mine]

    def _hindsight(self, video: Tensor, scale: Tensor, instead: Tensor) -> Tensor:
        """
        Match clips at whose end something else was done with that, among all texts.

        :param video: [n, D].
        :param instead: int64 [n], row of what was done; -1: of the task itself, or nothing.
        :returns: scalar; 0 where nothing was done instead.
        """
        rows = instead >= 0
        if not bool(rows.any()):
            return video.sum() * 0.0
        return functional.cross_entropy(video[rows] @ self.prompts.every.T * scale, instead[rows])

    def _texts(self, tasks: Sequence[int], step: int, fallback: bool) -> Tensor:
        """Give texts with prompts [U, 1 + K, D]; with a gradient only where prompts learn."""
        known = self.texts[int(fallback)]
        if step % self.options.prompt_every:
            return known[list(tasks)]
        fresh = self.prompts.features(tasks, fallback=fallback)
        known[list(tasks)] = fresh.detach()
        return fresh

    @torch.no_grad()
    def _cluster(self) -> None:
        """Give every failure its mode: among its task's, and among all tasks' together."""
        options, recordings = self.options, self.batches.recordings
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
        recordings, options = [self.batches.recordings[row] for row in rows], self.options
        if options.cluster_on == 'motion':
            return np.stack([motion_profile(recording.features.tokens)
                             for recording in recordings])
        self.head.eval()
        rng = np.random.default_rng([_CHOOSE, options.seed])
        features = []
        for start in range(0, len(recordings), 64):
            some = recordings[start:start + 64]
            clips = stack_clips(
                some, [sample_clip(f, f.frames - 1, options.length, rng) for f in some])
            features.append(self.head.encode(
                *(x.to(self.head.bias.device) for x in clips)).video.cpu().numpy())
        return np.concatenate(features).astype(np.float64)

    def state(self) -> dict[str, Any]:
        """Give modes and the centres of their clusters."""
        return {'mode': self.mode.tolist(),
                'centres': {task: centre.tolist() for task, centre in self.centres.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.mode = np.array(state['mode'], np.int64)
        self.centres = {task: np.array(centre) for task, centre in state['centres'].items()}
