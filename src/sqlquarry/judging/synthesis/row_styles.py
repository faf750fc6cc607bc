"""Styles of candidate databases: their size, and their shares of NULL, repetitions and odd values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RowStyle:
    """The style of one candidate: its size, and how often values repeat, are NULL or meet a condition.

    Args:
        rows: approximate number of rows in a table. The exact number differs from table to table.
        values: number of distinct values that no query uses.
        nulls: share of NULL in columns that may be NULL.
        hits: share of rows that meet a condition.
        large_groups: whether to generate groups that are as large as the queries require.
        odd: share of values in a form that people would not expect.
        empty: the tables without rows: none, the tables with foreign keys, or a random choice of all tables.
        blank: share of columns that contain only NULL.
    """

    rows: int
    values: int
    nulls: float
    hits: float
    large_groups: bool = False
    odd: float = 0.0
    empty: Literal["none", "children", "any"] = "none"
    blank: float = 0.0


# The first candidates have the styles that most mutants need. Later on, every other candidate has a random style.
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
