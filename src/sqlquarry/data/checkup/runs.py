"""Run gold queries on their databases, and find those that fail, take too long or return nothing useful."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery, gold_queries
from sqlquarry.data.checkup.statements import check_statement, unparsed
from sqlquarry.errors import JudgingError
from sqlquarry.execution.engines import engine_of
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.results.ordering import is_ordered, limit_of, tied_places, with_order_keys

KINDS = (
    Kind(
        "database-missing",
        "warning",
        "The database of the record cannot be used",
        "Add the database, or correct the record's `database`. The gold query was not run.",
        needs="databases",
    ),
    Kind(
        "gold-fails",
        "error",
        "The gold query fails on its database",
        "Correct the query or remove the record. The message is the database's own.",
        needs="databases",
    ),
    Kind(
        "gold-timeout",
        "warning",
        "The gold query takes too long on its database",
        "Raise `limits` if the query is right, or write a faster one. It was stopped, so its result is unknown.",
        needs="databases",
    ),
    Kind(
        "gold-too-large",
        "warning",
        "The gold query returns more than the limits allow",
        "Check for a missing join condition. If the result is right, raise `limits`.",
        needs="databases",
    ),
    Kind(
        "gold-empty",
        "warning",
        "The gold query returns no row",
        "Check the values in its conditions. A wrong query can also return nothing, so it proves little in a test.",
        needs="databases",
    ),
    Kind(
        "gold-only-null",
        "warning",
        "The gold query returns nothing but NULL",
        "Check the values in its conditions. An aggregate over no row is NULL, so it proves little in a test.",
        needs="databases",
    ),
    Kind(
        "limit-cuts-tie",
        "note",
        "The LIMIT of the gold query chooses between rows that tie in ORDER BY",
        "Add a key to ORDER BY, or accept other golds as `alternatives`. Another database may return other rows.",
        needs="databases",
    ),
)


class _Job(NamedTuple):
    """A gold query and the databases on which it runs, with the query in their dialect."""

    gold: GoldQuery
    databases: tuple[Path | str, ...]
    sql: str


class _Observation(NamedTuple):
    """What was seen when a query ran: the name of a kind and its detail."""

    kind: str
    detail: str = ""


def check_runs(checked: Checked) -> Iterator[Finding]:
    """Run the gold queries of all records that have a database, several at once."""
    if checked.databases is None:
        return
    jobs, missing = _jobs(checked)
    for reason, golds in missing.items():
        yield Finding("database-missing", tuple(dict.fromkeys(gold.place for gold in golds)), reason)
        for gold in golds:
            yield from unparsed(gold)
    distinct = dict.fromkeys((job.databases, job.sql) for job in jobs)
    with closing(Sandbox(checked.limits)) as sandbox, ProgressBar("running queries", len(distinct), brief=True) as bar:
        pool = ThreadPoolExecutor(checked.concurrency, thread_name_prefix="check")
        try:
            futures = {key: pool.submit(partial(_observed, sandbox), *key) for key in distinct}
            for future in futures.values():
                future.add_done_callback(lambda _: bar.advance())
            for job in jobs:
                for seen in futures[job.databases, job.sql].result():
                    yield job.gold.finding(seen.kind, seen.detail)
        finally:
            pool.shutdown(cancel_futures=True)


def _jobs(checked: Checked) -> tuple[list[_Job], dict[str, list[GoldQuery]]]:
    """Return the queries to run, and those whose database is missing, by reason."""
    source = checked.databases
    assert source is not None  # noqa: S101 - the caller has checked it
    jobs: list[_Job] = []
    missing: dict[str, list[GoldQuery]] = {}
    for place, record in enumerate(checked.records):
        for gold in gold_queries(place, record):
            if check_statement(gold):
                continue
            try:
                databases = tuple(source.databases_for(record, ""))
                translated = source.translate(gold.sql, record)
            except JudgingError as error:
                missing.setdefault(str(error), []).append(gold)
                continue
            if databases:
                jobs.append(_Job(gold, databases, translated))
            else:
                missing.setdefault("there is no database for this record", []).append(gold)
    return jobs, missing


def _observed(sandbox: Sandbox, databases: Sequence[Path | str], sql: str) -> list[_Observation]:
    """Run a query on all of its databases and return what is worth reporting."""
    results: list[Rows] = []
    for database in databases:
        result = sandbox.run(database, sql)
        if isinstance(result, Failure):
            return [_failed(result)]
        results.append(result)
    rows = [row for result in results for row in result.rows]
    if not rows:
        return [_Observation("gold-empty")]
    if all(cell is None for row in rows for cell in row):
        return [_Observation("gold-only-null", f"{len(rows):,} row{'s' * (len(rows) != 1)}")]
    ties = (_tie(sandbox, database, sql, len(found.rows)) for database, found in zip(databases, results, strict=True))
    return [_Observation("limit-cuts-tie", tie) for tie in ties if tie][:1]


def _failed(failure: Failure) -> _Observation:
    kinds = {
        "timeout": "gold-timeout",
        "too_many_rows": "gold-too-large",
        "unavailable": "database-missing",
        "forbidden": "gold-writes",
    }
    return _Observation(kinds.get(failure.kind, "gold-fails"), failure.message)


def _tie(sandbox: Sandbox, database: Path | str, sql: str, kept: int) -> str:
    """Describe the rows that tie where a top-level LIMIT cuts and that differ, or return ""."""
    dialect = engine_of(database).dialect
    cut = limit_of(sql, dialect)
    if cut is None or not is_ordered(sql, dialect):
        return ""
    keyed = with_order_keys(cut.sql, dialect)
    whole = sandbox.run(database, keyed.sql) if keyed else None
    end = cut.offset + kept
    if keyed is None or not isinstance(whole, Rows) or len(whole.rows) <= end:
        return ""
    places = tied_places(whole.rows, keyed.keys)
    tied = [row for row, place in zip(whole.rows, places, strict=True) if place == places[end]]
    if places[end - 1] != places[end] or len(set(tied)) == 1:
        return ""
    return f"{len(tied):,} rows tie, and the LIMIT keeps {kept:,} of {len(whole.rows):,}"
