"""Choose and compress the examples of each section, so that a page stays small for any number of findings.

A page shows up to 3,000 findings of each kind, and up to 6 records of each finding. It has fewer examples if they would
take more than 2 MB. The counts on the page are always those of all findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlquarry.data.checkup.describe import name_of_record
from sqlquarry.data.checkup.findings import Finding
from sqlquarry.data.checkup.sections import Section
from sqlquarry.pages import packed
from sqlquarry.records import Record
from sqlquarry.text import visible

_EXAMPLES = (3_000, 1_000, 300, 100, 30, 10, 3)  # findings of each kind, with fewer if the page gets too large
_PAGE_BYTES = 2_000_000
_RECORDS = 6  # of each finding
_TEXT, _SCHEMA = 2_000, 4_000  # characters


def examples(records: Sequence[Record], sections: Sequence[Section]) -> tuple[str, list[int]]:
    """Return the compressed examples, and the number of findings of each section that are among them."""
    kinds: dict[int, list[int]] = {}  # position of a record -> numbers of the sections that it occurs in
    for number, section in enumerate(sections):
        for place in section.places:
            kinds.setdefault(place, []).append(number)
    for most in _EXAMPLES:
        data = packed(_examples(records, sections, kinds, most))
        if len(data) <= _PAGE_BYTES:
            break
    return data, [min(most, len(section.findings)) for section in sections]


def _examples(
    records: Sequence[Record], sections: Sequence[Section], kinds: Mapping[int, list[int]], most: int
) -> dict[str, object]:
    shown = _ShownRecords(records, kinds)
    findings = [[shown.finding(finding) for finding in section.findings[:most]] for section in sections]
    return {"findings": findings, "records": shown.contents, "schemas": list(shown.schemas)}


class _ShownRecords:
    """The records of the examples, each once, and their schemas, each once."""

    def __init__(self, records: Sequence[Record], kinds: Mapping[int, list[int]]) -> None:
        self._records, self._kinds = records, kinds
        self._numbers: dict[int, int] = {}
        self.contents: list[dict[str, object]] = []
        self.schemas: dict[str, int] = {}

    def finding(self, finding: Finding) -> dict[str, object]:
        """Return one finding with the numbers of its first records."""
        places = finding.records[:_RECORDS]
        return {
            "detail": _clipped(finding.detail, _TEXT),
            "records": [self._number(place) for place in places],
            "more": len(finding.records) - len(places),
        }

    def _number(self, place: int) -> int:
        if place not in self._numbers:
            self._numbers[place] = len(self.contents)
            record = self._records[place]
            schema = _clipped(record.schema, _SCHEMA)
            self.contents.append(
                {
                    "id": visible(name_of_record(record, place)),
                    "question": _clipped(record.question, _TEXT),
                    "golds": [_clipped(sql, _TEXT) for sql in record.golds],
                    "notes": _clipped(record.notes, _TEXT),
                    "database": visible(record.database or ""),
                    "schema": self.schemas.setdefault(schema, len(self.schemas)),
                    "kinds": self._kinds[place],
                }
            )
        return self._numbers[place]


def _clipped(text: str, most: int) -> str:
    return visible(text if len(text) <= most else f"{text[:most]}…")
