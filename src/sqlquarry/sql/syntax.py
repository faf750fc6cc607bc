"""Reads conditions, constants and aggregates from parts of a syntax tree."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Column, Expr, Query

Value = str | int | float


def conditions(clause: Expr | None) -> list[Expr]:
    """Return the conditions that AND and OR combine, without their parentheses."""
    if clause is None:
        return []
    if clause.key in ("where", "having", "paren"):
        return conditions(clause.this)
    return conditions(clause.this) + conditions(clause.expression) if clause.key in ("and", "or") else [clause]


def conjuncts(tree: Expr) -> list[Expr]:
    """Return the conditions that AND combines, without their parentheses."""
    while tree.key == "paren":
        tree = tree.this
    return [*conjuncts(tree.this), *conjuncts(tree.expression)] if tree.key == "and" else [tree]


def literal_value(node: object) -> Value | None:
    """Return the value of a literal, which may have a minus sign, or None for any other node."""
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


def break_ties(query: Query, *, largest: bool) -> None:
    """Add sort keys to a query with LIMIT so that rows that tie are sorted by their values, ascending or descending."""
    from sqlglot import expressions as exp

    order = query.args.get("order")
    ties = [
        exp.Ordered(this=exp.Literal.number(place), desc=largest, nulls_first=not largest)
        for place in range(1, len(query.selects) + 1)
    ]
    query.set("order", exp.Order(expressions=[*(order.expressions if order else ()), *ties]))


def is_aggregate(node: Expr) -> bool:
    """Return whether a node reduces a group to one value, unlike SUM(x) OVER (…), which has a value for each row."""
    from sqlglot import expressions as exp

    if not isinstance(node, exp.AggFunc):
        return False
    outer: Expr = node
    while isinstance(outer.parent, exp.Filter | exp.WithinGroup | exp.IgnoreNulls | exp.RespectNulls):
        outer = outer.parent
    return not (isinstance(outer.parent, exp.Window) and outer.arg_key == "this")


def aggregates(node: Expr) -> list[Expr]:
    """Return the aggregates in an expression or SELECT, without window functions and aggregates of subqueries."""
    from sqlglot import expressions as exp

    owner = node if isinstance(node, exp.Select) else node.find_ancestor(exp.Select)
    found = (item for item in node.find_all(exp.AggFunc) if is_aggregate(item))
    return [item for item in found if item.find_ancestor(exp.Select) is owner]


def aggregate_around(column: Column) -> Expr | None:
    """Return the innermost aggregate or SELECT that contains a column."""
    from sqlglot import expressions as exp

    node = column.find_ancestor(exp.AggFunc, exp.Filter, exp.Select)
    while node is not None and not isinstance(node, exp.Select):
        if is_aggregate(node.this if isinstance(node, exp.Filter) else node):
            break
        node = node.find_ancestor(exp.AggFunc, exp.Filter, exp.Select)
    return node
