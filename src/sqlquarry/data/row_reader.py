"""Convert rows to records, with the columns, schema, database and dialect that the caller states."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlquarry.data import wikisql
from sqlquarry.data.schemas import Schemas
from sqlquarry.data.shapes import FIELDS, SQLQUARRY, Reading, columns_to_read, find_readings
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.files.metadata import parse_json
from sqlquarry.options import did_you_mean
from sqlquarry.records import Record

if TYPE_CHECKING:
    from sqlquarry.data.conversations import Conversations
    from sqlquarry.prompt import PromptFormatter


class RowReader:
    """Convert the rows of one source to records.

    Rows in SQLQuarry's shape are not changed, so that `Records.to_jsonl` and `load_records` give equal records. In the
    other shapes, white space at the ends and `[SQL] … [/SQL]` around an answer are removed. BIRD's evidence becomes
    `Record.notes`. Columns that belong to no known shape are ignored.

    Args:
        columns: field in `FIELDS` -> the column that contains it.
        schemas: the schemas of all rows, also of those that have one.
        shipped_schemas: returns the schemas of rows that have none, if there are any.
        database: the database of all rows.
        dialect: the dialect of rows that do not specify one.
        formatter: the wording around schema and question in prompts.

    Attributes:
        ignored_columns: columns of rows without SQL, or of tables, that were not read. One of them may have the SQL.

    Raises:
        ConfigError: `columns` has an unknown field, or a column that is not text or has two fields.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        *,
        schemas: Schemas | None = None,
        shipped_schemas: Callable[[], Schemas | None] = lambda: None,
        database: str | None = None,
        dialect: str = "sqlite",
        formatter: PromptFormatter | None = None,
    ) -> None:
        self.ignored_columns: set[str] = set()
        self._is_without_sql = False
        self._stated = _stated(columns or {})
        self._schemas, self._find_shipped_schemas = schemas, shipped_schemas
        self._database, self._dialect, self._formatter = database, dialect, formatter
        given = {"schema": schemas, "database": database}
        self._given = frozenset(field for field, value in given.items() if value is not None)

    def fits(self, names: Iterable[str]) -> bool:
        """Return whether rows with these columns can be read."""
        return not isinstance(find_readings(tuple(names), self._stated, self._given), str)

    def columns_to_read(self, names: Sequence[str]) -> list[str]:
        """Return the columns that must be read. Of rows that cannot be read, these are the known ones."""
        read = columns_to_read(names, self._stated, self._given)
        self.ignored_columns.update({*names}.difference(read))
        return read

    def record(self, row: Mapping[str, object], default_id: str) -> Record:
        """Convert one row.

        Args:
            row: column -> value.
            default_id: the id of the record if the row has no column for it.

        Raises:
            RecordError: the columns fit no known shape, or fit two shapes that disagree, or a value is missing, blank
                or not text, or the schema cannot be found.
        """
        readings = find_readings(tuple(row), self._stated, self._given)
        if isinstance(readings, str):
            raise RecordError(readings)
        read = readings[0] if len(readings) == 1 else _first_with_sql(row, readings)
        for field, one, other in read.pairs:
            if _disagree(row[one], row[other]):
                raise RecordError(
                    f"the columns {one!r} and {other!r} contain different texts, and either could be meant. "
                    f"Pass columns={{{field!r}: {one!r}}} or columns={{{field!r}: {other!r}}}"
                )
        is_sqlquarry = read.shape is SQLQUARRY and read.has_own_notes and not self._stated
        database = self._database or _optional_text(row, read.database)
        dialect = _optional_text(row, read.dialect) or self._dialect
        notes = _optional_text(row, read.notes) or ""
        schema, question, sql = self._texts(row, read, database, dialect, notes)
        if sql is None and not self._is_without_sql:
            self._is_without_sql = True  # The first such row is enough.
            self.ignored_columns.update({*map(str, row)} - read.columns)
        if not is_sqlquarry:
            question, notes = question.strip(), notes.strip()
            schema, sql = schema.strip(), None if sql is None else _bare(sql)
        return Record(
            question=question,
            schema=schema,
            sql=sql,
            database=database,
            dialect=dialect,
            id=_id(row, read.id) if read.id else default_id,
            alternatives=_alternatives(row, read.alternatives) if read.alternatives else (),
            notes=notes,
        )

    def _texts(
        self, row: Mapping[str, object], read: Reading, database: str | None, dialect: str, notes: str
    ) -> tuple[str, str, str | None]:
        """Return schema, question and SQL."""
        if read.shape.kind == "wikisql":
            return wikisql.texts(row[read.parts["table"]], _text(row, read.question), row[read.sql or ""])
        if read.shape.kind == "turns":
            schema, question, sql = self._conversations.texts(
                {name: row[at] for name, at in read.parts.items()}, dialect, notes
            )
            if schema is None or self._schemas is not None:
                schema = self._schema(row, read, database)
            return schema, question, sql
        is_optional = read.shape is SQLQUARRY
        sql = _optional_text(row, read.sql) if is_optional else _text(row, read.sql)
        return self._schema(row, read, database), _text(row, read.question), sql

    def _schema(self, row: Mapping[str, object], read: Reading, database: str | None) -> str:
        if read.schema is not None:
            return _text(row, read.schema)
        schemas = self._schemas or self._shipped_schemas
        if schemas is None:
            raise RecordError(
                f"has the database {database!r}, but no schema. Add its CREATE TABLE statements as the column "
                "'schema', or pass schema=, such as their text or a directory of SQLite files"
            )
        return schemas.of(database)

    @functools.cached_property
    def _conversations(self) -> Conversations:
        from sqlquarry.data.conversations import Conversations  # needs Jinja, which other rows do not

        return Conversations(self._formatter, needs_schema=self._schemas is None)

    @functools.cached_property
    def _shipped_schemas(self) -> Schemas | None:
        return self._find_shipped_schemas()


