"""One row -> one Record: the data set shapes that are known, recognised by their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlquarry.artifacts import Record
from sqlquarry.errors import RecordError
from sqlquarry.metadata import parse_json

KNOWN_SHAPES = (
    "question, schema[, sql, alternatives, database, dialect, id] (SQLQuarry); "
    "question, context, answer (sql-create-context); question, query, db_id, schema (Spider); "
    "question, SQL, db_id, schema[, evidence] (BIRD)"
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which column holds what; a row has this shape where all columns of `needs` are there."""

    needs: tuple[str, ...]
    schema: tuple[str, ...]
    sql: str
    database: str = "db_id"
    id: str = "id"


_OURS = _Shape(("question", "schema"), schema=("schema",), sql="sql", database="database")
# The most telling first: Spider's rows also have a column `sql`, which holds a parse tree.
_SHAPES = (
    # Spider, https://yale-lily.github.io/spider
    _Shape(("question", "query", "db_id"), schema=("schema", "tables"), sql="query"),
    # BIRD, https://bird-bench.github.io
    _Shape(("question", "SQL", "db_id"), schema=("schema", "tables"), sql="SQL", id="question_id"),
    # https://huggingface.co/datasets/b-mc2/sql-create-context
    _Shape(("question", "context", "answer"), schema=("context",), sql="answer"),
    _OURS,
)
_SQL_COLUMNS = {shape.sql for shape in _SHAPES}


def record_from_row(row: Mapping[str, object], default_id: str) -> Record:
    """Make the record of one row; columns that no shape knows are ignored.

    Our own rows are taken as they are, so that what `Records.to_jsonl` wrote comes back equal. In the other shapes
    white space at the ends goes, so does `[SQL] … [/SQL]` around an answer, and BIRD's evidence follows its question
    in parentheses, because the question alone does not say enough.

    Args:
        row: column -> value.
        default_id: the record's id where the row has no column for it.

    Raises:
        RecordError: the columns fit no known shape, or a value is missing, blank or not text.
    """
    shape = next((shape for shape in _SHAPES if all(column in row for column in shape.needs)), None)
    # A gold query under another shape's name must not be lost as an unknown column.
    if shape is None or (shape is _OURS and "sql" not in row and _SQL_COLUMNS & row.keys()):
        raise RecordError(f"the columns ({', '.join(row)}) fit no known shape")
    schema = next((column for column in shape.schema if column in row), None)
    if schema is None:
        raise RecordError(
            f"names the database {row['db_id']!r} but holds no schema: add its CREATE TABLE statements as 'schema'"
        )
    question, sql = _text(row, "question"), _optional_text(row, shape.sql)
    if shape is not _OURS:
        evidence = (_optional_text(row, "evidence") or "").strip()
        question = f"{question.strip()} ({evidence})" if evidence else question.strip()
        sql = _text(row, shape.sql).strip().removeprefix("[SQL]").removesuffix("[/SQL]").strip()
    return Record(
        question=question,
        schema=_text(row, schema) if shape is _OURS else _text(row, schema).strip(),
        sql=sql,
        database=_optional_text(row, shape.database),
        dialect=_optional_text(row, "dialect") or "sqlite",
        id=_id(row[shape.id]) if shape.id in row else default_id,
        alternatives=_alternatives(row) if shape is _OURS else (),
    )


def _alternatives(row: Mapping[str, object]) -> tuple[str, ...]:
    value = row.get("alternatives") or ()
    if isinstance(value, str) and value.startswith("["):  # CSV holds it as JSON
        try:
            value = parse_json(value, "it", lenient=True)
        except ValueError as error:
            raise RecordError(f"'alternatives' is {value!r:.40}, which is no JSON list: {error}") from error
    if not isinstance(value, list | tuple):
        raise RecordError(f"'alternatives' is {value!r:.40} ({type(value).__name__}), but must be a list of queries")
    return tuple(_text({"alternatives": query}, "alternatives") for query in value)


def _text(row: Mapping[str, object], column: str) -> str:
    value = _optional_text(row, column)
    if value is None or not value.strip():
        raise RecordError(f"{column!r} is empty")
    return value


def _optional_text(row: Mapping[str, object], column: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise RecordError(f"{column!r} is {repr(value)[:40]} ({type(value).__name__}), but must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{column!r} holds half of a surrogate pair at character {error.start + 1}") from error
    return value


def _id(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _optional_text({"id": value}, "id")
