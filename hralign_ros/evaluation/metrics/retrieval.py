# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""How well a clip of one side finds its partner, or its task, on the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import math

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
from hralign_ros.evaluation.metrics.rows import Bools, labels_of, TIE, unit_rows
import numpy as np
from numpy.typing import ArrayLike

# Queries whose cosines with the whole gallery are in memory at a time.
_BLOCK = 256
# Features [k, C] of some clips, int64 [k], as pooled with the text of a number.
Pool = Callable[[Ints, int], ArrayLike]


@dataclass(frozen=True, eq=False)
class Retrieval:
    """
    How well a query finds its clip in a gallery.

    :param recall: R@k by k: the fraction of queries with a right clip among the first k.
    :param average_precision: its mean over queries is the mAP.
    :param median_rank: median over queries of the rank of the first right clip (mean over draws).
    :param chance: R@k of random features.
    :param index: rows of the queries that were measured, int64 [n]: not of those without a right
        clip, or with too few others.
    :param hits: fraction of draws with a right clip among the first k, by k, float64 [n].
    :param ranks: rank of the first right clip, mean over draws, float64 [n].
    :param precisions: average precision, mean over draws, float64 [n].
    """

    recall: dict[int, Estimate]
    average_precision: Estimate
    median_rank: Estimate
    chance: dict[int, float]
    index: Ints
    hits: dict[int, Floats]
    ranks: Floats
    precisions: Floats


def retrieval(
    query: Pool, gallery: Pool, *, text: ArrayLike, identity: Labels, tasks: Labels,
    scenes: Labels | None = None, own_pair: bool = True, ks: Sequence[int] = (1, 5),
    gallery_size: int | None = None, draws: int = 20, clusters: Labels | None = None,
    seed: int = 0,
) -> Retrieval:
    """
    Rank gallery clips by cosine for each query clip: clips of one side of n pairs by the other's.

    All clips of a gallery are pooled with the QUERY's text. If every clip were pooled with its own
    task's text, the text alone would tell clips of one task from the rest; so what they differ in
    comes from the images. One text for all queries says nothing at all.

    Swap query and gallery for the other direction. A tie never helps: a right clip ranks behind
    every wrong one that is as similar, so collapsed features score 0 and not 1.

    A gallery of fixed size holds the query's own pair and other clips drawn at random, the same
    ones for every variant of the features with the same seed; figures of splits of different
    sizes compare only so. Intervals draw clusters of queries; the clips at hand stay the gallery.

    With scenes given the gallery is a hard one: the own pair, and clips of the query's scene
    with another task. Background alone finds nothing there. Without the own pair it is the other
    way about: only clips of other scenes, where background leads astray.

    :param query: (rows int64 [k], text number) -> features [k, C] of these clips of one side.
    :param gallery: the same of the other side.
    :param text: number of each query's text, int [n].
    :param identity: what was recorded, [n]; a clip of the same is the own pair.
    :param tasks: [n].
    :param scenes: [n]; given: hard gallery.
    :param own_pair: whether the own pair is in the gallery, and alone is right; False: any clip of
        the task is right.
    :param gallery_size: clips in every gallery, own pair included; None: all.
    :param draws: galleries for each query, where a size is given; the mean over them counts.
    :param clusters: what is drawn together for intervals, [n]; None: task and scene where scenes
        are given, else the pair.
    :raises EvaluationError: shapes that do not fit, values that are not finite, a zero feature,
        a size beyond what is there, or no query that can be measured.
    """
    texts = np.asarray(text)
    if texts.ndim != 1 or not np.issubdtype(texts.dtype, np.integer):
        raise EvaluationError(
            f'text: {texts.dtype} {texts.shape}; needed is one integer for each query')
    if not ks or min(ks) < 1 or draws < 1:
        raise EvaluationError(f'ks {tuple(ks)} and draws {draws} must be at least 1')
    n, size = len(texts), gallery_size
    ids, names = labels_of('identity', identity, n), labels_of('tasks', tasks, n)
    places = labels_of('scenes', names if scenes is None else scenes, n)
    groups = labels_of('clusters', clusters, n) if clusters is not None else (
        ids if scenes is None else join_labels(names, places))
    identities, task_numbers, scene_numbers = (
        np.unique(labels, return_inverse=True)[1] for labels in (ids, names, places))

    def clips_for(row: int) -> tuple[Ints, Ints, Bools]:
        """Give the own clips in a query's gallery, the others that may be, and what is right."""
        own, same_task = identities == identities[row], task_numbers == task_numbers[row]
        others = ~own
        if scenes is not None:
            same_scene = scene_numbers == scene_numbers[row]
            others &= same_scene & ~same_task if own_pair else ~same_scene
        return (np.flatnonzero(own) if own_pair else np.zeros(0, np.int64),
                np.flatnonzero(others), own if own_pair else same_task)

    # All galleries are drawn first, in the order of queries, so that they depend on nothing else.
    generator = np.random.default_rng(seed)
    drawn: dict[int, Ints] = {}
    for row in range(n):
        kept, others, _ = clips_for(row)
        room = others.size if size is None else size - kept.size
        if 0 <= room <= others.size and others.size:
            drawn[row] = np.zeros((1, 0), np.int32) if size is None else np.stack([
                generator.permutation(others)[:room] for _ in range(draws)]).astype(np.int32)
    results: dict[int, Floats] = {}
    chances = []
    for row, similarity in _similar(query, gallery, texts):
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
        if measured:
            results[int(row)] = np.mean(measured, 0)
    if not results:
        raise EvaluationError(
            f'no query of {n} can be measured with {n} gallery clips'
            + (f' and galleries of {size}: take a smaller size' if size is not None else
               ': none has both a right clip and a wrong one'))
    index = np.array(sorted(results), np.int64)
    table, named = np.array([results[row] for row in index.tolist()]), groups[index]
    ranks = table[:, 0]
    return Retrieval(
        {k: cluster_mean(table[:, 2 + i], named, seed=seed) for i, k in enumerate(ks)},
        cluster_mean(table[:, 1], named, seed=seed),
        resample(lambda chosen: float(np.median(ranks[chosen])), named, seed=seed),
        dict(zip(ks, np.mean(chances, 0).tolist(), strict=True)), index,
        {k: table[:, 2 + i] for i, k in enumerate(ks)}, ranks, table[:, 1])


def _similar(query: Pool, gallery: Pool, texts: Ints) -> Iterator[tuple[int, Floats]]:
    """Give each query's row with its cosines with the gallery [n], computed some at a time."""
    every = np.arange(len(texts))
    for number in np.unique(texts):
        rows = np.flatnonzero(texts == number)
        q = unit_rows('query', query(rows, int(number)), len(rows))
        g = unit_rows('gallery', gallery(every, int(number)), len(every))
        if q.shape[1] != g.shape[1]:
            raise EvaluationError(f'queries have {q.shape[1]} channels, the gallery {g.shape[1]}')
        for start in range(0, len(rows), _BLOCK):
            some = slice(start, start + _BLOCK)
            yield from zip(rows[some], q[some] @ g.T, strict=True)


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
