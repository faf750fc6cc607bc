"""The report: verdicts by record, the accuracies that follow from them, and their file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from sqlquarry.answers import Judgement, Verdict
from sqlquarry.errors import JudgingError, SQLQuarryError
from sqlquarry.files.locations import local_path
from sqlquarry.files.metadata import parse_json
from sqlquarry.files.writing import write_atomically
from sqlquarry.judging.report.calibration import Calibration, calibrate_verdicts
from sqlquarry.judging.report.estimates import Estimate, clustered_estimate, estimate
from sqlquarry.judging.storable import storable
from sqlquarry.options import check_options
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record
from sqlquarry.text import visible

REPORT_VERSION = 3
_MAX_VALUES = 100_000_000  # those of a million judged records, each with its details
_SHOWN_REASONS, _SHOWN_NAMES = 10, 5  # in a summary


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """Hold one judged record.

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
    judgements: Sequence[Judgement]

    def __post_init__(self) -> None:
        object.__setattr__(self, "judgements", tuple(self.judgements))


@check_options()
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInfo:
    """Say how the records of a report were judged.

    Args:
        duration_s: seconds that it took.
        cost_usd: US dollars that graders and model cost, as far as they know.
        stopped: why it ended early; "" if it did not.
        records_left: records that were not judged for that reason.
    """

    duration_s: float = 0.0
    cost_usd: float = 0.0
    stopped: str = ""
    records_left: int = 0


_UNKNOWN = ReportInfo()


