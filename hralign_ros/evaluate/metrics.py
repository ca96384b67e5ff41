# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
What an embedding is worth, from plain arrays: retrieval, domain gap, collapse, tasks, actions.

Features are float32 or float64 [n, C], one row per clip or frame; labels are strings, one per
row. Every function says what it refuses with an EvaluationError; none of them changes its input,
and equal input and seed give equal output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from typing import Any, Literal
import warnings

from hralign_ros.evaluate.bootstrap import (
    breakdown,
    cluster_bootstrap,
    cluster_mean,
    cluster_numbers,
    Estimate,
    EvaluationError,
    Floats,
    Ints,
    jackknife,
    join_labels,
    Labels,
    paired_difference,
    resample,
)
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

# Cosines nearer than this are a tie: float32 features do not tell them apart.
TIE = 1e-7
# Strength of the logistic regressions; fixed, so that no variant gets a better tuned one. Strong
# regularisation is what separates held-out groups best with more features than clips.
LOGISTIC_C = 0.01
MLP_UNITS = 64
MLP_EPOCHS = 100
# Ridge penalties per training row, on standardised inputs.
RIDGE_ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)

Bools = NDArray[np.bool_]
Level = Literal['instance', 'task']
Classifier = Literal['linear', 'mlp']


# E1: retrieval --------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Retrieval:
    """
    How well a query finds its clip in a gallery.

    :param level: what is right: the own pair (instance), or any clip of the task.
    :param recall: R@k by k: the share of queries with a right clip among the first k.
    :param average_precision: its mean over queries is the mAP.
    :param median_rank: median over queries of the rank of the first right clip (mean over draws).
    :param chance: R@k of random features.
    :param gallery: clips in the gallery of a query, on average; fixed where a size was given.
    :param draws: galleries drawn for each query; 1 where all clips are the gallery.
    :param left_out: queries without a right clip, or with too few others.
    :param index: rows of the queries that were measured, int64 [n].
    :param hits: share of draws with a right clip among the first k, by k, float64 [n].
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
    Rank gallery clips by cosine for each query clip (E1).

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
    q, g = _unit('query', query), _unit('gallery', gallery)
    if q.shape[1] != g.shape[1]:
        raise EvaluationError(f'queries have {q.shape[1]} channels, the gallery {g.shape[1]}')
    return _retrieve(q @ g.T, identity, identity_g, task_q, task_g, level, own_pair, scene_q,
                     scene_g, ks, gallery_size, draws, clusters, seed)


def retrieval_with_queries(
    pool_query: Callable[[Ints, int], ArrayLike], pool_gallery: Callable[[Ints, int], ArrayLike],
    *, text: ArrayLike, identity: Labels, task_q: Labels, task_g: Labels,
    identity_g: Labels | None = None, level: Level = 'instance', own_pair: bool = True,
    scene_q: Labels | None = None, scene_g: Labels | None = None, ks: Sequence[int] = (1, 5),
    gallery_size: int | None = None, draws: int = 20, clusters: Labels | None = None,
    seed: int = 0,
) -> Retrieval:
    """
    Rank gallery clips where each query is pooled with its own text (E1 without a text leak).

    If every clip were pooled with its own task's text, the text alone would tell clips of one task
    from the rest. Here all clips of the gallery are pooled with the QUERY's text, so what they
    differ in comes from the pictures. Other parameters are those of `retrieval`.

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
    similarity = np.empty((len(texts), len(every)))
    for number in np.unique(texts):
        rows = np.flatnonzero(texts == number)
        q = _unit('query', pool_query(rows, int(number)), len(rows))
        g = _unit('gallery', pool_gallery(every, int(number)), len(every))
        similarity[rows] = q @ g.T
    return _retrieve(similarity, identity, identity_g, task_q, task_g, level, own_pair, scene_q,
                     scene_g, ks, gallery_size, draws, clusters, seed)


