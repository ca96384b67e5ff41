# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The metrics of embeddings, for several variants, each with one or more seeds.

A variant is a way to make embeddings (frozen backbone, adapted, a control); its runs differ in
their seed only. Every variant is measured on the same pairs, galleries and folds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hralign_ros.data.manifest import DataSet, REFERENCE_VIEW
from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    join_labels,
    seed_mean,
)
from hralign_ros.evaluation.embeddings import (
    encode_frames,
    encode_pairs,
    Floats,
    NEUTRAL_TEXT,
    PairArrays,
    Pooled,
    split_items,
)
from hralign_ros.evaluation.metrics.domain_gap import proxy_a_distance
from hralign_ros.evaluation.metrics.names import (
    describe,
    HUMAN_TO_ROBOT,
    MAIN_RETRIEVAL,
    ROBOT_TO_HUMAN,
)
from hralign_ros.evaluation.metrics.nearest_neighbour import nearest_neighbour_policy
from hralign_ros.evaluation.metrics.probes import action_probe, proprio_probe
from hralign_ros.evaluation.metrics.retrieval import retrieval
from hralign_ros.evaluation.metrics.spread import linear_cka, spread
from hralign_ros.evaluation.metrics.task_separability import separability, task_distance_ratio
from hralign_ros.evaluation.report import Measured, Samples
from hralign_ros.models.hr_align import HRAlign
from hralign_ros.runtime.report import Report
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.alignment_run import pair_features, Run, text_encoder, text_features
from hralign_ros.training.clip_features import ClipFeatures
import numpy as np
from numpy.typing import NDArray

GALLERY = 100
FROZEN_MEAN = 'frozen, mean'
POLICY = 'nearest_neighbour_action_error'
# Folds of the proxy A-distance, where there are as many groups.
FOLDS = 5

# A metric and the conditions that it was measured under.
Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Variant:
    """
    One way to make embeddings.

    :param runs: one per seed; empty for the frozen backbone's mean.
    :param control: it is there to fail, or to be beaten.
    """

    name: str
    runs: tuple[Run, ...]
    control: bool = False


class RunInputs:
    """
    Features of a data set's clips and texts, opened once for all runs that share them.

    :param folder: of features; None: features/ in the data set.
    """

    def __init__(self, data: DataSet, folder: Path | None = None) -> None:
        self.data, self.folder = data, folder
        self._caches: dict[str, ClipFeatures] = {}
        self._texts: dict[tuple[str, str], np.ndarray] = {}

    def clips(self, run: Run) -> ClipFeatures:
        """Return the features that a run was trained on."""
        options = run.options
        key = repr((options.backbone, options.weights, options.position, options.frames,
                    options.dtype, options.views))
        if key not in self._caches:
            self._caches[key] = pair_features(
                self.data, run.backbone, options, cache=self.folder)
        return self._caches[key]

    def texts(self, run: Run, items: Sequence[Item]) -> dict[str, np.ndarray]:
        """Return text features of some pairs, and of the neutral text, by a run's encoder."""
        name = run.options.text
        wanted = {*(item.robot.task_text for item in items), NEUTRAL_TEXT}
        unknown = {text for text in wanted if (name, text) not in self._texts}
        if unknown:
            for text, feature in text_features(text_encoder(name), unknown).items():
                self._texts[name, text] = feature
        return {text: self._texts[name, text] for text in wanted}


def measure(
    store: RunInputs, variants: Sequence[Variant], *, splits: Sequence[str],
    view: str = REFERENCE_VIEW, gallery: int = GALLERY, full: bool = True, probes: bool = True,
    report: Report = print,
) -> Measured:
    """
    Measure all variants on all splits of a store's data.

    :param view: of the robot.
    :param gallery: clips in a gallery, where a split has as many.
    :param full: all metrics in all forms; False: R@1 and proxy A-distance only.
    :param probes: actions and proprioception too, where a split has them.
    :raises EvaluationError: a split without pairs, variants without a run among them, a gallery
        of one, or variants whose features are of different clips.
    """
    found = Measured()
    reference = next((v.runs[0] for v in variants if v.runs), None)
    if reference is None:
        raise EvaluationError('at least one run is needed: it says which backbone is meant')
    if gallery < 2:
        raise EvaluationError(f'a gallery of {gallery} clips; needed are 2 or more')
    for split in splits:
        episodes = store.data.of_split(split).episodes
        probed = probes and any(e.actions and e.proprio for e in episodes)
        if probes and not probed:
            report(f'{split}: the probes are left out: no episode has actions and proprioception')
        for variant in variants:
            report(f'{split}: {variant.name}')
            before = len(found.left_out)
            _measure_variant(found, store, variant, reference, split, view, gallery, full, probed)
            for line in found.left_out[before:]:
                report(f'  {describe(line["metric"], line["conditions"])}: left out, '
                       f'{line["reason"]}')
    return found


