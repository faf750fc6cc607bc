"""Write the tables of a `tables.json`, as Spider, BIRD and KaggleDBQA ship it, as CREATE TABLE statements.

Facts about the format are from https://github.com/taoyds/spider (README).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.data.identifiers import quoted
from sqlquarry.errors import DataError, MetadataError
from sqlquarry.files.metadata import parse_json, read_bytes

_TYPES = {"number": "NUMERIC", "time": "DATETIME", "others": ""}  # Other types are written in capitals.


def schemas_of_tables(path: Path) -> dict[str, str]:
    """Return the schema of each database in the file. It may also be an object of names and CREATE TABLE texts.

    Raises:
        DataError: the file cannot be read or does not have the form of a `tables.json`.
    """
    try:
        databases = parse_json(read_bytes(path), str(path), lenient=True)
    except (OSError, MetadataError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if isinstance(databases, dict) and all(isinstance(schema, str) for schema in databases.values()):
        return databases
    schemas = {}
    for database in databases if isinstance(databases, list) else [None]:
        name = database.get("db_id") if isinstance(database, dict) else None
        try:
            schemas[str(name)] = _schema(database)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{path} does not have the form of Spider's tables.json: in the database {name!r:.80}, "
                f"{type(error).__name__}: {error}. Pass schema= with CREATE TABLE text."
            ) from error
    return schemas


def _schema(database: Any) -> str:  # its form is checked by reading it
    tables = [quoted(_text(name)) for name in database["table_names_original"]]
    columns = [(_number(at), quoted(_text(name))) for at, name in _pairs(database["column_names_original"])]
    types = [_text(kind) for kind in database["column_types"]]
    lines: list[list[str]] = [[] for _ in tables]
    for (table, name), kind in zip(columns, types, strict=True):
        if table >= 0:  # The first column is "*" and belongs to no table.
            lines[table].append(f"{name} {_TYPES.get(kind, kind.upper())}".strip())
    if [] in lines:
        raise ValueError(f"the table {tables[lines.index([])]} has no columns")
    for table, names in _primary_keys(database.get("primary_keys", []), columns):
        lines[table].append(f"PRIMARY KEY ({', '.join(names)})")
    for one, other in _pairs(database.get("foreign_keys", [])):
        (table, name), (target, key) = columns[_number(one)], columns[_number(other)]
        if min(table, target) >= 0:
            lines[table].append(f"FOREIGN KEY ({name}) REFERENCES {tables[target]} ({key})")
    return "\n".join(f"CREATE TABLE {name} ({', '.join(parts)});" for name, parts in zip(tables, lines, strict=True))


def _primary_keys(keys: Sequence[object], columns: Sequence[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Yield each table with the columns of its primary key. BIRD writes keys of several columns as lists."""
    by_table: dict[int, list[str]] = {}
    for key in keys:
        for index in key if isinstance(key, list) else [key]:
            table, name = columns[_number(index)]
            if table >= 0:
                by_table.setdefault(table, []).append(name)
    yield from by_table.items()


def _pairs(values: Sequence[object]) -> Iterator[tuple[object, object]]:
    for value in values:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{value!r:.40} is not a pair")
        yield value[0], value[1]


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.40} is not a number")
    if value < -1:
        raise ValueError(f"{value} is not the number of a table or column")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r:.40} is not a name")
    return value
