"""Read the schema and sample values of a live database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

from sqlquarry.data.database.budget import token_counter, within_budget
from sqlquarry.data.database.duckdb_catalog import read_duckdb
from sqlquarry.data.database.reader import Reader
from sqlquarry.data.database.rendering import SchemaStyle, schema_text
from sqlquarry.data.database.sampling import with_values
from sqlquarry.data.database.server_catalog import read_server
from sqlquarry.data.database.sqlite_catalog import read_sqlite
from sqlquarry.data.database.tables import Catalog, DatabaseTable
from sqlquarry.data.database.text_values import text_values
from sqlquarry.data.database.value_index import MatchedValue, ValueIndex, with_matches
from sqlquarry.dialects import dialect_name
from sqlquarry.errors import ConfigError, DatabaseError, JudgingError
from sqlquarry.execution.databases import NamedDatabases
from sqlquarry.execution.engines import engine_of, file_of
from sqlquarry.execution.limits import DEFAULT_LIMITS, ExecutionLimits, Permissions
from sqlquarry.execution.sandbox import Failure, Rows, Sandbox
from sqlquarry.extras import require
from sqlquarry.files.locations import is_s3, local_path
from sqlquarry.options import check_options, did_you_mean
from sqlquarry.records import Record
from sqlquarry.tokenizing.tokenizer import Tokenizer

_MOST_VALUES = 10  # of a column whose values `values=True` writes
_MOST_MATCHES = 8  # values that a question mentions


@check_options()
class Database:
    """A live database: its tables, their text for prompts, and records about it.

    The structure is read at once. Values are read from samples when they are first needed. All reading is read-only, in
    separate processes that can be killed, and limited in time. The object contains the URL with its password, but no
    text that it returns or raises does.

    Args:
        database: an SQLite or DuckDB file (``*.duckdb``), or an SQLAlchemy URL such as ``postgresql://user@host/shop``.
        schema_names: schemas (namespaces) to read. None is the default schema.
        tables: the tables and views to keep, by their names in `tables`. None keeps all.
        personal: also read values that look personal, such as names of people and e-mail addresses.
        limits: limits of each query.
        reading_time_s: seconds in which all values must be read. Tables that are not read by then have no values.
        name: the name of the database in records. None is the name in the file or URL.
        allow_functions: functions that queries of `run` may call. See `ExecutionGrader`.
        allow_privileged_accounts: run queries of `run` with an account that may do more than read.
        allow_unchecked_servers: run queries of `run` on servers that do not report what a query does.

    Raises:
        DatabaseError: the database cannot be read, or has no tables. The message contains the reason.
        ConfigError: an option is invalid, or a table of `tables` does not exist.
        MissingExtraError: the extra for this kind of database is not installed.
    """

    def __init__(
        self,
        database: str | Path,
        *,
        schema_names: Sequence[str] | None = None,
        tables: Sequence[str] | None = None,
        personal: bool = False,
        limits: ExecutionLimits = DEFAULT_LIMITS,
        reading_time_s: float = 60.0,
        name: str | None = None,
        allow_functions: Sequence[str] = (),
        allow_privileged_accounts: bool = False,
        allow_unchecked_servers: bool = False,
    ) -> None:
        if is_s3(database):
            local_path(database, "the database")  # refuses it
        try:
            engine, path = engine_of(database), file_of(database)
        except JudgingError as error:
            raise DatabaseError(str(error)) from None
        if path is not None and not path.is_file():
            raise DatabaseError(f"the database file {path} does not exist. Correct its path.")
        if path is None:
            require("judge", f"Database on {engine.name}")
        self._location: Path | str = path or str(database)
        self._personal = personal
        self.dialect = dialect_name(engine.dialect)
        self.name = name or (path.stem if path else _name_in(str(database)) or engine.name)
        self._sandbox = Sandbox(
            limits,
            Permissions(
                allow_functions=allow_functions,
                allow_privileged_accounts=allow_privileged_accounts,
                allow_unchecked_servers=allow_unchecked_servers,
            ),
        )
        if reading_time_s <= 0:
            raise ConfigError(f"reading_time_s is {reading_time_s!r}, but must be above 0")
        self._reader = Reader(self._location, limits, time_s=reading_time_s)
        self._catalog = self._kept(self._read_catalog(schema_names), tables)
        self._sampled: Catalog | None = None
        self._index: tuple[str | None, ValueIndex] | None = None

    def __repr__(self) -> str:
        return f"<Database {self.name!r} ({self.dialect}): {len(self._catalog.tables)} tables>"

    @property
    def tables(self) -> Mapping[str, DatabaseTable]:
        """Tables and views by name, with the values of their columns. The first use reads the values."""
        return self._with_values.tables

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read, and why."""
        return (self._sampled or self._catalog).notes

    def schema_text(
        self,
        *,
        keys: bool = True,
        comments: bool = True,
        values: bool | int = False,
        examples: int = 0,
        tables: Sequence[str] | None = None,
        question: str | None = None,
        max_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> str:
        """Return the CREATE TABLE statements of the tables, one per line. The same database has the same text.

        Args:
            keys: write primary and foreign keys. A foreign key to a table that is left out is left out, too.
            comments: write the comments in the database as SQL comments.
            values: write the values of columns with few distinct ones as SQL comments, such as ``/* 'M', 'F' */``. A
                number is the maximum of such values. True is 10.
            examples: number of example values of other columns, as SQL comments.
            tables: the tables to write, by their names in `tables`. None writes all.
            question: with `values`, also write the values that this question mentions, at their columns. With
                `max_tokens`, keep what matters for this question.
            max_tokens: the maximum of tokens. If the text has more, types and keys of several columns are left out
                first, then the columns that matter least, and last tables. Tables that connect kept ones are kept.
            tokenizer: counts the tokens. None estimates them as a third of the characters.

        Raises:
            ConfigError: a table does not exist, `max_tokens` is given without a question, or no column fits.
        """
        if max_tokens is not None and question is None:
            raise ConfigError(f"max_tokens is {max_tokens!r}, but no question is given. Give the question, too.")
        most = _MOST_VALUES if values is True else int(values)
        catalog = self._with_values if most or examples else self._catalog
        kept = list(self._kept(catalog, tables).tables.values())
        matches = self.values_for(question) if question is not None and (most or max_tokens) else ()
        if matches and most:
            kept = with_matches(kept, matches, examples)
            examples += _MOST_MATCHES
        style = SchemaStyle(keys=keys, comments=comments, most_values=most, examples=examples)
        if question is not None and max_tokens is not None:
            size = token_counter(tokenizer)
            kept = within_budget(
                kept, question, matches, lambda some: size(schema_text(some, self.dialect, style)), max_tokens
            )
            if not kept:
                raise ConfigError(f"max_tokens is {max_tokens!r}, but not even one column of {self.name} fits")
        return schema_text(kept, self.dialect, style)

    def values_for(self, question: str, *, most: int = _MOST_MATCHES) -> tuple[MatchedValue, ...]:
        """Return the texts in the database that a question mentions, the surest first.

        A value matches in any case, with or without a plural ending, by a specific part of it, or as a name with one
        misspelled letter. The first call reads the texts of all columns, within `reading_time_s`. They are read again
        if the file changes. At most 20,000 values of a column and 200,000 in all are read, and tables with more than
        1,000,000 rows are sampled. Columns that look personal are left out unless `personal` is set.

        Args:
            question: the question.
            most: the maximum of values.
        """
        state = self.fingerprint(Record(question, "-", database=self.name))
        if self._index is None or self._index[0] != state:
            tables = self._with_values.tables
            values = text_values(self._reader, tables, self.dialect, personal=self._personal)
            self._index = state, ValueIndex(values)
        return self._index[1].find(question, most=most)

    def record(
        self,
        question: str,
        sql: str | None = None,
        *,
        schema: str | None = None,
        values: bool = False,
        max_tokens: int | None = None,
        tokenizer: Tokenizer | None = None,
        id: str | None = None,  # noqa: A002 - the field of Record
        alternatives: Sequence[str] = (),
        notes: str = "",
    ) -> Record:
        """Return a record about this database.

        Args:
            question: the question.
            sql: the gold query if it is known.
            schema: the text of the schema. None is `schema_text()`.
            values: write values into `schema_text()`: those of columns with few distinct ones, and those that the
                question mentions.
            max_tokens: the maximum of tokens of `schema_text()`. See there.
            tokenizer: counts the tokens. None estimates them.
            id: name of the record in reports.
            alternatives: other gold queries.
            notes: what the question needs beside the schema.

        Raises:
            RecordError: a text is blank.
            ConfigError: `max_tokens` is too small for one column.
        """
        if schema is None:
            schema = self.schema_text(values=values, question=question, max_tokens=max_tokens, tokenizer=tokenizer)
        return Record(
            question=question,
            schema=schema,
            sql=sql,
            database=self.name,
            dialect=self.dialect,
            id=id,
            alternatives=alternatives,
            notes=notes,
        )

    def run(self, sql: str) -> Rows:
        """Run one query, read-only and limited.

        Raises:
            DatabaseError: the query fails. Its `kind` is the kind of failure, such as "timeout" or "no_such_column".
        """
        found = self._sandbox.run(self._location, sql)
        if isinstance(found, Failure):
            raise DatabaseError(f"the query on {self.name} fails ({found.kind}): {found.message}", kind=found.kind)
        return found

    def close(self) -> None:
        """End the processes that have the database open. A later call starts new ones."""
        self._reader.close()
        self._sandbox.close()

    def databases_for(self, record: Record, predicted_sql: str) -> Sequence[Path | str]:  # noqa: ARG002 - the protocol's
        """Return the location of this database, so that graders accept this object as `databases`.

        Raises:
            JudgingError: the record is about another database.
        """
        if record.database not in (None, self.name):
            raise JudgingError(f"the record is about the database {record.database!r}, but this is {self.name!r}")
        return (self._location,)

    def translate(self, sql: str, record: Record) -> str:  # noqa: ARG002 - the protocol's
        """Return the query unchanged."""
        return sql

    def fingerprint(self, record: Record) -> str | None:
        """Return a text that changes with the file, or None for a server."""
        return NamedDatabases({self.name: self._location}).fingerprint(record)

    @property
    def _with_values(self) -> Catalog:
        if self._sampled is None:
            self._sampled = with_values(self._reader, self._catalog, self.dialect, personal=self._personal)
        return self._sampled

    def _read_catalog(self, schema_names: Sequence[str] | None) -> Catalog:
        match self.dialect:
            case "sqlite":
                if schema_names is not None:
                    raise ConfigError(f"schema_names is {schema_names!r}, but SQLite has no schemas. Leave it out.")
                found = read_sqlite(self._reader)
            case "duckdb":
                found = read_duckdb(self._reader, schema_names)
            case _:
                found = read_server(self._reader, schema_names)
        if isinstance(found, Failure):
            raise DatabaseError(f"the database {self.name} cannot be read: {found.message}", kind=found.kind)
        if not found.tables:
            reasons = "".join(f"; {note}" for note in found.notes)
            raise DatabaseError(f"the database {self.name} has no table or view that can be read{reasons}")
        return found

    def _kept(self, catalog: Catalog, names: Sequence[str] | None) -> Catalog:
        if names is None:
            return catalog
        for name in names:
            if name not in catalog.tables:
                raise ConfigError(
                    f"tables has {name!r}, but {self.name} has no such table{did_you_mean(name, catalog.tables)}"
                )
        kept = {name: table for name, table in catalog.tables.items() if name in set(names)}
        return Catalog(kept, catalog.notes)


def _name_in(url: str) -> str:
    return PurePath(unquote(urlsplit(url).path)).name