def _measure_variant(
    found: Measured, store: RunInputs, variant: Variant, reference: Run, split: str, view: str,
    gallery: int, full: bool, probes: bool,
) -> None:
    per_seed: dict[Key, list[Any]] = {}
    for run in variant.runs or (reference,):
        cache = store.clips(run)
        items = split_items(store.data, cache, split, view)
        texts = store.texts(run, items)
        plain = not variant.runs
        arrays = encode_pairs(
            run.model, items, cache, texts, length=run.options.train.length,
            adapt_human=run.options.train.objective == 'video_text', frozen_mean=plain)
        for part in (
                retrievals(arrays, min(gallery, len(items)), full=full), gaps(arrays, full),
                *([shapes(arrays)] if full else []),
                *([probe_frames(run.model, items, cache, texts, store.data, plain)]
                  if probes else [])):
            for key, value in part.items():
                per_seed.setdefault(key, []).append(value)
            for (metric, pairs), reason in part.left_out.items():
                line = {'metric': metric, 'conditions': dict(pairs), 'split': split,
                        'reason': reason}
                if line not in found.left_out:
                    found.left_out.append(line)
    seeds: list[int] = [run.options.train.seed for run in variant.runs]
    samples: dict[Key, Samples] = {}
    for key, values in per_seed.items():
        metric, conditions = key[0], dict(key[1])
        if isinstance(values[0], Samples):
            samples[key] = replace(
                values[0], values=np.concatenate([v.values for v in values]), seeds=seeds)
            estimate = cluster_mean(samples[key].values, samples[key].clusters)
        else:
            estimate = _over_seeds(values)
        found.add(metric, variant.name, split, estimate, seeds=seeds,
                  chance=samples[key].chance if key in samples else None,
                  control=variant.control or 'shuffled' in conditions.values(), **conditions)
    if key_of(POLICY) in samples:
        found.samples[POLICY, variant.name, split] = samples[key_of(POLICY)]
    own = key_of('retrieval_r1', gallery='own_pair', direction=HUMAN_TO_ROBOT, text='task')
    # Where all clips are of one scene, there are no others.
    main = samples.get(key_of('retrieval_r1', **MAIN_RETRIEVAL), samples[own])
    before = next((s for (metric, _, of), s in found.samples.items()
                   if (metric, of) == ('retrieval_r1', split)), None)
    if before is not None and not np.array_equal(before.names, main.names):
        raise EvaluationError(f"split {split}: '{variant.name}' has features of other clips than "
                              'the variants before it, so that they cannot be compared')
    found.samples['retrieval_r1', variant.name, split] = main
    found.tables.setdefault('retrieval_per_episode', []).extend(
        {'variant': variant.name, 'split': split, 'seed': seed, 'episode': str(name),
         'retrieval_r1': float(hit)}
        for seed, row_of in zip(seeds or ('',), main.values, strict=True)
        for name, hit in zip(main.names, row_of, strict=True))


def _over_seeds(values: Sequence[Estimate]) -> Estimate:
    """Join the seeds' values; with one seed it is that one's own interval."""
    if len(values) == 1:
        return values[0]
    if len({v.value for v in values}) == 1:
        return values[0]
    return seed_mean([v.value for v in values])


def group_runs(runs: Sequence[Run]) -> list[Variant]:
    """
    Join runs of one variant, in the order of their first one.

    :raises EvaluationError: two runs of one variant have the same seed: they are not one variant.
    """
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.options.variant, []).append(run)
    for name, some in grouped.items():
        seeds = [run.options.train.seed for run in some]
        if len(set(seeds)) < len(seeds):
            raise EvaluationError(
                f"variant '{name}': two runs with the same seed ({sorted(seeds)}); runs of a "
                'variant differ in their seed only. Name another one with `hralign '
                'encoder train --variant`')
    return [Variant(name, tuple(some), control=some[0].options.weights == 'random'
                    or some[0].options.pairs == 'shuffled') for name, some in grouped.items()]


def key_of(metric: str, **conditions: str) -> Key:
    """Return what a value is found by."""
    return metric, tuple(conditions.items())


