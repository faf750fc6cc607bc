"""Random choice of the parts of a question: tables, columns, links and conditions of one domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlquarry.data.sample import Kind
from tools.sample_data.conditions import Condition, between, compare, in_year, is_null, like, one_of
from tools.sample_data.dice import Dice
from tools.sample_data.lexicon import Column, Domain, Role, Table, Value
from tools.sample_data.rows import columns_of

T = TypeVar("T")

_AGGREGATES = (
    ("AVG", "average", "mean"),
    ("MAX", "highest", "maximum"),
    ("MIN", "lowest", "minimum"),
    ("SUM", "total", "summed"),
)
_PLAIN: tuple[Role, ...] = ("label", "category", "number", "date")


class DeadEndError(LookupError):
    """No candidate is left for the next part of a question. Another attempt may succeed."""


class Draft(NamedTuple):
    """A candidate query with its questions. If a `weaker` query returns the same rows, a condition has no effect."""

    sql: str
    questions: tuple[str, ...]
    weaker: tuple[str, ...] = ()


class Pattern(NamedTuple):
    """A function that drafts queries of one kind. Each domain gets `per_domain` of them."""

    kind: Kind
    per_domain: int
    draft: Callable[[Chooser], Draft]


class Target(NamedTuple):
    """Selected columns as an SQL list, and in English as "name and city" and "names and cities"."""

    sql: str
    noun: str
    plural: str


class Link(NamedTuple):
    """A foreign key as a FROM clause, with the words between child and parent, such as "owned by"."""

    child: Table
    parent: Table
    tables: str
    words: str
    key: str


class Chooser:
    """Random choices of the parts of questions about one domain. Each call draws again."""

    def __init__(self, domain: Domain, dice: Dice) -> None:
        self.domain = domain
        self.dice = dice
        self._values: Mapping[str, Mapping[str, list[Value]]] = columns_of(domain)

    def table(self, *roles: Role) -> Table:
        """Draw a table that has a column of each role."""
        return self._one([t for t in self.domain.tables if all(t.having(role) for role in roles)])

    def link(self, *, child: Role | None = None, parent: Role | None = None) -> Link:
        """Draw a foreign key whose child and parent have a column of the given roles."""
        links = [
            link
            for link in self.domain.links
            if (child is None or link[0].having(child)) and (parent is None or link[2].having(parent))
        ]
        table, column, other = self._one(links)
        joined = f"{table.name} JOIN {other.name} ON {table.name}.{column.name} = {other.name}.{column.name}"
        return Link(table, other, joined, column.where, column.name)

    def column(self, table: Table, *roles: Role, but: Column | None = None) -> Column:
        """Draw a column other than `but` that has one of the roles, by default any role that people ask about."""
        return self._one([c for c in table.having(*(roles or _PLAIN)) if c is not but])

    def target(self, table: Table, *, columns: int, but: Column | None = None) -> Target:
        """Return the table's label column, or the label and one more column other than `but`."""
        chosen = [table.label]
        if columns == 2:
            chosen.append(self._one([c for c in table.having(*_PLAIN) if c is not but and c is not table.label]))
        return Target(
            ", ".join(c.name for c in chosen),
            " and ".join(c.noun for c in chosen),
            " and ".join(c.plural for c in chosen),
        )

    def aggregate(self, number: Column) -> tuple[str, str, str]:
        """Draw an aggregate function that makes sense for the column. Return its SQL name and two English words."""
        return self.dice.pick(_AGGREGATES if number.additive else _AGGREGATES[:-1])

    def condition(self, table: Table, *roles: Role, but: Column | None = None) -> Condition:
        """Draw a comparison of a column with one literal."""
        return self._made(compare, table, self.column(table, *roles, but=but))

    def year(self, table: Table) -> Condition:
        """Draw the condition that a date is in a certain year."""
        return self._made(in_year, table, self.column(table, "date"))

    def span(self, table: Table) -> Condition:
        """Draw a range of numbers or dates, a choice of two categories, or a label with a wildcard."""
        column = self.column(table)
        make = {"category": one_of, "label": like}.get(column.role, between)
        return self._made(make, table, column)

    def gap(self, table: Table, *, missing: bool) -> Condition:
        """Draw the condition that an optional column is NULL, or that it is not."""
        return is_null(self.column(table, "optional"), missing=missing)

    def _one(self, candidates: list[T]) -> T:
        if not candidates:
            raise DeadEndError
        return self.dice.pick(candidates)

    def _made(
        self, make: Callable[[Column, Sequence[Any], Dice], Condition], table: Table, column: Column
    ) -> Condition:
        return make(column, self._values[table.name][column.name], self.dice)
