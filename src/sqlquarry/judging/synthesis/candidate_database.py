"""Runs trusted queries on candidate databases in memory: golds and their variants, but never a prediction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from sqlquarry.errors import JudgingError
from sqlquarry.judging.synthesis.candidate_rows import TableRows
from sqlquarry.judging.synthesis.determinacy import cuts_of, other_choices
from sqlquarry.judging.synthesis.table_rows import Cell
from sqlquarry.results.comparison import rows_match
from sqlquarry.results.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.sql.identifiers import quoted
from sqlquarry.sql.schema import Schema, Table

_STEPS_BETWEEN_CHECKS = 10_000  # SQLite instructions
_MOST_CHECKS = 100
MOST_INSTRUCTIONS = _STEPS_BETWEEN_CHECKS * _MOST_CHECKS  # 10 to 30 ms, but the same limit on every machine
_MOST_RESULT_ROWS = 5_000
_MOST_VALUE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query: the number of columns, and the rows."""

    width: int
    rows: list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class ExpectedResult:
    """The result of a gold query, and the position of each row in its order. All are 0 if the gold has no ORDER BY."""

    result: QueryResult
    places: Sequence[int]

    def matches(self, width: int, rows: Sequence[Sequence[object]]) -> bool:
        """Return whether a result is right by the rules of `ExecutionGrader`, or too hard to compare."""
        if width != self.result.width:
            return False
        try:
            return rows_match(self.result.rows, rows, self.places)
        except JudgingError:
            return True

    @property
    def is_telling(self) -> bool:
        """True if there is a value other than NULL, 0 and empty text. A query that finds nothing cannot return it."""
        return any(cell not in (None, 0, "", b"") for row in self.result.rows for cell in row)


class GoldVariants:
    """A gold query with the variants of it that every database must run. Use `gold_of` to get a cached instance."""

    def __init__(self, sql: str, schema: Schema) -> None:
        self.sql = sql
        self.ordered = is_ordered(sql, "sqlite")
        self.keyed = with_order_keys(sql, "sqlite") if self.ordered else None
        self.other_choices = other_choices(sql, schema)
        self.cuts = cuts_of(sql)


@lru_cache(maxsize=1024)
def gold_of(sql: str, schema: Schema) -> GoldVariants:
    """Return the gold query. It is cached because many predictions for one record share it."""
    return GoldVariants(sql, schema)


