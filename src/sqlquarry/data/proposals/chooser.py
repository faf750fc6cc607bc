"""Random choice of the parts of a question, with preference for tables and columns that few questions use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from sqlquarry.data.proposals.asked import AskedColumn, AskedDatabase, AskedTable, Link, Role
from sqlquarry.data.proposals.conditions import Condition, between, compared, equal, flagged, gap, in_year, like, one_of
from sqlquarry.data.proposals.dice import Dice

T = TypeVar("T", AskedColumn, AskedTable)

PLAIN: tuple[Role, ...] = ("label", "category", "text", "number", "code", "year", "date", "flag")
COARSE: tuple[Role, ...] = (
    "category",
    "text",
    "number",
    "code",
    "year",
    "date",
    "flag",
)  # many rows have the same value
_AGGREGATES = (
    ("AVG", "average", "mean"),
    ("MAX", "highest", "maximum"),
    ("MIN", "lowest", "minimum"),
    ("SUM", "total", "summed"),
)
_MAKERS: Mapping[Role, Sequence[Callable[[AskedColumn, Dice], Condition | None]]] = {
    "number": (compared,),
    "flag": (flagged,),
    "date": (compared, in_year),
    "year": (compared, equal),
    "text": (equal, equal, like),
    "label": (equal, equal, like),
}
_RARE_FIRST = 0.7  # probability of the least used candidate


class DeadEndError(LookupError):
    """No candidate is left for the next part of a question. Another attempt may succeed."""


@dataclass(frozen=True)
class Draft:
    """A candidate query with phrasings of its question.

    Args:
        sql: the query.
        questions: questions with the same meaning.
        weaker: queries without one of the conditions. If one returns the same rows, the condition has no effect.
    """

    sql: str
    questions: tuple[str, ...]
    weaker: tuple[str, ...] = ()


class Template(NamedTuple):
    """A function that drafts queries of one kind."""

    name: str
    draft: Callable[[Chooser], Draft]


class Target(NamedTuple):
    """Selected columns as SQL lists, and in English as "name and city" and "names and cities"."""

    sql: str
    full: str
    noun: str
    plural: str


class Chooser:
    """Random choices of the parts of questions about one database. Each call draws again."""

    def __init__(self, asked: AskedDatabase, dice: Dice) -> None:
        self.asked = asked
        self.dice = dice
        self.drawn: list[AskedColumn | AskedTable] = []
        self._uses: Counter[AskedColumn | AskedTable] = Counter()

    def begin(self) -> None:
        """Forget what was drawn for the last draft, apart from its small weight."""
        self._uses.update(self.drawn)
        self.drawn = []

    def keep(self) -> None:
        """Count the parts of the last draft as used."""
        for part in self.drawn:
            self._uses[part] += 20

    def table(self, *roles: Role) -> AskedTable:
        """Draw a table that has a label and a column of each role."""
        return self._one(
            [
                table
                for table in self.asked.tables
                if table.label is not None and all(_others(table, role) for role in roles)
            ]
        )

    def link(self, *, child: Role | None = None) -> Link:
        """Draw a foreign key whose child has a column of the given role."""
        links = [
            link
            for link in self.asked.links
            if link.parent.label is not None and (child is None or link.child.having(child))
        ]
        return self.one_link(links)

    def one_link(self, links: Sequence[Link]) -> Link:
        """Draw one of these foreign keys."""
        if not links:
            raise DeadEndError
        key = self._one([link.key for link in links])
        link = self.dice.pick([link for link in links if link.key is key])
        self.drawn += [link.child, link.parent]
        return link

    def label(self, table: AskedTable) -> AskedColumn:
        """Return the column that identifies rows for people."""
        if table.label is None:
            raise DeadEndError
        self.drawn.append(table.label)
        return table.label

    def column(self, table: AskedTable, *roles: Role, but: AskedColumn | None = None) -> AskedColumn:
        """Draw a column other than `but` that has one of the roles, by default any role that people ask about."""
        return self._one([column for column in table.having(*(roles or PLAIN)) if column is not but])

    def group(self, table: AskedTable, *, but: AskedColumn | None = None) -> AskedColumn:
        """Draw a column whose values are shared by several rows."""
        columns = table.having("category", "text", "year", "code")
        return self._one([c for c in columns if c is not but and 1 < len(c.distinct) <= len(c.values) / 2])

    def target(self, table: AskedTable, *, columns: int, but: AskedColumn | None = None) -> Target:
        """Return the table's label, or the label and other columns."""
        chosen = [self.label(table)]
        while len(chosen) < columns:
            rest = [c for c in table.columns if not c.is_empty and c not in chosen and c is not but]
            chosen.append(self._one(rest, rare_first=1.0))
        return Target(
            ", ".join(column.sql for column in chosen),
            ", ".join(column.full for column in chosen),
            _listed([column.noun for column in chosen]),
            _listed([column.plural for column in chosen]),
        )

    def aggregate(self, number: AskedColumn) -> tuple[str, str, str]:
        """Draw an aggregate function that makes sense for the column. Return its SQL name and two English words."""
        if number.is_time:
            return self.dice.pick([("MIN", "earliest", "first"), ("MAX", "latest", "most recent")])
        return self.dice.pick(_AGGREGATES if number.is_additive else _AGGREGATES[:-1])

    def direction(self, column: AskedColumn) -> tuple[str, str]:
        """Draw a direction of sorting in SQL. Return it and the word for the first value in it."""
        largest, smallest = column.extremes
        return self.dice.pick([(" DESC", largest), ("", smallest)])

    def condition(self, table: AskedTable, *roles: Role, but: AskedColumn | None = None) -> Condition:
        """Draw a condition on a column. Without roles, any kind of condition."""
        askable = [
            column for column in table.having(*(roles or PLAIN)) if column is not but and len(column.distinct) > 1
        ]
        column = self._one(askable)
        if (made := self._made(column)) is None:
            raise DeadEndError
        return made

    def gap(self, table: AskedTable) -> Condition:
        """Draw the condition that an optional column is NULL, or that it is not."""
        column = self._one([c for c in table.columns if c.has_gaps])
        return gap(column, missing=self.dice.chance(0.6))

    def span(self, table: AskedTable) -> Condition:
        """Draw a range, a choice of two values, or a text with a wildcard."""
        column = self._one([c for c in table.having(*PLAIN) if len(c.distinct) > 2])
        make = {"category": one_of, "label": like, "text": like, "code": one_of}.get(column.role, between)
        if (made := make(column, self.dice)) is None:
            raise DeadEndError
        return made

    def _made(self, column: AskedColumn) -> Condition | None:
        if column.role == "category" and self.dice.chance(0.1):
            return equal(column, self.dice, negated=True)
        return self.dice.pick(_MAKERS.get(column.role, (equal,)))(column, self.dice)

    def _one(self, candidates: Sequence[T], *, rare_first: float = _RARE_FIRST) -> T:
        if not candidates:
            raise DeadEndError
        if self.dice.chance(rare_first):
            least = min(self._uses[candidate] for candidate in candidates)
            candidates = [candidate for candidate in candidates if self._uses[candidate] == least]
        chosen = self.dice.pick(candidates)
        self.drawn.append(chosen)
        return chosen


def _others(table: AskedTable, role: Role) -> list[AskedColumn]:
    return [column for column in table.having(role) if column is not table.label]


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
