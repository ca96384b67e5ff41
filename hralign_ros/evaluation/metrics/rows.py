# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Checks of what every metric is given, and folds that keep groups whole."""

from hralign_ros.evaluation.bootstrap import EvaluationError, Floats, Ints, Labels
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import GroupKFold

# Cosines nearer than this are a tie: float32 features do not tell them apart.
TIE = 1e-7

# A column's spread counts as at least this fraction of all columns' root mean square: one that
# hardly moves in training would be blown up where it does move.
LEAST_SPREAD = 0.1

Bools = NDArray[np.bool_]


def features_of(name: str, values: ArrayLike, rows: int | None = None) -> Floats:
    x = np.asarray(values, np.float64)
    if x.ndim != 2 or not x.size or (rows is not None and len(x) != rows):
        raise EvaluationError(
            f'{name}: shape {x.shape}; needed are [{"n" if rows is None else rows}, channels], '
            'not empty')
    if not np.isfinite(x).all():
        raise EvaluationError(
            f'{name}: {int((~np.isfinite(x).all(1)).sum())} of {len(x)} rows are not finite')
    return x


def unit_rows(name: str, values: ArrayLike, rows: int | None = None) -> Floats:
    x = features_of(name, values, rows)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise EvaluationError(
            f'{name}: {int((norms == 0).sum())} of {len(x)} features are zero and have no '
            'direction; leave these clips out')
    return np.asarray(x / norms)


def labels_of(name: str, labels: Labels, rows: int) -> NDArray[np.str_]:
    names = np.asarray(labels).astype(np.str_)
    if names.shape != (rows,):
        raise EvaluationError(f'{name}: {names.shape} for {rows} rows; needed is one for each')
    return names


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


def spread_of(x: Floats) -> Floats:
    """Return what to divide columns by: their deviation, none far below that of the others."""
    width = x.std(0)
    least = LEAST_SPREAD * float(np.sqrt((width ** 2).mean()))
    return np.maximum(width, least) if least > 0 else np.ones_like(width)
