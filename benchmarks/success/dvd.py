# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A baseline after DVD (Chen et al., RSS 2021): whether two videos show the same task.

A discriminator looks at two clips and is trained on the same features and episodes as our head:
right are pairs of one task of which both are accomplished. A recording is scored against a few
human recordings of its task, which is how DVD is told what to do; it reads no text.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hralign_ros.calibration.scorer import Scored
from hralign_ros.calibration.traces import trace
from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.training.distributed import Ranks
from hralign_ros.training.success_batches import ClipBatches
from hralign_ros.training.success_clips import Recording, sample_clip, stack_clips
from hralign_ros.training.success_options import SuccessOptions
import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional

REFERENCES = 5


class Discriminator(nn.Module):
    """Two joined clips, [..., F] each, to a logit: the same task, and both accomplished."""

    def __init__(self, head: SuccessHead) -> None:
        super().__init__()
        self.head = head
        width = head.norm.normalized_shape[0]
        self.compare = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Compare clips that `SuccessHead.encode` has joined."""
        pair = torch.cat([one, other, one * other, (one - other).abs()], dim=-1)
        return torch.as_tensor(self.compare(pair)[..., 0])


def train_dvd(
    head: SuccessHead, recordings: Sequence[Recording], tasks: Sequence[str],
    options: SuccessOptions,
    path: Path, report: Callable[[str], None] = print,
) -> Discriminator:
    """Train, or read what was trained before."""
    torch.manual_seed(options.seed)
    model = Discriminator(head)
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    source = ClipBatches(recordings, tasks, options)
    optimiser = torch.optim.AdamW(model.parameters(), options.learning_rate,
                                  weight_decay=options.weight_decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps)
    for step in range(options.steps):
        batch = source.load(step, Ranks())
        tokens = batch.tokens + options.noise * torch.randn_like(batch.tokens)
        clip = head.encode(tokens, batch.mask, batch.age).clip
        # Every clip against a few accomplished ones, of its task and of others.
        good = torch.nonzero(batch.done)[:, 0]
        same = (batch.task[:, None] == batch.task[good][None]) & batch.done[:, None]
        logits = model(clip[:, None].expand(-1, len(good), -1), clip[good][None].expand(
            len(clip), -1, -1))
        apart = torch.arange(len(clip))[:, None] != good[None]
        share = same[apart].float().mean().clamp(0.01, 0.99)
        loss = functional.binary_cross_entropy_with_logits(
            logits[apart], same[apart].float(), pos_weight=(1 - share) / share)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        optimiser.step()
        rates.step()
        if (step + 1) % 100 == 0:
            report(f'DVD step {step + 1}/{options.steps}  loss {float(loss.detach()):.3f}')
    torch.save(model.state_dict(), path)
    return model.eval()


@torch.no_grad()
def references(
    model: Discriminator, recordings: Sequence[Recording], options: SuccessOptions,
) -> dict[str, Tensor]:
    """Join the last clips of a few human recordings of each task: [n, F] by task id."""
    rng = np.random.default_rng(0)
    chosen: dict[str, list[Recording]] = {}
    for recording in recordings:
        if recording.human and recording.done.any():
            chosen.setdefault(recording.episode.task_id, []).append(recording)
    found = {}
    for task, some in chosen.items():
        some = some[:REFERENCES]
        clips = stack_clips(
            some, [sample_clip(f, f.frames - 1, options.length, rng) for f in some])
        found[task] = model.head.encode(*clips).clip
    return found


class DvdJudge:
    """Scores recordings by their likeness to human recordings of their task."""

    def __init__(
        self, model: Discriminator, known: Mapping[str, Tensor], clip: ClipSpec,
    ) -> None:
        self.model, self.known, self.clip = model, known, clip

    @torch.no_grad()
    def __call__(self, recording: Recording) -> Scored:
        """Score every tick."""
        joined: list[Tensor] = []
        hook = self.model.head.norm.register_forward_hook(
            lambda module, given, result: joined.append(result))
        try:
            seen = trace(self.model.head, recording, self.clip)
        finally:
            hook.remove()
        clip, like = joined[0], self.known[recording.episode.task_id]
        logits = self.model(clip[:, None].expand(-1, len(like), -1),
                            like[None].expand(len(clip), -1, -1))
        return Scored(seen, recording.episode.task_id, logits.mean(1).numpy().astype(np.float64),
                      recording.done, np.zeros((recording.frames, 0)))
