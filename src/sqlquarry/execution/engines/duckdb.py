"""Run queries on DuckDB files. This module is imported only in child processes of `sandbox`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from sqlquarry.execution.engines.answers import BATCH_ROWS, collect_rows, forbidden, timeout
from sqlquarry.execution.sandbox_child import Answer, FailureKind, QuerySettings

# Opening a file takes 90 ms, a hundred times as long as a small query. Other processes can read an open file, but they
# cannot write it.
_OPEN_FILES = 4
_open: OrderedDict[str, tuple[tuple[int, ...], duckdb.DuckDBPyConnection]] = OrderedDict()
_KINDS: tuple[tuple[type[duckdb.Error], str, FailureKind], ...] = (
    (duckdb.ParserException, "", "syntax"),
    (duckdb.PermissionException, "", "forbidden"),
    (duckdb.InvalidInputException, "read-only mode", "forbidden"),
    (duckdb.CatalogException, "Table with name", "no_such_table"),
    (duckdb.BinderException, "Referenced table", "no_such_table"),
    (duckdb.BinderException, "Referenced column", "no_such_column"),
    (duckdb.BinderException, "does not have a column", "no_such_column"),
)


def run_query(database: str, sql: str, settings: QuerySettings) -> Answer:
    """Run one statement and fetch its rows. Every error becomes a failure."""
    deadline = time.monotonic() + settings["time_s"]
    try:
        connection = _connection(Path(database), settings["memory_bytes"])
    except (duckdb.Error, OSError) as error:
        return "failure", "unavailable", _first_line(error)
    stop = threading.Timer(settings["time_s"], connection.interrupt)
    stop.start()
    try:
        statements = connection.extract_statements(sql)
        if refused := _refused(statements):
            return refused
        connection.execute(statements[0])
        columns = [column[0] for column in connection.description or ()]
        if exact := _with_nanoseconds_as_text(sql, connection.description or ()):
            connection.execute(exact)
        return collect_rows(columns, _batches(connection), settings, deadline)
    # Invalid Unicode is a TypeError. A date outside of Python's range may be an OverflowError.
    except (duckdb.Error, TypeError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        interrupted = isinstance(error, duckdb.InterruptException)
        return timeout(settings) if interrupted else ("failure", _kind(error), _first_line(error))
    finally:
        stop.cancel()


def _refused(statements: list[duckdb.Statement]) -> Answer | None:
    if not statements:
        return "failure", "syntax", "the query contains no statement"
    if len(statements) > 1:
        return "failure", "forbidden", "more than one statement"
    # DuckDB also gives DESCRIBE, SHOW and SUMMARIZE the type SELECT.
    if statements[0].type != duckdb.StatementType.SELECT:
        return forbidden(f"a statement of type {statements[0].type.name}")
    return None


def _with_nanoseconds_as_text(sql: str, description: Sequence[Sequence[object]]) -> str:
    """Return the query with its nanosecond columns as text, because Python has only microseconds.

    Return "" if there are no such columns.
    """
    kinds = [str(column[1]) for column in description]
    if "TIMESTAMP_NS" not in kinds:
        return ""
    columns = [f"CAST(c{i} AS VARCHAR)" if kind == "TIMESTAMP_NS" else f"c{i}" for i, kind in enumerate(kinds)]
    names = ", ".join(f"c{i}" for i in range(len(kinds)))
    # This is safe, because the query was parsed before and is a single statement.
    return f"SELECT {', '.join(columns)} FROM ({sql.rstrip().rstrip(';')}\n) AS answer({names})"


def _connection(path: Path, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    key, state = str(path), path.stat()
    content = (state.st_ino, state.st_mtime_ns, state.st_size)
    if key in _open and _open[key][0] != content:
        _open.pop(key)[1].close()  # close it first, because DuckDB has one instance per path
    if key not in _open:
        while len(_open) >= _OPEN_FILES:
            _open.popitem(last=False)[1][1].close()
        _open[key] = (content, _opened(path, memory_bytes))
    _open.move_to_end(key)
    return _open[key][1]


def _opened(path: Path, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        path,
        read_only=True,
        config={
            "threads": 1,
            "memory_limit": f"{memory_bytes}B",
            "enable_external_access": False,
            "temp_directory": "",  # by default DuckDB spills to a folder next to the database
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,  # a table name must not find a Python variable
            "lock_configuration": True,
        },
    )


def _batches(connection: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Sequence[object]]]:
    while rows := connection.fetchmany(BATCH_ROWS):
        yield rows


def _kind(error: Exception) -> FailureKind:
    message = str(error)
    return next((kind for type_, words, kind in _KINDS if isinstance(error, type_) and words in message), "other")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
