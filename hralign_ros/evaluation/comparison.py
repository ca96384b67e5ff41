# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Compare two measured variants on the same queries, episodes and seeds."""

from collections.abc import Mapping

from hralign_ros.evaluation.bootstrap import (
    Estimate,
    EvaluationError,
    paired_difference,
    paired_ratio,
)
from hralign_ros.evaluation.encoder_suite import Measured
import numpy as np


def compare(found: Measured, better: str, worse: str, split: str) -> tuple[Estimate, Estimate]:
    """
    Return ratio and difference of R@1 of two variants on the same queries.

    Of seeds, those that both have are compared, each with its like, and drawn too.
    """
    a, b = _same_seeds(found, better, worse, split, found.hits)
    clusters = found.clusters[split]
    return paired_ratio(a, b, clusters), paired_difference(a, b, clusters)


def compare_policies(found: Measured, one: str, other: str, split: str) -> Estimate:
    """
    Return the difference of E6's error of two variants, seeds as in `compare`.

    :raises EvaluationError: they were not tested on the same episodes and choices of demos.
    """
    policies = [*found.policies[one, split], *found.policies[other, split]]
    if any(not np.array_equal(p.episodes, policies[0].episodes) or p.seeds != policies[0].seeds
           for p in policies):
        raise EvaluationError(f"'{one}' and '{other}' were not tested on the same episodes")
    errors = {(name, split): np.stack([p.errors for p in found.policies[name, split]])
              for name in (one, other)}
    return paired_difference(
        *_same_seeds(found, one, other, split, errors), policies[0].episodes)


def _same_seeds(
    found: Measured, one: str, other: str, split: str,
    values: Mapping[tuple[str, str], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows [S, n] of the seeds that both have; [n] for a variant without seeds."""
    names = (one, other)
    known = [found.seeds_of[name] for name in names]
    if not all(known):
        first, second = (values[name, split] if seeds else values[name, split][0]
                         for name, seeds in zip(names, known, strict=True))
        return first, second
    common = [seed for seed in known[0] if seed in known[1]]
    if not common:
        raise EvaluationError(f"'{one}' and '{other}' have no seed in common")
    first, second = (values[name, split][[seeds.index(s) for s in common]]
                     for name, seeds in zip(names, known, strict=True))
    return first, second
