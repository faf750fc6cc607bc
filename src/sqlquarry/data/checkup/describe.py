"""Say in words what a check-up found and what it counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sqlquarry.data.checkup.findings import Finding, Severity
from sqlquarry.data.checkup.statistics import Statistics
from sqlquarry.records import Record

_SHOWN_NAMES = 3  # records of one finding
_SHOWN_CHARACTERS = 160  # of its detail


def count_of(count: int, noun: str) -> str:
    """Return "1 record" or "1,200 records"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def severities(counts: Mapping[Severity, int]) -> str:
    """Return the number of findings by severity in words."""
    errors, warnings, notes = (count_of(count, severity) for severity, count in counts.items())
    return f"{errors}, {warnings} and {notes}"


def name_of_record(record: Record, place: int) -> str:
    """Return the id of a record, or ``#7`` for record 7 without an id."""
    return record.id or f"#{place}"


def shown_detail(records: Sequence[Record], finding: Finding) -> str:
    """Return one finding as "id, id: detail"."""
    names = [name_of_record(records[place], place) for place in finding.records[:_SHOWN_NAMES]]
    if (more := len(finding.records) - len(names)) > 0:
        names.append(f"{more:,} more")
    detail = finding.detail[:_SHOWN_CHARACTERS] + "…" * (len(finding.detail) > _SHOWN_CHARACTERS)
    return ": ".join(filter(None, (", ".join(names), detail)))


def described(statistics: Statistics) -> Iterator[str]:
    """Yield lines of text with the figures of a set of records."""
    yield (
        f"{count_of(statistics.schemas, 'schema')}, {count_of(statistics.databases, 'database')}, "
        f"{count_of(statistics.with_sql, 'record')} with SQL"
    )
    if tokens := statistics.tokens:
        yield (
            f"tokens of prompt and answer: half of the records have up to {tokens.p50:,}, 90 % up to {tokens.p90:,}, "
            f"95 % up to {tokens.p95:,}, 99 % up to {tokens.p99:,}, all up to {tokens.max:,}"
        )
        if tokens.over_length is not None:
            yield f"longer than max_length: {count_of(tokens.over_length, 'record')}"
    for name, counts in (("hardness", statistics.classes), ("contents", statistics.shapes)):
        if any(counts.values()):
            yield f"{name}: {', '.join(f'{count:,} {one}' for one, count in counts.items() if count)}"
    if steps := statistics.steps:
        yield (
            f"training: {count_of(steps.steps, 'optimizer step')} of {count_of(steps.rows_per_step, 'row')}, "
            f"{steps.epochs:g} epoch{'s' * (steps.epochs != 1)}"
        )
