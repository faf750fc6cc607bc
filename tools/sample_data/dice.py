"""Random choices of the sample data."""

from collections.abc import Iterable
from typing import TypeVar

from sqlquarry.data.proposals import dice

T = TypeVar("T")


class Dice(dice.Dice):
    """Random choices that are the same in every Python version."""

    def below(self, limit: int, *, skew: float = 1.0) -> int:
        """Return an integer from 0 to `limit` - 1. A `skew` above 1 favors small numbers."""
        return int(self._next() ** skew * limit)

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