def _retrieve(
    similarity: Floats, identity: Labels, identity_g: Labels | None, task_q: Labels,
    task_g: Labels, level: Level, own_pair: bool, scene_q: Labels | None, scene_g: Labels | None,
    ks: Sequence[int], size: int | None, draws: int, clusters: Labels | None, seed: int,
) -> Retrieval:
    n, m = similarity.shape
    ids_q = _labels('identity', identity, n)
    ids_g = _labels('identity_g', identity if identity_g is None else identity_g, m)
    tasks_q, tasks_g = _labels('task_q', task_q, n), _labels('task_g', task_g, m)
    if level not in ('instance', 'task') or (level == 'instance' and not own_pair):
        raise EvaluationError(
            f"level '{level}', own pair {own_pair}: allowed are instance with the own pair, "
            'and task')
    if (scene_q is None) != (scene_g is None):
        raise EvaluationError(
            'a gallery chosen by scene needs the scenes of queries and of the gallery')
    if not ks or min(ks) < 1 or draws < 1:
        raise EvaluationError(f'ks {tuple(ks)} and draws {draws} must be at least 1')
    own = ids_q[:, None] == ids_g[None, :]
    same_task = tasks_q[:, None] == tasks_g[None, :]
    allowed = own | np.True_
    if scene_q is not None and scene_g is not None:
        scenes_q, scenes_g = _labels('scene_q', scene_q, n), _labels('scene_g', scene_g, m)
        same_scene = scenes_q[:, None] == scenes_g[None, :]
        allowed = own | (same_scene & ~same_task) if own_pair else ~same_scene
    if not own_pair:
        allowed &= ~own
    right = own if level == 'instance' else own | same_task
    groups = _labels('clusters', clusters, n) if clusters is not None else (
        ids_q if scene_q is None else join_labels(tasks_q, np.asarray(scene_q)))

    generator = np.random.default_rng(seed)
    rounds = draws if size is not None else 1
    index, results, sizes, chances = [], [], [], []
    for row in range(n):
        kept = np.flatnonzero(allowed[row] & own[row])
        others = np.flatnonzero(allowed[row] & ~own[row])
        room = others.size if size is None else size - kept.size
        if room > others.size or room < 0 or (own_pair and not kept.size) or not others.size:
            continue
        measured = []
        for _ in range(rounds):
            drawn = others if size is None else generator.permutation(others)[:room]
            clips = np.concatenate([kept, drawn])
            positive = right[row, clips]
            if positive.any():
                measured.append(_score(similarity[row, clips], positive, ks))
                chances.append([_chance(clips.size, int(positive.sum()), k) for k in ks])
                sizes.append(clips.size)
        if measured:
            index.append(row)
            results.append(np.mean(measured, 0))
    if not index:
        raise EvaluationError(
            f'no query of {n} can be measured with {m} gallery clips'
            + (f' and galleries of {size}: take a smaller size' if size is not None else
               ': none has both a right clip and a wrong one'))
    table = np.array(results)
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


# E2: domain gap -------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class ProxyDistance:
    """
    How easily a classifier tells human from robot.

    :param distance: 2 (1 - 2 epsilon): 2 where it is always right, 0 where it guesses; below 0 by
        bad luck only, and not clipped, so that means stay unbiased.
    :param error: epsilon: mean of the two domains' error rates on held-out groups.
    :param wrong: per row, humans first, on the fold that held it out.
    """

    distance: Estimate
    error: Estimate
    classifier: Classifier
    shuffled: bool
    wrong: Bools


