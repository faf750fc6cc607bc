"""Shorten results for a report to their first rows or their error, ready for JSON."""

from __future__ import annotations

from sqlquarry.execution.sandbox import Failure, Rows
from sqlquarry.judging.execution.gold import GoldResult
from sqlquarry.judging.storable import JSON, storable

_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 200


def gold_details(gold: GoldResult) -> dict[str, JSON]:
    """Return the part of a judgement's details that describes a gold result."""
    return {"ordered": gold.ordered, "gold": result_details(gold.result)}


def result_details(result: Rows | Failure) -> dict[str, JSON]:
    """Return the first rows of a result, or the error of a failure."""
    if isinstance(result, Failure):
        return {"error": result.kind, "message": result.message}
    rows: list[JSON] = [[_cell(cell) for cell in row] for row in result.rows[:_SHOWN_ROWS]]
    return {"columns": [_cell(name) for name in result.columns], "rows": rows, "count": len(result.rows)}


def _cell(cell: object) -> JSON:
    if cell is None or (type(cell) is str and len(cell) <= _SHOWN_CHARACTERS):  # most cells
        return cell
    if isinstance(cell, str | bytes) and len(cell) > _SHOWN_CHARACTERS:
        return f"{storable(cell[:_SHOWN_CHARACTERS])}…"
    return storable(cell)
