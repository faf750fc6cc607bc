"""Random choices that come out the same in every Python version."""

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Choices from a seed string, built on `random.Random.random()` alone.

    It is the one method whose sequence Python guarantees across versions (docs.python.org, random, "Notes on
    Reproducibility").
    """

    def __init__(self, seed: str) -> None:
        self._next = random.Random(seed).random  # noqa: S311 - sample data, not cryptography

    def below(self, limit: int, *, skew: float = 1.0) -> int:
        """Return a whole number from 0 to `limit` - 1; a `skew` above 1 favors the small ones."""
        return int(self._next() ** skew * limit)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """Return all items in random order."""
        return [item for _, item in sorted(((self._next(), item) for item in items), key=lambda pair: pair[0])]

    def distinct(self, limit: int, count: int) -> list[int]:
        """Return `count` whole numbers below `limit`, without repeats while that is possible."""
        if limit < count:
            return [self.below(limit) for _ in range(count)]
        found: dict[int, None] = {}
        while len(found) < count:
            found[self.below(limit)] = None
        return list(found)
