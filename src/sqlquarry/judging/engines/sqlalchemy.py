"""Run queries on any other server that SQLAlchemy reaches (MySQL, MariaDB, …); imported in a child of `sandbox` only.

Unlike PostgreSQL these servers are not asked what a query does: sqlglot reads it, and anything but one SELECT without
known side effects is refused. The transaction is read-only where the server has such a thing, and always rolled back.
A query that is out of time ends with its child; most servers notice that and stop. Use an account that may only read.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sqlquarry.judging.engines import engine_of
from sqlquarry.judging.engines.answers import BATCH_ROWS, fetched, forbidden, unavailable, without_secrets
from sqlquarry.judging.sandbox_child import Answer

_OPEN_SERVERS = 4
_SETTINGS = {
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {milliseconds}"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_statement_time = {seconds}"),
}
_HIDDEN_SQL = re.compile(r"/\*M?!")  # https://dev.mysql.com/doc/refman/8.4/en/comments.html
# Functions that read files, run programs, reach other servers, take locks or wait.
_FORBIDDEN_FUNCTIONS = {
    "benchmark", "get_lock", "load_file", "master_pos_wait", "nextval", "opendatasource", "openquery", "openrowset",
    "setval", "sleep", "sys_eval", "sys_exec", "xp_cmdshell", "xp_dirtree",
}  # fmt: skip
# Errors differ between drivers; these words stand in the ones of the usual servers.
_KINDS = (
    ("unknown column", "no_such_column"),
    ("invalid column", "no_such_column"),
    ("no such column", "no_such_column"),
    ("doesn't exist", "no_such_table"),
    ("invalid object name", "no_such_table"),
    ("no such table", "no_such_table"),
    ("syntax", "syntax"),
    ("execution time exceeded", "timeout"),
    ("max_statement_time", "timeout"),
    ("read only", "forbidden"),
    ("denied", "forbidden"),
)

_open: OrderedDict[str, sqlalchemy.Connection] = OrderedDict()


def run_query(database: str, sql: str, limits: Mapping[str, Any]) -> Answer:
    """Run one statement and fetch its rows; every trouble is a failure."""
    deadline = time.monotonic() + limits["time_limit_s"]
    if refused := _refused(sql, engine_of(database).dialect):
        return refused
    try:
        connection = _connection(database, limits["time_limit_s"])
    except (SQLAlchemyError, ImportError) as error:  # also where the driver is not installed
        return unavailable(database, error)
    try:
        with connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(sql) as result:
            return fetched(tuple(result.keys()), _batches(result), limits, deadline)
    except DBAPIError as error:
        if error.connection_invalidated:
            return unavailable(database, error.orig or error)
        message = without_secrets(error.orig or error, database)
        kind = next((kind for words, kind in _KINDS if words in message.lower()), "other")
        return "failure", kind, message
    except (SQLAlchemyError, ValueError, MemoryError) as error:
        return "failure", "other", without_secrets(error, database)
    finally:
        _rolled_back(database)


def _refused(sql: str, dialect: str) -> Answer | None:
    from sqlglot import expressions as exp

    if _HIDDEN_SQL.search(sql):
        return forbidden("a comment that some servers execute")
    trees = _parsed(sql, dialect)
    if not trees:
        return "failure", "syntax", "sqlglot reads no statement in it, so it is not run"
    if len(trees) > 1 or not isinstance(trees[0], exp.Query):
        return forbidden("more than one statement" if len(trees) > 1 else "a statement that does more than read")
    for node in trees[0].walk():
        if isinstance(node, exp.DML | exp.Into | exp.Lock | exp.Command | exp.DDL) and not isinstance(node, exp.Query):
            return forbidden(f"{node.key} in a query")
        name = node.name if isinstance(node, exp.Anonymous) else node.key
        if isinstance(node, exp.Func) and name.lower() in _FORBIDDEN_FUNCTIONS:
            return forbidden(f"function {name.lower()}")
    return None


def _parsed(sql: str, dialect: str) -> list[Any] | None:
    import sqlglot
    from sqlglot.errors import SqlglotError

    known = sqlglot.Dialect.get(dialect) is not None
    try:
        return [tree for tree in sqlglot.parse(sql, read=dialect if known else None) if tree is not None]
    except (SqlglotError, RecursionError, ValueError):
        return None


def _connection(url: str, time_limit_s: float) -> sqlalchemy.Connection:
    if url not in _open:
        while len(_open) >= _OPEN_SERVERS:
            _closed(_open.popitem(last=False)[1])
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
        for setting in _SETTINGS.get(engine.dialect.name, ()):
            connection.exec_driver_sql(setting.format(milliseconds=int(time_limit_s * 1000), seconds=time_limit_s))
        connection.rollback()
        _open[url] = connection
    _open.move_to_end(url)
    return _open[url]


def _batches(result: sqlalchemy.CursorResult[Any]) -> Iterator[list[Any]]:
    while rows := result.fetchmany(BATCH_ROWS):
        yield list(rows)


def _rolled_back(url: str) -> None:
    connection = _open[url]
    try:
        connection.rollback()
    except SQLAlchemyError:
        _closed(connection)
    if connection.closed or connection.invalidated:
        del _open[url]


def _closed(connection: sqlalchemy.Connection) -> None:
    connection.invalidate()
    connection.close()
