# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Fit a taught head: regularised logistic regressions, of which attempts left out choose the kind.

The unit is the attempt: each counts as one however long it is, and no tick of it stands on two
sides of a fold. Takes of one session stay together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hralign_ros.models.taught_head import QUADRANTS, TaughtHead
from hralign_ros.runtime.bundle import Manifest
from hralign_ros.runtime.report import Report
from hralign_ros.training.attempts import Attempt, Attempts
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
import torch

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
# Scores of the ticks of attempts, by the attempt's row.
Scores = list[Doubles]
_FOLDS = 10
# Most directions that a regression sees, and most ticks that choose them.
_DIRECTIONS, _SPAN_ROWS = 300, 1500
# Most ticks of one attempt that a regression is fitted to.
_TICKS = 60
# Least part of all variance that is left for the axes, and for all but them: a lab in which
# nothing moves is not one where nothing ever will.
_OOD_FLOOR = 0.02
_OOD_AXES, _OOD_FRAMES, _OOD_POINTS = 24, 12, 1200


@dataclass(frozen=True)
class Recipe:
    """
    What a head looks at.

    :param name: for people.
    :param grid: side of the grid that tokens are pooled to; 0: no tokens.
    :param video: also the base head's vector.
    """

    name: str
    grid: int
    video: bool = False


RECIPES = (
    Recipe('mean token', 1), Recipe('2x2 grid', 2), Recipe('7x7 grid', 7),
    Recipe('7x7 grid and base head', 7, True), Recipe('base head', 0, True))
# Inverse strengths of regularisation, on features of variance 1 altogether.
STRENGTHS = (10.0, 100.0, 1000.0)


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

    :param losses: balanced log loss on attempts left out, by recipe and strength.
    """

    recipe: Recipe
    strength: float
    losses: Mapping[tuple[str, float], float]


def folds(attempts: Sequence[Attempt], seed: int = 0) -> NDArray[np.int64]:
    """
    Deal attempts into folds, each kind evenly; takes of one session go together.

    :returns: int64, the fold of each attempt.
    """
    rng = np.random.default_rng(seed)
    kinds = np.array([a.succeeds for a in attempts])
    sessions = np.array([a.episode.session or a.episode.episode_id for a in attempts])
    count = min(_FOLDS, int(kinds.sum()), int((~kinds).sum()))
    load = np.zeros((count, 2), np.int64)
    fold = np.zeros(len(attempts), np.int64)
    names, first = np.unique(sessions, return_index=True)
    order = names[rng.permutation(len(names))]
    # The largest sessions first; each into the fold that has fewest of its kind.
    size = {name: int((sessions == name).sum()) for name in names}
    for name in sorted(order, key=lambda one: -size[one]):
        members = sessions == name
        more = np.array([(members & ~kinds).sum(), (members & kinds).sum()])
        best = int(np.argmin((load * (more > 0)).sum(1)))
        fold[members] = best
        load[best] += more
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
        seen = attempt.tokens[:, views] * regions[views][..., None]
        pooled = cells(grid, recipe.grid) @ seen
        parts += [pooled, pooled - pooled[:1]]
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
    return weights * len(attempts)


def _regress(x: Floats, wanted: Doubles, weights: Doubles, strength: float) -> tuple[
        Doubles, float]:
    """Fit a regularised logistic regression: weights [k] and bias."""
    used = weights > 0
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
    model.fit(x[used], wanted[used] > 0.5, weights[used])
    return np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])


def left_out_scores(
    attempts: Sequence[Attempt], rows: Rows, fold: NDArray[np.int64], strength: float,
    target: str = 'done',
) -> Scores:
    """Score every attempt by regressions that were not fitted to it or to its session."""
    wanted = _targets(attempts, target)
    scores = np.zeros(len(wanted))
    for k in range(int(fold.max()) + 1):
        apart = fold[rows.owner] == k
        known = np.where(apart, np.nan, wanted)
        a, b = _regress(rows.x, known, _weights(attempts, known, rows.owner), strength)
        scores[apart] = rows.x[apart] @ a + b
    return [scores[rows.owner == i] for i in range(len(attempts))]


def choose(
    attempts: Sequence[Attempt], views: Sequence[int], names: frozenset[str],
    grid: tuple[int, int], regions: Floats, recipes: Sequence[Recipe], report: Report = print,
) -> Choice:
    """Choose recipe and strength by the balanced log loss on attempts left out."""
    fold = folds(attempts)
    losses: dict[tuple[str, float], float] = {}
    found: dict[tuple[str, float], tuple[Recipe, float]] = {}
    for recipe in recipes:
        rows = rows_of(attempts, recipe, views, names, grid, regions)
        wanted = _targets(attempts, 'done')
        weights = _weights(attempts, wanted, rows.owner)
        used = weights > 0
        for strength in STRENGTHS:
            scores = np.concatenate(left_out_scores(attempts, rows, fold, strength))
            losses[recipe.name, strength] = float(log_loss(
                wanted[used], 1.0 / (1.0 + np.exp(-np.clip(scores[used], -30.0, 30.0))),
                sample_weight=weights[used]))
            found[recipe.name, strength] = recipe, strength
        best = min(losses[recipe.name, s] for s in STRENGTHS)
        report(f'    {recipe.name}: log loss {best:.3f} on attempts left out')
    recipe, strength = found[min(losses, key=lambda key: losses[key])]
    return Choice(recipe, strength, losses)


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
    tokens = 2 * len(views) * recipe.grid ** 2 * size
    if recipe.grid:
        # [newest, difference][V, P, R] to tokens.
        pooled = flat[:tokens].reshape(2, len(views), recipe.grid ** 2, size)
        spread = np.einsum('pn,hvpr->hvnr', cells(grid, recipe.grid), pooled)
        spread *= regions[views][None, :, :, None]
        head.weight[row, column][:, list(views)] = torch.from_numpy(spread.astype(np.float32))
    if recipe.video:
        head.video_weight[row, column] = torch.from_numpy(flat[tokens:].astype(np.float32))
    head.bias[row, column] = bias


def fit_final(
    attempts: Sequence[Attempt], rows: Rows, strength: float, target: str = 'done',
) -> tuple[Doubles, float]:
    """Fit the regression that is kept to all attempts."""
    wanted = _targets(attempts, target)
    return _regress(rows.x, wanted, _weights(attempts, wanted, rows.owner), strength)


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
            0, len(a.means) - 1, each).round().astype(int)), view] for a in attempts])
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


def ood_scores(head: TaughtHead, attempt: Attempt, views: Sequence[int]) -> Doubles:
    """Score the ticks of an attempt: float64 [F]."""
    there = torch.zeros(attempt.means.shape[1])
    there[list(views)] = 1.0
    return np.asarray(head.ood_score(torch.from_numpy(attempt.means), there), np.float64)
