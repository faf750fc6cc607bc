"""Execution accuracy: run gold and prediction on the record's databases and compare what comes back."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlquarry.artifacts import Judgement, Record, Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.cells import STRICT, Comparison
from sqlquarry.judging.comparison import Names, choice_matches, columns_by_name, rows_match
from sqlquarry.judging.databases import DatabaseSource, NamedDatabases
from sqlquarry.judging.engines import engine_of
from sqlquarry.judging.ordering import around_order_keys, is_ordered, limit_of, tied_places, with_order_keys
from sqlquarry.judging.sandbox import Failure, Limits, Permissions, Rows, Sandbox
from sqlquarry.judging.sql.double_quotes import quoted_columns, with_brackets
from sqlquarry.judging.storable import storable
from sqlquarry.options import check_options

_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 200
_CACHED_GOLDS = 2048
_ROUNDED_DECIMALS = 6


class _LimitChoice(NamedTuple):
    """Among which rows a LIMIT chose.

    Args:
        candidates: the rows that it could have kept, each with its place.
        places: of the rows that it kept.
        is_certain: False if it cannot be told which rows tie; all have the same place then.
    """

    candidates: list[tuple[int, tuple[Any, ...]]]
    places: list[int]
    is_certain: bool


class _Gold(NamedTuple):
    """What a gold query returned on one database, and what may take another query to know.

    Args:
        result: its rows.
        ordered: it has a top-level ORDER BY.
        places: of each row; rows that tie in ORDER BY share one. None if it cannot be told which tie.
        choice: among which rows its LIMIT chose; None if it had no choice.
        note: what a reader should know of the gold, or "".
    """

    result: Rows
    ordered: bool
    places: Callable[[], Sequence[int] | None]
    choice: Callable[[], _LimitChoice | None]
    note: str = ""


class _UnavailableError(Exception):
    """A database cannot be reached, which says nothing about a query."""


@check_options()
class ExecutionGrader:
    """Correct if the prediction returns the same rows as a gold query on every database of the record.

    Rows are compared with `results_equal`; if both queries name their columns the same, by these names. The order of
    rows counts only if the gold SQL has a top-level ORDER BY, and rows that tie in its keys may then come in any order.
    If the database cannot say which rows tie, other orders are unjudged. Where the gold's LIMIT cuts through rows that
    tie, any choice of them is right; without ORDER BY, or if it is unknown which rows tie, another choice is unjudged.

    Where a record has several golds, one and the same of them must agree on all databases; golds that fail on one do
    not count. A record without gold or database, or of which no gold runs, is unjudged, and so is one whose server
    cannot be reached, or whose prediction calls a function that is not known to only read (see `allow_functions`). A
    prediction that fails for any other reason is wrong: a gold ran under the same limits. So is one with another number
    of columns, also where both results are empty. SQL is run in the database's dialect, whatever the record's is,
    unless the source of the databases translates it.

    Databases are opened read-only, in processes of their own that can be killed; only one statement that reads is run.
    These processes end with the judge. Of its environment they see locale, time zone, folders of libraries and of
    temporary files, and for a server what its client reads, such as PGPASSWORD and HOME, but no keys of clouds and no
    tokens. Nothing is written beside an SQLite file: if its logs cannot be read in place, a private copy is read.
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
        allow_functions: functions that only read, of a database or an extension, as ``schema.name`` on PostgreSQL and
            ``name`` on other servers. ``*`` and ``?`` stand for any characters.
        allow_privileged_accounts: use accounts that may do more than read on PostgreSQL: superusers and the like.
        allow_unchecked_servers: use servers other than PostgreSQL, which do not say themselves what a query does. Give
            them an account that can only read.
        name: the grader's name in reports.

    Raises:
        JudgingError: the directory, or files of the mapping, do not exist.
        ConfigError: a limit is not a positive, finite number, or `allow_functions` is not a list of names.
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
        allow_functions: Sequence[str] = (),
        allow_privileged_accounts: bool = False,
        allow_unchecked_servers: bool = False,
        name: str = "execution",
    ) -> None:
        require("judge", "ExecutionGrader")
        self.name, self.comparison = name, comparison
        limits = Limits(
            time_limit_s=time_limit_s,
            row_limit=row_limit,
            result_bytes_limit=result_bytes_limit,
            value_bytes_limit=value_bytes_limit,
            memory_bytes_limit=memory_bytes_limit,
        )
        permissions = Permissions(
            allow_functions=allow_functions,
            allow_privileged_accounts=allow_privileged_accounts,
            allow_unchecked_servers=allow_unchecked_servers,
        )
        self._sandbox = Sandbox(limits, permissions)
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
        source = self._source
        if record.sql is None:
            return Judgement(self.name, "unjudged", "the record has no gold SQL")
        try:
            databases = source.databases_for(record, predicted_sql)
            golds = [source.translate(sql, record) for sql in record.golds]
            predicted_sql = source.translate(predicted_sql, record) if predicted_sql else ""
        except JudgingError as error:
            return Judgement(self.name, "unjudged", str(error))
        if not databases:
            return Judgement(self.name, "unjudged", "there is no database for this record")
        details = {"databases": len(databases), **getattr(source, "details", lambda _: {})(record)}
        try:
            verdict, reason = self._grade(databases, golds, predicted_sql, details)
        except _UnavailableError as error:
            verdict, reason = "unjudged", str(error)
        return Judgement(self.name, verdict, reason, details)

    def fingerprint(self, record: Record) -> str | None:
        """A text that changes with the databases and every option; None where a change of the data cannot be seen."""
        content = getattr(self._source, "fingerprint", None)
        databases = content(record) if content else None
        options = (self.comparison, self._sandbox.limits, self._sandbox.permissions)
        return None if databases is None else " ".join([databases, *(str(asdict(option)) for option in options)])

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
        remarks: dict[int, list[str]] = {i: [gold.note for gold in found] for i, found in results.items()}
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
            for i in agreeing:
                remarks[i].append(verdicts[i][1])
        if len(golds) > 1:
            details["accepted_gold"] = agreeing[0]
        said = dict.fromkeys(filter(None, remarks[agreeing[0]]))
        return "correct", "; ".join((_agreement([gold.result for gold in results[agreeing[0]]]), *said))

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
        engine = engine_of(database)
        note = self._text_for_a_column(database, sql) if engine.dialect == "sqlite" else ""
        choice = cache(partial(self._choice, database, sql, result, engine.dialect))
        if not is_ordered(sql, engine.dialect):
            return _Gold(result, False, lambda: [0] * len(result.rows), choice, note)
        places = cache(partial(self._places, database, sql, result, engine.dialect))
        return _Gold(result, True, places, choice, note)

    def _places(self, database: Path | str, sql: str, result: Rows, dialect: str) -> list[int] | None:
        """The place of each row; rows that tie share one. None if that cannot be told."""
        if len(result.rows) < 2:
            return [0] * len(result.rows)
        places = self._ranked(database, sql, result, dialect)
        if places is not None:
            return places
        # The rank may have made a LIMIT keep other rows that tie.
        choice = self._choice(database, sql, result, dialect)
        return choice.places if choice and choice.is_certain else None

    def _ranked(self, database: Path | str, sql: str, result: Rows, dialect: str) -> list[int] | None:
        for keyed in (with_order_keys(sql, dialect), around_order_keys(sql, result.columns, dialect)):
            ranked = self._run(database, keyed.sql) if keyed else None
            if keyed and isinstance(ranked, Rows):
                places = tied_places(ranked.rows, keyed.keys)
                rows = [row[: -keyed.keys] for row in ranked.rows]
                # Else the rank has changed the rows, or is not the query's own order.
                if Counter(zip(places, rows, strict=True)) == Counter(zip(places, result.rows, strict=False)):
                    return places
        return None

    def _choice(self, database: Path | str, sql: str, result: Rows, dialect: str) -> _LimitChoice | None:
        """Among which rows a LIMIT chose; None if it left none that tie with those that it kept, or that is unknown."""
        cut = limit_of(sql, dialect)
        whole = self._run(database, cut.sql) if cut and result.rows else None
        if cut is None or not isinstance(whole, Rows) or len(whole.rows) <= len(result.rows):
            return None
        places = self._ranked(database, cut.sql, whole, dialect) if is_ordered(sql, dialect) else None
        if places is not None:
            found = list(zip(places, whole.rows, strict=True))
            kept = places[cut.offset : cut.offset + len(result.rows)]
            if Counter(zip(kept, result.rows, strict=False)) <= Counter(found):
                return _LimitChoice([pair for pair in found if kept[0] <= pair[0] <= kept[-1]], kept, is_certain=True)
        return _LimitChoice([(0, row) for row in whole.rows], [0] * len(result.rows), is_certain=False)

    def _text_for_a_column(self, database: Path | str, sql: str) -> str:
        """A note on double-quoted names that SQLite takes for text, where text makes no sense: AVG("totl")."""
        for name in quoted_columns(sql):
            tried = self._run(database, with_brackets(sql, name))
            if isinstance(tried, Failure) and tried.kind == "no_such_column":
                return f'the gold SQL uses "{name}" as text: there is no such column'
        return ""

    def _verdict(self, gold: _Gold, predicted: Rows | Failure) -> tuple[Verdict, str]:
        if isinstance(predicted, Failure) and predicted.kind == "unknown_function":
            return "unjudged", predicted.message
        if isinstance(predicted, Failure):
            return "wrong", f"the query fails: {predicted.message}"
        expected = gold.result
        missing = len(expected.columns) - len(predicted.columns)
        if missing > 0 or (missing < 0 and not self.comparison.extra_columns):
            return "wrong", f"{_count(predicted.columns, 'column')} instead of {len(expected.columns)}"
        names = (expected.columns, predicted.columns)
        if expected.rows == predicted.rows and columns_by_name(*names) in (None, [*range(len(expected.columns))]):
            return "correct", ""  # most right answers; which rows tie need not be asked
        try:
            return self._compared(gold, predicted, names)
        except JudgingError as error:
            return "unjudged", str(error)

    def _compared(self, gold: _Gold, predicted: Rows, names: Names) -> tuple[Verdict, str]:
        expected = gold.result
        places = gold.places()
        strict = places if places is not None else range(len(expected.rows))
        if rows_match(expected.rows, predicted.rows, strict, self.comparison, names):
            return "correct", ""
        if places is None and rows_match(
            expected.rows, predicted.rows, [0] * len(expected.rows), self.comparison, names
        ):
            return "unjudged", "the same rows in another order, and the gold SQL does not show which of them tie"
        choice = gold.choice() if len(expected.rows) == len(predicted.rows) else None
        if (
            choice
            and len(choice.candidates) > len(choice.places)
            and choice_matches(choice.candidates, choice.places, predicted.rows, self.comparison, names)
        ):
            if not choice.is_certain:
                return (
                    "unjudged",
                    "other rows than the gold's LIMIT kept, and its ORDER BY does not show which of them tie",
                )
            return "correct", f"another choice of {len(choice.candidates):,} rows that tie at the gold's LIMIT"
        return "wrong", self._difference(gold, expected, predicted)

    def _difference(self, gold: _Gold, expected: Rows, predicted: Rows) -> str:
        if len(expected.rows) != len(predicted.rows):
            return f"{_count(predicted.rows, 'row')} instead of {len(expected.rows):,}"
        names = (expected.columns, predicted.columns)
        any_order = [0] * len(expected.rows)
        with contextlib.suppress(JudgingError):  # too hard to say: then it is not said
            if gold.ordered and rows_match(expected.rows, predicted.rows, any_order, self.comparison, names):
                return "the right rows in another order than ORDER BY asks for"
            places = gold.places() or any_order
            if rows_match(expected.rows, predicted.rows, places, self.comparison):
                return "the right values under each other's column names"
            if digits := _decimals(expected.rows):
                rounded = replace(self.comparison, decimals=digits)
                if rows_match(expected.rows, predicted.rows, places, rounded, names):
                    return f"equal after rounding to {digits} digit{'' if digits == 1 else 's'}"
        if len(expected.rows) == 1:
            return "another row"
        common = sum((Counter(expected.rows) & Counter(predicted.rows)).values())
        return f"{len(expected.rows) - common:,} of {len(expected.rows):,} rows differ"


def _decimals(rows: Sequence[Sequence[Any]]) -> int | None:
    """The number of decimals to which a result looks rounded, at most 6; None if it does not."""
    most = 0
    for row in rows:
        for cell in row:
            if isinstance(cell, float | Decimal) and math.isfinite(cell):
                exponent = Decimal(str(cell)).normalize().as_tuple().exponent
                most = max(most, -exponent if isinstance(exponent, int) else 0)
                if most > _ROUNDED_DECIMALS:
                    return None
    return most or None


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
    return {"columns": [_shown_cell(name) for name in result.columns], "rows": rows, "count": len(result.rows)}


def _shown_cell(cell: Any) -> Any:
    if cell is None or (type(cell) is str and len(cell) <= _SHOWN_CHARACTERS):  # most cells
        return cell
    if isinstance(cell, str | bytes) and len(cell) > _SHOWN_CHARACTERS:
        return storable(cell[:_SHOWN_CHARACTERS]) + "…"
    return storable(cell)
