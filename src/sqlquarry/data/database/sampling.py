"""Read the values of columns from samples of their tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

from sqlquarry.data.database.personal import is_personal, personal_data
from sqlquarry.data.database.quoting import quoter, written_table
from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.sqlite_catalog import row_number
from sqlquarry.data.database.tables import Catalog, DatabaseColumn, DatabaseTable, Value
from sqlquarry.execution.sandbox import Failure
from sqlquarry.sql.schema import value_kind

SAMPLE_ROWS = 10_000
MOST_VALUES = 30  # a column with more distinct values is not a category
_MOST_NUMBERS = 5  # a column of numbers with more distinct values is a quantity, not a code
_EXAMPLES = 5
_LONGEST_VALUE = 50  # characters, because longer texts are neither categories nor useful examples
_LONGEST_INTEGER_BITS = 128  # PostgreSQL's numbers may have more digits than Python converts to text
_BLOCKS = 10
# Types whose values no prompt can show.
UNSHOWN = re.compile(
    r"BLOB|BYTEA|BINARY|IMAGE|JSON|XML|GEO|POINT|POLYGON|VECTOR|ARRAY|MAP|STRUCT|UNION|\[", re.IGNORECASE
)


def with_values(reader: Reader, catalog: Catalog, dialect: str, *, personal: bool) -> Catalog:
    """Return the catalog with distinct values and examples of its columns.

    At most `SAMPLE_ROWS` rows of each table are read. A table whose rows cannot be read in time stays without values,
    and a note names it.

    Args:
        reader: runs the queries.
        catalog: the tables.
        dialect: the database's dialect.
        personal: also keep values that look personal.
    """
    notes = list(catalog.notes)
    tables = {}
    for name, table in catalog.tables.items():
        columns = [column for column in table.columns if not UNSHOWN.search(column.type)]
        rows, problem = _sample(reader, table, columns, dialect)
        if problem:
            notes.append(f"values of {name} were not read: {problem}")
        tables[name] = _with_sample(table, rows, personal=personal)
    return Catalog(tables, tuple(notes))


def _sample(
    reader: Reader, table: DatabaseTable, columns: Sequence[DatabaseColumn], dialect: str
) -> tuple[Mapping[str, Sequence[Any]], str]:
    """Return the sampled cells of each column that can be read, and why others cannot."""
    if not columns:
        return {}, ""
    names = [column.name for column in columns]
    rows = reader.rows(sample_query(table, names, dialect))
    if not isinstance(rows, Failure) and not rows and table.rows:  # the estimated number of rows is out of date
        rows = reader.rows(sample_query(replace(table, rows=None), names, dialect))
    if not isinstance(rows, Failure):
        return {column.name: [row[i] for row in rows] for i, column in enumerate(columns)}, ""
    if len(columns) == 1 or rows.kind in ("timeout", "unavailable", "forbidden"):
        return {}, rows.message
    # One value that is too long fails the query. The other columns can still be read.
    found: dict[str, Sequence[Any]] = {}
    problems = []
    for column in columns:
        cells, problem = _sample(reader, table, [column], dialect)
        found |= cells
        problems += [f"{column.name}: {problem}"] if problem else []
    return found, "; ".join(problems)


def sample_query(table: DatabaseTable, columns: Sequence[str], dialect: str) -> str:
    """Return a query for at most `SAMPLE_ROWS` rows that does not read the whole table.

    Small tables are read completely, so that the values do not depend on the order of rows.
    """
    names = ", ".join(map(quoter(dialect), columns))
    source = written_table(table, dialect)
    is_large = not table.is_view and (table.rows or 0) > SAMPLE_ROWS
    number = row_number([column.name for column in table.columns])
    if is_large and (dialect == "sqlite" or (dialect == "duckdb" and number == "rowid")):
        # The first rows are the oldest ones, so blocks of rows from the whole table are read.
        step, size = -(-(table.rows or 0) // _BLOCKS), SAMPLE_ROWS // _BLOCKS
        bounds = [f"{number} > {step * block} AND {number} <= {step * (block + 1)}" for block in range(_BLOCKS)]
        bounds[0] = f"{number} <= {step}"  # also negative row numbers
        blocks = (f"WHERE {bound} ORDER BY {number} LIMIT {size}" for bound in bounds)
        return " UNION ALL ".join(f"SELECT * FROM (SELECT {names} FROM {source} {block})" for block in blocks)
    if is_large and dialect == "postgres":
        percent = 100 * min(1.0, 1.5 * SAMPLE_ROWS / (table.rows or 1))
        source += f" TABLESAMPLE SYSTEM ({percent:.6f}) REPEATABLE (0)"
    return f"SELECT {names} FROM {source} LIMIT {SAMPLE_ROWS}"


def _with_sample(table: DatabaseTable, cells: Mapping[str, Sequence[Any]], *, personal: bool) -> DatabaseTable:
    keys = {name for key in table.foreign_keys for name in key.columns} | set(table.primary_key)
    columns = tuple(
        _with_cells(table, column, cells[column.name], is_key=column.name in keys, personal=personal)
        if column.name in cells
        else replace(column, personal=personal_data(table.name, column.name, ()))
        for column in table.columns
    )
    read = max(map(len, cells.values()), default=SAMPLE_ROWS)
    return replace(
        table, columns=columns, rows=read if read < SAMPLE_ROWS and (table.rows or 0) <= SAMPLE_ROWS else table.rows
    )


def _with_cells(
    table: DatabaseTable, column: DatabaseColumn, cells: Sequence[Any], *, is_key: bool, personal: bool
) -> DatabaseColumn:
    counts: Counter[Value] = Counter(filter(_is_value, cells))
    kind = personal_data(table.name, column.name, counts)
    column = replace(column, distinct=len(counts), personal=kind)
    if (kind and not personal) or value_kind(column.type) == "boolean":
        return replace(column, values=())
    shown = [value for value in counts if is_showable(str(value)) and (personal or not is_personal(value))]
    values = column.values  # of an ENUM
    if not values and len(shown) == len(counts) and _is_category(counts, is_key=is_key):
        values = tuple(sorted(counts, key=_order))
    examples = sorted(shown, key=lambda value: (-counts[value], _order(value)))[:_EXAMPLES]
    if is_key and not any(isinstance(value, str) for value in examples):
        examples = []  # no question contains the number of a row
    return replace(column, values=values, examples=tuple(examples))


def _is_value(cell: object) -> bool:
    """Return whether a cell is a text or number that SQL can contain as a literal of ordinary length."""
    if isinstance(cell, int):
        return cell.bit_length() < _LONGEST_INTEGER_BITS
    return isinstance(cell, str | Decimal) or (isinstance(cell, float) and math.isfinite(cell))


def is_showable(text: str) -> bool:
    """Return whether a comment in one line can contain a value unchanged."""
    is_clean = text.isprintable() and text == text.strip() and "  " not in text
    return is_clean and len(text) <= _LONGEST_VALUE and not {"/*", "*/"} & {a + b for a, b in pairwise(text)}


def _is_category(counts: Counter[Value], *, is_key: bool) -> bool:
    """Return whether values are few and repeat. Numbers must be even fewer, whole, and not part of a key."""
    if not counts or counts.total() < 2 * len(counts) or len(counts) > MOST_VALUES:
        return False
    numbers = [value for value in counts if not isinstance(value, str)]
    is_code = 1 < len(counts) <= _MOST_NUMBERS and not is_key and all(isinstance(number, int) for number in numbers)
    return not numbers or is_code


def _order(value: Value) -> tuple[bool, Value]:
    return isinstance(value, str), value
