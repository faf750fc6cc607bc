"""Generates plausible rows for the tables in two queries: no NULL, unique keys and names, children with parents."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from sqlquarry.sql.memory_database import Row, SQLValue
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.schema import Column, Schema

# The children of parent rows: about one for each parent, several for each parent, or several for some parents only.
# It is not exactly one, because equal numbers of rows would hide the difference between COUNT(*) of two tables.
Children = Literal["one", "each", "any"]
Hints = Mapping[str, Sequence[str]]

_NAMES = re.compile(r"name|title|description|details|address|line_\d|code|email|phone|url", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,6})?")
_WORDS = ("oak", "elm", "fir", "ash", "yew")
_NEAR = 0.5  # share of values that are close to a literal in the queries


def literals_by_column(*queries: str) -> dict[str, list[str]]:
    """Return the literals that SQLite queries compare with each column, by column name."""
    from sqlglot import expressions as exp

    found: dict[str, dict[str, None]] = {}
    for tree in filter(None, (parse(sql, "sqlite") for sql in queries)):
        for node in tree.find_all(exp.Predicate):
            sides = [side for value in node.args.values() for side in (value if isinstance(value, list) else [value])]
            columns = [side for side in sides if isinstance(side, exp.Expr) for side in side.find_all(exp.Column)]
            literals = [side.name for side in sides if isinstance(side, exp.Literal)]
            # SQLite reads "text" as a string if no column has that name.
            literals += [side.name for side in columns if side.this.args.get("quoted") and not side.table]
            for column in columns:
                found.setdefault(column.name.lower(), {}).update(dict.fromkeys(literals))
    return {name: list(literals) for name, literals in found.items()}


def tables_of(text: str, schema: Schema) -> list[str]:
    """Return the tables that SQL text names and all tables that their foreign keys refer to, parents first."""
    found: list[str] = []

    def add(name: str, path: tuple[str, ...]) -> None:
        if name not in schema.tables or name in found or name in path:
            return
        for key in schema.tables[name].foreign_keys:
            if all(key.targets):
                add(key.table, (*path, name))
        found.append(name)

    folded = text.lower()
    for name in schema.tables:
        if name in folded or not schema.complete:  # a view reads tables that the query does not name
            add(name, ())
    return found


def made_rows(
    tables: Sequence[str], schema: Schema, hints: Hints, choose: random.Random, children: Children
) -> dict[str, list[Row]]:
    """Generate the rows of each table, with a value for every stored column.

    Args:
        tables: parents first, as `tables_of` returns them.
        schema: the columns and keys of the tables.
        hints: literals that fit a column, by column name.
        choose: the random number generator.
        children: the number of children that a parent row has.
    """
    made: dict[str, list[Row]] = {}
    for table in tables:
        columns = schema.tables[table].stored
        unique = {name for name, column in schema.tables[table].columns.items() if column.unique}
        parents: dict[str, list[SQLValue]] = {}
        for key in schema.tables[table].foreign_keys:
            known = list(schema.tables[key.table].stored) if key.table in made else []
            for name, target in zip(key.columns, key.targets, strict=True):
                if target in known:
                    parents[name] = [row[known.index(target)] for row in made[key.table]]
        count = choose.choice((5, 6, 8)) if not parents or children == "one" else choose.choice((8, 12, 16))
        count = min([count, *(len(set(values)) for name, values in parents.items() if name in unique)])
        content = []
        for name, column in columns.items():
            if values := parents.get(name):
                first = choose.sample(values, len(values)) if name in unique or children != "any" else []
                content.append([*first, *choose.choices(values, k=count)][:count])
            else:
                is_name = bool(_NAMES.search(name)) or name in (table, table.removesuffix("s"))
                literals = [] if name in unique else hints.get(name, ())
                content.append(_values(column, literals, choose, count, is_key=name in unique, is_name=is_name))
        made[table] = list(zip(*content, strict=True))
    return made


def _values(
    column: Column, literals: Sequence[str], choose: random.Random, count: int, *, is_key: bool, is_name: bool
) -> list[SQLValue]:
    is_text = column.affinity in ("TEXT", "BLOB")
    left = list(literals)
    start = choose.randrange(1, 4)
    values: list[SQLValue] = []
    for place in range(count):
        near = choose.choice(left) if left and choose.random() < _NEAR else None
        if near is not None and is_text and is_name:  # two rows with the same name would be unusual
            left.remove(near)
        if is_text and near is not None:
            values.append(near.strip("%").replace("%", " ").replace("_", "a"))  # text that LIKE matches
        elif is_text:
            values.append(f"{_WORDS[(start + place) % 5]}{place}" if is_key or is_name else choose.choice(_WORDS))
        elif near is not None and _NUMBER.fullmatch(near):
            number = float(near) + choose.choice((-1, 0, 0, 1))
            values.append(number if column.affinity == "REAL" else int(number))
        else:
            values.append(start + place if is_key else choose.randrange(1, 200))
    return values
