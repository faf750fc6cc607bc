"""Run queries on a PostgreSQL server. This module is imported only in child processes of `sandbox`.

The server itself makes sure that a query only reads, in three ways
(https://www.postgresql.org/docs/current/sql-declare.html, protocol-flow.html, sql-set-transaction.html):

- The query runs as ``DECLARE … CURSOR FOR <query>``. This grammar accepts only SELECT, VALUES, TABLE and WITH. It
  refuses SELECT INTO and data-modifying WITH.
- It is sent in the extended protocol, which accepts a single statement.
- It runs in a READ ONLY transaction that is rolled back.

A read-only transaction can still call functions that read the server's files, end other sessions, or use large objects
and dblink. `postgresql_calls` finds such functions and refuses the query before it runs. Accounts that could do the
most harm are refused at once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import errors
from psycopg.adapt import AdaptersMap, Loader, Transformer
from psycopg.types import numeric, string
from psycopg.types.bool import BoolLoader

from sqlquarry.errors import JudgingError
from sqlquarry.execution.engines.answers import collect_rows, shown_url, timeout, unavailable
from sqlquarry.execution.engines.postgresql_calls import CallCheck, in_one_trip, succeeded
from sqlquarry.execution.engines.values import json_text, plain_value
from sqlquarry.execution.sandbox_child import Answer, FailureKind, QuerySettings

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGresult
    from psycopg.rows import TupleRow

_OPEN_SERVERS = 4  # a server has 100 connections by default
CONNECT_TIMEOUT_S = 5
# The bytes of a batch are counted when it is already in memory, so the first batches are small.
_FIRST_BATCH_ROWS, _LARGEST_BATCH_ROWS = 64, 2048
_FETCH = b"FETCH FORWARD %d FROM answer"
# Rights that would let a wrongly allowed function reach the server's files and programs, other sessions or replication,
# or create a role that can. Rights to read more (pg_monitor, BYPASSRLS) and to write tables, which READ ONLY stops, are
# not included. https://www.postgresql.org/docs/current/predefined-roles.html
_RIGHTS = """
    SELECT DISTINCT CASE WHEN rolsuper THEN 'SUPERUSER' WHEN rolcreaterole THEN 'CREATEROLE'
        WHEN rolreplication THEN 'REPLICATION' ELSE rolname END
    FROM pg_roles WHERE (pg_has_role(session_user, oid, 'MEMBER') OR pg_has_role(oid, 'MEMBER'))
        AND (rolsuper OR rolcreaterole OR rolreplication OR rolname IN (
            'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program', 'pg_signal_backend'))
    ORDER BY 1
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
_KINDS: dict[str, FailureKind] = {
    "42703": "no_such_column",
    "42P01": "no_such_table",
    "42601": "syntax",
    "57014": "timeout",
    "25006": "forbidden",
    "42501": "forbidden",
}


class _Server(NamedTuple):
    connection: psycopg.Connection[TupleRow]
    calls: CallCheck


_open: OrderedDict[str, _Server] = OrderedDict()


def run_query(database: str, query: str, settings: QuerySettings) -> Answer:
    """Run one statement and fetch its rows. Every error becomes a failure."""
    deadline = time.monotonic() + settings["time_s"]
    was_open = database in _open
    answer = _answered(database, query, settings, deadline)
    if was_open and answer[1] == "unavailable":  # the server may have closed an idle connection
        answer = _answered(database, query, settings, deadline)
    return answer


def _answered(url: str, query: str, settings: QuerySettings, deadline: float) -> Answer:
    try:
        connection, calls = _server(url, settings)
    except JudgingError as error:
        return "failure", "unavailable", str(error)
    except (psycopg.Error, ValueError) as error:
        return unavailable(url, error)
    try:
        return calls.refuse(query, _milliseconds(deadline)) or _run(connection, query, settings, deadline)
    # NUL and invalid Unicode are a ValueError or psycopg's DataError.
    except (psycopg.Error, ValueError, MemoryError) as error:
        return _explained(connection, url, error, settings)
    finally:
        _rolled_back(url)


def libpq_uri(url: str) -> str:
    """Return SQLAlchemy's URL as libpq accepts it, without the name of the driver."""
    return re.sub(r"^\w+(\+\w+)?://", "postgresql://", url, count=1)


def _server(url: str, settings: QuerySettings) -> _Server:
    if url not in _open:
        while len(_open) >= _OPEN_SERVERS:
            _open.popitem(last=False)[1].connection.close()
        connection = psycopg.connect(
            libpq_uri(url),
            connect_timeout=CONNECT_TIMEOUT_S,
            autocommit=True,
            context=_plain_adapters(),
            prepare_threshold=None,
        )
        try:
            _open[url] = _Server(connection, _set_up(connection, url, settings))
        except BaseException:
            connection.close()
            raise
    _open.move_to_end(url)
    return _open[url]


