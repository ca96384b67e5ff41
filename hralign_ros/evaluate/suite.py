# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The evaluation of adaptation: E1 to E6 for several variants, each with one or more seeds.

A variant is a way to make embeddings (frozen backbone, adapted, a control); its runs differ in
their seed only. Every variant is measured on the same pairs, galleries and folds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hralign_ros.adapt.batches import Item
from hralign_ros.adapt.cache import FeatureCache
from hralign_ros.adapt.model import HRAlign
from hralign_ros.adapt.run import pair_features, Run, text_encoder, text_features
from hralign_ros.data.manifest import DataSet, REFERENCE_VIEW
from hralign_ros.evaluate.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    join_labels,
    seed_mean,
)
from hralign_ros.evaluate.encode import (
    encode_frames,
    encode_pairs,
    NEUTRAL_TEXT,
    PairArrays,
    split_items,
)
from hralign_ros.evaluate.metrics import (
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
from hralign_ros.evaluate.report import row
import numpy as np

Report = Callable[[str], None]
Row = dict[str, Any]

GALLERY = 100
FROZEN_MEAN = 'frozen, mean'
HUMAN_TO_ROBOT, ROBOT_TO_HUMAN = 'human to robot', 'robot to human'
POLICY = 'E6 nearest-neighbour action error'
# Of E2, where there are as many groups.
FOLDS = 5


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


@dataclass
class Measured:
    """
    What was found, ready for a report.

    :param values: Estimate by (metric, variant, split).
    :param hits: R@1 human to robot with the task's text, of the task in other scenes where there
        are any, [seeds, n], by (variant, split).
    :param names: episode of each column of `hits`, by split.
    :param clusters: what is drawn together for intervals of `hits`, by split.
    :param seeds_of: of the rows of `hits` and `policies`, by variant; none for the frozen mean.
    :param left_out: why, by (metric, split), of what these data cannot show.
    """

    rows: list[Row] = field(default_factory=list)
    controls: list[Row] = field(default_factory=list)
    values: dict[tuple[str, str, str], Estimate] = field(default_factory=dict)
    hits: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    names: dict[str, np.ndarray] = field(default_factory=dict)
    clusters: dict[str, np.ndarray] = field(default_factory=dict)
    policies: dict[tuple[str, str], list[Policy]] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    seeds_of: dict[str, list[int]] = field(default_factory=dict)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)


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


class FeatureStore:
    """
    Features of a data set's clips and texts, opened once for all runs that share them.

    :param folder: of features; None: cache/ beside the manifest.
    :param workers: processes, should features have to be computed; `adapt` has done that.
    """

    def __init__(self, data: DataSet, folder: Path | None = None, *, workers: int = 1) -> None:
        self.data, self.folder, self.workers = data, folder, workers
        self._caches: dict[str, FeatureCache] = {}
        self._texts: dict[tuple[str, str], np.ndarray] = {}

    def clips(self, run: Run) -> FeatureCache:
        """Return the features that a run was trained on."""
        options = run.options
        key = repr((options.backbone, options.weights, options.position, options.frames,
                    options.dtype, options.views))
        if key not in self._caches:
            self._caches[key] = pair_features(
                self.data, run.backbone, options, cache=self.folder, workers=self.workers)
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
    store: FeatureStore, variants: Sequence[Variant], *, splits: Sequence[str],
    view: str = REFERENCE_VIEW, gallery: int = GALLERY, full: bool = True, probes: bool = True,
    report: Report = print,
) -> Measured:
    """
    Measure all variants on all splits of a store's data.

    :param view: of the robot.
    :param gallery: clips in a gallery, where a split has as many.
    :param full: E1 to E4 in all forms; False: R@1 and proxy A-distance only.
    :param probes: E5 and E6 too, where a split has actions and proprioception.
    :raises EvaluationError: a split without pairs, variants without a run among them, a gallery
        of one, or variants whose features are of different clips.
    """
    found = Measured()
    reference = next((v.runs[0] for v in variants if v.runs), None)
    if reference is None:
        raise EvaluationError('at least one run is needed: it says which backbone is meant')
    if gallery < 2:
        raise EvaluationError(f'a gallery of {gallery} clips; needed are 2 or more')
    found.seeds = tuple(sorted({r.options.train.seed for v in variants for r in v.runs}))
    for split in splits:
        episodes = store.data.of_split(split).episodes
        probed = probes and any(e.actions and e.proprio for e in episodes)
        if probes and not probed:
            report(f'{split}: E5 and E6 are left out: no episode has actions and proprioception')
        for variant in variants:
            report(f'{split}: {variant.name}')
            found.seeds_of[variant.name] = [r.options.train.seed for r in variant.runs]
            before = set(found.left_out)
            _measure_variant(found, store, variant, reference, split, view, gallery, full, probed)
            for metric, _ in sorted(set(found.left_out) - before):
                report(f'  {metric}: left out, {found.left_out[metric, split]}')
    return found


