"""The report with its verdicts by record, its accuracies and its file."""

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
from sqlquarry.judging.report.estimates import Estimate, MeanScore, clustered_estimate, estimate, mean_score
from sqlquarry.judging.storable import storable
from sqlquarry.options import check_options
from sqlquarry.progress.notebook import html_table
from sqlquarry.records import Record
from sqlquarry.text import visible

REPORT_VERSION = 3
_MAX_VALUES = 100_000_000  # enough for a million judged records with their details
_SHOWN_REASONS, _SHOWN_NAMES = 10, 5  # in a summary


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """A judged record.

    Args:
        record: the question with its gold SQL.
        answer: the model's answer.
        sql: the SQL in the answer, or "".
        truncated: the answer was cut at the token limit.
        judgements: one per grader, in the report's order of graders.
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
    """Facts about the run that judged a report.

    Args:
        duration_s: duration in seconds.
        cost_usd: cost in US dollars that graders and model reported.
        stopped: the reason why the run ended early, or "".
        records_left: number of records that were not judged for that reason.
    """

    duration_s: float = 0.0
    cost_usd: float = 0.0
    stopped: str = ""
    records_left: int = 0


_UNKNOWN = ReportInfo()


class Headline(NamedTuple):
    """The figure to quote for one grader.

    Args:
        label: the grader's name. An LLM's is followed by "(corrected)" or "(uncalibrated)".
        estimate: the accuracy to quote. For a calibrated LLM it is corrected for the LLM's errors.
        note: an explanation for the reader, or "" for graders that are not LLMs.
        calibration: the measurement behind the correction, if there is one.
        mean_score: the mean of the grader's scores, or None if it gives none. It is not corrected.
    """

    label: str
    estimate: Estimate
    note: str = ""
    calibration: Calibration | None = None
    mean_score: MeanScore | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All verdicts on one system.

    Args:
        graders: the names of the graders. The first one gives the headline.
        entries: one per judged record, in the order of the records.
        info: facts about the run.
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
            grader: the name of the grader. The default is the first one.

        Raises:
            JudgingError: the report has no such grader.
        """
        if grader is not None and grader not in self.graders:
            raise JudgingError(f"the report has no grader {grader!r}. Use one of: {', '.join(self.graders)}.")
        place = 0 if grader is None else self.graders.index(grader)
        return [entry.judgements[place] for entry in self.entries]

    def verdicts_by(self, grader: str | None = None) -> list[Verdict]:
        """Return one grader's verdict on each entry.

        Args:
            grader: the name of the grader. The default is the first one.

        Raises:
            JudgingError: the report has no such grader.
        """
        return [judgement.verdict for judgement in self.judgements_by(grader)]

    def scores_by(self, grader: str | None = None) -> list[float | None]:
        """Return one grader's score of each entry, 0 to 100, or None if the entry is unjudged or has no score.

        Judgements have their score in ``details["score"]``. Graders that only tell right from wrong give none.

        Args:
            grader: the name of the grader. The default is the first one.

        Raises:
            JudgingError: the report has no such grader.
        """
        return [_score(judgement) for judgement in self.judgements_by(grader)]

    def accuracy(
        self,
        grader: str | None = None,
        *,
        where: Callable[[Record], bool] | None = None,
        cluster_by: Callable[[Record], str] | None = None,
    ) -> Estimate:
        """Return the share of correct answers among judged records, with its 95 % interval.

        Unjudged records are counted separately.

        Args:
            grader: the name of the grader. The default is the first one.
            where: selects records. The default is all records.
            cluster_by: returns a value that dependent records have in common, such as their database. The interval is
                then a bootstrap over these clusters. Without it, the interval is Wilson's, which treats records as
                independent.

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

    def mean_score(
        self,
        grader: str | None = None,
        *,
        where: Callable[[Record], bool] | None = None,
        cluster_by: Callable[[Record], str] | None = None,
    ) -> MeanScore | None:
        """Return the mean of a grader's scores with its 95 % bootstrap interval, or None if there are no scores.

        Args:
            grader: the name of the grader. The default is the first one.
            where: selects records. The default is all records.
            cluster_by: as in `accuracy`.

        Raises:
            JudgingError: the report has no such grader.
        """
        pairs = zip((entry.record for entry in self.entries), self.scores_by(grader), strict=True)
        scored = [(record, score) for record, score in pairs if score is not None and (where is None or where(record))]
        clusters = [cluster_by(record) for record, _ in scored] if cluster_by else None
        return mean_score([score for _, score in scored], clusters) if scored else None

    def headline(self, grader: str | None = None) -> Headline:
        """Return the figure to quote for a grader. An LLM is calibrated by the first grader that ran the queries.

        Args:
            grader: the name of the grader. The default is the first one.

        Raises:
            JudgingError: the report has no such grader.
        """
        return self._headline(grader or self.graders[0])._replace(mean_score=self.mean_score(grader))

    def _headline(self, grader: str) -> Headline:
        raw = self.accuracy(grader)
        if not self._is_llm(grader):
            return Headline(grader, raw)
        for reference in self.graders:
            found = self._calibrated(grader, reference) if self._ran_queries(reference) else None
            if found and found.note:
                return Headline(f"{grader} (uncalibrated)", raw, f"calibration by {reference} is {found.note}", found)
            if found:
                note = (
                    f"corrected for the judge's errors on {found.n} records with verdicts of {reference}, "
                    f"kappa {found.kappa:.2f}, raw {raw.value:.1%}"
                )
                return Headline(f"{grader} (corrected)", found.corrected, note, found)
        note = "the judge's error rate is unknown. To measure it, add an ExecutionGrader for some of the records"
        return Headline(f"{grader} (uncalibrated)", raw, note)

    def group_by(self, key: Callable[[Record], str]) -> dict[str, Report]:
        """Return one report for each value of `key`, in order of first appearance."""
        groups: dict[str, list[ReportEntry]] = {}
        for entry in self.entries:
            groups.setdefault(key(entry.record), []).append(entry)
        return {name: Report(self.graders, entries) for name, entries in groups.items()}

    def summary(self) -> str:
        """Return a plain-text table with one line per grader, followed by the reasons for unjudged records."""
        header, rows, notes = self._headlines()
        table = [header, *rows]
        first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = ["  ".join([label.ljust(first), *map(str.rjust, cells, others)]).rstrip() for label, *cells in table]
        return "\n".join(visible(line, one_line=True) for line in (*lines, *notes))

    def _repr_html_(self) -> str:
        """Show the summary in a notebook."""
        header, rows, notes = self._headlines()
        caption = f"{len(self.entries):,} judged record{'s' * (len(self.entries) != 1)}"
        notes.append("To see all records, call write_html(report, path)")
        return html_table(rows, header=header, caption=caption, notes=notes, numbers=range(1, len(header)))

    def _headlines(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Return the header of a table, its rows with the figures of each grader, and notes on them."""
        heads = list(map(self.headline, self.graders))
        header = ["grader", "accuracy", "95 % interval", "judged", "unjudged"]
        is_scored = any(head.mean_score for head in heads)
        if is_scored:
            header += ["mean score", "95 % interval"]
        rows = []
        for head in heads:
            share, mean = head.estimate, head.mean_score
            row = [head.label, f"{share.value:.1%}" if share.n else "–", f"{share.low:6.1%} – {share.high:6.1%}"]
            row += [f"{share.n:,}", f"{share.unjudged:,}"]
            if is_scored:
                row += [f"{mean.value:.2f}", f"{mean.low:5.1f} – {mean.high:5.1f}"] if mean else ["", ""]
            rows.append(row)
        notes = [f"{head.label}: {head.note}" for head in heads if head.note]
        if truncated := sum(entry.truncated for entry in self.entries):
            notes.append(f"answers cut at the token limit: {truncated}")
        if self.info.stopped:
            notes.append(f"stopped early ({self.info.stopped}), so {self.info.records_left} records are not judged")
        return header, rows, [*notes, *self._unjudged_lines()]

    def _unjudged_lines(self) -> Iterator[str]:
        """Yield the most common reasons for unjudged records, each with some records, and the number of others."""
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
        """Return whether the grader is a language model, whose verdicts need calibration."""
        return any(judgement.details.get("kind") == "llm" for judgement in self.judgements_by(grader))

    def _ran_queries(self, grader: str) -> bool:
        """Return whether the grader compared query results. Only such verdicts can show the errors of an LLM."""
        return any("gold" in judgement.details for judgement in self.judgements_by(grader)) and not self._is_llm(grader)

    def _calibrated(self, judge: str, reference: str) -> Calibration | None:
        pairs = zip(self.verdicts_by(judge), self.verdicts_by(reference), strict=True)
        return calibrate_verdicts(judge, reference, pairs)

    def to_json(self, path: str | Path) -> None:
        """Write the report atomically, with one line for each record. `from_json` reads it back.

        Values that JSON cannot represent are written as text.
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
            JudgingError: the file is missing or is not a report.
        """
        try:
            # The user's own data may be large, but its depth is limited like that of all files.
            content = parse_json(local_path(path, "path").read_bytes(), str(path), lenient=True, max_values=_MAX_VALUES)
            if content["version"] == REPORT_VERSION:
                entries = list(map(_entry, content["entries"]))
                return cls(content["graders"], entries, ReportInfo(**content["info"]))
        except FileNotFoundError as error:
            raise JudgingError(f"{path} does not exist. Give the path of a file that Report.to_json wrote.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SQLQuarryError) as error:
            raise JudgingError(f"{path} is not a report: {error!r}. Give a file that Report.to_json wrote.") from error
        raise JudgingError(f"{path} has report format {content['version']}, not {REPORT_VERSION}. Judge again.")


def _score(judgement: Judgement) -> float | None:
    score = judgement.details.get("score")
    if judgement.verdict == "unjudged" or not isinstance(score, int | float) or isinstance(score, bool):
        return None
    return float(score) if 0 <= score <= 100 else None


def _json(content: object) -> bytes:
    # UTF-8 cannot encode half of an emoji, cut at a token limit. It becomes a JSON escape.
    return json.dumps(storable(content), ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _entry(content: Mapping[str, Any]) -> ReportEntry:
    judgements = [Judgement(**judgement) for judgement in content["judgements"]]
    return ReportEntry(**{**content, "record": Record(**content["record"]), "judgements": judgements})
