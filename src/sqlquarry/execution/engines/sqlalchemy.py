"""Run queries on all other servers that SQLAlchemy supports (MySQL, MariaDB, …).

This module is imported only in child processes of `sandbox`. Unlike PostgreSQL, these servers cannot report what a
query does. So the user must allow them and should give them an account that can only read.

sqlglot parses the query. It must be one SELECT, set operation or VALUES, and each of its functions must be listed in
`pure_functions` or by the user. Columns and tables cannot be checked: in Oracle a column may be a function without
arguments, and any table may be a view. The transaction is read-only if the server supports that, and it is always
rolled back. If a query exceeds its time, its child is killed. Most servers notice that and stop.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sqlquarry.execution.engines import engine_of
from sqlquarry.execution.engines.answers import (
    BATCH_ROWS,
    collect_rows,
    forbidden,
    shown_url,
    unavailable,
    unknown_functions,
    without_secrets,
)
from sqlquarry.execution.engines.pure_functions import PURE_NAMES, PURE_TYPES
from sqlquarry.execution.sandbox_child import Answer, FailureKind, QuerySettings

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Func

_OPEN_SERVERS = 4
_SETTINGS = {
    "postgresql": ("SET default_transaction_read_only TO on", "SET statement_timeout TO {milliseconds}"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_execution_time = {milliseconds}"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION max_statement_time = {seconds}"),
}
# An optimizer hint can remove the time limit.
# https://dev.mysql.com/doc/refman/8.4/en/comments.html, optimizer-hints.html
_OBEYED_COMMENT = re.compile(r"/\*(M?!|\+)")
_SEQUENCES = {"nextval", "currval", "prevval"}  # Oracle and others write these like columns: sequence.NEXTVAL
# T-SQL needs no separator between statements. In SELECT a FROM t EXEC ('…') sqlglot reads EXEC as an alias, but it
# starts the next statement. https://learn.microsoft.com/en-us/sql/t-sql/language-elements/reserved-keywords-transact-sql
_STATEMENT_WORDS = """
    add alter backup begin break bulk checkpoint close commit continue create dbcc deallocate declare delete deny drop
    dump exec execute exit fetch goto grant if insert kill load merge open print raiserror readtext reconfigure
    restore return revert revoke rollback save set setuser shutdown throw truncate update updatetext use waitfor while
    writetext
