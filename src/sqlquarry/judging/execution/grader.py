"""Grade by execution: run gold and prediction on the record's databases and compare their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from sqlquarry.answers import Judgement
from sqlquarry.errors import JudgingError
from sqlquarry.execution.databases import DatabaseSource, NamedDatabases
from sqlquarry.execution.limits import DEFAULT_LIMITS, ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.extras import require
from sqlquarry.judging.execution.details import gold_details, result_details
from sqlquarry.judging.execution.gold import GoldResult, UnavailableError, gold_results, run
from sqlquarry.judging.execution.outcome import QueryOutcome, compare_with_gold, counted
from sqlquarry.options import check_options
from sqlquarry.records import Record
from sqlquarry.results.cells import STRICT, ComparisonOptions


@check_options()
class ExecutionGrader:
    """A grader that accepts predictions with the same rows as a gold query on every database of the record.

    Rows are compared with `results_equal`. If both queries return the same column names, columns are matched by name.
    The order of rows counts only if the gold SQL has a top-level ORDER BY. Rows that tie in its keys may then come in
    any order, and if the gold's LIMIT cuts through such rows, any choice of them is right. If it is unknown which rows
    tie, another order or choice is unjudged. So is another choice at a LIMIT without ORDER BY.

    If a record has several gold queries, the prediction must agree with the same one on all databases. Golds that fail
    on a database are ignored. A record is unjudged if it has no gold or no database, if no gold runs, if its server
    cannot be reached, or if the prediction calls a function that is not known to only read (see `allow_functions`). A
    prediction that fails for any other reason is wrong, because a gold ran under the same limits. A prediction with a
    different number of columns is wrong too, even if both results are empty. SQL runs in the database's dialect and
    not in the record's, unless the source of the databases translates it.

    Databases are opened read-only in separate processes, which can be killed and which end with the judge. Only a
    single statement that reads is run. These processes get no cloud keys and no tokens. Their environment contains the
    locale, the time zone, the folders of libraries and temporary files, and the variables that a server's client reads,
    such as PGPASSWORD and HOME. Nothing is written next to an SQLite file. If its logs cannot be read in place, a
    private copy is read. Gold results are cached. The grader may be used from several threads. Processes and copies
    end with the last reference to the grader.

    Args:
        databases: a mapping, a directory, a URL or a `DatabaseSource`. A mapping contains name -> SQLite or DuckDB file
            or SQLAlchemy URL. A directory contains ``<name>.sqlite`` (also ``.db``, ``.sqlite3``, ``.duckdb``) or
            ``<name>/<name>.sqlite`` as in Spider. In a URL, ``{database}`` is replaced by the name.
        comparison: differences between results that still count as equal.
        limits: seconds, rows, bytes and memory of one query.
        allow_functions: functions of a database or an extension that only read, as ``schema.name`` on PostgreSQL and
            ``name`` on other servers. ``*`` and ``?`` are wildcards.
        allow_privileged_accounts: use PostgreSQL accounts that may do more than read, such as superusers.
        allow_unchecked_servers: use servers other than PostgreSQL, which do not report what a query does. Give them an
            account that can only read.
        name: the grader's name in reports.

    Raises:
        JudgingError: the directory or a file of the mapping does not exist, or a URL cannot be parsed.
        ConfigError: `allow_functions` is not a list of names.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        databases: DatabaseSource | Mapping[str, str | Path] | str | Path,
        *,
        comparison: ComparisonOptions = STRICT,
        limits: ExecutionLimits = DEFAULT_LIMITS,
        allow_functions: Sequence[str] = (),
        allow_privileged_accounts: bool = False,
        allow_unchecked_servers: bool = False,
        name: str = "execution",
    ) -> None:
        require("judge", "ExecutionGrader")
        self.name, self.comparison = name, comparison
        permissions = Permissions(
            allow_functions=allow_functions,
            allow_privileged_accounts=allow_privileged_accounts,
            allow_unchecked_servers=allow_unchecked_servers,
        )
        self._sandbox = Sandbox(limits, permissions)
        self._gold_result = gold_results(self._sandbox)
        self._source: DatabaseSource = (
            NamedDatabases(databases) if isinstance(databases, Mapping | str | Path) else databases
        )

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Run gold and prediction and compare their rows. The details contain the first rows of both.

        Raises:
            JudgingError: a process for the queries does not start.
            MissingExtraError: the extra for this kind of database is not installed.
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
        source_details = getattr(source, "details", None)
        details: dict[str, object] = {"databases": len(databases)}
        details |= source_details(record) if source_details else {}
        try:
            outcome = self._outcome(databases, golds, predicted_sql, details)
        except UnavailableError as error:
            outcome = QueryOutcome("unjudged", str(error))
        return Judgement(self.name, outcome.verdict, outcome.reason, details)

    def fingerprint(self, record: Record) -> str | None:
        """Return a text that changes with the databases and every option, or None if changes of data go unnoticed."""
        content = getattr(self._source, "fingerprint", None)
        databases = content(record) if content else None
        options = (self.comparison, self._sandbox.limits, self._sandbox.permissions)
        return None if databases is None else " ".join([databases, *(str(asdict(option)) for option in options)])

    def _outcome(
        self, databases: Sequence[Path | str], golds: Sequence[str], predicted_sql: str, details: dict[str, object]
    ) -> QueryOutcome:
        """Judge by the golds that run on all databases, and add both results to `details`."""
        results: dict[int, list[GoldResult]] = {}  # by the gold's index in the record
        failures: list[Failure] = []
        for i, sql in enumerate(golds):
            found = [self._gold_result(database, sql) for database in databases]
            failed = [result for result in found if isinstance(result, Failure)]
            failures += failed
            if not failed:
                results[i] = [result for result in found if isinstance(result, GoldResult)]
        if not results:
            details["gold"] = result_details(failures[0])
            return QueryOutcome("unjudged", f"the gold SQL fails: {failures[0].message}")
        if not predicted_sql:
            details |= gold_details(next(iter(results.values()))[0])
            return QueryOutcome("wrong", "no SQL in the answer")
        accepted, outcome = self._compare_on_all(databases, results, predicted_sql, details)
        if accepted is not None and len(golds) > 1:
            details["accepted_gold"] = accepted
        return outcome

    def _compare_on_all(
        self,
        databases: Sequence[Path | str],
        results: Mapping[int, Sequence[GoldResult]],
        predicted_sql: str,
        details: dict[str, object],
    ) -> tuple[int | None, QueryOutcome]:
        """Return the index of the first gold that agrees on every database, if there is one, and the outcome."""
        agreeing = list(results)
        remarks = {i: [gold.note for gold in found] for i, found in results.items()}
        undecided: QueryOutcome | None = None  # a gold that cannot be compared may be the one that agrees
        for place, database in enumerate(databases):
            predicted = run(self._sandbox, database, predicted_sql)
            outcomes = {i: compare_with_gold(results[i][place], predicted, self.comparison) for i in agreeing}
            left = [i for i in agreeing if outcomes[i].verdict == "correct"]
            undecided = undecided or next((found for found in outcomes.values() if found.verdict == "unjudged"), None)
            shown = (left or agreeing)[0]
            if place == 0 or not left:
                details |= gold_details(results[shown][place]) | {"predicted": result_details(predicted)}
            if not left:
                if len(databases) > 1:
                    details["told_apart_by"] = place
                width = len(results[shown][place].result.columns)
                return None, undecided or self._with_caveat(database, predicted, width, outcomes[shown], details)
            agreeing = left
            for i in agreeing:
                remarks[i].append(outcomes[i].reason)
        accepted = agreeing[0]
        notes = dict.fromkeys(filter(None, remarks[accepted]))
        return accepted, QueryOutcome("correct", "; ".join((_agreement(results[accepted]), *notes)))

    def _with_caveat(
        self,
        database: Path | str,
        predicted: Rows | Failure,
        width: int,
        outcome: QueryOutcome,
        details: dict[str, object],
    ) -> QueryOutcome:
        """Add the source's caveat about the database if its rows, and not the number of columns, decided."""
        source_caveat = getattr(self._source, "caveat", None)
        decided_by_rows = isinstance(predicted, Rows) and len(predicted.columns) == width
        caveat = source_caveat(database) if source_caveat and decided_by_rows else None
        if caveat is None:
            return outcome
        details["caveat"] = caveat
        return QueryOutcome(outcome.verdict, f"{outcome.reason} ({caveat})")


def _agreement(golds: Sequence[GoldResult]) -> str:
    if not any(gold.result.rows for gold in golds):
        return "both results are empty, which proves little"
    if len(golds) > 1:
        return f"the same rows on {len(golds)} databases"
    return f"same {counted(golds[0].result.rows, 'row')}"
