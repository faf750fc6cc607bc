"""Resolves the names in a query to stored columns, and finds the double-quoted names that are text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlquarry.sql.parsing import parse
from sqlquarry.sql.schema import Place, Schema
from sqlquarry.sql.scopes import Binding, DerivedColumn, RowSource, Scope, Target
from sqlquarry.sql.syntax import aggregate_around, aggregates, literal_value

if TYPE_CHECKING:
    from sqlglot.expressions import Column, Expr, Query, Select


def read_query(sql: str, schema: Schema) -> tuple[Expr, ColumnResolver] | None:
    """Return the tree of an SQLite query and the resolver of its names, or None if it cannot be parsed as a query.

    Text in double quotes is replaced by literals, because SQLite reads "abc" as text if no column has that name
    (https://sqlite.org/quirks.html#dblquote).
    """
    from sqlglot import expressions as exp

    parsed = parse(sql, "sqlite")
    if not isinstance(parsed, exp.Query):
        return None
    tree = parsed.copy()
    resolver = ColumnResolver(schema)
    aliases = {alias.alias.lower() for alias in tree.find_all(exp.Alias)}
    for column in list(tree.find_all(exp.Column)):
        if column.table or not column.this.args.get("quoted") or column.name.lower() in aliases:
            continue
        if resolver.place(column) is None and column.parent is not None:
            column.replace(exp.Literal.string(column.name))
    return tree, resolver


class ColumnResolver:
    """A resolver of the names in one query to stored columns.

    The query must be one that a database has accepted. The first match is used, without a check for ambiguity.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        # Keys are identities of nodes. The node is stored too, so that no other object can get the same identity.
        self._places: dict[int, tuple[Column, Place | None]] = {}
        self._scopes: dict[int, tuple[Select, Scope]] = {}

    def place(self, column: Column) -> Place | None:
        """Return the stored column that a name refers to, even through derived tables, or None if it is unknown."""
        if id(column) not in self._places:
            self._places[id(column)] = column, None  # the answer if a cycle of WITH clauses leads back here
            self._places[id(column)] = column, self._find(column)
        return self._places[id(column)][1]

    def _find(self, column: Column) -> Place | None:
        from sqlglot import expressions as exp

        select = column.find_ancestor(exp.Select)
        if select is None:
            return None
        targets = self._scope(select).candidates(column.name.lower(), column.table.lower())
        return next((place for target in targets if (place := self._stored(target))), None)

    def _stored(self, target: Target) -> Place | None:
        from sqlglot import expressions as exp

        if isinstance(target, DerivedColumn):
            return self.place(target.tree) if isinstance(target.tree, exp.Column) else None
        source, name = target
        return (source.table.name.lower(), name) if source.table else None

    def _scope(self, select: Select) -> Scope:
        from sqlglot import expressions as exp

        if id(select) not in self._scopes:
            around = select.find_ancestor(exp.Select)  # correlated subqueries can use the outer tables
            outer = self._scope(around) if around is not None else None
            scope = Scope(outer, outer.depth + 1 if outer else 1)
            self._scopes[id(select)] = select, scope  # stored first, because its sources may refer to it in a cycle
            start = select.args.get("from_")
            joins = select.args.get("joins") or ()
            scope.bindings += [self._binding(part.this) for part in (*([start] if start else ()), *joins)]
        return self._scopes[id(select)][1]

    def _binding(self, source: Expr) -> Binding:
        from sqlglot import expressions as exp

        alias = source.alias_or_name.lower()
        inner: Expr | None = source.this if isinstance(source, exp.Subquery) else None
        if isinstance(source, exp.Table):
            name = source.name.lower()
            if table := self.schema.tables.get(name):
                stored = RowSource(("table", name), table.columns, table)
                return Binding(alias, {column: (stored, column) for column in table.columns}, stored)
            inner = next((cte.this for cte in source.root().find_all(exp.CTE) if cte.alias.lower() == name), None)
        return Binding(alias, self._outputs(inner) if isinstance(inner, exp.Query) else None)

    def _outputs(self, query: Query) -> Mapping[str, Target]:
        from sqlglot import expressions as exp

        outputs: dict[str, Target] = {}
        for output in query.selects:
            select = output.find_ancestor(exp.Select)
            if select is not None:
                outputs.setdefault(output.alias_or_name.lower(), DerivedColumn(output.unalias(), self._scope(select)))
        return outputs

    def countable_columns(self, select: Select) -> list[Expr]:
        """Return the qualified columns of the first stored table whose COUNT may differ from the number of rows."""
        from sqlglot import expressions as exp

        outer = any(join.side for join in select.args.get("joins") or ())
        for binding in self._scope(select).bindings:
            if binding.source is not None and (table := binding.source.table):
                columns = [column for column in table.columns.values() if outer or not column.required]
                return [exp.column(column.name, table=binding.alias, quoted=True) for column in columns]
        return []

    def group_keys(self, select: Select) -> list[Expr]:
        """Return the expressions by which a SELECT is grouped, with numbers and aliases of outputs resolved."""
        from sqlglot import expressions as exp

        group = select.args.get("group")
        aliases = {item.alias.lower(): item.this for item in select.selects if isinstance(item, exp.Alias)}
        found: list[Expr] = []
        for key in group.expressions if group else ():
            number = literal_value(key)
            if isinstance(number, int) and 1 <= number <= len(select.selects):
                found.append(select.selects[number - 1].unalias())
            elif isinstance(key, exp.Column) and not key.table and self.place(key) is None:
                found.append(aliases.get(key.name.lower(), key))
            else:
                found.append(key)
        return found

    def bare_columns(self, select: Select) -> list[Column]:
        """Return the columns that a grouped SELECT returns or sorts by but neither groups by nor aggregates."""
        from sqlglot import expressions as exp

        order = select.args.get("order")
        if select.args.get("group") is None and not any(aggregates(item) for item in select.selects):
            return []
        keys = {self.place(column) for key in self.group_keys(select) for column in key.find_all(exp.Column)}
        return [
            column
            for item in (*select.selects, *(order.expressions if order else ()))
            for column in item.find_all(exp.Column)
            if aggregate_around(column) is select and self.place(column) not in {None, *keys}
        ]
