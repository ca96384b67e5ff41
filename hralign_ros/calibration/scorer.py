# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""A trained head at work on whole episodes: raw scores, tick by tick, for any instruction."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from hralign_ros.calibration.traces import judge, mode_probabilities, Trace, trace
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.tasks import FALLBACK
from hralign_ros.training.success_clips import Recording
from hralign_ros.training.success_run import SuccessRun
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scored:
    """
    An episode's ticks under one instruction.

    :param task_id: of the instruction.
    :param scores: raw, float64 [F].
    :param done: bool [F], whether that instruction is accomplished.
    :param risks: float64 [F, K], the probability of having failed in each mode; [F, 1] of a head
        without failure prompts.
    """

    trace: Trace
    task_id: str
    scores: Doubles
    done: NDArray[np.bool_]
    risks: Doubles

    @property
    def recording(self) -> Recording:
        """Return the recording that was scored."""
        return self.trace.recording

    @property
    def episode_id(self) -> str:
        """Name the episode."""
        return self.trace.recording.episode.episode_id

    @property
    def stamps(self) -> NDArray[np.int64]:
        """Give the ticks' stamps in nanoseconds."""
        return self.trace.stamps


class Scorer:
    """
    A run's head with the text encoder of the bundle that it was trained for.

    Tasks that the run knows have their own prompts, all others those of the fallback task.

    :param device: where a copy of the head computes.
    """

    def __init__(self, run: SuccessRun, encoder: Encoder,
                 device: torch.device | str = 'cpu') -> None:
        self.run = run
        self._head = deepcopy(run.head).to(device)
        self.views = encoder.manifest.views
        self.clip = replace(encoder.manifest.clip, length=run.options.length)
        self.mode_mask = np.full(run.options.modes, float(run.options.use_prompts), np.float32)
        self._text = encoder.text
        self._features: dict[tuple[str, str], Floats] = {}
        self._seen: dict[tuple[str, bool], Trace] = {}

    def features(self, task_id: str, name: str) -> Floats:
        """Encode an instruction, plain and with its prompts: float32 [1 + K, D]."""
        known = task_id if task_id in self.run.prompts else FALLBACK
        if (known, name) not in self._features:
            self._features[known, name] = self._text.encode_with(name, self.run.prompts[known])
        return self._features[known, name]

    def run_trace(
        self, recording: Recording, *, views: NDArray[np.bool_] | None = None,
        delays: Sequence[float] = (),
    ) -> Trace:
        """Run the head over an episode; see `trace`."""
        return trace(self._head, recording, self.clip, views=views, delays=delays)

    def trace_of(self, recording: Recording) -> Trace:
        """Run the head over a recording as it is, once."""
        key = recording.episode.episode_id, recording.human
        if key not in self._seen:
            self._seen[key] = self.run_trace(recording)
        return self._seen[key]

    def score(self, seen: Trace, *, instruction: tuple[str, str] | None = None) -> Scored:
        """
        Score what was seen for the episode's own instruction, or for another task's.

        :param instruction: id and text of another task, which this episode never accomplishes.
        """
        episode = seen.recording.episode
        task_id, name = instruction or (episode.task_id, self._name(seen.recording))
        text = self.features(task_id, name)
        scores, failed = judge(self._head, seen, text, self.mode_mask)
        modes = mode_probabilities(self._head, seen, text, self.mode_mask) \
            if self.run.options.use_prompts else np.ones((len(scores), 1), np.float32)
        return Scored(seen, task_id, scores.astype(np.float64),
                      seen.recording.done & (instruction is None),
                      modes.astype(np.float64) * failed[:, None])

    def modes(self, seen: Trace) -> Floats:
        """Return the probability of each mode, given failure, at every tick: [F, K]."""
        episode = seen.recording.episode
        return mode_probabilities(
            self._head, seen, self.features(episode.task_id, self._name(seen.recording)),
            self.mode_mask)

    def _name(self, recording: Recording) -> str:
        """Give the text that the node encodes: the task's name, whatever the alias."""
        episode = recording.episode
        return self.run.texts.get(episode.task_id, episode.task_text)


def ticks(scored: Sequence[Scored], seed: int) -> tuple[Doubles, NDArray[np.bool_],
                                                        NDArray[np.str_]]:
    """Take one random tick and the last tick of each episode: scores, labels, episode names."""
    rng = np.random.default_rng(seed)
    rows = [(s, i) for s in scored for i in (int(rng.integers(len(s.done))), len(s.done) - 1)]
    return (np.array([s.scores[i] for s, i in rows]), np.array([s.done[i] for s, i in rows]),
            np.array([s.episode_id for s, _ in rows]))


def random_ticks(scored: Sequence[Scored], seed: int, each: int) -> tuple[
        Doubles, NDArray[np.bool_], NDArray[np.str_]]:
    """Take some random ticks of each episode, as a node publishes them: as `ticks`."""
    rng = np.random.default_rng(seed)
    rows = [(s, int(i)) for s in scored for i in rng.integers(len(s.done), size=each)]
    return (np.array([s.scores[i] for s, i in rows]), np.array([s.done[i] for s, i in rows]),
            np.array([s.episode_id for s, _ in rows]))


def all_ticks(scored: Sequence[Scored]) -> tuple[
        Doubles, NDArray[np.bool_], NDArray[np.str_], Doubles]:
    """Take all ticks: scores, labels, episode names, weights; an episode's weigh 1 together."""
    return (np.concatenate([s.scores for s in scored]), np.concatenate([s.done for s in scored]),
            np.repeat([s.episode_id for s in scored], [len(s.done) for s in scored]),
            np.concatenate([np.full(len(s.done), 1.0 / len(s.done)) for s in scored]))