def proxy_a_distance(
    human: ArrayLike, robot: ArrayLike, *, groups_h: Labels, groups_r: Labels,
    classifier: Classifier = 'linear', folds: int = 5, shuffled: bool = False, seed: int = 0,
) -> ProxyDistance:
    """
    Return the proxy A-distance between human and robot features (E2).

    A classifier on standardised features learns on some groups and is tested on others, so that it
    cannot know a domain by its task or its background. Linear: logistic regression, C 0.01. MLP:
    one layer of 64 ReLU units, Adam, 100 epochs, weight decay 1e-3. Both weigh the domains alike.
    The interval draws groups of held-out predictions; it does not train again.

    :param human: [n, C]; every clip once, also where it has several robot partners.
    :param robot: [m, C].
    :param groups_h: task and scene of each human clip, [n]: join_labels(task, scene).
    :param groups_r: [m].
    :param shuffled: control: permute the domain labels; the distance must come out near 0.
    :raises EvaluationError: fewer groups than folds, a fold that trains on one domain only, or
        values that are not finite.
    """
    h, r = _features('human', human), _features('robot', robot)
    if h.shape[1] != r.shape[1]:
        raise EvaluationError(f'human has {h.shape[1]} channels, robot {r.shape[1]}')
    if classifier not in ('linear', 'mlp'):
        raise EvaluationError(f"classifier '{classifier}': allowed are linear and mlp")
    inputs = np.concatenate([h, r])
    domain = np.repeat([0, 1], [len(h), len(r)])
    groups = np.concatenate([_labels('groups_h', groups_h, len(h)),
                             _labels('groups_r', groups_r, len(r))])
    if shuffled:
        domain = np.random.default_rng(seed).permutation(domain)
    wrong = np.zeros(len(inputs), bool)
    for train, test in group_folds(groups, folds, seed):
        if len(np.unique(domain[train])) < 2:
            raise EvaluationError('a fold has one domain only: both need clips of most groups')
        wrong[test] = _classify(classifier, inputs[train], domain[train], inputs[test],
                                seed) != domain[test]
    counted = np.stack([domain == 0, domain == 1], -1).astype(np.float64)
    columns = np.concatenate([wrong[:, None] * counted, counted], -1)

    def error(sums: Floats) -> Floats:
        return np.asarray((sums[:, 0] / sums[:, 2] + sums[:, 1] / sums[:, 3]) / 2)

    return ProxyDistance(
        cluster_bootstrap(columns, groups, lambda s: 2 * (1 - 2 * error(s)), seed=seed),
        cluster_bootstrap(columns, groups, error, seed=seed), classifier, shuffled, wrong)


# E3: similarity and collapse ------------------------------------------------------------------

@dataclass(frozen=True)
class Spread:
    """
    Whether features still use their space.

    :param effective_rank: exp of the entropy of the centred features' normalised singular values:
        1 where they vary along one line, at most min(n - 1, C).
    :param norm_entropy: entropy of the features' lengths over log n: 1 where all are equally
        long, towards 0 where a few hold all the length.
    :param variation: 1 - |mean of the unit features|^2: 0 where all point the same way.
    """

    effective_rank: Estimate
    norm_entropy: Estimate
    variation: Estimate


def linear_cka(human: ArrayLike, robot: ArrayLike, *, clusters: Labels) -> Estimate:
    """
    Return debiased linear CKA between features of the same pairs (E3).

    HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) with the unbiased estimator of HSIC, so that unrelated
    features give 0 also with more channels than clips. 1 where one is the other, rotated and
    scaled. The interval is a jackknife over clusters.

    :param human: [n, C].
    :param robot: [n, D], row i is the partner of human row i.
    :param clusters: [n].
    :raises EvaluationError: rows that do not match, fewer than 4 of them in any part, or features
        that do not vary.
    """
    h, r = _features('human', human), _features('robot', robot)
    if len(h) != len(r):
        raise EvaluationError(f'{len(h)} human and {len(r)} robot rows are not pairs')
    h, r = h - h.mean(0), r - r.mean(0)
    kernel_h, kernel_r = h @ h.T, r @ r.T
    np.fill_diagonal(kernel_h, 0.0)
    np.fill_diagonal(kernel_r, 0.0)

    def cka(rows: Ints) -> float:
        k, m = kernel_h[np.ix_(rows, rows)], kernel_r[np.ix_(rows, rows)]
        scale = _unbiased_hsic(k, k) * _unbiased_hsic(m, m)
        if not scale > 0.0:
            raise EvaluationError('CKA of features that do not vary is not defined')
        return _unbiased_hsic(k, m) / math.sqrt(scale)

    return jackknife(cka, clusters)


