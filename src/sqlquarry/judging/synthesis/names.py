"""Which table and column a name in a query means, and which double-quoted names are strings."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sqlquarry.judging.parsing import parse
from sqlquarry.judging.synthesis.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Column, Expr, Select

Place = tuple[str, str]  # table and column, lower case
Value = str | int | float


def literal_value(node: object) -> Value | None:
    """The value of a literal, also with a minus sign; None for everything else."""
    from sqlglot import expressions as exp

    if isinstance(node, exp.Neg):
        value = literal_value(node.this)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, exp.Boolean):
        return int(node.this)
    if not isinstance(node, exp.Literal):
        return None
    if node.is_string:
        return str(node.this)
    for number in (int, float):
        with suppress(ValueError):
            return number(node.this)
    return None


def read_query(sql: str, schema: Schema) -> tuple[Expr, Names] | None:
    """The SQLite query's tree, with strings in double quotes made literals, and its names; None where unreadable.

    SQLite reads "abc" as a string where no column of that name is in reach (https://sqlite.org/quirks.html).
    """
    from sqlglot import expressions as exp

    parsed = parse(sql, "sqlite")
    if not isinstance(parsed, exp.Query):
        return None
    tree = parsed.copy()
    names = Names(schema)
    aliases = {alias.alias.lower() for alias in tree.find_all(exp.Alias)}
    for column in list(tree.find_all(exp.Column)):
        if column.table or not column.this.args.get("quoted") or column.name.lower() in aliases:
            continue
        if names.place(column) is None and column.parent is not None:
            column.replace(exp.Literal.string(column.name))
    return tree, names


def is_aggregate(node: Expr) -> bool:
    """Whether it reduces a group to one value; SUM(x) OVER (…) gives a value to each row instead."""
    from sqlglot import expressions as exp

    if not isinstance(node, exp.AggFunc):
        return False
    outer: Expr = node
    while isinstance(outer.parent, exp.Filter | exp.WithinGroup | exp.IgnoreNulls | exp.RespectNulls):
        outer = outer.parent
    return not (isinstance(outer.parent, exp.Window) and outer.arg_key == "this")


def aggregates(node: Expr) -> list[Expr]:
    """Return the aggregates in an expression, or in a SELECT, but for window functions and those of subqueries."""
    from sqlglot import expressions as exp

    owner = node if isinstance(node, exp.Select) else node.find_ancestor(exp.Select)
    found = (item for item in node.find_all(exp.AggFunc) if is_aggregate(item))
    return [item for item in found if item.find_ancestor(exp.Select) is owner]


def _aggregate_around(column: Column) -> Expr | None:
    """Return the innermost aggregate or SELECT that a column is in."""
    from sqlglot import expressions as exp

    node = column.find_ancestor(exp.AggFunc, exp.Filter, exp.Select)
    while node is not None and not isinstance(node, exp.Select):
        if is_aggregate(node.this if isinstance(node, exp.Filter) else node):
            break
        node = node.find_ancestor(exp.AggFunc, exp.Filter, exp.Select)
    return node


class Names:
    """Resolves columns of one query against a schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        # By identity, with the column, which keeps it from being given to another.
        self._places: dict[int, tuple[Column, Place | None]] = {}

    def place(self, column: Column) -> Place | None:
        """The base table's column that is meant, also through derived tables; None where it cannot be told."""
        if id(column) not in self._places:
            self._places[id(column)] = column, None  # what a cycle of common table expressions finds
            self._places[id(column)] = column, self._find(column)
        return self._places[id(column)][1]

    def _find(self, column: Column) -> Place | None:
        from sqlglot import expressions as exp

        name, qualifier = column.name.lower(), column.table.lower()
        select = column.find_ancestor(exp.Select)
        while select is not None:
            for alias, source in self._sources(select):
                if qualifier in ("", alias) and (place := self._within(source, name)):
                    return place
            select = select.find_ancestor(exp.Select)  # correlated subqueries see the tables outside
        return None

    def countable_columns(self, select: Select) -> list[Expr]:
        """Columns of the first base table whose count may differ from that of the rows, qualified by its alias."""
        from sqlglot import expressions as exp

        outer = any(join.side for join in select.args.get("joins") or ())
        for alias, source in self._sources(select):
            if isinstance(source, exp.Table) and (table := self.schema.tables.get(source.name.lower())):
                columns = [column for column in table.columns if outer or not column.required]
                return [exp.column(column.name, table=alias, quoted=True) for column in columns]
        return []

    def group_keys(self, select: Select) -> list[Expr]:
        """What a SELECT is grouped by; a number or an alias stands for a column of the result."""
        from sqlglot import expressions as exp

        group = select.args.get("group")
        aliases = {item.alias.lower(): item.this for item in select.selects if isinstance(item, exp.Alias)}
        found: list[Expr] = []
        for key in group.expressions if group else ():
            place = literal_value(key)
            if isinstance(place, int) and 1 <= place <= len(select.selects):
                found.append(select.selects[place - 1].unalias())
            elif isinstance(key, exp.Column) and not key.table and self.place(key) is None:
                found.append(aliases.get(key.name.lower(), key))
            else:
                found.append(key)
        return found

    def bare_columns(self, select: Select) -> list[Column]:
        """Columns that a grouped SELECT returns or sorts by, though they are neither grouped by nor aggregated."""
        from sqlglot import expressions as exp

        order = select.args.get("order")
        if select.args.get("group") is None and not any(aggregates(item) for item in select.selects):
            return []
        keys = {self.place(column) for key in self.group_keys(select) for column in key.find_all(exp.Column)}
        return [
            column
            for item in (*select.selects, *(order.expressions if order else ()))
            for column in item.find_all(exp.Column)
            if _aggregate_around(column) is select and self.place(column) not in {None, *keys}
        ]

    @staticmethod
    def _sources(select: Select) -> list[tuple[str, Expr]]:
        start = select.args.get("from_") or select.args.get("from")
        sources = [start.this] if start else []
        sources += [join.this for join in select.args.get("joins") or ()]
        return [(source.alias_or_name.lower(), source) for source in sources]

    def _within(self, source: Expr, name: str) -> Place | None:
        from sqlglot import expressions as exp

        if isinstance(source, exp.Table):
            table = self.schema.tables.get(source.name.lower())
            if table is not None:
                return (source.name.lower(), name) if table.column(name) else None
            found = [cte for cte in source.root().find_all(exp.CTE) if cte.alias.lower() == source.name.lower()]
            inner = found[0].this if found else None
        else:
            inner = source.this if isinstance(source, exp.Subquery) else None
        if not isinstance(inner, exp.Query):
            return None
        for projection in inner.selects:
            if projection.alias_or_name.lower() == name:
                column = projection.unalias()
                return self.place(column) if isinstance(column, exp.Column) else None
        return None