def _set_up(connection: psycopg.Connection[TupleRow], url: str, settings: QuerySettings) -> CallCheck:
    connection.execute("SET search_path TO pg_catalog")  # excludes users' functions and operators until it is reset
    if not settings["allow_privileged_accounts"]:
        _check_account(connection, url)
    connection.execute("; ".join(f"SET {name} TO '{value}'" for name, value in _SETTINGS.items()).encode())
    for setting in (f"temp_file_limit TO {settings['memory_bytes'] // 1024}", "log_min_messages TO fatal"):  # kB
        # These settings are for superusers and accounts to which they granted them.
        with contextlib.suppress(errors.InsufficientPrivilege):
            connection.execute(f"SET {setting}".encode())
    calls = CallCheck(connection, settings["allow_functions"])
    connection.execute("RESET search_path")
    return calls


def _check_account(connection: psycopg.Connection[TupleRow], url: str) -> None:
    rights = [right for (right,) in connection.execute(_RIGHTS)]
    if rights:
        raise JudgingError(
            f"the account for {shown_url(url)} may do more than read ({', '.join(rights)}), so it cannot run generated "
            "SQL. Use an account that can only read: CREATE ROLE sql_judge LOGIN PASSWORD '…'; GRANT SELECT ON ALL "
            "TABLES IN SCHEMA public TO sql_judge. To accept the risk, pass allow_privileged_accounts=True."
        )


def _run(connection: psycopg.Connection[TupleRow], query: str, settings: QuerySettings, deadline: float) -> Answer:
    pgconn = connection.pgconn
    declare, fetch = b"DECLARE answer NO SCROLL CURSOR FOR " + query.encode(), _FETCH % _FIRST_BATCH_ROWS
    results = in_one_trip(
        pgconn, lambda: pgconn.send_query_params(declare, None), lambda: pgconn.send_query_params(fetch, None)
    )
    *_, first = map(succeeded, results)
    columns = [(first.fname(i) or b"").decode() for i in range(first.nfields)]
    return collect_rows(columns, _batches(connection, first, deadline), settings, deadline)


def _batches(
    connection: psycopg.Connection[TupleRow], result: PGresult, deadline: float
) -> Iterator[Sequence[Sequence[object]]]:
    transformer = Transformer(connection)
    size = _FIRST_BATCH_ROWS
    while result.ntuples:
        transformer.set_pgresult(result)
        yield transformer.load_rows(0, result.ntuples, tuple)
        if result.ntuples < size:
            return
        size = min(2 * size, _LARGEST_BATCH_ROWS)
        succeeded(connection.pgconn.exec_(b"SET LOCAL statement_timeout TO %d" % _milliseconds(deadline)))
        result = succeeded(connection.pgconn.exec_(_FETCH % size))


def _milliseconds(deadline: float) -> int:
    return max(1, int(1000 * (deadline - time.monotonic())))


def _explained(connection: psycopg.Connection[TupleRow], url: str, error: Exception, settings: QuerySettings) -> Answer:
    if not isinstance(error, psycopg.Error) or error.sqlstate is None:
        return unavailable(url, error) if connection.closed else ("failure", "other", _message(error))
    unreachable = error.sqlstate.startswith(("08", "57P")) and error.sqlstate != "08P01"  # SELECT $1
    if connection.closed or unreachable:
        return unavailable(url, error)
    kind = _KINDS.get(error.sqlstate, "other")
    return timeout(settings) if kind == "timeout" else ("failure", kind, _message(error))


def _rolled_back(url: str) -> None:
    connection = _open[url].connection
    try:
        succeeded(connection.pgconn.exec_(b"ROLLBACK"))
    except psycopg.Error:
        connection.close()
    if connection.closed:
        del _open[url]


def _message(error: Exception) -> str:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return primary or (str(error).strip() or type(error).__name__).splitlines()[0]


class _JSONLoader(Loader):
    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        try:
            return json_text(json.loads(text, parse_float=Decimal))
        except (ValueError, ArithmeticError, RecursionError):
            return text


class _IntervalLoader(Loader):
    """A loader for intervals.

    Like PostgreSQL's comparison (timestamp.c, interval_cmp_value), it counts a month as 30 days and a day as 24 hours.
    """

    def load(self, data: Buffer) -> str:
        found = _INTERVAL.fullmatch(bytes(data).decode())
        if found is None:
            return bytes(data).decode()
        part = {name: Decimal(value or 0) for name, value in found.groupdict("0").items() if name != "sign"}
        days = 360 * part["years"] + 30 * part["months"] + part["days"]
        seconds = 3600 * part["hours"] + 60 * part["minutes"] + part["seconds"]
        time_of_day = -seconds if found["sign"] == "-" else seconds
        return str(plain_value(dt.timedelta(days=int(days), microseconds=int(1_000_000 * time_of_day))))


class _CharLoader(Loader):
    """A loader for CHAR(n) that drops trailing blanks, which have no meaning."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode().rstrip(" ")


class _TimestampLoader(Loader):
    """A loader for TIMESTAMP that returns midnight as its date, because the two are equal."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode().removesuffix(" 00:00:00")


def _plain_adapters() -> AdaptersMap:
    """Return adapters that convert numbers, booleans, bytes and JSON.

    All other values stay the server's text, because Python types could lose some of them.
    """
    adapters = AdaptersMap(types=psycopg.adapters.types)
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
