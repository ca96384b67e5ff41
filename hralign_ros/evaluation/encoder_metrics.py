# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the features of one split and one seed show: E1 to E6, as far as the data allow."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hralign_ros.data.manifest import DataSet
from hralign_ros.evaluation.bootstrap import EvaluationError, join_labels
from hralign_ros.evaluation.embeddings import encode_frames, PairArrays
from hralign_ros.evaluation.metrics import (
    action_probe,
    linear_cka,
    nearest_neighbour_policy,
    proprio_probe,
    proxy_a_distance,
    retrieval,
    retrieval_with_queries,
    separability,
    spread,
    task_distance_ratio,
)
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.clip_features import FeatureCache
import numpy as np

HUMAN_TO_ROBOT, ROBOT_TO_HUMAN = 'human to robot', 'robot to human'
POLICY = 'E6 nearest-neighbour action error'
# Of E2, where there are as many groups.
FOLDS = 5


class Taken(dict[str, Any]):
    """
    What can be measured, by name; small data sets cannot show everything.

    :ivar left_out: of all else, why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[str, str] = {}

    def take(self, name: str, measure: Callable[[], Any]) -> Any:
        """Measure; return None where these data do not do."""
        try:
            self[name] = measure()
        except EvaluationError as error:
            self.left_out[name] = str(error)
        return self.get(name)


def retrievals(arrays: PairArrays, gallery: int, *, full: bool) -> Taken:
    """
    Retrieve in both directions, with the query's own text for all clips, and a neutral one.

    :returns: a Retrieval by name.
    """
    labels: dict[str, Any] = {
        'identity': arrays.names, 'task_q': arrays.tasks, 'task_g': arrays.tasks,
        'gallery_size': gallery}
    hard: dict[str, Any] = {
        **labels, 'gallery_size': None, 'scene_q': arrays.scenes, 'scene_g': arrays.scenes}
    found = Taken()
    for direction, query, answer in (
            (HUMAN_TO_ROBOT, arrays.human, arrays.robot),
            (ROBOT_TO_HUMAN, arrays.robot, arrays.human)):

        def pool_query(rows: Any, text: int, of: Any = query) -> Any:
            return of[rows, min(text, of.shape[1] - 1)]

        def pool_gallery(rows: Any, text: int, of: Any = answer) -> Any:
            return of[rows, min(text, of.shape[1] - 1)]

        # Other cameras of one recording are no other clips of its task.
        others: dict[str, Any] = {
            **labels, 'level': 'task', 'own_pair': False, 'identity': arrays.recordings,
            'clusters': join_labels(arrays.tasks, arrays.scenes)}
        elsewhere: dict[str, Any] = {
            **others, 'scene_q': arrays.scenes, 'scene_g': arrays.scenes,
            'gallery_size': min(gallery, _fewest_elsewhere(arrays))}
        if elsewhere['gallery_size'] > 1:
            found.take(
                f'E1 R@1 of the task in other scenes, {direction}, task text',
                partial(retrieval_with_queries, pool_query, pool_gallery, text=arrays.text,
                        **elsewhere))
            found.take(
                f'E1 R@1 of the task in other scenes, {direction}, neutral text',
                partial(retrieval, query[:, -1], answer[:, -1], **elsewhere))
        # What no data can lack: all else is left out where it cannot be measured.
        found[f'E1 R@1 {direction}, task text'] = retrieval_with_queries(
            pool_query, pool_gallery, text=arrays.text, clusters=arrays.recordings, **labels)
        found[f'E1 R@1 {direction}, neutral text'] = retrieval(
            query[:, -1], answer[:, -1], clusters=arrays.recordings, **labels)
        if not full:
            continue
        if elsewhere['gallery_size'] > 1 and len(set(arrays.tasks)) > 1:
            outsiders = _of_another_task(arrays.tasks)

            def pool_stranger(
                rows: Any, text: int, of: Any = query, other: Any = outsiders,
            ) -> Any:
                return of[other[rows], min(text, of.shape[1] - 1)]

            found.take(
                f'E1 R@1 of the task in other scenes, {direction}, task text, clips shuffled',
                partial(retrieval_with_queries, pool_stranger, pool_gallery, text=arrays.text,
                        **elsewhere))
        # The own recording is not among them.
        most = int(np.unique(arrays.recordings, return_counts=True)[1].max())
        found.take(
            f'E1 R@1 of the task, {direction}, neutral text',
            partial(retrieval, query[:, -1], answer[:, -1], **{
                **others, 'clusters': arrays.recordings,
                'gallery_size': min(gallery, len(arrays.names) - most)}))
        if _scene_with_two_tasks(arrays):
            found.take(
                f'E1 R@1 hard gallery (same scene, other task), {direction}, task text',
                partial(retrieval_with_queries, pool_query, pool_gallery, text=arrays.text,
                        **hard))
    return found


def _of_another_task(tasks: np.ndarray) -> np.ndarray:
    """
    Return for each clip the number of one of another task: a query that only its text tells.

    Half of all clips further on in the order of tasks, or the first that is of another task.
    """
    order = np.argsort(tasks, kind='stable')
    place = np.empty(len(tasks), np.int64)
    place[order] = np.arange(len(tasks))
    found = order[(place + len(tasks) // 2) % len(tasks)]
    for i in np.flatnonzero(tasks[found] == tasks):
        found[i] = int(np.flatnonzero(tasks != tasks[i])[0])
    return found


def _scene_with_two_tasks(arrays: PairArrays) -> bool:
    """Tell whether any query has a clip of its scene and another task to be mistaken for."""
    return len(np.unique(join_labels(arrays.tasks, arrays.scenes))) > len(
        np.unique(arrays.scenes))


def _fewest_elsewhere(arrays: PairArrays) -> int:
    """Return the size of the largest gallery of other scenes that every query can have."""
    scene, recording = (np.unique(labels, return_inverse=True)[1]
                        for labels in (arrays.scenes, arrays.recordings))
    return min(int(((scene != s) & (recording != r)).sum())
               for s, r in {*zip(scene.tolist(), recording.tolist(), strict=True)})


def gaps(arrays: PairArrays, full: bool) -> Taken:
    """Measure how easily human and robot features are told apart, in the same folds for all."""
    groups = join_labels(arrays.tasks, arrays.scenes)
    folds = min(FOLDS, len(np.unique(groups)))
    found = Taken()

    def take(name: str, human: Any, robot: Any, **how: Any) -> None:
        found.take(f'E2 proxy A-distance, {name}', lambda: proxy_a_distance(
            human, robot, groups_h=groups, groups_r=groups, folds=folds, **how).distance)

    take('task text', *arrays.own())
    take('neutral text', *arrays.neutral())
    if full:
        take('MLP, task text', *arrays.own(), classifier='mlp')
        take('labels shuffled', *arrays.own(), shuffled=True)
    return found


def shapes(arrays: PairArrays) -> Taken:
    """Measure E3 and E4, with the neutral text: own texts would be what differs."""
    human, robot = arrays.neutral()
    found, recordings = Taken(), arrays.recordings
    found.take('E3 CKA human and robot', lambda: linear_cka(human, robot, clusters=recordings))
    width = found.take('E3 effective rank, robot', lambda: spread(robot, clusters=recordings))
    if width is not None:
        found['E3 effective rank, robot'] = width.effective_rank
        found['E3 variation, robot'] = width.variation
    found.take('E4 distance within / between tasks, robot', lambda: task_distance_ratio(
        robot, tasks=arrays.tasks, episodes=recordings))
    for classifier in ('knn', 'linear'):
        name = f'E4 task accuracy, {classifier}, new scene'
        result = found.take(name, partial(
            separability, robot, tasks=arrays.tasks, scenes=arrays.scenes, episodes=recordings,
            classifier=classifier))
        if result is not None:
            found[name] = result.accuracy
            found[f'E4 loss of accuracy in a new scene, {classifier}'] = result.drop
    return found


def probe_frames(
    model: HRAlign, items: Sequence[Item], cache: FeatureCache, texts: dict[str, np.ndarray],
    data: DataSet, plain: bool,
) -> Taken:
    """Measure what single frames say of actions and of the arm (E5), and a policy's error (E6)."""
    found = Taken()
    frames = found.take('E5', lambda: encode_frames(
        model, items, cache, texts, data, frozen_mean=plain))
    if found.pop('E5', None) is None:
        return found
    found.take('E5 action R2 from two frames', lambda: action_probe(
        frames.features, frames.actions, episodes=frames.recordings).r2)
    found.take('E5 proprioception R2', lambda: proprio_probe(
        frames.features, frames.proprio, episodes=frames.recordings).r2)
    found.take(POLICY, lambda: nearest_neighbour_policy(
        frames.features, frames.actions, episodes=frames.recordings, tasks=frames.tasks))
    return found
