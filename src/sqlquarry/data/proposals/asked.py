"""Describe the tables of a database as questions need them: English words, roles and values of columns, and links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Literal

from sqlquarry.data.database import Database, DatabaseColumn, DatabaseForeignKey, DatabaseTable
from sqlquarry.data.database.quoting import quoter, written_table
from sqlquarry.data.database.sampling import MOST_VALUES, UNSHOWN, sample_query
from sqlquarry.data.database.tables import Value
from sqlquarry.data.proposals.words import is_plural, plural, singular, split_words, spoken, without_table
from sqlquarry.errors import DatabaseError
from sqlquarry.results.cells import Cell
from sqlquarry.sql.schema import value_kind

Role = Literal["key", "reference", "label", "category", "text", "number", "code", "year", "date", "flag", "opaque"]
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?")
_YEARS = range(1000, 2101)
_LABELS = ("name", "title", "label", "full name", "model")
_CODES = re.compile(r".*\b(ID|IDs|code|zip|phone|postcode|isbn|ssn|latitude|longitude|(?<!^)number|no)")
_ADDITIVE = re.compile(
    r".*\b(amount|quantity|total|count|sales|revenue|budget|cost|payment|profit|loss|population|attendance|capacity|"
    r"stock|votes|number of|points|goals|killed|injured|wins)\b"
)
_SUPERLATIVES = {
    "age": ("oldest", "youngest"), "height": ("tallest", "shortest"), "weight": ("heaviest", "lightest"),
    "price": ("most expensive", "cheapest"), "unit price": ("most expensive", "cheapest"),
    "cost": ("most expensive", "cheapest"), "length": ("longest", "shortest"), "duration": ("longest", "shortest"),
    "area": ("largest", "smallest"), "size": ("largest", "smallest"), "capacity": ("largest", "smallest"),
}  # fmt: skip
_SHORTEST_LABEL, _LONGEST_VALUE = 2, 40  # characters
_LABEL_SHARE = 0.8  # distinct values per row


@dataclass(frozen=True, eq=False)
class AskedColumn:
    """A column in SQL and in English.

    Args:
        table: name of its table in `Database.tables`.
        name: its name.
        sql: the name as an SQL identifier.
        full: the same after the table's identifier and a dot.
        role: decides which questions may use it.
        noun: English noun.
        values: sampled values in order, with repeats and without NULL. Empty for personal data.
        is_unique: whether no value occurs twice in the sample.
        has_gaps: whether the sample has NULLs.
        is_empty: whether the sample has only NULLs.
    """

    table: str
    name: str
    sql: str
    full: str
    role: Role
    noun: str
    values: tuple[Value, ...]
    is_unique: bool
    has_gaps: bool
    is_empty: bool

    @cached_property
    def plural(self) -> str:
        """The noun in the plural."""
        return plural(self.noun)

    @property
    def verb(self) -> str:
        """The form of "to be" after the noun."""
        return "are" if is_plural(self.noun) else "is"

    @property
    def counted(self) -> str:
        """The things that the numbers count, such as "pages" of "number of pages", or ""."""
        return self.noun.removeprefix("number of ") if self.noun.startswith("number of ") else ""

    @property
    def is_additive(self) -> bool:
        """Whether a sum over rows makes sense."""
        return bool(_ADDITIVE.match(self.noun.lower()))

    @property
    def is_time(self) -> bool:
        """Whether the values are dates or years."""
        return self.role in ("date", "year")

    @property
    def extremes(self) -> tuple[str, str]:
        """Words for the largest and the smallest value."""
        return ("latest", "earliest") if self.is_time else ("highest", "lowest")

    @property
    def superlatives(self) -> tuple[str, str] | None:
        """Adjectives for the rows with the largest and the smallest number."""
        return _SUPERLATIVES.get(self.noun)

    @cached_property
    def distinct(self) -> tuple[Value, ...]:
        """The distinct values in order."""
        return tuple(dict.fromkeys(self.values))


@dataclass(frozen=True, eq=False)
class AskedTable:
    """A table with the English words for one row and for several.

    Args:
        name: its name in `Database.tables`.
        sql: the name as an SQL identifier.
        one: English noun for one row.
        many: the same in the plural.
        columns: the columns.
        is_bridge: whether it only connects two other tables.
    """

    name: str
    sql: str
    one: str
    many: str
    columns: tuple[AskedColumn, ...]
    is_bridge: bool

    def having(self, *roles: Role) -> list[AskedColumn]:
        """Return the columns that have one of these roles and values."""
        return [column for column in self.columns if column.role in roles and not column.is_empty]

    @cached_property
    def label(self) -> AskedColumn | None:
        """The column that people use to identify a row: a name, a key, or the first column with values."""
        labels = self.having("label")
        named = [c for word in _LABELS for c in labels if c.noun == word or c.noun.endswith(f" {word}")]
        known = [column for column in self.columns if not column.is_empty]
        return next(iter([*named, *labels, *self.having("key"), *known]), None)


@dataclass(frozen=True, eq=False)
class Link:
    """A foreign key of one column.

    Args:
        child: the table with the key.
        parent: the table that it refers to.
        key: the column of the child.
        target: the column of the parent.
        relation: what the parent is for the child, such as "owner".
        one: what a row of the child is for the parent. If the child only connects two tables, it is the other table.
        many: the same in the plural.
    """

    child: AskedTable
    parent: AskedTable
    key: AskedColumn
    target: AskedColumn
    relation: str
    one: str
    many: str

    @property
    def on(self) -> str:
        """The condition of the join."""
        return f"{self.key.full} = {self.target.full}"

    @property
    def joined(self) -> str:
        """The FROM clause of both tables."""
        return f"{self.child.sql} JOIN {self.parent.sql} ON {self.on}"


@dataclass(frozen=True, eq=False)
class AskedDatabase:
    """All tables with rows, and the links between them.

    Args:
        tables: the tables.
        links: the foreign keys of one column between two of the tables.
        dialect: the database's SQL dialect.
        notes: what could not be read, and why.
    """

    tables: tuple[AskedTable, ...]
    links: tuple[Link, ...]
    dialect: str
    notes: tuple[str, ...]


def asked_database(database: Database) -> AskedDatabase:
    """Read a sample of each table and describe the tables that have rows."""
    notes: list[str] = []
    tables: dict[str, AskedTable] = {}
    for name, table in database.tables.items():
        try:
            rows = _sample(database, table)
        except DatabaseError as error:
            notes.append(f"{name} is left out: {error}")
            continue
        if rows:
            tables[name] = _asked_table(table, rows, database.dialect)
        else:
            notes.append(f"{name} is left out: it has no rows")
    links = tuple(_links({name: database.tables[name] for name in tables}, tables))
    return AskedDatabase(tuple(tables.values()), links, database.dialect, tuple(notes))


def _sample(database: Database, table: DatabaseTable) -> Sequence[tuple[Cell, ...]]:
    return database.run(sample_query(table, [column.name for column in table.columns], database.dialect)).rows


def _asked_table(table: DatabaseTable, rows: Sequence[tuple[Cell, ...]], dialect: str) -> AskedTable:
    quote = quoter(dialect)
    sql = written_table(table, dialect)
    noun = spoken(table.name, table.comment)
    one = singular(noun)
    references = {name for key in table.foreign_keys for name in key.columns}
    keys = references | set(table.primary_key)
    columns = tuple(
        _asked_column(table, column, [row[i] for row in rows], (sql, quote(column.name)), one=one, dialect=dialect)
        for i, column in enumerate(table.columns)
    )
    is_bridge = len({key.table for key in table.foreign_keys}) == len(references) == 2 and all(
        column.name in keys for column in table.columns
    )
    return AskedTable(table.full_name, sql, one, plural(one), columns, is_bridge)


def _asked_column(
    table: DatabaseTable,
    column: DatabaseColumn,
    cells: Sequence[Cell],
    names: tuple[str, str],
    *,
    one: str,
    dialect: str,
) -> AskedColumn:
    values = [cell for cell in cells if isinstance(cell, str | int | float | Decimal) and str(cell).strip()]
    if all(isinstance(value, float) and value.is_integer() for value in values):
        values = [int(value) for value in values]
    known = [cell for cell in cells if cell is not None]
    is_unique = len({*known}) == len(known)
    noun = without_table(spoken(column.name, column.comment), one)
    role = _role(table, column, values, noun, is_unique=is_unique) if len(values) == len(known) else "opaque"
    if dialect != "sqlite" and value_kind(column.type) == "boolean":  # SQLite stores numbers or texts
        role = "flag"
    if noun == one and role in ("label", "category", "text"):
        noun = f"{noun} name"
    if role == "number":
        noun = _counting(noun, values)
    values = [] if column.personal else values
    table_sql, sql = names
    return AskedColumn(
        table.full_name,
        column.name,
        sql,
        f"{table_sql}.{sql}",
        role,
        noun,
        tuple(sorted(values, key=lambda value: (isinstance(value, str), value))),
        is_unique=is_unique,
        has_gaps=0 < len(known) < len(cells),
        is_empty=not known,
    )


def _role(  # noqa: PLR0911 - one return per role
    table: DatabaseTable, column: DatabaseColumn, values: Sequence[Value], noun: str, *, is_unique: bool
) -> Role:
    if any(key.columns == (column.name,) for key in table.foreign_keys):
        return "reference"
    if UNSHOWN.search(column.type):
        return "opaque"
    texts = [value for value in values if isinstance(value, str)]
    is_key = table.primary_key == (column.name,) or noun == "ID" or noun.endswith(" ID")
    if is_key and not (texts and noun.rsplit(maxsplit=1)[-1] in _LABELS):
        return "key"
    if texts and len(texts) < len(values):
        return "opaque"  # texts and numbers in one column
    if texts:
        return _text_role(column, texts, noun, is_unique=is_unique)
    whole = all(isinstance(value, int) for value in values)
    if whole and "year" in split_words(noun) and all(value in _YEARS for value in values):
        return "year"
    if column.values or len({*values}) <= 2:
        return "category" if whole and not is_plural(noun) and "number of" not in noun else "number"
    is_code = _CODES.fullmatch(noun) and not noun.startswith("number of")
    return "code" if is_code else "number"


def _text_role(column: DatabaseColumn, texts: Sequence[str], noun: str, *, is_unique: bool) -> Role:
    if all(map(_DATE.fullmatch, texts)):
        return "date"
    if "year" in noun.split() and all(text.isdecimal() and len(text) == len("2000") for text in texts):
        return "year"
    lengths = Counter(len(text) for text in texts)
    if max(lengths) > 3 * _LONGEST_VALUE or "\n" in "".join(texts):
        return "text"
    different = len({*texts})
    if column.values or (different <= MOST_VALUES and different < len(texts) / 2):
        return "category"
    is_label = is_unique or different > _LABEL_SHARE * len(texts) or noun.rsplit(maxsplit=1)[-1] in _LABELS
    has_letters = sum(any(sign.isalpha() for sign in text) for text in texts) > len(texts) / 2
    return "label" if is_label and has_letters and max(lengths) > _SHORTEST_LABEL else "text"


def _counting(noun: str, values: Sequence[Value]) -> str:
    """Return "number of goals" for a column of whole numbers that is named "goals"."""
    is_count = is_plural(noun) and all(isinstance(value, int) and value >= 0 for value in values)
    return f"number of {noun}" if is_count and " " not in noun and noun != "sales" else noun


def _links(known: Mapping[str, DatabaseTable], tables: Mapping[str, AskedTable]) -> Iterator[Link]:
    for name, table in known.items():
        child = tables[name]
        keys = [key for key in table.foreign_keys if key.table in tables and key.table != name]
        for key in [*keys, *_implied_keys(table, child, known, tables)]:
            targets = key.targets or known[key.table].primary_key
            parent = tables[key.table]
            column = next((one for one in child.columns if key.columns == (one.name,)), None)
            target = next((one for one in parent.columns if targets == (one.name,)), None)
            if column is None or target is None or column.is_empty or not target.is_unique:
                continue
            relation = re.sub(r" ?(ID|code|number|name|IDs)$", "", spoken(column.name)).strip()
            is_clear = len(relation) > 3 and len([other for other in keys if other.table == key.table]) > 1
            others = [tables[other.table] for other in keys if other.table != key.table]
            rows = others[0] if child.is_bridge and others else child
            yield Link(child, parent, column, target, relation if is_clear else parent.one, rows.one, rows.many)


def _implied_keys(
    table: DatabaseTable, child: AskedTable, known: Mapping[str, DatabaseTable], tables: Mapping[str, AskedTable]
) -> Iterator[DatabaseForeignKey]:
    """Yield references that the database does not declare: a column has the name and the values of another key."""
    declared = {name for key in table.foreign_keys for name in key.columns} | {*table.primary_key[:1]}
    for column in child.columns:
        for name, other in known.items():
            if column.name in declared or not column.values or name == child.name or len(other.primary_key) != 1:
                continue
            target = next(one for one in tables[name].columns if one.name == other.primary_key[0])
            names = {f"{tables[name].one} {target.noun}".lower(), spoken(target.name).lower()} - {"id", "code", "name"}
            if spoken(column.name).lower() in names and {*column.values} <= {*target.values}:
                yield DatabaseForeignKey((column.name,), name, (target.name,))
