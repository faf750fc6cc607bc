"""Run queries on a PostgreSQL server; imported in a child process of `sandbox` only.

The server itself decides what reads. A query runs as ``DECLARE … CURSOR FOR <query>``, whose grammar takes SELECT,
VALUES, TABLE and WITH only and refuses SELECT INTO and data-modifying WITH; in the extended protocol, which takes one
statement only; in a READ ONLY transaction that is rolled back (https://www.postgresql.org/docs/current/sql-declare.html,
sql-set-transaction.html, protocol-flow.html).

What a read-only transaction still allows is done by functions: reading the server's files, ending other sessions, large
objects, dblink. They are VOLATILE in its catalogue, and no query may hold the name of one, besides a few that are
harmless. The name alone is looked for, also in literals: a call can be written ``('/etc/passwd'::text).pg_read_file``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.types import numeric, string
from psycopg.types.bool import BoolLoader

from sqlquarry.judging.engines.answers import fetched, forbidden, json_text, plain, timeout, unavailable
from sqlquarry.judging.sandbox_child import Answer

_OPEN_SERVERS = 4  # connections are dear to the server, which has 100 by default
_CONNECT_TIMEOUT_S = 5
# A batch is in memory before its bytes are counted, so the first ones are small.
_FIRST_BATCH_ROWS, _LARGEST_BATCH_ROWS = 64, 2048
_HARMLESS = {"random", "setseed", "clock_timestamp", "timeofday", "gen_random_uuid", "uuid_generate_v4"}
# Without the $ that names may have, too: $a$text$a$name is a literal and a name.
_WORD = re.compile(r"[^\W\d]\w*")
_NOTHING = re.compile(r"--[^\n]*|/\*.*?\*/|[\s;]", re.DOTALL)
_ESCAPED_NAME = re.compile(r'u&"', re.IGNORECASE)
# Functions that return triggers and handlers are the server's own to call.
_VOLATILE = """
    SELECT DISTINCT lower(proname::text) FROM pg_catalog.pg_proc JOIN pg_catalog.pg_type t ON t.oid = prorettype
    WHERE provolatile = 'v' AND typname !~ '(trigger|handler)$'
