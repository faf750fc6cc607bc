"""Random choices that are the same in every Python version."""

import random
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Random choices from a seed string, based only on `random.Random.random()`.

    This is the only method whose sequence Python guarantees across versions (docs.python.org, random, "Notes on
    Reproducibility").
    """

    def __init__(self, seed: str) -> None:
        self._next = random.Random(seed).random  # noqa: S311 - sample data, not cryptography

    def below(self, limit: int, *, skew: float = 1.0) -> int:
        """Return an integer from 0 to `limit` - 1. A `skew` above 1 favors small numbers."""
        return int(self._next() ** skew * limit)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def shuffled(self, items: Iterable[T]) -> list[T]:
        """Return all items in random order."""
        return [item for _, item in sorted(((self._next(), item) for item in items), key=lambda pair: pair[0])]

    def distinct(self, limit: int, count: int) -> list[int]:
        """Return `count` integers below `limit`, without repeats if `limit` is large enough."""
        if limit < count:
            return [self.below(limit) for _ in range(count)]
        found: dict[int, None] = {}
        while len(found) < count:
            found[self.below(limit)] = None
        return list(found)
