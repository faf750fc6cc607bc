"""Execution accuracy: run gold and prediction on the record's database and compare what comes back."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlquarry.artifacts import Judgement, Record, Verdict
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.comparison import results_equal, rows_match
from sqlquarry.judging.parsing import is_ordered, with_order_keys
from sqlquarry.judging.sandbox import Failure, Limits, Rows, Sandbox

_SUFFIXES = (".sqlite", ".db", ".sqlite3")
_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 200
_CACHED_GOLDS = 2048


class _Gold(NamedTuple):
    result: Rows | Failure
    ordered: bool
    places: Sequence[int]  # of each row; rows that tie in ORDER BY share one


class ExecutionGrader:
    """Correct if the prediction returns the same rows as the gold SQL on the record's SQLite database.

    Rows are compared with `results_equal`. Their order counts only if the gold SQL has a top-level ORDER BY, and rows
    that tie in its keys may then come in any order; where the keys cannot be told (set operations, DISTINCT with
    LIMIT) ties must come as in the gold result. Which of several tied rows a LIMIT keeps is not forgiven.

    A record without gold SQL or database, or whose gold SQL does not run, is unjudged. A prediction that fails, for
    whatever reason, is wrong: the gold SQL ran under the same limits. So is one with another number of columns, also
    where both results are empty. All SQL is run as SQLite's, whatever the record's dialect.

    Databases are opened read-only, in a process of their own that can be killed; only one statement that reads is run.
    Gold results are kept and used again.

    Args:
        databases: name -> SQLite file, or a directory that holds ``<name>.sqlite`` (also ``.db``, ``.sqlite3``) or
            ``<name>/<name>.sqlite`` as Spider does.
        time_limit_s: seconds per query.
        row_limit: rows per result.
        result_bytes_limit: bytes per result.
        value_bytes_limit: bytes per value.
        name: the grader's name in reports.

    Raises:
        JudgingError: the directory, or files of the mapping, do not exist.
        ConfigError: a limit is not a positive, finite number.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        databases: Mapping[str, str | Path] | str | Path,
        *,
        time_limit_s: float = 10.0,
        row_limit: int = 100_000,
        result_bytes_limit: int = 100_000_000,
        value_bytes_limit: int = 1_000_000,
        name: str = "execution",
    ) -> None:
        require("judge", "ExecutionGrader")
        self.name = name
        limits = Limits(
            time_limit_s=time_limit_s,
            row_limit=row_limit,
            result_bytes_limit=result_bytes_limit,
            value_bytes_limit=value_bytes_limit,
        )
        self._sandbox = Sandbox(limits)
        self._directory: Path | None = None
        self._files: dict[str, Path] = {}
        if isinstance(databases, Mapping):
            self._files = {key: Path(path) for key, path in databases.items()}
            if missing := [f"{key}: {path}" for key, path in self._files.items() if not path.is_file()]:
                raise JudgingError(f"these databases are not files: {', '.join(missing)}. Correct their paths.")
        else:
            self._directory = Path(databases)
            if not self._directory.is_dir():
                raise JudgingError(
                    f"{databases} is not a directory. Give the folder of the SQLite files, or a mapping."
                )
        self._gold = lru_cache(maxsize=_CACHED_GOLDS)(self._run_gold)

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Run both queries and compare; the first rows of both stand in the details.

        Raises:
            JudgingError: the process that runs the queries does not start.
        """
        if record.sql is None or record.database is None:
            missing = "gold SQL" if record.sql is None else "database"
            return Judgement(self.name, "unjudged", f"the record has no {missing}")
        file = self._find(record.database)
        if file is None:
            where = self._directory or f"the {len(self._files)} given"
            return Judgement(self.name, "unjudged", f"database {record.database!r} is not among {where}")
        gold = self._gold(file, record.sql)
        details: dict[str, Any] = {"ordered": gold.ordered, "gold": _shown(gold.result)}
        if isinstance(gold.result, Failure):
            return Judgement(self.name, "unjudged", f"the gold SQL fails: {gold.result.message}", details)
        if not predicted_sql:
            return Judgement(self.name, "wrong", "no SQL in the answer", details)
        predicted = self._sandbox.run(file, predicted_sql)
        details["predicted"] = _shown(predicted)
        return Judgement(self.name, *_verdict(gold, gold.result, predicted), details)

    def _find(self, name: str) -> Path | None:
        if self._directory is None:
            return self._files.get(name)
        if Path(name).name != name:  # a path, which must not lead out of the directory
            return None
        candidates = [self._directory / folder / (name + suffix) for folder in ("", name) for suffix in _SUFFIXES]
        return next((path for path in candidates if path.is_file()), None)

    def _run_gold(self, file: Path, sql: str) -> _Gold:
        result = self._sandbox.run(file, sql)
        ordered = is_ordered(sql)
        if isinstance(result, Failure):
            return _Gold(result, ordered, ())
        if not ordered:
            return _Gold(result, ordered, [0] * len(result.rows))
        return _Gold(result, ordered, self._tied_places(file, sql, result))

    def _tied_places(self, file: Path, sql: str, result: Rows) -> Sequence[int]:
        """The place of each row in the order: the sequence of keys is fixed even where that of tied rows is not."""
        strict = range(len(result.rows))
        keyed = with_order_keys(sql)
        if keyed is None:
            return strict
        with_keys = self._sandbox.run(file, keyed.sql)
        # Another number of rows: the keys changed what is distinct. A failure: a key that is no expression.
        if isinstance(with_keys, Failure) or len(with_keys.rows) != len(result.rows):
            return strict
        places: list[int] = []
        previous: tuple[Any, ...] | None = None
        for row in with_keys.rows:
            key = row[-keyed.keys :]
            places.append(places[-1] + (key != previous) if places else 0)
            previous = key
        return places


def _verdict(gold: _Gold, expected: Rows, predicted: Rows | Failure) -> tuple[Verdict, str]:
    if isinstance(predicted, Failure):
        return "wrong", f"the query fails: {predicted.message}"
    if len(expected.columns) != len(predicted.columns):
        return "wrong", f"{_count(predicted.columns, 'column')} instead of {len(expected.columns)}"
    try:
        same = rows_match(expected.rows, predicted.rows, gold.places)
    except JudgingError as error:
        return "unjudged", str(error)
    if not same:
        return "wrong", _difference(gold, expected, predicted)
    if not expected.rows:
        return "correct", "both results are empty, which proves little"
    return "correct", f"same {_count(expected.rows, 'row')}"


def _difference(gold: _Gold, expected: Rows, predicted: Rows) -> str:
    if len(expected.rows) != len(predicted.rows):
        return f"{_count(predicted.rows, 'row')} instead of {len(expected.rows):,}"
    with contextlib.suppress(JudgingError):  # too hard to say: then it is not said
        if gold.ordered and results_equal(expected.rows, predicted.rows, ordered=False):
            return "the right rows in another order than ORDER BY asks for"
    if len(expected.rows) == 1:
        return "another row"
    common = sum((Counter(expected.rows) & Counter(predicted.rows)).values())
    return f"{len(expected.rows) - common:,} of {len(expected.rows):,} rows differ"


def _count(things: Sequence[Any], noun: str) -> str:
    return f"{len(things):,} {noun}{'' if len(things) == 1 else 's'}"


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
