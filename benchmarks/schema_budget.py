"""Measures the values that questions mention, and the tables and columns that are kept within half of the tokens.

    python benchmarks/schema_budget.py                 both tables for Spider's dev and training questions
    python benchmarks/schema_budget.py --limit 300     try it out

It needs the public data sets in ../shared/data. A gold literal is a text with which a gold query compares a column, and
that some column of the database contains. It is found if `Database.values_for` returns it with the same characters.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from typing import Any, NamedTuple

from sqlglot import expressions as exp
from transformers import AutoTokenizer

from common import DATA, argument_parser, clock, find_smollm2, spider_golds
from sqlquarry.data.database import Database
from sqlquarry.data.database.budget import token_counter
from sqlquarry.sql.ddl import read_schema
from sqlquarry.sql.resolver import read_query

FOLDER = DATA / "spider_sqlite"


class Gold(NamedTuple):
    """What a gold query uses, names in lower case."""

    tables: frozenset[str]
    columns: frozenset[tuple[str, str]]
    literals: frozenset[str]


@cache
def opened(name: str, *, personal: bool = False) -> Database:
    return Database(FOLDER / f"{name}.sqlite", personal=personal)


@cache
def texts_of(name: str) -> frozenset[str]:
    """Return all texts in a database."""
    found: set[str] = set()
    with closing(sqlite3.connect(f"file:{FOLDER / name}.sqlite?mode=ro&immutable=1", uri=True)) as connection:
        connection.text_factory = lambda content: content.decode(errors="replace")
        for table in opened(name).tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                found |= {cell for cell in row if isinstance(cell, str)}
    return frozenset(found)


def gold_of(row: dict[str, Any]) -> Gold | None:
    database = opened(row["db_id"])
    schema = read_schema(database.schema_text(), "sqlite")
    read = read_query(row["gold_sql"], schema) if schema else None
    if read is None:
        return None
    tree, resolver = read
    places = [resolver.place(column) for column in tree.find_all(exp.Column)]
    literals = [
        literal.this
        for literal in tree.find_all(exp.Literal)
        if literal.is_string and isinstance(literal.parent, exp.EQ | exp.NEQ | exp.In)
    ]
    names = {name.lower() for name in database.tables}
    return Gold(
        frozenset(table.name.lower() for table in tree.find_all(exp.Table)) & names,
        frozenset((table.lower(), column.lower()) for table, column in filter(None, places)),
        texts_of(row["db_id"]) & set(literals),
    )


def show_values(rows: Sequence[tuple[dict[str, Any], Gold]], *, personal: bool) -> None:
    build_s: dict[str, float] = {}
    seconds, values, right, there, found = 0.0, 0, 0, 0, 0
    for row, gold in rows:
        database = opened(row["db_id"], personal=personal)
        if row["db_id"] not in build_s:
            assert database.tables  # their samples are not a part of the index
            with clock() as took:
                database.values_for("?")
            build_s[row["db_id"]] = took.seconds
        with clock() as took:
            matches = database.values_for(row["question"])
        seconds += took.seconds
        mentioned = {match.value for match in matches}
        values, right = values + len(matches), right + sum(match.value in gold.literals for match in matches)
        there, found = there + len(gold.literals), found + len(mentioned & gold.literals)
    print(
        f"  {'personal' if personal else 'default':9} {found / max(there, 1):10.1%} of {there:5,} "
        f"{right / max(values, 1):10.1%} {values / len(rows):10.2f} "
        f"{1000 * seconds / len(rows):8.2f} {max(build_s.values()):9.3f}"
    )


def show_kept(rows: Sequence[tuple[dict[str, Any], Gold]], method: str, tokenizer: Any) -> None:
    size = token_counter(tokenizer)
    tables, kept_tables, columns, kept_columns, whole, seconds = 0, 0, 0, 0, 0, 0.0
    for row, gold in rows:
        database = opened(row["db_id"])
        full = database.schema_text()
        most = size(full) // 2
        with clock() as took:
            text = (
                database.schema_text(question=row["question"], max_tokens=most, tokenizer=tokenizer)
                if method == "question"
                else first_tables(full, most, size)
            )
        seconds += took.seconds
        schema = read_schema(text, "sqlite")
        named = schema.tables.values() if schema else ()
        those = {table.name.lower() for table in named}
        these = {(table.name.lower(), column.name.lower()) for table in named for column in table.columns.values()}
        tables, kept_tables = tables + len(gold.tables), kept_tables + len(gold.tables & those)
        columns, kept_columns = columns + len(gold.columns), kept_columns + len(gold.columns & these)
        whole += gold.tables <= those and gold.columns <= these
    print(
        f"  {method:9} {kept_tables / tables:8.1%} {kept_columns / columns:8.1%} {whole / len(rows):8.1%} "
        f"{1000 * seconds / len(rows):8.2f}"
    )


def first_tables(text: str, most: int, size: Callable[[str], int]) -> str:
    lines = text.splitlines()
    return next("\n".join(lines[:n]) for n in range(len(lines), -1, -1) if size("\n".join(lines[:n])) <= most)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--limit", type=int, default=1_500, help="questions of each split")
    options = parser.parse_args()
    base = find_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(base.parent, gguf_file=base.name, trust_remote_code=False)
    there = {path.stem for path in FOLDER.glob("*.sqlite") if path.stat().st_size}
    for split in ("dev_share", "train"):
        rows = [row for row in spider_golds(split=split) if row["db_id"] in there]
        random.Random(0).shuffle(rows)
        pairs = [(row, gold) for row in rows[: options.limit] if (gold := gold_of(row)) is not None]
        print(f"\nSpider {split}: {len(pairs):,} questions")
        print("  values     literals found      precision  per question  ms  largest index s")
        for personal in (False, True):
            show_values(pairs, personal=personal)
        print("  half of tokens  tables  columns  whole queries  ms")
        for method in ("question", "first"):
            show_kept(pairs, method, tokenizer)


if __name__ == "__main__":
    main()
