# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a head makes of whole episodes, tick by tick, on the clips the live node would give it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hralign_ros.models.success import SuccessHead
from hralign_ros.runtime.bundle import ClipSpec
from hralign_ros.training.success_clips import Recording, replay
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float32]
# Ticks whose fine tokens are looked at together.
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Trace:
    """
    An episode as the head saw it; one row for each frame.

    :param video: float32 [F, D], to be compared with any text.
    :param progress: float32 [F], 0 to 1.
    :param failed: float32 [F], 0 to 1, whatever was asked for; see `judge`.
    :param ood_score: float32 [F].
    :param live: bool [F, V], views that took part.
    :param ends: int64 [F, 2], rows of the last view's first frame in the episode and of its
        newest, -1 while it takes no part; None: nothing looks at them.
    """

    recording: Recording
    video: Floats
    progress: Floats
    failed: Floats
    ood_score: Floats
    live: NDArray[np.bool_]
    ends: NDArray[np.int64] | None = None

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Give the ticks' stamps in nanoseconds."""
        return np.round(self.recording.features.time_s * 1e9).astype(np.int64) + 1_000_000_000

    @property
    def end(self) -> 'Trace':
        """
        Give the last tick alone: a grounded head looks at every tick for every instruction.

        Its recording stays whole, and with it stamps and labels: only scores and risks fit it.
        """
        return Trace(self.recording, self.video[-1:], self.progress[-1:], self.failed[-1:],
                     self.ood_score[-1:], self.live[-1:],
                     None if self.ends is None else self.ends[-1:])


@torch.no_grad()
def trace(
    head: SuccessHead, recording: Recording, clip: ClipSpec, *,
    views: NDArray[np.bool_] | None = None,
    delays: Sequence[float] = (),
) -> Trace:
    """
    Run a head over an episode.

    :param views: bool [V], the views that take part; None: all that were recorded.
    :param delays: seconds by which each view comes late; () for none.
    """
    device = head.log_scale.device
    choices = replay(recording, clip, views=views, delays=delays)
    chosen = np.stack([choice[0] for choice in choices])
    mask = torch.from_numpy((chosen >= 0).astype(np.float32)).to(device)
    age = torch.from_numpy(np.stack([choice[1] for choice in choices])).to(device)
    tokens = torch.from_numpy(recording.features.tokens.astype(np.float32)).to(device)
    means = torch.from_numpy(recording.features.means.astype(np.float32)).to(device)
    at = torch.from_numpy(np.maximum(chosen, 0)).to(device)
    view = torch.arange(at.shape[1], device=device)[:, None]
    age = age * mask
    # Each frame is seen beside the oldest of its clip and view. That is the episode's first frame,
    # which its memory never loses, unless clips are of one frame or a view came late: then every
    # clip is encoded whole, which takes longer.
    oldest = np.take_along_axis(chosen, (chosen >= 0).argmax(2)[..., None], 2)
    if (oldest <= 0).all():
        frames = head.pool_since(tokens.transpose(0, 1), tokens[:1].transpose(0, 1))[view, at]
    else:
        frames = head.pool_frames(tokens[at, view] * mask[..., None, None], mask)
    encoded = head.outputs(head.join(frames, mask, age))
    out_of_distribution = head.ood_score(means[at, view], mask)
    return Trace(recording, encoded.video.cpu().numpy(),
                 torch.sigmoid(encoded.progress).cpu().numpy(),
                 torch.sigmoid(encoded.failed).cpu().numpy(), out_of_distribution.cpu().numpy(),
                 np.asarray((chosen >= 0).any(2), bool), _ends(chosen[:, -1]))


def _ends(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tell the rows of the first frame and of the newest, [F, T] to [F, 2]; -1: there is none."""
    # A view that is recorded is so from the first row on; one that comes late begins with it, too.
    newest = rows.max(1)
    return np.stack([np.minimum(newest, 0), newest], 1)


@torch.no_grad()
def judge(
    head: SuccessHead, trace_: Trace, text: Floats, mode_mask: Floats,
) -> tuple[Floats, Floats]:
    """
    Judge every tick of an episode for an instruction, as `SuccessHead.forward` does.

    :param text: float32 [1 + K, D], as the bundle's text encoder gives it.
    :param mode_mask: float32 [K].
    :returns: raw scores float32 [F]; probability of having failed float32 [F].
    """
    similarity = torch.from_numpy(trace_.video @ text.T).to(head.scale.device) * head.scale
    mask = torch.from_numpy(mode_mask).to(similarity.device)
    scores = np.asarray(head.scores(similarity, mask).cpu().numpy(), np.float32)
    fine, ends = trace_.recording.features.fine, trace_.ends
    if head.grounding is None or ends is None:
        return scores, trace_.failed
    # Without them the score would be another one than the node's.
    failed = trace_.failed.copy()
    assert fine is not None, 'features of a bundle with fine tokens'
    there = np.flatnonzero(ends[:, 1] >= 0)
    wanted = torch.from_numpy(text[:1]).to(similarity.device)
    for rows in np.array_split(there, max(1, -(-len(there) // _BLOCK))):
        if len(rows):
            clips = torch.from_numpy(fine[ends[rows]].astype(np.float32))
            found = head.grounding(
                clips.to(similarity.device), wanted.expand(len(rows), 1, -1))
            scores[rows] += found.scores[:, 0].cpu().numpy()
            failed[rows] = torch.sigmoid(found.failed[:, 0]).cpu().numpy()
    return scores, failed


@torch.no_grad()
def mode_probabilities(
    head: SuccessHead, trace_: Trace, text: Floats, mode_mask: Floats,
) -> Floats:
    """Return the probability of each mode, given failure, at every tick: float32 [F, K]."""
    similarity = torch.from_numpy(trace_.video @ text[1:].T) * head.scale.cpu()
    masked = similarity + (torch.from_numpy(mode_mask) - 1.0) * 1e9
    return np.asarray(torch.softmax(masked, dim=1).numpy() * mode_mask, np.float32)
