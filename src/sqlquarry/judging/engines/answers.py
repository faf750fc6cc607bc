"""What all engines share: rows within their limits, values of the five plain types, messages without secrets."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlquarry.judging.sandbox_child import Answer

BATCH_ROWS = 500


def plain(value: Any) -> int | float | str | bytes | None:
    """A driver's value as int, float, str, bytes or None, the same for equal values.

    Booleans are 0 and 1. A Decimal is an int where it is whole, whatever its size, else a float. Dates and times are
    ISO text, with a blank before the time, in UTC where they have a zone; durations are ISO text of days and seconds.
    Lists, maps and JSON are JSON text with sorted keys. Anything else (UUID, network address) is its text.
    """
    if value is None or type(value) in _PLAIN:
        cell: int | float | str | bytes | None = value
        return cell
    convert = next((convert for kind, convert in _CONVERSIONS.items() if isinstance(value, kind)), str)
    return convert(value)


def _number(value: Decimal) -> int | float:
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)


def _moment(value: dt.datetime) -> str:
    return (value if value.tzinfo is None else value.astimezone(dt.UTC)).isoformat(" ")


def _duration(value: dt.timedelta) -> str:
    return f"P{value.days}DT{value.seconds}.{value.microseconds:06}S"


def _json(value: Any) -> str:
    return json.dumps(_jsonable(value), sort_keys=True, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(plain(key)): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    value = plain(value)
    return value.hex() if isinstance(value, bytes) else value


_PLAIN = {int, float, str, bytes}
_CONVERSIONS: dict[type, Callable[[Any], int | float | str | bytes]] = {
    int: int,  # bool, and what drivers derive from it
    Decimal: _number,
    dt.datetime: _moment,
    dt.date: dt.date.isoformat,
    dt.time: dt.time.isoformat,
    dt.timedelta: _duration,
    bytearray: bytes,
    memoryview: bytes,
    list: _json,
    tuple: _json,
    dict: _json,
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
