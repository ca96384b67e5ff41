# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The evaluation of adaptation: E1 to E6 for several variants, each with one or more seeds.

A variant is a way to make embeddings (frozen backbone, adapted, a control); its runs differ in
their seed only. Every variant is measured on the same pairs, galleries and folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    encode_pairs,
    NEUTRAL_TEXT,
    split_items,
)
from hralign_ros.evaluation.encoder_metrics import (
    gaps,
    HUMAN_TO_ROBOT,
    POLICY,
    probe_frames,
    retrievals,
    shapes,
)
from hralign_ros.evaluation.metrics import (
    Policy,
)
from hralign_ros.evaluation.report import row
from hralign_ros.runtime.report import Report
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.alignment_run import pair_features, Run, text_encoder, text_features
from hralign_ros.training.clip_features import FeatureCache
import numpy as np

Row = dict[str, Any]

GALLERY = 100
FROZEN_MEAN = 'frozen, mean'


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
        parts = [retrieved, gaps(arrays, full)]
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
            parts.append(shapes(arrays))
        if probes:
            parts.append(probe_frames(run.model, items, cache, texts, store.data, plain))
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
