# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Which failure mode each failed episode belongs to: clusters of directions, refreshed."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
ASSIGNMENTS = ('kmeans', 'balanced')
BASES = ('motion', 'video')
_ITERATIONS = 30
# Parts of an attempt whose motion is measured one by one.
_PARTS = 6


def motion_profile(tokens: NDArray[np.float16]) -> Floats:
    """
    Tell how much of what is seen changes in each part of an attempt.

    How an attempt fails shows in when it moves and when it stops, and less in what is visible in
    the end. It does not change while the head learns, as the head's own vectors do.

    :param tokens: [F, V, N, R].
    :returns: [parts * V * R].
    """
    rows = np.linspace(0, len(tokens) - 1, _PARTS + 1).round().astype(np.int64)
    change = np.diff(tokens[rows].astype(np.float32), axis=0)
    return np.asarray(np.abs(change).mean(2).ravel(), np.float64)


def cluster(
    points: Floats, count: int, *, before: Floats | None = None, assignment: str = 'kmeans',
    seed: int = 0,
) -> tuple[Labels, Floats]:
    """
    Group directions by their cosine (spherical k-means), or into groups of equal size.

    :param points: [n, D], of any norm but 0.
    :param count: of clusters wanted; fewer where there are fewer points.
    :param before: centres [K, D] of the last time: cluster k starts from centre k and so keeps
        its meaning. Two centres that went to each other's places are swapped back. None: start
        from points that are far from each other.
    :param assignment: kmeans, or balanced: as even as the points allow (Sinkhorn-Knopp).
    :returns: labels [n], 0 to count - 1; centres [K, D] of norm 1.
    :raises ValueError: unknown assignment, or there are no points.
    """
    if assignment not in ASSIGNMENTS:
        raise ValueError(f"assignment is '{assignment}'; allowed: {', '.join(ASSIGNMENTS)}")
    if not len(points):
        raise ValueError('no points to group')
    points = _unit(np.asarray(points, np.float64))
    used = min(count, len(points))
    if before is not None and len(before) >= used:
        centres = _unit(np.asarray(before, np.float64)[:used])
    else:
        centres = _far_apart(points, used, np.random.default_rng(seed))
    labels = np.full(len(points), -1, np.int64)
    for _ in range(_ITERATIONS):
        cosines = points @ centres.T
        fresh = _balanced(cosines) if assignment == 'balanced' else cosines.argmax(1)
        if (fresh == labels).all():
            break
        labels = fresh
        for k in range(used):
            if (labels == k).any():
                centres[k] = _unit(points[labels == k].sum(0)[None])[0]
            else:
                # An empty cluster takes the point that fits worst where it is.
                worst = cosines[np.arange(len(points)), labels].argmin()
                labels[worst], centres[k] = k, points[worst]
    if before is not None and len(before) >= used:
        labels, centres = _matched(labels, centres, _unit(np.asarray(before)[:used]))
    return labels, centres


def _matched(labels: Labels, centres: Floats, before: Floats) -> tuple[Labels, Floats]:
    """Renumber clusters so that together they are as near to the old ones as can be."""
    from scipy.optimize import linear_sum_assignment

    # Row: new cluster; column: the number it gets.
    _, number = linear_sum_assignment(-(centres @ before.T))
    renumbered = np.empty_like(centres)
    renumbered[number] = centres
    return np.asarray(number)[labels], renumbered


def _far_apart(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Choose points to start from, as k-means++ does, on the sphere."""
    chosen = [int(rng.integers(len(points)))]
    while len(chosen) < count:
        distance = np.clip(1.0 - (points @ points[chosen].T).max(1), 0.0, None)
        distance[chosen] = 0.0
        total = distance.sum()
        free = np.setdiff1d(np.arange(len(points)), chosen)
        chosen.append(int(rng.choice(len(points), p=distance / total) if total > 0
                          else rng.choice(free)))
    return points[chosen].copy()


def _balanced(cosines: Floats, sharpness: float = 20.0, rounds: int = 100) -> Labels:
    """Assign points so that clusters are equally large (Sinkhorn-Knopp on exp(sharpness cos))."""
    plan = np.exp(sharpness * (cosines - cosines.max()))
    for _ in range(rounds):
        plan /= np.maximum(plan.sum(0, keepdims=True), 1e-300) * plan.shape[1]
        plan /= np.maximum(plan.sum(1, keepdims=True), 1e-300) * plan.shape[0]
    return np.asarray(plan.argmax(1), np.int64)


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