def spread(features: ArrayLike, *, clusters: Labels) -> Spread:
    """
    Return effective rank, norm entropy and variation of features (E3): the guards on collapse.

    Compare them only at equal n: the effective rank grows with the number of clips. Intervals are
    jackknives over clusters.

    :param features: [n, C].
    :raises EvaluationError: fewer than 3 rows, or a feature that is zero.
    """
    x = _features('features', features)
    if len(x) < 3:
        raise EvaluationError(f'{len(x)} features are too few to have a spread')
    unit = _unit('features', x)
    norms = np.linalg.norm(x, axis=1)

    def rank(rows: Ints) -> float:
        centred = x[rows] - x[rows].mean(0)
        # Eigenvalues of the smaller Gram matrix: squares of the singular values.
        gram = centred @ centred.T if len(rows) < x.shape[1] else centred.T @ centred
        values = np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0.0, None))
        # What rounding leaves of a rank that is not there.
        values = values[values > values.max() * 1e-6]
        return math.exp(_entropy(values / values.sum())) if values.size else 1.0

    return Spread(
        jackknife(rank, clusters),
        jackknife(lambda i: _entropy(norms[i] / norms[i].sum()) / math.log(len(i)), clusters),
        jackknife(lambda i: 1.0 - float((unit[i].mean(0) ** 2).sum()), clusters))


def _unbiased_hsic(k: Floats, m: Floats) -> float:
    """Return the unbiased HSIC of two kernels with zero diagonals (Song et al. 2012)."""
    n = len(k)
    if n < 4:
        raise EvaluationError(f'debiased CKA needs at least 4 pairs, and a part has {n}')
    cross = float(k.sum(0) @ m.sum(1))
    return float((k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2))
                 - 2.0 * cross / (n - 2)) / (n * (n - 3))


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


# E4: task separability ------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Separability:
    """
    Whether features tell tasks apart where the scene is new.

    :param accuracy: on clips of scenes that were left out.
    :param within: on the same clips with their scene known (other episodes of it).
    :param drop: within - accuracy.
    :param chance: 1 / number of tasks.
    :param left_out: clips whose task no other scene has.
    :param index: rows that were measured, int64 [n].
    :param right: whether each was right with its scene left out, bool [n].
    """

    accuracy: Estimate
    within: Estimate
    drop: Estimate
    chance: float
    left_out: int
    index: Ints
    right: Bools


def separability(
    features: ArrayLike, *, tasks: Labels, scenes: Labels, episodes: Labels,
    classifier: Literal['knn', 'linear'] = 'knn', k: int = 5, max_folds: int = 10, seed: int = 0,
) -> Separability:
    """
    Classify the task, leaving scenes out (E4).

    kNN: votes of the k most similar clips by cosine; a tied vote goes to the larger similarity.
    Linear: logistic regression on standardised features, C 0.01; more than `max_folds` scenes are
    left out several at a time. `within` leaves out episodes in place of scenes. Intervals draw
    episodes.

    :param features: [n, C].
    :param tasks: [n].
    :param scenes: [n].
    :param episodes: clips of one episode (its views, its twins) never vote for each other, [n].
    :raises EvaluationError: fewer than 2 tasks or scenes, or no clip that can be measured.
    """
    x = _features('features', features)
    names, places = _labels('tasks', tasks, len(x)), _labels('scenes', scenes, len(x))
    runs = _labels('episodes', episodes, len(x))
    count = len(np.unique(names))
    if count < 2 or len(np.unique(places)) < 2:
        raise EvaluationError(
            f'{count} task(s) in {len(np.unique(places))} scene(s): at least 2 of both are needed')
    elsewhere = (names[:, None] == names[None, :]) & (places[:, None] != places[None, :])
    index = np.flatnonzero(elsewhere.any(1))
    if not index.size:
        raise EvaluationError('no task is shown in two scenes: nothing can be left out')
    if classifier == 'knn':
        unit = _unit('features', x)
        similarity = unit @ unit.T
        across = _vote(similarity, names, places[:, None] != places[None, :], k)
        inside = _vote(similarity, names, runs[:, None] != runs[None, :], k)
    elif classifier == 'linear':
        across = _probe_labels(x, names, places, max_folds, seed)
        inside = _probe_labels(x, names, runs, max_folds, seed)
    else:
        raise EvaluationError(f"classifier '{classifier}': allowed are knn and linear")
    right, known = (across == names)[index], (inside == names)[index]
    return Separability(
        cluster_mean(right, runs[index], seed=seed), cluster_mean(known, runs[index], seed=seed),
        paired_difference(known, right, runs[index], seed=seed), 1 / count, len(x) - len(index),
        index, right)


