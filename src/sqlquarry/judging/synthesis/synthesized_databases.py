"""Generates databases on demand, and stores them, for records whose schema is known but whose data is not."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox, temporary_folder
from sqlquarry.extras import require
from sqlquarry.files.locations import local_path
from sqlquarry.judging.synthesis.suite_files import (
    VERSION,
    KillRate,
    StoredSuite,
    file_name,
    is_plausible,
    load,
    put,
    save,
)
from sqlquarry.judging.synthesis.suites import Rival, Suite, make_suite, rivals
from sqlquarry.judging.synthesis.translation import in_sqlite, untranslatable
from sqlquarry.options import check_options
from sqlquarry.records import Record
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.portable_ddl import schema_in_sqlite
from sqlquarry.sql.schema import Schema

_SHOWN_SURVIVORS = 5
# A prediction that exceeds these limits on databases with a few dozen rows is left to the limits of the grader.
_RIVAL_LIMITS = ExecutionLimits(time_s=0.5, rows=10_000, result_bytes=10_000_000)
IMPLAUSIBLE = "only rows that the schema allows but people would not expect show this"


@dataclass(frozen=True, slots=True)
class Coverage:
    """Totals over all different pairs of a schema and gold queries so far.

    Args:
        records: number of pairs.
        quarantined: reason -> number of pairs for which no verdict is possible.
        killed: number of mutants that the databases distinguish from the gold.
        mutants: number of all mutants of the pairs that are not quarantined.
    """

    records: int
    quarantined: Mapping[str, int]
    killed: int
    mutants: int

    @property
    def kill_rate(self) -> float:
        """Share of mutants that are killed, or 1 if there are no mutants."""
        return self.killed / self.mutants if self.mutants else 1.0


@check_options()
class SynthesizedDatabases:
    """A generator of small SQLite databases on which wrong queries return different rows than the gold.

    Use it as ``ExecutionGrader(SynthesizedDatabases())``. Each record gets a suite of databases that distinguishes its
    gold queries from their mutants. Each prediction gets one more database if one is found that distinguishes it from
    the gold. The data satisfy the schema's types and its PRIMARY KEY, UNIQUE, NOT NULL, FOREIGN KEY and CHECK
    constraints. Every gold query has one right answer on them, in whatever order the rows are stored.

    A prediction that passes is right on every generated database. This is evidence, not a proof, and `kill_rate`
    measures how strong it is. A record is quarantined, and therefore unjudged, if a verdict would mean little. This is
    so if its gold returns only NULL, 0 or empty text on every database, or if its suite kills less than half of the
    mutants.

    Plausible databases come first. Some predictions differ from the gold only on unusual rows, such as two customers
    with the same name or NULL in a key. They are wrong, because SQL is strict, but the judgement has a caveat.

    Files are generated once per schema, gold queries and settings. They are the same on every machine unless the time
    budget ends the search. Several threads may share an instance.

    Args:
        directory: the folder for the files. None uses a temporary folder that is removed at exit.
        databases_per_record: maximum number of databases in a suite.
        time_budget_s: number of seconds after which the search for a suite ends with the databases found so far.
        seed: a different seed gives different rows.

    Raises:
        ConfigError: a number is out of range.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        databases_per_record: int = 6,
        time_budget_s: float = 1.0,
        seed: int = 0,
    ) -> None:
        require("judge", "SynthesizedDatabases")
        if databases_per_record < 1:
            raise ConfigError(f"databases_per_record is {databases_per_record!r}, but it must be at least 1")
        if not 0 < time_budget_s < math.inf:
            raise ConfigError(f"time_budget_s is {time_budget_s!r}, but it must be above 0 and finite")
        self.databases_per_record, self.time_budget_s, self.seed = databases_per_record, time_budget_s, seed
        self._scratch = Path(temporary_folder(self, "sqlquarry-databases-").name)
        self.directory = local_path(directory, "directory") if directory is not None else self._scratch / "suites"
        self._suites: dict[str, StoredSuite] = {}
        self._making = threading.Lock()
        self._sandbox = Sandbox(_RIVAL_LIMITS)

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path]:
        """Return the record's suite, and a database that distinguishes the prediction from the gold if one is found.

        Args:
            record: a record with schema and gold SQL. The name of its database is ignored.
            predicted_sql: the prediction in the record's dialect. It runs only in a separate process.

        Raises:
            JudgingError: the record has no gold SQL, or it is quarantined for the reason in the message.
        """
        suite = self._usable_suite(record)
        rival = self._rival(record, predicted_sql)
        return sorted((*suite.paths, *([rival] if rival else ())), key=lambda path: not is_plausible(path))

    def caveat(self, database: Path | str) -> str | None:
        """Return the caveat of a verdict that rests on this database, or None if its rows are plausible."""
        return None if is_plausible(Path(database)) else IMPLAUSIBLE

    def translate(self, sql: str, record: Record) -> str:
        """Translate a query to SQLite. It is returned unchanged if it already is SQLite or no dialect can read it.

        Raises:
            JudgingError: the record is quarantined, sqlglot does not support its dialect, or the query uses something
                that the dialect refuses or that SQLite does not support or interprets differently.
        """
        if record.dialect == "sqlite":
            return sql
        text = in_sqlite(sql, record.dialect, schema_in_sqlite(record.schema, record.dialect), record.golds)
        outcome = self._sandbox.run(self._usable_suite(record).paths[0], text)
        if parse(sql, record.dialect) is None:
            if isinstance(outcome, Rows):
                raise untranslatable(sql, record.dialect, f"sqlglot cannot parse it as {record.dialect}")
        elif isinstance(outcome, Failure) and (outcome.kind == "syntax" or "no such function" in outcome.message):
            raise untranslatable(sql, record.dialect, outcome.message)
        return text

    def kill_rate(self, record: Record) -> KillRate:
        """Return the kill rate of the record's suite. It has no mutants if the record is quarantined.

        Raises:
            JudgingError: the record has no gold SQL.
        """
        return self._suite(record).kill_rate

    def details(self, record: Record) -> Mapping[str, object]:
        """Return the kill rate and the first surviving mutants as JSON values.

        Raises:
            JudgingError: the record has no gold SQL.
        """
        rate = self.kill_rate(record)
        return {"killed": rate.killed, "mutants": rate.mutants, "survivors": list(rate.survivors[:_SHOWN_SURVIVORS])}

    def fingerprint(self, record: Record) -> str:
        """Return a text that changes whenever the content of the record's databases changes."""
        settings = [VERSION, self.seed, self.databases_per_record, self.time_budget_s]
        content = json.dumps([*settings, record.dialect, record.schema, record.golds])
        return hashlib.sha256(content.encode()).hexdigest()

    def coverage(self) -> Coverage:
        """Return the totals of the suites so far, and the reasons for quarantined records."""
        suites = list(self._suites.values())
        return Coverage(
            records=len(suites),
            quarantined=dict(Counter(suite.quarantined for suite in suites if suite.quarantined)),
            killed=sum(suite.kill_rate.killed for suite in suites),
            mutants=sum(suite.kill_rate.mutants for suite in suites),
        )

    def _usable_suite(self, record: Record) -> StoredSuite:
        suite = self._suite(record)
        if suite.quarantined:
            raise JudgingError(suite.quarantined)
        return suite

    def _suite(self, record: Record) -> StoredSuite:
        if record.sql is None:
            raise JudgingError("the record has no gold SQL, which is needed to generate databases")
        key = self.fingerprint(record)
        if key not in self._suites:
            with self._making:
                folder = self.directory / key[:2] / key
                self._suites[key] = self._suites.get(key) or load(folder) or save(folder, self._make(record, key))
        return self._suites[key]

    def _make(self, record: Record, key: str) -> Suite | str:
        """Return a new suite, or the reason why there can be none."""
        deadline = time.monotonic() + self.time_budget_s
        try:
            return make_suite(*_in_sqlite(record), most=self.databases_per_record, seed=key, deadline=deadline)
        except JudgingError as error:
            return f"quarantined: {error}"

    def _rival(self, record: Record, predicted_sql: str) -> Path | None:
        """Return a database on which the prediction runs and differs from all golds, or None if none is found."""
        schema, golds = _in_sqlite(record)
        try:
            sql = in_sqlite(predicted_sql, record.dialect, schema, record.golds)
        except JudgingError:
            return None
        tree = parse(sql, "sqlite")
        if tree is None or any(tree == parse(gold, "sqlite") for gold in golds):
            return None
        digest = hashlib.sha256(f"{self.fingerprint(record)} {sql}".encode("utf-8", "backslashreplace")).hexdigest()
        deadline = time.monotonic() + self.time_budget_s
        for rival in rivals(schema, golds, sql, seed=digest):
            differs = self._differs(rival, sql, f"{digest}-{threading.get_native_id()}.sqlite")
            if differs:
                path = self.directory / "rivals" / digest[:2] / file_name(digest, plausible=rival.plausible)
                put(path, rival.file)
                return path
            if differs is None or time.monotonic() > deadline:
                break
        return None

    def _differs(self, rival: Rival, sql: str, name: str) -> bool | None:
        """Return whether the prediction's result differs from all expected results, or None if it fails."""
        scratch = self._scratch / name
        scratch.write_bytes(rival.file)
        try:
            outcome = self._sandbox.run(scratch, sql)
        finally:
            scratch.unlink()
        if not isinstance(outcome, Rows):
            return None
        return not any(expected.matches(len(outcome.columns), outcome.rows) for expected in rival.expected)


def _in_sqlite(record: Record) -> tuple[Schema, list[str]]:
    schema = schema_in_sqlite(record.schema, record.dialect)
    return schema, [in_sqlite(sql, record.dialect, schema, record.golds) for sql in record.golds]
