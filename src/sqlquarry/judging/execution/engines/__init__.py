"""Engines: how each kind of database runs one untrusted query, read-only and bounded, in a child of `sandbox`.

An engine is a module with one function, `run_query(database, sql, settings) -> Answer`, that runs in the child.
SQLite's is `sandbox_child`; the others are here. Only `engine_of` and `file_of` are used outside of a child.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sqlquarry.errors import JudgingError


class DatabaseEngine(NamedTuple):
    """Say which module runs a database's queries.

    Args:
        name: for messages.
        dialect: of the SQL it runs, by sqlglot's name.
        module: the engine; None is SQLite's, which needs the standard library only.
        extra: what must be installed for it.
        environment: a regular expression of the environment variables that its driver may read.
    """

    name: str
    dialect: str
    module: str | None = None
    extra: str | None = None
    environment: str = ""


SQLITE = DatabaseEngine("SQLite", "sqlite")
DUCKDB = DatabaseEngine("DuckDB", "duckdb", f"{__name__}.duckdb", "duckdb")
SQLITE_COPY = DatabaseEngine("SQLite", "sqlite", f"{__name__}.sqlite_copy")
# How users give credentials, certificates and settings to libpq and other clients outside of the URL, such as ~/.pgpass
# (https://www.postgresql.org/docs/current/libpq-envars.html). Keys of clouds are left out.
_SERVER_ENVIRONMENT = r"HOME|SSL_CERT_(FILE|DIR)|KRB5\w*"
_CLIENT_ENVIRONMENT = rf"{_SERVER_ENVIRONMENT}|ORACLE_HOME|TNS_ADMIN|NLS_LANG|ODBCINI|ODBCSYSINI|ODBCINSTINI"
POSTGRESQL = DatabaseEngine(
    "PostgreSQL", "postgres", f"{__name__}.postgresql", "postgres", rf"{_SERVER_ENVIRONMENT}|PG(?!P_)\w+"
)
# SQLAlchemy's name -> sqlglot's, where they differ.
_DIALECTS = {"mariadb": "mysql", "mssql": "tsql", "awsathena": "athena"}


@lru_cache(maxsize=1024)  # asked for each query
def file_of(database: Path | str) -> Path | None:
    """Return the path of a file, also if it is given as ``sqlite:///…`` or ``duckdb:///…``; None for a server."""
    scheme, separator, rest = str(database).partition("://")
    if not separator:
        return Path(database)
    is_file = _backend(scheme) in ("sqlite", "duckdb")
    return Path(unquote(rest.partition("?")[0].removeprefix("/"))) if is_file else None


@lru_cache(maxsize=1024)
def engine_of(database: Path | str) -> DatabaseEngine:
    """Return the engine of a file or of a server's URL; a file is SQLite's unless its name or URL says DuckDB.

    A look into the file would tell more, but closing it would end the locks that this process may hold on it
    (https://sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        JudgingError: a URL that could not be kept out of messages: it is not clear where its password ends.
    """
    scheme, separator, _ = str(database).partition("://")
    backend = _backend(scheme) if separator else Path(database).suffix.removeprefix(".").lower()
    if backend == "duckdb":
        return DUCKDB
    if not separator or backend == "sqlite":
        return SQLITE
    try:
        parts = urlsplit(str(database))
        clear = not parts.fragment and (parts.port is None or parts.port > 0)
    except ValueError:
        clear = False
    if not clear:
        raise JudgingError(f"a {scheme}:// URL cannot be read. Write / # ? @ in user and password as %2F %23 %3F %40.")
    if backend in ("postgresql", "postgres"):
        return POSTGRESQL
    return DatabaseEngine(
        backend, _DIALECTS.get(backend, backend), f"{__name__}.sqlalchemy", "judge", _CLIENT_ENVIRONMENT
    )


def _backend(scheme: str) -> str:
    return scheme.partition("+")[0].lower()
