# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well a clip of one side finds its partner, or its task, on the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import math
from typing import Literal

from hralign_ros.evaluation.bootstrap import (
    cluster_mean,
    Estimate,
    EvaluationError,
    Floats,
    Ints,
    join_labels,
    Labels,
    resample,
)
from hralign_ros.evaluation.metrics.rows import (
    Bools,
    labels_of,
    TIE,
    unit_rows,
)
import numpy as np
from numpy.typing import ArrayLike

Level = Literal['instance', 'task']
# Queries whose cosines with the whole gallery are in memory at a time.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Retrieval:
    """
    How well a query finds its clip in a gallery.

    :param level: what is right: the own pair (instance), or any clip of the task.
    :param recall: R@k by k: the fraction of queries with a right clip among the first k.
    :param average_precision: its mean over queries is the mAP.
    :param median_rank: median over queries of the rank of the first right clip (mean over draws).
    :param chance: R@k of random features.
    :param gallery: clips in the gallery of a query, on average; fixed where a size was given.
    :param draws: galleries drawn for each query; 1 where all clips are the gallery.
    :param left_out: queries without a right clip, or with too few others.
    :param index: rows of the queries that were measured, int64 [n].
    :param hits: fraction of draws with a right clip among the first k, by k, float64 [n].
    :param ranks: rank of the first right clip, mean over draws, float64 [n].
    :param precisions: average precision, mean over draws, float64 [n].
    """

    level: Level
    recall: dict[int, Estimate]
    average_precision: Estimate
    median_rank: Estimate
    chance: dict[int, float]
    gallery: float
    draws: int
    left_out: int
    index: Ints
    hits: dict[int, Floats]
    ranks: Floats
    precisions: Floats


def retrieval(
    query: ArrayLike, gallery: ArrayLike, *, identity: Labels, task_q: Labels, task_g: Labels,
    identity_g: Labels | None = None, level: Level = 'instance', own_pair: bool = True,
    scene_q: Labels | None = None, scene_g: Labels | None = None, ks: Sequence[int] = (1, 5),
    gallery_size: int | None = None, draws: int = 20, clusters: Labels | None = None,
    seed: int = 0,
) -> Retrieval:
    """
    Rank gallery clips by cosine for each query clip.

    Swap query and gallery for the other direction; a clip that is shared by several pairs must be
    in a gallery only once. A tie never helps: a right clip ranks behind
    every wrong one that is as similar, so collapsed features score 0 and not 1.

    A gallery of fixed size holds the query's own pair and other clips drawn at random, the same
    ones for every variant of the features with the same seed; figures of splits of different
    sizes compare only so. Intervals draw clusters of queries; the clips at hand stay the gallery.

    With both scenes given the gallery is a hard one: the own pair, and clips of the query's scene
    with another task. Background alone finds nothing there. Without the own pair it is the other
    way about: only clips of other scenes, where background leads astray.

    :param query: [n, C].
    :param gallery: [m, C].
    :param identity: which pair a query belongs to, [n].
    :param task_q: [n].
    :param task_g: [m].
    :param identity_g: which pair a gallery clip belongs to, [m]; None: as identity, row by row.
    :param level: instance: only the own pair is right; task: any clip of the task is.
    :param own_pair: whether the own pair is in the gallery; False only makes sense for tasks.
    :param scene_q: [n]; with scene_g: hard gallery.
    :param scene_g: [m].
    :param gallery_size: clips in every gallery, own pair included; None: all.
    :param draws: galleries per query, where a size is given.
    :param clusters: of queries, for intervals, [n]; None: identity, in a hard gallery task and
        scene.
    :raises EvaluationError: shapes that do not fit, values that are not finite, a zero feature,
        a size beyond what is there, or no query that can be measured.
    """
    q, g = unit_rows('query', query), unit_rows('gallery', gallery)
    if q.shape[1] != g.shape[1]:
        raise EvaluationError(f'queries have {q.shape[1]} channels, the gallery {g.shape[1]}')
    return _retrieve(_similar(np.arange(len(q)), q, g), (len(q), len(g)), identity, identity_g,
                     task_q, task_g, level, own_pair, scene_q, scene_g, ks, gallery_size, draws,
                     clusters, seed)


