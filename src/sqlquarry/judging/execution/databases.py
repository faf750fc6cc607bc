"""Find the databases on which a record's queries run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from sqlquarry.errors import JudgingError
from sqlquarry.files.locations import is_s3, local_path
from sqlquarry.judging.execution.engines import engine_of, file_of
from sqlquarry.records import Record

_SUFFIXES = (".sqlite", ".db", ".sqlite3", ".duckdb")
_PLACEHOLDER = "{database}"


class DatabaseSource(Protocol):
    """Anything that knows where a record's queries run.

    Optional: ``details(record)``, a mapping ready for JSON that is shown with each judgement; ``fingerprint(record)``,
    a text that changes with what the databases hold, without which verdicts are not reused; ``caveat(database)``, what
    a reader should know of a verdict "wrong" that rests on this database's rows, or None.
    """

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path | str]:
        """Files or SQLAlchemy URLs on which the record's queries run.

        Raises:
            JudgingError: there is none, and why; the record is then unjudged.
        """
        ...

    def translate(self, sql: str, record: Record) -> str:
        """Return the text of a query that runs there.

        Raises:
            JudgingError: it cannot be said there; the record is then unjudged.
        """
        ...


class NamedDatabases:
    """Find one database per record by the record's `database`; queries run as they are.

    Args:
        databases: name -> SQLite or DuckDB file or SQLAlchemy URL; or a directory that holds ``<name>.sqlite`` (also
            ``.db``, ``.sqlite3``, ``.duckdb``) or ``<name>/<name>.sqlite`` as Spider does; or one URL, in which
            ``{database}`` is replaced by the name; a URL without it is the database of every record.

    Raises:
        JudgingError: the directory, or files of the mapping, do not exist, or a URL cannot be read.
    """

    def __init__(self, databases: Mapping[str, str | Path] | str | Path) -> None:
        self._named: Mapping[str, Path | str] | None = None
        self._url: str | None = None
        if isinstance(databases, Mapping):
            self._named = dict(databases)
            files = {name: file_of(database) for name, database in databases.items()}
            if missing := [f"{name}: {path}" for name, path in files.items() if path and not path.is_file()]:
                raise JudgingError(f"these databases are not files: {', '.join(missing)}. Correct their paths.")
            for database in databases.values():
                engine_of(database)  # a URL that cannot be read is an error at once
        elif "://" in str(databases) and not is_s3(databases):
            self._url = str(databases)
            engine_of(self._url)
        else:
            self._directory = local_path(databases, "databases")
            if not self._directory.is_dir():
                raise JudgingError(
                    f"{databases} is not a directory. Give the folder of the database files, a mapping, or a URL."
                )

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path | str]:  # noqa: ARG002 - the protocol's
        """Return the record's one database.

        Raises:
            JudgingError: the record names none, or one that is not there.
        """
        return (self._find(record),)

    def translate(self, sql: str, record: Record) -> str:  # noqa: ARG002 - the protocol's
        """Return the query as it is."""
        return sql

    def fingerprint(self, record: Record) -> str | None:
        """Size and time of change of the record's file and its write-ahead log; None for a server."""
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
                raise JudgingError(f"database {name!r} is not among the {len(self._named)} given")
            return self._named[name]
        if Path(name).name != name:  # it must not lead out of the directory
            raise JudgingError(f"{name!r} is not a name for a database")
        if self._url is not None:
            return self._url.replace(_PLACEHOLDER, quote(name, safe=""))
        candidates = (self._directory / folder / (name + suffix) for folder in ("", name) for suffix in _SUFFIXES)
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise JudgingError(f"database {name!r} is not among {self._directory}")
        return found