class Found(dict[Key, Any]):
    """
    What could be measured of one split and one seed; small data sets cannot show everything.

    Values are an Estimate, or Samples of one row, which are compared and joined over seeds.

    :ivar left_out: of all else, why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left_out: dict[Key, str] = {}

    def attempt(
        self, metrics: str | tuple[str, ...], measure: Callable[[], Any], **conditions: str,
    ) -> None:
        """Measure one metric, or several at once; note where these data do not do."""
        names = (metrics,) if isinstance(metrics, str) else metrics
        try:
            values = measure()
        except EvaluationError as error:
            self.left_out[key_of(names[0], **conditions)] = str(error)
            return
        for name, value in zip(names, (values,) if isinstance(metrics, str) else values,
                               strict=True):
            self[key_of(name, **conditions)] = value


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
    """
    labels: dict[str, Any] = {
        'identity': arrays.names, 'tasks': arrays.tasks, 'gallery_size': gallery}
    together = join_labels(arrays.tasks, arrays.scenes)
    found = Found()
    for direction, query, answer in (
            (HUMAN_TO_ROBOT, arrays.human, arrays.robot),
            (ROBOT_TO_HUMAN, arrays.robot, arrays.human)):
        measure = partial(retrieval, partial(_pooled, query), partial(_pooled, answer))
        own_text = partial(measure, text=arrays.text)
        neutral_text = partial(measure, text=np.full_like(arrays.text, query.shape[1] - 1))
        attempt = partial(found.attempt, 'retrieval_r1')
        # Other cameras of one recording are no other clips of its task.
        others: dict[str, Any] = {
            **labels, 'own_pair': False, 'identity': arrays.recordings, 'clusters': together}
        elsewhere: dict[str, Any] = {
            **others, 'scenes': arrays.scenes,
            'gallery_size': min(gallery, _fewest_elsewhere(arrays))}
        if elsewhere['gallery_size'] > 1:
            there = {'gallery': 'other_scenes', 'direction': direction}
            attempt(partial(own_text, **elsewhere), **there, text='task')
            attempt(partial(neutral_text, **elsewhere), **there, text='neutral')
            if full and len(set(arrays.tasks)) > 1:
                attempt(partial(
                    retrieval, partial(_pooled, query, instead=_of_another_task(arrays.tasks)),
                    partial(_pooled, answer), text=arrays.text, **elsewhere),
                    **there, text='task', query='shuffled')
        # What no data can lack: all else is left out where it cannot be measured.
        own = {'gallery': 'own_pair', 'direction': direction}
        for text, search in (('task', own_text), ('neutral', neutral_text)):
            found[key_of('retrieval_r1', **own, text=text)] = search(
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
                **labels, 'gallery_size': None, 'scenes': arrays.scenes}),
                gallery='same_scene', direction=direction, text='task')
    for (_, pairs), result in list(found.items()):
        conditions = dict(pairs)
        # Clips of one task and scene are found, or not, together.
        clusters = together[result.index]
        if conditions['gallery'] == 'own_pair' or len(set(clusters)) < 2:
            clusters = arrays.recordings[result.index]
        found[key_of('retrieval_r1', **conditions)] = Samples(
            result.hits[1][None], arrays.names[result.index], clusters, chance=result.chance[1])
        if full and conditions['gallery'] != 'same_scene' and 'query' not in conditions:
            found[key_of('retrieval_r5', **conditions)] = result.recall[5]
            found[key_of('retrieval_map', **conditions)] = result.average_precision
            found[key_of('retrieval_median_rank', **conditions)] = result.median_rank
    return found


def _pooled(
    of: Pooled, rows: NDArray[np.int64], text: int,
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
            human, robot, groups_h=groups, groups_r=groups, folds=folds, **how),
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
    found.attempt(('effective_rank', 'feature_variation'),
                  lambda: spread(robot, clusters=recordings))
    found.attempt('task_distance_ratio', lambda: task_distance_ratio(
        robot, tasks=arrays.tasks, episodes=recordings))
    for classifier in ('knn', 'linear'):
        found.attempt(('task_accuracy', 'task_accuracy_drop'), partial(
            separability, robot, tasks=arrays.tasks, scenes=arrays.scenes, episodes=recordings,
            classifier=classifier), classifier=classifier)
    return found


def probe_frames(
    model: HRAlign, items: Sequence[Item], cache: ClipFeatures, texts: dict[str, np.ndarray],
    data: DataSet, plain: bool,
) -> Found:
    """Measure what single frames say of actions and of the arm, and a policy that sees them."""
    found = Found()
    try:
        frames = encode_frames(model, items, cache, texts, data, frozen_mean=plain)
    except EvaluationError as error:
        found.left_out[key_of('action_r2')] = str(error)
        return found
    found.attempt('action_r2', lambda: action_probe(
        frames.features, frames.actions, episodes=frames.recordings))
    found.attempt('proprioception_r2', lambda: proprio_probe(
        frames.features, frames.proprio, episodes=frames.recordings))

    def policy() -> Samples:
        episodes, errors = nearest_neighbour_policy(
            frames.features, frames.actions, episodes=frames.recordings, tasks=frames.tasks)
        return Samples(errors[None], episodes, episodes)

    found.attempt(POLICY, policy)
    return found
