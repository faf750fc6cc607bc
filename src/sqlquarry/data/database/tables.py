"""Define what is known about the tables of a live database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

Value = int | float | Decimal | str


@dataclass(frozen=True, slots=True)
class DatabaseColumn:
    """One column of a table or view.

    Args:
        name: the name, without quotes.
        type: the type as the database spells it, or "" if it has none.
        nullable: whether the database allows NULL.
        comment: the comment in the database, or "".
        generated: whether the database computes it from other columns.
        distinct: number of distinct values in the sampled rows, without NULL. None if no values were read.
        values: all values in order if there are few, such as codes and categories. Otherwise empty.
        examples: the most frequent values of the sample. Ties are in order of the values.
        personal: the kind of personal data that the column seems to contain, such as "e-mail address", or "". The
            values of such a column are left out.
    """

    name: str
    type: str = ""
    nullable: bool = True
    comment: str = ""
    generated: bool = False
    distinct: int | None = None
    values: tuple[Value, ...] = ()
    examples: tuple[Value, ...] = ()
    personal: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseForeignKey:
    """Columns that refer to columns of another table.

    Args:
        columns: the columns, in order.
        table: the other table, by its name in `Database.tables`.
        targets: the columns of the other table. Empty if they are its primary key and the database does not name them.
    """

    columns: tuple[str, ...]
    table: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class DatabaseTable:
    """One table or view.

    Args:
        name: the name, without quotes and schema.
        columns: the columns, in order.
        primary_key: names of the primary key's columns, in the order of the key.
        foreign_keys: references to other tables.
        comment: the comment in the database, or "".
        rows: number of rows, often only an estimate from the database's statistics. None if it is unknown.
        is_view: whether it is a view.
        schema: the schema (namespace) if it is not the default one, otherwise None.
    """

    name: str
    columns: tuple[DatabaseColumn, ...]
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[DatabaseForeignKey, ...] = ()
    comment: str = ""
    rows: int | None = None
    is_view: bool = False
    schema: str | None = None

    @property
    def full_name(self) -> str:
        """The name, after its schema and a dot if it is not in the default schema. `Database.tables` has it as key."""
        return table_key(self.schema, self.name)

    @cached_property
    def by_name(self) -> Mapping[str, DatabaseColumn]:
        """The columns by name."""
        return {column.name: column for column in self.columns}


@dataclass(frozen=True, slots=True)
class Catalog:
    """The structure of a database, without values.

    Args:
        tables: tables and views by full name.
        notes: what could not be read, and why.
    """

    tables: Mapping[str, DatabaseTable]
    notes: tuple[str, ...] = ()


def table_key(schema: str | None, name: str) -> str:
    """Return the name of a table in `Database.tables`."""
    return f"{schema}.{name}" if schema else name
