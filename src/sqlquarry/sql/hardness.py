"""Computes the hardness of a query by the four levels of Spider."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.sql.syntax import conditions

if TYPE_CHECKING:
    from sqlglot.expressions import Expr


class _Counts(NamedTuple):
    """The counts from which the level is computed.

    Args:
        clauses: number of WHERE, GROUP BY, ORDER BY, LIMIT, joins, OR and LIKE.
        nested: number of set operations and of subqueries in conditions.
        extras: number of these four that occur more than once: aggregates, outputs, conditions, keys of GROUP BY.
    """

    clauses: int
    nested: int
    extras: int


def hardness(tree: Expr) -> str:
    """Return the level of a parsed query in Spider: "easy", "medium", "hard" or "extra".

    The levels are those of Yu et al. 2018 (Spider). The counts are those of `Evaluator.eval_hardness` in Spider's
    evaluation.py, which looks only at the first SELECT of a set operation. To reproduce the published split, two quirks
    are kept: a negated condition counts as an aggregate, and an aggregate in HAVING does not count.
    """
    clauses, nested, extras = _counts(tree)
    if nested == 0:
        if clauses <= 1 and extras == 0:
            return "easy"
        if (clauses <= 1 and extras <= 2) or (clauses <= 2 and extras < 2):
            return "medium"
        if (clauses <= 2 and extras > 2) or (clauses == 3 and extras <= 2):
            return "hard"
    return "hard" if clauses <= 1 and extras == 0 and nested <= 1 else "extra"


def _counts(tree: Expr) -> _Counts:
    from sqlglot import expressions as exp

    operations = 0
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        operations += isinstance(tree, exp.SetOperation)
        tree = tree.this
    joins = tree.args.get("joins") or []
    where, having = conditions(tree.args.get("where")), conditions(tree.args.get("having"))
    on = [condition for join in joins for condition in conditions(join.args.get("on"))]
    group, order = _items(tree, "group"), _items(tree, "order")
    clauses = sum(map(bool, (where, group, order, tree.args.get("limit")))) + len(joins)
    clauses += sum(_alternatives(tree.args.get(name)) for name in ("where", "having"))
    clauses += sum(_alternatives(join.args.get("on")) for join in joins)
    clauses += sum(isinstance(_positive(condition), exp.Like) for condition in (*on, *where, *having))
    aggregates = sum(_aggregated(item) for item in (*tree.expressions, *group, *order))
    aggregates += sum(isinstance(condition, exp.Not) for condition in (*where, *having)) + max(len(having) - 1, 0)
    return _Counts(
        clauses,
        nested=operations + sum(_subqueries(condition) for condition in (*on, *where, *having)),
        extras=sum((aggregates > 1, len(tree.expressions) > 1, len(where) > 1, len(group) > 1)),
    )


def _items(tree: Expr, clause: str) -> list[Expr]:
    found = tree.args.get(clause)
    return found.expressions if found else []


def _alternatives(clause: Expr | None) -> int:
    """Count the ORs between the conditions of a clause, without those in subqueries."""
    if clause is None:
        return 0
    if clause.key in ("where", "having", "paren"):
        return _alternatives(clause.this)
    if clause.key not in ("and", "or"):
        return 0
    return (clause.key == "or") + _alternatives(clause.this) + _alternatives(clause.expression)


def _positive(condition: Expr) -> Expr:
    return condition.this if condition.key == "not" else condition


def _subqueries(condition: Expr) -> int:
    condition = _positive(condition)
    operands = (condition.args.get(name) for name in ("query", "expression", "low", "high"))
    return sum(operand is not None and operand.key in ("subquery", "select") for operand in operands)


def _aggregated(item: Expr) -> bool:
    from sqlglot import expressions as exp

    return next(
        (True for node in item.walk(prune=lambda node: isinstance(node, exp.Query)) if isinstance(node, exp.AggFunc)),
        False,
    )
