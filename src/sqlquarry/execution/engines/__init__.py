"""Engines, which run one untrusted query on their kind of database, in a child process of `sandbox`.

An engine is a module with the function `run_query(database, sql, settings) -> Answer`, which only reads and obeys the
limits in `settings`. SQLite's engine is `sandbox_child`. The others are in this package. Only `engine_of` and `file_of`
are used outside of a child.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sqlquarry.errors import JudgingError


class DatabaseEngine(NamedTuple):
    """A kind of database and the module that runs its queries.

    Args:
        name: the database's name in messages.
        dialect: sqlglot's name of its SQL dialect.
        module: the engine's module. None is SQLite's engine, which needs only the standard library.
        extra: the extra that must be installed for the engine.
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
# Variables that give credentials, certificates and settings to libpq and other clients, such as HOME for ~/.pgpass
# (https://www.postgresql.org/docs/current/libpq-envars.html). Cloud keys are not among them.
_SERVER_ENVIRONMENT = r"HOME|SSL_CERT_(FILE|DIR)|KRB5\w*"
_CLIENT_ENVIRONMENT = rf"{_SERVER_ENVIRONMENT}|ORACLE_HOME|TNS_ADMIN|NLS_LANG|ODBCINI|ODBCSYSINI|ODBCINSTINI"
POSTGRESQL = DatabaseEngine(
    "PostgreSQL", "postgres", f"{__name__}.postgresql", "postgres", rf"{_SERVER_ENVIRONMENT}|PG(?!P_)\w+"
)
# SQLAlchemy's name of a dialect -> sqlglot's name, if they differ.
_DIALECTS = {"mariadb": "mysql", "mssql": "tsql", "awsathena": "athena"}


@lru_cache(maxsize=1024)  # called for each query
def file_of(database: Path | str) -> Path | None:
    """Return the path of a file, also from ``sqlite:///…`` and ``duckdb:///…``. Return None for a server."""
    scheme, separator, rest = str(database).partition("://")
    if not separator:
        return Path(database)
    is_file = _backend(scheme) in ("sqlite", "duckdb")
    return Path(unquote(rest.partition("?")[0].removeprefix("/"))) if is_file else None


@lru_cache(maxsize=1024)
def engine_of(database: Path | str) -> DatabaseEngine:
    """Return the engine of a file or a server's URL. A file belongs to SQLite unless its suffix or URL says DuckDB.

    The content of the file is not checked, because closing it would release the locks that this process may hold on it
    (https://sqlite.org/howtocorrupt.html, 2.2).

    Raises:
        JudgingError: it is unclear where the password in the URL ends, so messages could reveal it.
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
        raise JudgingError(
            f"a {scheme}:// URL cannot be parsed. Write / # ? @ in user and password as %2F %23 %3F %40."
        )
    if backend in ("postgresql", "postgres"):
        return POSTGRESQL
    return DatabaseEngine(
        backend, _DIALECTS.get(backend, backend), f"{__name__}.sqlalchemy", "judge", _CLIENT_ENVIRONMENT
    )


def _backend(scheme: str) -> str:
    return scheme.partition("+")[0].lower()
