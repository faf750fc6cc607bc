"""Write a short Markdown summary of a report for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sqlquarry.files.locations import local_path
from sqlquarry.files.writing import write_atomically
from sqlquarry.judging.report.breakdown import score_slices, slices
from sqlquarry.judging.report.compare import changed_places, compare_reports, compare_slices, require_same_records
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.estimates import Estimate, MeanScore
from sqlquarry.judging.report.significance import ScoreChange, p_text
from sqlquarry.records import noted_question
from sqlquarry.text import as_markdown, visible

_SLICES = 5
_SMALLEST_SLICE = 10  # records, because the interval of fewer spans half of the scale
_EXAMPLES = 5
_LONGEST_SQL = 1000
_MEAN_SCORE, _SCORE_CHANGE = "mean score (95 % interval)", "change of mean score (95 % interval)"


def write_markdown(
    report: Report, path: str | Path, *, title: str = "SQL accuracy", baseline: Report | None = None
) -> None:
    """Atomically write headline, comparison with the baseline, worst slices and up to five examples.

    The examples are records that the baseline answered correctly and this system did not. Without a baseline, they are
    wrong answers.

    Args:
        report: the system's report.
        path: the .md file.
        title: the title of the summary.
        baseline: the report of the system to compare with on the same records.

    Raises:
        JudgingError: the baseline has different records or graders.
    """
    if baseline is not None:
        require_same_records({"baseline": baseline, "this model": report})
    blocks = [f"## {as_markdown(title)}", _headline(report, baseline)]
    if report.info.stopped:
        left = report.info.records_left
        blocks.append(f"**Incomplete:** {left} records are not judged ({as_markdown(report.info.stopped)}).")
    blocks += [*_slices(report, baseline), *_examples(report, baseline)]
    write_atomically(local_path(path, "path"), ("\n\n".join(blocks) + "\n").encode("utf-8", "backslashreplace"))


def _headline(report: Report, baseline: Report | None) -> str:
    rows: list[Sequence[str]] = []
    notes = []
    heads = [(grader, report.headline(grader)) for grader in report.graders]
    is_scored = any(head.mean_score for _, head in heads)
    for grader, head in heads:
        cells = [as_markdown(head.label), _share(head.estimate), _interval(head.estimate), _counts(head.estimate)]
        cells += [_mean(head.mean_score)] if is_scored else []
        if baseline is not None:
            found = compare_reports(baseline, report, grader=grader)
            cells += [
                _share(found.before),
                f"**{100 * found.difference:+.1f}** ({100 * found.low:+.1f} to {100 * found.high:+.1f})",
                f"+{found.fixed} / −{found.broken}",
                p_text(found.p_value).removeprefix("p = "),
            ]
            cells += [_score_points(found.score)] if is_scored else []
        rows.append(cells)
        notes += [f"{as_markdown(head.label)}: {as_markdown(head.note)}."] if head.note else []
    columns = ["grader", "accuracy", "95 % interval", "judged"]
    columns += [_MEAN_SCORE] if is_scored else []
    if baseline is not None:
        columns += ["baseline", "points (95 % interval)", "fixed / broken", "p"]
        columns += [_SCORE_CHANGE] if is_scored else []
        detectable = compare_reports(baseline, report).detectable
        notes.append(
            "The comparison is paired, by the graders' verdicts on the same records, with a bootstrap interval and the "
            f"exact McNemar test. For {as_markdown(report.graders[0])}, the test finds true differences of "
            f"{100 * detectable:.1f} points or more with 80 % power."
        )
    return "\n\n".join([_table(columns, rows), *notes])


def _slices(report: Report, baseline: Report | None) -> Iterator[str]:
    if baseline is not None:
        changes = [c for c in compare_slices(baseline, report) if c.comparison.before.n >= _SMALLEST_SLICE]
        is_scored = any(c.comparison.score for c in changes)
        losses = [c for c in changes if c.comparison.difference < 0]
        rows = [
            [
                as_markdown(f"{c.name}: {c.bucket}"),
                str(c.comparison.before.n),
                _share(c.comparison.before),
                _share(c.comparison.after),
                f"{100 * c.comparison.difference:+.1f}",
                p_text(c.adjusted_p).removeprefix("p = "),
                *([_score_points(c.comparison.score)] if is_scored else []),
            ]
            for c in losses[:_SLICES]
        ]
        if rows:
            yield "### Slices that lost most"
            columns = ["slice", "n", "baseline", "now", "points", "p (Holm)"]
            yield _table([*columns, *([_SCORE_CHANGE] if is_scored else [])], rows)
        return
    shares = [(name, bucket, share) for name, found in slices(report).items() for bucket, share in found.items()]
    worst = sorted((s for s in shares if s[2].n >= _SMALLEST_SLICE), key=lambda item: item[2].value)[:_SLICES]
    means = score_slices(report)
    if worst:
        yield "### Worst slices"
        yield _table(
            ["slice", "accuracy", "95 % interval", "judged", *([_MEAN_SCORE] if means else [])],
            [
                [
                    as_markdown(f"{name}: {bucket}"),
                    _share(share),
                    _interval(share),
                    _counts(share),
                    *([_mean(means.get(name, {}).get(bucket))] if means else []),
                ]
                for name, bucket, share in worst
            ],
        )


def _examples(report: Report, baseline: Report | None) -> Iterator[str]:
    if baseline is not None:
        title = "broken"
        places = changed_places(baseline, report, report.graders[0], was="correct", now="wrong")
    else:
        title = "wrong"
        places = [i for i, verdict in enumerate(report.verdicts_by()) if verdict == "wrong"]
    if not places:
        return
    yield f"<details><summary>{min(len(places), _EXAMPLES)} of {len(places)} records that are {title}</summary>"
    for i in places[:_EXAMPLES]:
        entry = report.entries[i]
        reason = entry.judgements[0].reason
        yield f"**{i + 1}. {as_markdown(noted_question(entry.record))}**" + (
            f" {as_markdown(reason)}" if reason else ""
        )
        yield _code([f"-- gold\n{_cut(entry.record.sql or '')}", f"-- predicted\n{_cut(entry.sql or '-- no SQL')}"])
    yield "</details>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _code(parts: Sequence[str]) -> str:
    """Return a code block with a fence that is longer than any run of backticks in it."""
    text = visible("\n\n".join(parts))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sql\n{text}\n{fence}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SQL else text[:_LONGEST_SQL] + " …"


def _share(share: Estimate) -> str:
    return f"{share.value:.1%}" if share.n else "–"


def _interval(share: Estimate) -> str:
    return f"{share.low:.1%} to {share.high:.1%}"


def _mean(mean: MeanScore | None) -> str:
    return f"{mean.value:.2f} ({mean.low:.1f} to {mean.high:.1f})" if mean else ""


def _score_points(change: ScoreChange | None) -> str:
    return f"{change.difference:+.2f} ({change.low:+.1f} to {change.high:+.1f})" if change else ""


def _counts(share: Estimate) -> str:
    return f"{share.n}" + (f" ({share.unjudged} unjudged)" if share.unjudged else "")
