"""Turn what drivers return into the five plain types, the same for equal values."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Callable
from decimal import Decimal

from sqlquarry.judging.execution.sandbox_child import EXACT, SentCell

_LONGEST_WHOLE = 140_000  # digits; PostgreSQL has 131,072 at most


def plain_value(value: object) -> SentCell:
    """Return a driver's value as int, float, str, bytes or None, the same for equal values.

    Booleans are 0 and 1. A Decimal is an int if it is whole, else its digits marked as exact (`sandbox_child.EXACT`).
    Dates and times are ISO text, with a blank before the time, in UTC if they have a zone. A time without a zone at
    midnight is its date, for databases call the two equal. Durations are ISO text of days and seconds. Lists, maps and
    JSON are JSON text with sorted keys, in which equal numbers are written alike. Anything else (UUID, network address)
    is its text.
    """
    if value is None or (isinstance(value, _PLAIN) and type(value) in _PLAIN):  # nearly all cells, and no bool
        return value
    convert = next((convert for kind, convert in _CONVERSIONS.items() if isinstance(value, kind)), str)
    return convert(value)


def json_text(value: object) -> str:
    """Return a list, map or parsed JSON as text that is the same for equal values: sorted keys, one way for numbers."""
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
    # The digits of 1e100000 would take longer than the query.
    whole = value.adjusted() < _LONGEST_WHOLE and value == value.to_integral_value()
    return int(value) if whole else (EXACT, str(value))


def _moment(value: dt.datetime) -> str:
    if value.tzinfo is None and value.time() == dt.time():
        return value.date().isoformat()
    return (value if value.tzinfo is None else value.astimezone(dt.UTC)).isoformat(" ")


def _duration(value: dt.timedelta) -> str:
    return f"P{value.days}DT{value.seconds}.{value.microseconds:06}S"


def _digits(value: float | Decimal) -> str:
    """Return a number without exponent and closing zeros; of floats 12 digits, beyond which is the noise of sums."""
    exact = value if isinstance(value, Decimal) else Decimal(f"{value:.12g}")
    text = format(exact, "f") if abs(exact.adjusted()) < _LONGEST_WHOLE else str(exact.normalize())
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_PLAIN = (int, float, str, bytes)
_CONVERSIONS: dict[type, Callable[..., SentCell]] = {
    int: int,  # bool, and what drivers derive from it
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
