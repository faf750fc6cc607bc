"""Convert the values that drivers return to plain types, so that equal values become the same."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from decimal import Decimal

from sqlquarry.execution.sandbox_child import EXACT, SentCell

_MOST_INTEGER_DIGITS = 140_000  # PostgreSQL's numbers have at most 131,072


def plain_value(value: object) -> SentCell:
    """Convert a driver's value to int, float, str, bytes or None, so that equal values become the same.

    Booleans become 0 and 1. A Decimal becomes an int if it is an integer, otherwise its digits marked as exact
    (`sandbox_child.EXACT`). Dates and times become ISO text with a blank before the time, in UTC if they have a zone. A
    timestamp at midnight without a zone becomes its date, because databases treat the two as equal. Durations become
    ISO text of days and seconds. Lists, maps and JSON become JSON text with sorted keys and one notation for equal
    numbers. Other values (UUID, network address) become their text.
    """
    if value is None or (isinstance(value, _PLAIN) and type(value) in _PLAIN):  # nearly all cells, but not bool
        return value
    convert = next((convert for kind, convert in _CONVERSIONS.items() if isinstance(value, kind)), str)
    return convert(value)


def json_text(value: object) -> str:
    """Return a list, map or parsed JSON as text with sorted keys and one notation for equal numbers."""
    if isinstance(value, dict):
        items = sorted((str(plain_value(key)), item) for key, item in value.items())
        return "{" + ", ".join(f"{_quoted(key)}: {json_text(item)}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return _digits(value)
    if isinstance(value, int):
        return str(value)
    cell = plain_value(value)
    return _quoted(cell.hex() if isinstance(cell, bytes) else str(cell))


def _number(value: Decimal) -> SentCell:
    if not value.is_finite():
        return float(value)
    # Writing the digits of 1e100000 would take longer than the query.
    whole = value.adjusted() < _MOST_INTEGER_DIGITS and value == value.to_integral_value()
    return int(value) if whole else (EXACT, str(value))


def _moment(value: dt.datetime) -> str:
    if value.tzinfo is None and value.time() == dt.time():
        return value.date().isoformat()
    return (value if value.tzinfo is None else value.astimezone(dt.UTC)).isoformat(" ")


def _duration(value: dt.timedelta) -> str:
    return f"P{value.days}DT{value.seconds}.{value.microseconds:06}S"


def _digits(value: float | Decimal) -> str:
    """Return a number without exponent and trailing zeros. Floats have 12 digits, because sums are not more exact."""
    exact = value if isinstance(value, Decimal) else Decimal(f"{value:.12g}")
    text = format(exact, "f") if abs(exact.adjusted()) < _MOST_INTEGER_DIGITS else str(exact.normalize())
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_PLAIN = (int, float, str, bytes)
_CONVERSIONS: dict[type, Callable[..., SentCell]] = {
    int: int,  # bool, and drivers' subclasses of int
    Decimal: _number,
    dt.datetime: _moment,
    dt.date: dt.date.isoformat,
    dt.time: dt.time.isoformat,
    dt.timedelta: _duration,
    bytearray: bytes,
    memoryview: bytes,
    list: json_text,
    tuple: json_text,
    dict: json_text,
}
