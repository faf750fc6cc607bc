"""Random choices that are the same in every Python version."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Random choices from a seed, based only on `random.Random.random()`.

    This is the only method whose sequence Python guarantees across versions (docs.python.org, random, "Notes on
    Reproducibility").
    """

    def __init__(self, seed: str) -> None:
        self._next = random.Random(seed).random  # noqa: S311 - not cryptography

    def below(self, limit: int) -> int:
        """Return an integer from 0 to `limit` - 1."""
        return int(self._next() * limit)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._next() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]
