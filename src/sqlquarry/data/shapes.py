"""Decide which columns of a row form a record. The columns show which of the known data set shapes the row has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from sqlquarry.options import did_you_mean

KNOWN_SHAPES = (
    "question, schema[, sql, alternatives, database, dialect, id, notes] (SQLQuarry); "
    "question, context, answer[, database, dialect, id] (sql-create-context); question, query, db_id, schema (Spider); "
    "question, SQL, db_id, schema[, evidence] (BIRD); sql_prompt, sql_context, sql (gretel); "
    "question, table, sql (WikiSQL); instruction, input, output or response (Alpaca); messages; conversations"
)
# Fields of a record and the column names that can mean them. Names are compared without case and surrounding space.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "sql_prompt"),
    "schema": ("schema", "tables", "context", "sql_context"),
    "sql": ("sql", "query", "answer"),
    "alternatives": ("alternatives",),
    "database": ("database", "db_id"),
    "dialect": ("dialect",),
    "id": ("id", "question_id"),
    "notes": ("notes", "evidence", "hint", "hints"),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The meaning of the columns in one data set shape. A row has this shape if it has all columns in `needs`.

    Args:
        needs: the columns of every row.
        question: the column with the question.
        schema: columns that can contain the schema, best first.
        sql: the column with the gold query.
        database: columns that can contain the name of the database.
        id: columns that can contain the id.
        kind: whether the fields are columns, parts of the turns of a conversation, or WikiSQL's structures.
        parts: other columns that are read, if the row has them.
    """

    needs: tuple[str, ...]
    schema: tuple[str, ...] = ()
    sql: str = "sql"
    question: str = "question"
    database: tuple[str, ...] = ("database", "db_id")
    id: tuple[str, ...] = ("id",)
    kind: Literal["columns", "turns", "wikisql"] = "columns"
    parts: tuple[str, ...] = ()


