"""Types for the sample data: domains, tables and columns, with their English words and generators of values."""

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
    """Input of a column's generator: its own dice, the number of rows, earlier columns and row counts of all tables."""

    dice: Dice
    rows: int
    columns: Mapping[str, list[Value]]
    sizes: Mapping[str, int]


Fill = Callable[[Filling], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column in SQL and in English.

    Args:
        name: name in SQL.
        type: type in SQL.
        role: decides which question patterns may use the column. "optional" columns contain NULLs.
        noun: English noun, such as "birth date".
        plural: its plural, such as "birth dates".
        fill: generates the values of all rows.
        where: words of a condition, such as "from {}" (category), "born" (date) or "owned by" (reference).
        unit: unit after a number, such as "kg".
        counted: the things that a number counts. "nights" gives "with more than 3 nights".
        additive: whether a sum over rows makes sense.
        most: superlative for the largest number, such as "heaviest".
        least: superlative for the smallest number.
        missing: description of a row with NULL, such as "without a phone number".
        present: description of a row without NULL.
        parent: table that a reference points to. The column has the same name there.
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
        """The column's definition in CREATE TABLE."""
        constraint = {"key": " PRIMARY KEY", "reference": f" REFERENCES {self.parent}({self.name})"}
        return f"{self.name} {self.type}{constraint.get(self.role, '')}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table, with its number of rows and the English word for one row."""

    name: str
    one: str
    rows: int
    columns: tuple[Column, ...]
    its: str = "its"

    @property
    def many(self) -> str:
        """English word for several rows, which is the table's name."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> Column:
        """The column that people use to identify a row, or the key if rows have no name."""
        return (self.having("label") or self.having("key"))[0]

    def having(self, *roles: Role) -> list[Column]:
        """Return the columns that have one of these roles."""
        return [column for column in self.columns if column.role in roles]


class Query(NamedTuple):
    """A gold query with several phrasings of its question, which all have the same meaning."""

    kind: Kind
    sql: str
    questions: tuple[str, ...]


# Compared by identity, because there is one object per domain.
@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """A business with its tables (parents first) and hand-written queries."""

    name: str
    tables: tuple[Table, ...]
    queries: tuple[Query, ...]

    @property
    def schema(self) -> str:
        """The CREATE TABLE statements, one line per table."""
        return "\n".join(
            f"CREATE TABLE {table.name} ({', '.join(column.ddl for column in table.columns)});" for table in self.tables
        )

    @property
    def links(self) -> list[tuple[Table, Column, Table]]:
        """All foreign keys as (child table, column, parent table)."""
        tables = {table.name: table for table in self.tables}
        return [(child, column, tables[column.parent]) for child in self.tables for column in child.having("reference")]


def plural_of(noun: str) -> str:
    """Return the regular English plural."""
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def key(name: str) -> Column:
    """Return an integer primary key, which numbers the rows from 1."""
    noun = name.replace("_", " ")
    return Column(name, "INTEGER", "key", noun, noun + "s", lambda f: range(1, f.rows + 1))


def person(name: str, where: str = "named {}", *, noun: str = "") -> Column:
    """Return a column of full names of people without repeats."""
    return pairs(name, FIRST_NAMES, LAST_NAMES, where, noun=noun)


def pairs(name: str, firsts: str, seconds: str, where: str = "named {}", *, noun: str = "") -> Column:
    """Return a column of names without repeats. Each name has one word from each list."""
    names = [f"{first} {second}" for first in firsts.split() for second in seconds.split()]

    def fill(f: Filling) -> list[Value]:
        return [names[n] for n in f.dice.distinct(len(names), f.rows)]

    noun = noun or name
    return Column(name, "TEXT", "label", noun, plural_of(noun), fill, where)


def code(name: str, prefix: str) -> Column:
    """Return a column of codes such as "PX-4711" without repeats."""
    noun = name.replace("_", " ")

    def fill(f: Filling) -> list[Value]:
        return [f"{prefix}-{1000 + n}" for n in f.dice.distinct(9000, f.rows)]

    return Column(name, "TEXT", "label", noun, plural_of(noun), fill, where=f"with the {noun} {{}}")


def category(
    name: str, values: Sequence[str | int], *, noun: str = "", plural: str = "", where: str = "", counted: str = ""
) -> Column:
    """Return a column with a few values that many rows share. The first values are more frequent."""
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
    """Return a column of numbers from `low` to `high` in steps, without repeats if there are enough different numbers.

    The numbers are integers if `step` is an integer.
    """
    noun = noun or (f"number of {counted}" if counted else name.replace("_", " "))
    plural = plural or (f"numbers of {counted}" if counted else plural_of(noun))

    def fill(f: Filling) -> list[Value]:
        return [round(low + step * n, 2) for n in f.dice.distinct(round((high - low) / step) + 1, f.rows)]

    sql_type = "INTEGER" if isinstance(step, int) else "REAL"
    return Column(name, sql_type, "number", noun, plural, fill, "", unit, counted, additive, most, least)


def date(name: str, first: str, last: str, *, noun: str, where: str) -> Column:
    """Return a column of ISO dates between two days without repeats. `where` goes before words like "after 2021"."""
    start = dt.date.fromisoformat(first)
    days = (dt.date.fromisoformat(last) - start).days + 1

    def fill(f: Filling) -> list[Value]:
        return [(start + dt.timedelta(days=n)).isoformat() for n in f.dice.distinct(days, f.rows)]

    return Column(name, "DATE", "date", noun, plural_of(noun), fill, where)


def later(name: str, since: str, days: tuple[int, int], *, noun: str, missing: str, present: str) -> Column:
    """Return a column of ISO dates that are some days after those in column `since`. About a quarter are NULL."""

    def fill(f: Filling) -> list[Value]:
        starts = [dt.date.fromisoformat(str(value)) for value in f.columns[since]]
        waits = [dt.timedelta(days=days[0] + f.dice.below(days[1] - days[0] + 1)) for _ in starts]
        return _with_gaps(f.dice, [(start + wait).isoformat() for start, wait in zip(starts, waits, strict=True)])

    return Column(name, "DATE", "optional", noun, plural_of(noun), fill, missing=missing, present=present)


def optional(name: str, values: Sequence[str] | str, *, noun: str = "", missing: str = "", present: str = "") -> Column:
    """Return a column of texts: one of `values`, or a pattern in which each # is a digit. About a quarter are NULL."""
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
    """Return a foreign key. The last sixth of the parents have no children, and the first parents have the most."""
    noun = name.replace("_", " ")

    def fill(f: Filling) -> list[Value]:
        return [1 + f.dice.below(f.sizes[parent] * 5 // 6, skew=1.5) for _ in range(f.rows)]

    return Column(name, "INTEGER", "reference", noun, noun + "s", fill, where, parent=parent)


def _with_gaps(dice: Dice, values: Iterable[Value]) -> list[Value]:
    return [None if dice.below(4) == 0 else value for value in values]
