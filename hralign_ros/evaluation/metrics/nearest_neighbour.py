# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The open-loop error of a policy that copies its nearest neighbours."""

from collections.abc import Sequence

from hralign_ros.evaluation.bootstrap import EvaluationError, Floats, Labels
from hralign_ros.evaluation.metrics.rows import features_of, labels_of, spread_of, unit_rows
import numpy as np
from numpy.typing import ArrayLike, NDArray


def nearest_neighbour_policy(
    features: ArrayLike, actions: ArrayLike, *, episodes: Labels, tasks: Labels,
    demos: int | None = None, seeds: Sequence[int] = (0, 1, 2, 3, 4), k: int = 5,
) -> tuple[NDArray[np.str_], Floats]:
    """
    Predict actions of held-out episodes from the nearest frames of demos of the same task.

    The action is the mean of the k neighbours' actions with weights softmax(-d^2 / h), d the
    distance of unit features and h the mean d^2 of these k. For each seed and task `demos`
    episodes are the demos and the others are tested; the choice depends on names and seed alone,
    so two embeddings get the same ones. Nothing acts: errors do not add up over time here as they
    do on a robot.

    :param features: one row per frame, [n, C].
    :param actions: [n, A].
    :param episodes: [n].
    :param tasks: [n].
    :param demos: episodes per task; None: half of them.
    :param seeds: of the choice of demos.
    :returns: names of the episodes that were held out in at least one seed, in order, [E]; and the
        error of each: mean absolute error of the action, each dimension divided by its standard
        deviation in the demos, mean over dimensions and over the seeds that held it out, [E].
    :raises EvaluationError: a task without an episode to test, an episode of two tasks, or fewer
        than k frames of demos.
    """
    x = unit_rows('features', features)
    if k < 1 or not seeds:
        raise EvaluationError('at least one neighbour and one seed are needed')
    y = features_of('actions', actions, len(x))
    runs, names = labels_of('episodes', episodes, len(x)), labels_of('tasks', tasks, len(x))
    every, first, numbers = np.unique(runs, return_index=True, return_inverse=True)
    task_of = names[first]
    if (task_of[numbers] != names).any():
        raise EvaluationError('an episode has frames of two tasks')
    measured = np.full((len(seeds), len(every)), np.nan)
    for i, seed in enumerate(seeds):
        for task in np.unique(task_of):
            own = np.flatnonzero(task_of == task)
            chosen = _choose_demos(every[own], demos, seed, str(task))
            train = np.isin(runs, chosen)
            test = (names == task) & ~train
            if train.sum() < k:
                raise EvaluationError(f"task '{task}': {train.sum()} frames of demos, {k} needed")
            moving = y[train].std(0) > 1e-8 * (1.0 + np.abs(y[train]).max(0))
            if not moving.any():
                raise EvaluationError(f"task '{task}': the actions of the demos never change")
            off = np.abs(_neighbours(x[train], y[train], x[test], k) - y[test])
            per_frame = (off[:, moving] / spread_of(y[train][:, moving])).mean(1)
            frames = np.bincount(numbers[test], minlength=len(every))
            sums = np.bincount(numbers[test], per_frame, len(every))
            measured[i, frames > 0] = sums[frames > 0] / frames[frames > 0]
    tested = np.isfinite(measured).any(0)
    return every[tested], np.nanmean(measured[:, tested], 0)


def _choose_demos(
    episodes: NDArray[np.str_], demos: int | None, seed: int, task: str,
) -> NDArray[np.str_]:
    count = len(episodes) // 2 if demos is None else demos
    if not 0 < count < len(episodes):
        raise EvaluationError(
            f"task '{task}' has {len(episodes)} episodes: {count} demos leave none to test, or "
            'are none')
    # Seeded by the task's name too, so that leaving out another task changes nothing.
    generator = np.random.default_rng([seed, *task.encode()])
    return np.asarray(generator.permutation(np.sort(episodes))[:count])


def _neighbours(x: Floats, y: Floats, query: Floats, k: int) -> Floats:
    result = np.empty((len(query), y.shape[1]))
    lengths = (x ** 2).sum(1)
    # In parts, so that many frames do not need a matrix of all distances at once.
    for start in range(0, len(query), 1024):
        part = query[start:start + 1024]
        squared = np.clip((part ** 2).sum(1)[:, None] + lengths - 2.0 * part @ x.T, 0.0, None)
        nearest = np.argpartition(squared, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(squared, nearest, 1)
        weights = np.exp(-near / near.mean(1, keepdims=True).clip(1e-12))
        weights /= weights.sum(1, keepdims=True)
        result[start:start + 1024] = (weights[:, :, None] * y[nearest]).sum(1)
    return result