def _measure_variant(
    found: Measured, store: FeatureStore, variant: Variant, reference: Run, split: str, view: str,
    gallery: int, full: bool, probes: bool,
) -> None:
    per_seed: dict[str, list[Estimate]] = {}
    hits: dict[str, list[np.ndarray]] = {}
    chances: dict[str, float] = {}
    clusters: dict[str, np.ndarray] = {}
    names: dict[str, np.ndarray] = {}
    for run in variant.runs or (reference,):
        cache = store.clips(run)
        items = split_items(store.data, cache, split, view)
        texts = store.texts(run, items)
        plain = not variant.runs
        arrays = encode_pairs(
            run.model, items, cache, texts, length=run.options.train.length,
            adapt_human=run.options.train.objective == 'video_text', frozen_mean=plain)
        size = min(gallery, len(items))
        retrieved = retrievals(arrays, size, full=full)
        parts = [retrieved, _gaps(arrays, full)]
        for name, result in retrieved.items():
            hits.setdefault(name, []).append(result.hits[1])
            names[name] = arrays.names[result.index]
            # Clips of one task and scene are found, or not, together.
            together = join_labels(arrays.tasks, arrays.scenes)[result.index]
            clusters[name] = together if ('of the task' in name or 'hard' in name) and len(
                set(together)) > 1 else arrays.recordings[result.index]
            chances[name] = result.chance[1]
            if full and name.endswith(('task text', 'neutral text')) and 'hard' not in name:
                for k, metric in ((5, 'R@5'), (0, 'mAP'), (-1, 'MedR')):
                    value = result.recall[5] if k == 5 else \
                        result.average_precision if k == 0 else result.median_rank
                    per_seed.setdefault(name.replace('R@1', metric), []).append(value)
        if full:
            parts.append(_shapes(arrays))
        if probes:
            parts.append(_probes(run.model, items, cache, texts, store.data, plain))
            policy = parts[-1].pop(POLICY, None)
            if policy is not None:
                found.policies.setdefault((variant.name, split), []).append(policy)
        for part in parts:
            found.left_out |= {(name, split): why for name, why in part.left_out.items()}
        for part in parts[1:]:
            for name, value in part.items():
                per_seed.setdefault(name, []).append(value)
    for name, stack in hits.items():
        values = np.stack(stack)
        estimate = cluster_mean(values if len(values) > 1 else values[0], clusters[name])
        _add(found, variant, name, split, estimate, chance=chances[name])
    for name, values_of in per_seed.items():
        _add(found, variant, name, split, _over_seeds(values_of))
    policies = found.policies.get((variant.name, split))
    if policies:
        _add(found, variant, POLICY, split, cluster_mean(
            np.stack([p.errors for p in policies]), policies[0].episodes))
    main = f'E1 R@1 of the task in other scenes, {HUMAN_TO_ROBOT}, task text'
    if main not in hits:  # all clips are of one scene
        main = f'E1 R@1 {HUMAN_TO_ROBOT}, task text'
    if not np.array_equal(found.names.get(split, names[main]), names[main]):
        raise EvaluationError(f"split {split}: '{variant.name}' has features of other clips than "
                              'the variants before it, so that they cannot be compared')
    found.hits[variant.name, split] = np.stack(hits[main])
    found.names[split], found.clusters[split] = names[main], clusters[main]
    seeds: list[int | str] = [run.options.train.seed for run in variant.runs] or ['']
    found.tables.setdefault('retrieval_per_episode', []).extend(
        {'variant': variant.name, 'split': split, 'seed': seed, 'episode': str(name),
         'r1_human_to_robot': float(hit)}
        for seed, row_of in zip(seeds, hits[main], strict=True)
        for name, hit in zip(names[main], row_of, strict=True))


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
            strangers = _of_another_task(arrays.tasks)

            def pool_stranger(
                rows: Any, text: int, of: Any = query, other: Any = strangers,
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


def _gaps(arrays: PairArrays, full: bool) -> Taken:
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


def _shapes(arrays: PairArrays) -> Taken:
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


def _probes(
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


# Which way is better, by the beginning of the metric's name.
_BETTER = {
    'E1 MedR': 'lower', 'E1': 'higher', 'E2 proxy A-distance, labels': '', 'E2': 'lower',
    'E3 CKA': 'higher', 'E3': '', 'E4 distance': 'lower', 'E4 loss': 'lower', 'E4': 'higher',
    'E5': 'higher', 'E6': 'lower'}


def _add(
    found: Measured, variant: Variant, metric: str, split: str, estimate: Estimate, *,
    chance: float | None = None,
) -> None:
    better = next(way for start, way in _BETTER.items() if metric.startswith(start))
    target = found.controls if variant.control or metric.endswith('shuffled') else found.rows
    target.append(row(
        metric, variant.name, split, estimate, better=better, chance=chance,
        seeds=[r.options.train.seed for r in variant.runs]))
    found.values[metric, variant.name, split] = estimate


def _over_seeds(values: Sequence[Estimate]) -> Estimate:
    """Join the seeds' values; with one seed it is that one's own interval."""
    if len(values) == 1:
        return values[0]
    if len({v.value for v in values}) == 1:
        return values[0]
    return seed_mean([v.value for v in values])


def group_runs(runs: Sequence[Run], controls: Mapping[str, bool] | None = None) -> list[Variant]:
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
                'variant differ in their seed only. Name another one with `hralign adapt '
                '--variant`')
    chosen = controls or {}
    return [Variant(name, tuple(some), control=chosen.get(name, _is_control(some[0])))
            for name, some in grouped.items()]


def _is_control(run: Run) -> bool:
    options = run.options
    return options.weights == 'random' or options.pairs == 'shuffled'
