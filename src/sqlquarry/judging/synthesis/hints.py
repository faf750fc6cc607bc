"""What queries say about the data that would tell them apart: values, dates, joined columns, group sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sqlquarry.judging.sql.schema import Place
from sqlquarry.judging.sql.syntax import Value
from sqlquarry.judging.synthesis.dates import DATE_KINDS, DateKind, PartCondition


class GroupSize(NamedTuple):
    """A number that the rows of a group are compared with, in a query on these tables grouped by these columns."""

    size: int
    tables: tuple[str, ...]
    keys: tuple[Place, ...]


@dataclass(slots=True)
class Hints:
    """Gathered from any number of queries.

    Args:
        conditions: column -> comparisons with constants, as (operator, value); "like" takes a pattern.
        numeric: columns that are summed, averaged or compared with numbers: text in them must read as a number.
        signed: columns that the queries expect to be negative: under ABS, or compared with a negative number.
        fractional: columns that are rounded.
        padded: columns that are trimmed.
        optional: columns that the queries expect to be NULL.
        repeated: columns that one table's rows are grouped by or taken DISTINCT of.
        dates: columns that hold dates or times by what is asked of them, whatever their type: "date" or "datetime".
        parts: column -> comparisons of part of its date.
        counts: numbers that row counts are compared with, and limits.
        group_sizes: the same for the rows of one group.
        dependents: columns returned beside a GROUP BY of others, with these: (table, keys, dependents).
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
        """Return the column that names the domain: all columns compared with this one, which therefore share values."""
        while (leader := self._leader.get(place, place)) != place:
            place = leader
        return place

    def join(self, a: Place, b: Place) -> None:
        """Let two columns share their values."""
        a, b = self.domain(a), self.domain(b)
        if a != b:
            self._leader[max(a, b)] = min(a, b)

    def of_domain(self, place: Place) -> list[tuple[str, Value]]:
        """Return the comparisons of every column of the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.conditions.items() if self.domain(other) == leader for item in items]

    def parts_of(self, place: Place) -> list[PartCondition]:
        """Return the comparisons of part of a date, of every column of the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.parts.items() if self.domain(other) == leader for item in items]

    def date_kind(self, place: Place) -> DateKind | None:
        """Return what the domain's columns hold by what is asked of them: "datetime" rather than "date"."""
        kinds = {kind for other, kind in self.dates.items() if self.domain(other) == self.domain(place)}
        return max(kinds, default=None, key=DATE_KINDS.index)

    def marks(self, marked: set[Place], place: Place) -> bool:
        """Whether any column of the domain is in a set."""
        leader = self.domain(place)
        return any(self.domain(other) == leader for other in marked)
