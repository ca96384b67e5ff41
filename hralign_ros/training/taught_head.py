# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Fit a taught head: ridge regressions, of which attempts left out choose the kind.

The unit is the attempt: each counts as one however long it is, and no tick of it stands on two
sides of a fold. Takes of one session stay together. A regression on labels of 1 and -1, weighed so
that both count alike, is Fisher's discriminant with a regularised covariance: on as few attempts
it told more than logistic regression, and takes milliseconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math

from hralign_ros.data.manifest import DataError
from hralign_ros.models.taught_head import contrast, QUADRANTS, TaughtHead
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.training.attempts import Attempt, Attempts
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve
from scipy.special import expit
import torch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# Scores of the ticks of attempts, by the attempt's row.
Scores = list[Doubles]
_FOLDS, _INNER_FOLDS = 10, 5
# How often the accomplished ticks are extended, see `_extended`.
_EXTENSIONS = 2
# Most directions that a regression sees, and most ticks that choose them.
_DIRECTIONS, _SPAN_ROWS = 200, 1500
# How much the log loss counts beside the AUROC of attempts, for a choice between recipes.
_LOSS_WEIGHT = 0.1
# Least part of all variance that is left for the axes, and for all but them: a lab in which
# nothing moves is not one where nothing ever will.
_OOD_FLOOR = 0.02
_OOD_AXES, _OOD_FRAMES, _OOD_POINTS = 24, 12, 1200
# A view is covered whose contrast is less than this part of the least that was seen. In two labs a
# covered camera had a twentieth of it at most.
_COVERED = 0.25


@dataclass(frozen=True)
class Recipe:
    """
    What a head looks at.

    :param name: for people.
    :param grid: side of the grid that tokens of the newest frame are pooled to; 0: no tokens.
    :param change: also what the tokens differ by from the oldest frame's.
    :param video: also the base head's vector.
    """

    name: str
    grid: int
    change: bool = False
    video: bool = False


# The usual one first. On ten attempts of either kind the others did worse by more than a choice
# between them gained, see `choose`.
RECIPES = (
    Recipe('7x7 grid', 7), Recipe('7x7 grid and change', 7, change=True),
    Recipe('2x2 grid and change', 2, change=True),
    Recipe('7x7 grid, change and base head', 7, change=True, video=True))
# Inverse strengths of regularisation, on features of variance 1 altogether; the usual one first.
STRENGTHS = (10000.0, 1000.0)


@dataclass(frozen=True, eq=False)
class Rows:
    """
    The ticks of attempts as one recipe sees them with some views.

    :param x: float32 [n, k], in directions that keep distances.
    :param directions: float32 [D, k], from features to those.
    :param mean: float32 [D].
    :param scale: float32 [D], by which features were multiplied.
    :param owner: int64 [n], the row of each tick's attempt.
    """

    x: Floats
    directions: Floats
    mean: Floats
    scale: Floats
    owner: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Choice:
    """
    What attempts left out chose.

    :param scores: of each attempt, by regressions of that kind that were not fitted to it.
    :param badness: by recipe and strength: 1 - AUROC of attempts, and a little of the log loss.
    """

    recipe: Recipe
    strength: float
    scores: Scores
    badness: Mapping[tuple[str, float], float]


