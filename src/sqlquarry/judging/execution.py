"""Execution accuracy: run gold and prediction on the record's databases and compare what comes back."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlquarry.artifacts import Judgement, Record, Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.comparison import STRICT, Comparison, results_equal, rows_match
from sqlquarry.judging.databases import DatabaseSource, NamedDatabases
from sqlquarry.judging.engines import engine_of
from sqlquarry.judging.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.judging.sandbox import Failure, Limits, Rows, Sandbox

_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 200
_CACHED_GOLDS = 2048


class _Gold(NamedTuple):
    result: Rows
    ordered: bool
    places: Callable[[], Sequence[int]]  # of each row; rows that tie in ORDER BY share one. It may take a query.


class _UnavailableError(Exception):
    """A database cannot be reached, which says nothing about a query."""


class ExecutionGrader:
    """Correct if the prediction returns the same rows as a gold query on every database of the record.

    Rows are compared with `results_equal`. Their order counts only if the gold SQL has a top-level ORDER BY, and rows
    that tie in its keys may then come in any order; where the keys cannot be told (set operations, DISTINCT with
    LIMIT) ties must come as in the gold result. Which of several tied rows a LIMIT keeps is not forgiven.

    Where a record has several golds, one and the same of them must agree on all databases; golds that fail on one do
    not count. A record without gold or database, or of which no gold runs, is unjudged, and so is one whose server
    cannot be reached. A prediction that fails, for whatever reason, is wrong: a gold ran under the same limits. So is
    one with another number of columns, also where both results are empty. SQL is run in the database's dialect,
    whatever the record's is, unless the source of the databases translates it.

    Databases are opened read-only, in processes of their own that can be killed; only one statement that reads is run.
    Gold results are kept and used again. It may be used from several threads.

    Args:
        databases: name -> SQLite or DuckDB file or SQLAlchemy URL; or a directory that holds ``<name>.sqlite`` (also
            ``.db``, ``.sqlite3``, ``.duckdb``) or ``<name>/<name>.sqlite`` as Spider does; or one URL, in which
            ``{database}`` stands for the name; or a `DatabaseSource`.
        comparison: what may differ between results that count as the same.
        time_limit_s: seconds per query.
        row_limit: rows per result.
        result_bytes_limit: bytes per result.
        value_bytes_limit: bytes per value.
        memory_bytes_limit: bytes that a query may use in DuckDB.
        name: the grader's name in reports.

    Raises:
        JudgingError: the directory, or files of the mapping, do not exist.
        ConfigError: a limit is not a positive, finite number.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        databases: DatabaseSource | Mapping[str, str | Path] | str | Path,
        *,
        comparison: Comparison = STRICT,
        time_limit_s: float = 10.0,
        row_limit: int = 100_000,
        result_bytes_limit: int = 100_000_000,
        value_bytes_limit: int = 1_000_000,
        memory_bytes_limit: int = 1_000_000_000,
        name: str = "execution",
    ) -> None:
        require("judge", "ExecutionGrader")
        self.name = name
        self.comparison = comparison
        limits = Limits(
            time_limit_s=time_limit_s,
            row_limit=row_limit,
            result_bytes_limit=result_bytes_limit,
            value_bytes_limit=value_bytes_limit,
            memory_bytes_limit=memory_bytes_limit,
        )
        self._sandbox = Sandbox(limits)
        self._source: DatabaseSource = (
            NamedDatabases(databases) if isinstance(databases, Mapping | str | Path) else databases
        )
        self._gold = lru_cache(maxsize=_CACHED_GOLDS)(self._run_gold)

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Run gold and prediction and compare; the first rows of both stand in the details.

        Raises:
            JudgingError: a process that runs the queries does not start.
            MissingExtraError: the record's database is of a kind whose extra is not installed.
        """
        if record.sql is None:
            return Judgement(self.name, "unjudged", "the record has no gold SQL")
        source = self._source
        try:
            databases = source.databases_for(record, predicted_sql)
            golds = [source.translate(sql, record) for sql in record.golds]
            predicted_sql = source.translate(predicted_sql, record) if predicted_sql else ""
        except JudgingError as error:
            return Judgement(self.name, "unjudged", str(error))
        if not databases:
            return Judgement(self.name, "unjudged", "there is no database for this record")
        extra = getattr(source, "details", None)
        details = {"databases": len(databases)} | (dict(extra(record)) if extra else {})
        try:
            verdict, reason = self._grade(databases, golds, predicted_sql, details)
        except _UnavailableError as error:
            verdict, reason = "unjudged", str(error)
        return Judgement(self.name, verdict, reason, details)

    def fingerprint(self, record: Record) -> str | None:
        """A text that changes with the databases and every option; None where a change of the data cannot be seen."""
        content = getattr(self._source, "fingerprint", None)
        databases = content(record) if content else None
        return None if databases is None else f"{databases} {asdict(self.comparison)} {asdict(self._sandbox.limits)}"

    def _grade(
        self, databases: Sequence[Path | str], golds: Sequence[str], predicted_sql: str, details: dict[str, Any]
    ) -> tuple[Verdict, str]:
        """The verdict and its reason; what a reader wants to see is added to `details`."""
        results: dict[int, list[_Gold]] = {}  # of the golds that run everywhere, by their place in the record
        failures: list[Failure] = []
        for i, sql in enumerate(golds):
            found = [self._gold(database, sql) for database in databases]
            results[i] = [gold for gold in found if isinstance(gold, _Gold)]
            failures += [gold for gold in found if isinstance(gold, Failure)]
        agreeing = [i for i, found in results.items() if len(found) == len(databases)]
        if not agreeing:
            details["gold"] = _shown(failures[0])
            return "unjudged", f"the gold SQL fails: {failures[0].message}"
        if not predicted_sql:
            details |= _shown_gold(results[agreeing[0]][0])
            return "wrong", "no SQL in the answer"
        undecided: tuple[Verdict, str] | None = None  # a gold that cannot be compared may be the one that agrees
        for place, database in enumerate(databases):
            predicted = self._run(database, predicted_sql)
            verdicts = {i: self._verdict(results[i][place], predicted) for i in agreeing}
            left = [i for i in agreeing if verdicts[i][0] == "correct"]
            undecided = undecided or next((found for found in verdicts.values() if found[0] == "unjudged"), None)
            if place == 0 or not left:
                shown = results[(left or agreeing)[0]][place]
                details |= _shown_gold(shown) | {"predicted": _shown(predicted)}
            if not left:
                if len(databases) > 1:
                    details["told_apart_by"] = place
                return undecided or self._with_caveat(database, predicted, verdicts[agreeing[0]], details)
            agreeing = left
        if len(golds) > 1:
            details["accepted_gold"] = agreeing[0]
        return "correct", _agreement([gold.result for gold in results[agreeing[0]]])

    def _with_caveat(
        self, database: Path | str, predicted: Rows | Failure, verdict: tuple[Verdict, str], details: dict[str, Any]
    ) -> tuple[Verdict, str]:
        """Add what the source knows of a database on which rows decided."""
        extra = getattr(self._source, "caveat", None)
        decided_by_rows = isinstance(predicted, Rows) and len(predicted.columns) == len(details["gold"]["columns"])
        caveat = extra(database) if extra and decided_by_rows else None
        if caveat is None:
            return verdict
        details["caveat"] = caveat
        return verdict[0], f"{verdict[1]} ({caveat})"

    def _run(self, database: Path | str, sql: str) -> Rows | Failure:
        result = self._sandbox.run(database, sql)
        if isinstance(result, Failure) and result.kind == "unavailable":
            raise _UnavailableError(result.message)
        return result

    def _run_gold(self, database: Path | str, sql: str) -> _Gold | Failure:
        result = self._run(database, sql)
        if isinstance(result, Failure):
            return result
        dialect = engine_of(database).dialect
        if not is_ordered(sql, dialect):
            return _Gold(result, False, lambda: [0] * len(result.rows))

        def places() -> Sequence[int]:
            keyed = with_order_keys(sql, dialect)
            with_keys = self._run(database, keyed.sql) if keyed else None
            # Another number of rows: the keys changed what is distinct. A failure: a key that is no expression.
            if keyed and isinstance(with_keys, Rows) and len(with_keys.rows) == len(result.rows):
                return tied_places(with_keys.rows, keyed.keys)
            return range(len(result.rows))

        return _Gold(result, True, cache(places))

    def _verdict(self, gold: _Gold, predicted: Rows | Failure) -> tuple[Verdict, str]:
        if isinstance(predicted, Failure):
            return "wrong", f"the query fails: {predicted.message}"
        expected = gold.result
        missing = len(expected.columns) - len(predicted.columns)
        if missing > 0 or (missing < 0 and not self.comparison.extra_columns):
            return "wrong", f"{_count(predicted.columns, 'column')} instead of {len(expected.columns)}"
        if expected.rows == predicted.rows:  # most right answers; which rows tie need not be asked
            return "correct", ""
        try:
            same = rows_match(expected.rows, predicted.rows, gold.places(), self.comparison)
        except JudgingError as error:
            return "unjudged", str(error)
        return ("correct", "") if same else ("wrong", self._difference(gold, expected, predicted))

    def _difference(self, gold: _Gold, expected: Rows, predicted: Rows) -> str:
        if len(expected.rows) != len(predicted.rows):
            return f"{_count(predicted.rows, 'row')} instead of {len(expected.rows):,}"
        with contextlib.suppress(JudgingError):  # too hard to say: then it is not said
            if gold.ordered and results_equal(expected.rows, predicted.rows, ordered=False, comparison=self.comparison):
                return "the right rows in another order than ORDER BY asks for"
        if len(expected.rows) == 1:
            return "another row"
        common = sum((Counter(expected.rows) & Counter(predicted.rows)).values())
        return f"{len(expected.rows) - common:,} of {len(expected.rows):,} rows differ"


def _agreement(results: Sequence[Rows]) -> str:
    if not any(result.rows for result in results):
        return "both results are empty, which proves little"
    if len(results) > 1:
        return f"the same rows on {len(results)} databases"
    return f"same {_count(results[0].rows, 'row')}"


def _count(things: Sequence[Any], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


def _shown_gold(gold: _Gold) -> dict[str, Any]:
    return {"ordered": gold.ordered, "gold": _shown(gold.result)}


def _shown(result: Rows | Failure) -> dict[str, Any]:
    """The first rows, or the error, ready for JSON."""
    if isinstance(result, Failure):
        return {"error": result.kind, "message": result.message}
    rows = [[_shown_cell(cell) for cell in row] for row in result.rows[:_SHOWN_ROWS]]
    return {"columns": list(result.columns), "rows": rows, "count": len(result.rows)}


def _shown_cell(cell: Any) -> Any:
    if isinstance(cell, bytes):
        cell = f"X'{cell[:_SHOWN_CHARACTERS].hex()}'"
    if isinstance(cell, str) and len(cell) > _SHOWN_CHARACTERS:
        return cell[:_SHOWN_CHARACTERS] + "…"
    return str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell
