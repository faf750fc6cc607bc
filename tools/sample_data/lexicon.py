"""The nouns of the sample data: a domain is tables of columns, each with its English words and its row generator."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlquarry.data.sample import Kind
from tools.sample_data.dice import Dice
from tools.sample_data.names import FIRST_NAMES, LAST_NAMES

Role = Literal["key", "label", "category", "number", "date", "optional", "reference"]
Value = str | int | float | None


class Filling(NamedTuple):
    """What a column's generator sees: dice of its own, how many rows, earlier columns, and row counts of all tables."""

    dice: Dice
    rows: int
    columns: Mapping[str, list[Value]]
    sizes: Mapping[str, int]


Fill = Callable[[Filling], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column in SQL and in English.

    Args:
        name: in SQL; `type` likewise.
        role: what the question patterns may do with it; "optional" columns hold NULLs.
        noun: "birth date"; `plural` "birth dates".
        fill: makes the values of all rows.
        where: how a row is narrowed by it: "from {}" (category), "born" (date), "owned by" (reference).
        unit: said after a number: "kg".
        counted: the plural where the number counts something: "nights" gives "with more than 3 nights".
        additive: a sum over rows makes sense.
        most: the superlative of the largest number, "heaviest"; `least` of the smallest.
        missing: how a row with NULL is described, "without a phone number"; `present` the opposite.
        parent: the table that a reference points to, by the same column name.
    """

    name: str
    type: str
    role: Role
    noun: str
    plural: str
    fill: Fill
    where: str = ""
    unit: str = ""
    counted: str = ""
    additive: bool = False
    most: str = ""
    least: str = ""
    missing: str = ""
    present: str = ""
    parent: str = ""

    @property
    def ddl(self) -> str:
        """The column as CREATE TABLE writes it."""
        constraint = {"key": " PRIMARY KEY", "reference": f" REFERENCES {self.parent}({self.name})"}
        return f"{self.name} {self.type}{constraint.get(self.role, '')}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, what one of its rows is called, and how many it has."""

    name: str
    one: str
    rows: int
    columns: tuple[Column, ...]
    its: str = "its"

    @property
    def many(self) -> str:
        """What several rows are called: the table's name."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> Column:
        """The column that people call a row by; the key where rows have no name."""
        return (self.having("label") or self.having("key"))[0]

    def having(self, *roles: Role) -> list[Column]:
        """Return the columns of these roles."""
        return [column for column in self.columns if column.role in roles]


class Query(NamedTuple):
    """A gold query with the phrasings of its question; all have the same meaning."""

    kind: Kind
    sql: str
    questions: tuple[str, ...]


# Compared by identity: there is one object for each domain.
@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """A business: its tables, parents first, and queries of its own beside the generic patterns."""

    name: str
    tables: tuple[Table, ...]
    queries: tuple[Query, ...]

    @property
    def schema(self) -> str:
        """The CREATE TABLE statements, one line for each table."""
        return "\n".join(
            f"CREATE TABLE {table.name} ({', '.join(column.ddl for column in table.columns)});" for table in self.tables
        )

    @property
    def links(self) -> list[tuple[Table, Column, Table]]:
        """Every foreign key: child table, its column, parent table."""
        tables = {table.name: table for table in self.tables}
        return [(child, column, tables[column.parent]) for child in self.tables for column in child.having("reference")]


def plural_of(noun: str) -> str:
    """Return the regular English plural."""
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def key(name: str) -> Column:
    """Make the integer primary key: the row's number, from 1."""
    noun = name.replace("_", " ")
    return Column(name, "INTEGER", "key", noun, noun + "s", lambda f: range(1, f.rows + 1))


def person(name: str, where: str = "named {}", *, noun: str = "") -> Column:
    """Make full names of people, without repeats."""
    return pairs(name, FIRST_NAMES, LAST_NAMES, where, noun=noun)


def pairs(name: str, firsts: str, seconds: str, where: str = "named {}", *, noun: str = "") -> Column:
    """Make names of two words, one of each list, without repeats."""
    names = [f"{first} {second}" for first in firsts.split() for second in seconds.split()]

    def fill(f: Filling) -> list[Value]:
        return [names[n] for n in f.dice.distinct(len(names), f.rows)]

    noun = noun or name
    return Column(name, "TEXT", "label", noun, plural_of(noun), fill, where)


def code(name: str, prefix: str) -> Column:
    """Make codes such as "PX-4711", without repeats."""
    noun = name.replace("_", " ")

    def fill(f: Filling) -> list[Value]:
        return [f"{prefix}-{1000 + n}" for n in f.dice.distinct(9000, f.rows)]

    return Column(name, "TEXT", "label", noun, plural_of(noun), fill, where=f"with the {noun} {{}}")


def category(
    name: str, values: Sequence[str | int], *, noun: str = "", plural: str = "", where: str = "", counted: str = ""
) -> Column:
    """Make a few values that many rows share, the first ones more often."""
    noun = noun or name.replace("_", " ")

    def fill(f: Filling) -> list[Value]:
        return [values[f.dice.below(len(values), skew=1.6)] for _ in range(f.rows)]

    sql_type = "TEXT" if isinstance(values[0], str) else "INTEGER"
    where = where or (f"with {{}} {counted}" if counted else f"with the {noun} {{}}")
    return Column(name, sql_type, "category", noun, plural or plural_of(noun), fill, where)


def number(
    name: str,
    low: float,
    high: float,
    step: float = 1,
    *,
    noun: str = "",
    plural: str = "",
    unit: str = "",
    counted: str = "",
    additive: bool = False,
    most: str = "",
    least: str = "",
) -> Column:
    """Make numbers from `low` to `high` in steps, without repeats if there are enough; integers if `step` is one."""
    noun = noun or (f"number of {counted}" if counted else name.replace("_", " "))
    plural = plural or (f"numbers of {counted}" if counted else plural_of(noun))

    def fill(f: Filling) -> list[Value]:
        return [round(low + step * n, 2) for n in f.dice.distinct(round((high - low) / step) + 1, f.rows)]

    sql_type = "INTEGER" if isinstance(step, int) else "REAL"
    return Column(name, sql_type, "number", noun, plural, fill, "", unit, counted, additive, most, least)


def date(name: str, first: str, last: str, *, noun: str, where: str) -> Column:
    """Make ISO dates between two days, without repeats; `where` reads before "after 2021-06-30"."""
    start = dt.date.fromisoformat(first)
    days = (dt.date.fromisoformat(last) - start).days + 1

    def fill(f: Filling) -> list[Value]:
        return [(start + dt.timedelta(days=n)).isoformat() for n in f.dice.distinct(days, f.rows)]

    return Column(name, "DATE", "date", noun, plural_of(noun), fill, where)


def later(name: str, since: str, days: tuple[int, int], *, noun: str, missing: str, present: str) -> Column:
    """Make ISO dates some days after those of the column `since`; about a quarter are NULL."""

    def fill(f: Filling) -> list[Value]:
        starts = [dt.date.fromisoformat(str(value)) for value in f.columns[since]]
        waits = [dt.timedelta(days=days[0] + f.dice.below(days[1] - days[0] + 1)) for _ in starts]
        return _with_gaps(f.dice, [(start + wait).isoformat() for start, wait in zip(starts, waits, strict=True)])

    return Column(name, "DATE", "optional", noun, plural_of(noun), fill, missing=missing, present=present)


def optional(name: str, values: Sequence[str] | str, *, noun: str = "", missing: str = "", present: str = "") -> Column:
    """Make a text that about a quarter of the rows lack: one of `values`, or a pattern in which each # is a digit."""
    noun = noun or name
    article = "an" if noun[0] in "aeiou" else "a"

    def draw(dice: Dice) -> str:
        if isinstance(values, str):
            return "".join(str(dice.below(10)) if sign == "#" else sign for sign in values)
        return dice.pick(values)

    return Column(
        name,
        "TEXT",
        "optional",
        noun,
        plural_of(noun),
        lambda f: _with_gaps(f.dice, [draw(f.dice) for _ in range(f.rows)]),
        missing=missing or f"without {article} {noun}",
        present=present or f"with {article} {noun}",
    )


def reference(name: str, parent: str, where: str) -> Column:
    """Make a foreign key; the last sixth of the parents have no child, and the first ones have more."""
    noun = name.replace("_", " ")

    def fill(f: Filling) -> list[Value]:
        return [1 + f.dice.below(f.sizes[parent] * 5 // 6, skew=1.5) for _ in range(f.rows)]

    return Column(name, "INTEGER", "reference", noun, noun + "s", fill, where, parent=parent)


def _with_gaps(dice: Dice, values: Iterable[Value]) -> list[Value]:
    return [None if dice.below(4) == 0 else value for value in values]
