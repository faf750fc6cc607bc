"""Compress the records of the HTML page, whose script unpacks them.

An index contains the data for the filters: questions, verdicts, error classes and slices. Portions of 500 records
contain the rest. A portion is unpacked when one of its records is opened or searched. So 1,000 records take less than
1 MB, and a page with 30,000 records opens at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlquarry.answers import Judgement
from sqlquarry.judging.report.data import Report, ReportEntry
from sqlquarry.judging.storable import storable
from sqlquarry.pages import packed
from sqlquarry.records import noted_question
from sqlquarry.text import visible

_PAGE_BYTES, _RECORD_BYTES = 1_000_000, 1_000  # limits of the data for up to 1,000 records, and for each further record
_PORTION = 500  # records
_SHOWN_ROWS = (10, 3, 0)  # of each result, with fewer rows if the page gets too large
_SHOWN_CHARACTERS = 120


def index_data(
    reports: Mapping[str, Report],
    mistakes: Mapping[str, Sequence[str | None]],
    slices: Mapping[str, Sequence[str | None]],
) -> str:
    """Return the data of all records that the page needs before one of them is opened.

    Args:
        reports: system -> report.
        mistakes: system -> error class of each record.
        slices: slice name -> bucket of each record.
    """
    first = next(iter(reports.values()))
    return _compressed(
        {
            "systems": list(reports),
            "graders": first.graders,
            "portion": _PORTION,
            "questions": [noted_question(entry.record) for entry in first.entries],
            "slices": slices,
            "mistakes": list(mistakes.values()),
            # The first letter of each verdict, by system and grader.
            "verdicts": [
                ["".join(entry.judgements[i].verdict[0] for entry in report.entries) for i in range(len(first.graders))]
                for report in reports.values()
            ],
        }
    )


def portion_data(reports: Mapping[str, Report]) -> list[str]:
    """Return the rest of the records in portions, with as many rows of results as fit on the page."""
    count = len(next(iter(reports.values())).entries)
    limit = max(_PAGE_BYTES, _RECORD_BYTES * count)
    portions: list[str] = []
    for rows in _SHOWN_ROWS:
        portions = []
        for start in range(0, count, _PORTION):
            portions.append(_compressed(_portion(reports, slice(start, start + _PORTION), rows)))
            size = sum(map(len, portions))
            # The first portions predict the size of all.
            if rows and size * count > limit * min(count, start + _PORTION):
                break
        else:
            break
    return portions


def _portion(reports: Mapping[str, Report], places: slice, rows: int) -> dict[str, object]:
    """Return the data of some records for when they are opened, with each schema once."""
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


def _answer(entry: ReportEntry, rows: int) -> dict[str, object]:
    return {
        "sql": entry.sql,
        # Most answers are only the query.
        "whole": "" if entry.answer.strip().rstrip(";").rstrip() == entry.sql.rstrip(";") else entry.answer,
        "cut": entry.truncated,
        "reasons": [judgement.reason for judgement in entry.judgements],
        "result": _result(entry.judgements, "predicted", rows),
    }


def _result(judgements: Sequence[Judgement], side: str, rows: int) -> dict[str, object] | None:
    """Return the result of a query, or None if no grader ran it."""
    for judgement in judgements:
        outcome = judgement.details.get(side)
        if not isinstance(outcome, Mapping):
            continue
        if isinstance(outcome.get("rows"), list | tuple):
            shown = [[_cell(value) for value in row] for row in outcome["rows"][:rows]]
            columns = list(outcome.get("columns", ()))
            return {"columns": columns, "rows": shown, "count": outcome.get("count", len(shown))}
        if "error" in outcome:
            return {"error": str(outcome["error"]), "message": str(outcome.get("message", ""))}
    return None


def _cell(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _compressed(data: Mapping[str, object]) -> str:
    return packed(storable(data, text=visible))