def retrieval_with_queries(
    pool_query: Callable[[Ints, int], ArrayLike], pool_gallery: Callable[[Ints, int], ArrayLike],
    *, text: ArrayLike, identity: Labels, task_q: Labels, task_g: Labels,
    identity_g: Labels | None = None, level: Level = 'instance', own_pair: bool = True,
    scene_q: Labels | None = None, scene_g: Labels | None = None, ks: Sequence[int] = (1, 5),
    gallery_size: int | None = None, draws: int = 20, clusters: Labels | None = None,
    seed: int = 0,
) -> Retrieval:
    """
    Rank gallery clips where each query is pooled with its own text (without a text leak).

    If every clip were pooled with its own task's text, the text alone would tell clips of one task
    from the rest. Here all clips of the gallery are pooled with the QUERY's text, so what they
    differ in comes from the images. Other parameters are those of `retrieval`.

    :param pool_query: (rows int64 [k], text number) -> features [k, C] of these query clips.
    :param pool_gallery: the same for gallery clips.
    :param text: number of each query's text, int [n].
    :raises EvaluationError: as `retrieval`.
    """
    texts = np.asarray(text)
    if texts.ndim != 1 or not np.issubdtype(texts.dtype, np.integer):
        raise EvaluationError(
            f'text: {texts.dtype} {texts.shape}; needed is one integer for each query')
    every = np.arange(len(np.asarray(task_g)))

    def similar() -> Iterator[tuple[int, Floats]]:
        for number in np.unique(texts):
            rows = np.flatnonzero(texts == number)
            q = unit_rows('query', pool_query(rows, int(number)), len(rows))
            g = unit_rows('gallery', pool_gallery(every, int(number)), len(every))
            yield from _similar(rows, q, g)

    return _retrieve(similar(), (len(texts), len(every)), identity, identity_g, task_q, task_g,
                     level, own_pair, scene_q, scene_g, ks, gallery_size, draws, clusters, seed)


def _similar(rows: Ints, q: Floats, g: Floats) -> Iterator[tuple[int, Floats]]:
    """Give each query's row with its cosines with the gallery [m], computed some at a time."""
    for start in range(0, len(rows), _BLOCK):
        yield from zip(rows[start:start + _BLOCK], q[start:start + _BLOCK] @ g.T, strict=True)


