"""Searches for databases on which two SQLite queries return different rows, which shows that they are not equivalent.

One such database is a proof. But people also treat queries as the same if they differ on unusual rows only. Therefore
the rows are plausible, and a difference counts only if it occurs on every database for which the gold returns
something. Some queries leave a choice to SQLite: rows that tie at a LIMIT, columns that GROUP BY leaves out, the order
of rows. They are compared only on databases where every choice gives the same result. A different number of repetitions
of a row does not count as a difference.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.judging.equivalence.made_rows import Children, literals_by_column, made_rows, tables_of
from sqlquarry.results.comparison import results_equal, rows_match
from sqlquarry.results.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.sql.memory_database import MemoryDatabase, Row, memory_database
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.syntax import break_ties

if TYPE_CHECKING:
    from sqlglot.expressions import Query

_KINDS: tuple[Children, ...] = ("one", "each", "any", "any") * 3  # one database each
_FEWEST = 3  # databases on which the gold must return something
_UNSTEADY = re.compile(r"\b(now|current_\w+|random\w*)\b", re.IGNORECASE)  # their values may change between runs


class _Choices(NamedTuple):
    """A query, and variants of it that make the choices which the query leaves to SQLite."""

    sql: str
    others: tuple[str, ...]


def counterexample(gold: str, predicted: str, schema: Schema) -> str | None:
    """Describe a generated database on which the queries return different rows.

    Return None if the queries agree on a usable database, or if fewer than three databases can be used.

    Args:
        gold: a query that SQLite accepts.
        predicted: another query. It is not trusted.
        schema: the tables, as SQLite read them.
    """
    mine, theirs = _choices(gold), _choices(predicted)
    if mine is None or theirs is None or not schema.ddl:
        return None
    text = f"{gold} {predicted}"
    tables, hints = tables_of(text, schema), literals_by_column(gold, predicted)
    columns = {table: list(schema.tables[table].stored) for table in tables}
    database, differing, description = memory_database(schema.ddl), 0, ""
    for seed, children in enumerate(_KINDS):
        rows = made_rows(tables, schema, hints, random.Random(seed), children)  # noqa: S311 - no secret
        with database.filled(rows, columns):
            first = _result(database, mine)
            if first is None or all(value in (None, 0) for row in first for value in row):
                continue
            second = _result(database, theirs)
            if second is None:
                continue
            if _agree(first, second, gold, database):
                return None
        differing += 1
        sizes = ", ".join(f"{len(content)} rows in {table}" for table, content in rows.items())
        description = (
            f"different rows on {differing} generated databases, "
            f"for example {len(second)} rows instead of {len(first)} on a database with {sizes}"
        )
    return description if differing >= _FEWEST else None


@lru_cache(maxsize=2048)
def _choices(sql: str) -> _Choices | None:
    """Return the query with its variants, or None if they cannot be written or the rows may change from run to run."""
    from sqlglot import expressions as exp

    tree = parse(sql, "sqlite")
    if not isinstance(tree, exp.Query) or _UNSTEADY.search(sql):
        return None
    if not tree.find(exp.Limit, exp.Group, exp.AggFunc):
        return _Choices(sql, ())
    found = [_chosen(tree.copy(), largest=largest) for largest in (False, True)]
    others = [text for text in found if text is not None]
    return _Choices(sql, tuple(text for text in others if text)) if len(others) == len(found) else None


def _chosen(tree: Query, *, largest: bool) -> str | None:
    """Return the query with the smallest or largest of the rows that tie at a LIMIT, or of the values in bare columns.

    Return "" if the query leaves no choice, or None if the choice cannot be written in SQL.
    """
    from sqlglot import expressions as exp

    changed = False
    for query in list(tree.find_all(exp.Query)):
        if query.args.get("limit"):
            if any(output.is_star for output in query.selects):
                return None
            break_ties(query, largest=largest)
            changed = True
    for select in list(tree.find_all(exp.Select)):
        parts = [*select.selects, *(select.args[name] for name in ("having", "order") if select.args.get(name))]
        aggregates = [node for part in parts for node in part.find_all(exp.AggFunc) if node.parent_select is select]
        if not aggregates and not select.args.get("group"):
            continue
        if any(part.find(exp.Select) or part.is_star for part in parts):
            return None
        aliases = {output.alias.lower() for output in select.selects if output.alias}
        for part in parts:
            for column in list(part.find_all(exp.Column)):
                is_alias = not column.table and column.name.lower() in aliases and part.key in ("having", "order")
                # MIN and MAX of a GROUP BY key are the key itself, so keys need no special treatment.
                if not is_alias and column.find_ancestor(exp.AggFunc, exp.Select) is select:
                    column.replace((exp.Max if largest else exp.Min)(this=column.copy()))
                    changed = True
    return tree.sql(dialect="sqlite") if changed else ""


def _result(database: MemoryDatabase, query: _Choices) -> list[Row] | None:
    """Return the rows, or None if the query fails or another choice gives different rows."""
    rows = database.run(query.sql)
    if rows is None:
        return None
    others = [database.run(query.sql, reverse=True), *map(database.run, query.others)]
    return None if any(other is None or not _same(rows, other) for other in others) else rows


def _agree(gold: list[Row], predicted: list[Row], sql: str, database: MemoryDatabase) -> bool:
    if not _same(list(dict.fromkeys(gold)), list(dict.fromkeys(predicted))):
        return False
    keyed = with_order_keys(sql) if is_ordered(sql) and len(gold) == len(predicted) else None
    if keyed is None:
        return True
    with_keys = database.run(keyed.sql)
    if with_keys is None or len(with_keys) != len(gold):
        return True
    try:
        return rows_match(gold, predicted, tied_places(with_keys, keyed.keys))
    except JudgingError:  # The rows are too hard to compare, so this proves nothing.
        return True


def _same(first: Sequence[Row], second: Sequence[Row]) -> bool:
    try:
        return results_equal(first, second, ordered=False)
    except JudgingError:
        return True
