# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The metrics of embeddings, for several variants, each with one or more seeds.

A variant is a way to make embeddings (frozen backbone, adapted, a control); its runs differ in
their seed only. Every variant is measured on the same pairs, galleries and folds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hralign_ros.data.manifest import DataSet, REFERENCE_VIEW
from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    Floats,
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
    Key,
    key_of,
    POLICY,
    probe_frames,
    retrievals,
    shapes,
)
from hralign_ros.evaluation.metrics import Policy
from hralign_ros.evaluation.metrics.names import describe, HUMAN_TO_ROBOT, MAIN_RETRIEVAL
from hralign_ros.evaluation.report import Measured, Samples
from hralign_ros.runtime.report import Report
from hralign_ros.training.alignment_batches import Item
from hralign_ros.training.alignment_run import pair_features, Run, text_encoder, text_features
from hralign_ros.training.clip_features import ClipFeatures
import numpy as np
from numpy.typing import NDArray

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


class RunInputs:
    """
    Features of a data set's clips and texts, opened once for all runs that share them.

    :param folder: of features; None: features/ in the data set.
    :param workers: processes, should features have to be computed; training has done that.
    """

    def __init__(
        self, data: DataSet, folder: Path | None = None, *, workers: int | str = 1,
    ) -> None:
        self.data, self.folder, self.workers = data, folder, workers
        self._caches: dict[str, ClipFeatures] = {}
        self._texts: dict[tuple[str, str], np.ndarray] = {}

    def clips(self, run: Run) -> ClipFeatures:
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
    per_seed: dict[Key, list[Estimate]] = {}
    hits: dict[Key, list[Floats]] = {}
    clusters: dict[Key, NDArray[np.str_]] = {}
    names: dict[Key, NDArray[np.str_]] = {}
    chances: dict[Key, float] = {}
    policies: list[Policy] = []
    for run in variant.runs or (reference,):
        cache = store.clips(run)
        items = split_items(store.data, cache, split, view)
        texts = store.texts(run, items)
        plain = not variant.runs
        arrays = encode_pairs(
            run.model, items, cache, texts, length=run.options.train.length,
            adapt_human=run.options.train.objective == 'video_text', frozen_mean=plain)
        retrieved = retrievals(arrays, min(gallery, len(items)), full=full)
        for key, result in retrieved.items():
            conditions = dict(key[1])
            hits.setdefault(key, []).append(result.hits[1])
            names[key], chances[key] = arrays.names[result.index], result.chance[1]
            # Clips of one task and scene are found, or not, together.
            together = join_labels(arrays.tasks, arrays.scenes)[result.index]
            clusters[key] = arrays.recordings[result.index] \
                if conditions['gallery'] == 'own_pair' or len(set(together)) < 2 else together
            if full and conditions['gallery'] != 'same_scene' and 'query' not in conditions:
                for metric, value in (
                        ('retrieval_r5', result.recall[5]),
                        ('retrieval_map', result.average_precision),
                        ('retrieval_median_rank', result.median_rank)):
                    per_seed.setdefault((metric, key[1]), []).append(value)
        parts = [gaps(arrays, full), *([shapes(arrays)] if full else [])]
        if probes:
            probed, policy = probe_frames(run.model, items, cache, texts, store.data, plain)
            parts.append(probed)
            policies += [] if policy is None else [policy]
        for part in parts:
            for key, value in part.items():
                per_seed.setdefault(key, []).append(value)
        for part in (retrieved, *parts):
            for (metric, pairs), reason in part.left_out.items():
                line = {'metric': metric, 'conditions': dict(pairs), 'split': split,
                        'reason': reason}
                if line not in found.left_out:
                    found.left_out.append(line)
    seeds: list[int] = [run.options.train.seed for run in variant.runs]

    def add(key: Key, estimate: Estimate, chance: float | None = None) -> None:
        metric, conditions = key[0], dict(key[1])
        found.add(metric, variant.name, split, estimate, chance=chance, seeds=seeds,
                  control=variant.control or 'shuffled' in conditions.values(), **conditions)

    for key, stack in hits.items():
        values = np.stack(stack)
        add(key, cluster_mean(values if len(values) > 1 else values[0], clusters[key]),
            chances[key])
    for key, values_of in per_seed.items():
        add(key, _over_seeds(values_of))
    if policies:
        errors = Samples(np.stack([p.errors for p in policies]), policies[0].episodes,
                         policies[0].episodes, seeds)
        found.samples[POLICY, variant.name, split] = errors
        add(key_of(POLICY), cluster_mean(errors.values, errors.clusters))
    own = key_of('retrieval_r1', gallery='own_pair', direction=HUMAN_TO_ROBOT, text='task')
    # Where all clips are of one scene, there are no others.
    main = next((key for key in hits if key == key_of('retrieval_r1', **MAIN_RETRIEVAL)), own)
    before = next((s for (metric, _, of), s in found.samples.items()
                   if (metric, of) == ('retrieval_r1', split)), None)
    if before is not None and not np.array_equal(before.names, names[main]):
        raise EvaluationError(f"split {split}: '{variant.name}' has features of other clips than "
                              'the variants before it, so that they cannot be compared')
    found.samples['retrieval_r1', variant.name, split] = Samples(
        np.stack(hits[main]), names[main], clusters[main], seeds)
    found.tables.setdefault('retrieval_per_episode', []).extend(
        {'variant': variant.name, 'split': split, 'seed': seed, 'episode': str(name),
         'retrieval_r1': float(hit)}
        for seed, row_of in zip(seeds or ('',), hits[main], strict=True)
        for name, hit in zip(names[main], row_of, strict=True))


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
                'variant differ in their seed only. Name another one with `hralign '
                'encoder train --variant`')
    chosen = controls or {}
    return [Variant(name, tuple(some), control=chosen.get(name, _is_control(some[0])))
            for name, some in grouped.items()]


def _is_control(run: Run) -> bool:
    options = run.options
    return options.weights == 'random' or options.pairs == 'shuffled'
