"""Write reports as one self-contained HTML page that needs no network, has a dark mode and fits on a phone.

Headline, charts and comparison are plain HTML. The records are compressed data (see `page_data`). The page's script
unpacks, colors and compares them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from sqlquarry.extras import require
from sqlquarry.files.locations import local_path
from sqlquarry.files.writing import write_atomically
from sqlquarry.judging.report.breakdown import mistake_classes, slice_places
from sqlquarry.judging.report.compare import compare_reports, require_same_records
from sqlquarry.judging.report.data import Headline, Report, ReportInfo
from sqlquarry.judging.report.estimates import Estimate
from sqlquarry.judging.report.graders import grader_agreements
from sqlquarry.judging.report.page_data import index_data, portion_data
from sqlquarry.judging.report.significance import p_text
from sqlquarry.judging.report.stages import compare_stages
from sqlquarry.judging.storable import storable
from sqlquarry.pages import render_page
from sqlquarry.records import Record

_ONLY_SYSTEM = "this model"


class _System(NamedTuple):
    """The data of one system for the head of the page."""

    name: str
    headlines: Sequence[Headline]
    truncated: int
    info: ReportInfo


class _Slice(NamedTuple):
    """The positions of a slice's records, and one estimate and one mean of the scores per system."""

    places: Sequence[int]
    estimates: Sequence[Estimate]
    means: Sequence[float | None]


def write_html(
    report: Report | Mapping[str, Report],
    path: str | Path,
    *,
    title: str = "SQL accuracy",
    group_by: Callable[[Record], str] | None = None,
) -> None:
    """Atomically write a page that shows one system or compares several systems on the same records.

        write_html({"base": base, "tuned": tuned}, "report.html", group_by=lambda record: record.database or "")

    Args:
        report: one report, or system name -> report, with the system to compare with first and the one in question
            last. The charts show the verdicts of the first grader.
        path: the .html file.
        title: the title of the page.
        group_by: returns your own slice of a record, which is shown before the slices of the gold SQL.

    Raises:
        JudgingError: there are no reports, or they have different records or graders.
        MissingExtraError: the extra `judge` is not installed.
    """
    require("judge", "the HTML report")
    reports = {_ONLY_SYSTEM: report} if isinstance(report, Report) else dict(report)
    require_same_records(reports)
    slices = _slices(reports, group_by)
    mistakes = {name: mistake_classes(one) for name, one in reports.items()}
    page = render_page(
        Path(__file__).parent,
        {
            **_head(reports),
            "slices": {name: buckets for name, buckets in slices.items() if len(buckets) > 1},
            "mistakes": _mistake_counts(mistakes),
        },
        title=title,
        data=(index_data(reports, mistakes, _buckets_by_place(slices, reports)), *portion_data(reports)),
        filters={"percent": _percent, "points": _points, "p_text": p_text, "signed": _signed},
    )
    write_atomically(local_path(path, "path"), page)


def _head(reports: Mapping[str, Report]) -> dict[str, object]:
    """Return the variables of the template for the parts before and after the charts."""
    systems = list(reports.values())
    first, main = systems[0], systems[-1]
    return {
        "count": len(main.entries),
        "graders": main.graders,
        "systems": [_system(name, report) for name, report in reports.items()],
        "comparison": compare_reports(first, main) if len(reports) > 1 else None,
        "stages": compare_stages(reports).steps if len(reports) > 2 else (),
        "agreements": grader_agreements(main),
        "calibrations": [head for head in map(main.headline, main.graders) if head.calibration],
        "infos": [(name, _indented(one.info)) for name, one in reports.items() if one.info != ReportInfo()],
    }


def _system(name: str, report: Report) -> _System:
    headlines = [report.headline(grader) for grader in report.graders]
    return _System(name, headlines, sum(entry.truncated for entry in report.entries), report.info)


def _slices(reports: Mapping[str, Report], group_by: Callable[[Record], str] | None) -> dict[str, dict[str, _Slice]]:
    """Return slice name -> bucket -> positions of its records and one estimate per system."""
    main = list(reports.values())[-1]
    own = slice_places(main, {"group": group_by}) if group_by else {}
    found = {**own, **slice_places(main, "auto")}
    return {
        name: {bucket: _slice(reports, places) for bucket, places in buckets.items()} for name, buckets in found.items()
    }


def _slice(reports: Mapping[str, Report], places: Sequence[int]) -> _Slice:
    parts = [Report(one.graders, [one.entries[i] for i in places]) for one in reports.values()]
    return _Slice(places, [part.accuracy() for part in parts], [_mean(part.scores_by()) for part in parts])


def _mean(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return fmean(known) if known else None


def _buckets_by_place(
    slices: Mapping[str, Mapping[str, _Slice]], reports: Mapping[str, Report]
) -> dict[str, list[str | None]]:
    """Return slice name -> bucket of each record, or None if the record is not in the slice."""
    count = len(next(iter(reports.values())).entries)
    found: dict[str, list[str | None]] = {name: [None] * count for name in slices}
    for name, buckets in slices.items():
        for bucket, item in buckets.items():
            for place in item.places:
                found[name][place] = bucket
    return found


def _mistake_counts(mistakes: Mapping[str, list[str | None]]) -> list[tuple[str, list[int]]]:
    """Return error class -> count by system, sorted by the counts of the last system."""
    counts = [Counter(filter(None, classes)) for classes in mistakes.values()]
    names = sorted(set().union(*counts), key=lambda name: (-counts[-1][name], name))
    return [(name, [count[name] for count in counts]) for name in names]


def _indented(info: ReportInfo) -> str:
    return json.dumps(storable(info), indent=2, ensure_ascii=False)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return _signed(100 * share)


def _signed(points: float, digits: int = 1) -> str:
    return f"{points:+.{digits}f}".replace("-", "−")
