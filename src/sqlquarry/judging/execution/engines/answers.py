"""What all engines share: rows within their limits, values of the five plain types, messages without secrets."""

from __future__ import annotations

import datetime as dt
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlquarry.judging.execution.sandbox_child import EXACT, Answer

BATCH_ROWS = 500
_LONGEST_WHOLE = 140_000  # digits; PostgreSQL has 131,072 at most

# An exact number that is not whole is (EXACT, digits): `marshal` knows no Decimal.
Cell = int | float | str | bytes | tuple[str, str] | None


def plain(value: Any) -> Cell:
    """A driver's value as int, float, str, bytes or None, the same for equal values.

    Booleans are 0 and 1. A Decimal is an int if it is whole, else its digits marked as exact (`sandbox_child.EXACT`).
    Dates and times are ISO text, with a blank before the time, in UTC if they have a zone. A time without a zone at
    midnight is its date, for databases call the two equal. Durations are ISO text of days and seconds. Lists, maps and
    JSON are JSON text with sorted keys, in which equal numbers are written alike. Anything else (UUID, network address)
    is its text.
    """
    if value is None or type(value) in _PLAIN:
        cell: Cell = value
        return cell
    convert = next((convert for kind, convert in _CONVERSIONS.items() if isinstance(value, kind)), str)
    return convert(value)


def _number(value: Decimal) -> Cell:
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


def json_text(value: Any) -> str:
    """A list, map or parsed JSON as text that is the same for equal values: sorted keys, one spelling of numbers."""
    if isinstance(value, dict):
        items = sorted((str(plain(key)), item) for key, item in value.items())
        return "{" + ", ".join(f"{_quoted(key)}: {json_text(item)}" for key, item in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return _digits(value)
    if isinstance(value, int):
        return str(value)
    cell = plain(value)
    return _quoted(cell.hex() if isinstance(cell, bytes) else str(cell))


def _digits(value: float | Decimal) -> str:
    """A number without exponent and closing zeros; of floats 12 digits, beyond which is the noise of sums."""
    exact = value if isinstance(value, Decimal) else Decimal(f"{value:.12g}")
    text = format(exact, "f") if abs(exact.adjusted()) < _LONGEST_WHOLE else str(exact.normalize())
    return text.rstrip("0").rstrip(".") if "." in text else text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


_PLAIN = {int, float, str, bytes}
_CONVERSIONS: dict[type, Callable[[Any], Cell]] = {
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


def fetched(
    columns: Sequence[str], batches: Iterable[Sequence[Sequence[Any]]], limits: Mapping[str, Any], deadline: float
) -> Answer:
    """Take rows in batches until they end or a limit is passed; `deadline` is on the monotonic clock, in seconds."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for batch in batches:
        for row in batch:
            cells = tuple(map(plain, row))
            rows.append(cells)
            lengths = [len(cell) for cell in cells if isinstance(cell, str | bytes)]
            size += 16 * len(cells) + sum(lengths)
            if lengths and max(lengths) > limits["value_bytes_limit"]:
                return "failure", "other", f"a value of more than {limits['value_bytes_limit']:,} bytes"
        if len(rows) > limits["row_limit"]:
            return "failure", "too_many_rows", f"more than {limits['row_limit']:,} rows"
        if size > limits["result_bytes_limit"]:
            return "failure", "too_many_rows", f"more than {limits['result_bytes_limit']:,} bytes of rows"
        if time.monotonic() > deadline:
            return timeout(limits)
    return "rows", tuple(columns), rows


def timeout(limits: Mapping[str, Any]) -> Answer:
    """The query had its time."""
    return "failure", "timeout", f"stopped after {limits['time_limit_s']:g} s"


def forbidden(what: str) -> Answer:
    """The query does more than read."""
    return "failure", "forbidden", f"{what} is not allowed: judging only reads"


def unknown_functions(names: Sequence[str]) -> Answer:
    """The query calls functions of which it is not known whether they only read: it is not to blame for that."""
    names = list(names)
    message = f"{', '.join(names)} is not known to only read, so the query is not run. If it only reads, pass "
    return "failure", "unknown_function", f"{message}allow_functions={names!r}."


def unavailable(url: str, error: Exception) -> Answer:
    """The server cannot be reached: no query is to blame."""
    return "failure", "unavailable", f"{shown_url(url)} does not answer: {without_secrets(error, url)}"


def shown_url(url: str) -> str:
    """A URL for messages: without user, password and options."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def without_secrets(error: Exception, url: str) -> str:
    """An error's first line, in which nothing stands of the URL's password and options."""
    parts = urlsplit(url)
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    secrets = {password, unquote(password), parts.query, *(value for _, value in parse_qsl(parts.query))}
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
