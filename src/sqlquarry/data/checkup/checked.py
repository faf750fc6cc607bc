"""Hold what the checks of one check-up work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from sqlquarry.data.checkup.forms import Forms, forms_of
from sqlquarry.data.checkup.structure import features_of
from sqlquarry.execution.databases import DatabaseSource
from sqlquarry.execution.limits import DEFAULT_LIMITS, ExecutionLimits
from sqlquarry.records import Record
from sqlquarry.tokenizing.tokenizer import Tokenizer


class Plan(Protocol):
    """What the check-up reads of a `TrainingPlan`."""

    @property
    def records(self) -> int:
        """Number of records."""

    @property
    def rows(self) -> int:
        """Number of packed rows in an epoch."""

    @property
    def rows_per_step(self) -> int:
        """Packed rows in one optimizer step."""

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""

    @property
    def epochs(self) -> float:
        """Passes over the rows in those steps."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The records of a check-up, and what their user knows about them.

    Args:
        records: the records to check.
        others: further sets of records by name, such as {"test": test}, for duplicates across splits.
        databases: the databases on which gold queries run, or None if there are none.
        limits: limits of each query.
        concurrency: number of queries that run at a time.
        tokens: number of tokens of each record, prompt and answer, or None without a tokenizer.
        max_length: the limit of tokens in training.
        tokenizer: the tokenizer that counted them, or None.
        plan: the forecast of a training run on the records, or None if there is none.
    """

    records: Sequence[Record]
    others: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    databases: DatabaseSource | None = None
    limits: ExecutionLimits = DEFAULT_LIMITS
    concurrency: int = 4
    tokens: Sequence[int] | None = None
    max_length: int | None = None
    tokenizer: Tokenizer | None = None
    plan: Plan | None = None

    @cached_property
    def forms(self) -> list[Forms]:
        """The forms of each record."""
        return list(forms_of(self.records))

    @cached_property
    def other_forms(self) -> Mapping[str, list[Forms]]:
        """The forms of each record in the further sets."""
        return {name: list(forms_of(records)) for name, records in self.others.items()}

    @cached_property
    def features(self) -> list[Mapping[str, str] | None]:
        """The features of each gold query, or None for a record without SQL."""
        return list(features_of(self.records))
