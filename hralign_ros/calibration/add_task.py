# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Teach a bundle one more task from a few clips: prompts and calibration, nothing else.

The encoder and the head stay as they are, and so do all other tasks. Clips go through the same
runtime that runs in the node; what is learned are the task's failure prompts, starting from the
fallback task's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
import re
import time
from typing import Any

from hralign_ros.calibration.few_clips import calibrate_few, TaskClip
from hralign_ros.data.folders import SUFFIXES
from hralign_ros.data.manifest import DataError
from hralign_ros.export.writer import graphs_of, require_replaceable, write_bundle
from hralign_ros.models.failure_prompts import text_features
from hralign_ros.models.text import load_minilm
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.images import ViewGeometry
from hralign_ros.runtime.report import Report
from hralign_ros.runtime.tasks import check_task, FALLBACK, normalise_task, Task
from hralign_ros.runtime.video import frame_times, nearest, newest_at, read_frames
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.devices import choose_device
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
RATE_HZ = 5.0
_NANOSECONDS = 1_000_000_000
_FOLDS = 3


@dataclass(frozen=True)
class AddTaskOptions:
    """
    How to learn a task.

    :param success_tail_s: the last seconds of a success clip in which the task is accomplished.
    :param unknown_s: the seconds before those, without a label.
    :param regulariser: weight of the regulariser towards the fallback prompts.
    """

    success_tail_s: float = 0.8
    unknown_s: float = 1.2
    steps: int = 120
    learning_rate: float = 0.02
    regulariser: float = 0.01
    seed: int = 0


def read_clips(
    folder: Path, encoder: Encoder, *, success: bool, options: AddTaskOptions,
    report: Report = print,
) -> list[TaskClip]:
    """
    Run a folder of clips through the encoder.

    :param folder: one folder per attempt with a video per view (wrist.mp4, third_person.mp4), or
        videos of the reference view.
    :raises DataError: there is no clip, or one cannot be read.
    """
    found = sorted(p for p in Path(folder).glob('[!.]*')
                   if p.is_dir() or p.suffix.lower() in SUFFIXES) \
        if Path(folder).is_dir() else []
    clips = []
    for path in found:
        files = {encoder.manifest.reference_view: path} if path.is_file() else {
            p.stem: p for p in sorted(path.iterdir())
            if p.stem in encoder.manifest.views and p.suffix.lower() in SUFFIXES}
        if files:
            clips.append(run_clip(encoder, path.name, files, success, options))
        else:
            report(f'{path}: left out, no video in it is named after a view '
                   f'({", ".join(encoder.manifest.views)})')
    if not clips:
        raise DataError(
            f'{folder}: no clip there; needed is a folder per attempt with '
            f'{" or ".join(f"{view}.mp4" for view in encoder.manifest.views)} in it')
    return clips


def run_clip(
    encoder: Encoder, name: str, files: Mapping[str, Path], success: bool,
    options: AddTaskOptions, *, until_s: float = math.inf,
) -> TaskClip:
    """
    Replay a clip through an episode, at RATE_HZ or slower.

    :param files: video by view.
    :param success: it ends with the task accomplished.
    :param until_s: where it ends, if before the end of the videos.
    :raises DataError: a video cannot be read, or they do not go together.
    """
    reference = max(files, key=lambda view: view == encoder.manifest.reference_view)
    times = frame_times(files[reference])
    wanted = np.arange(0.0, min(float(times[-1]), until_s) + 1e-6, 1.0 / RATE_HZ)
    wanted = np.unique(times[nearest(times, wanted)])
    frames = {}
    for view, file in files.items():
        own = frame_times(file)
        frames[view] = read_frames(file, times_s=own[newest_at(own, wanted, file.name)])[0]
    episode = encoder.start_episode('a task')
    every = frozenset(frames)
    # A camera may be gone one day: what the head sees without it is calibrated apart.
    some = [frozenset([view]) for view in sorted(frames)] if len(frames) > 1 else []
    rows: dict[frozenset[str], list[Floats]] = {views: [] for views in (every, *some)}
    for i, now in enumerate(wanted):
        tick = episode.step({view: recording[i] for view, recording in frames.items()},
                            stamp=_NANOSECONDS + round(float(now) * _NANOSECONDS))
        for views, seen in rows.items():
            video = (tick.success if views == every else episode.score(views)).video
            assert video is not None, 'the episode has a task'
            seen.append(video)
    left = wanted[-1] - wanted
    done = np.zeros(len(wanted), np.float32)
    if success:
        done[left <= options.success_tail_s + options.unknown_s] = np.nan
        done[left <= options.success_tail_s] = 1.0
    stacked = {views: np.stack(seen) for views, seen in rows.items()}
    return TaskClip(name, stacked[every], wanted, done, stacked)


