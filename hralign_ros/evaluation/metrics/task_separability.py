# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether features tell tasks apart in scenes that are new."""

from typing import Literal

from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    Floats,
    Ints,
    jackknife,
    Labels,
    paired_difference,
)
from hralign_ros.evaluation.metrics.classifiers import classify
from hralign_ros.evaluation.metrics.rows import (
    features_of,
    group_folds,
    labels_of,
    TIE,
    unit_rows,
)
import numpy as np
from numpy.typing import ArrayLike, NDArray

# Clips whose cosines with all others are in memory at a time.
_BLOCK = 256


def separability(
    features: ArrayLike, *, tasks: Labels, scenes: Labels, episodes: Labels,
    classifier: Literal['knn', 'linear'] = 'knn', k: int = 5, max_folds: int = 10, seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """
    Classify the task, leaving scenes out.

    kNN: votes of the k most similar clips by cosine; a tied vote goes to the larger similarity.
    Linear: logistic regression on standardised features, C 0.01; more than `max_folds` scenes are
    left out several at a time. Clips whose task no other scene has are not measured. Intervals
    draw episodes.

    :param features: [n, C].
    :param tasks: [n].
    :param scenes: [n].
    :param episodes: clips of one episode (views, paired clips) never vote for each other, [n].
    :returns: accuracy on clips of scenes that were left out, and its drop: how much higher it is
        on the same clips with their scene known, where episodes are left out in place of scenes.
    :raises EvaluationError: fewer than 2 tasks or scenes, or no clip that can be measured.
    """
    x = features_of('features', features)
    names, places = labels_of('tasks', tasks, len(x)), labels_of('scenes', scenes, len(x))
    runs = labels_of('episodes', episodes, len(x))
    count = len(np.unique(names))
    if count < 2 or len(np.unique(places)) < 2:
        raise EvaluationError(
            f'{count} task(s) in {len(np.unique(places))} scene(s): at least 2 of both are needed')
    index = np.flatnonzero([len(np.unique(places[names == name])) > 1
                            for name in np.unique(names)])
    index = np.flatnonzero(np.isin(names, np.unique(names)[index]))
    if not index.size:
        raise EvaluationError('no task is shown in two scenes: nothing can be left out')
    if classifier == 'knn':
        unit = unit_rows('features', x)
        across, inside = (_vote(unit, names, groups, k) for groups in (places, runs))
    elif classifier == 'linear':
        across = _probe_labels(x, names, places, max_folds, seed)
        inside = _probe_labels(x, names, runs, max_folds, seed)
    else:
        raise EvaluationError(f"classifier '{classifier}': allowed are knn and linear")
    right, known = (across == names)[index], (inside == names)[index]
    return (cluster_mean(right, runs[index], seed=seed),
            paired_difference(known, right, runs[index], seed=seed))


def task_distance_ratio(
    features: ArrayLike, *, tasks: Labels, episodes: Labels,
) -> Estimate:
    """
    Return the mean cosine distance within tasks over that between tasks; less is better.

    :param features: [n, C].
    :param tasks: [n].
    :param episodes: clips of one episode are not compared with each other, [n].
    :raises EvaluationError: a part of the jackknife has no pair within or between tasks.
    """
    unit = unit_rows('features', features)
    names, runs = labels_of('tasks', tasks, len(unit)), labels_of('episodes', episodes, len(unit))
    everywhere = np.zeros(len(unit), np.str_)

    def counted(rows: Ints, same: NDArray[np.str_]) -> Floats:
        """Sum cosines, and count pairs, of the same label and other episodes."""
        return _within(unit[rows], same[rows]) - _within(unit[rows], same[rows], runs[rows])

    def ratio(rows: Ints) -> float:
        inner = counted(rows, names)
        outer = counted(rows, everywhere) - inner
        if not inner[1] or not outer[1]:
            raise EvaluationError('the distance ratio needs clips within and between tasks')
        between = 1.0 - outer[0] / outer[1]
        return float((1.0 - inner[0] / inner[1]) / between) if between > TIE else 1.0

    return jackknife(ratio, runs)


def _within(x: Floats, *labels: NDArray[np.str_]) -> Floats:
    """Sum the cosines of all ordered pairs of rows that share their labels, and count them."""
    numbers = np.zeros(len(x), np.int64)
    for column in labels:
        codes = np.unique(column, return_inverse=True)[1]
        numbers = np.unique(numbers * len(x) + codes, return_inverse=True)[1]
    order = np.argsort(numbers, kind='stable')
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    sums = np.add.reduceat(x[order], starts)
    sizes = np.diff([*starts, len(x)]).astype(np.float64)
    return np.array([(sums * sums).sum(), (sizes * sizes).sum()])


def _vote(
    unit: Floats, names: NDArray[np.str_], groups: NDArray[np.str_], k: int,
) -> NDArray[np.str_]:
    """Let the k most similar clips of other groups vote for each clip."""
    labels, numbers = np.unique(names, return_inverse=True)
    group = np.unique(groups, return_inverse=True)[1]
    result = np.zeros(len(names), labels.dtype)
    for start in range(0, len(names), _BLOCK):
        for row, similarity in enumerate(unit[start:start + _BLOCK] @ unit.T, start):
            others = np.flatnonzero(group != group[row])
            nearest = others[np.argsort(-similarity[others], kind='stable')[:k]]
            # A vote outweighs any difference between sums of k similarities.
            votes = np.bincount(numbers[nearest], (k + 1) * 2 + similarity[nearest],
                                minlength=len(labels))
            result[row] = labels[votes.argmax()]
    return result


def _probe_labels(
    x: Floats, names: NDArray[np.str_], groups: NDArray[np.str_], max_folds: int, seed: int,
) -> NDArray[np.str_]:
    result = np.zeros(len(x), names.dtype)
    for train, test in group_folds(groups, min(max_folds, len(np.unique(groups))), seed):
        if len(np.unique(names[train])) < 2:
            raise EvaluationError('a fold trains on one task only: take more scenes or episodes')
        result[test] = classify('linear', x[train], names[train], x[test], seed)
    return result
