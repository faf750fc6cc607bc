"""Records that were proposed for a database, and a report on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlquarry.data.records import Records
from sqlquarry.records import Record


@dataclass(frozen=True, slots=True)
class ProposalReport:
    """How proposed records cover a database.

    Args:
        asked: the number of records that were wanted.
        made: the number of records.
        tables: share of the tables with rows that a query uses, in [0, 1].
        columns: share of the columns with values, in tables with rows, that a query uses, in [0, 1].
        unused: the tables and columns with values that no query uses, such as "singer" or "singer.age".
        by_hardness: number of records of each level of Spider: "easy", "medium", "hard" and "extra".
        by_template: number of records of each template, and of "model" and "log".
        rejected: number of rejected proposals by reason, such as "no rows" or "repeated".
        notes: what could not be used, and why, such as a table without rows.
    """

    asked: int
    made: int
    tables: float
    columns: float
    unused: tuple[str, ...]
    by_hardness: Mapping[str, int]
    by_template: Mapping[str, int]
    rejected: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.made} of {self.asked} records, {self.tables:.0%} of the tables, {self.columns:.0%} of the columns",
            f"hardness: {_listed(self.by_hardness)}",
            f"templates: {_listed(self.by_template)}",
            f"rejected: {_listed(self.rejected) or 'none'}",
        ]
        lines += [f"not used: {', '.join(self.unused)}"] if self.unused else []
        return "\n".join([*lines, *self.notes])


class Proposals(Records):
    """Proposed records with a report on them. Slices and sums are plain `Records`.

    Attributes:
        report: coverage, hardness, templates and rejected proposals.
    """

    __slots__ = ("report",)

    def __init__(self, records: Iterable[Record], report: ProposalReport) -> None:
        super().__init__(records)
        self.report = report


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
