"""Runs trusted queries on candidate databases in memory: the gold, its variants, never a prediction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from sqlquarry.errors import JudgingError
from sqlquarry.judging.results.comparison import rows_match
from sqlquarry.judging.results.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.judging.sql.identifiers import quoted
from sqlquarry.judging.sql.schema import Schema, Table
from sqlquarry.judging.synthesis.candidate_rows import TableRows
from sqlquarry.judging.synthesis.determinacy import cuts_of, other_choices
from sqlquarry.judging.synthesis.table_rows import Cell

_STEPS_BETWEEN_CHECKS = 10_000  # SQLite instructions
_MOST_CHECKS = 100  # a million instructions: 10 to 30 ms, and the same on every machine
_MOST_RESULT_ROWS = 5_000
_MOST_VALUE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query returned: the number of columns, and rows x columns."""

    width: int
    rows: list[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class ExpectedResult:
    """What a gold query returned, and the place of each row in its order (0 for all where there is none)."""

    result: QueryResult
    places: Sequence[int]

    def matches(self, width: int, rows: Sequence[Sequence[object]]) -> bool:
        """Whether a result is right by the rules of `ExecutionGrader`; one too hard to compare counts as right."""
        if width != self.result.width:
            return False
        try:
            return rows_match(self.result.rows, rows, self.places)
        except JudgingError:
            return True

    @property
    def is_telling(self) -> bool:
        """Whether there is a value that is neither NULL, 0 nor empty, which no query returns by finding nothing."""
        return any(cell not in (None, 0, "", b"") for row in self.result.rows for cell in row)


class GoldQuery:
    """A gold query, and what is asked of it on every database; see `gold_of`."""

    def __init__(self, sql: str, schema: Schema) -> None:
        self.sql = sql
        self.ordered = is_ordered(sql, "sqlite")
        self.keyed = with_order_keys(sql, "sqlite") if self.ordered else None
        self.other_choices = other_choices(sql, schema)
        self.cuts = cuts_of(sql)


@lru_cache(maxsize=1024)
def gold_of(sql: str, schema: Schema) -> GoldQuery:
    """Return the gold, which many predictions of one record share."""
    return GoldQuery(sql, schema)


class CandidateDatabase:
    """One database in memory that is filled again and again, and its twin that holds the same rows in reverse."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.main = _connected(schema.ddl)
        # Without keys, so that no index hides the order of insertion; a collation would be lost with them.
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
        """Replace all rows; those that a constraint forbids are left out."""
        execute = self.main.execute
        self._twin_is_filled = False
        execute("BEGIN")
        for name, table in self.schema.tables.items():
            execute(f"DELETE FROM {quoted(table.name)}")
            required = self._required[name]
            allowed = [row for row in rows[name] if all(row[i] is not None for i in required)]
            _insert_all(self.main, self._inserts[name], allowed)
        while sum([execute(statement).rowcount for statement in self._orphans]):
            pass  # a row that goes may leave others without a parent
        execute("COMMIT")

    def stored(self) -> dict[str, list[tuple[Cell, ...]]]:
        """Return the rows as they are now."""
        return {name: self.main.execute(_select(table)).fetchall() for name, table in self.schema.tables.items()}

    def run(self, sql: str) -> QueryResult | None:
        """Run a trusted query on the rows; None if it fails or takes too long."""
        return _run(self.main, sql)

    def failure(self, sql: str) -> str | None:
        """Why the query does not run, in SQLite's words; None if it does."""
        try:
            _fetch(self.main, sql)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            return str(error)
        return None

    def expected(self, gold: GoldQuery) -> ExpectedResult | None:
        """Return the gold's result, or None if it fails."""
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

    def is_determined(self, gold: GoldQuery, expected: ExpectedResult) -> bool:
        """Whether the gold's answer is the only right one: the same in reverse and for every choice that it leaves."""
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
        """Return the rows as an SQLite file; the same rows give the same bytes."""
        file = _connected(self.schema.ddl)
        try:
            for name, rows in self.stored().items():
                file.executemany(self._inserts[name], rows)
            return file.serialize()
        finally:
            file.close()

    def close(self) -> None:
        """Give the memory back."""
        for connection in (self.main, self._twin):
            if connection is not None:
                connection.close()


def _connected(ddl: Sequence[str]) -> sqlite3.Connection:
    # Autocommit, so that every statement is its own transaction unless BEGIN says otherwise.
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA page_size = 1024")  # small databases of several tables: small files
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)  # also what VACUUM INTO needs
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_VALUE_BYTES)
    for statement in ddl:
        connection.execute(statement)
    return connection


def _insert_all(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Cell, ...]]) -> None:
    try:
        connection.executemany(statement, rows)
    except sqlite3.IntegrityError:  # a type that SQLite insists on, which OR IGNORE does not cover
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
            raise sqlite3.DataError("it is not a query, or returns too many rows")
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
    """Statements that delete rows whose foreign key has no parent."""
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
