"""Generates mutants of a query: wrong variants with one small change each, which a good test database must expose.

The operators follow Tuya, Suarez-Cabal and de la Riva, "Mutating database queries" (2007), for typical model mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlquarry.sql.resolver import ColumnResolver
from sqlquarry.sql.syntax import aggregates, literal_value

if TYPE_CHECKING:
    from sqlglot.expressions import (
        AggFunc,
        Binary,
        Column,
        Expr,
        Join,
        Limit,
        Literal,
        Ordered,
        Select,
        SetOperation,
        Table,
        Window,
    )

_MOST_MUTANTS = 120
_OTHER_COLUMNS = 3  # number of columns that replace a column
_OTHER_TABLES = 3  # number of tables that replace a table


class _Edit(NamedTuple):
    """A replacement of `node` by `new`."""

    node: Expr
    new: Expr


class _Setting(NamedTuple):
    """A new value for an argument of `node`."""

    node: Expr
    key: str
    value: Expr | Sequence[Expr] | bool | str | None


def mutants(tree: Expr, resolver: ColumnResolver) -> list[str]:
    """Return the SQLite texts of the mutants without repetitions. `tree` is unchanged afterwards.

    Some mutants may be equivalent to the query, and some may not run. The caller must check both. If there are more
    than 120, only every n-th one is returned.
    """
    original = tree.sql(dialect="sqlite")
    found = dict.fromkeys(_applied(tree, edit) for edit in list(_edits(tree, resolver)))
    found.pop(original, None)
    texts = list(found)
    step = -(-len(texts) // _MOST_MUTANTS)
    return texts[::step] if step > 1 else texts


def _applied(tree: Expr, edit: _Edit | _Setting) -> str:
    """Return the text of the tree with one edit, and undo the edit. This is much cheaper than copying the tree."""
    if isinstance(edit, _Setting):
        old = edit.node.args.get(edit.key)
        edit.node.set(edit.key, edit.value)
        text = tree.sql(dialect="sqlite")
        edit.node.set(edit.key, old)
        return text
    if edit.node is tree:
        return edit.new.sql(dialect="sqlite")
    edit.node.replace(edit.new)
    text = tree.sql(dialect="sqlite")
    edit.new.replace(edit.node)
    return text


def _edits(tree: Expr, resolver: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    makers: Sequence[tuple[type[Expr], Callable[[Any, ColumnResolver], Iterator[_Edit | _Setting]]]] = (
        (exp.Binary, _operator_edits),
        (exp.Predicate, _negations),
        (exp.AggFunc, _aggregate_edits),
        (exp.Literal, _literal_edits),
        (exp.Column, _column_edits),
        (exp.Ordered, _order_edits),
        (exp.Join, _join_edits),
        (exp.Limit, _limit_edits),
        (exp.Window, _window_edits),
        (exp.Func, _function_edits),
        (exp.Table, _table_edits),
        (exp.Select, _select_edits),
        (exp.SetOperation, _set_edits),
    )
    for node in tree.walk():
        for kind, make in makers:
            if isinstance(node, kind):
                yield from make(node, resolver)


def _operator_edits(node: Binary, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    others: Mapping[type[Expr], tuple[type[Expr], ...]] = {
        exp.EQ: (exp.NEQ, exp.GTE, exp.LTE),
        exp.NEQ: (exp.EQ,),
        exp.GT: (exp.GTE, exp.LT),
        exp.GTE: (exp.GT, exp.LTE),
        exp.LT: (exp.LTE, exp.GT),
        exp.LTE: (exp.LT, exp.GTE),
        exp.Add: (exp.Sub,),
        exp.Sub: (exp.Add,),
        exp.Mul: (exp.Div,),
        exp.Div: (exp.Mul,),
        exp.And: (exp.Or,),
        exp.Or: (exp.And,),
    }
    for other in others.get(type(node), ()):
        yield _Edit(node, other(this=node.this.copy(), expression=node.expression.copy()))
    if isinstance(node, exp.Connector):
        yield _Edit(node, node.this.copy())
        yield _Edit(node, node.expression.copy())


def _negations(node: Expr, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    if isinstance(node, exp.Like):
        yield _Setting(node, "negate", not node.args.get("negate"))
    elif isinstance(node, exp.In | exp.Between | exp.Exists | exp.Is | exp.Glob):
        if isinstance(node.parent, exp.Not):
            yield _Edit(node.parent, node.copy())
        else:
            yield _Edit(node, exp.Not(this=node.copy()))


def _aggregate_edits(node: AggFunc, resolver: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    others: Mapping[type[Expr], tuple[type[Expr], ...]] = {
        exp.Max: (exp.Min, exp.Sum),
        exp.Min: (exp.Max, exp.Sum),
        exp.Sum: (exp.Avg, exp.Max, exp.Count),
        exp.Avg: (exp.Sum, exp.Max),
    }
    for other in others.get(type(node), ()):
        yield _Edit(node, other(this=node.this.copy()))
    yield from _argument_edits(node, resolver)


def _argument_edits(node: AggFunc, resolver: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    argument = node.this
    if isinstance(argument, exp.Distinct) and argument.expressions:
        yield _Edit(node, type(node)(this=argument.expressions[0].copy()))
    elif isinstance(argument, exp.Star):
        select = node.find_ancestor(exp.Select)
        for column in resolver.countable_columns(select)[:_OTHER_COLUMNS] if select else ():
            yield _Edit(node, exp.Count(this=column))
            yield _Edit(node, exp.Count(this=exp.Distinct(expressions=[column.copy()])))
    elif argument is not None:
        if not isinstance(node, exp.Max | exp.Min):  # DISTINCT does not change their value
            yield _Edit(node, type(node)(this=exp.Distinct(expressions=[argument.copy()])))
        if isinstance(node, exp.Count):
            yield _Edit(node, exp.Count(this=exp.Star()))
        yield _Edit(node, argument.copy())


def _literal_edits(node: Literal, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    value = literal_value(node)
    if isinstance(node.parent, exp.Limit | exp.Offset) or value is None:
        return
    if isinstance(value, str):
        others = {value[:-1], value.swapcase()} if not isinstance(node.parent, exp.Like | exp.Glob) else set()
        if isinstance(node.parent, exp.Like | exp.Glob):
            any_text = "*" if isinstance(node.parent, exp.Glob) else "%"
            others = {value.strip(any_text), value.lstrip(any_text), value.rstrip(any_text)}
        for text in sorted(others - {value}):
            yield _Edit(node, exp.Literal.string(text))
    else:
        for number in (value + 1, value - 1):
            if number >= 0:
                yield _Edit(node, exp.Literal.number(number))


def _column_edits(node: Column, resolver: ColumnResolver) -> Iterator[_Edit | _Setting]:
    place = resolver.place(node)
    if place is None:
        return
    columns = resolver.schema.tables[place[0]].columns
    mine = columns[place[1]]
    others = [column for column in columns.values() if column is not mine]
    others.sort(key=lambda column: column.kind != mine.kind)  # the most likely confusions first
    for column in others[:_OTHER_COLUMNS]:
        other = node.copy()
        other.this.set("this", column.name)
        other.this.set("quoted", True)
        yield _Edit(node, other)


def _order_edits(node: Ordered, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    down = not node.args.get("desc")
    yield _Edit(node, exp.Ordered(this=node.this.copy(), desc=down, nulls_first=not down))


def _limit_edits(node: Limit, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    count = literal_value(node.expression)
    if isinstance(count, int):
        for other in (count + 1, count - 1):
            if other > 0:
                yield _Setting(node, "expression", exp.Literal.number(other))


def _select_edits(node: Select, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    if not _has_no_repetitions(node):
        yield _Setting(node, "distinct", None if node.args.get("distinct") else exp.Distinct())
    for clause in ("where", "having", "group", "order", "limit", "offset"):
        if node.args.get(clause):
            yield _Setting(node, clause, None)


def _has_no_repetitions(node: Select) -> bool:
    """Return whether DISTINCT has no effect. Such mutants would be the most common equivalent ones."""
    from sqlglot import expressions as exp

    if isinstance(node.parent, exp.In | exp.Exists | exp.Intersect | exp.Except) and not node.args.get("limit"):
        return True
    if isinstance(node.parent, exp.Union) and node.parent.args.get("distinct"):
        return True
    group = node.args.get("group")
    if group is None:
        return bool(node.selects) and all(aggregates(item) for item in node.selects)
    return all(key in node.selects for key in group.expressions)


def _join_edits(node: Join, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    if node.args.get("on") or node.args.get("using"):
        yield _Setting(node, "side", "" if node.side else "LEFT")
    if node.args.get("on"):
        yield _Setting(node, "on", None)


def _window_edits(node: Window, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    """Yield edits that change the ranking or the direction of LAG and LEAD, or leave out a part of OVER."""
    yield from _window_function_edits(node)
    keys = node.args.get("partition_by") or []
    for i in range(len(keys)):
        yield _Setting(node, "partition_by", [*keys[:i], *keys[i + 1 :]])
    for clause in ("order", "spec"):
        if node.args.get(clause):
            yield _Setting(node, clause, None)
    yield from _frame_edits(node)


def _window_function_edits(node: Window) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    function = node.this
    ranks = (exp.Rank, exp.DenseRank, exp.RowNumber)
    swaps: Mapping[type[Expr], type[Expr]] = {exp.Lag: exp.Lead, exp.Lead: exp.Lag}
    ends: Mapping[type[Expr], type[Expr]] = {exp.FirstValue: exp.LastValue, exp.LastValue: exp.FirstValue}
    if isinstance(function, ranks):
        for rank in ranks:
            if not isinstance(function, rank):
                yield _Edit(function, rank())
        yield _Edit(node, exp.Literal.number(1))
    elif other := swaps.get(type(function)):
        yield _Edit(function, other(**_copied_arguments(function)))
    elif other := ends.get(type(function)):
        yield _Edit(function, other(this=function.this.copy()))


def _frame_edits(node: Window) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    framed = (exp.Sum, exp.Avg, exp.Count, exp.Min, exp.Max, exp.LastValue)
    if not isinstance(node.this, framed) or not node.args.get("order"):
        return
    frames = (("UNBOUNDED", "PRECEDING", "CURRENT ROW", None), ("UNBOUNDED", "PRECEDING", "UNBOUNDED", "FOLLOWING"))
    for start, start_side, end, end_side in frames:
        frame = exp.WindowSpec(kind="ROWS", start=start, start_side=start_side, end=end, end_side=end_side)
        if frame != node.args.get("spec"):
            yield _Setting(node, "spec", frame)


def _copied_arguments(node: Expr) -> dict[str, object]:
    from sqlglot import expressions as exp

    return {key: value.copy() if isinstance(value, exp.Expr) else value for key, value in node.args.items()}


def _function_edits(node: Expr, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    """Yield edits that leave out a function which affects only some values: signs, fractions, spaces, letter case."""
    from sqlglot import expressions as exp

    if isinstance(node, exp.Abs | exp.Round | exp.Trim | exp.Lower | exp.Upper):
        yield _Edit(node, node.this.copy())
    if isinstance(node, exp.Round) and not node.args.get("decimals"):
        yield _Edit(node, exp.cast(node.this.copy(), "INT"))
    if isinstance(node, exp.Round) and isinstance(digits := literal_value(node.args.get("decimals")), int):
        yield _Setting(node, "decimals", exp.Literal.number(digits + 1))


def _table_edits(node: Table, resolver: ColumnResolver) -> Iterator[_Edit | _Setting]:
    """Yield edits that replace a table by another one with all columns that the query uses of it."""
    from sqlglot import expressions as exp

    select = node.find_ancestor(exp.Select)
    if select is None or node.name.lower() not in resolver.schema.tables:
        return
    places = {resolver.place(column) for column in select.find_all(exp.Column)}
    used = {place[1] for place in places if place and place[0] == node.name.lower()}
    others = [
        table
        for name, table in resolver.schema.tables.items()
        if name != node.name.lower() and used <= set(table.columns)
    ]
    for table in others[:_OTHER_TABLES]:
        # The alias is the old name, so that qualified columns still refer to the table.
        alias = exp.TableAlias(this=exp.to_identifier(node.alias_or_name, quoted=True))
        yield _Edit(node, exp.Table(this=exp.to_identifier(table.name, quoted=True), alias=alias))


def _set_edits(node: SetOperation, _: ColumnResolver) -> Iterator[_Edit | _Setting]:
    from sqlglot import expressions as exp

    for other in (exp.Union, exp.Intersect, exp.Except):
        if not isinstance(node, other):
            yield _Edit(node, other(**_copied_arguments(node) | {"distinct": True}))
    if isinstance(node, exp.Union):
        yield _Setting(node, "distinct", not node.args.get("distinct"))
    yield _Edit(node, node.this.copy())
    yield _Edit(node, node.expression.copy())
