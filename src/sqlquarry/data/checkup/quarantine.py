"""Write records with findings to a file of their own, with the reasons, so that a person can mend them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.report import DataReport
from sqlquarry.data.writers import json_line
from sqlquarry.errors import ConfigError
from sqlquarry.options import known_names
from sqlquarry.records import Record

# Kinds of groups in which only the repetition is wrong, so the first record is fine.
KEEPING_FIRST = frozenset(["duplicate", "near-duplicate", "other-wording-of-gold", "repeated-id"])


def reasons_by_position(
    records: Sequence[Record], report: DataReport, kinds: Iterable[str] | None
) -> dict[int, list[Finding]]:
    """Return the findings for which records go into quarantine, by position in order.

    Args:
        records: the records.
        report: the report about these records.
        kinds: names of kinds. None means all errors.

    Raises:
        ConfigError: a kind is unknown, or the report is about other records.
    """
    if not isinstance(report, DataReport):
        raise ConfigError(f"report is a {type(report).__name__}, but must be the DataReport that `check` returned")
    wanted = _chosen(report.kinds, kinds)
    if tuple(report.records) != tuple(records):
        raise ConfigError(
            f"the report is about {len(report.records):,} other records than these {len(records):,}. Pass the report "
            "that `check` returned for them."
        )
    found: dict[int, list[Finding]] = {}
    for finding in report.findings:
        if finding.kind in wanted:
            for position in finding.records[finding.kind in KEEPING_FIRST :]:
                found.setdefault(position, []).append(finding)
    return dict(sorted(found.items()))


def quarantine_line(record: Record, findings: Iterable[Finding], kinds: Mapping[str, Kind]) -> bytes:
    """Return a record as one line of JSON with its reasons, which `load_records` ignores."""
    fields = json.loads(json_line(record))
    reasons = [
        {"kind": finding.kind, "detail": finding.detail, "advice": kinds[finding.kind].advice} for finding in findings
    ]
    return json.dumps({**fields, "reasons": reasons}, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _chosen(known: Mapping[str, Kind], kinds: Iterable[str] | None) -> set[str]:
    if kinds is None:
        return {name for name, kind in known.items() if kind.severity == "error"}
    return set(known_names("kinds", kinds, known))
