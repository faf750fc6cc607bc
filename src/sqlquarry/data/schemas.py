"""Find the schema of each database: CREATE TABLE text, .sql and SQLite files, tables.json, or directories of them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path

from sqlquarry.data.table_lists import schemas_of_tables
from sqlquarry.errors import ConfigError, DataError, MetadataError, RecordError
from sqlquarry.files.metadata import read_bytes
from sqlquarry.options import did_you_mean

_SQLITE = (".sqlite", ".sqlite3", ".db")
_FORMATS = (".sql", *_SQLITE, ".json")
_CREATE = re.compile(r"\bCREATE\s", re.IGNORECASE)


class Schemas:
    """The schema of each database, read on first use.

    Args:
        entries: returns the name of each database with its schema as text, or the file that contains it.
        place: where the schemas come from, for errors.
        common: the schema of all databases, or the file that contains it. `entries` is not used then.
    """

    def __init__(
        self, entries: Callable[[], Mapping[str, str | Path]], place: str, *, common: str | Path | None = None
    ) -> None:
        self._find, self._place, self._common = entries, place, common
        self._texts: dict[str | None, str] = {}

    @classmethod
    def stated(cls, schema: object) -> Schemas:
        """Parse the argument `schema` of `load_records`.

        Raises:
            ConfigError: it is neither text with a CREATE statement, nor an existing file or directory in a known
                format, nor a mapping of them.
        """
        if isinstance(schema, Mapping):
            entries = {str(name): _text_or_file(value, f"schema[{name!r}]") for name, value in schema.items()}
            return cls(lambda: entries, "schema")
        found = _text_or_file(schema, "schema")
        if isinstance(found, Path) and (found.is_dir() or found.suffix.lower() == ".json"):
            return cls.shipped(*(([], [found]) if found.is_dir() else ([found], [])))
        return cls(dict, "schema", common=found)

    @classmethod
    def shipped(cls, tables: list[Path], directories: list[Path]) -> Schemas:
        """Return the schemas in lists of tables and directories of database files. A database file takes precedence."""

        def entries() -> Mapping[str, str | Path]:
            found: dict[str, str | Path] = {}
            for path in tables:
                found.update(schemas_of_tables(path))
            for path in directories:
                found.update(_files_of(path))
            return found

        return cls(entries, ", ".join(map(str, (*directories, *tables))))

    def of(self, database: str | None) -> str:
        """Return the schema of a database.

        Raises:
            RecordError: no database is given, or it has no schema.
            DataError: a file cannot be read or contains no tables.
        """
        if (text := self._texts.get(database)) is None:
            found = self._common or self._entry(database)
            text = self._texts[database] = found if isinstance(found, str) else _schema_in(found)
        return text

    def _entry(self, database: str | None) -> str | Path:
        if database is None:
            raise RecordError(
                f"has no database, so its schema cannot be found in {self._place}. Pass database= if all rows have the "
                "same one, or columns={'database': …}"
            )
        if not self._entries:
            raise DataError(f"{self._place} has no databases of the form NAME.sqlite or NAME/NAME.sqlite. Check it.")
        if (found := self._entries.get(database)) is None:
            raise RecordError(
                f"the database {database!r:.80} is not among the {len(self._entries)} of {self._place}"
                f"{did_you_mean(database, self._entries)}"
            )
        return found

    @cached_property
    def _entries(self) -> Mapping[str, str | Path]:
        return self._find()


def _text_or_file(value: object, what: str) -> str | Path:
    """Return the text if it contains a CREATE statement, or else the file or directory of this name."""
    if isinstance(value, str) and (_CREATE.search(value) or "\n" in value):
        return value
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ConfigError(
            f"{what} is {value!r:.80}, but must be CREATE TABLE text, a file ({', '.join(_FORMATS)}), a directory of "
            "databases, or a mapping of database names to these."
        )
    try:
        path = Path(value).expanduser()
        if path.is_dir() or (path.is_file() and path.suffix.lower() in _FORMATS):
            return path
        exists = path.exists()
    except (OSError, RuntimeError, ValueError):
        exists = False
    problem = "a file of another format" if exists else "neither CREATE TABLE text nor an existing file or directory"
    raise ConfigError(f"{what} is {str(value)!r:.80}, which is {problem}. Pass text or a file ({', '.join(_FORMATS)}).")


def _files_of(directory: Path) -> dict[str, Path]:
    """Return the database files NAME.sqlite and NAME/NAME.sqlite (or .sql) of a directory, by name."""
    found: dict[str, Path] = {}
    try:
        for entry in sorted(directory.iterdir()):
            files = [entry.with_suffix(suffix) for suffix in (".sql", *_SQLITE)] if entry.is_file() else []
            if entry.is_dir():
                names = (f"{entry.name}{suffix}" for suffix in _SQLITE)
                files = [entry / "schema.sql", *(entry / name for name in names)]
            if existing := [file for file in files if file.is_file()]:
                found[entry.stem if entry.is_file() else entry.name] = existing[-1]
    except OSError as error:
        raise DataError(f"{directory} cannot be read: {error}") from error
    return found


def _schema_in(path: Path) -> str:
    text = _sqlite_schema(path) if path.suffix.lower() in _SQLITE else _sql_text(path)
    if not text.strip():
        raise DataError(f"{path} contains no tables. Get a complete copy, or pass schema=.")
    return text


def _sql_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    except (OSError, MetadataError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _sqlite_schema(path: Path) -> str:
    """Return the CREATE TABLE statements of a SQLite file, in the order of their creation."""
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' ORDER BY rowid"
    try:
        # `immutable` also reads files in directories without write permission, and leaves no -wal and -shm files there.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            statements = [sql for (sql,) in connection.execute(query) if sql]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable SQLite database ({error}). Get a complete copy of it.") from error
    return "\n".join(f"{sql.strip()};" for sql in statements)
