"""Builds one schema in SQLite in memory, to check whether SQLite accepts a query and to run it on a few generated rows.

Predictions are not trusted, so an authorizer checks every step of their compilation. A query may only read, and it may
only call functions whose work is bounded by the size of their arguments. The number of instructions and the size of
values are limited. The database contains generated rows only and opens no file.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from threading import RLock

from sqlquarry.sql.identifiers import quoted

SQLValue = str | int | float | bytes | None
Row = tuple[SQLValue, ...]

_MOST_INSTRUCTIONS = 100_000  # SQLite instructions of one run: about 2 ms
_MOST_ROWS = 1_000
_MOST_VALUE_BYTES = 100_000  # also limits the text of the query
_MOST_PATTERN_BYTES = 100  # for LIKE and GLOB, whose time grows with pattern length times text length
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
# Functions that return the same value on every run, and whose result is at most as long as their arguments.
_BOUNDED_FUNCTIONS = {
    *("abs", "avg", "coalesce", "count", "date", "datetime", "ifnull", "iif", "instr", "julianday", "length", "like"),
    *("lower", "ltrim", "max", "min", "nullif", "round", "rtrim", "sign", "strftime", "substr", "substring", "sum"),
    *("time", "total", "trim", "typeof", "upper", "dense_rank"),
}  # fmt: skip


class MemoryDatabase:
    """The tables of one schema, which are empty until `filled` adds rows. Several threads may share an instance.

    Args:
        ddl: statements that SQLite is known to accept.
    """

    def __init__(self, ddl: Sequence[str]) -> None:
        self._lock = RLock()
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)
        for statement in ddl:
            self._connection.execute(statement)
        for limit, value in (
            (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
            (sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES),
            (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _MOST_PATTERN_BYTES),
            (sqlite3.SQLITE_LIMIT_VDBE_OP, _MOST_INSTRUCTIONS),
        ):
            self._connection.setlimit(limit, value)

    def refusal(self, sql: str) -> str | None:
        """Return the message with which SQLite refuses the query, or None if SQLite accepts it.

        The query is only compiled, by EXPLAIN, and does not run.
        """
        with self._lock, self._guarded({*_READING, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}, None):
            try:
                self._connection.execute(f"EXPLAIN {sql}").close()
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
                return str(error)
        return None

    @contextmanager
    def filled(self, rows: Mapping[str, Sequence[Row]], columns: Mapping[str, Sequence[str]]) -> Iterator[None]:
        """Fill the tables with the given rows only, and keep other threads out until the context ends.

        Rows that violate a constraint of the schema are left out.
        """
        execute = self._connection.execute
        with self._lock:
            execute("BEGIN")
            try:
                for table, content in rows.items():
                    execute(f"DELETE FROM {quoted(table)}")
                    names = ", ".join(map(quoted, columns[table]))
                    places = ", ".join("?" * len(columns[table]))
                    insert = f"INSERT OR IGNORE INTO {quoted(table)} ({names}) VALUES ({places})"
                    for row in content:
                        with suppress(sqlite3.Error):  # a strict column type
                            execute(insert, row)
                yield
            finally:
                execute("ROLLBACK")

    def run(self, sql: str, *, reverse: bool = False) -> list[Row] | None:
        """Return the rows of an untrusted query, or None if it fails, takes too long or calls an unbounded function.

        Args:
            sql: one query.
            reverse: whether to return rows in reverse order if the query does not sort them.
        """
        with self._lock:
            self._connection.execute(f"PRAGMA reverse_unordered_selects = {int(reverse)}")
            with self._guarded(_READING, _BOUNDED_FUNCTIONS):
                try:
                    cursor = self._connection.execute(sql)
                    rows = cursor.fetchmany(_MOST_ROWS + 1)
                    cursor.close()
                except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):
                    return None
        return rows if len(rows) <= _MOST_ROWS else None

    @contextmanager
    def _guarded(self, actions: set[int], functions: set[str] | None) -> Iterator[None]:
        def allow(action: int, _: str | None, name: str | None, *__: str | None) -> int:
            if action == sqlite3.SQLITE_FUNCTION and functions is not None:
                return sqlite3.SQLITE_OK if (name or "").lower() in functions else sqlite3.SQLITE_DENY
            return sqlite3.SQLITE_OK if action in actions else sqlite3.SQLITE_DENY

        self._connection.set_authorizer(allow)
        self._connection.set_progress_handler(lambda: True, _MOST_INSTRUCTIONS)
        try:
            yield
        finally:
            self._connection.set_authorizer(None)
            self._connection.set_progress_handler(None, 0)


@lru_cache(maxsize=64)
def memory_database(ddl: tuple[str, ...]) -> MemoryDatabase:
    """Return the database in memory for a schema. It is cached because creating it takes longer than a query."""
    return MemoryDatabase(ddl)
