"""What candidate databases are like: how large, how full of NULL, repetitions and odd values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RowStyle:
    """What one candidate is like: its size, how often values repeat, are NULL, meet a condition.

    Args:
        rows: of a table, more or less: each table gets a number of its own.
        values: distinct other values.
        nulls: share of NULL in columns that may be NULL.
        hits: share of rows that meet a condition.
        large_groups: whether groups are as large as the queries ask for.
        odd: share of values in a form that people would not expect.
        empty: which tables have no rows: those that refer to others, or any.
        blank: share of columns that are all NULL.
    """

    rows: int
    values: int
    nulls: float
    hits: float
    large_groups: bool = False
    odd: float = 0.0
    empty: Literal["none", "children", "any"] = "none"
    blank: float = 0.0


# The first candidates are made for what most mutants need; of later ones, every other is made at random.
PLAUSIBLE = (
    RowStyle(rows=9, values=30, nulls=0.0, hits=0.6),
    RowStyle(rows=12, values=3, nulls=0.1, hits=0.5),
    RowStyle(rows=10, values=8, nulls=0.1, hits=0.6, large_groups=True),
    RowStyle(rows=7, values=2, nulls=0.0, hits=0.8),
    RowStyle(rows=10, values=5, nulls=0.25, hits=0.4),
    RowStyle(rows=18, values=4, nulls=0.05, hits=0.7),
    RowStyle(rows=3, values=30, nulls=0.0, hits=0.3),
    RowStyle(rows=5, values=12, nulls=0.0, hits=0.9),
)
LEGAL = (
    RowStyle(rows=12, values=3, nulls=0.1, hits=0.5, odd=0.2),
    RowStyle(rows=7, values=2, nulls=0.0, hits=0.8, empty="children"),
    RowStyle(rows=1, values=30, nulls=0.0, hits=0.3),
    RowStyle(rows=9, values=30, nulls=0.0, hits=0.6, odd=0.3),
    RowStyle(rows=10, values=5, nulls=0.25, hits=0.4, blank=0.3),
    RowStyle(rows=5, values=12, nulls=0.0, hits=0.9, empty="any"),
    RowStyle(rows=3, values=30, nulls=0.0, hits=0.3, odd=0.1),
    RowStyle(rows=18, values=4, nulls=0.05, hits=0.7),
    RowStyle(rows=14, values=3, nulls=0.5, hits=0.3, odd=0.2, blank=0.1),
)
