# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""One attempt at one task: its memory, and what each set of frames gives."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
import time
from typing import Any, Protocol

from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.decision import (
    Decider,
    Decision,
    DecisionRules,
    DEFAULT_RULES,
    Status,
)
from hralign_ros.runtime.errors import InferenceError
from hralign_ros.runtime.images import Image
from hralign_ros.runtime.memory import (
    assemble,
    Clip,
    EpisodeMemory,
    FrameSet,
    latest,
    NewestClip,
    Recent,
)
from hralign_ros.runtime.parts import EmbeddingPart, part_named
from hralign_ros.runtime.tasks import Calibration
from hralign_ros.runtime.text import TaskFeatures
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Success:
    """
    What the success head says.

    :param probability: P(accomplished in the newest frame), [0, 1]; None without a task.
    :param progress: [0, 1]; None without a task or from an untrained head.
    :param raw_score: before calibration; None without a task.
    :param failure: P(the attempt has failed by now), [0, 1]; None without a task or from an
        untrained head.
    :param modes: probability of each failure mode in use, given failure; names beside it.
    :param ood_score: None where the bundle has no threshold for it.
    :param ood_threshold: a higher score is out of distribution.
    :param video: what all of this is read off: float32 [D] in the text encoder's space, norm 1;
        None without a task, and where its head does without.
    :param calibration: what made the probability, and the thresholds that go with it; None: it
        is not calibrated for this task with these views.
    """

    probability: float | None
    progress: float | None
    raw_score: float | None
    failure: float | None
    modes: tuple[float, ...]
    mode_names: tuple[str, ...]
    ood_score: float | None
    ood_threshold: float | None
    clip_stamps: tuple[int, ...]
    calibration: Calibration | None
    video: Floats | None

    @property
    def mode_risks(self) -> tuple[float, ...]:
        """Give the probability of having failed in each mode, which is what decides FAILURE."""
        return tuple(p * (self.failure or 0.0) for p in self.modes)


@dataclass(frozen=True)
class Tick:
    """
    The result for one set of frames.

    :param decision: what follows from the probability over the episode so far.
    :param threshold: the probability above which SUCCESS is decided, while the views of this tick
        take part; None: there is none for `alpha`, and the decision is ABSTAIN.
    :param alpha: the false-alarm rate of the threshold; None: there is no threshold.
    :param stamp: acquisition time of the newest frame [ns].
    :param view_stamps: per view, of its newest frame [ns], 0 where not valid; int64 [V].
    :param view_valid: bool [V]; a view without a fresh frame is left out.
    :param embedding: float32 [V, dim], one row of all parts per view, zeros where not valid.
    :param parts: the slices of a row, in order, without gaps.
    :param attention: of the newest frame's tokens, float32 [V, N]; of `task` where that is a part,
        else of `clip`; uniform for mean pooling, and where no part attends.
    :param pooling: one of POOLINGS: attention needs a task.
    :param images: per view present in this tick, as it went into preprocessing.
    """

    episode_id: int
    stamp: int
    view_stamps: NDArray[np.int64]
    view_valid: NDArray[np.bool_]
    embedding: Floats
    parts: tuple[EmbeddingPart, ...]
    attention: Floats
    pooling: str
    success: Success
    status: Status
    decision: Decision
    threshold: float | None
    alpha: float | None
    images: Mapping[str, Image]

    def part(self, name: str) -> Floats:
        """
        Take one part of the embedding.

        :returns: float32 [V, *shape of the part], a view and no copy; zeros where not valid.
        :raises ValueError: the encoder was not asked for this part.
        """
        return part_named(self.parts, name).of(self.embedding)


class Model(Protocol):
    """What an episode asks of its encoder; see runtime.encoder.Encoder."""

    @property
    def manifest(self) -> Manifest:
        """Tell what bundle.yaml says."""

    def encode_images(
        self, images: Mapping[str, Image],
    ) -> tuple[Floats, Floats | None, dict[str, Image]]:
        """Turn one image per view into tokens, fine tokens, and the images as they were used."""

    @property
    def parts(self) -> tuple[EmbeddingPart, ...]:
        """Tell the slices of a row of an embedding."""

    def embed(self, recent: Recent, task: TaskFeatures) -> tuple[Floats, Floats, str]:
        """Make an embedding; also attention to the newest frame, and the pooling used."""

    def score(self, clip: Clip, task: TaskFeatures) -> Success:
        """Run the success head on a clip and calibrate its score."""


