"""Hold what the checks of one check-up work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlquarry.execution.databases import DatabaseSource
from sqlquarry.execution.limits import DEFAULT_LIMITS, ExecutionLimits
from sqlquarry.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The records of a check-up, and what their user knows about them.

    Args:
        records: the records to check.
        others: further sets of records by name, such as {"test": test}, for duplicates across splits.
        databases: the databases on which gold queries run, or None if there are none.
        limits: limits of each query.
        concurrency: number of queries that run at a time.
        tokens: number of tokens of each record, prompt and answer, or None if there is no tokenizer.
        max_length: the limit of tokens in training.
    """

    records: Sequence[Record]
    others: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    databases: DatabaseSource | None = None
    limits: ExecutionLimits = DEFAULT_LIMITS
    concurrency: int = 4
    tokens: Sequence[int] | None = None
    max_length: int | None = None
