"""Find the databases on which a record's queries run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from sqlquarry.errors import JudgingError
from sqlquarry.execution.engines import engine_of, file_of
from sqlquarry.files.locations import is_s3, local_path
from sqlquarry.records import Record

_SUFFIXES = (".sqlite", ".db", ".sqlite3", ".duckdb")
_PLACEHOLDER = "{database}"


class DatabaseSource(Protocol):
    """An object that provides the databases of a record.

    It may also have these methods:

    - ``details(record)`` returns a JSON-ready mapping that is added to the details of each judgement.
    - ``fingerprint(record)`` returns a text that changes with the content of the databases. Verdicts are not reused
      without it.
    - ``caveat(database)`` returns a reason to doubt a verdict "wrong" that rests on this database's rows, or None.
    """

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path | str]:
        """Return the files or SQLAlchemy URLs on which the record's queries run.

        Raises:
            JudgingError: the record has no database. The message is the reason why it is unjudged.
        """
        ...

    def translate(self, sql: str, record: Record) -> str:
        """Return the query in the dialect of the databases.

        Raises:
            JudgingError: the query cannot be translated. The record is then unjudged.
        """
        ...


class NamedDatabases:
    """Databases that are found by the record's `database`, one per record. Queries run unchanged.

    Args:
        databases: a mapping, a directory or a URL. A mapping contains name -> SQLite or DuckDB file or SQLAlchemy URL.
            A directory contains ``<name>.sqlite`` (also ``.db``, ``.sqlite3``, ``.duckdb``) or
            ``<name>/<name>.sqlite`` as in Spider. In a URL, ``{database}`` is replaced by the name. A URL without it
            is the database of every record.

    Raises:
        JudgingError: the directory or a file of the mapping does not exist, or a URL cannot be parsed.
    """

    def __init__(self, databases: Mapping[str, str | Path] | str | Path) -> None:
        self._named: Mapping[str, Path | str] | None = None
        self._url: str | None = None
        if isinstance(databases, Mapping):
            self._named = dict(databases)
            files = {name: file_of(database) for name, database in databases.items()}
            if missing := [f"{name}: {path}" for name, path in files.items() if path and not path.is_file()]:
                raise JudgingError(f"these database files do not exist: {', '.join(missing)}. Correct their paths.")
            for database in databases.values():
                engine_of(database)  # report an invalid URL now and not for each record
        elif "://" in str(databases) and not is_s3(databases):
            self._url = str(databases)
            engine_of(self._url)
        else:
            self._directory = local_path(databases, "databases")
            if not self._directory.is_dir():
                raise JudgingError(
                    f"{databases} is not a directory. Give the folder with the database files, a mapping or a URL."
                )

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path | str]:  # noqa: ARG002 - the protocol's
        """Return the record's one database.

        Raises:
            JudgingError: the record has no database, or its database does not exist.
        """
        return (self._find(record),)

    def translate(self, sql: str, record: Record) -> str:  # noqa: ARG002 - the protocol's
        """Return the query unchanged."""
        return sql

    def fingerprint(self, record: Record) -> str | None:
        """Return size and modification time of the record's file and its write-ahead log, or None for a server."""
        try:
            path = file_of(self._find(record))
        except JudgingError:
            return None
        files = [path, path.with_name(path.name + "-wal")] if path else []
        states = [file.stat() for file in files if file.is_file()]
        return " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states) or None

    def _find(self, record: Record) -> Path | str:
        name = record.database
        if self._url is not None and _PLACEHOLDER not in self._url:
            return self._url
        if name is None:
            raise JudgingError("the record has no database")
        if self._named is not None:
            if name not in self._named:
                raise JudgingError(f"database {name!r} is not among the {len(self._named)} databases of the mapping")
            return self._named[name]
        if Path(name).name != name:  # the path must stay inside the directory
            raise JudgingError(f"invalid database name {name!r}: it must not contain a path separator")
        if self._url is not None:
            return self._url.replace(_PLACEHOLDER, quote(name, safe=""))
        candidates = (self._directory / folder / (name + suffix) for folder in ("", name) for suffix in _SUFFIXES)
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise JudgingError(f"database {name!r} is not in {self._directory}")
        return found
