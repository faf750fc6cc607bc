"""Reports of check-ups for tests, with findings that no check has to find."""

from __future__ import annotations

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Finding, Kind, kinds_by_name
from sqlquarry.data.checkup.report import DataReport
from sqlquarry.data.checkup.statistics import statistics_of
from sqlquarry.records import Record

EVIL = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">"
KINDS = (
    Kind("rare", "note", "A class is rare", "Add records of it."),
    Kind("same", "warning", "Records are equal", "Keep the first one, or use `alternatives`."),
    Kind("fails", "error", "The gold query fails", "Correct the query.", needs="databases"),
    Kind("broken", "error", "The gold query is broken", "Remove the record."),
    Kind("leak", "error", "A record is in another set", "Remove it there.", needs="others"),
    Kind("clean", "warning", "Nothing has this kind", "Do nothing."),
)


def records(count: int) -> list[Record]:
    """Return records of two schemas. The first one is hostile, and every fifth one has no id."""
    return [
        Record(
            f"How many loans since {1900 + i}?" if i else EVIL,
            f"CREATE TABLE loan{i % 2} (name, year)" if i else EVIL,
            f"SELECT COUNT(*) FROM loan{i % 2} WHERE year > {1900 + i}" if i else EVIL,
            database=f"library{i % 3}" if i else EVIL,
            notes="" if i else EVIL,
            id=EVIL if i == 0 else None if i % 5 == 0 else f"r{i}",
        )
        for i in range(count)
    ]


def report(findings: list[Finding], *, count: int = 40, **options: object) -> DataReport:
    """Return a report with these findings on `count` records. `options` are those of `Checked`."""
    checked = Checked(records=records(count), **options)  # type: ignore[arg-type] - options of several types
    return DataReport(checked, findings, kinds_by_name(KINDS), statistics_of(checked))


def findings() -> list[Finding]:
    """Return findings of all severities: about single records, about groups, and about the whole set."""
    return [
        Finding("rare", (), "3 of 40 queries: joins"),
        *(Finding("broken", (i,), f"no such column: c{i}") for i in range(12)),
        Finding("same", (1, 2, 3, 5, 7, 8, 9, 10), "How many loans?"),
        Finding("same", (0, 20), EVIL),
    ]