def learn_prompts(
    clips: Sequence[TaskClip], name: str, start: Floats, scale: tuple[float, float],
    options: AddTaskOptions, text: Any, device: torch.device | str = 'cpu',
) -> Floats:
    """
    Fit failure prompts to clips.

    :param start: float32 [K, L, D], the fallback prompts.
    :param scale: scale and bias of the head.
    :param text: the frozen text encoder, on the device.
    :returns: float32 [K, L, D].
    """
    torch.manual_seed(options.seed)
    video = torch.from_numpy(np.concatenate([c.video for c in clips])).to(device)
    done = torch.from_numpy(np.concatenate([c.done for c in clips])).to(device)
    known = ~torch.isnan(done)
    video, done = video[known], done[known]
    positive = done.mean().clamp(0.02, 0.98)
    weight = torch.where(done > 0.5, 0.5 / positive, 0.5 / (1 - positive))
    first = torch.from_numpy(start).to(device)
    prompts = nn.Parameter(first.clone())
    optimiser = torch.optim.Adam([prompts], lr=options.learning_rate)
    for _ in range(options.steps):
        optimiser.zero_grad()
        scores = _scores(video, text_features(text, name, prompts), scale)
        loss = functional.binary_cross_entropy_with_logits(scores, done, weight)
        loss = loss + options.regulariser * ((prompts - first) ** 2).sum(-1).mean()
        loss.backward()
        optimiser.step()
    return np.asarray(prompts.detach().cpu().numpy(), np.float32)


def _scores(video: Tensor, features: Tensor, scale: tuple[float, float]) -> Tensor:
    similarity = video @ features.T * scale[0]
    return similarity[:, 0] - torch.logsumexp(similarity[:, 1:], dim=1) + scale[1]


def add_task(
    bundle: Path, output: Path, name: str, success: Path, failure: Path, *, task_id: str = '',
    aliases: Sequence[str] = (), options: AddTaskOptions | None = None,
    geometry: Mapping[str, ViewGeometry] | None = None, device: str = 'auto',
    report: Report = print,
) -> Path:
    """
    Write a bundle that knows one task more, or one task anew.

    :param name: the instruction.
    :param success: folder of clips that end with the task accomplished.
    :param failure: folder of clips in which it never is.
    :param task_id: None is given: made of the name.
    :param geometry: by view, how the clips are turned and cropped before encoding.
    :param device: auto, cpu or cuda.
    :returns: `output`.
    :raises HralignError: clips or names that do not do.
    """
    chosen = choose_device(device)
    options = options or AddTaskOptions()
    name = check_task(name)
    given, task_id = task_id, task_id or re.sub(r'\W+', '-', name.casefold()).strip('-_')
    if not name or not task_id or task_id == FALLBACK:
        raise DataError(f"task '{name}' with id '{task_id}': a name and an id of its own are "
                        'needed')
    encoder = Encoder.load(bundle, provider=chosen.provider, geometry=geometry)
    if not encoder.manifest.success.trained:
        raise TrainingError(f'{bundle}: its success head is not trained; a task can only be '
                            'added to one that is (`hralign success train`)')
    require_replaceable(Path(output))
    aliases = [check_task(alias) for alias in aliases]
    if not all(aliases):
        raise DataError('an alias is empty; leave it out')
    for text in (name, task_id, *aliases):
        known = encoder.tasks.match(text)
        if known is not None and known.task_id != task_id:
            raise DataError(
                f"'{text}' is what the bundle's task {known.task_id} is called by; "
                f'--task-id {known.task_id} learns that one anew')
    same = next((task for task in encoder.tasks.tasks if task.task_id == task_id), None)
    if same is not None and not given and encoder.tasks.match(name) is not same:
        raise DataError(
            f"'{name}' would get the id {task_id}, which is that of the bundle's task "
            f"'{same.name}'; --task-id gives it another one, or with --task-id {task_id} "
            "takes that task's place")
    began = time.monotonic()
    clips = [*read_clips(success, encoder, success=True, options=options, report=report),
             *read_clips(failure, encoder, success=False, options=options, report=report)]
    cached = time.monotonic()
    report(f'{len(clips)} clips encoded in {cached - began:.0f} s')
    task = fit_task(encoder, clips, name, task_id, _aliases(same, name, aliases, report), options,
                    chosen.torch, report)
    report(f'fitted in {time.monotonic() - cached:.0f} s')
    every = encoder.manifest.views
    if task.calibration(every) is None:
        report(f'UNCALIBRATED while {" and ".join(sorted(every))} are there, as two successes and '
               'two failures with all of them are needed')
    # All other tasks stay to the letter.
    others = tuple(one for one in encoder.tasks.tasks if one.task_id != task_id)
    write_bundle(output, encoder.manifest, graphs_of(encoder.bundle),
                 replace(encoder.tasks, tasks=(*others, task)))
    return output