"""
_SETTINGS = {
    "default_transaction_read_only": "on",
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_INTERVAL = re.compile(
    r"(?:(?P<years>-?\d+) years? ?)?(?:(?P<months>-?\d+) mons? ?)?(?:(?P<days>-?\d+) days? ?)?"
    r"(?:(?P<sign>[-+])?(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d+)?))?"
)
_KINDS = {
    "42703": "no_such_column",
    "42P01": "no_such_table",
    "42601": "syntax",
    "57014": "timeout",
    "25006": "forbidden",
    "42501": "forbidden",
}


class _Server(NamedTuple):
    connection: psycopg.Connection[Any]
    volatile: frozenset[str]  # names of functions


_open: OrderedDict[str, _Server] = OrderedDict()


def run_query(database: str, query: str, limits: Mapping[str, Any]) -> Answer:
    """Run one statement and fetch its rows; every trouble is a failure."""
    deadline = time.monotonic() + limits["time_limit_s"]
    was_open = database in _open
    answer = _answered(database, query, limits, deadline)
    if was_open and answer[1] == "unavailable":  # the server may have closed an idle connection
        answer = _answered(database, query, limits, deadline)
    return answer


def _answered(url: str, query: str, limits: Mapping[str, Any], deadline: float) -> Answer:
    try:
        server = _server(url, limits)
    except (psycopg.Error, ValueError) as error:
        return unavailable(url, error)
    if refused := _refused(query, server.volatile):
        return refused
    try:
        return _run(server.connection, query, limits, deadline)
    # NUL and what is not Unicode are a ValueError or psycopg's DataError.
    except (psycopg.Error, ValueError, MemoryError) as error:
        return _explained(server.connection, url, query, error, limits)
    finally:
        _rolled_back(url)


def _refused(query: str, volatile: frozenset[str]) -> Answer | None:
    if not _NOTHING.sub("", query):
        return "failure", "syntax", "no statement"
    if _ESCAPED_NAME.search(query):  # it could spell any function
        return forbidden('a name written as U&"…"')
    text = query.lower()
    named = volatile.intersection(_WORD.findall(text)).union(name for name in volatile if "$" in name and name in text)
    return forbidden(f"function {min(named)}, which may do more than read,") if named else None


def _server(url: str, limits: Mapping[str, Any]) -> _Server:
    if url not in _open:
        while len(_open) >= _OPEN_SERVERS:
            _open.popitem(last=False)[1].connection.close()
        # libpq reads the same URLs as SQLAlchemy, but for the name of the driver.
        uri = re.sub(r"^\w+(\+\w+)?://", "postgresql://", url, count=1)
        connection = psycopg.connect(
            uri, connect_timeout=_CONNECT_TIMEOUT_S, autocommit=True, context=_plain_adapters(), prepare_threshold=None
        )
        connection.execute("; ".join(f"SET {name} TO '{value}'" for name, value in _SETTINGS.items()).encode())
        with contextlib.suppress(errors.InsufficientPrivilege):  # a superuser's setting
            connection.execute(f"SET temp_file_limit TO {limits['memory_bytes_limit'] // 1024}".encode())  # kB
        volatile = frozenset(name for (name,) in connection.execute(_VOLATILE)) - _HARMLESS
        connection.autocommit = False
        connection.read_only = True
        _open[url] = _Server(connection, volatile)
    _open.move_to_end(url)
    return _open[url]


def _run(connection: psycopg.Connection[Any], query: str, limits: Mapping[str, Any], deadline: float) -> Answer:
    _bound_time(connection, deadline)
    # The cursor of a name is the server's; psycopg declares it in the extended protocol.
    with connection.cursor(name="answer", scrollable=False) as cursor:
        cursor.execute(query.encode())
        columns = [column.name for column in cursor.description or ()]
        return fetched(columns, _batches(cursor, deadline), limits, deadline)


def _bound_time(connection: psycopg.Connection[Any], deadline: float) -> None:
    milliseconds = max(1, int(1000 * (deadline - time.monotonic())))
    connection.execute(f"SET LOCAL statement_timeout TO {milliseconds}".encode())


def _batches(cursor: psycopg.ServerCursor[Any], deadline: float) -> Iterator[list[Any]]:
    size = _FIRST_BATCH_ROWS
    while rows := cursor.fetchmany(size):
        yield rows
        if len(rows) < size:
            return
        size = min(2 * size, _LARGEST_BATCH_ROWS)
        _bound_time(cursor.connection, deadline)


def _explained(
    connection: psycopg.Connection[Any], url: str, query: str, error: Exception, limits: Mapping[str, Any]
) -> Answer:
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return unavailable(url, error) if connection.closed else ("failure", "other", _message(error))
    if connection.closed or error.sqlstate.startswith(("08", "57P")):
        return unavailable(url, error)
    kind = _KINDS.get(error.sqlstate, "other")
    if kind == "timeout":
        return timeout(limits)
    if kind == "syntax" or isinstance(error, errors.InvalidCursorDefinition | errors.FeatureNotSupported):
        return _not_a_cursor(connection, query)
    return "failure", kind, _message(error)


def _not_a_cursor(connection: psycopg.Connection[Any], query: str) -> Answer:
    """What cannot be declared as a cursor is parsed by itself, but never run: is it no SQL, or does it not read?"""
    connection.rollback()
    result = connection.pgconn.prepare(b"", query.encode())
    if result.status == ExecStatus.COMMAND_OK:
        return forbidden("a statement that does more than read")
    message = (result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    if "multiple commands" in message:
        return "failure", "forbidden", "more than one statement"
    state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
    return "failure", _KINDS.get(state, "other"), message


def _rolled_back(url: str) -> None:
    connection = _open[url].connection
    try:
        connection.rollback()
    except psycopg.Error:
        connection.close()
    if connection.closed:
        del _open[url]


def _message(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or (str(error).strip() or type(error).__name__).splitlines()[0]


class _JSONLoader(Loader):
    def load(self, data: Any) -> str:
        text = bytes(data).decode()
        try:
            return json_text(json.loads(text, parse_float=Decimal))
        except (ValueError, ArithmeticError, RecursionError):
            return text


class _IntervalLoader(Loader):
    """Intervals as PostgreSQL compares them: a month is 30 days, a day 24 hours (timestamp.c, interval_cmp_value)."""

    def load(self, data: Any) -> str:
        found = _INTERVAL.fullmatch(bytes(data).decode())
        if found is None:
            return bytes(data).decode()
        part = {name: Decimal(value or 0) for name, value in found.groupdict("0").items() if name != "sign"}
        days = 360 * part["years"] + 30 * part["months"] + part["days"]
        seconds = 3600 * part["hours"] + 60 * part["minutes"] + part["seconds"]
        time_of_day = -seconds if found["sign"] == "-" else seconds
        return str(plain(dt.timedelta(days=int(days), microseconds=int(1_000_000 * time_of_day))))


class _CharLoader(Loader):
    """CHAR(n), whose closing blanks mean nothing."""

    def load(self, data: Any) -> str:
        return bytes(data).decode().rstrip(" ")


class _TimestampLoader(Loader):
    """TIMESTAMP, at midnight as its date: the two are equal."""

    def load(self, data: Any) -> str:
        return bytes(data).decode().removesuffix(" 00:00:00")


def _plain_adapters() -> AdaptersMap:
    """Numbers, booleans, bytes and JSON are read; all else stays the server's text, which no Python type cuts short."""
    adapters = AdaptersMap(types=psycopg.adapters.types)
    adapters.register_dumper(int, numeric.IntDumper)  # of psycopg's own FETCH
    adapters.register_loader(0, string.TextLoader)
    for name in ("int2", "int4", "int8"):
        adapters.register_loader(name, numeric.IntLoader)
    for name in ("float4", "float8"):
        adapters.register_loader(name, numeric.FloatLoader)
    adapters.register_loader("numeric", numeric.NumericLoader)
    adapters.register_loader("bool", BoolLoader)
    adapters.register_loader("bytea", string.ByteaLoader)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _JSONLoader)
    adapters.register_loader("interval", _IntervalLoader)
    adapters.register_loader("bpchar", _CharLoader)
    adapters.register_loader("timestamp", _TimestampLoader)
    return adapters
