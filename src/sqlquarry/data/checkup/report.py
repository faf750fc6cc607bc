"""The report of a check-up: its findings by kind, and the texts and files that show them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.describe import count_of, described, name_of_record, severities, shown_detail
from sqlquarry.data.checkup.findings import SEVERITIES, Finding, Kind, Severity
from sqlquarry.data.checkup.page import page
from sqlquarry.data.checkup.sections import Section
from sqlquarry.data.checkup.statistics import Statistics
from sqlquarry.data.writers import write_parts
from sqlquarry.errors import ConfigError
from sqlquarry.options import did_you_mean
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record
from sqlquarry.text import visible

if TYPE_CHECKING:
    import boto3

JSON_VERSION = 1
_EXAMPLES = 3  # of each kind in the text


@dataclass(frozen=True, slots=True, repr=False)
class DataReport:
    """What a check-up found in records. `Records.check` makes it.

    ``after.counts - before.counts`` compares two reports, because counts of kinds that were not found are 0.

    Args:
        checked: the records, and what was known about them.
        findings: all findings, sorted by kind and record.
        kinds: name -> kind, for all kinds that exist.
        statistics: sizes, token lengths, classes of queries and optimizer steps.
    """

    checked: Checked
    findings: Sequence[Finding]
    kinds: Mapping[str, Kind]
    statistics: Statistics

    def __post_init__(self) -> None:
        order = {name: place for place, name in enumerate(self.kinds)}
        found = sorted(self.findings, key=lambda finding: (order[finding.kind], finding.records, finding.detail))
        object.__setattr__(self, "findings", tuple(found))

    @property
    def records(self) -> Sequence[Record]:
        """The records that were checked. Findings have positions in them."""
        return self.checked.records

    @property
    def ok(self) -> bool:
        """Whether there are no errors. Warnings and notes do not count.

        A script for CI ends with ``sys.exit(not report.ok)``.
        """
        return not self.severities["error"]

    @property
    def counts(self) -> Counter[str]:
        """Number of findings by kind, most severe first. A kind that was not found has 0."""
        return Counter({section.kind.name: len(section.findings) for section in self.sections()})

    @property
    def severities(self) -> dict[Severity, int]:
        """Number of findings by severity."""
        counts = Counter(self.kinds[finding.kind].severity for finding in self.findings)
        return {severity: counts[severity] for severity in SEVERITIES}

    @property
    def skipped(self) -> Mapping[str, Kind]:
        """The kinds that were not looked for, because the argument that they need was not given."""
        return {name: kind for name, kind in self.kinds.items() if kind.needs and not getattr(self.checked, kind.needs)}

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of a kind.

        Raises:
            ConfigError: the kind is unknown.
        """
        if kind not in self.kinds:
            raise ConfigError(
                f"{kind!r} is not a kind of finding. Use one of: {', '.join(self.kinds)}"
                f"{did_you_mean(str(kind), self.kinds)}"
            )
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def ids(self, kind: str) -> list[str]:
        """Return the ids of the records with a kind of finding, each once, or ``#7`` for record 7 without an id.

        Raises:
            ConfigError: the kind is unknown.
        """
        places = sorted({place for finding in self.of(kind) for place in finding.records})
        return [name_of_record(self.records[place], place) for place in places]

    def sections(self) -> list[Section]:
        """Return the kinds that were found with their findings, most severe first, then most frequent first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.kind, []).append(finding)
        sections = [Section(self.kinds[name], tuple(findings)) for name, findings in found.items()]
        return sorted(sections, key=lambda section: (SEVERITIES.index(section.kind.severity), -len(section.findings)))

    def summary(self) -> str:
        """Return a plain text: errors first, each kind with its count, first records and advice, then statistics."""
        lines = [f"{count_of(len(self.records), 'record')}: {severities(self.severities)}"]
        for section in self.sections():
            kind = section.kind
            lines += ["", f"{kind.severity}: {kind.title} ({kind.name}): {section.size(len(self.records))}"]
            for finding in section.findings[:_EXAMPLES]:
                lines.append(f"  {self._shown(finding)}")
            if (more := len(section.findings) - _EXAMPLES) > 0:
                lines.append(f"  and {more:,} more")
            lines.append(f"  {kind.advice}")
        lines += ["", *described(self.statistics)]
        lines += [f"not checked without {need}: {', '.join(names)}" for need, names in self._skipped_names().items()]
        return "\n".join(visible(line, one_line=True) for line in lines)

    __str__ = summary

    def __repr__(self) -> str:
        return f"<DataReport: {severities(self.severities)} in {count_of(len(self.records), 'record')}>"

    def _repr_html_(self) -> str:
        """Show the kinds with their counts and first records in a notebook."""
        rows: list[list[str | int]] = [
            [
                section.kind.severity,
                f"{section.kind.title} ({section.kind.name})",
                len(section.findings),
                len(section.places),
                "; ".join(map(self._shown, section.findings[:_EXAMPLES])),
            ]
            for section in self.sections()
        ]
        notes = [*described(self.statistics), "To see all findings, call report.to_html(path)"]
        return html_table(
            rows,
            header=["severity", "kind", "findings", "records", "first"],
            caption=f"{count_of(len(self.records), 'record')}: {severities(self.severities)}",
            notes=notes,
            numbers=(2, 3),
        )

    def to_json(self, path: str | Path, *, session: boto3.Session | None = None) -> None:
        """Write all findings and the statistics as JSON, one finding per line.

        Args:
            path: a file or ``s3://bucket/key``.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        write_parts(path, self._json_lines(), session)

    def to_html(
        self, path: str | Path, *, title: str = "Check-up of records", session: boto3.Session | None = None
    ) -> None:
        """Write one self-contained page with all kinds, examples of each, and charts. It needs no network.

        Args:
            path: a file or ``s3://bucket/key``.
            title: the title of the page.
            session: a boto3 session for S3. None uses the default credentials.

        Raises:
            DataError: the object cannot be written to S3.
            MissingExtraError: `path` is on S3, but boto3 is not installed.
        """
        skipped = self.skipped
        clean = [kind for name, kind in self.kinds.items() if name not in skipped and name not in self.counts]
        content = page(self.checked, self.sections(), self.statistics, skipped.values(), clean, title=title)
        write_parts(path, [content], session)

    def _shown(self, finding: Finding) -> str:
        return shown_detail(self.records, finding)

    def _skipped_names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for kind in self.skipped.values():
            names.setdefault(kind.needs, []).append(kind.name)
        return names

    def _json_lines(self) -> Iterator[bytes]:
        sections = self.sections()
        head = {
            "version": JSON_VERSION,
            "ok": self.ok,
            "records": len(self.records),
            "severities": self.severities,
            "kinds": [
                {**asdict(one.kind), "findings": len(one.findings), "records": len(one.places)} for one in sections
            ],
            "skipped": list(self.skipped),
            "statistics": asdict(self.statistics),
        }
        yield _json(head)[:-1] + b', "findings": ['
        for i, finding in enumerate(finding for section in sections for finding in section.findings):
            ids = [name_of_record(self.records[place], place) for place in finding.records]
            yield (b",\n" if i else b"\n") + _json({**asdict(finding), "ids": ids})
        yield b"\n]}\n"


def _json(content: object) -> bytes:
    # UTF-8 cannot encode half of an emoji. It becomes a JSON escape.
    return json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
