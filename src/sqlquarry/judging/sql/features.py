"""What a gold query and its schema are like: the slices of a report."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.artifacts import Record
from sqlquarry.judging.sql.ddl import read_schema
from sqlquarry.judging.sql.parsing import parse
from sqlquarry.judging.sql.syntax import conditions

if TYPE_CHECKING:
    from sqlglot.expressions import Expr


def features(record: Record) -> dict[str, str]:
    """Slice name -> bucket, of the record's gold SQL and schema; {} where the gold SQL is missing or cannot be read."""
    found = None if record.sql is None else query_features(record.sql, record.dialect)
    if found is None:
        return {}
    return {**found, "schema size": _schema_size(record.schema, record.dialect)}


@lru_cache(maxsize=32_768)
def query_features(sql: str, dialect: str) -> dict[str, str] | None:
    """The slices that depend on the query alone; None where it cannot be read as a query."""
    from sqlglot import expressions as exp

    tree = parse(sql, dialect)
    if not isinstance(tree, exp.Query):
        return None
    tables: set[str] = set()
    ctes: set[str] = set()
    operations: set[str] = set()
    joins = aggregates = groups = havings = levels = 0
    for node in tree.walk():  # once: walking takes as long as parsing
        if isinstance(node, exp.Column | exp.Identifier | exp.Literal):
            continue
        if isinstance(node, exp.Table):
            tables.add(node.name.lower())
        elif isinstance(node, exp.CTE):
            ctes.add(node.alias.lower())
        elif isinstance(node, exp.SetOperation):
            operations.add(node.key)
        elif isinstance(node, exp.Select):
            levels = max(levels, _nesting(node))
        joins += isinstance(node, exp.Join)
        aggregates += isinstance(node, exp.AggFunc)
        groups += isinstance(node, exp.Group)
        havings += isinstance(node, exp.Having)
    return {
        "tables": _up_to(len(tables - ctes), 4),
        "joins": _up_to(joins, 3),
        "aggregates": "yes" if aggregates else "none",
        "grouping": ("HAVING" if havings else "yes") if groups else "none",
        "nesting": {0: "none", 1: "1 level"}.get(levels, "2+ levels"),
        "set operations": ", ".join(sorted(operations)) or "none",
        "hardness": hardness(tree),
    }


def _up_to(count: int, most: int) -> str:
    return str(count) if count < most else f"{most}+"


def _nesting(select: Expr) -> int:
    """In how many other queries a query is nested; the sides of a set operation are on one level."""
    from sqlglot import expressions as exp

    levels, node = 0, select.parent
    while node is not None:
        levels += isinstance(node, exp.Subquery | exp.CTE | exp.Exists)
        node = node.parent
    return levels


@lru_cache(maxsize=512)
def _schema_size(schema: str, dialect: str) -> str:
    tables = len(read_schema(schema, dialect).tables)
    for most, name in ((0, "unknown"), (1, "1 table"), (3, "2-3 tables"), (6, "4-6 tables"), (10, "7-10 tables")):
        if tables <= most:
            return name
    return "11+ tables"


def hardness(tree: Expr) -> str:
    """Spider's "easy", "medium", "hard" or "extra" of a parsed query.

    Source: Yu et al. 2018 (Spider), and the counts of `Evaluator.eval_hardness` in its evaluation.py, which looks at
    the first SELECT of a set operation. Two of its habits are kept, so that the published split is met: a negated
    condition counts as an aggregate, and aggregates in HAVING do not.
    """
    from sqlglot import expressions as exp

    others = 0
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        others += isinstance(tree, exp.SetOperation)
        tree = tree.this
    joins = tree.args.get("joins") or []
    where, having = conditions(tree.args.get("where")), conditions(tree.args.get("having"))
    on = [condition for join in joins for condition in conditions(join.args.get("on"))]
    every = [*on, *where, *having]
    group = tree.args["group"].expressions if tree.args.get("group") else []
    order = tree.args["order"].expressions if tree.args.get("order") else []

    clauses = sum(map(bool, (where, group, order, tree.args.get("limit")))) + len(joins)
    clauses += sum(_alternatives(tree.args.get(name)) for name in ("where", "having"))
    clauses += sum(_alternatives(join.args.get("on")) for join in joins)
    clauses += sum(isinstance(_positive(condition), exp.Like) for condition in every)
    nested = others + sum(_subqueries(condition) for condition in every)
    aggregates = sum(_aggregated(item) for item in (*tree.expressions, *group, *order))
    aggregates += sum(isinstance(condition, exp.Not) for condition in (*where, *having)) + max(len(having) - 1, 0)
    extras = sum((aggregates > 1, len(tree.expressions) > 1, len(where) > 1, len(group) > 1))

    if nested == 0:
        if clauses <= 1 and extras == 0:
            return "easy"
        if (clauses <= 1 and extras <= 2) or (clauses <= 2 and extras < 2):
            return "medium"
        if (clauses <= 2 and extras > 2) or (clauses == 3 and extras <= 2):
            return "hard"
    return "hard" if clauses <= 1 and extras == 0 and nested <= 1 else "extra"


def _alternatives(clause: Expr | None) -> int:
    """How often OR stands between conditions of a clause, outside its subqueries."""
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
