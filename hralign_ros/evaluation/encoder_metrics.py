# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the features of one split and one seed show, as far as the data allow."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from hralign_ros.data.manifest import DataSet
from hralign_ros.evaluation.bootstrap import EvaluationError, join_labels
from hralign_ros.evaluation.embeddings import encode_frames, Floats, PairArrays, Pooled
from hralign_ros.evaluation.metrics import (
    action_probe,
    linear_cka,
    nearest_neighbour_policy,
    Policy,
    proprio_probe,
    proxy_a_distance,
    retrieval,
    retrieval_with_queries,
    separability,
    spread,
    task_distance_ratio,
)
from hralign_ros.evaluation.metrics.names import HUMAN_TO_ROBOT, ROBOT_TO_HUMAN
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.clip_features import ClipFeatures
import numpy as np
from numpy.typing import NDArray

POLICY = 'nearest_neighbour_action_error'
# Folds of the proxy A-distance, where there are as many groups.
FOLDS = 5

# A metric and the conditions that it was measured under.
Key = tuple[str, tuple[tuple[str, str], ...]]


def key_of(metric: str, **conditions: str) -> Key:
    """Return what a value is found by."""
    return metric, tuple(conditions.items())


class Found(dict[Key, Any]):
    """
    What could be measured; small data sets cannot show everything.

    :ivar left_out: of all else, why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[Key, str] = {}

    def attempt(self, metric: str, measure: Callable[[], Any], **conditions: str) -> Any:
        """Measure; return None where these data do not do."""
        key = key_of(metric, **conditions)
        try:
            self[key] = measure()
        except EvaluationError as error:
            self.left_out[key] = str(error)
        return self.get(key)


def retrievals(arrays: PairArrays, gallery: int, *, full: bool) -> Found:
    """
    Retrieve in both directions, with the query's own text for all clips, and a neutral one.

    Galleries: `own_pair` has the query's own pair, which alone is right, and any others;
    `other_scenes` has clips of other scenes, of which those of the task are right; `task` has any
    clips but the own pair, those of the task are right; `same_scene` has the own pair, and clips
    of its scene with other tasks.

    :param gallery: clips in a gallery.
    :param full: False: only the galleries `own_pair` and `other_scenes`, without the control in
        which the query is a clip of another task (`query: shuffled`).
    :returns: a Retrieval by `retrieval_r1` and conditions.
    """
    labels: dict[str, Any] = {
        'identity': arrays.names, 'task_q': arrays.tasks, 'task_g': arrays.tasks,
        'gallery_size': gallery}
    found = Found()
    for direction, query, answer in (
            (HUMAN_TO_ROBOT, arrays.human, arrays.robot),
            (ROBOT_TO_HUMAN, arrays.robot, arrays.human)):

        own_text = partial(retrieval_with_queries, partial(_pooled, query),
                           partial(_pooled, answer), text=arrays.text)
        neutral_text = partial(retrieval, query[:, -1], answer[:, -1])
        attempt = partial(found.attempt, 'retrieval_r1')
        # Other cameras of one recording are no other clips of its task.
        others: dict[str, Any] = {
            **labels, 'level': 'task', 'own_pair': False, 'identity': arrays.recordings,
            'clusters': join_labels(arrays.tasks, arrays.scenes)}
        elsewhere: dict[str, Any] = {
            **others, 'scene_q': arrays.scenes, 'scene_g': arrays.scenes,
            'gallery_size': min(gallery, _fewest_elsewhere(arrays))}
        if elsewhere['gallery_size'] > 1:
            there = {'gallery': 'other_scenes', 'direction': direction}
            attempt(partial(own_text, **elsewhere), **there, text='task')
            attempt(partial(neutral_text, **elsewhere), **there, text='neutral')
            if full and len(set(arrays.tasks)) > 1:
                attempt(partial(
                    retrieval_with_queries, partial(
                        _pooled, query, instead=_of_another_task(arrays.tasks)),
                    partial(_pooled, answer), text=arrays.text, **elsewhere),
                    **there, text='task', query='shuffled')
        # What no data can lack: all else is left out where it cannot be measured.
        own = {'gallery': 'own_pair', 'direction': direction}
        for text, measure in (('task', own_text), ('neutral', neutral_text)):
            found[key_of('retrieval_r1', **own, text=text)] = measure(
                clusters=arrays.recordings, **labels)
        if not full:
            continue
        # The own recording is not among them.
        most = int(np.unique(arrays.recordings, return_counts=True)[1].max())
        attempt(partial(neutral_text, **{
            **others, 'clusters': arrays.recordings,
            'gallery_size': min(gallery, len(arrays.names) - most)}),
            gallery='task', direction=direction, text='neutral')
        if _scene_with_two_tasks(arrays):
            attempt(partial(own_text, **{
                **labels, 'gallery_size': None, 'scene_q': arrays.scenes,
                'scene_g': arrays.scenes}),
                gallery='same_scene', direction=direction, text='task')
    return found


def _pooled(
    of: Pooled | Floats, rows: NDArray[np.int64], text: int,
    instead: NDArray[np.int64] | None = None,
) -> Floats:
    """Give clips [k, C] of [n, K, C] as pooled with a text; with `instead`, other clips."""
    return of[rows if instead is None else instead[rows], min(text, of.shape[1] - 1)]


def _of_another_task(tasks: NDArray[np.str_]) -> NDArray[np.int64]:
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


def gaps(arrays: PairArrays, full: bool) -> Found:
    """Measure how easily human and robot features are told apart, in the same folds for all."""
    groups = join_labels(arrays.tasks, arrays.scenes)
    folds = min(FOLDS, len(np.unique(groups)))
    found = Found()

    def attempt(human: Any, robot: Any, how: Mapping[str, Any], **conditions: str) -> None:
        found.attempt('proxy_a_distance', lambda: proxy_a_distance(
            human, robot, groups_h=groups, groups_r=groups, folds=folds, **how).distance,
            **conditions)

    attempt(*arrays.own(), {}, text='task')
    attempt(*arrays.neutral(), {}, text='neutral')
    if full:
        attempt(*arrays.own(), {'classifier': 'mlp'}, text='task', classifier='mlp')
        attempt(*arrays.own(), {'shuffled': True}, text='task', labels='shuffled')
    return found


def shapes(arrays: PairArrays) -> Found:
    """
    Measure alignment, collapse and tasks.

    All with the neutral text: own texts would be what differs.
    """
    human, robot = arrays.neutral()
    found, recordings = Found(), arrays.recordings
    found.attempt('linear_cka', lambda: linear_cka(human, robot, clusters=recordings))
    width = found.attempt('effective_rank', lambda: spread(robot, clusters=recordings))
    if width is not None:
        found[key_of('effective_rank')] = width.effective_rank
        found[key_of('feature_variation')] = width.variation
    found.attempt('task_distance_ratio', lambda: task_distance_ratio(
        robot, tasks=arrays.tasks, episodes=recordings))
    for classifier in ('knn', 'linear'):
        result = found.attempt('task_accuracy', partial(
            separability, robot, tasks=arrays.tasks, scenes=arrays.scenes, episodes=recordings,
            classifier=classifier), classifier=classifier)
        if result is not None:
            found[key_of('task_accuracy', classifier=classifier)] = result.accuracy
            found[key_of('task_accuracy_drop', classifier=classifier)] = result.drop
    return found


def probe_frames(
    model: HRAlign, items: Sequence[Item], cache: ClipFeatures, texts: dict[str, np.ndarray],
    data: DataSet, plain: bool,
) -> tuple[Found, Policy | None]:
    """
    Measure what single frames say of actions and of the arm.

    :returns: probes, and the nearest-neighbour policy, where these data have one.
    """
    found = Found()
    frames = found.attempt('action_r2', lambda: encode_frames(
        model, items, cache, texts, data, frozen_mean=plain))
    if frames is None:
        return found, None
    del found[key_of('action_r2')]
    found.attempt('action_r2', lambda: action_probe(
        frames.features, frames.actions, episodes=frames.recordings).r2)
    found.attempt('proprioception_r2', lambda: proprio_probe(
        frames.features, frames.proprio, episodes=frames.recordings).r2)
    policy = found.attempt(POLICY, lambda: nearest_neighbour_policy(
        frames.features, frames.actions, episodes=frames.recordings, tasks=frames.tasks))
    found.pop(key_of(POLICY), None)
    return found, policy
