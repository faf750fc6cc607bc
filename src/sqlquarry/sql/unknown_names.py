"""Find names in a query that its schema lacks, for dialects whose database is not at hand.

Only certain problems are reported. A name that may come from an unknown table, a function or the database itself is
accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlquarry.sql.parsing import parse
from sqlquarry.sql.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Column, Expr
    from sqlglot.optimizer.scope import Scope

# Names that databases provide without a declaration.
_SYSTEM_SCHEMAS = {"information_schema", "pg_catalog", "sys", "mysql"}
_SYSTEM_COLUMNS = {
    *("rowid", "oid", "ctid", "xmin", "xmax", "tableoid", "rownum", "level", "value", "ordinality", "offset"),
    *("current_date", "current_time", "current_timestamp", "current_user", "session_user", "sysdate", "user"),
    *("_partitiontime", "_partitiondate", "_table_suffix", "_file", "dual"),
}  # fmt: skip


class NameProblem(NamedTuple):
    """A name that is unknown or not clear.

    Args:
        kind: "table" or "column" if the schema lacks it, "ambiguous" if several tables of the query have the column.
        name: the name as written, with its table if it has one.
    """

    kind: Literal["table", "column", "ambiguous"]
    name: str


def unknown_names(sql: str, schema: Schema, dialect: str) -> list[NameProblem]:
    """Return the tables and columns of a query that the schema lacks, and columns that several of its tables have.

    Args:
        sql: one query.
        schema: all tables that the query may use.
        dialect: the SQL dialect, by sqlglot's name.
    """
    from sqlglot import expressions as exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.scope import traverse_scope

    tree = parse(sql, dialect)
    # Functions in FROM and PIVOT make columns that no schema has.
    if not isinstance(tree, exp.Query) or tree.find(exp.UDTF, exp.Pivot, exp.MatchRecognize, exp.Dot):
        return []
    try:
        scopes = traverse_scope(tree.copy())
    except (SqlglotError, RecursionError):
        return []
    found = [problem for scope in scopes for problem in _Names(schema, dialect).problems(scope)]
    return list(dict.fromkeys(found))


class _Names:
    """The names of a schema in one dialect."""

    def __init__(self, schema: Schema, dialect: str) -> None:
        self._dialect = dialect
        # Quoted names keep their case. A difference in case alone is not reported, because it depends on settings.
        self._tables = {key.lower(): {name.lower() for name in table.columns} for key, table in schema.tables.items()}

    def problems(self, scope: Scope) -> Iterator[NameProblem]:
        from sqlglot import expressions as exp

        for table in scope.tables:
            if isinstance(table.this, exp.Identifier) and not self._is_known(table, scope):
                yield NameProblem("table", table.name)
        for column in scope.columns:
            if column.find_ancestor(exp.Select) is scope.expression and column.name:
                yield from self._column_problem(column, scope)

    def _is_known(self, table: Expr, scope: Scope) -> bool:
        name = table.name.lower()
        is_system = table.text("db").lower() in _SYSTEM_SCHEMAS or name in _SYSTEM_COLUMNS
        return is_system or name in self._tables or _is_cte(table, scope)

    def _column_problem(self, column: Column, scope: Scope) -> Iterator[NameProblem]:
        name, owner = column.name.lower(), column.table
        if name in _SYSTEM_COLUMNS or name == "*":
            return
        level: Scope | None = scope
        while level is not None:
            sources = {alias.lower(): self._outputs(source) for alias, source in level.sources.items()}
            used = {alias: outputs for alias, outputs in sources.items() if alias in _from_names(level)}
            if owner:
                if owner.lower() in used:
                    outputs = used[owner.lower()]
                    if outputs is not None and name not in outputs:
                        yield NameProblem("column", f"{owner}.{column.name}")
                    return
            else:
                if None in used.values() or name in _aliases(level):
                    return
                owners = [alias for alias, outputs in used.items() if name in (outputs or ())]
                if len(owners) > 1 and not _merges(level) and level is scope:
                    yield NameProblem("ambiguous", column.name)
                if owners:
                    return
            level = level.parent
        # A qualifier may be the column of a struct, as in BigQuery.
        if not owner:
            yield NameProblem("column", column.name)

    def _outputs(self, source: object) -> set[str] | None:
        """Return the lower-case column names of a source, or None if they are unknown."""
        from sqlglot import expressions as exp
        from sqlglot.optimizer.scope import Scope

        if isinstance(source, exp.Table):
            return (
                None
                if source.args.get("alias") and source.alias_column_names
                else self._tables.get(source.name.lower())
            )
        if not isinstance(source, Scope) or not isinstance(source.expression, exp.Query):
            return None
        names = [name.lower() for name in source.expression.named_selects]
        outer = source.expression.parent
        renamed = outer.alias_column_names if isinstance(outer, exp.CTE | exp.Subquery) else []
        if renamed:
            return {name.lower() for name in renamed}
        return None if "*" in names or "" in names or source.expression.is_star else set(names)


def _from_names(scope: Scope) -> set[str]:
    return {name.lower() for name in scope.selected_sources}


def _aliases(scope: Scope) -> set[str]:
    from sqlglot import expressions as exp

    return {item.alias.lower() for item in scope.expression.find_all(exp.Alias)}


def _merges(scope: Scope) -> bool:
    """Return whether a join merges columns, by USING or NATURAL, so that their names are not ambiguous."""
    joins = scope.expression.args.get("joins") or ()
    return any(join.args.get("using") or join.args.get("method") == "NATURAL" for join in joins)


def _is_cte(table: Expr, scope: Scope) -> bool:
    return table.name.lower() in {name.lower() for name in scope.cte_sources}
