# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Whether a score follows the work, and whether it knows which work."""

from collections.abc import Sequence

from hralign_ros.evaluation.bootstrap import EvaluationError, Floats, Labels
import numpy as np
from numpy.typing import NDArray
from scipy import stats


def value_order_correlations(values: Sequence[Floats]) -> Floats:
    """
    Correlate each episode's values with time (Spearman; VOC of GVL).

    :param values: one array per episode; constant ones and those of one frame count as 0.
    :returns: [episodes], -1 to 1.
    """
    found = []
    for row in values:
        row = np.asarray(row, float)
        ordered = len(row) > 1 and np.ptp(row) > 0
        found.append(float(stats.spearmanr(row, np.arange(len(row)))[0]) if ordered else 0.0)
    return np.array(found)


def confusion(
    scores: Floats, tasks: Labels, instructions: Sequence[str],
) -> tuple[Floats, float, float]:
    """
    Tell for which instruction each video's score is highest.

    :param scores: [videos, instructions].
    :param tasks: true instruction of each video, [videos].
    :returns: fraction of each task's videos that score highest for each instruction, rows in the
        order of `instructions`; accuracy; chance.
    :raises EvaluationError: a task that is not among the instructions.
    """
    names = list(instructions)
    missing = sorted(set(map(str, tasks)) - set(names))
    if missing or np.shape(scores) != (len(tasks), len(names)):
        raise EvaluationError(
            f'scores {np.shape(scores)} for {len(tasks)} videos and {len(names)} instructions; '
            f'not among them: {", ".join(missing) or "none"}')
    truth: NDArray[np.int64] = np.array([names.index(str(task)) for task in tasks])
    best = np.asarray(scores).argmax(1)
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (truth, best), 1.0)
    table /= np.maximum(table.sum(1, keepdims=True), 1.0)
    return table, float((truth == best).mean()), 1.0 / len(names)
