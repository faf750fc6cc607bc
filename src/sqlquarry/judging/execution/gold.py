"""Run gold queries, and find out which other row orders and which other rows are also right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from sqlquarry.execution.engines import engine_of
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.results.cells import Cell
from sqlquarry.results.ordering import around_order_keys, is_ordered, limit_of, tied_places, with_order_keys
from sqlquarry.sql.double_quotes import quoted_columns, with_brackets

_CACHED_GOLDS = 2048


class UnavailableError(Exception):
    """A database cannot be reached. This says nothing about the query."""


class LimitChoice(NamedTuple):
    """The rows among which a LIMIT chose.

    Args:
        candidates: the rows that LIMIT could have kept, each with its place.
        places: the places of the rows that LIMIT kept.
        is_certain: False if it is unknown which rows tie. All rows then have the same place.
    """

    candidates: list[tuple[int, tuple[Cell, ...]]]
    places: list[int]
    is_certain: bool


class GoldResult(NamedTuple):
    """The result of a gold query on one database, with functions for facts that may take another query.

    Args:
        result: the rows.
        ordered: the query has a top-level ORDER BY.
        places: returns the place of each row in the order. Rows that tie in ORDER BY share a place. None if it is
            unknown which rows tie.
        limit_choice: returns the rows among which LIMIT chose, or None if it had no choice.
        note: a remark on the gold query for the reader of a report, or "".
    """

    result: Rows
    ordered: bool
    places: Callable[[], Sequence[int] | None]
    limit_choice: Callable[[], LimitChoice | None]
    note: str = ""


def gold_results(sandbox: Sandbox) -> Callable[[Path | str, str], GoldResult | Failure]:
    """Return a function that runs a gold query on a database and caches the result. Several threads may use it.

    The cache is outside `_GoldQueries`, which it refers to. A reference back would keep the sandbox and its processes
    until the next garbage collection.
    """
    return lru_cache(maxsize=_CACHED_GOLDS)(_GoldQueries(sandbox).result)


class _GoldQueries:
    """A runner of gold queries."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def result(self, database: Path | str, sql: str) -> GoldResult | Failure:
        result = run(self._sandbox, database, sql)
        if isinstance(result, Failure):
            return result
        dialect = engine_of(database).dialect
        note = self._text_for_a_column(database, sql) if dialect == "sqlite" else ""
        limit_choice = cache(partial(self._limit_choice, database, sql, result, dialect))
        if not is_ordered(sql, dialect):
            return GoldResult(result, False, lambda: [0] * len(result.rows), limit_choice, note)
        places = cache(partial(self._places, database, sql, result, dialect))
        return GoldResult(result, True, places, limit_choice, note)

    def _places(self, database: Path | str, sql: str, result: Rows, dialect: str) -> list[int] | None:
        """Return the place of each row, or None if it is unknown which rows tie. Rows that tie share a place."""
        if len(result.rows) < 2:
            return [0] * len(result.rows)
        places = self._ranked(database, sql, result, dialect)
        if places is not None:
            return places
        # The added keys may have made LIMIT keep other rows that tie.
        choice = self._limit_choice(database, sql, result, dialect)
        return choice.places if choice and choice.is_certain else None

    def _ranked(self, database: Path | str, sql: str, result: Rows, dialect: str) -> list[int] | None:
        """Let the database rank the rows by the query's own keys. Return None if it cannot or if the rows change."""
        for keyed in (with_order_keys(sql, dialect), around_order_keys(sql, result.columns, dialect)):
            ranked = run(self._sandbox, database, keyed.sql) if keyed else None
            if keyed and isinstance(ranked, Rows):
                places = tied_places(ranked.rows, keyed.keys)
                rows = [row[: -keyed.keys] for row in ranked.rows]
                # Otherwise the added keys have changed the rows, or the rank is not the order of the query.
                if Counter(zip(places, rows, strict=True)) == Counter(zip(places, result.rows, strict=False)):
                    return places
        return None

    def _limit_choice(self, database: Path | str, sql: str, result: Rows, dialect: str) -> LimitChoice | None:
        """Return the rows among which LIMIT chose, or None if no row that it dropped ties with one that it kept."""
        cut = limit_of(sql, dialect)
        whole = run(self._sandbox, database, cut.sql) if cut and result.rows else None
        if cut is None or not isinstance(whole, Rows) or len(whole.rows) <= len(result.rows):
            return None
        places = self._ranked(database, cut.sql, whole, dialect) if is_ordered(sql, dialect) else None
        if places is not None:
            found = list(zip(places, whole.rows, strict=True))
            kept = places[cut.offset : cut.offset + len(result.rows)]
            if Counter(zip(kept, result.rows, strict=False)) <= Counter(found):
                return LimitChoice([pair for pair in found if kept[0] <= pair[0] <= kept[-1]], kept, is_certain=True)
        return LimitChoice([(0, row) for row in whole.rows], [0] * len(result.rows), is_certain=False)

    def _text_for_a_column(self, database: Path | str, sql: str) -> str:
        """Return a note on a double-quoted name that SQLite reads as text, because it is not a column: AVG("totl")."""
        for name in quoted_columns(sql):
            tried = run(self._sandbox, database, with_brackets(sql, name))
            if isinstance(tried, Failure) and tried.kind == "no_such_column":
                return f'the gold SQL uses "{name}" as text, because there is no such column'
        return ""


def run(sandbox: Sandbox, database: Path | str, sql: str) -> Rows | Failure:
    """Run one query.

    Raises:
        UnavailableError: the database cannot be reached.
    """
    result = sandbox.run(database, sql)
    if isinstance(result, Failure) and result.kind == "unavailable":
        raise UnavailableError(result.message)
    return result