def task_distance_ratio(
    features: ArrayLike, *, tasks: Labels, episodes: Labels, scenes: Labels | None = None,
) -> Estimate:
    """
    Return the mean cosine distance within tasks over that between tasks; less is better (E4).

    :param features: [n, C].
    :param tasks: [n].
    :param episodes: clips of one episode are not compared with each other, [n].
    :param scenes: [n]; given: only clips of different scenes are compared, on both sides.
    :raises EvaluationError: a part of the jackknife has no pair within or between tasks.
    """
    unit = _unit('features', features)
    names, runs = _labels('tasks', tasks, len(unit)), _labels('episodes', episodes, len(unit))
    counted = runs[:, None] != runs[None, :]
    if scenes is not None:
        places = _labels('scenes', scenes, len(unit))
        counted &= places[:, None] != places[None, :]
    distance = 1.0 - unit @ unit.T
    same = names[:, None] == names[None, :]

    def ratio(rows: Ints) -> float:
        part = np.ix_(rows, rows)
        inner, outer = counted[part] & same[part], counted[part] & ~same[part]
        if not inner.any() or not outer.any():
            raise EvaluationError('the distance ratio needs clips within and between tasks')
        between = float(distance[part][outer].mean())
        return float(distance[part][inner].mean()) / between if between > TIE else 1.0

    return jackknife(ratio, runs)


