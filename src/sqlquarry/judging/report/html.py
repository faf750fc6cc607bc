"""Write reports as one self-contained page: no network, light and dark, readable on a phone.

Headline, charts and comparison are plain HTML. The records are compressed data. An index holds what the filters need:
questions, verdicts, error classes and slices. Portions of 500 records hold the rest. The script unpacks a portion when
one of its records is opened or searched, and works out colours and differences in SQL. So 1,000 records stay below
1 MB, and a page of 30,000 opens at once.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import Judgement, Record, write_atomically
from sqlquarry.extras import require
from sqlquarry.files.locations import local_path
from sqlquarry.judging.drift import drift
from sqlquarry.judging.report import analysis
from sqlquarry.judging.report.model import Entry, Report
from sqlquarry.judging.statistics import p_text
from sqlquarry.judging.storable import storable
from sqlquarry.text import visible

_HERE = Path(__file__).parent
_PAGE_BYTES, _RECORD_BYTES = 1_000_000, 1_000  # of data: this much for 1,000 records, and this much for each one more
_PORTION = 500  # records
_SHOWN_ROWS = (10, 3, 0)  # of each result; fewer where the page would be larger
_SHOWN_CHARACTERS = 120


def write_html(
    path: str | Path,
    reports: Mapping[str, Report],
    *,
    title: str = "SQL accuracy",
    group: Callable[[Record], str] | None = None,
) -> None:
    """Write one page that shows one system, or compares several on the same records; atomically.

        write_html("report.html", {"base": base, "tuned": tuned}, group=lambda record: record.database or "")

    Args:
        path: the .html file.
        reports: one per system, by name: the one to compare with first, the one in question last. Their first graders
            give the charts.
        title: the page's heading.
        group: a slice of your own that a record belongs to, beside those of the gold SQL.

    Raises:
        JudgingError: there are no reports, or they are not of the same records and graders.
        MissingExtraError: the extra `judge` is not installed.
    """
    import jinja2

    require("judge", "the HTML report")
    analysis.require_same_records(reports)
    names, main = list(reports), list(reports.values())[-1]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is ours, and stays
    )
    environment.filters |= {"percent": _percent, "points": _points, "p_text": p_text}
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    slices = _slices(reports, group)
    mistakes = {name: analysis.mistake_classes(report) for name, report in reports.items()}
    shown = {
        "title": title,
        "count": len(main.entries),
        "graders": main.graders,
        "systems": [_system(name, report) for name, report in reports.items()],
        "comparison": main.compare(reports[names[0]]) if len(names) > 1 else None,
        "stages": drift(reports).steps if len(names) > 2 else (),
        "slices": {name: buckets for name, buckets in slices.items() if len(buckets) > 1},
        "mistakes": _mistake_counts(mistakes),
        "agreements": analysis.agreements(main),
        "calibrations": [h for h in (analysis.headline(main, grader) for grader in main.graders) if h.calibration],
        "about": [(name, _indented(report.about)) for name, report in reports.items() if report.about],
        "style": (_HERE / "page.css").read_text(encoding="utf-8"),
        "script": script,
        # Only our own script may run, whatever a prediction holds: a second wall behind the escaping.
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }
    template = environment.from_string((_HERE / "page.html.j2").read_text(encoding="utf-8"))
    data = _index(reports, mistakes, slices), *_portions(reports)
    write_atomically(
        local_path(path, "path"),
        template.render(**shown, data=data).encode("utf-8", errors="backslashreplace"),
    )


def _system(name: str, report: Report) -> dict[str, Any]:
    return {
        "name": name,
        "headlines": [analysis.headline(report, grader) for grader in report.graders],
        "truncated": sum(entry.truncated for entry in report.entries),
        "stopped": report.about.get("stopped", ""),
        "left": report.about.get("left", 0),
    }


def _slices(reports: Mapping[str, Report], group: Callable[[Record], str] | None) -> dict[str, dict[str, Any]]:
    """Slice name -> bucket -> its places, and one estimate per system."""
    main = list(reports.values())[-1]
    own = analysis.slice_places(main, {"group": group}) if group else {}
    found = {**own, **analysis.slice_places(main)}
    return {
        name: {
            bucket: {
                "places": places,
                "estimates": [
                    Report(report.graders, tuple(report.entries[i] for i in places)).accuracy()
                    for report in reports.values()
                ],
            }
            for bucket, places in buckets.items()
        }
        for name, buckets in found.items()
    }


def _mistake_counts(mistakes: Mapping[str, list[str | None]]) -> list[tuple[str, list[int]]]:
    """Error class -> how many each system made, the last system's most frequent first."""
    counts = [Counter(filter(None, classes)) for classes in mistakes.values()]
    names = sorted(set().union(*counts), key=lambda name: (-counts[-1][name], name))
    return [(name, [count[name] for count in counts]) for name in names]


