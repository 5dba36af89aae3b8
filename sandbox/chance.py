"""Randomness that is the same for a seed on every machine and with every Python.

Python promises that only of `Random.random()`; everything here is built on it with arithmetic
whose last bit does not depend on the C library. PYTHONHASHSEED plays no part.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import exp
from random import Random
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")

_QUANTILES = 4096


class Chance:
    """A stream of random choices, told apart from other streams by its key."""

    def __init__(self, *key: object) -> None:
        """Start the stream of `key`, as in Chance(seed, "events", day)."""
        self.unit = Random("/".join(map(str, key))).random  # uniform in [0, 1)

    def happens(self, probability: float) -> bool:
        """Return True that often."""
        return self.unit() < probability

    def below(self, limit: int) -> int:
        """Return an integer of [0, limit)."""
        return int(self.unit() * limit)

    def between(self, low: int, high: int) -> int:
        """Return an integer of [low, high)."""
        return low + int(self.unit() * (high - low))

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, each as likely."""
        return options[int(self.unit() * len(options))]

    def distinct(self, limit: int, count: int) -> list[int]:
        """Return `count` different integers of [0, limit), or all of them, in random order."""
        count = min(count, limit)
        swapped: dict[int, int] = {}  # the first steps of a shuffle of range(limit)
        chosen = []
        for step in range(count):
            other = self.between(step, limit)
            chosen.append(swapped.get(other, other))
            swapped[other] = swapped.get(step, step)
        return chosen


class Weighted:
    """Options of unequal likelihood."""

    def __init__(self, weights: Sequence[float]) -> None:
        """Take the weights of the options 0, 1, 2, …; their sum does not matter."""
        self._sums = list(accumulate(weights))

    def draw(self, chance: Chance) -> int:
        """Return the number of an option."""
        return bisect_right(self._sums, chance.unit() * self._sums[-1], hi=len(self._sums) - 1)


class LogNormal:
    """A long-tailed factor with median 1: most near it, few many times as large."""

    def __init__(self, sigma: float) -> None:
        """Tabulate the distribution; rounding takes away what C libraries differ in."""
        bell = NormalDist()
        self._quantiles = [
            round(exp(sigma * bell.inv_cdf((number + 0.5) / _QUANTILES)), 5)
            for number in range(_QUANTILES)
        ]

    def draw(self, chance: Chance) -> float:
        """Return a factor."""
        return self._quantiles[int(chance.unit() * _QUANTILES)]