def folds(attempts: Sequence[Attempt], most: int = _FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """
    Deal attempts into folds, each kind evenly; takes of one session go together.

    :returns: int64, the fold of each attempt. Whatever fold is left out, both kinds remain.
    :raises DataError: too few sessions have attempts of one of the kinds.
    """
    rng = np.random.default_rng(seed)
    kinds = np.array([a.succeeds for a in attempts])
    sessions = np.array([a.episode.session or a.episode.episode_id for a in attempts])
    names = np.unique(sessions)
    more = {name: np.array([((sessions == name) & (kinds == kind)).sum()
                            for kind in (False, True)]) for name in names}
    with_kind = [sum(some[kind] > 0 for some in more.values()) for kind in (0, 1)]
    if min(with_kind) < 2:
        raise DataError(
            f'attempts that fail are of {with_kind[0]} sessions, attempts that succeed of '
            f'{with_kind[1]}; at least two of each are needed, to tell one by the others. Record '
            'both kinds in every session, or leave the session empty')
    count = min(most, *with_kind)
    load = np.zeros((count, 2), np.int64)
    fold = np.zeros(len(attempts), np.int64)
    # The largest sessions first, each into the fold that has least of its kinds.
    for name in sorted(rng.permutation(names), key=lambda one: -int(more[one].sum())):
        wanted = more[name] > 0
        best = int(np.lexsort((load.sum(1), (load * wanted).sum(1)))[0])
        fold[sessions == name] = best
        load[best] += more[name]
    return fold


def cells(grid: tuple[int, int], side: int) -> Floats:
    """Pool a grid of tokens to a coarser one: float32 [side * side, N], rows that sum to 1."""
    rows = np.minimum(np.arange(grid[0]) * side // grid[0], side - 1)
    columns = np.minimum(np.arange(grid[1]) * side // grid[1], side - 1)
    owner = (rows[:, None] * side + columns).ravel()
    pool = (owner == np.arange(side * side)[:, None]).astype(np.float32)
    return pool / np.maximum(pool.sum(1, keepdims=True), 1.0)


def features(
    attempt: Attempt, recipe: Recipe, views: Sequence[int], names: frozenset[str],
    grid: tuple[int, int], regions: Floats,
) -> Floats:
    """
    Lay out what a recipe sees of an attempt's ticks: float32 [F, D].

    :param views: indices of the views that take part; `names` are theirs.
    :param regions: float32 [V, N], 1 for tokens that may be looked at.
    """
    parts = []
    if recipe.grid:
        seen = attempt.tokens[:, views].astype(np.float32) * regions[views][..., None]
        pooled = cells(grid, recipe.grid) @ seen
        parts += [pooled, pooled - pooled[:1]] if recipe.change else [pooled]
    if recipe.video:
        parts.append(attempt.video[names])
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def rows_of(
    attempts: Sequence[Attempt], recipe: Recipe, views: Sequence[int], names: frozenset[str],
    grid: tuple[int, int], regions: Floats,
) -> Rows:
    """Gather the ticks of attempts, in the directions along which they differ most."""
    x = np.concatenate([features(a, recipe, views, names, grid, regions) for a in attempts])
    owner = np.repeat(np.arange(len(attempts)), [len(a.time_s) for a in attempts])
    mean = x.mean(0)
    x -= mean
    scale = np.ones(x.shape[1], np.float32)
    start = x.shape[1] - (attempts[0].video[names].shape[1] if recipe.video else 0)
    for block in (slice(0, start), slice(start, None)):
        spread = float(np.sqrt(np.square(x[:, block]).sum(1).mean())) if x[:, block].size else 0.0
        scale[block] = 1.0 / max(spread, 1e-6)
    x *= scale
    some = x[:: max(1, len(x) // _SPAN_ROWS)]
    size = min(_DIRECTIONS, len(some) - 1, x.shape[1])
    small = x.shape[1] <= len(some)
    gram = (some.T @ some if small else some @ some.T).astype(np.float64)
    values, vectors = eigh(gram, subset_by_index=(len(gram) - size, len(gram) - 1))
    vectors = vectors if small else some.T @ vectors / np.sqrt(np.maximum(values, 1e-9))
    kept = values > max(1e-7 * values[-1], 1e-9)
    kept[-1] = True  # where nothing differs, too
    directions = np.ascontiguousarray(vectors[:, kept], np.float32)
    return Rows(x @ directions, directions, mean, scale, owner)


def _targets(attempts: Sequence[Attempt], target: str) -> Doubles:
    return np.concatenate([getattr(a, target) for a in attempts]).astype(np.float64)


def _weights(
    attempts: Sequence[Attempt], wanted: Doubles, owner: NDArray[np.int64],
) -> Doubles:
    """Weigh ticks: each attempt's of one label as one, both labels alike; unknown ones nothing."""
    weights = np.zeros(len(wanted))
    for value in (0.0, 1.0):
        there = wanted == value
        count = np.bincount(owner[there], minlength=len(attempts))
        weights[there] = 1.0 / count[owner[there]]
        weights[there] *= 0.5 / max(weights[there].sum(), 1e-9)
    return weights


def regress(
    attempts: Sequence[Attempt], rows: Rows, strength: float, target: str = 'done', *,
    without: NDArray[np.bool_] | None = None, extend: bool = True,
) -> tuple[Doubles, float]:
    """
    Fit a ridge regression to 1 and -1: weights [k] and bias.

    :param target: done or failed.
    :param without: bool, attempts that it is not fitted to.
    :param extend: fit again to more accomplished ticks, see `_extended`.
    """
    wanted = _targets(attempts, target)
    if without is not None:
        wanted[without[rows.owner]] = np.nan
    a, b = _fit(attempts, rows, wanted, strength)
    if target == 'done' and extend:
        for _ in range(_EXTENSIONS):
            more = _extended(attempts, rows, wanted, rows.x @ a + b)
            if np.array_equal(more, wanted, equal_nan=True):
                break
            wanted = more
            a, b = _fit(attempts, rows, wanted, strength)
    return a, b


def _fit(
    attempts: Sequence[Attempt], rows: Rows, wanted: Doubles, strength: float,
) -> tuple[Doubles, float]:
    """Fit to labels 1 and 0 of ticks, NaN where there is none."""
    weights = _weights(attempts, wanted, rows.owner)
    used = weights > 0
    x, y, w = rows.x[used].astype(np.float64), np.where(wanted[used] > 0.5, 1.0, -1.0), \
        weights[used]
    middle = w @ x / w.sum()
    x -= middle
    weighed = x * w[:, None]
    matrix = weighed.T @ x / w.sum() + np.eye(x.shape[1]) / strength
    a = solve(matrix, weighed.T @ y / w.sum(), assume_a='pos')
    return np.asarray(a), float(w @ y / w.sum() - middle @ a)


def _extended(
    attempts: Sequence[Attempt], rows: Rows, wanted: Doubles, scores: Doubles,
) -> Doubles:
    """
    Count ticks as accomplished that go before those known to be, and are scored so.

    Where the outcome alone is labelled nobody knows when the task was accomplished; what looks as
    at the end is. Without this a decision came a second later.
    """
    wanted = wanted.copy()
    for i, a in enumerate(attempts):
        if a.timed or not a.succeeds:
            continue
        ticks = np.flatnonzero(rows.owner == i)
        done = np.flatnonzero(wanted[ticks] == 1)
        first = int(done[0]) if len(done) else 0
        while first and np.isnan(wanted[ticks[first - 1]]) and scores[ticks[first - 1]] > 0:
            first -= 1
            wanted[ticks[first]] = 1.0
    return wanted


def left_out_scores(
    attempts: Sequence[Attempt], rows: Rows, fold: NDArray[np.int64], strength: float,
    target: str = 'done', *, without: NDArray[np.bool_] | None = None, extend: bool = True,
) -> Scores:
    """
    Score every attempt by regressions that were not fitted to it or to its session.

    :param fold: of each attempt; negative: not scored.
    :param without: bool, attempts that nothing is fitted to.
    :param extend: as for `regress`.
    """
    scores = np.full(len(rows.x), np.nan)
    for k in range(int(fold.max()) + 1):
        apart = fold == k
        a, b = regress(attempts, rows, strength, target,
                       without=apart if without is None else apart | without, extend=extend)
        ticks = apart[rows.owner]
        scores[ticks] = rows.x[ticks] @ a + b
    return [scores[rows.owner == i] for i in range(len(attempts))]


def choose(
    attempts: Sequence[Attempt], candidates: Mapping[Recipe, Rows], *,
    without: NDArray[np.bool_] | None = None,
) -> Choice:
    """
    Choose recipe and strength by how well they tell attempts left out.

    The first is the usual one. Another replaces it where it is better by more than luck: between
    many that few attempts tell alike, the best is chosen for its luck, and does worse.

    :param candidates: what each recipe sees of the attempts, the usual one first.
    :param without: bool, attempts that take no part, so that the choice is none of theirs.
    """
    fold = np.full(len(attempts), -1)
    part = (np.arange(len(attempts)) if without is None else np.flatnonzero(~without)).tolist()
    own = [attempts[i] for i in part]
    fold[part] = folds(own, _FOLDS if without is None else _INNER_FOLDS)
    badness: dict[tuple[str, float], float] = {}
    usual: Doubles | None = None
    best: tuple[Recipe, float] | None = None
    least = most = np.inf
    for recipe, rows in candidates.items():
        for strength in STRENGTHS:
            # Nothing is extended for a choice: that would take three times as long.
            scores = left_out_scores(
                attempts, rows, fold, strength, without=without, extend=False)
            some = [scores[i] for i in part]
            right = _right(own, some)
            bad = 1.0 - float(right.mean()) + _LOSS_WEIGHT * _loss(own, some)
            badness[recipe.name, strength] = bad
            if usual is None:
                usual, most = right, bad
            if best is None or (bad < least and most - bad > _luck(right - usual)):
                best, least = (recipe, strength), bad
    assert best is not None
    recipe, strength = best
    return Choice(recipe, strength, left_out_scores(
        attempts, candidates[recipe], fold, strength, without=without), badness)


def _right(attempts: Sequence[Attempt], scores: Sequence[Doubles]) -> Doubles:
    """Compare every success with every failure by what holds for two ticks: 1, 0.5 or 0."""
    held = np.array([float(np.minimum(s[:-1], s[1:])[
        (a.done[1:] == 1) if a.succeeds else slice(None)].max(initial=-np.inf))
        for a, s in zip(attempts, scores, strict=True)])
    good = np.array([a.succeeds for a in attempts])
    return np.asarray((np.sign(held[good][:, None] - held[~good]) + 1.0) / 2.0)


def _luck(difference: Doubles) -> float:
    """
    Say by how much the AUROCs of two recipes differ by luck: one standard error (DeLong, 1988).

    And never less than one attempt of the scarcer kind makes, told half right.

    :param difference: of `_right` [successes, failures].
    """
    error = sum(float(placed.var(ddof=1)) / len(placed)
                for placed in (difference.mean(1), difference.mean(0)))
    return max(math.sqrt(error), 0.5 / min(difference.shape))


def _loss(attempts: Sequence[Attempt], scores: Sequence[Doubles]) -> float:
    """Give the log loss of the ticks whose label is known."""
    wanted, every = _targets(attempts, 'done'), np.concatenate(scores)
    weights = _weights(attempts, wanted, np.repeat(
        np.arange(len(attempts)), [len(s) for s in scores]))
    used = weights > 0
    right = expit(2.0 * every[used] * np.where(wanted[used] > 0.5, 1.0, -1.0))
    return float(-(weights[used] @ np.log(np.maximum(right, 1e-9))) / weights.sum())


def write_weights(
    head: TaughtHead, row: int, column: int, rows: Rows, recipe: Recipe, views: Sequence[int],
    grid: tuple[int, int], regions: Floats, coefficients: Doubles, bias: float,
) -> None:
    """
    Put a regression into a head.

    :param row: of the set of views; `column`: 0 success, 1 failure.
    """
    flat = (rows.directions.astype(np.float64) @ coefficients) * rows.scale
    bias -= float(flat @ rows.mean)
    size = head.basis_matrix.shape[1]
    parts = 2 if recipe.change else 1
    tokens = parts * len(views) * recipe.grid ** 2 * size
    if recipe.grid:
        # [newest, change][V, P, R] to tokens.
        pooled = flat[:tokens].reshape(parts, len(views), recipe.grid ** 2, size)
        spread = np.einsum('pn,hvpr->hvnr', cells(grid, recipe.grid), pooled)
        spread *= regions[views][None, :, :, None]
        head.weight[row, column, :parts][:, list(views)] = torch.from_numpy(
            spread.astype(np.float32))
    if recipe.video:
        head.video_weight[row, column] = torch.from_numpy(flat[tokens:].astype(np.float32))
    head.bias[row, column] = bias


def new_head(
    manifest: Manifest, found: Attempts, sets: Sequence[frozenset[str]],
) -> TaughtHead:
    """Make a head without weights, with the basis that the attempts are kept in."""
    head = TaughtHead(
        len(manifest.views), manifest.tokens.grid, manifest.tokens.channels,
        found.basis.matrix.shape[1], manifest.text.dim,
        [[manifest.views.index(view) for view in sorted(views)] for views in sets],
        ood_size=min(_OOD_AXES, QUADRANTS * manifest.tokens.channels))
    head.basis_mean.copy_(torch.from_numpy(found.basis.mean))
    head.basis_matrix.copy_(torch.from_numpy(found.basis.matrix))
    return head


def fit_ood(head: TaughtHead, attempts: Sequence[Attempt], views: Sequence[int]) -> None:
    """
    Fit the out-of-distribution model of each view to some frames of attempts.

    A Gaussian whose axes are the principal ones; along all others the variance is taken to be the
    same (probabilistic PCA).
    """
    each = max(2, min(_OOD_FRAMES, _OOD_POINTS // len(attempts)))
    for view in views:
        points = np.concatenate([a.means[np.unique(np.linspace(
            0, len(a.means) - 1, each).round().astype(int)), view] for a in attempts]).astype(
                np.float32)
        mean = points.mean(0)
        centred = (points - mean).astype(np.float64)
        size = min(head.ood_axes.shape[1], len(points) // 4)
        values, vectors = eigh(centred @ centred.T / len(points), subset_by_index=(
            len(points) - size, len(points) - 1))
        axes = centred.T @ vectors / np.sqrt(np.maximum(values * len(points), 1e-12))
        total = float(np.square(centred).sum() / len(points)) + 1e-6
        head.ood_mean[view] = torch.from_numpy(mean)
        head.ood_matrix[view] = 0.0
        head.ood_matrix[view][:, :size] = torch.from_numpy(axes.astype(np.float32))
        head.ood_axes[view] = 1.0
        head.ood_axes[view][:size] = torch.from_numpy(
            np.maximum(values, _OOD_FLOOR * total / size))
        head.ood_rest[view] = max(total - float(values.sum()), _OOD_FLOOR * total)
        head.contrast_limit[view] = _COVERED * min(
            float(contrast(torch.from_numpy(a.tokens[:, view].astype(np.float32))).min())
            for a in attempts)


def ood_distances(head: TaughtHead, attempt: Attempt) -> Doubles:
    """Measure how far the images of each view are from a lab's, tick by tick: float64 [F, V]."""
    return np.asarray(head.ood_distances(
        torch.from_numpy(attempt.means.astype(np.float32))), np.float64)


def ood_scores(head: TaughtHead, attempt: Attempt, views: Sequence[int]) -> Doubles:
    """Score the ticks of an attempt: float64 [F]."""
    there = torch.zeros(attempt.means.shape[1])
    there[list(views)] = 1.0
    return np.asarray(head.ood_score(
        torch.from_numpy(attempt.means.astype(np.float32)),
        torch.from_numpy(attempt.tokens.astype(np.float32)), there), np.float64)
