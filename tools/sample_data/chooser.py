"""What a question pattern draws from: tables, columns, links and conditions of one domain."""

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
    """The parts drawn so far leave nothing to pick for the next one; another attempt may do better."""


class Draft(NamedTuple):
    """A candidate query with its questions; `weaker` queries must give other rows, or a condition does nothing."""

    sql: str
    questions: tuple[str, ...]
    weaker: tuple[str, ...] = ()


class Pattern(NamedTuple):
    """A way to make queries of one kind, `per_domain` of them in each domain."""

    kind: Kind
    per_domain: int
    draft: Callable[[Chooser], Draft]


class Target(NamedTuple):
    """Selected columns: the SQL list, "name and city", "names and cities"."""

    sql: str
    noun: str
    plural: str


class Link(NamedTuple):
    """A foreign key as a FROM clause, with the words between child and parent: "owned by"."""

    child: Table
    parent: Table
    tables: str
    words: str
    key: str


class Chooser:
    """Draws the parts of questions about one domain; every pick is another one."""

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
        """Draw a column of one of the roles (of any that people ask for, if none is given), other than `but`."""
        return self._one([c for c in table.having(*(roles or _PLAIN)) if c is not but])

    def target(self, table: Table, *, columns: int, but: Column | None = None) -> Target:
        """Return the table's label, or the label and one more column; never `but`."""
        chosen = [table.label]
        if columns == 2:
            chosen.append(self._one([c for c in table.having(*_PLAIN) if c is not but and c is not table.label]))
        return Target(
            ", ".join(c.name for c in chosen),
            " and ".join(c.noun for c in chosen),
            " and ".join(c.plural for c in chosen),
        )

    def aggregate(self, number: Column) -> tuple[str, str, str]:
        """Draw an aggregate function that makes sense for the column: SQL name and two English words."""
        return self.dice.pick(_AGGREGATES if number.additive else _AGGREGATES[:-1])

    def condition(self, table: Table, *roles: Role, but: Column | None = None) -> Condition:
        """Draw a comparison with one literal."""
        return self._made(compare, table, self.column(table, *roles, but=but))

    def year(self, table: Table) -> Condition:
        """Draw a date within a year."""
        return self._made(in_year, table, self.column(table, "date"))

    def span(self, table: Table) -> Condition:
        """Draw a number or date between two bounds, a category of two values, or a label with a wildcard."""
        column = self.column(table)
        make = {"category": one_of, "label": like}.get(column.role, between)
        return self._made(make, table, column)

    def gap(self, table: Table, *, missing: bool) -> Condition:
        """Draw an optional column with or without NULL."""
        return is_null(self.column(table, "optional"), missing=missing)

    def _one(self, candidates: list[T]) -> T:
        if not candidates:
            raise DeadEndError
        return self.dice.pick(candidates)

    def _made(
        self, make: Callable[[Column, Sequence[Any], Dice], Condition], table: Table, column: Column
    ) -> Condition:
        return make(column, self._values[table.name][column.name], self.dice)
