"""Classifies expressions: comparisons, values that depend on the order of rows, and unclear operator precedence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlquarry.sql.scopes import UndecidedError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

COMPARISONS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
PREDICATES = {
    *COMPARISONS,
    "and",
    "or",
    "not",
    "in",
    "between",
    "like",
    "ilike",
    "glob",
    "is",
    "nullsafeeq",
    "nullsafeneq",
}
ARITHMETIC = {"add", "sub", "mul", "div"}
# Expressions whose value depends on the order in which rows are visited.
_ORDER_DEPENDENT = {
    *("groupconcat", "arrayagg", "arrayconcatagg", "jsonarrayagg", "jsonobjectagg", "jsongroupobject"),
    *("window", "collate"),
}
UNSTEADY = re.compile(r"\b(gen_)?(rand|uuid|newid)", re.IGNORECASE)  # functions whose value changes between calls
_FIRST_OR_LAST = ("first", "last", "anyvalue", "array", "json")


def depends_on_order(tree: Expr) -> bool:
    """Return whether the value may depend on the order in which rows are visited."""
    from sqlglot import expressions as exp

    is_first = isinstance(tree, exp.AggFunc) and tree.key.startswith(_FIRST_OR_LAST)
    return is_first or tree.key in _ORDER_DEPENDENT or tree.key == "anonymous"  # which may be an aggregate


def refuse_unclear_precedence(tree: Expr) -> None:
    """Raise UndecidedError for operators without parentheses that dialects apply in different orders."""
    from sqlglot import expressions as exp

    sides = [side for name in ("this", "expression") if isinstance(side := tree.args.get(name), exp.Expr)]
    if tree.key in PREDICATES:
        if any(side.key in PREDICATES for side in sides):
            raise UndecidedError("a comparison of a comparison without parentheses")
    elif isinstance(tree, exp.Binary) and any(
        isinstance(side, exp.Binary) and {tree.key, side.key} - ARITHMETIC for side in sides
    ):
        raise UndecidedError("operators without parentheses, whose precedence differs between dialects")


def is_list_of_literals(tree: Expr) -> bool:
    """Return whether the list of an IN contains only literals."""
    items = tree.expressions
    if not items or any(value for name, value in tree.args.items() if name not in ("this", "expressions")):
        return False
    return all(item.key == "literal" or (item.key == "neg" and item.this.key == "literal") for item in items)
