"""Read the tables of a DuckDB file from its own catalog (https://duckdb.org/docs/stable/sql/meta/duckdb_table_functions).

SQLAlchemy needs another package to inspect DuckDB, and would open the file in this process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.tables import Catalog, DatabaseColumn, DatabaseForeignKey, DatabaseTable, table_key
from sqlquarry.errors import ConfigError
from sqlquarry.execution.sandbox import Failure
from sqlquarry.options import did_you_mean

_HERE = "database_name = current_database() AND NOT internal"
_SCHEMAS = "SELECT schema_name FROM duckdb_schemas() WHERE database_name = current_database()"
_TABLES = f"""
    SELECT schema_name, table_name, comment, estimated_size FROM duckdb_tables() WHERE {_HERE}
    UNION ALL SELECT schema_name, view_name, comment, NULL FROM duckdb_views() WHERE {_HERE}
    ORDER BY ALL
"""
_COLUMNS = f"""
    SELECT schema_name, table_name, column_name, data_type, is_nullable, comment
    FROM duckdb_columns() WHERE {_HERE} ORDER BY schema_name, table_name, column_index
"""
_KEYS = """
    SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names
    FROM duckdb_constraints() WHERE database_name = current_database()
        AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY')
    ORDER BY ALL
"""
_DEFAULT = "main"


def read_duckdb(reader: Reader, schema_names: Sequence[str] | None) -> Catalog | Failure:
    """Return tables and views in the order of their names, or the reason why the file cannot be read.

    Raises:
        ConfigError: a schema does not exist.
    """
    answers = [reader.rows(query) for query in (_SCHEMAS, _TABLES, _COLUMNS, _KEYS)]
    if failure := next((answer for answer in answers if isinstance(answer, Failure)), None):
        return failure
    schemas, found, columns, keys = (answer for answer in answers if not isinstance(answer, Failure))
    known = {schema for (schema,) in schemas}
    wanted = schema_names or (_DEFAULT,)
    if missing := [name for name in wanted if name not in known]:
        raise ConfigError(
            f"schema_names has {missing[0]!r}, but the file has no such schema{did_you_mean(missing[0], known)}"
        )
    tables = [
        _table(
            row,
            [cells for place, table, *cells in columns if (place, table) == row[:2]],
            [cells for place, table, *cells in keys if (place, table) == row[:2]],
        )
        for schema in wanted
        for row in found
        if row[0] == schema
    ]
    return Catalog({table.full_name: table for table in tables})


def _table(row: Sequence[Any], columns: Sequence[Sequence[Any]], keys: Sequence[Sequence[Any]]) -> DatabaseTable:
    schema, name, comment, rows = row
    schema = None if schema == _DEFAULT else schema
    # DuckDB's foreign keys stay within one schema.
    lists = [(kind, json.loads(own), table, json.loads(targets or "[]")) for kind, own, table, targets in keys]
    return DatabaseTable(
        name,
        tuple(
            DatabaseColumn(column, type_, nullable=bool(is_nullable), comment=about or "")
            for column, type_, is_nullable, about in columns
        ),
        primary_key=next((tuple(own) for kind, own, *_ in lists if kind == "PRIMARY KEY"), ()),
        foreign_keys=tuple(
            DatabaseForeignKey(tuple(own), table_key(schema, table), tuple(targets))
            for kind, own, table, targets in lists
            if kind == "FOREIGN KEY"
        ),
        comment=comment or "",
        rows=rows,
        is_view=rows is None,
        schema=schema,
    )
