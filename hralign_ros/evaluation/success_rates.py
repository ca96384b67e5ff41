# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Success rates of policies, with intervals, and paired comparisons of two.

Plain Python, as it also runs beside the simulators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import TypeVar

Start = TypeVar('Start')

# Of the standard normal distribution, for 95 %.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """
    A fraction of attempts with its 95 % interval (Wilson).

    :param successes: of n attempts.
    """

    successes: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Give the fraction."""
        return self.successes / self.n


@dataclass(frozen=True)
class Comparison:
    """
    Two policies on the same starts.

    :param pairs: starts that both were tried from.
    :param only_first: pairs in which the first alone succeeded; only_second likewise.
    :param difference: success rate of the first minus that of the second.
    :param low: of its 95 % interval (Newcombe's for pairs).
    :param p_value: of McNemar's exact test, two-sided.
    """

    pairs: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p_value: float


def rate(successes: int, n: int) -> Rate:
    """
    Give a success rate with its Wilson interval.

    :raises ValueError: no attempts, or more successes than attempts.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f'{successes} successes of {n} attempts')
    p, denominator = successes / n, 1.0 + _Z ** 2 / n
    centre = (p + _Z ** 2 / (2 * n)) / denominator
    half = _Z * math.sqrt(p * (1 - p) / n + _Z ** 2 / (4 * n * n)) / denominator
    return Rate(successes, n, max(0.0, centre - half), min(1.0, centre + half))


def compare(first: Mapping[Start, bool], second: Mapping[Start, bool]) -> Comparison:
    """
    Compare two policies on the starts that both were tried from.

    :param first: success by start.
    :raises ValueError: they have no start in common.
    """
    common = sorted(set(first) & set(second), key=repr)
    if not common:
        raise ValueError('the two have no start in common')
    only_first = sum(first[one] and not second[one] for one in common)
    only_second = sum(second[one] and not first[one] for one in common)
    both = sum(first[one] and second[one] for one in common)
    n = len(common)
    low, high = _newcombe(both, only_first, only_second, n)
    return Comparison(n, only_first, only_second, (only_first - only_second) / n, low, high,
                      mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Give the two-sided p-value of McNemar's exact test for the pairs that differ."""
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2 ** n
    return min(1.0, 2.0 * tail)


def _newcombe(both: int, only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """Give Newcombe's interval (method 10) of a difference of paired fractions."""
    neither = n - both - only_first - only_second
    one, other = rate(both + only_first, n), rate(both + only_second, n)
    difference = (only_first - only_second) / n
    margins = (both + only_first) * (only_second + neither) \
        * (both + only_second) * (only_first + neither)
    phi = 0.0
    if margins:
        product = both * neither - only_first * only_second
        phi = (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)
    lower, upper = one.value - one.low, other.high - other.value
    below = math.sqrt(max(0.0, lower ** 2 - 2 * phi * lower * upper + upper ** 2))
    lower, upper = other.value - other.low, one.high - one.value
    above = math.sqrt(max(0.0, upper ** 2 - 2 * phi * lower * upper + lower ** 2))
    return max(-1.0, difference - below), min(1.0, difference + above)
