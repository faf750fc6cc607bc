"""Databases for records of which only the schema is known, made on demand and kept."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.errors import ConfigError, JudgingError
from sqlquarry.extras import require
from sqlquarry.files.locations import local_path
from sqlquarry.judging.execution.limits import ExecutionLimits
from sqlquarry.judging.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.judging.sql.parsing import parse
from sqlquarry.judging.sql.portable_ddl import schema_in_sqlite
from sqlquarry.judging.sql.schema import Schema
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
from sqlquarry.judging.synthesis.translation import cannot_be_said, in_sqlite
from sqlquarry.options import check_options
from sqlquarry.records import Record

_SHOWN_SURVIVORS = 5
# A prediction that needs more than this on databases of a few dozen rows is left to the grader's own limits.
_RIVAL_LIMITS = ExecutionLimits(time_s=0.5, rows=10_000, result_bytes=10_000_000)
IMPLAUSIBLE = "told apart only by rows that the schema allows but people would not expect"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What has been made so far, over all different pairs of a schema and gold queries.

    Args:
        records: how many pairs.
        quarantined: reason -> pairs that no verdict can be given on.
        killed: mutants told from the gold.
        mutants: all mutants of the pairs that are not quarantined.
    """

    records: int
    quarantined: Mapping[str, int]
    killed: int
    mutants: int

    @property
    def kill_rate(self) -> float:
        """Killed mutants as a share of all; 1 if there are none."""
        return self.killed / self.mutants if self.mutants else 1.0


@check_options()
class SynthesizedDatabases:
    """Makes small SQLite databases of a record's schema on which wrong queries return something else than the gold.

    For ``ExecutionGrader(SynthesizedDatabases())``. Each record has a suite that tells its gold queries from their
    mutants, and for each prediction one database more, if one can be found that tells it from the gold. The data obey
    the schema's types, PRIMARY KEY, UNIQUE, NOT NULL, FOREIGN KEY and CHECK, and give every gold query one right
    answer, whatever order the rows are stored in.

    A prediction that passes is right on every database tried, which is evidence, not proof: see `kill_rate`. A record
    is quarantined, and so unjudged, if a verdict would say little: its gold returns nothing on any database, or its
    suite tells less than half of the mutants from the gold.

    Plausible databases come first. A prediction that only rows like two customers of one name or NULL in a key tell
    from the gold is wrong, as SQL is strict, but `caveat` says so, and the judgement's details have it.

    Files are made once per schema, gold queries and settings, and are the same on every machine as long as the time
    budget does not end the search. It may be used from several threads.

    Args:
        directory: where the files are kept; None keeps none: they are in a temporary folder that is removed at exit.
        databases_per_record: of the suite, at most.
        time_budget_s: seconds of search after which a suite is taken as it is.
        seed: another one gives other rows.

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
        if databases_per_record < 1 or not 0 < time_budget_s < math.inf:
            raise ConfigError(
                "databases_per_record must be at least 1 and time_budget_s above 0 and finite, "
                f"but they are {databases_per_record!r} and {time_budget_s!r}"
            )
        self.databases_per_record, self.time_budget_s, self.seed = databases_per_record, time_budget_s, seed
        self._temporary = tempfile.TemporaryDirectory(prefix="sqlquarry-databases-")
        self._scratch = Path(self._temporary.name)
        self.directory = local_path(directory, "directory") if directory is not None else self._scratch / "suites"
        self._suites: dict[str, StoredSuite] = {}
        self._making = threading.Lock()
        self._sandbox = Sandbox(_RIVAL_LIMITS)

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path]:
        """Return the record's suite, and a database that tells the prediction from the gold if one is found.

        Args:
            record: with schema and gold SQL; its database's name is not looked at.
            predicted_sql: in the record's dialect; it is only ever run in a process of its own.

        Raises:
            JudgingError: the record has no gold SQL, or is quarantined: the message says why.
        """
        suite = self._usable_suite(record)
        rival = self._rival(record, predicted_sql)
        return sorted((*suite.paths, *([rival] if rival else ())), key=lambda path: not is_plausible(path))

    def caveat(self, database: Path | str) -> str | None:
        """Say what to know of a verdict that rests on one of these databases; None if its rows surprise nobody."""
        return None if is_plausible(Path(database)) else IMPLAUSIBLE

    def translate(self, sql: str, record: Record) -> str:
        """Return the query as SQLite's; as it is if the record's dialect is SQLite or neither dialect reads it.

        Raises:
            JudgingError: the record is quarantined, sqlglot does not know its dialect, or the query uses what the
                dialect refuses, or SQLite lacks or takes to mean something else.
        """
        if record.dialect == "sqlite":
            return sql
        text = in_sqlite(sql, record.dialect, schema_in_sqlite(record.schema, record.dialect), record.golds)
        outcome = self._sandbox.run(self._usable_suite(record).paths[0], text)
        if parse(sql, record.dialect) is None:
            if isinstance(outcome, Rows):
                raise cannot_be_said(sql, record.dialect, f"sqlglot does not read it as {record.dialect}")
        elif isinstance(outcome, Failure) and (outcome.kind == "syntax" or "no such function" in outcome.message):
            raise cannot_be_said(sql, record.dialect, outcome.message)
        return text

    def kill_rate(self, record: Record) -> KillRate:
        """How much the record's suite proves; no mutants where it is quarantined.

        Raises:
            JudgingError: the record has no gold SQL.
        """
        return self._suite(record).kill_rate

    def details(self, record: Record) -> Mapping[str, object]:
        """Return the kill rate and the first survivors, ready for JSON.

        Raises:
            JudgingError: the record has no gold SQL.
        """
        rate = self.kill_rate(record)
        return {"killed": rate.killed, "mutants": rate.mutants, "survivors": list(rate.survivors[:_SHOWN_SURVIVORS])}

    def fingerprint(self, record: Record) -> str:
        """Return a text that changes with what the record's databases hold."""
        settings = [VERSION, self.seed, self.databases_per_record, self.time_budget_s]
        content = json.dumps([*settings, record.dialect, record.schema, record.golds])
        return hashlib.sha256(content.encode()).hexdigest()

    def coverage(self) -> Coverage:
        """Return what has been made so far, and what is quarantined."""
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
            raise JudgingError("the record has no gold SQL, so no database can be made for it")
        key = self.fingerprint(record)
        if key not in self._suites:
            with self._making:
                folder = self.directory / key[:2] / key
                self._suites[key] = self._suites.get(key) or load(folder) or save(folder, self._make(record, key))
        return self._suites[key]

    def _make(self, record: Record, key: str) -> Suite | str:
        """Return a new suite, or why there can be none."""
        deadline = time.monotonic() + self.time_budget_s
        try:
            return make_suite(*_in_sqlite(record), most=self.databases_per_record, seed=key, deadline=deadline)
        except JudgingError as error:
            return f"quarantined: {error}"

    def _rival(self, record: Record, predicted_sql: str) -> Path | None:
        """Return a database on which the prediction runs and matches none of the golds; None if none was found."""
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
            told_apart = self._tells_apart(rival, sql, f"{digest}-{threading.get_native_id()}.sqlite")
            if told_apart:
                path = self.directory / "rivals" / digest[:2] / file_name(digest, plausible=rival.plausible)
                put(path, rival.file)
                return path
            if told_apart is None or time.monotonic() > deadline:
                break
        return None

    def _tells_apart(self, rival: Rival, sql: str, name: str) -> bool | None:
        """Whether the prediction's result is none of the expected ones; None if it fails, which needs no rival."""
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