def _index(
    reports: Mapping[str, Report], mistakes: Mapping[str, list[str | None]], slices: Mapping[str, Mapping[str, Any]]
) -> str:
    """What the page must know of all records before one is opened: one list a property, in the order of the records."""
    first = next(iter(reports.values()))
    of_slices: dict[str, list[str | None]] = {name: [None] * len(first.entries) for name in slices}
    for name, buckets in slices.items():
        for bucket, item in buckets.items():
            for place in item["places"]:
                of_slices[name][place] = bucket
    return _compressed(
        {
            "systems": list(reports),
            "graders": first.graders,
            "portion": _PORTION,
            "questions": [entry.record.question for entry in first.entries],
            "slices": of_slices,
            "mistakes": list(mistakes.values()),
            # The first letters of the verdicts, by system and grader.
            "verdicts": [
                ["".join(entry.judgements[i].verdict[0] for entry in report.entries) for i in range(len(first.graders))]
                for report in reports.values()
            ],
        }
    )


def _portions(reports: Mapping[str, Report]) -> list[str]:
    """The rest of the records, some at a time, with as many rows of results as the page has room for."""
    count = len(next(iter(reports.values())).entries)
    limit = max(_PAGE_BYTES, _RECORD_BYTES * count)
    portions: list[str] = []
    for rows in _SHOWN_ROWS:
        portions = []
        for start in range(0, count, _PORTION):
            portions.append(_compressed(_portion(reports, slice(start, start + _PORTION), rows)))
            size = sum(map(len, portions))
            # A portion tells what all will take.
            if rows and size * count > limit * min(count, start + _PORTION):
                break
        else:
            break
    return portions


def _portion(reports: Mapping[str, Report], places: slice, rows: int) -> dict[str, Any]:
    """What is shown of these records when they are opened; schemas once each."""
    schemas: dict[str, int] = {}
    records = []
    for answers in zip(*(report.entries[places] for report in reports.values()), strict=True):
        record = answers[0].record
        records.append(
            {
                "schema": schemas.setdefault(record.schema, len(schemas)),
                "gold": record.sql or "",
                "alternatives": record.alternatives,
                "meta": [text for text in (record.id, record.database) if text],
                "result": _result(answers[-1].judgements, "gold", rows),
                "answers": [_answer(answer, rows) for answer in answers],
            }
        )
    return {"schemas": list(schemas), "records": records}


def _answer(entry: Entry, rows: int) -> dict[str, Any]:
    return {
        "sql": entry.sql,
        # Most answers are the query and nothing else.
        "whole": "" if entry.answer.strip().rstrip(";").rstrip() == entry.sql.rstrip(";") else entry.answer,
        "cut": entry.truncated,
        "reasons": [judgement.reason for judgement in entry.judgements],
        "result": _result(entry.judgements, "predicted", rows),
    }


def _result(judgements: tuple[Judgement, ...], side: str, rows: int) -> dict[str, Any] | None:
    """What a query returned, where a grader ran it."""
    for judgement in judgements:
        outcome = judgement.details.get(side)
        if isinstance(outcome, Mapping) and isinstance(outcome.get("rows"), list | tuple):
            shown = [[_cell(value) for value in row] for row in outcome["rows"][:rows]]
            return {
                "columns": list(outcome.get("columns", ())),
                "rows": shown,
                "count": outcome.get("count", len(shown)),
            }
        if isinstance(outcome, Mapping) and "error" in outcome:
            return {"error": str(outcome["error"]), "message": str(outcome.get("message", ""))}
    return None


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _compressed(data: Mapping[str, Any]) -> str:
    text = json.dumps(storable(data, text=visible), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # No time stamp: the same report gives the same bytes. Half of an emoji becomes its JSON escape.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), 6, mtime=0)).decode()


def _indented(about: Mapping[str, Any]) -> str:
    return json.dumps(storable(about), indent=2, ensure_ascii=False)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