def _retrieve(
    similar: Iterator[tuple[int, Floats]], shape: tuple[int, int], identity: Labels,
    identity_g: Labels | None, task_q: Labels, task_g: Labels, level: Level, own_pair: bool,
    scene_q: Labels | None, scene_g: Labels | None, ks: Sequence[int], size: int | None,
    draws: int, clusters: Labels | None, seed: int,
) -> Retrieval:
    n, m = shape
    ids_q = labels_of('identity', identity, n)
    ids_g = labels_of('identity_g', identity if identity_g is None else identity_g, m)
    tasks_q, tasks_g = labels_of('task_q', task_q, n), labels_of('task_g', task_g, m)
    if level not in ('instance', 'task') or (level == 'instance' and not own_pair):
        raise EvaluationError(
            f"level '{level}', own pair {own_pair}: allowed are instance with the own pair, "
            'and task')
    if (scene_q is None) != (scene_g is None):
        raise EvaluationError(
            'a gallery chosen by scene needs the scenes of queries and of the gallery')
    if not ks or min(ks) < 1 or draws < 1:
        raise EvaluationError(f'ks {tuple(ks)} and draws {draws} must be at least 1')
    scenes_q = labels_of('scene_q', tasks_q if scene_q is None else scene_q, n)
    scenes_g = labels_of('scene_g', tasks_g if scene_g is None else scene_g, m)
    groups = labels_of('clusters', clusters, n) if clusters is not None else (
        ids_q if scene_q is None else join_labels(tasks_q, np.asarray(scene_q)))
    (ids_q_, ids_g_), (task_numbers_q, task_numbers_g), (places_q, places_g) = (
        np.split(np.unique(np.concatenate(both), return_inverse=True)[1], [n])
        for both in ((ids_q, ids_g), (tasks_q, tasks_g), (scenes_q, scenes_g)))

    def clips_for(row: int) -> tuple[Ints, Ints, Bools]:
        """Give the own clips in a query's gallery, the others that may be, and what is right."""
        own, same_task = ids_g_ == ids_q_[row], task_numbers_g == task_numbers_q[row]
        allowed = np.ones(m, bool)
        if scene_q is not None:
            same_scene = places_g == places_q[row]
            allowed = own | (same_scene & ~same_task) if own_pair else ~same_scene
        return (np.flatnonzero(allowed & own) if own_pair else np.zeros(0, np.int64),
                np.flatnonzero(allowed & ~own), own if level == 'instance' else own | same_task)

    # All galleries are drawn first, in the order of queries, so that they depend on nothing else.
    generator = np.random.default_rng(seed)
    rounds = draws if size is not None else 1
    drawn: dict[int, Ints] = {}
    for row in range(n):
        kept, others, _ = clips_for(row)
        room = others.size if size is None else size - kept.size
        if room > others.size or room < 0 or (own_pair and not kept.size) or not others.size:
            continue
        drawn[row] = np.zeros((1, 0), np.int32) if size is None else np.stack([
            generator.permutation(others)[:room] for _ in range(rounds)]).astype(np.int32)
    results: dict[int, Floats] = {}
    sizes, chances = [], []
    for row, similarity in similar:
        if row not in drawn:
            continue
        kept, others, right = clips_for(row)
        measured = []
        for chosen in drawn.pop(row):
            clips = np.concatenate([kept, others if size is None else chosen])
            positive = right[clips]
            if positive.any():
                measured.append(_score(similarity[clips], positive, ks))
                chances.append([_chance(clips.size, int(positive.sum()), k) for k in ks])
                sizes.append(clips.size)
        if measured:
            results[int(row)] = np.mean(measured, 0)
    index = sorted(results)
    if not index:
        raise EvaluationError(
            f'no query of {n} can be measured with {m} gallery clips'
            + (f' and galleries of {size}: take a smaller size' if size is not None else
               ': none has both a right clip and a wrong one'))
    table = np.array([results[row] for row in index])
    rows, named = np.array(index, np.int64), groups[np.array(index, np.int64)]
    ranks = table[:, 0]
    return Retrieval(
        level, {k: cluster_mean(table[:, 2 + i], named, seed=seed) for i, k in enumerate(ks)},
        cluster_mean(table[:, 1], named, seed=seed),
        resample(lambda chosen: float(np.median(ranks[chosen])), named, seed=seed),
        dict(zip(ks, np.mean(chances, 0).tolist(), strict=True)), float(np.mean(sizes)), rounds,
        n - len(index), rows, {k: table[:, 2 + i] for i, k in enumerate(ks)}, ranks, table[:, 1])


def _score(similarity: Floats, right: Bools, ks: Sequence[int]) -> list[float]:
    """Return first rank, average precision and a hit for each k of one ranking."""
    wrong = np.sort(similarity[~right])
    found = np.sort(similarity[right])[::-1]
    ahead = wrong.size - np.searchsorted(wrong, found - TIE, side='left')
    places = np.arange(1, found.size + 1)
    ranks = ahead + places
    return [float(ranks[0]), float((places / ranks).mean()), *(float(ranks[0] <= k) for k in ks)]


def _chance(size: int, right: int, k: int) -> float:
    """Return the probability that k clips drawn from a gallery hold a right one."""
    return 1.0 - math.comb(size - right, k) / math.comb(size, k) if k <= size else 1.0
