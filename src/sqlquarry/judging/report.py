"""What came out of judging: verdicts by record, accuracies with error bars, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlquarry.artifacts import Judgement, Record, write_json
from sqlquarry.errors import JudgingError, SQLQuarryError
from sqlquarry.judging.statistics import Estimate, estimate

REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One judged record.

    Args:
        record: the question with its gold SQL.
        answer: what the model wrote.
        sql: the SQL found in it; "" if there is none.
        truncated: the answer was cut at the token limit.
        judgements: one per grader, in the report's order.
    """

    record: Record
    answer: str
    sql: str
    truncated: bool
    judgements: tuple[Judgement, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts of one system.

    Args:
        graders: their names; the first gives the headline.
        entries: one per record, in the order of the records.
    """

    graders: tuple[str, ...]
    entries: tuple[Entry, ...]

    def accuracy(self, grader: str | None = None, *, where: Callable[[Record], bool] | None = None) -> Estimate:
        """Share of correct among judged records, with its 95 % Wilson interval; unjudged ones are counted apart.

        Args:
            grader: whose verdicts; None is the first grader.
            where: only records for which this is true.

        Raises:
            JudgingError: the report has no such grader.
        """
        place = self._place(grader)
        verdicts = Counter(
            entry.judgements[place].verdict for entry in self.entries if where is None or where(entry.record)
        )
        return estimate(verdicts["correct"], verdicts["correct"] + verdicts["wrong"], verdicts["unjudged"])

    def group_by(self, key: Callable[[Record], str]) -> dict[str, Report]:
        """One report for each value of `key`, in order of first appearance."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(key(entry.record), []).append(entry)
        return {name: Report(self.graders, tuple(entries)) for name, entries in groups.items()}

    def summary(self) -> str:
        """A plain-text table: one line per grader, then why records are unjudged."""
        width = max(map(len, (*self.graders, "grader")))
        lines = [f"{'grader':<{width}}  accuracy   95 % interval   judged  unjudged"]
        for grader in self.graders:
            share = self.accuracy(grader)
            value = f"{share.value:8.1%}" if share.n else "       –"
            interval = f"{share.low:6.1%} – {share.high:6.1%}"
            lines.append(f"{grader:<{width}}  {value}  {interval}  {share.n:>6}  {share.unjudged:>8}")
        if truncated := sum(entry.truncated for entry in self.entries):
            lines.append(f"answers cut at the token limit: {truncated}")
        reasons = Counter(
            f"{judgement.grader}: {judgement.reason}"
            for entry in self.entries
            for judgement in entry.judgements
            if judgement.verdict == "unjudged"
        )
        lines += [f"unjudged by {reason} ({count})" for reason, count in reasons.most_common(5)]
        return "\n".join(lines)

    def to_json(self, path: str | Path) -> None:
        """Write the report, atomically; `from_json` reads it back."""
        write_json(Path(path), {"version": REPORT_VERSION, **dataclasses.asdict(self)})

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a report that `to_json` wrote.

        Raises:
            JudgingError: the file is missing or not a report of this version.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            version, graders = content["version"], tuple(content["graders"])
            entries = tuple(map(_entry, content["entries"]))
        except (OSError, ValueError, KeyError, TypeError, SQLQuarryError) as error:
            raise JudgingError(f"{path} is not a report that to_json wrote ({error!r})") from error
        if version != REPORT_VERSION:
            raise JudgingError(f"{path} is a report of format {version}, not {REPORT_VERSION}. Judge again.")
        return cls(graders, entries)

    def to_html(
        self,
        path: str | Path,
        *,
        title: str = "SQL accuracy",
        compare: Mapping[str, Report] | None = None,
        name: str = "this model",
        group: Callable[[Record], str] | None = None,
    ) -> None:
        """Write one self-contained page for a browser, atomically.

        Args:
            path: the .html file.
            title: the page's heading.
            compare: other systems' reports on the same records, by name; they come first, as what to compare with.
            name: this system's name on the page.
            group: the slice that a record belongs to; accuracies are then also shown by slice.

        Raises:
            JudgingError: the reports are not of the same records, or two systems have the same name.
        """
        from sqlquarry.judging.report_html import write_html

        if compare and name in compare:
            raise JudgingError(f"two systems are named {name!r}. Pass name=... for this report.")
        write_html(path, {**(compare or {}), name: self}, title=title, group=group)

    def _place(self, grader: str | None) -> int:
        if grader is None:
            return 0
        if grader not in self.graders:
            raise JudgingError(f"this report has no grader {grader!r}, only {', '.join(self.graders)}")
        return self.graders.index(grader)


def _entry(content: Mapping[str, Any]) -> Entry:
    judgements = tuple(Judgement(**judgement) for judgement in content["judgements"])
    return Entry(**{**content, "record": Record(**content["record"]), "judgements": judgements})
