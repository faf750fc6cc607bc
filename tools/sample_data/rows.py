"""Rows of a domain, and its in-memory SQLite database."""

import sqlite3
from collections.abc import Mapping
from functools import cache

from tools.sample_data.dice import Dice
from tools.sample_data.lexicon import Domain, Filling, Value


@cache
def columns_of(domain: Domain) -> Mapping[str, Mapping[str, list[Value]]]:
    """Return table name -> column name -> values of all rows. The values are always the same."""
    sizes = {table.name: table.rows for table in domain.tables}
    content: dict[str, dict[str, list[Value]]] = {}
    for table in domain.tables:
        columns = content[table.name] = {}
        for column in table.columns:
            dice = Dice(f"{domain.name}.{table.name}.{column.name}")
            columns[column.name] = list(column.fill(Filling(dice, table.rows, columns, sizes)))
    return content


def connect(domain: Domain) -> sqlite3.Connection:
    """Open a new in-memory database with the domain's tables and rows. The caller closes it."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(domain.schema)
    for table, columns in columns_of(domain).items():
        placeholders = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} VALUES ({placeholders})", zip(*columns.values(), strict=True))
    connection.commit()
    return connection