def _aliases(
    before: Task | None, name: str, aliases: Sequence[str], report: Report,
) -> tuple[str, ...]:
    """
    Keep the aliases of a task that is learned anew.

    Under another name it may be another task: what it was called by then means nothing any more.
    """
    old = () if before is None else (before.name, *before.aliases)
    same = before is not None and normalise_task(before.name) == normalise_task(name)
    kept = {normalise_task(text): text for text in (*(old if same else ()), *aliases)}
    kept.pop(normalise_task(name), None)
    lost = [text for text in old
            if normalise_task(text) not in kept and normalise_task(text) != normalise_task(name)]
    if lost:
        report('UNKNOWN_TASK from now on, unless given as --alias: '
               + ', '.join(f"'{text}'" for text in lost))
    return tuple(kept.values())


def fit_task(
    encoder: Encoder, clips: Sequence[TaskClip], name: str, task_id: str,
    aliases: Sequence[str], options: AddTaskOptions,
    device: torch.device | str = 'cpu', report: Report = print,
) -> Task:
    """
    Fit a task's prompts and calibration to clips.

    Calibration is fitted to scores of clips by prompts that were not fitted to them, in turn.
    The prompts that are kept are fitted to all, so thresholds are an estimate for those, no bound.
    """
    text, scale = load_minilm().to(device), encoder.success_scale
    fallback = encoder.tasks.fallback
    good = [c for c in clips if c.succeeds]
    bad = [c for c in clips if not c.succeeds]
    if len(good) < 2 or len(bad) < 2:
        raise DataError(f'{len(good)} successes and {len(bad)} failures; at least two of each '
                        'are needed, 20 of each are good')
    order = [*good, *bad]
    fold = np.r_[np.arange(len(good)), np.arange(len(bad))] % min(_FOLDS, len(good), len(bad))
    # Of each clip, by the views that take part: scores of prompts that were not fitted to it.
    scores: list[dict[frozenset[str], Doubles]] = [{} for _ in order]
    for k in range(int(fold.max()) + 1):
        prompts = learn_prompts(
            [c for c, f in zip(order, fold, strict=True) if f != k], name, fallback.prompts, scale,
            options, text, device)
        features = torch.from_numpy(encoder.text.encode_with(name, prompts))
        for i in np.flatnonzero(fold == k):
            seen = order[i].by_views or {frozenset(encoder.manifest.views): order[i].video}
            scores[i] = {views: _scores(torch.from_numpy(video), features, scale).numpy().astype(
                np.float64) for views, video in seen.items()}
    calibrations = []
    for views in sorted({v for one in scores for v in one}, key=lambda v: (-len(v), sorted(v))):
        clips_of = [(c, s[views]) for c, s in zip(order, scores, strict=True) if views in s]
        done = [c.succeeds for c, _ in clips_of]
        # Without enough clips by these views there is no telling: UNCALIBRATED.
        if min(sum(done), len(done) - sum(done)) >= 2:
            calibrations.append(calibrate_few(views, clips_of, fallback, report))
    prompts = learn_prompts(order, name, fallback.prompts, scale, options, text, device)
    return Task(
        task_id, name, tuple(aliases), tuple(f'mode {k + 1}' for k in range(len(prompts))),
        tuple(calibrations), prompts)