def _vote(similarity: Floats, names: NDArray[np.str_], allowed: Bools, k: int) -> NDArray[np.str_]:
    labels, numbers = np.unique(names, return_inverse=True)
    result = np.zeros(len(names), labels.dtype)
    for row in range(len(names)):
        others = np.flatnonzero(allowed[row])
        nearest = others[np.argsort(-similarity[row, others], kind='stable')[:k]]
        # A vote outweighs any difference between sums of k similarities.
        votes = np.bincount(numbers[nearest], (k + 1) * 2 + similarity[row, nearest],
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
        result[test] = _classify('linear', x[train], names[train], x[test], seed)
    return result


# E5: what an action can be read from ----------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Probe:
    """
    A linear read-out of continuous targets.

    :param r2: 1 - squared error / squared error of the training mean, on held-out episodes, mean
        over targets; below 0 where the mean would have been better.
    :param per_target: the same for each target that varies, float64 [D'].
    :param targets: columns of the targets that vary, int64 [D'].
    :param penalties: ridge penalty per training row that each fold's inner folds chose.
    :param errors: squared errors, float64 [n, D'].
    :param baseline: squared errors of the training mean, float64 [n, D'].
    :param episodes: of each row.
    """

    r2: Estimate
    per_target: Floats
    targets: Ints
    penalties: tuple[float, ...]
    errors: Floats
    baseline: Floats
    episodes: NDArray[np.str_]


def action_probe(
    features: ArrayLike, actions: ArrayLike, *, episodes: Labels, step: int = 1, folds: int = 5,
    seed: int = 0,
) -> Probe:
    """
    Read the action off (z_t, z_{t+step}): linear inverse dynamics (E5).

    :param features: [n, C], frames in the order of time within each episode.
    :param actions: [n, A], sent at each frame.
    :param episodes: [n].
    :raises EvaluationError: as proprio_probe, or no episode has more than `step` frames.
    """
    x = _features('features', features)
    runs = _labels('episodes', episodes, len(x))
    if step < 1:
        raise EvaluationError(f'step {step} must be at least 1')
    numbers, _ = cluster_numbers(runs, len(runs))
    order = np.argsort(numbers, kind='stable')
    first, last = order[:-step], order[step:]
    same = runs[first] == runs[last]
    first, last = first[same], last[same]
    if not first.size:
        raise EvaluationError(f'no episode has more than {step} frames')
    commands = _targets('actions', actions, len(x))
    return _ridge_probe(np.concatenate([x[first], x[last]], 1), commands[first], runs[first],
                        folds, seed)


def proprio_probe(
    features: ArrayLike, proprio: ArrayLike, *, episodes: Labels, folds: int = 5, seed: int = 0,
) -> Probe:
    """
    Read proprioception (or any other target) off single frames (E5).

    Ridge regression on standardised inputs; episodes are held out whole, standardisation is
    learned inside the fold, and the penalty is chosen by 3 inner folds of other episodes. Targets
    that never change are left out.

    :param features: [n, C].
    :param proprio: [n, P].
    :param episodes: [n].
    :raises EvaluationError: fewer episodes than folds, fewer than 3 to train on, no target that
        varies, or values that are not finite.
    """
    x = _features('features', features)
    return _ridge_probe(x, _targets('proprio', proprio, len(x)),
                        _labels('episodes', episodes, len(x)), folds, seed)


def r2_difference(a: Probe, b: Probe, *, seed: int = 0) -> Estimate:
    """
    Return R2 of probe a - R2 of probe b over the same rows, in paired draws of episodes.

    :raises EvaluationError: the two are not of the same rows and targets.
    """
    if a.errors.shape != b.errors.shape or not np.array_equal(a.episodes, b.episodes):
        raise EvaluationError('the two probes are not of the same frames and targets')
    return cluster_bootstrap(
        np.stack([a.errors, a.baseline, b.errors, b.baseline], 1), a.episodes,
        lambda s: _r2(s[:, :2]) - _r2(s[:, 2:]), seed=seed)


def _r2(sums: Floats) -> Floats:
    """[draws, 2, D] sums of squared errors and of the mean's -> mean over targets [draws]."""
    return np.asarray((1.0 - sums[:, 0] / sums[:, 1]).mean(-1))


def _ridge_probe(
    x: Floats, y: Floats, runs: NDArray[np.str_], folds: int, seed: int,
) -> Probe:
    varies = np.flatnonzero(y.std(0) > 1e-8 * (1.0 + np.abs(y).max(0)))
    if not varies.size:
        raise EvaluationError('no target varies: there is nothing to predict')
    y = y[:, varies]
    errors, baseline = np.empty_like(y), np.empty_like(y)
    penalties = []
    for train, test in group_folds(runs, folds, seed):
        scaler = StandardScaler().fit(x[train])
        mean, scale = y[train].mean(0), y[train].std(0)
        scale[scale == 0.0] = 1.0
        with threadpool_limits(1):
            predicted, penalty = _ridge(scaler.transform(x[train]), (y[train] - mean) / scale,
                                        runs[train], scaler.transform(x[test]), seed)
        penalties.append(penalty)
        errors[test] = (predicted * scale + mean - y[test]) ** 2
        baseline[test] = (mean - y[test]) ** 2
    columns = np.stack([errors, baseline], 1)
    per_target = 1.0 - errors.sum(0) / baseline.sum(0)
    return Probe(cluster_bootstrap(columns, runs, _r2, seed=seed), per_target, varies,
                 tuple(penalties), errors, baseline, runs)


def _ridge(
    x: Floats, y: Floats, groups: NDArray[np.str_], test: Floats, seed: int,
) -> tuple[Floats, float]:
    """
    Predict test rows by ridge regression with the penalty of the least error on inner folds.

    x and y are standardised, so that no intercept is needed. Products are formed once and shared
    by all inner folds: of rows where there are fewer of them than of columns, else of columns,
    where an inner fold's training part is the whole minus its test part.

    :returns: predictions, and the penalty per training row.
    """
    few = len(x) < x.shape[1]
    product = x @ x.T if few else x.T @ x
    moment = y if few else x.T @ y
    losses = np.zeros(len(RIDGE_ALPHAS))
    for train, held in group_folds(groups, 3, seed):
        if few:
            inner, right = product[np.ix_(train, train)], y[train]
            part = product[np.ix_(held, train)]
        else:
            part = x[held]
            inner, right = product - part.T @ part, moment - part.T @ y[held]
        for i, alpha in enumerate(RIDGE_ALPHAS):
            predicted = part @ _solve(inner, right, alpha * len(train))
            losses[i] += ((predicted - y[held]) ** 2).sum()
    best = RIDGE_ALPHAS[int(losses.argmin())]
    weights = _solve(product, moment, best * len(x))
    return (test @ x.T if few else test) @ weights, best


def _solve(product: Floats, moment: Floats, penalty: float) -> Floats:
    damped = product.copy()
    damped.flat[::len(product) + 1] += penalty
    return np.asarray(linalg.solve(damped, moment, assume_a='pos', overwrite_a=True))


# E6: nearest-neighbour policy -----------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Policy:
    """
    Open-loop error of a policy that copies its nearest neighbours.

    :param error: mean absolute action error, mean over dimensions, in units of the action.
    :param normalised: the same with each dimension divided by its standard deviation in the demos.
    :param baseline: normalised error of always giving the demos' mean action of the task.
    :param per_task: normalised error by task.
    :param episodes: that were held out in at least one seed, in order, [E].
    :param tasks: of each of them, [E].
    :param errors: normalised error of each episode, mean over the seeds that held it out, [E].
    :param seeds: of the choice of demos.
    """

    error: Estimate
    normalised: Estimate
    baseline: Estimate
    per_task: dict[str, Estimate]
    episodes: NDArray[np.str_]
    tasks: NDArray[np.str_]
    errors: Floats
    seeds: tuple[int, ...]


def nearest_neighbour_policy(
    features: ArrayLike, actions: ArrayLike, *, episodes: Labels, tasks: Labels,
    demos: int | None = None, seeds: Sequence[int] = (0, 1, 2, 3, 4), k: int = 5,
    metric: Literal['cosine', 'euclidean'] = 'cosine',
) -> Policy:
    """
    Predict actions of held-out episodes from the nearest frames of demos of the same task (E6).

    The action is the mean of the k neighbours' actions with weights softmax(-d^2 / h), d the
    distance of unit features (or of the features as they are) and h the mean d^2 of these k, so
    that the scale of an embedding plays no part. For each seed and task `demos` episodes are the
    demos and the others are tested; the choice depends on names and seed alone, so two embeddings
    get the same ones. Every tested episode counts the same. Intervals draw episodes. Nothing acts:
    errors do not add up over time here as they do on a robot.

    :param features: one row per frame, [n, C].
    :param actions: [n, A].
    :param episodes: [n].
    :param tasks: [n].
    :param demos: episodes per task; None: half of them.
    :raises EvaluationError: a task without an episode to test, an episode of two tasks, or fewer
        than k frames of demos.
    """
    x = _features('features', features)
    if metric == 'cosine':
        x = _unit('features', x)
    elif metric != 'euclidean':
        raise EvaluationError(f"metric '{metric}': allowed are cosine and euclidean")
    if k < 1 or not seeds:
        raise EvaluationError('at least one neighbour and one seed are needed')
    y = _targets('actions', actions, len(x))
    runs, names = _labels('episodes', episodes, len(x)), _labels('tasks', tasks, len(x))
    every, first, numbers = np.unique(runs, return_index=True, return_inverse=True)
    task_of = names[first]
    if (task_of[numbers] != names).any():
        raise EvaluationError('an episode has frames of two tasks')
    measured = np.full((len(seeds), len(every), 3), np.nan)
    for i, seed in enumerate(seeds):
        for task in np.unique(task_of):
            own = np.flatnonzero(task_of == task)
            chosen = _choose_demos(every[own], demos, seed, str(task))
            train = np.isin(runs, chosen)
            test = (names == task) & ~train
            if train.sum() < k:
                raise EvaluationError(f"task '{task}': {train.sum()} frames of demos, {k} needed")
            spread_of = y[train].std(0)
            moving = spread_of > 1e-8 * (1.0 + np.abs(y[train]).max(0))
            if not moving.any():
                raise EvaluationError(f"task '{task}': the actions of the demos never change")
            off = np.abs(_neighbours(x[train], y[train], x[test], k) - y[test])
            still = np.abs(y[train].mean(0) - y[test])
            per_frame = np.stack([off.mean(1), (off / spread_of.clip(1e-12))[:, moving].mean(1),
                                  (still / spread_of.clip(1e-12))[:, moving].mean(1)], 1)
            for number in np.unique(numbers[test]):
                measured[i, number] = per_frame[numbers[test] == number].mean(0)
    tested = np.isfinite(measured[..., 0]).any(0)
    table = np.nanmean(measured[:, tested], 0)
    held, held_tasks = every[tested], task_of[tested]
    error, normalised, baseline = (cluster_mean(table[:, i], held) for i in range(3))
    return Policy(error, normalised, baseline, breakdown(table[:, 1], held_tasks, held), held,
                  held_tasks, table[:, 1], tuple(seeds))


def policy_difference(a: Policy, b: Policy, *, seed: int = 0) -> Estimate:
    """
    Return the normalised error of policy a - that of b, in paired draws of episodes.

    :raises EvaluationError: the two were not tested on the same episodes and seeds.
    """
    if not np.array_equal(a.episodes, b.episodes) or a.seeds != b.seeds:
        raise EvaluationError('the two policies were not tested on the same episodes and seeds')
    return paired_difference(a.errors, b.errors, a.episodes, seed=seed)


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


# Common ---------------------------------------------------------------------------------------

def group_folds(groups: Labels, folds: int, seed: int) -> list[tuple[Ints, Ints]]:
    """
    Split rows into folds so that no group is in two of them.

    :returns: rows to train on and rows to test, per fold.
    :raises EvaluationError: fewer groups than folds.
    """
    names = np.asarray(groups)
    count = len(np.unique(names))
    if not 2 <= folds <= count:
        raise EvaluationError(
            f'{count} group(s) for {folds} folds: at least 2 folds and as many groups are needed')
    splitter = GroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(names)), groups=names))


