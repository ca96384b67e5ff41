# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Confidence intervals: every number of a report carries one.

Clips of one episode, or of one task in one scene, are alike. So whole clusters are drawn and not
clips: drawing clips as if they were independent makes intervals too narrow. All intervals are
two-sided 95 %. Percentile intervals of fewer than about 20 clusters are somewhat too narrow.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hralign_ros.runtime.errors import HralignError
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

DRAWS = 2000
LEVEL = 0.95
_BLOCKS = 20
# So many weights of draws are in memory at a time: 8 MB.
_WEIGHTS_AT_ONCE = 1 << 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.str_] | Sequence[str]


class EvaluationError(HralignError):
    """A metric cannot be computed from what was handed in."""


@dataclass(frozen=True)
class Estimate:
    """
    A number with its interval.

    :param low: lower end of the 95 % interval; NaN where none can be given.
    :param high: its upper end.
    :param n: how many clips, frames or seeds the value rests on.
    :param clusters: how many independent groups they form.
    :param method: how the interval was made: bootstrap, jackknife, student, clopper-pearson; ''
        where there is none.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    method: str = 'bootstrap'


def cluster_numbers(clusters: Labels, rows: int) -> tuple[Ints, int]:
    """
    Give each row the number of its cluster.

    :returns: number of each row's cluster, int64 [rows], and how many clusters there are.
    :raises EvaluationError: not one name per row.
    """
    names = np.asarray(clusters)
    if names.shape != (rows,):
        raise EvaluationError(f'clusters {names.shape} for {rows} rows; needed is one for each')
    unique, numbers = np.unique(names, return_inverse=True)
    return numbers.astype(np.int64).reshape(rows), len(unique)


def cluster_bootstrap(
    columns: ArrayLike, clusters: Labels, function: Callable[[Floats], Floats], *,
    draws: int = DRAWS, seed: int = 0,
) -> Estimate:
    """
    Bootstrap a statistic that depends on sums over rows alone: means, rates, ratios, R2.

    Whole clusters are drawn with replacement; the interval is the percentiles of the draws. Of
    several training seeds, seeds are drawn as well.

    :param columns: what is summed, [S, n, ...] of S seeds measured on the same n rows.
    :param clusters: name of each row's cluster, [n].
    :param function: sums [draws, ...] -> statistic [draws].
    :raises EvaluationError: no row, a value that is not finite, or a single cluster.
    """
    values = _finite('values', columns)
    seeds, width = values.shape[:2]
    numbers, count = cluster_numbers(clusters, width)
    if count < 2:
        raise EvaluationError(
            'an interval needs at least 2 clusters, and all rows belong to one')
    flat = values.reshape(seeds, width, -1)
    sums = np.zeros((seeds, count, flat.shape[2]))
    for row, total in zip(flat, sums, strict=True):
        np.add.at(total, numbers, row)
    generator = np.random.default_rng(seed)
    seed_weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    weights = generator.multinomial(count, np.full(count, 1 / count), draws)
    totals = weights @ sums[0] if seeds == 1 else np.einsum(
        'ds,dc,sck->dk', seed_weights, weights, sums, optimize=True)
    with np.errstate(divide='ignore', invalid='ignore'):
        drawn = function(totals.reshape(draws, *values.shape[2:]))
        value = float(function(sums.sum((0, 1)).reshape(1, *values.shape[2:]))[0])
    low, high = _percentiles(drawn)
    return Estimate(value, low, high, width, count)


def cluster_mean(
    values: ArrayLike, clusters: Labels, *, draws: int = DRAWS, seed: int = 0,
) -> Estimate:
    """
    Return the mean of values with the interval of a cluster bootstrap.

    :param values: [n], or [S, n] for S training seeds measured on the same rows: then seeds are
        drawn as well, and the interval holds for another seed too.
    :param clusters: [n].
    :raises EvaluationError: as cluster_bootstrap.
    """
    return paired_ratio(values, np.ones_like(values, np.float64), clusters, draws=draws,
                        seed=seed)


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Labels, *, draws: int = DRAWS, seed: int = 0,
) -> Estimate:
    """
    Return mean(a) - mean(b), both measured on the same rows.

    Each draw takes the same clusters for both, so what they have in common cancels out.

    :param a: [n] or [S, n]; with seeds in both, row s of a and of b are the same seed.
    :param b: [n] or [S, n]; without seeds it is one value for all of a's seeds.
    :raises EvaluationError: as cluster_bootstrap, or the two do not match.
    """
    first, second = _paired(a, b)
    return cluster_mean(first - second, clusters, draws=draws, seed=seed)


def paired_ratio(
    a: ArrayLike, b: ArrayLike, clusters: Labels, *, draws: int = DRAWS, seed: int = 0,
) -> Estimate:
    """
    Return mean(a) / mean(b), both measured on the same rows.

    Draws in which b is zero count as infinite, so a baseline that is hardly ever right gives an
    interval without an upper end, not a narrow one.

    :param a: as paired_difference.
    :param b: as paired_difference, not negative.
    :raises EvaluationError: as cluster_bootstrap, or the two do not match.
    """
    return cluster_bootstrap(np.stack(_paired(a, b), -1), clusters,
                             lambda sums: sums[:, 0] / sums[:, 1], draws=draws, seed=seed)


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """Give two values of each row, [S, n] both."""
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape and not (
            {first.ndim, second.ndim} == {1, 2} and first.shape[-1] == second.shape[-1]):
        raise EvaluationError(f'{first.shape} and {second.shape} cannot be paired row by row')
    one, other = np.broadcast_arrays(np.atleast_2d(first), np.atleast_2d(second))
    return one, other


def resample(
    statistic: Callable[[Ints], float], clusters: Labels, *, draws: int = 500, seed: int = 0,
    centred: bool = False,
) -> Estimate:
    """
    Bootstrap any statistic of rows, for example a median.

    Not for statistics of pairs of rows: a cluster that is drawn twice matches itself there. See
    jackknife.

    :param statistic: row numbers, some more than once, -> value.
    :param clusters: [n].
    :param centred: move the interval so that the draws' mean is the value: for a statistic that
        noise makes larger, which has more of it in every draw than in the data.
    :raises EvaluationError: fewer than 2 clusters.
    """
    rows = len(clusters)
    members = _members(clusters)
    generator = np.random.default_rng(seed)
    drawn = [statistic(np.concatenate([members[i] for i in generator.integers(
        0, len(members), len(members))])) for _ in range(draws)]
    low, high = _percentiles(np.asarray(drawn, np.float64))
    value = float(statistic(np.arange(rows)))
    shift = value - float(np.nanmean(drawn)) if centred else 0.0
    return Estimate(value, low + shift, high + shift, rows, len(members))


def resample_weights(
    statistics: Callable[[Floats], Floats], clusters: Labels, *, draws: int = 500, seed: int = 0,
) -> list[Estimate]:
    """
    Bootstrap statistics of weighted rows: the draws of `resample`, many at a time.

    :param statistics: how often each row was drawn [D, n] -> values of K statistics [D, K].
    :param clusters: [n].
    :returns: K estimates.
    :raises EvaluationError: fewer than 2 clusters.
    """
    numbers, _ = cluster_numbers(clusters, len(clusters))
    count = len(_members(clusters))
    generator = np.random.default_rng(seed)
    times = np.stack([np.bincount(generator.integers(0, count, count), minlength=count)
                      for _ in range(draws)]).astype(np.float64)
    at_once = max(1, _WEIGHTS_AT_ONCE // len(numbers))
    drawn = np.concatenate([statistics(times[i:i + at_once][:, numbers])
                            for i in range(0, draws, at_once)])
    values = statistics(np.ones((1, len(numbers))))[0]
    return [Estimate(float(value), *_percentiles(column), len(numbers), count)
            for value, column in zip(values, drawn.T, strict=True)]


def jackknife(
    statistic: Callable[[Ints], float], clusters: Labels, *, blocks: int = _BLOCKS, seed: int = 0,
) -> Estimate:
    """
    Give a statistic of pairs of rows the interval of a delete-a-group jackknife.

    Clusters are dealt into at most `blocks` blocks; the statistic's variance comes from leaving
    out one block at a time, its interval from Student's t. No row is ever used twice, which a
    bootstrap would do and which kernel and rank statistics take for similarity.

    :param statistic: row numbers, each once, -> value.
    :param clusters: [n].
    :raises EvaluationError: fewer than 2 clusters.
    """
    rows = len(clusters)
    members = _members(clusters)
    order = np.random.default_rng(seed).permutation(len(members))
    count = min(blocks, len(members))
    left_out = [np.concatenate([members[i] for i in part])
                for part in np.array_split(order, count)]
    every = np.arange(rows)
    value = float(statistic(every))
    without = np.array([statistic(np.setdiff1d(every, part)) for part in left_out])
    error = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, count - 1) * error)
    return Estimate(value, value - reach, value + reach, rows, len(members), 'jackknife')


def seed_mean(values: ArrayLike) -> Estimate:
    """
    Return the mean over training seeds with Student's interval; n is the number of seeds.

    :param values: one number per seed, [S].
    :raises EvaluationError: fewer than 2 seeds, or a value that is not finite.
    """
    rows = _finite('values', values)
    if rows.ndim != 1 or len(rows) < 2:
        raise EvaluationError(f'{rows.shape}: an interval over seeds needs at least 2 of them')
    error = rows.std(ddof=1) / np.sqrt(len(rows))
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(rows) - 1) * error)
    mean = float(rows.mean())
    return Estimate(mean, mean - reach, mean + reach, len(rows), len(rows), 'student')


def rate(events: int, trials: int) -> Estimate:
    """
    Return a fraction of independent trials with its exact (Clopper-Pearson) interval.

    :raises EvaluationError: no trial, or more events than trials.
    """
    if not 0 <= events <= trials or trials < 1:
        raise EvaluationError(f'{events} events in {trials} trials')
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, events, trials - events + 1) if events else 0.0
    high = stats.beta.ppf(1 - tail, events + 1, trials - events) if events < trials else 1.0
    return Estimate(events / trials, float(low), float(high), trials, trials, 'clopper-pearson')


def rule_of_three(events: int, amount: float) -> float:
    """
    Bound a rate of rare events from above, with 95 % confidence.

    :param amount: independent segments, or hours, that were observed.
    :returns: events per unit; 3 / amount where none was seen.
    :raises EvaluationError: nothing was observed.
    """
    if amount <= 0:
        raise EvaluationError(f'{amount} observed; needed is more than 0')
    return float(stats.chi2.ppf(0.95, 2 * (events + 1)) / 2 / amount)


def without_interval(value: float, n: int, clusters: int | None = None) -> Estimate:
    """Return a number that has no interval; clusters: n unless said otherwise."""
    return Estimate(value, np.nan, np.nan, n, n if clusters is None else clusters, '')


def join_labels(*labels: Labels) -> NDArray[np.str_]:
    """
    Combine labels row by row, for example task and scene into one group.

    :raises EvaluationError: they differ in length.
    """
    columns = [np.asarray(column).astype(np.str_) for column in labels]
    if len({column.shape for column in columns}) != 1:
        raise EvaluationError(f'labels of lengths {[len(c) for c in columns]} cannot be joined')
    return np.array([' | '.join(row) for row in zip(*columns, strict=True)], np.str_)


def plain(estimate: Estimate) -> Mapping[str, Any]:
    """Return an estimate's fields for a report; numbers that are not finite become None."""
    return {key: value if not isinstance(value, float) else float(value) if np.isfinite(value)
            else None for key, value in vars(estimate).items()}


def _percentiles(drawn: Floats) -> tuple[float, float]:
    """Return the interval of the draws; draws without a value (0 / 0) are left out."""
    known = drawn[~np.isnan(drawn)]
    if 2 * len(known) < len(drawn):
        return np.nan, np.nan
    # An order statistic on the outer side: interpolating next to an infinity gives NaN.
    tail = (1 - LEVEL) / 2
    return (float(np.quantile(known, tail, method='lower')),
            float(np.quantile(known, 1 - tail, method='higher')))


def _members(clusters: Labels) -> list[Ints]:
    numbers, count = cluster_numbers(clusters, len(clusters))
    if count < 2:
        raise EvaluationError(f'an interval needs at least 2 clusters, and there are {count}')
    return [np.flatnonzero(numbers == i) for i in range(count)]


def _finite(name: str, values: ArrayLike) -> Floats:
    rows = np.asarray(values, np.float64)
    if rows.ndim == 0 or rows.size == 0:
        raise EvaluationError(f'{name}: nothing to measure, shape {rows.shape}')
    if not np.isfinite(rows).all():
        raise EvaluationError(
            f'{name}: {int((~np.isfinite(rows)).sum())} of {rows.size} values are not finite')
    return rows