"""
_STATEMENTS = frozenset(_STATEMENT_WORDS.split())
# Drivers have no common error codes. These words are in the messages of the usual servers.
_KINDS: tuple[tuple[str, FailureKind], ...] = (
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


def run_query(database: str, sql: str, settings: QuerySettings) -> Answer:
    """Run one statement and fetch its rows. Every error becomes a failure."""
    deadline = time.monotonic() + settings["time_s"]
    unchecked = None if settings["allow_unchecked_servers"] else _unchecked(database)
    if refused := unchecked or _refused(sql, engine_of(database).dialect, settings["allow_functions"]):
        return refused
    try:
        connection = _connection(database, settings["time_s"])
    except (SQLAlchemyError, ImportError) as error:  # ImportError: the driver is not installed
        return unavailable(database, error)
    try:
        with connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(sql) as result:
            return collect_rows(tuple(result.keys()), _batches(result), settings, deadline)
    except DBAPIError as error:
        if error.connection_invalidated:
            return unavailable(database, error.orig or error)
        message = without_secrets(error.orig or error, database)
        kind: FailureKind = next((kind for words, kind in _KINDS if words in message.lower()), "other")
        return "failure", kind, message
    except (SQLAlchemyError, ValueError, MemoryError) as error:
        return "failure", "other", without_secrets(error, database)
    finally:
        _rolled_back(database)


def _unchecked(url: str) -> Answer:
    message = (
        f"{engine_of(url).name} servers do not report what a query does, so no generated SQL is run on "
        f"{shown_url(url)}. If your account there can only read, pass allow_unchecked_servers=True."
    )
    return "failure", "unavailable", message


def _refused(sql: str, dialect: str, allowed: Sequence[str] = ()) -> Answer | None:
    import sqlglot
    from sqlglot import expressions as exp

    if _OBEYED_COMMENT.search(sql):
        return forbidden("a comment that some servers obey")
    trees = _parsed(sql, dialect)
    if not trees:
        return "failure", "syntax", "the query is not run, because sqlglot finds no statement in it"
    if len(trees) > 1 or not isinstance(trees[0], exp.Query | exp.Values):
        return forbidden("more than one statement" if len(trees) > 1 else "a statement that does more than read")
    if unwanted := next(filter(None, map(_unwanted, trees[0].walk())), None):
        return forbidden(unwanted)
    if dialect == "tsql" or sqlglot.Dialect.get(dialect) is None:
        names = {node.name.lower() for node in trees[0].find_all(exp.Identifier) if not node.quoted}
        if names & _STATEMENTS:
            return forbidden(f"{min(names & _STATEMENTS)} without quotes, which may start another statement,")
    functions = [node for node in trees[0].walk() if isinstance(node, exp.Func)]
    unknown = {name for node in functions for name in _unknown_name(node, dialect) if not _allows(allowed, name)}
    return unknown_functions(sorted(unknown)) if unknown else None


def _unwanted(node: Expr) -> str | None:
    """Describe a part of a query if it does more than read tables. Functions are checked separately."""
    from sqlglot import expressions as exp

    changes = exp.DML | exp.Into | exp.Lock | exp.Command | exp.DDL | exp.Hint | exp.QueryTransform
    if isinstance(node, changes) and not isinstance(node, exp.Query):
        return f"{node.key} in a query"
    locks = isinstance(node, exp.WithTableHint) and "LOCK" in node.sql().upper().replace("NOLOCK", "")
    if locks or node.args.get("settings"):
        return "a lock or setting"
    if isinstance(node, exp.PropertyEQ) and isinstance(node.this, exp.Parameter):
        return "setting a variable"
    if isinstance(node, exp.Column) and node.table and node.name.lower() in _SEQUENCES:
        return f"{node.name.lower()} of a sequence"
    if isinstance(node, exp.Table) and not isinstance(node.this, exp.Func):
        # Files, stages and tables of other servers: @stage, parquet.`s3://…`, t@link, server.database.schema.t
        plain = isinstance(node.this, exp.Identifier) and not set("@/:") & set(node.name)
        return None if plain else "a table outside of the database"
    return None


def _unknown_name(node: Func, dialect: str) -> list[str]:
    """Return the qualified name of a function that is not known to only compute, otherwise an empty list."""
    from sqlglot import expressions as exp

    name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
    parent = node.parent
    if isinstance(parent, exp.Dot) and parent.expression is node:
        return [f"{parent.this.sql()}.{name}".lower()]
    if isinstance(parent, exp.Table) and parent.db:
        return [f"{parent.db}.{name}".lower()]
    if isinstance(node, exp.Anonymous):
        return [] if name in PURE_NAMES.get(dialect, ()) else [name]
    return [] if type(node).__name__ in PURE_TYPES else [name]


def _allows(allowed: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern.lower()) for pattern in allowed)


def _parsed(sql: str, dialect: str) -> list[Expr] | None:
    import sqlglot
    from sqlglot.errors import SqlglotError

    known = sqlglot.Dialect.get(dialect) is not None
    if not known and "\\" in sql:  # a backslash may hide where a string ends
        return None
    try:
        return [tree for tree in sqlglot.parse(sql, read=dialect if known else None) if tree is not None]
    except (SqlglotError, RecursionError, ValueError):
        return None


def _connection(url: str, time_s: float) -> sqlalchemy.Connection:
    if url not in _open:
        while len(_open) >= _OPEN_SERVERS:
            _closed(_open.popitem(last=False)[1])
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
        restrict(connection, time_s)
        connection.rollback()
        _open[url] = connection
    _open.move_to_end(url)
    return _open[url]


def restrict(connection: sqlalchemy.Connection, time_s: float) -> None:
    """Make the session read-only and limit the time of its statements, on servers that can do that."""
    dialect = connection.dialect
    # A URL that begins with mysql:// may lead to a MariaDB server.
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    for setting in _SETTINGS.get(name, ()):
        connection.exec_driver_sql(setting.format(milliseconds=int(time_s * 1000), seconds=time_s))


def _batches(result: sqlalchemy.CursorResult[tuple[object, ...]]) -> Iterator[Sequence[Sequence[object]]]:
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