class Headline(NamedTuple):
    """Hold the figure to quote for one grader.

    Args:
        label: the grader's name; an LLM's with "corrected" or "uncalibrated".
        estimate: the accuracy to quote; for a calibrated LLM the one corrected for its errors.
        note: what a reader must know of it; "" for graders that are not LLMs.
        calibration: what the correction rests on, if there is one.
    """

    label: str
    estimate: Estimate
    note: str = ""
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Hold all verdicts on one system.

    Args:
        graders: their names; the first gives the headline.
        entries: one per judged record, in the order of the records.
        info: how they were judged.
    """

    graders: Sequence[str]
    entries: Sequence[ReportEntry]
    info: ReportInfo = _UNKNOWN

    def __post_init__(self) -> None:
        object.__setattr__(self, "graders", tuple(self.graders))
        object.__setattr__(self, "entries", tuple(self.entries))

    def judgements_by(self, grader: str | None = None) -> list[Judgement]:
        """Return one grader's judgement on each entry.

        Args:
            grader: its name; the first grader if not given.

        Raises:
            JudgingError: the report has no such grader.
        """
        if grader is not None and grader not in self.graders:
            raise JudgingError(f"this report has no grader {grader!r}, only {', '.join(self.graders)}")
        place = 0 if grader is None else self.graders.index(grader)
        return [entry.judgements[place] for entry in self.entries]

    def verdicts_by(self, grader: str | None = None) -> list[Verdict]:
        """Return one grader's verdict on each entry.

        Args:
            grader: its name; the first grader if not given.

        Raises:
            JudgingError: the report has no such grader.
        """
        return [judgement.verdict for judgement in self.judgements_by(grader)]

    def accuracy(
        self,
        grader: str | None = None,
        *,
        where: Callable[[Record], bool] | None = None,
        cluster_by: Callable[[Record], str] | None = None,
    ) -> Estimate:
        """Return the share of correct among judged records, with its 95 % interval; unjudged ones count separately.

        Args:
            grader: whose verdicts; the first grader if not given.
            where: only records for which this is true; all if not given.
            cluster_by: what records that depend on each other have in common, such as their database; the interval is
                then a bootstrap over these clusters, else Wilson's, which takes records as independent.

        Raises:
            JudgingError: the report has no such grader, or there are fewer than two clusters.
        """
        pairs = zip((entry.record for entry in self.entries), self.verdicts_by(grader), strict=True)
        wanted = [(record, verdict) for record, verdict in pairs if where is None or where(record)]
        judged = [(record, verdict == "correct") for record, verdict in wanted if verdict != "unjudged"]
        correct, unjudged = [is_correct for _, is_correct in judged], len(wanted) - len(judged)
        if cluster_by is None:
            return estimate(sum(correct), len(judged), unjudged)
        return clustered_estimate(correct, [cluster_by(record) for record, _ in judged], unjudged)

    def headline(self, grader: str | None = None) -> Headline:
        """Return the figure to quote for a grader; an LLM is calibrated by the first grader that ran the queries.

        Args:
            grader: its name; the first grader if not given.

        Raises:
            JudgingError: the report has no such grader.
        """
        raw, grader = self.accuracy(grader), grader or self.graders[0]
        if not self._is_llm(grader):
            return Headline(grader, raw)
        for reference in self.graders:
            found = self._calibrated(grader, reference) if self._ran_queries(reference) else None
            if found and found.note:
                return Headline(f"{grader} (uncalibrated)", raw, f"calibration by {reference} is {found.note}", found)
            if found:
                note = (
                    f"corrected for the judge's errors as {reference} shows them on {found.n} records; "
                    f"kappa {found.kappa:.2f}, raw {raw.value:.1%}"
                )
                return Headline(f"{grader} (corrected)", found.corrected, note, found)
        note = "the judge's own error rate is unknown; add an ExecutionGrader on some of the records"
        return Headline(f"{grader} (uncalibrated)", raw, note)

    def group_by(self, key: Callable[[Record], str]) -> dict[str, Report]:
        """Return one report for each value of `key`, in order of first appearance."""
        groups: dict[str, list[ReportEntry]] = {}
        for entry in self.entries:
            groups.setdefault(key(entry.record), []).append(entry)
        return {name: Report(self.graders, entries) for name, entries in groups.items()}

    def summary(self) -> str:
        """Return a plain-text table: one line per grader, then why records are unjudged."""
        rows, notes = self._headlines()
        width = max(map(len, ("grader", *(label for label, *_ in rows))))
        lines = [f"{'grader':<{width}}  accuracy   95 % interval   judged  unjudged"]
        for label, value, interval, judged, unjudged in rows:
            lines.append(f"{label:<{width}}  {value:>8}  {interval}  {judged:>6}  {unjudged:>8}")
        return "\n".join(visible(line, one_line=True) for line in (*lines, *notes))

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        rows, notes = self._headlines()
        header = ("grader", "accuracy", "95 % interval", "judged", "unjudged")
        caption = f"{len(self.entries):,} judged record{'s' * (len(self.entries) != 1)}"
        notes.append("write_html(report, path) writes a page with all of them")
        return html_table(rows, header=header, caption=caption, notes=notes, numbers=range(1, len(header)))

    def _headlines(self) -> tuple[list[tuple[str, str, str, int, int]], list[str]]:
        """Return label, accuracy, interval, judged and unjudged records of each grader, and notes on them."""
        rows, notes = [], []
        for head in map(self.headline, self.graders):
            share = head.estimate
            value, interval = f"{share.value:.1%}" if share.n else "–", f"{share.low:6.1%} – {share.high:6.1%}"
            rows.append((head.label, value, interval, share.n, share.unjudged))
            if head.note:
                notes.append(f"{head.label}: {head.note}")
        if truncated := sum(entry.truncated for entry in self.entries):
            notes.append(f"answers cut at the token limit: {truncated}")
        if self.info.stopped:
            notes.append(f"stopped: {self.info.stopped}; {self.info.records_left} records are not judged")
        return rows, [*notes, *self._unjudged_lines()]

    def _unjudged_lines(self) -> Iterator[str]:
        """Say why records are unjudged: the most common reasons with some records each, then the number of others."""
        records: dict[str, list[str]] = {}
        for i, entry in enumerate(self.entries, start=1):
            for judgement in entry.judgements:
                if judgement.verdict == "unjudged":
                    name = entry.record.id or f"#{i}"
                    records.setdefault(f"{judgement.grader}: {judgement.reason}", []).append(name)
        by_count = sorted(records.items(), key=lambda item: -len(item[1]))
        for reason, names in by_count[:_SHOWN_REASONS]:
            shown = ", ".join(names[:_SHOWN_NAMES]) + (", …" if len(names) > _SHOWN_NAMES else "")
            yield f"unjudged by {reason} ({len(names)}: {shown})"
        if others := by_count[_SHOWN_REASONS:]:
            yield f"unjudged for {len(others)} other reasons ({sum(len(names) for _, names in others)})"

    def _is_llm(self, grader: str) -> bool:
        """Return whether this grader is a language model, whose verdicts need calibration."""
        return any(judgement.details.get("kind") == "llm" for judgement in self.judgements_by(grader))

    def _ran_queries(self, grader: str) -> bool:
        """Return whether this grader compared results of queries: only such verdicts can show an LLM's errors."""
        return any("gold" in judgement.details for judgement in self.judgements_by(grader)) and not self._is_llm(grader)

    def _calibrated(self, judge: str, reference: str) -> Calibration | None:
        pairs = zip(self.verdicts_by(judge), self.verdicts_by(reference), strict=True)
        return calibrate_verdicts(judge, reference, pairs)

    def to_json(self, path: str | Path) -> None:
        """Write the report, atomically, one line for each record; `from_json` reads it back.

        Values that JSON cannot hold are written as text.
        """
        write_atomically(local_path(path, "path"), self._lines())

    def _lines(self) -> Iterator[bytes]:
        head = {"version": REPORT_VERSION, "graders": self.graders, "info": asdict(self.info)}
        yield _json(head)[:-1] + b', "entries": ['
        for i, entry in enumerate(self.entries):
            yield (b",\n" if i else b"\n") + _json(entry)
        yield b"\n]}\n"

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a report that `to_json` wrote.

        Raises:
            JudgingError: the file is missing, or is not such a report.
        """
        try:
            # Data of the user's own, which may be large, but is bounded in depth as anything that is read.
            content = parse_json(local_path(path, "path").read_bytes(), str(path), lenient=True, max_values=_MAX_VALUES)
            if content["version"] == REPORT_VERSION:
                entries = list(map(_entry, content["entries"]))
                return cls(content["graders"], entries, ReportInfo(**content["info"]))
        except FileNotFoundError as error:
            raise JudgingError(f"{path} is not there. Check the path; Report.to_json writes such a file.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SQLQuarryError) as error:
            raise JudgingError(f"{path} is not a report: {error!r}. Give a file that Report.to_json wrote.") from error
        raise JudgingError(f"{path} is a report of format {content['version']}, not {REPORT_VERSION}. Judge again.")


def _json(content: object) -> bytes:
    # What UTF-8 cannot hold (half of an emoji, cut at a token limit) becomes the JSON escape of the same form.
    return json.dumps(storable(content), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _entry(content: Mapping[str, Any]) -> ReportEntry:
    judgements = [Judgement(**judgement) for judgement in content["judgements"]]
    return ReportEntry(**{**content, "record": Record(**content["record"]), "judgements": judgements})
