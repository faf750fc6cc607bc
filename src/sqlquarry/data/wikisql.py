"""Write WikiSQL's structured queries and tables as SQL.

Facts about the format are from https://github.com/salesforce/WikiSQL (README, lib/query.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sqlquarry.data.identifiers import quoted
from sqlquarry.data.rows import SourceRow
from sqlquarry.errors import DataError, RecordError
from sqlquarry.files.metadata import parse_json

_AGGREGATES = ("", "MAX", "MIN", "COUNT", "SUM", "AVG")
_OPERATORS = ("=", ">", "<")  # The format has a fourth one, "OP", which no row uses.
_TYPES = {"text": "TEXT", "real": "REAL", "number": "REAL"}
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?<=\d)")
T = TypeVar("T")


def tables_of(path: Path) -> Path | None:
    """Return the file with the tables of a file of questions, NAME.tables.jsonl for NAME.jsonl, if it exists."""
    name, dot, suffix = path.name.partition(".jsonl")
    tables = path.with_name(f"{name}.tables.jsonl{suffix}")
    return tables if dot and name and tables.is_file() else None


def with_tables(questions: Iterator[SourceRow], tables: Iterator[SourceRow], name: str) -> Iterator[SourceRow]:
    """Yield the rows of a file of questions, each with its table as the column "table".

    Args:
        questions: rows with the column "table_id".
        tables: rows with the column "id".
        name: name of the tables' file in errors.

    Raises:
        DataError: a table cannot be read.
    """
    by_id: dict[str, Mapping[str, object]] = {}
    for unit, number, table in tables:
        if isinstance(table, RecordError):
            raise DataError(f"{name}, {unit} {number}: {table}")
        # The rows of the tables are the bulk of the file and are not needed.
        by_id[str(table.get("id"))] = {key: value for key, value in table.items() if key != "rows"}
    for unit, number, row in questions:
        if isinstance(row, RecordError) or "table_id" not in row:
            yield SourceRow(unit, number, row)
        elif (found := by_id.get(str(row["table_id"]))) is None:
            yield SourceRow(unit, number, RecordError(f"the table {row['table_id']!r:.80} is not in {name}"))
        else:
            yield SourceRow(unit, number, {**row, "table": found})


def texts(table: object, question: str, query: object) -> tuple[str, str, str]:
    """Return schema, question and SQL.

    The table is named after its id, as in WikiSQL's database files. Its columns have the names of the header, because
    the database files call them col0, col1, ….

    Raises:
        RecordError: table or query do not have WikiSQL's form.
    """
    if isinstance(query, str):  # in CSV
        query = _parsed(query, "sql")
    if isinstance(table, str):
        table = _parsed(table, "table")
    if not isinstance(table, Mapping) or not isinstance(query, Mapping):
        raise RecordError(f"'table' is {table!r:.40} and 'sql' is {query!r:.40}, but WikiSQL's are objects")
    header, types = table.get("header"), table.get("types")
    if not isinstance(header, list) or not isinstance(types, list) or len(header) != len(types) or not header:
        raise RecordError(f"the table {table.get('id')!r:.40} has no header with one type per column")
    names = _unique_names(header)
    columns = [f"{name} {_TYPES.get(str(kind), 'TEXT')}" for name, kind in zip(names, types, strict=True)]
    number = str(table.get("id") or table.get("name") or "").removeprefix("table_").replace("-", "_")
    if not number:
        raise RecordError("the table has neither an id nor a name")
    name = quoted(f"table_{number}")
    return f"CREATE TABLE {name} ({', '.join(columns)})", question, _select(query, name, names, types)


def _select(query: Mapping[str, object], table: str, names: Sequence[str], types: Sequence[object]) -> str:
    column = _pick(query.get("sel"), names, "sel")
    aggregate = _pick(query.get("agg"), _AGGREGATES, "agg")
    conditions = [
        f"{_pick(at, names, 'conds')} {_pick(operator, _OPERATORS, 'conds')} "
        f"{_literal(value, is_number=_pick(at, types, 'conds') in ('real', 'number'))}"
        for at, operator, value in _conditions(query.get("conds"))
    ]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {f'{aggregate}({column})' if aggregate else column} FROM {table}{where}"


def _conditions(conds: object) -> list[tuple[object, object, object]]:
    """Return (column, operator, value) triples. The hub's copy of the data has three lists instead."""
    if isinstance(conds, Mapping):
        lists = [conds.get(key) for key in ("column_index", "operator_index", "condition")]
        conds = [*zip(*lists, strict=True)] if _are_equally_long(lists) else None
    if not isinstance(conds, list) or not all(isinstance(one, list | tuple) and len(one) == 3 for one in conds):
        raise RecordError(f"'conds' is {conds!r:.40}, but must be a list of [column, operator, value]")
    return [tuple(one) for one in conds]


def _are_equally_long(lists: list[object]) -> bool:
    lengths = [len(one) if isinstance(one, list) else -1 for one in lists]
    return len(set(lengths)) == 1 and lengths[0] >= 0


def _pick(index: object, options: Sequence[T], what: str) -> T:
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(options):
        raise RecordError(f"{what!r} has the number {index!r:.40}, but must be between 0 and {len(options) - 1}")
    return options[index]


def _literal(value: object, *, is_number: bool) -> str:
    text = json.dumps(value) if isinstance(value, int | float) else str(value)
    if is_number and _NUMBER.fullmatch(text.strip()):
        return text.strip().replace(",", "").lstrip("+")
    return "'" + text.replace("'", "''") + "'"


def _unique_names(header: Sequence[object]) -> list[str]:
    """Return the header as SQL identifiers. SQL ignores case in names, so a repeated name gets a number."""
    names: list[str] = []
    used: set[str] = set()
    for index, title in enumerate(header):
        base = " ".join(str(title).split()) or f"col{index}"
        name, number = base, 1
        while name.lower() in used:
            number += 1
            name = f"{base} {number}"
        used.add(name.lower())
        names.append(quoted(name))
    return names


def _parsed(text: str, column: str) -> object:
    try:
        found: object = parse_json(text, "it", lenient=True)
    except ValueError as error:
        raise RecordError(f"{column!r} is {text!r:.40}, which is not JSON: {error}") from error
    return found