def _classify(
    classifier: Classifier, x: Floats, y: NDArray[Any], test: Floats, seed: int,
) -> NDArray[Any]:
    """Train on standardised features with classes of equal weight; return labels for test."""
    scaler = StandardScaler().fit(x)
    x, test = scaler.transform(x), scaler.transform(test)
    if classifier == 'linear':
        model = LogisticRegression(C=LOGISTIC_C, max_iter=1000)
        with threadpool_limits(1):
            x, test = _span(x, test)
    else:
        model = MLPClassifier((MLP_UNITS,), alpha=1e-3, max_iter=MLP_EPOCHS, random_state=seed)
        x, test = x.astype(np.float32), test.astype(np.float32)
    # On busy cores threads wait for each other longer than they work.
    with threadpool_limits(1), warnings.catch_warnings():
        # The number of epochs is the budget; whether it was enough for the last digit is not news.
        warnings.simplefilter('ignore', ConvergenceWarning)
        model.fit(x, y, sample_weight=compute_sample_weight('balanced', y))
    return np.asarray(model.predict(test))


def _span(x: Floats, test: Floats) -> tuple[Floats, Floats]:
    """
    Write rows in coordinates of the space that the training rows span, where that is smaller.

    Penalised linear models are the same there: their weights lie in that space.
    """
    if len(x) >= x.shape[1]:
        return x, test
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > values.max() * 1e-10
    if not kept.any():
        return x, test
    scaled = vectors[:, kept] / np.sqrt(values[kept])
    return vectors[:, kept] * np.sqrt(values[kept]), test @ x.T @ scaled


def _features(name: str, values: ArrayLike, rows: int | None = None) -> Floats:
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or not x.size or (rows is not None and len(x) != rows):
        raise EvaluationError(
            f'{name}: shape {x.shape}; needed are [{"n" if rows is None else rows}, channels], '
            'not empty')
    if not np.isfinite(x).all():
        raise EvaluationError(
            f'{name}: {int((~np.isfinite(x).all(1)).sum())} of {len(x)} rows are not finite')
    return x


def _unit(name: str, values: ArrayLike, rows: int | None = None) -> Floats:
    x = _features(name, values, rows)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise EvaluationError(
            f'{name}: {int((norms == 0).sum())} of {len(x)} features are zero and have no '
            'direction; leave these clips out')
    return np.asarray(x / norms)


def _targets(name: str, values: ArrayLike, rows: int) -> Floats:
    return _features(name, values, rows)


def _labels(name: str, labels: Labels, rows: int) -> NDArray[np.str_]:
    names = np.asarray(labels).astype(np.str_)
    if names.shape != (rows,):
        raise EvaluationError(f'{name}: {names.shape} for {rows} rows; needed is one for each')
    return names
