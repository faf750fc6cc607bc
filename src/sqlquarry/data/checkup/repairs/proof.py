"""Prove that a repaired record means the same: by its schema, by SQLite, and by the rows on its database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from sqlquarry.data.checkup.gold_query import GoldQuery, schema_of
from sqlquarry.errors import JudgingError
from sqlquarry.execution.databases import DatabaseSource
from sqlquarry.execution.limits import ExecutionLimits
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.records import Record
from sqlquarry.results.comparison import results_equal
from sqlquarry.results.ordering import is_ordered
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.unknown_names import unknown_names

_UNREADABLE, _PARSED, _COMPILED = range(3)


class Proof:
    """A proof that changed records mean the same as before.

    - The schema declares the same names, or could not be read before.
    - Each changed gold query can be parsed if it could be before, and compiles on the schema if it did before.
    - With a database, each changed gold query returns the same rows, or it failed before.

    Args:
        databases: the databases of the records, or None if there are none.
        limits: limits of each query.
    """

    def __init__(self, databases: DatabaseSource | None, limits: ExecutionLimits) -> None:
        self._databases = databases
        self._sandbox = Sandbox(limits) if databases is not None else None
        self._run = lru_cache(maxsize=128)(self._sandbox.run) if self._sandbox else None

    def close(self) -> None:
        """End the processes that ran queries."""
        if self._sandbox:
            self._sandbox.close()

    def holds(self, before: Record, after: Record) -> bool:
        """Return whether a changed record means the same."""
        if before.schema != after.schema and not _same_names(before, after):
            return False
        if len(before.golds) != len(after.golds):
            return set(after.golds) <= set(before.golds)
        for number, (old, new) in enumerate(zip(before.golds, after.golds, strict=True)):
            is_same_text = old == new
            if is_same_text and before.schema == after.schema:
                continue
            if _level(after, number) < _level(before, number):
                return False
            if not is_same_text and not self._same_rows(before, old, new):
                return False
        return True

    def _same_rows(self, record: Record, old: str, new: str) -> bool:
        """Return whether two queries return the same rows on all databases of a record. True if there are none."""
        if self._databases is None or self._run is None:
            return True
        try:
            databases: Sequence[Path | str] = self._databases.databases_for(record, new)
            old, new = (self._databases.translate(sql, record) for sql in (old, new))
        except JudgingError:  # The record has no database, or the query cannot be translated.
            return True
        for database in databases:
            before, after = self._run(database, old), self._run(database, new)
            if isinstance(before, Failure):
                if before.kind == "unavailable":
                    return False
            elif isinstance(after, Failure) or not _equal(before, after, new, record.dialect):
                return False
        return True


def _equal(before: Rows, after: Rows, sql: str, dialect: str) -> bool:
    try:
        return results_equal(before.rows, after.rows, ordered=is_ordered(sql, dialect))
    except JudgingError:  # The comparison takes too long.
        return False


def _level(record: Record, number: int) -> int:
    """Return how far a gold query can be read: not at all, as a statement, or on the record's schema."""
    from sqlglot import expressions as exp

    gold = GoldQuery(0, record, number)
    if gold.dialect == "sqlite" and gold.refusal is None:
        return _COMPILED
    # sqlglot also parses a name alone, such as a query between backticks.
    if not isinstance(parse(gold.sql, gold.dialect), exp.Query | exp.DML | exp.DDL):
        return _UNREADABLE
    if gold.dialect == "sqlite" or gold.schema is None:
        return _PARSED
    return _PARSED if unknown_names(gold.sql, gold.schema, gold.dialect) else _COMPILED


def _same_names(before: Record, after: Record) -> bool:
    old, new = (schema_of(record.schema, record.dialect) for record in (before, after))
    if not isinstance(old, Schema):
        return True
    return isinstance(new, Schema) and _names(old) == _names(new)


def _names(schema: Schema) -> dict[str, list[str]]:
    return {table.name: [column.name for column in table.columns.values()] for table in schema.tables.values()}