class CandidateDatabase:
    """A database in memory that is refilled for each candidate, and a twin with the same rows in reverse order."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.main = _connected(schema.ddl)
        # The twin has no keys, because an index would hide the order of insertion. It keeps them if collations matter.
        plain = [_plain(table) for table in schema.tables.values()]
        self._twin_ddl = schema.ddl if schema.mentions("COLLATE") else (*plain, *schema.views)
        self._twin: sqlite3.Connection | None = None
        self._twin_is_filled = False
        self._inserts = {name: _insert(table) for name, table in schema.tables.items()}
        self._required = {
            name: [i for i, column in enumerate(table.columns.values()) if column.required]
            for name, table in schema.tables.items()
        }
        self._orphans = [statement for table in schema.tables.values() for statement in _orphans(table, schema)]

    def fill(self, rows: TableRows) -> None:
        """Replace all rows. Rows that violate a constraint are left out."""
        execute = self.main.execute
        self._twin_is_filled = False
        execute("BEGIN")
        for name, table in self.schema.tables.items():
            execute(f"DELETE FROM {quoted(table.name)}")
            required = self._required[name]
            allowed = [row for row in rows[name] if all(row[i] is not None for i in required)]
            _insert_all(self.main, self._inserts[name], allowed)
        while sum([execute(statement).rowcount for statement in self._orphans]):
            pass  # deleting a row may leave others without a parent
        execute("COMMIT")

    def stored(self) -> dict[str, list[tuple[Cell, ...]]]:
        """Return the current rows of each table."""
        return {name: self.main.execute(_select(table)).fetchall() for name, table in self.schema.tables.items()}

    def run(self, sql: str) -> QueryResult | None:
        """Run a trusted query and return its result, or None if it fails or takes too long."""
        return _run(self.main, sql)

    def failure(self, sql: str) -> str | None:
        """Return the message with which the query fails, or None if it runs."""
        try:
            _fetch(self.main, sql)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            return str(error)
        return None

    def expected(self, gold: GoldVariants) -> ExpectedResult | None:
        """Return the result of a gold query, or None if it fails."""
        result = _run(self.main, gold.sql)
        if result is None:
            return None
        places: Sequence[int] = [0] * len(result.rows)
        if gold.ordered:
            places = range(len(result.rows))
            keyed = _run(self.main, gold.keyed.sql) if gold.keyed else None
            if gold.keyed and keyed and len(keyed.rows) == len(result.rows):
                places = tied_places(keyed.rows, gold.keyed.keys)
        return ExpectedResult(result, places)

    def is_determined(self, gold: GoldVariants, expected: ExpectedResult) -> bool:
        """Return whether the gold returns the same for rows in reverse order and for every choice that it leaves."""
        for cut in gold.cuts:
            if (whole := self.run(cut.keyed.sql)) and cut.parts_a_tie(whole.rows):
                return False
        for choice in gold.other_choices:
            other = self.run(choice)
            if other is not None and not expected.matches(other.width, other.rows):
                return False
        if self._twin is None:
            self._twin = _connected(self._twin_ddl)
        if not self._twin_is_filled:
            self._twin.execute("BEGIN")
            stored = self.stored()
            for name, table in self.schema.tables.items():
                self._twin.execute(f"DELETE FROM {quoted(table.name)}")
                self._twin.executemany(self._inserts[name], stored[name][::-1])
            self._twin.execute("COMMIT")
            self._twin_is_filled = True
        result = _run(self._twin, gold.sql)
        return result is not None and expected.matches(result.width, result.rows)

    def packed(self) -> bytes:
        """Return the content of an SQLite file with the rows. The same rows give the same bytes."""
        file = _connected(self.schema.ddl)
        try:
            for name, rows in self.stored().items():
                file.executemany(self._inserts[name], rows)
            return file.serialize()
        finally:
            file.close()

    def close(self) -> None:
        """Close the connections and free their memory."""
        for connection in (self.main, self._twin):
            if connection is not None:
                connection.close()


def _connected(ddl: Sequence[str]) -> sqlite3.Connection:
    # Autocommit, so that every statement is its own transaction unless BEGIN says otherwise.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 1024")  # keeps the files of small databases small
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # prevents VACUUM INTO, too
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES)
    for statement in ddl:
        connection.execute(statement)
    return connection


def _insert_all(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Cell, ...]]) -> None:
    try:
        connection.executemany(statement, rows)
    except sqlite3.IntegrityError:  # a strict column type, which OR IGNORE does not cover
        for row in rows:
            with suppress(sqlite3.IntegrityError):
                connection.execute(statement, row)


def _run(connection: sqlite3.Connection, sql: str) -> QueryResult | None:
    try:
        return _fetch(connection, sql)
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError):
        return None


def _fetch(connection: sqlite3.Connection, sql: str) -> QueryResult:
    checks = 0

    def is_too_long() -> bool:
        nonlocal checks
        checks += 1
        return checks > _MOST_CHECKS

    connection.set_progress_handler(is_too_long, _STEPS_BETWEEN_CHECKS)
    connection.execute("PRAGMA query_only = ON")
    try:
        cursor = connection.execute(sql)
        rows = cursor.fetchmany(_MOST_RESULT_ROWS + 1)
        cursor.close()
        if cursor.description is None or len(rows) > _MOST_RESULT_ROWS:
            raise sqlite3.DataError(f"it is not a query, or it returns more than {_MOST_RESULT_ROWS:,} rows")
        return QueryResult(len(cursor.description), rows)
    finally:
        connection.execute("PRAGMA query_only = OFF")
        connection.set_progress_handler(None, 0)


def _plain(table: Table) -> str:
    types = {"integer": "INTEGER", "real": "REAL", "text": "TEXT"}
    columns = ", ".join(
        f"{quoted(column.name)} {types.get(column.kind, 'NUMERIC')}" for column in table.columns.values()
    )
    return f"CREATE TABLE {quoted(table.name)} ({columns})"


def _insert(table: Table) -> str:
    names = ", ".join(quoted(column.name) for column in table.columns.values())
    return f"INSERT OR IGNORE INTO {quoted(table.name)} ({names}) VALUES ({', '.join('?' * len(table.columns))})"


def _select(table: Table) -> str:
    return f"SELECT {', '.join(quoted(column.name) for column in table.columns.values())} FROM {quoted(table.name)}"


def _orphans(table: Table, schema: Schema) -> list[str]:
    """Return statements that delete the rows whose foreign key has no parent."""
    statements = []
    for key in table.foreign_keys:
        parent = schema.tables.get(key.table)
        if parent is None or not all(target in parent.columns for target in key.targets):
            continue
        child = quoted(table.name)
        present = " AND ".join(f"{child}.{quoted(column)} IS NOT NULL" for column in key.columns)
        pairs = zip(key.targets, key.columns, strict=True)
        met = " AND ".join(f"parent.{quoted(target)} = {child}.{quoted(column)}" for target, column in pairs)
        statements.append(
            f"DELETE FROM {child} WHERE {present} AND NOT EXISTS "
            f"(SELECT 1 FROM {quoted(parent.name)} AS parent WHERE {met})"
        )
    return statements
