"""Answers of engines: rows within the limits, or failures whose messages contain no secrets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, unquote, urlsplit

from sqlquarry.execution.engines.values import plain_value
from sqlquarry.execution.sandbox_child import Answer, QuerySettings, SentCell

BATCH_ROWS = 500


def collect_rows(
    columns: Sequence[str], batches: Iterable[Sequence[Sequence[object]]], settings: QuerySettings, deadline: float
) -> Answer:
    """Collect rows in batches until they end or exceed a limit. `deadline` is in seconds of the monotonic clock."""
    rows: list[tuple[SentCell, ...]] = []
    size = 0
    for batch in batches:
        for row in batch:
            cells = tuple(map(plain_value, row))
            rows.append(cells)
            lengths = [len(cell) for cell in cells if isinstance(cell, str | bytes)]
            size += 16 * len(cells) + sum(lengths)
            if lengths and max(lengths) > settings["value_bytes"]:
                return "failure", "other", f"a value of more than {settings['value_bytes']:,} bytes"
        if len(rows) > settings["rows"]:
            return "failure", "too_many_rows", f"more than {settings['rows']:,} rows"
        if size > settings["result_bytes"]:
            return "failure", "too_many_rows", f"more than {settings['result_bytes']:,} bytes of rows"
        if time.monotonic() > deadline:
            return timeout(settings)
    return "rows", tuple(columns), rows


def timeout(settings: QuerySettings) -> Answer:
    """Report that the query exceeded its time limit."""
    return "failure", "timeout", f"stopped after {settings['time_s']:g} s"


def forbidden(what: str) -> Answer:
    """Report that the query does more than read."""
    return "failure", "forbidden", f"{what} is not allowed, because queries may only read"


def unknown_functions(names: Sequence[str]) -> Answer:
    """Report functions that are not known to only read, which is not the fault of the query."""
    names = list(names)
    message = f"the query is not run, because it calls {', '.join(names)}. If these functions only read, pass "
    return "failure", "unknown_function", f"{message}allow_functions={names!r}."


def unavailable(url: str, error: BaseException) -> Answer:
    """Report that the server cannot be reached, which is not the fault of the query."""
    return "failure", "unavailable", f"{shown_url(url)} does not answer: {without_secrets(error, url)}"


def shown_url(url: str) -> str:
    """Return a URL without user, password and options, for messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def without_secrets(error: BaseException, url: str) -> str:
    """Return an error's first line, without the URL's password and options."""
    parts = urlsplit(url)
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    secrets = {password, unquote(password), parts.query, *(value for _, value in parse_qsl(parts.query))}
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