SQLQUARRY = Shape(("question", "schema"), ("schema",))
# Spider, https://yale-lily.github.io/spider. Its rows also have a column `sql`, which contains a parse tree.
_SPIDER = Shape(("question", "query"), ("schema", "tables"), "query", database=("db_id", "database"))
# BIRD, https://bird-bench.github.io
_BIRD = Shape(("question", "sql", "db_id"), ("schema", "tables"), database=("db_id",), id=("question_id", "id"))
# https://huggingface.co/datasets/b-mc2/sql-create-context
_CREATE_CONTEXT = Shape(("question", "context", "answer"), ("context",), "answer")
# https://huggingface.co/datasets/gretelai/synthetic_text_to_sql
_GRETEL = Shape(("sql_prompt", "sql_context", "sql"), ("sql_context",), question="sql_prompt")
# https://github.com/salesforce/WikiSQL and https://huggingface.co/datasets/Salesforce/wikisql
_WIKISQL = Shape(("question", "sql", "table"), kind="wikisql", parts=("table",))
# The formats of https://huggingface.co/docs/trl/dataset_formats, of OpenAI's fine-tuning files (messages), ShareGPT
# (conversations), Alpaca (https://github.com/tatsu-lab/stanford_alpaca), which some fine-tuning tools extend by
# `system` and `history`, and https://huggingface.co/datasets/Clinton/Text-to-sql-v1 (response).
_TURNS = tuple(
    Shape(needs, kind="turns", parts=(*needs, *more))
    for needs, more in (
        (("messages",), ("system",)),
        (("conversations",), ("system",)),
        (("prompt", "completion"), ("system",)),
        (("instruction", "response"), ("input", "system", "history")),
        (("instruction", "output"), ("input", "system", "history")),
    )
)
_OF_COLUMNS = (SQLQUARRY, _BIRD, _SPIDER, _CREATE_CONTEXT, _GRETEL)
_SQL = frozenset(FIELDS["sql"])
# Column names with a clear meaning. A "context" or an "answer" can be anything.
_TELLING = frozenset(["schema", "sql", "query", "database"])
_RIVALS = ("question", "schema", "sql", "database")
_KNOWN = {name for names in FIELDS.values() for name in names}.union(
    *(shape.parts for shape in (_WIKISQL, *_TURNS)), ["table_id"]
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The columns of a row that form a record, by their names in the row. None means that there is no such column.

    Args:
        shape: the shape that this reading follows.
        parts: the columns of the shape's parts that the row has, by their plain names.
        pairs: pairs of columns that must not disagree, because either could be the right one. The first is read.
    """

    shape: Shape
    question: str | None
    schema: str | None
    sql: str | None
    database: str | None
    dialect: str | None
    id: str | None
    notes: str | None
    alternatives: str | None
    parts: Mapping[str, str]
    pairs: tuple[tuple[str, str, str], ...]

    @property
    def has_own_notes(self) -> bool:
        """Whether the notes are in SQLQuarry's own column, or missing."""
        return self.notes is None or _plain(self.notes) == "notes"

    @property
    def columns(self) -> set[str]:
        """The columns that must be read."""
        read = {getattr(self, field) for field in FIELDS} - {None}
        return read | {*self.parts.values()} | {name for _, *pair in self.pairs for name in pair}


@lru_cache(maxsize=1024)
def find_readings(
    names: tuple[str, ...], stated: tuple[tuple[str, str], ...] = (), given: frozenset[str] = frozenset()
) -> tuple[Reading, ...] | str:
    """Return the possible readings of rows with these columns, best first, or why there is none.

    Args:
        names: the columns.
        stated: pairs of a field in `FIELDS` and the column that contains it.
        given: fields whose values do not come from the rows.
    """
    chosen: dict[str, str | None] = dict.fromkeys(given)
    for field, column in stated:
        if (found := _column(column, names)) is None:
            near = did_you_mean(column, [*map(str, names)])
            return f"has no column {column!r} (for {field!r}) but ({_listed(names)}){near}"
        chosen[field] = found
    columns, doubles = _known_columns(names, chosen)
    shapes = _shapes(columns)
    if not shapes:
        return f"the columns ({_listed(names)}) fit no known shape{_advice(names, columns)}"
    return tuple(_reading(shape, shapes, columns, doubles) for shape in shapes)


def columns_to_read(
    names: Sequence[str], stated: tuple[tuple[str, str], ...] = (), given: frozenset[str] = frozenset()
) -> list[str]:
    """Return the columns that must be read, or all columns with a known name if the rows fit no shape."""
    readings = find_readings(tuple(names), stated, given)
    if isinstance(readings, str):
        return [name for name in names if _plain(name) in _KNOWN]
    used = {name for reading in readings for name in reading.columns}
    return [name for name in names if name in used]


def _known_columns(
    names: Iterable[str], chosen: Mapping[str, str | None]
) -> tuple[dict[str, str | None], list[tuple[str, str, str]]]:
    """Return the columns by their plain names, and pairs of columns with equal plain names.

    A chosen column stands for every name of its field, so that a row has the same shapes as with these names.
    """
    columns = {name: column for field, column in chosen.items() for name in FIELDS[field]}
    used = {column for column in chosen.values() if column}
    doubles: list[tuple[str, str, str]] = []
    settled = set(columns)
    for name in sorted(names, key=lambda name: name != _plain(name)):  # An exact name takes precedence.
        plain = _plain(name)
        if plain in _KNOWN and plain not in settled and name not in used:
            read = columns.setdefault(plain, name)
            if read is not None and read != name:
                doubles.append((_field(plain), read, name))
    return columns, doubles


def _reading(
    shape: Shape,
    shapes: Sequence[Shape],
    columns: Mapping[str, str | None],
    doubles: Sequence[tuple[str, str, str]],
) -> Reading:
    def first(*plain_names: str) -> str | None:
        return next((columns[name] for name in plain_names if name in columns), None)

    is_turns = shape.kind == "turns"
    return Reading(
        shape,
        question=None if is_turns else first(shape.question),
        schema=first(*shape.schema),
        sql=None if is_turns else first(shape.sql),
        database=first(*shape.database),
        dialect=first("dialect"),
        id=first(*shape.id),
        notes=first(*FIELDS["notes"]),
        alternatives=first("alternatives"),
        parts={name: column for name in shape.parts if (column := columns.get(name)) is not None},
        pairs=(*doubles, *_rivals(shape, shapes, columns)),
    )


def _shapes(columns: Mapping[str, str | None]) -> list[Shape]:
    """Return the shapes that fit. SQLQuarry's comes first unless the rows are clearly BIRD's, which looks the same."""
    has_evidence = _plain(columns.get("evidence") or "") == "evidence"
    is_bird = has_evidence or "question_id" in columns or columns.get("sql") == "SQL"
    order = (_BIRD, SQLQUARRY, *_OF_COLUMNS[2:]) if is_bird else _OF_COLUMNS
    fitting = [shape for shape in order if columns.keys() >= set(shape.needs)]
    # A gold query in a column of another shape must not be ignored as an unknown column.
    if SQLQUARRY.sql not in columns and _SQL & columns.keys():
        fitting = [shape for shape in fitting if shape is not SQLQUARRY]
    fitting = [shape for shape in fitting if columns.keys() & set(shape.schema)] or fitting
    return fitting or [shape for shape in (_WIKISQL, *_TURNS) if columns.keys() >= set(shape.needs)][:1]


def _rivals(shape: Shape, shapes: Sequence[Shape], columns: Mapping[str, str | None]) -> list[tuple[str, str, str]]:
    """Return pairs of a column that the shape reads and another column that could be meant instead."""
    meant = {name for other in shapes for name in _names(other)}
    pairs = []
    for field in _RIVALS:
        names = [name for name in FIELDS[field] if name in columns]
        read = next((columns[name] for name in names if name in _names(shape)), None)
        others = [name for name in names if name in meant or (name in _TELLING and shape is not SQLQUARRY)]
        pairs += [(field, read, other) for name in others if read and (other := columns[name]) and other != read]
    notes = [column for name in FIELDS["notes"] if (column := columns.get(name))]
    return pairs + [("notes", notes[0], other) for other in notes[1:] if other != notes[0]]


def _names(shape: Shape) -> tuple[str, ...]:
    return (shape.question, *shape.schema, shape.sql, *shape.database)


def _column(stated: str, names: Sequence[str]) -> str | None:
    """Return the column that a caller means: the one with this name, or else the only one that differs in case."""
    if stated in names:
        return stated
    found = [name for name in names if _plain(name) == _plain(stated)]
    return found[0] if len(found) == 1 else None


def _field(plain: str) -> str:
    return next((field for field, names in FIELDS.items() if plain in names), plain)


def _advice(names: Sequence[str], columns: Mapping[str, str | None]) -> str:
    """Return how to name the columns of question, schema and SQL that are missing, with guesses if there are any."""
    if "table_id" in columns and "sql" in columns:
        return ". WikiSQL's rows need its tables. Keep NAME.tables.jsonl next to NAME.jsonl, or load the directory"
    if any(_plain(name).startswith(("create table", "select ")) for name in names):
        return ". The first line must have the names of the columns"
    guesses = {}
    for field in ("question", "schema", "sql"):
        known = next((columns[name] for name in FIELDS[field] if columns.get(name)), None)
        words = (*FIELDS[field], *(("ddl",) if field == "schema" else ()))
        near = next((name for name in names if any(word in _plain(name) for word in words)), None)
        guesses[field] = known or near or "…"
    return f". Name them, for example columns={guesses}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names))


def _plain(column: str) -> str:
    return str(column).strip().lower()
