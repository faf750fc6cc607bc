"""Read the tables of a server with SQLAlchemy's inspector.

This module is an engine of `sqlquarry.execution` and is imported only in its child processes. So the inspection can be
killed, and a driver's errors, which may contain a password, never reach the user's process. Instead of a query it gets
the schemas as JSON, and its one row is the catalog as JSON.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy
from sqlalchemy.engine.reflection import Inspector, ObjectKind
from sqlalchemy.exc import CompileError, SQLAlchemyError

from sqlquarry.execution.engines.answers import unavailable
from sqlquarry.execution.engines.sqlalchemy import restrict
from sqlquarry.execution.sandbox_child import Answer, QuerySettings, RowsAnswer

# Schema, table, column, type as the server spells it, estimated number of rows, and whether the account may read it.
# Tables of extensions and partitions are left out. A table that was never analyzed has -1 rows, so its size is used.
_POSTGRESQL = """
    SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        CASE WHEN c.relkind IN ('v', 'f') THEN NULL WHEN c.reltuples >= 0 THEN c.reltuples::int8
            WHEN c.relkind = 'p' THEN NULL ELSE pg_relation_size(c.oid) / 100 END,
        has_schema_privilege(n.oid, 'USAGE') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND n.nspname = ANY (%s)
        AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
"""
_MYSQL = """
    SELECT c.table_schema, c.table_name, c.column_name, c.column_type, t.table_rows, 1
    FROM information_schema.columns c JOIN information_schema.tables t
        ON t.table_schema = c.table_schema AND t.table_name = c.table_name
    WHERE c.table_schema IN %s
"""
# Names of PostgreSQL's types -> shorter names of the same types, which its manual lists (8.1, table 8.1).
_SHORTER = (
    (r"^character varying\b", "varchar"),
    (r"^character\b", "char"),
    (r"^(time|timestamp)(\(\d+\))? without time zone\b", r"\1\2"),
    (r"^(time|timestamp)(\(\d+\))? with time zone\b", r"\1tz\2"),
)
_DETAILS = {"postgresql": _POSTGRESQL, "mysql": _MYSQL, "mariadb": _MYSQL}
_UNKNOWN = {"type": "", "nullable": True, "comment": "", "generated": False, "values": []}
_NO_KEYS = {"primary_key": [], "foreign_keys": [], "comment": ""}
Key = tuple[str | None, str]
Details = tuple[str, int | None, bool]  # type, estimated number of rows, and whether the account may read the column


def run_query(database: str, schemas: str, settings: QuerySettings) -> Answer:
    """Return the catalog as one row. `schemas` is a JSON list of names, or null for the default schema."""
    try:
        text = json.dumps(_inspected(database, json.loads(schemas), settings))
    except SQLAlchemyError as error:
        return unavailable(database, getattr(error, "orig", None) or error)
    except Exception as error:  # noqa: BLE001 - drivers raise errors of any class, and their text may contain the URL
        return unavailable(database, error)
    answer: RowsAnswer = ("rows", ("catalog",), [(text,)])
    return answer


def _inspected(database: str, schemas: Sequence[str] | None, settings: QuerySettings) -> dict[str, object]:
    with _engine(database).connect() as connection:
        restrict(connection, settings["time_s"])
        connection.commit()  # PostgreSQL would undo the settings with the next rollback
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types and indexes that the inspector does not know
            return _catalog(connection, schemas)


def _engine(url: str) -> sqlalchemy.Engine:
    if not re.match(r"postgres(ql)?(\+\w+)?://", url):
        return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    import psycopg

    from sqlquarry.execution.engines.postgresql import CONNECT_TIMEOUT_S, libpq_uri

    # libpq reads the URL, as it does for queries.
    return sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(libpq_uri(url), connect_timeout=CONNECT_TIMEOUT_S),
        poolclass=sqlalchemy.NullPool,
    )


def _catalog(connection: sqlalchemy.Connection, schemas: Sequence[str] | None) -> dict[str, object]:
    inspector: Inspector = sqlalchemy.inspect(connection)
    default = inspector.default_schema_name
    if schemas and (missing := [name for name in schemas if name not in inspector.get_schema_names()]):
        return {"missing": missing, "known": inspector.get_schema_names()}
    names: Sequence[str | None] = schemas or [default]
    details = _details(connection, names)
    tables: list[dict[str, object]] = []
    unreadable: list[str] = []
    for schema in names:
        shown = None if schema == default else schema
        for table in _tables(connection, schema, details):
            key = (schema, str(table["name"]))
            if connection.dialect.name == "postgresql" and key not in details:
                continue
            table |= {"schema": shown, "rows": None}
            full = f"{shown}.{table['name']}" if shown else str(table["name"])
            columns = [_with_details(column, details.get(key, {})) for column in table["columns"]]
            table["columns"] = [column for column in columns if column.pop("is_readable")]
            refused = [column["name"] for column in columns if column not in table["columns"]]
            unreadable += [f"{full} ({', '.join(refused)})" if table["columns"] else full] if refused else []
            unreadable += [] if columns else [full]
            if table["columns"]:
                rows = [rows for _, rows, _ in details.get(key, {}).values()]
                table["rows"] = rows[0] if rows and not table["is_view"] else None
                for reference in table["foreign_keys"]:
                    reference["schema"] = None if reference["schema"] == default else reference["schema"]
                tables.append(table)
    return {"tables": tables, "unreadable": unreadable}


def _details(connection: sqlalchemy.Connection, schemas: Sequence[str | None]) -> Mapping[Key, dict[str, Details]]:
    """Return type, estimated number of rows and readability of each column, if the server's catalog is known."""
    if not (query := _DETAILS.get(connection.dialect.name)):
        return {}
    found: dict[Key, dict[str, Details]] = {}
    for schema, table, column, type_, rows, is_readable in connection.exec_driver_sql(query, (list(schemas),)):
        written = type_
        for long, short in _SHORTER:
            written = re.sub(long, short, written)
        known = (written, None if rows is None else int(rows), bool(is_readable))
        found.setdefault((schema, table), {})[column] = known
    return found


