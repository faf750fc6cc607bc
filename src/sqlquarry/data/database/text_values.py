"""Read the distinct values of text columns for the value index, within limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlquarry.data.database.personal import is_personal
from sqlquarry.data.database.quoting import quoter, written_table
from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.sampling import is_showable, sample_query
from sqlquarry.data.database.tables import DatabaseColumn, DatabaseTable
from sqlquarry.execution.sandbox import Failure

_MOST_OF_COLUMN = 20_000
_MOST_IN_ALL = 200_000
_MOST_ROWS = 1_000_000  # tables with more rows are sampled


def text_values(
    reader: Reader, tables: Mapping[str, DatabaseTable], dialect: str, *, personal: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield (table, column, value) of the distinct texts. Columns that cannot be read in time are left out.

    Args:
        reader: runs the queries.
        tables: the tables with their sampled values, which show the columns that contain texts.
        dialect: the database's dialect.
        personal: also yield values that look personal.
    """
    left = _MOST_IN_ALL
    for name, table in tables.items():
        for column in table.columns:
            if left <= 0:
                return
            if not _has_texts(column) or (column.personal and not personal):
                continue
            found = _texts(reader, table, column, dialect, min(left, _MOST_OF_COLUMN))
            left -= len(found)
            for value in found:
                if is_showable(value) and (personal or not is_personal(value)):
                    yield name, column.name, value


def _has_texts(column: DatabaseColumn) -> bool:
    return any(isinstance(value, str) for value in (*column.values, *column.examples))


def _texts(reader: Reader, table: DatabaseTable, column: DatabaseColumn, dialect: str, most: int) -> list[str]:
    name = quoter(dialect)(column.name)
    if (table.rows or 0) > _MOST_ROWS:
        query = sample_query(table, [column.name], dialect)
    else:
        rows = f"SELECT {name} FROM {written_table(table, dialect)} LIMIT {_MOST_ROWS}"
        query = f"SELECT DISTINCT {name} FROM ({rows}) AS found ORDER BY 1 LIMIT {most}"
    cells = reader.rows(query)
    if isinstance(cells, Failure):  # all rows take too long
        cells = reader.rows(sample_query(table, [column.name], dialect))
    if isinstance(cells, Failure):
        return list(map(str, (*column.values, *column.examples)))
    return sorted({cell for (cell,) in cells if isinstance(cell, str)})[:most]
