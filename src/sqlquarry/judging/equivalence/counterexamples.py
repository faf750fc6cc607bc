"""A database on which two SQLite queries return other rows proves that they do not mean the same.

One such database is a proof, but people also call queries the same that differ on unusual rows only. So the rows are
plausible, and a difference counts only if it shows on every database for which the gold returns something. Queries that
leave a choice to SQLite (rows that tie at a LIMIT, columns that GROUP BY leaves out, the order of rows) are compared
only where each choice gives the same. Rows that are merely repeated more often do not count.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.judging.equivalence.made_rows import Children, literals_by_column, made_rows, tables_of
from sqlquarry.judging.equivalence.memory_database import MemoryDatabase, Row
from sqlquarry.judging.equivalence.refusals import memory_database
from sqlquarry.judging.results.comparison import results_equal, rows_match
from sqlquarry.judging.results.ordering import is_ordered, tied_places, with_order_keys
from sqlquarry.judging.sql.parsing import parse
from sqlquarry.judging.sql.schema import Schema
from sqlquarry.judging.sql.syntax import break_ties

if TYPE_CHECKING:
    from sqlglot.expressions import Query

_KINDS: tuple[Children, ...] = ("one", "each", "any", "any") * 3  # one database each
_FEWEST = 3  # databases for which the gold returns something
_UNSTEADY = re.compile(r"\b(now|current_\w+|random\w*)\b", re.IGNORECASE)  # also not the same twice


class _Choices(NamedTuple):
    """A query, and the same with other choices made where it leaves one."""

    sql: str
    others: tuple[str, ...]


def counterexample(gold: str, predicted: str, schema: Schema) -> str | None:
    """Describe a database on which the queries return other rows; None if they do not differ on all that are made.

    Args:
        gold: an SQLite query that SQLite accepts.
        predicted: another one; it is not trusted.
        schema: the tables, as SQLite has read them.
    """
    mine, theirs = _choices(gold), _choices(predicted)
    if mine is None or theirs is None or not schema.ddl:
        return None
    text = f"{gold} {predicted}"
    tables, hints = tables_of(text, schema), literals_by_column(gold, predicted)
    columns = {table: list(schema.tables[table].stored) for table in tables}
    database, told, description = memory_database(schema.ddl), 0, ""
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
        told += 1
        sizes = ", ".join(f"{len(content)} in {table}" for table, content in rows.items())
        description = (
            f"other rows on {told} made databases, such as {len(second)} instead of {len(first)} for rows: {sizes}"
        )
    return description if told >= _FEWEST else None


@lru_cache(maxsize=2048)
def _choices(sql: str) -> _Choices | None:
    """Return the query with its other choices; None if they are unknown or its rows may change from run to run."""
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
    """Return the query with the smallest or largest of tied rows at a LIMIT and of values that GROUP BY leaves out.

    "" if there is nothing to choose, None if the choice cannot be written.
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
                # MIN and MAX of a key are the key itself, so keys need not be known.
                if not is_alias and column.find_ancestor(exp.AggFunc, exp.Select) is select:
                    column.replace((exp.Max if largest else exp.Min)(this=column.copy()))
                    changed = True
    return tree.sql(dialect="sqlite") if changed else ""


def _result(database: MemoryDatabase, query: _Choices) -> list[Row] | None:
    """Return the rows; None if the query fails or another choice gives other rows."""
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
    except JudgingError:  # too hard to compare: nothing is proved
        return True


def _same(first: Sequence[Row], second: Sequence[Row]) -> bool:
    try:
        return results_equal(first, second, ordered=False)
    except JudgingError:
        return True
