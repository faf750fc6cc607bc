"""Finds misplaced aggregates and columns, which nearly every database except SQLite refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select


def aggregates_elsewhere(tree: Expr) -> str | None:
    """Return a reason if an aggregate is in WHERE, ON, GROUP BY or another aggregate, where none is allowed."""
    from sqlglot import expressions as exp

    for aggregate in tree.find_all(exp.AggFunc):
        around = aggregate.find_ancestor(exp.AggFunc, exp.Where, exp.Join, exp.Group, exp.Select)
        if not isinstance(around, exp.Select):
            return "an aggregate is in WHERE, ON, GROUP BY or another aggregate"
    return None


def unnamed_derived(tree: Expr) -> str | None:
    """Return a reason if a query in FROM has no alias, which MySQL and PostgreSQL up to 15 require."""
    from sqlglot import expressions as exp

    for node in tree.find_all(exp.Subquery):
        if isinstance(node.parent, exp.From | exp.Join) and not node.alias:
            return "a query in FROM has no alias"
    return None


def grouping_refusal(select: Select, *, aliases: bool) -> str | None:
    """Return a reason if GROUP BY or DISTINCT leaves out a column, even if another key determines the column.

    Args:
        select: one SELECT.
        aliases: whether expressions in HAVING and ORDER BY may use the alias of an output, as in MySQL.
    """
    from sqlglot import expressions as exp

    order = select.args.get("order")
    terms = [term.this for term in order.expressions] if order is not None else []
    outputs = [output.unalias() for output in select.selects]
    named = {output.alias.lower() for output in select.selects if output.alias}
    if select.args.get("distinct") and any(
        term not in outputs and not (isinstance(term, exp.Column) and term.name.lower() in named)
        and not (isinstance(term, exp.Literal) and term.name.isdigit())
        for term in terms
    ):  # fmt: skip
        return "SELECT DISTINCT is sorted by a key that is not selected"
    group, having = select.args.get("group"), select.args.get("having")
    keys = [_key(key, select) for key in (group.expressions if group is not None else ())]
    parts = [*outputs, *([having.this] if having is not None else []), *terms]
    if any(key.find(exp.AggFunc) for key in keys):
        return "GROUP BY has an aggregate as a key"
    if group is None and having is None and not any(_aggregates(part, select) for part in parts):
        return None
    for part in parts:
        for column in part.find_all(exp.Column):
            is_alias = not column.table and column.name.lower() in named and (aliases or column in terms)
            if column.parent_select is not select or (is_alias and part not in outputs):
                continue
            if not _is_within(column, keys, part):
                return f"the column {column.name} is neither in GROUP BY nor aggregated"
    return None


def _key(key: Expr, select: Select) -> Expr:
    """Return the expression of a GROUP BY key, which may be the number or the alias of an output."""
    from sqlglot import expressions as exp

    if isinstance(key, exp.Literal) and key.name.isdigit() and 0 < int(key.name) <= len(select.selects):
        key = select.selects[int(key.name) - 1].unalias()
    elif isinstance(key, exp.Column):
        key = next((output.unalias() for output in select.selects if output.alias == key.name), key)
    return key


def _aggregates(part: Expr, select: Expr) -> bool:
    from sqlglot import expressions as exp

    return any(node.parent_select is select for node in part.find_all(exp.AggFunc))


def _is_within(column: Expr, keys: list[Expr], part: Expr) -> bool:
    """Return whether a column is a key, part of a key, or in an aggregate."""
    from sqlglot import expressions as exp

    node: Expr | None = column
    while node is not None:
        if isinstance(node, exp.AggFunc) or any(_same_column(node, key) for key in keys):
            return True
        if node is part:
            return False
        node = node.parent
    return False


def _same_column(node: Expr, key: Expr) -> bool:
    from sqlglot import expressions as exp

    if isinstance(node, exp.Column) and isinstance(key, exp.Column):
        tables = {node.table.lower(), key.table.lower()} - {""}
        return node.name.lower() == key.name.lower() and len(tables) <= 1
    return node == key
