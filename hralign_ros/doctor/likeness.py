# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Whether what the cameras show is like what the bundle was made with; no ROS.

The newest images go through the runtime as the node would send them. Where they are
OUT_OF_DISTRIBUTION every decision is ABSTAIN, and nothing else is wrong with the cameras.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from hralign_ros.doctor.findings import Finding, ok, skipped, warn
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.episode import Episode, Success
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.images import Image, ViewGeometry
from hralign_ros.runtime.resources import default_bundle
from hralign_ros.runtime.tasks import Task
import numpy as np

NAME = 'OOD score'
_TICK = 200_000_000
# Of one image; more say the same.
_TICKS = 3
# Where no task is set, so many of those that were taught are tried.
_MOST_TASKS = 20
# Of the changes that would do, so many are named.
_MOST_CHANGES = 2
# Parameters of the node that decide what is computed, but for those of its embedding.
_PARAMETERS = ('provider', 'threads', 'precision', 'require_signature')


@dataclass(frozen=True)
class Likeness:
    """
    How far images are from those that a task's limit was set with.

    :param task: whose limit it is.
    """

    task: Task
    score: float
    limit: float

    @property
    def fits(self) -> bool:
        """Whether the node would decide on these images."""
        return self.score <= self.limit

    @property
    def excess(self) -> float:
        """Tell how far above the limit the score is; below 0: within it."""
        return self.score - self.limit

    def __str__(self) -> str:
        return f'score {self.score:.3g}, limit {self.limit:.3g}'


def likeness_finding(
    images: Mapping[str, Image], values: Mapping[str, Any],
    geometry: Mapping[str, ViewGeometry], required: Sequence[str],
) -> Finding:
    """
    Score the newest images as the node would, and compare with the limit.

    :param images: uint8 [H, W, 3] RGB by view, as they came; others have none.
    :param values: the node's parameters.
    :param required: views that the node waits for.
    """
    missing = [view for view in required if view not in images]
    if missing or not images:
        return skipped(NAME, f'no usable image of {", ".join(missing) or "any view"}')
    try:
        encoder = Encoder.load(
            values['bundle'] or default_bundle(), geometry=geometry,
            trusted_keys=[path for path in values['trusted_keys'] if path],
            # Nothing of it is used, so that no graph is loaded for it.
            parts=('mean',), **{name: values[name] for name in _PARAMETERS})
        if tuple(geometry) != encoder.manifest.views:
            return skipped(NAME, 'the parameter views is not what the bundle has')
        return _compare(encoder, images, values['task'])
    except HralignError as problem:
        return skipped(NAME, f'the bundle cannot be run on these images: {problem}')


def _compare(encoder: Encoder, images: Mapping[str, Image], task: str) -> Finding:
    """Score images, and say what to do where they are unlike."""
    episode = _played(encoder, images, task or 'any task')
    if task:
        tried = [likeness for likeness in [_of(episode, encoder, task)] if likeness]
    else:
        names = [one.name for one in encoder.tasks.tasks if one.robot][:_MOST_TASKS]
        if not names:
            # A head that tasks share has one limit for all of them, and so has the bundle's own;
            # whose limit words have that name no task depends on what they are like.
            by_head = {one.head: one.name for one in reversed(encoder.tasks.tasks)}
            names = [by_head.pop('', 'any task'), *by_head.values()]
        tried = [likeness for name in names if (likeness := _of(episode, encoder, name))]
    if not tried:
        return skipped(NAME, 'the bundle has no limit: no image is out of distribution')
    best = min(tried, key=lambda likeness: likeness.excess)
    numbers = {'score': best.score, 'limit': best.limit, 'task_id': best.task.task_id,
               'taught': bool(best.task.robot)}
    whose = f" of '{best.task.name}'" if best.task.robot and not task else ''
    unset = '' if task else '; no task is set'
    if best.fits:
        return ok(NAME, f'the images are like those that the bundle was made with ({best}'
                  f'{whose}){unset}', **numbers)
    remedy = best.task.when_unlike
    if best.task.robot:
        alone = {view: likeness for view in images if (likeness := _of(
            episode, encoder, best.task.name, [view]))} if len(images) > 1 else {}
        numbers['alone'] = {view: likeness.score for view, likeness in alone.items()}
        within = _what_helps(encoder, images, best.task)
        numbers['would_do'] = within
        if within:
            remedy = f'They would be like them {" or ".join(within)}. Else: {remedy}'
        elif worst := max(alone, key=lambda view: alone[view].excess, default=None):
            remedy = f'Look at {worst} first. {remedy}'
    return warn(
        NAME, f'the images are unlike those that the bundle was made with ({best}{whose}): every '
        f'decision will be ABSTAIN{unset}', remedy, **numbers)


def _played(encoder: Encoder, images: Mapping[str, Image], task: str) -> Episode:
    """Show images for a few ticks of an episode."""
    episode = encoder.start_episode(task)
    for tick in range(_TICKS):
        episode.step(images, stamp=(1 + tick) * _TICK)
    return episode


def _of(
    episode: Episode, encoder: Encoder, task: str, views: Sequence[str] = (),
) -> Likeness | None:
    """
    Score what an episode has seen for a task; None: there is no limit.

    :param views: those that count; none: all.
    """
    episode.task = encoder.text.encode(task)
    success: Success = episode.score(views or encoder.manifest.views)
    if success.ood_score is None or success.ood_threshold is None:
        return None
    return Likeness(episode.task.task, success.ood_score, success.ood_threshold)


def _what_helps(encoder: Encoder, images: Mapping[str, Image], task: Task) -> list[str]:
    """Try what is often wrong: say which changes would do, best first."""
    changes = {
        f'with the topics of {one} and {other} swapped': {
            **images, one: images[other], other: images[one]}
        for one, other in combinations(images, 2)}
    for view, image in images.items():
        for degrees in (90, 180, 270):
            # Clockwise, as the parameter has it.
            changes[f'with {view}.rotation {degrees} degrees further'] = {
                **images, view: np.rot90(image, -degrees // 90).copy()}
    found = {change: likeness.excess for change, changed in changes.items() if (likeness := _of(
        _played(encoder, changed, task.name), encoder, task.name)) and likeness.fits}
    return sorted(found, key=found.__getitem__)[:_MOST_CHANGES]
