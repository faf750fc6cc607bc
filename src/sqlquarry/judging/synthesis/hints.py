"""Hints about the data that can distinguish queries: values, dates, joined columns, group sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sqlquarry.judging.synthesis.dates import DATE_KINDS, DateKind, PartCondition
from sqlquarry.sql.schema import Place
from sqlquarry.sql.syntax import Value


class GroupSize(NamedTuple):
    """A number with which a query compares the row count of a group, with its tables and grouping columns."""

    size: int
    tables: tuple[str, ...]
    keys: tuple[Place, ...]


@dataclass(slots=True)
class Hints:
    """Hints that are gathered from any number of queries.

    Args:
        conditions: column -> comparisons with constants, as (operator, value). The value of "like" is a pattern.
        numeric: columns that are summed, averaged or compared with numbers. Text in them must be readable as a number.
        signed: columns that queries expect to be negative, because of ABS or a comparison with a negative number.
        fractional: columns that are rounded.
        padded: columns that are trimmed.
        optional: columns that queries expect to be NULL.
        repeated: columns that a query on one table groups by or uses in DISTINCT.
        dates: columns that queries use as dates or times, whatever their type, with the kind of date.
        parts: column -> comparisons of part of its date.
        counts: numbers with which row counts are compared, and limits.
        group_sizes: numbers with which the row counts of groups are compared.
        dependents: columns that a query returns although it groups by others, as (table, keys, dependents).
    """

    conditions: dict[Place, dict[tuple[str, Value], None]] = field(default_factory=dict)
    numeric: set[Place] = field(default_factory=set)
    signed: set[Place] = field(default_factory=set)
    fractional: set[Place] = field(default_factory=set)
    padded: set[Place] = field(default_factory=set)
    optional: set[Place] = field(default_factory=set)
    repeated: set[Place] = field(default_factory=set)
    dates: dict[Place, DateKind] = field(default_factory=dict)
    parts: dict[Place, dict[PartCondition, None]] = field(default_factory=dict)
    counts: set[int] = field(default_factory=set)
    group_sizes: dict[GroupSize, None] = field(default_factory=dict)
    dependents: dict[tuple[str, tuple[str, ...], tuple[str, ...]], None] = field(default_factory=dict)
    _leader: dict[Place, Place] = field(default_factory=dict)

    def domain(self, place: Place) -> Place:
        """Return the column that represents the domain of a column: all columns that share values with it."""
        while (leader := self._leader.get(place, place)) != place:
            place = leader
        return place

    def join(self, a: Place, b: Place) -> None:
        """Merge the domains of two columns, so that they share values."""
        a, b = self.domain(a), self.domain(b)
        if a != b:
            self._leader[max(a, b)] = min(a, b)

    def of_domain(self, place: Place) -> list[tuple[str, Value]]:
        """Return the comparisons of every column in the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.conditions.items() if self.domain(other) == leader for item in items]

    def parts_of(self, place: Place) -> list[PartCondition]:
        """Return the comparisons of parts of dates for every column in the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.parts.items() if self.domain(other) == leader for item in items]

    def date_kind(self, place: Place) -> DateKind | None:
        """Return the kind of date that queries expect in the domain, or None. "datetime" takes precedence."""
        kinds = {kind for other, kind in self.dates.items() if self.domain(other) == self.domain(place)}
        return max(kinds, default=None, key=DATE_KINDS.index)

    def marks(self, marked: set[Place], place: Place) -> bool:
        """Return whether any column of the domain is in `marked`."""
        leader = self.domain(place)
        return any(self.domain(other) == leader for other in marked)
