"""Convert rows to records. The columns of a row show which of the known data set shapes it has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sqlquarry.errors import RecordError
from sqlquarry.files.metadata import parse_json
from sqlquarry.records import Record

KNOWN_SHAPES = (
    "question, schema[, sql, alternatives, database, dialect, id] (SQLQuarry); "
    "question, context, answer[, database, dialect, id] (sql-create-context); question, query, db_id, schema (Spider); "
    "question, SQL, db_id, schema[, evidence] (BIRD)"
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """The meaning of the columns in one data set shape. A row has this shape if it has all columns in `needs`."""

    needs: tuple[str, ...]
    schema: tuple[str, ...]
    sql: str
    database: tuple[str, ...] = ("db_id",)
    id: tuple[str, ...] = ("id",)


# Column names are compared without case and surrounding white space.
_SQLQUARRY = _Shape(("question", "schema"), schema=("schema",), sql="sql", database=("database", "db_id"))
# Spider, https://yale-lily.github.io/spider. Its rows also have a column `sql`, which contains a parse tree.
_SPIDER = _Shape(("question", "query", "db_id"), schema=("schema", "tables"), sql="query")
# BIRD, https://bird-bench.github.io
_BIRD = _Shape(("question", "sql", "db_id"), schema=("schema", "tables"), sql="sql", id=("question_id", "id"))
# https://huggingface.co/datasets/b-mc2/sql-create-context
_CREATE_CONTEXT = _Shape(
    ("question", "context", "answer"), schema=("context",), sql="answer", database=("database", "db_id")
)
_ROLES = (("schema", "tables", "context"), ("sql", "query", "answer"), ("database", "db_id"))
_SQL = frozenset(_ROLES[1])
# Column names with a clear meaning. A "context" or an "answer" can be anything.
_TELLING = frozenset(["schema", "sql", "query", "database"])
_KNOWN = {"question", "evidence", "id", "question_id", "dialect", "alternatives"}.union(*_ROLES)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The columns of a row that form a record, by their names in the row.

    Args:
        shape: the shape that this reading follows.
        pairs: pairs of columns that must not disagree, because either could be the right one. The first is read.
    """

    shape: _Shape
    question: str
    schema: str | None
    sql: str | None
    database: str | None
    dialect: str | None
    id: str | None
    evidence: str | None
    alternatives: str | None
    pairs: tuple[tuple[str, str], ...]


