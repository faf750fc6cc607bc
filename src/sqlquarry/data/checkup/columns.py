"""Check that the record's own schema has the tables and columns that its gold query uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlquarry.data.checkup.findings import Finding, Kind
from sqlquarry.data.checkup.gold_query import GoldQuery
from sqlquarry.options import did_you_mean
from sqlquarry.sql.unknown_names import NameProblem, unknown_names

KINDS = (
    Kind(
        "table-missing",
        "error",
        "The gold query uses a table that the schema lacks",
        "Add the table's CREATE TABLE to the schema, or correct its name. The model can only use what its prompt has.",
    ),
    Kind(
        "column-missing",
        "error",
        "The gold query uses a column that the schema lacks",
        "Add the column to the schema, or correct its name. The model can only use what its prompt has.",
    ),
    Kind(
        "column-ambiguous",
        "error",
        "The gold query uses a column name that several of its tables have",
        "Write the table or its alias before the column. Databases refuse the query otherwise.",
    ),
    Kind(
        "function-missing",
        "warning",
        "The gold query calls a function that SQLite lacks",
        "Set the record's dialect if the query is for another database. Otherwise use a function of SQLite.",
    ),
    Kind(
        "gold-refused",
        "error",
        "SQLite refuses to compile the gold query on the record's schema",
        "Correct the query, or set the record's dialect if the query is for another database.",
    ),
    Kind(
        "schema-unreadable",
        "warning",
        "The schema text declares no table that can be read",
        "Write the schema as CREATE TABLE statements in the record's dialect. Tables and columns are not checked now.",
    ),
)

_NO_TABLE = re.compile(r"no such table: (.+)")
_NO_COLUMN = re.compile(r"no such column: (.+)")
_AMBIGUOUS = re.compile(r"ambiguous column name: (.+)")
_NO_FUNCTION = re.compile(r"no such function: (.+)|wrong number of arguments to function (.+)")


def check_names(gold: GoldQuery) -> Iterator[Finding]:
    """Yield the tables and columns that the schema lacks, and other reasons why the query cannot be compiled on it."""
    if gold.dialect == "sqlite":
        if gold.refusal is not None:
            yield from _explained(gold, gold.refusal)
    elif gold.schema is not None and gold.has_whole_schema:
        for problem in unknown_names(gold.sql, gold.schema, gold.dialect):
            yield _finding(gold, problem)


def _explained(gold: GoldQuery, refusal: str) -> Iterator[Finding]:
    """Yield what SQLite's message means. SQLite reports only the first problem."""
    if found := _NO_FUNCTION.fullmatch(refusal):
        yield gold.finding("function-missing", refusal)
    elif gold.schema is None:
        return  # SQLite has only checked the syntax
    elif found := _NO_TABLE.fullmatch(refusal):
        if gold.has_whole_schema:
            yield _finding(gold, NameProblem("table", found[1]))
    elif found := _NO_COLUMN.fullmatch(refusal):
        yield _finding(gold, NameProblem("column", found[1]))
    elif found := _AMBIGUOUS.fullmatch(refusal):
        yield _finding(gold, NameProblem("ambiguous", found[1]))
    else:
        yield gold.finding("gold-refused", refusal)


def _finding(gold: GoldQuery, problem: NameProblem) -> Finding:
    name = problem.name.rpartition(".")[2]
    tables = gold.schema.tables if gold.schema else {}
    if problem.kind == "table":
        return gold.finding("table-missing", f"{name}{_nearest(name, [table.name for table in tables.values()])}")
    used = [table for key, table in tables.items() if key.lower() in gold.named]
    if problem.kind == "ambiguous":
        owners = [table.name for table in used if name.lower() in map(str.lower, table.columns)]
        return gold.finding("column-ambiguous", f"{problem.name} is a column of {', '.join(owners)}")
    near = _nearest(name, [column.name for table in used for column in table.columns.values()])
    owner = next((table.name for table in tables.values() if name.lower() in map(str.lower, table.columns)), None)
    return gold.finding("column-missing", f"{problem.name}{f', a column of {owner}' if owner else near}")


def _nearest(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known).removesuffix("?").replace("; did you mean", ", nearest is")