class Episode:
    """
    One attempt at one task: the memory, the decisions, and nothing that outlives it.

    :param episode_id: start as system time [ns], unique across restarts.
    :param rules: when a probability becomes a decision.
    :ivar decider: its rules may be changed between steps.
    """

    def __init__(
        self, encoder: Model, task: TaskFeatures, episode_id: int,
        rules: DecisionRules = DEFAULT_RULES,
    ) -> None:
        clip = encoder.manifest.clip
        self.encoder = encoder
        self.task = task
        self.episode_id = episode_id
        self.decider = Decider(rules)
        self._memory = EpisodeMemory(
            length=clip.length, period=round(clip.period_s * _NANOSECONDS),
            capacity=clip.capacity, stride=round(clip.stride_s * _NANOSECONDS))
        self._newest = np.zeros(len(encoder.manifest.views), np.int64)
        # One for both heads: each clip is assembled when its graph runs.
        shape = len(encoder.manifest.views), clip.length, *encoder.manifest.tokens.shape
        self._tokens = np.zeros(shape, np.float32)
        self._alone = NewestClip(shape)

    def step(
        self,
        images: Mapping[str, Image],
        stamp: int | Mapping[str, int],
        *,
        max_age: float = 0.5,
    ) -> Tick:
        """
        Encode one set of frames and decide what follows from the episode so far.

        :param images: uint8 [H, W, 3] RGB by view; at least one.
        :param stamp: acquisition time [ns], one for all views or one each; newer than before.
        :param max_age: a view whose newest frame is older [s] than this set's is left out.
        :raises FrameError: an array that is no image.
        :raises ValueError: unknown view, no view, or a stamp that is not newer.
        :raises InferenceError: a graph failed or returned values that are not finite.
        """
        manifest = self.encoder.manifest
        unknown = set(images) - set(manifest.views)
        if unknown or not images:
            raise ValueError(
                f'views given: {", ".join(sorted(images)) or "none"}; the views of this bundle '
                f'are {", ".join(manifest.views)}')
        given = stamp if isinstance(stamp, Mapping) else dict.fromkeys(images, stamp)
        without = sorted(set(images) - set(given))
        if without or min(given[view] for view in images) <= 0:
            raise ValueError(
                f'stamp is {given!r}, for the views {", ".join(images)}; each needs its '
                'acquisition time in nanoseconds, greater than 0')
        stamps = np.array(
            [int(given[view]) if view in images else 0 for view in manifest.views], np.int64)
        present = np.array([view in images for view in manifest.views])
        tokens, fine, shown = self.encoder.encode_images(images)
        require_finite('visual.onnx', tokens, *(() if fine is None else (fine,)))
        oldest = round(max_age * _NANOSECONDS)
        self._memory.add(FrameSet(int(stamps.max()), stamps, present, tokens, fine), hold=oldest)
        self._newest = np.asarray(np.where(present, stamps, self._newest), np.int64)
        return self._result(int(stamps.max()), shown, oldest)

    def without_frames(self) -> tuple[Status, Decision]:
        """Give status and decision while no required view has a fresh frame."""
        return (self.task_status | Status.STALE_VIEW | Status.VIEW_MISSING,
                self.decider.interrupt())

    def score(self, views: Collection[str]) -> Success:
        """
        Run the success head on the episode so far with some views alone; nothing is decided.

        :param views: the others count as missing.
        :raises ValueError: nothing was stepped so far.
        """
        if self._memory.newest is None:
            raise ValueError('no frame was stepped so far; step first')
        live = np.array([view in views for view in self.encoder.manifest.views])
        return self.encoder.score(self._spread_clip(live), self.task)

    def _spread_clip(self, live: NDArray[np.bool_]) -> Clip:
        """Assemble the success head's clip of the episode so far."""
        manifest = self.encoder.manifest
        return assemble(
            self._memory.spread_clip(), length=manifest.clip.length, live=live, out=self._tokens,
            first_fine=self._memory.first_fine if manifest.fine else None)

    @property
    def tokens(self) -> Floats:
        """
        Give the tokens of the newest frames: float32 [V, N, C], zeros for a view without one.

        :raises ValueError: nothing was stepped so far.
        """
        frame = self._memory.newest
        if frame is None:
            raise ValueError('no frame was stepped so far; step first')
        return np.where(frame.valid[:, None, None], frame.tokens, np.float32(0.0))

    @property
    def newest(self) -> int:
        """Stamp of the newest frame that was stepped [ns]; 0: none so far."""
        return int(self._newest.max())

    def _result(self, stamp: int, images: Mapping[str, Image], max_age: int) -> Tick:
        """Run both heads on the memory as it is."""
        encoder = self.encoder
        manifest = encoder.manifest
        live = np.asarray((self._newest > 0) & (stamp - self._newest <= max_age), np.bool_)
        length = manifest.clip.length
        frames = self._memory.newest_clip()
        newest = latest(frames, live)
        valid = np.asarray(live & newest.valid, np.bool_)

        def clip_of(frames: Sequence[FrameSet]) -> Clip:
            return assemble(frames, length=length, live=live, out=self._tokens)

        embedding, attention, pooling = encoder.embed(Recent(
            newest.tokens, valid, lambda: self._alone.assemble(newest, live),
            lambda: clip_of(frames)), self.task)
        success = encoder.score(self._spread_clip(live), self.task)
        status = self._status(success, valid)
        calibration, asked = success.calibration, self.decider.rules.alpha
        threshold = calibration.threshold(asked) if calibration else None
        decision = self.decider(
            stamp, probability=success.probability, threshold=threshold,
            modes=success.mode_risks, status=status,
            failure_threshold=calibration.failure_threshold if calibration else None,
            dwell=round(calibration.dwell_s * _NANOSECONDS) if calibration else 0)
        return Tick(
            episode_id=self.episode_id, stamp=stamp,
            view_stamps=np.where(valid, self._newest, 0), view_valid=valid,
            embedding=embedding, parts=encoder.parts, attention=attention, pooling=pooling,
            success=success, status=status, decision=decision, threshold=threshold,
            alpha=calibration.rate(asked) if calibration else None, images=images)

    def _status(self, success: Success, valid: NDArray[np.bool_]) -> Status:
        status = self.task_status
        if self.task.text and success.calibration is None:
            status |= Status.UNCALIBRATED
        if not valid.all():
            status |= Status.VIEW_MISSING
        if success.ood_score is not None and success.ood_threshold is not None \
                and success.ood_score > success.ood_threshold:
            status |= Status.OUT_OF_DISTRIBUTION
        return status

    @property
    def task_status(self) -> Status:
        """Tell the bits that follow from the task alone, whatever the cameras see."""
        status = Status.OK
        if not self.task.text:
            status |= Status.NO_TASK
        elif not self.task.known:
            status |= Status.UNKNOWN_TASK
        trained = self.encoder.manifest.success.trained or self.task.task.head
        if not trained or not self.task.task.calibrations:
            status |= Status.UNCALIBRATED
        return status


_episode_lock = Lock()
_newest_episode_id = 0


def next_episode_id() -> int:
    """Make an episode id: system time [ns], always greater than the one before."""
    global _newest_episode_id
    with _episode_lock:
        _newest_episode_id = max(time.time_ns(), _newest_episode_id + 1)
        return _newest_episode_id


def require_finite(name: str, *arrays: NDArray[Any]) -> None:
    """
    Refuse results that are not numbers.

    :raises InferenceError: one of the arrays holds NaN or infinity.
    """
    if not all(np.isfinite(array).all() for array in arrays):
        raise InferenceError(
            f'{name} returned values that are not finite; nothing is published for this frame. '
            'If this stays, the bundle does not fit this hardware or precision')