def known_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns that belong to a known shape."""
    return [column for column in columns if _plain(column) in _KNOWN]


def fits_a_shape(columns: Iterable[str]) -> bool:
    """Return whether rows with these columns can be read."""
    return bool(_readings(tuple(columns)))


def record_from_row(row: Mapping[str, object], default_id: str, dialect: str = "sqlite") -> Record:
    """Convert one row to a record. Columns that belong to no known shape are ignored.

    Rows in SQLQuarry's shape are not changed, so that `Records.to_jsonl` and `load_records` give equal records. In the
    other shapes, white space at the ends and `[SQL] … [/SQL]` around an answer are removed. BIRD's evidence is appended
    to the question in parentheses, because the question alone is often not clear enough.

    Args:
        row: column -> value.
        default_id: the id of the record if the row has no column for it.
        dialect: the dialect of the record if the row does not specify one.

    Raises:
        RecordError: the columns fit no known shape, or fit two shapes that disagree, or a value is missing, blank or
            not text.
    """
    readings = _readings(tuple(row))
    if not readings:
        raise RecordError(f"the columns ({', '.join(map(str, row))}) fit no known shape")
    read = readings[0] if len(readings) == 1 else _first_with_sql(row, readings)
    if read.pairs and (unclear := [f"{a!r} and {b!r}" for a, b in read.pairs if _disagree(row[a], row[b])]):
        raise RecordError(
            f"the columns {', '.join(unclear)} contain different texts, and either could be meant. Drop or rename one"
        )
    if read.schema is None:
        database = _optional_text(row, read.database)
        raise RecordError(
            f"has the database {database!r}, but no schema. Add its CREATE TABLE statements as the column 'schema'"
        )
    question, schema = _text(row, read.question), _text(row, read.schema)
    is_sqlquarry = read.shape is _SQLQUARRY
    if is_sqlquarry:
        sql = _optional_text(row, read.sql)
    else:
        evidence = (_optional_text(row, read.evidence) or "").strip()
        question = f"{question.strip()} ({evidence})" if evidence else question.strip()
        schema, sql = schema.strip(), _bare(_text(row, read.sql))
    return Record(
        question=question,
        schema=schema,
        sql=sql,
        database=_optional_text(row, read.database),
        dialect=_optional_text(row, read.dialect) or dialect,
        id=_id(row, read.id) if read.id else default_id,
        alternatives=_alternatives(row[read.alternatives]) if is_sqlquarry and read.alternatives else (),
    )


@lru_cache(maxsize=1024)
def _readings(names: tuple[str, ...]) -> tuple[_Reading, ...]:
    """Return the possible readings of rows with these columns, best first."""
    columns: dict[str, str] = {}
    doubles: list[tuple[str, str]] = []
    for name in sorted(names, key=lambda name: name != _plain(name)):  # An exact name takes precedence.
        plain = _plain(name)
        if plain in _KNOWN and (read := columns.setdefault(plain, name)) != name:
            doubles.append((read, name))
    shapes = _shapes(columns)

    def first(*plain_names: str) -> str | None:
        return next((columns[name] for name in plain_names if name in columns), None)

    return tuple(
        _Reading(
            shape,
            question=columns["question"],
            schema=first(*shape.schema),
            sql=first(shape.sql),
            database=first(*shape.database),
            dialect=first("dialect"),
            id=first(*shape.id),
            evidence=first("evidence"),
            alternatives=first("alternatives"),
            pairs=(*doubles, *_rivals(shape, shapes, columns)),
        )
        for shape in shapes
    )


def _shapes(columns: Mapping[str, str]) -> list[_Shape]:
    """Return the shapes that fit. SQLQuarry's comes first unless the rows are clearly BIRD's, which looks the same."""
    is_bird = "evidence" in columns or "question_id" in columns or columns.get("sql") == "SQL"
    order = (_BIRD, _SQLQUARRY) if is_bird else (_SQLQUARRY, _BIRD)
    fitting = [shape for shape in (*order, _SPIDER, _CREATE_CONTEXT) if columns.keys() >= set(shape.needs)]
    # A gold query in a column of another shape must not be ignored as an unknown column.
    if _SQLQUARRY.sql not in columns and _SQL & columns.keys():
        fitting = [shape for shape in fitting if shape is not _SQLQUARRY]
    return [shape for shape in fitting if columns.keys() & set(shape.schema)] or fitting


def _rivals(shape: _Shape, shapes: list[_Shape], columns: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return pairs of a column that the shape reads and another column that could be meant instead."""
    meant = {name for other in shapes for name in (*other.schema, other.sql, *other.database)}
    pairs = []
    for role in _ROLES:
        names = [name for name in role if name in columns]
        read = next((name for name in names if name in (*shape.schema, shape.sql, *shape.database)), None)
        others = [name for name in names if name in meant or (name in _TELLING and shape is not _SQLQUARRY)]
        pairs += [(columns[read], columns[other]) for other in others if read and other != read]
    return pairs


def _first_with_sql(row: Mapping[str, object], readings: tuple[_Reading, ...]) -> _Reading:
    """Return the first reading whose query is text. A column `sql` may be empty or contain Spider's parse trees.

    Every reading has a query column: rows that fit several shapes have one.
    """
    with_text = (read for read in readings if read.sql and isinstance(row[read.sql], str))
    may_lack_it = (read for read in readings if read.shape is _SQLQUARRY and read.sql and _is_missing(row[read.sql]))
    return next(may_lack_it, None) or next(with_text, readings[0])


def _disagree(one: object, other: object) -> bool:
    if not isinstance(other, str) or not (isinstance(one, str) or _is_missing(one)):
        return False
    return _bare(other) not in ("", _bare(one) if isinstance(one, str) else "")


def _bare(sql: str) -> str:
    return sql.strip().removeprefix("[SQL]").removesuffix("[/SQL]").strip()


def _plain(column: str) -> str:
    return str(column).strip().lower()


def _alternatives(value: object) -> tuple[str, ...]:
    if _is_missing(value) or value == "":
        return ()
    if isinstance(value, str) and value.startswith("["):  # In CSV it is a JSON list.
        try:
            value = parse_json(value, "it", lenient=True)
        except ValueError as error:
            raise RecordError(f"'alternatives' is {value!r:.40}, which is not a JSON list: {error}") from error
    if not isinstance(value, list | tuple):
        raise RecordError(f"'alternatives' is {value!r:.40} ({type(value).__name__}), but must be a list of queries")
    return tuple(_text({"alternatives": query}, "alternatives") for query in value)


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
