"""The report: verdicts by record, and every figure and file that is made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlquarry.artifacts import Judgement, Record, write_atomically
from sqlquarry.errors import JudgingError, SQLQuarryError
from sqlquarry.files.locations import local_path
from sqlquarry.files.metadata import parse_json
from sqlquarry.judging.statistics import Estimate, PairedComparison, clustered_estimate, estimate
from sqlquarry.judging.storable import storable
from sqlquarry.progress.notebook import html_table
from sqlquarry.text import visible

if TYPE_CHECKING:  # these modules import this one
    from sqlquarry.judging.calibration import Calibration
    from sqlquarry.judging.report.analysis import Disagreement, SliceChange

REPORT_VERSION = 2
_MAX_VALUES = 100_000_000  # those of a million judged records, each with its details
_SHOWN_REASONS, _SHOWN_NAMES = 10, 5  # in a summary
_READABLE_VERSIONS = (1, REPORT_VERSION)  # 1 is the same without `about` and alternative gold queries


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
        entries: one per judged record, in the order of the records.
        about: how they were judged, ready for JSON: configuration, cost, seconds; "stopped" says why a budget ended it,
            "left" how many records were then not judged.
    """

    graders: tuple[str, ...]
    entries: tuple[Entry, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def accuracy(
        self,
        grader: str | None = None,
        *,
        where: Callable[[Record], bool] | None = None,
        cluster_by: Callable[[Record], str] | None = None,
    ) -> Estimate:
        """Share of correct among judged records, with its 95 % interval; unjudged ones are counted apart.

        Args:
            grader: whose verdicts; None is the first grader.
            where: only records for which this is true.
            cluster_by: what records that stand or fall together have in common, such as their database; the interval is
                then a bootstrap over these clusters, else Wilson's, which takes records as independent.

        Raises:
            JudgingError: the report has no such grader, or there are fewer than two clusters.
        """
        place = self.place(grader)
        entries = [entry for entry in self.entries if where is None or where(entry.record)]
        verdicts = Counter(entry.judgements[place].verdict for entry in entries)
        judged = [entry for entry in entries if entry.judgements[place].verdict != "unjudged"]
        if cluster_by is None:
            return estimate(verdicts["correct"], len(judged), verdicts["unjudged"])
        correct = [entry.judgements[place].verdict == "correct" for entry in judged]
        return clustered_estimate(correct, [cluster_by(entry.record) for entry in judged], verdicts["unjudged"])

    def group_by(self, key: Callable[[Record], str]) -> dict[str, Report]:
        """One report for each value of `key`, in order of first appearance."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(key(entry.record), []).append(entry)
        return {name: Report(self.graders, tuple(entries)) for name, entries in groups.items()}

    def slices(
        self, by: Mapping[str, Callable[[Record], str]] | None = None, *, grader: str | None = None
    ) -> dict[str, dict[str, Estimate]]:
        """Accuracy by slice name and bucket, for example ``["joins"]["2"]``.

        Args:
            by: slice name -> the bucket that a record belongs to; None is `judging.features` of the gold SQL, and the
                database.
            grader: whose verdicts; None is the first grader.
        """
        from sqlquarry.judging.report.analysis import slice_places

        place = self.place(grader)
        verdicts = [entry.judgements[place].verdict for entry in self.entries]
        found: dict[str, dict[str, Estimate]] = {}
        for name, buckets in slice_places(self, by).items():
            for bucket, places in buckets.items():
                counts = Counter(verdicts[i] for i in places)
                share = estimate(counts["correct"], counts["correct"] + counts["wrong"], counts["unjudged"])
                found.setdefault(name, {})[bucket] = share
        return found

    def mistakes(self, grader: str | None = None) -> dict[str, int]:
        """Error class (`judging.mistakes`) -> records, most frequent first; a correct answer has none."""
        from sqlquarry.judging.report.analysis import mistake_classes

        counts = Counter(filter(None, mistake_classes(self, grader)))
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def disagreements(self) -> list[Disagreement]:
        """The entries that one grader calls correct and another wrong."""
        from sqlquarry.judging.report.analysis import disagreements

        return disagreements(self)

    def calibration(self, judge: str, reference: str) -> Calibration | None:
        """How far the grader `judge` errs, measured by `reference` on the same records; None where too few have both.

        Raises:
            JudgingError: the report has no such grader.
        """
        from sqlquarry.judging.calibration import calibrate

        for grader in (judge, reference):
            self.place(grader)
        return calibrate(self, judge, reference)

    def compare(
        self, other: Report, *, grader: str | None = None, cluster_by: Callable[[Record], str] | None = None
    ) -> PairedComparison:
        """What changed from `other` to this report, on the records on which both have a verdict.

        Args:
            other: the report of the system to compare with, on the same records.
            grader: whose verdicts; None is the first grader of this report that the other one has, too.
            cluster_by: as in `accuracy`; for the interval of the difference.

        Raises:
            JudgingError: the reports are not of the same records, or one has no such grader.
        """
        from sqlquarry.judging.report.analysis import compare, shared_grader

        return compare(other, self, grader=grader or shared_grader(other, self), cluster_by=cluster_by)

    def compare_slices(
        self,
        other: Report,
        by: Mapping[str, Callable[[Record], str]] | None = None,
        *,
        grader: str | None = None,
    ) -> list[SliceChange]:
        """`compare` by slice, the largest loss first; p-values are Holm's over all slices.

        Raises:
            JudgingError: the reports are not of the same records, or one has no such grader.
        """
        from sqlquarry.judging.report.analysis import compare_slices, shared_grader

        return compare_slices(other, self, by, grader=grader or shared_grader(other, self))

    def summary(self) -> str:
        """A plain-text table: one line per grader, then why records are unjudged."""
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
        notes.append("to_html(path) writes a page with all of them")
        return html_table(rows, header=header, caption=caption, notes=notes, numbers=range(1, len(header)))

    def _headlines(self) -> tuple[list[tuple[str, str, str, int, int]], list[str]]:
        """Label, accuracy, interval, judged and unjudged records of each grader; what there is to say about them."""
        from sqlquarry.judging.report.analysis import headline

        rows, notes = [], []
        for head in (headline(self, grader) for grader in self.graders):
            share = head.estimate
            value, interval = f"{share.value:.1%}" if share.n else "–", f"{share.low:6.1%} – {share.high:6.1%}"
            rows.append((head.label, value, interval, share.n, share.unjudged))
            if head.note:
                notes.append(f"{head.label}: {head.note}")
        if truncated := sum(entry.truncated for entry in self.entries):
            notes.append(f"answers cut at the token limit: {truncated}")
        if self.about.get("stopped"):
            notes.append(f"stopped: {self.about['stopped']}; {self.about.get('left', 0)} records are not judged")
        return rows, [*notes, *self._unjudged_lines()]

    def _unjudged_lines(self) -> Iterator[str]:
        """Why records are unjudged: the most common reasons with some of their records, then the number of others."""
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

    def to_json(self, path: str | Path) -> None:
        """Write the report, atomically, one line for each record; `from_json` reads it back.

        Values that JSON cannot hold are written as text.
        """
        write_atomically(local_path(path, "path"), self._lines())

    def _lines(self) -> Iterator[bytes]:
        head = {"version": REPORT_VERSION, "graders": self.graders, "about": self.about}
        yield _json(head)[:-1] + b', "entries": ['
        for i, entry in enumerate(self.entries):
            yield (b",\n" if i else b"\n") + _json(entry)
        yield b"\n]}\n"

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Read a report that `to_json` wrote, of this version or the one before.

        Raises:
            JudgingError: the file is missing or not such a report.
        """
        try:
            # Data of the user's own, which may be large, but is bounded in depth as anything that is read.
            content = parse_json(local_path(path, "path").read_bytes(), str(path), lenient=True, max_values=_MAX_VALUES)
            version, graders = content["version"], tuple(content["graders"])
            entries = tuple(map(_entry, content["entries"]))
            about = dict(content.get("about", {}))
        except FileNotFoundError as error:
            raise JudgingError(f"{path} is not there. Check the path; Report.to_json writes such a file.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SQLQuarryError) as error:
            raise JudgingError(f"{path} is not a report: {error!r}. Give a file that Report.to_json wrote.") from error
        if version not in _READABLE_VERSIONS:
            raise JudgingError(f"{path} is a report of format {version}, not {REPORT_VERSION}. Judge again.")
        return cls(graders, entries, about)

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
            group: a slice of your own that a record belongs to, beside those of the gold SQL.

        Raises:
            JudgingError: the reports are not of the same records, or two systems have the same name.
        """
        from sqlquarry.judging.report.html import write_html

        if compare and name in compare:
            raise JudgingError(f"two systems are named {name!r}. Pass name=... for this report.")
        write_html(path, {**(compare or {}), name: self}, title=title, group=group)

    def to_markdown(self, path: str | Path, *, title: str = "SQL accuracy", baseline: Report | None = None) -> None:
        """Write a short account for a pull request, atomically: headline, comparison, worst slices, five examples.

        Raises:
            JudgingError: the baseline is not of the same records and graders.
        """
        from sqlquarry.judging.report.markdown import write_markdown

        write_markdown(path, self, title=title, baseline=baseline)

    def to_junit(
        self,
        path: str | Path,
        *,
        minimum: float | None = None,
        slice_minimum: float | None = None,
        baseline: Report | None = None,
    ) -> bool:
        """Write the checks of `judging.report.checks` as a JUnit file, atomically; True where all of them pass.

        Raises:
            JudgingError: a minimum is not between 0 and 1, or the baseline is not of the same records and graders.
        """
        from sqlquarry.judging.report.checks import checks, write_junit

        made = checks(self, minimum=minimum, slice_minimum=slice_minimum, baseline=baseline)
        write_junit(path, made)
        return all(check.failure is None for check in made)

    def place(self, grader: str | None) -> int:
        """Where this grader's judgement stands in each entry; None is the first.

        Raises:
            JudgingError: the report has no such grader.
        """
        if grader is None:
            return 0
        if grader not in self.graders:
            raise JudgingError(f"this report has no grader {grader!r}, only {', '.join(self.graders)}")
        return self.graders.index(grader)


def _json(content: Any) -> bytes:
    # What UTF-8 cannot hold (half of an emoji, cut at a token limit) becomes the JSON escape of the same form.
    return json.dumps(storable(content), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _entry(content: Mapping[str, Any]) -> Entry:
    judgements = tuple(Judgement(**judgement) for judgement in content["judgements"])
    return Entry(**{**content, "record": Record(**content["record"]), "judgements": judgements})