def _stated(columns: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    given: object = columns
    if not isinstance(given, Mapping):
        raise ConfigError(f"columns is {given!r:.80}, but must be a mapping such as {{'question': 'Frage'}}")
    stated: dict[str, str] = {}
    for field, column in columns.items():
        plain = str(field).strip().lower()
        if plain not in FIELDS:
            raise ConfigError(
                f"columns has the field {field!r:.80}, but the fields are {', '.join(FIELDS)}"
                f"{did_you_mean(plain, FIELDS)}. Write columns={{field: column}}."
            )
        if not isinstance(column, str) or not column:
            raise ConfigError(f"columns[{field!r}] is {column!r:.80}, but must be the name of a column.")
        if plain in stated:
            raise ConfigError(f"columns has the field {plain!r} twice. Keep one of them.")
        stated[plain] = column
    return tuple(stated.items())


def _first_with_sql(row: Mapping[str, object], readings: tuple[Reading, ...]) -> Reading:
    """Return the first reading whose query is text. A column `sql` may be empty or contain Spider's parse trees."""
    with_text = (read for read in readings if read.sql and isinstance(row[read.sql], str))
    may_lack_it = (read for read in readings if read.shape is SQLQUARRY and read.sql and _is_missing(row[read.sql]))
    return next(may_lack_it, None) or next(with_text, readings[0])


def _disagree(one: object, other: object) -> bool:
    if not isinstance(other, str) or not (isinstance(one, str) or _is_missing(one)):
        return False
    return _bare(other) not in ("", _bare(one) if isinstance(one, str) else "")


def _bare(sql: str) -> str:
    return sql.strip().removeprefix("[SQL]").removesuffix("[/SQL]").strip()


def _alternatives(row: Mapping[str, object], column: str) -> tuple[str, ...]:
    value = row[column]
    if _is_missing(value) or value == "":
        return ()
    if isinstance(value, str) and value.startswith("["):  # In CSV it is a JSON list.
        try:
            value = parse_json(value, "it", lenient=True)
        except ValueError as error:
            raise RecordError(f"{column!r} is {value!r:.40}, which is not a JSON list: {error}") from error
    if not isinstance(value, list | tuple):
        raise RecordError(f"{column!r} is {value!r:.40} ({type(value).__name__}), but must be a list of queries")
    return tuple(_text({column: query}, column) for query in value)


def _text(row: Mapping[str, object], column: str | None) -> str:
    value = _optional_text(row, column)
    if value is None or not value.strip():
        raise RecordError(f"{column!r} is empty")
    return value


def _optional_text(row: Mapping[str, object], column: str | None) -> str | None:
    value = row[column] if column else None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecordError(f"{column!r} has half of a surrogate pair at character {error.start + 1}") from error
        return value
    if _is_missing(value):
        return None
    raise RecordError(f"{column!r} is {repr(value)[:40]} ({type(value).__name__}), but must be text")


def _is_missing(value: object) -> bool:
    # pandas writes None as NaN.
    return value is None or (isinstance(value, float) and math.isnan(value))


def _id(row: Mapping[str, object], column: str) -> str | None:
    value = row[column]
    # pandas converts integers to floats if some values of the column are missing.
    if (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return _optional_text(row, column)
