"""Write reports as one self-contained page: no network, light and dark, readable on a phone.

Headline, charts and comparison are plain HTML. The records are data, compressed, that the page's script shows as the
reader asks for them: 1,000 records stay below 1 MB.
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
from sqlquarry.judging.drift import drift
from sqlquarry.judging.report import analysis
from sqlquarry.judging.report.model import Entry, Report
from sqlquarry.judging.report.sql_pieces import Piece, diffed, pieces
from sqlquarry.judging.statistics import p_text
from sqlquarry.judging.storable import storable
from sqlquarry.text import visible

_HERE = Path(__file__).parent
_PAGE_BYTES = 1_000_000
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
    for rows in _SHOWN_ROWS:
        data = _compressed(storable(_data(reports, mistakes, slices, rows), text=visible))
        page = template.render(**shown, data=data).encode("utf-8", errors="backslashreplace")
        if len(page) < _PAGE_BYTES:
            break
    write_atomically(Path(path), page)


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


def _data(
    reports: Mapping[str, Report],
    mistakes: Mapping[str, list[str | None]],
    slices: Mapping[str, Mapping[str, Any]],
    rows: int,
) -> dict[str, Any]:
    """What the script shows: one item per record, schemas once each."""
    first = next(iter(reports.values()))
    schemas: dict[tuple[str, str], int] = {}
    labels: list[dict[str, str]] = [{} for _ in first.entries]
    for name, buckets in slices.items():
        for bucket, item in buckets.items():
            for i in item["places"]:
                labels[i][name] = bucket
    records = []
    for i, entry in enumerate(first.entries):
        record = entry.record
        answers = [report.entries[i] for report in reports.values()]
        # Without a gold query there is nothing to differ from.
        pairs = [diffed(record.sql or answer.sql, answer.sql, record.dialect) for answer in answers]
        records.append(
            {
                "question": record.question,
                "schema": schemas.setdefault((record.schema, record.dialect), len(schemas)),
                "gold": _coded(pairs[-1][0]) if record.sql else [],
                "alternatives": [_coded(pieces(sql, record.dialect)) for sql in record.alternatives],
                "meta": [text for text in (record.id, "database" not in labels[i] and record.database) if text],
                "slices": labels[i],
                "result": _result(answers[-1].judgements, "gold", rows),
                "answers": [
                    _answer(answer, predicted, classes[i], rows)
                    for answer, (_, predicted), classes in zip(answers, pairs, mistakes.values(), strict=True)
                ],
            }
        )
    return {
        "systems": list(reports),
        "graders": first.graders,
        "schemas": [_coded(pieces(schema, dialect)) for schema, dialect in schemas],
        "records": records,
    }


def _answer(entry: Entry, predicted: list[Piece], mistake: str | None, rows: int) -> dict[str, Any]:
    return {
        "sql": _coded(predicted) if entry.sql else [],
        # Most answers are the query and nothing else.
        "whole": "" if entry.answer.strip().rstrip(";").rstrip() == entry.sql.rstrip(";") else entry.answer,
        "cut": entry.truncated,
        "mistake": mistake or "",
        "verdicts": [judgement.verdict for judgement in entry.judgements],
        "reasons": [judgement.reason for judgement in entry.judgements],
        "result": _result(entry.judgements, "predicted", rows),
    }


def _coded(found: list[Piece]) -> list[str]:
    return [piece.coded for piece in found]


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
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # No time stamp: the same report gives the same bytes. Half of an emoji becomes its JSON escape.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), mtime=0)).decode()


def _indented(about: Mapping[str, Any]) -> str:
    return json.dumps(storable(about), indent=2, ensure_ascii=False)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")
