"""Check proposed queries by running them, and keep account of what was kept and what was rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlquarry.data.database import Database
from sqlquarry.data.normal_form import query_form, question_form
from sqlquarry.errors import DatabaseError
from sqlquarry.results.cells import Cell
from sqlquarry.sql.hardness import hardness
from sqlquarry.sql.parsing import statements

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Query

_SAME_FORM = 3  # queries that differ only in their literals
_PLAIN_SHARE = 15  # at most every fifteenth query lists all rows of a table
_EMPTY = (None, 0, "", 0.0)
_LARGEST_RESULT = 10_000  # rows


class RejectedError(Exception):
    """A proposal is not worth keeping. The message is the reason, such as "no rows"."""


class Checker:
    """Runs proposed queries and remembers what was kept, so that nothing is repeated.

    Args:
        database: the database that runs the queries.
        n: the number of records that are wanted.
    """

    def __init__(self, database: Database, n: int) -> None:
        self._database = database
        self._most_plain = max(2, n // _PLAIN_SHARE)
        self._schema = database.schema_text()
        self._queries: set[str] = set()
        self._questions: set[frozenset[str]] = set()
        self._results: set[object] = set()
        self._forms: Counter[str] = Counter()
        self._plain = 0

    def check(self, question: str, sql: str, weaker: Sequence[str] = ()) -> Expr:
        """Run a query, and remember it if it is worth keeping. Return its syntax tree.

        Raises:
            RejectedError: it or its question repeats another one, or `inspect` rejects it.
        """
        asked = question_form(question, values=True)
        if asked in self._questions:
            raise RejectedError("repeated")
        tree, result = self.inspect(sql, weaker)
        self._questions.add(asked)
        self._queries.add(query_form(sql, self._schema, literals=True))
        self._forms[query_form(sql, self._schema)] += 1
        self._plain += _is_plain(tree)
        if result is not None:
            self._results.add(result)
        return tree

    def inspect(self, sql: str, weaker: Sequence[str] = ()) -> tuple[Expr, object]:
        """Run a query. Return its syntax tree, and a value that another query with the same result has, or None.

        Raises:
            RejectedError: it fails, repeats another one, returns nothing of interest, or leaves the answer open.
        """
        tree = parsed(sql, self._database.dialect)
        form = query_form(sql, self._schema)
        if query_form(sql, self._schema, literals=True) in self._queries or self._forms[form] >= _SAME_FORM:
            raise RejectedError("repeated")
        if _is_plain(tree) and self._plain >= self._most_plain:
            raise RejectedError("all rows of a table")
        rows = self._rows(sql)
        if not rows:
            raise RejectedError("no rows")
        if all(cell in _EMPTY for row in rows for cell in row):
            raise RejectedError("only NULL or 0")
        if len(rows) > _LARGEST_RESULT:
            raise RejectedError("too many rows")
        result = (_tables(tree), _in_any_order(rows)) if len(rows) > 1 or len(rows[0]) > 1 else None
        if result in self._results:
            raise RejectedError("repeated result")
        self._require_one_answer(tree)
        if any(_in_any_order(self._rows(other)) == _in_any_order(rows) for other in weaker):
            raise RejectedError("condition without effect")
        return tree, result

    def _rows(self, sql: str) -> Sequence[tuple[Cell, ...]]:
        try:
            return self._database.run(sql).rows
        except DatabaseError as error:
            raise RejectedError(error.kind or "fails") from None

    def _require_one_answer(self, tree: Expr) -> None:
        """Reject a query whose sort keys tie, because any order of these rows would be right."""
        from sqlglot import expressions as exp

        order, limit = tree.args.get("order"), tree.args.get("limit")
        if limit is None and order is None:
            return
        if order is None or not isinstance(tree, exp.Select) or tree.args.get("offset"):
            raise RejectedError("open answer")
        keys = [_sort_key(item.this, tree) for item in order.expressions]
        query = tree.copy()
        if not tree.args.get("distinct"):
            query.set("expressions", [*query.expressions, *keys])
        if limit is not None:
            query.set("limit", exp.Limit(expression=exp.Literal.number(int(limit.expression.name) + 1)))
        found = [row[-len(keys) :] for row in self._rows(query.sql(dialect=self._database.dialect))]
        if len({*found}) < len(found) or any(cell is None for row in found for cell in row):
            raise RejectedError("open answer")


def parsed(sql: str, dialect: str) -> Expr:
    """Return the syntax tree of a single query that only reads.

    Raises:
        RejectedError: it cannot be parsed, or it is another statement.
    """
    from sqlglot import expressions as exp

    found = statements(sql, dialect)
    if found is None or len(found) != 1 or not isinstance(found[0], exp.Query):
        raise RejectedError("no single query")
    return found[0]


def level_of(sql: str, dialect: str) -> str:
    """Return the level of a query in Spider: "easy", "medium", "hard" or "extra"."""
    return hardness(parsed(sql, dialect))


def columns_in(tree: Expr, columns: dict[str, set[str]]) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the tables of a query, and its columns as pairs of table and column, all in lower case.

    Args:
        tree: the query.
        columns: the columns of each table in lower case.
    """
    from sqlglot import expressions as exp

    found: set[tuple[str, str]] = set()
    tables = {name for name in _tables(tree) if name in columns}
    for column in tree.find_all(exp.Column):
        select: Query | None = column.find_ancestor(exp.Select)
        while select is not None:
            own = {table.alias_or_name.lower(): _name(table) for table in _sources(select)}
            named = [own[column.table.lower()]] if column.table.lower() in own else [] if column.table else own.values()
            if owners := [name for name in named if column.name.lower() in columns.get(name, ())]:
                found.add((owners[0], column.name.lower()))
                break
            select = select.find_ancestor(exp.Select)
    return tables, found


def _sources(select: Query) -> list[Expr]:
    from sqlglot import expressions as exp

    return [table for table in select.find_all(exp.Table) if table.find_ancestor(exp.Select) is select]


def _tables(tree: Expr) -> frozenset[str]:
    from sqlglot import expressions as exp

    return frozenset(_name(table) for table in tree.find_all(exp.Table))


def _name(table: Expr) -> str:
    return ".".join(filter(None, (table.text("db"), table.name))).lower()


def _sort_key(key: Expr, tree: Expr) -> Expr:
    from sqlglot import expressions as exp

    if isinstance(key, exp.Literal) and key.name.isdigit() and 0 < int(key.name) <= len(tree.expressions):
        key = tree.expressions[int(key.name) - 1]
    # A name that SELECT defines is not known within SELECT.
    named = {item.alias.lower(): item.this for item in tree.expressions if item.alias}
    key = named.get(key.name.lower(), key) if isinstance(key, exp.Column) and not key.table else key
    return key.unalias().copy()


def _is_plain(tree: Expr) -> bool:
    from sqlglot import expressions as exp

    clauses = ("where", "joins", "group", "having", "order", "limit", "distinct")
    return (
        isinstance(tree, exp.Select)
        and not any(tree.args.get(clause) for clause in clauses)
        and not tree.find(exp.AggFunc)
    )


def _in_any_order(rows: Sequence[tuple[Cell, ...]]) -> tuple[str, ...]:
    return tuple(sorted(map(repr, rows)))