def _with_details(column: dict[str, Any], details: Mapping[str, Details]) -> dict[str, Any]:
    known, _, is_readable = details.get(column["name"], ("", None, True))
    return column | {"type": known or column["type"], "is_readable": is_readable}


def _tables(
    connection: sqlalchemy.Connection, schema: str | None, details: Mapping[Key, Mapping[str, Details]]
) -> Iterator[dict[str, Any]]:
    inspector: Inspector = sqlalchemy.inspect(connection)
    try:
        yield from _inspected_tables(inspector, schema, None)
    except SQLAlchemyError:
        # One table can fail all, such as a view of MySQL without the privilege SHOW VIEW.
        connection.rollback()
        views = {*inspector.get_view_names(schema)}
        for name in sorted({*inspector.get_table_names(schema)} | views):
            try:
                yield from [*_inspected_tables(inspector, schema, [name])]
            except SQLAlchemyError:
                connection.rollback()
                columns = [{"name": column, **_UNKNOWN} for column in details.get((schema, name), {})]
                yield {"name": name, "columns": columns, "is_view": name in views, **_NO_KEYS}


def _inspected_tables(
    inspector: Inspector, schema: str | None, names: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    options: dict[str, Any] = {"schema": schema, "kind": ObjectKind.ANY, "filter_names": names}
    columns = inspector.get_multi_columns(**options)
    primary: Mapping[Any, Any] = inspector.get_multi_pk_constraint(**options)
    foreign = inspector.get_multi_foreign_keys(**options)
    # PostgreSQL's inspector leaves out the schema of tables that the search path finds.
    own_schema = inspector.default_schema_name if inspector.dialect.name == "postgresql" else schema
    comments: Mapping[Any, Any] = {}
    with suppress(NotImplementedError):
        comments = inspector.get_multi_table_comment(**options)
    views = {*inspector.get_view_names(schema)}
    with suppress(NotImplementedError):
        views |= {*inspector.get_materialized_view_names(schema)}
    for key in sorted(columns, key=lambda key: key[1]):
        yield {
            "name": key[1],
            "columns": [_column(column, inspector.dialect) for column in columns[key]],
            "primary_key": list((primary.get(key) or {}).get("constrained_columns") or ()),
            "foreign_keys": sorted(
                (
                    {
                        "columns": reference["constrained_columns"],
                        "schema": reference.get("referred_schema") or own_schema,
                        "table": reference["referred_table"],
                        "targets": reference["referred_columns"],
                    }
                    for reference in foreign.get(key) or ()
                ),
                key=lambda reference: reference["columns"],
            ),
            "comment": (comments.get(key) or {}).get("text") or "",
            "is_view": key[1] in views,
        }


def _column(column: Mapping[str, Any], dialect: sqlalchemy.Dialect) -> dict[str, Any]:
    type_ = column["type"]
    text = ""  # of a type that the inspector does not know
    if not isinstance(type_, sqlalchemy.types.NullType):
        with suppress(CompileError):
            text = type_.compile(dialect=dialect)
    return {
        "name": column["name"],
        "type": re.sub(r" (COLLATE|CHARACTER SET) \S+", "", text),
        "nullable": bool(column.get("nullable", True)),
        "comment": column.get("comment") or "",
        "generated": bool(column.get("computed")),
        "values": list(getattr(type_, "enums", ())),
    }
