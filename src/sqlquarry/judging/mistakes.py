"""Classify wrong predictions by the error of the database or by the first part of the query that differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.answers import Judgement
from sqlquarry.records import Record
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.syntax import conditions

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_FAILURES = {
    "syntax": "syntax",
    "no_such_column": "unknown column",
    "no_such_table": "unknown table",
    "timeout": "timeout",
    "forbidden": "forbidden",
    "other": "other",
}
MISTAKES = (
    "no SQL",
    "truncated",
    *dict.fromkeys(_FAILURES.values()),
    "extra column",
    "missing column",
    "wrong join",
    "wrong filter",
    "wrong aggregate",
    "wrong grouping",
    "wrong order",
    "wrong column",
    "unjudged",
)


def mistake(  # noqa: PLR0911 - one return per class that needs no comparison
    record: Record, predicted_sql: str, judgement: Judgement, truncated: bool
) -> str | None:
    """Return the error class of one judged prediction (one of `MISTAKES`), or None if it is correct.

    If the database reported an error, that error decides. Otherwise gold and predicted SQL are compared part by part:
    number of columns, joins, filters, aggregates, grouping, order, columns. The first part that differs decides. If
    there are several gold queries, the one with the fewest differences is used.

    Args:
        record: the record with its gold SQL.
        predicted_sql: "" if the answer contains no SQL.
        judgement: the grader's verdict. `details["predicted"]["error"]` is the kind of a failure, as `ExecutionGrader`
            writes it.
        truncated: the answer was cut at the token limit.
    """
    if judgement.verdict == "correct":
        return None
    if judgement.verdict == "unjudged":
        return "unjudged"
    if truncated:
        return "truncated"
    if not predicted_sql:
        return "no SQL"
    predicted = judgement.details.get("predicted")
    failure = predicted.get("error") if isinstance(predicted, Mapping) else None
    if failure in _FAILURES:
        return _FAILURES[failure]
    theirs = _parts(predicted_sql, record.dialect)
    if theirs is None:
        return "other"
    golds = [_parts(gold, record.dialect) for gold in record.golds]
    found = [_differences(mine, theirs) for mine in golds if mine is not None]
    nearest = min(found, key=len) if found else []
    return nearest[0] if nearest else "other"


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a query without aliases. All its SELECTs are counted together."""

    width: int
    joins: Counter[str]
    filters: Counter[str]
    aggregates: Counter[str]
    grouping: Counter[str]
    order: tuple[str, ...]
    columns: Counter[str]


def _differences(gold: _Parts, predicted: _Parts) -> list[str]:
    if gold.width != predicted.width and gold.width and predicted.width:
        columns = ["extra column" if predicted.width > gold.width else "missing column"]
    else:
        columns = []
    names = ("joins", "filters", "aggregates", "grouping", "order", "columns")
    classes = ("wrong join", "wrong filter", "wrong aggregate", "wrong grouping", "wrong order", "wrong column")
    return columns + [
        word for name, word in zip(names, classes, strict=True) if getattr(gold, name) != getattr(predicted, name)
    ]


@lru_cache(maxsize=4096)
def _parts(sql: str, dialect: str) -> _Parts | None:
    from sqlglot import expressions as exp

    tree = parse(sql, dialect)
    if not isinstance(tree, exp.Query):
        return None
    selects = list(tree.find_all(exp.Select))
    joins = [table.name.lower() for table in tree.find_all(exp.Table)]
    joins += [str(join.args["side"]) for join in tree.find_all(exp.Join) if join.args.get("side")]
    joins += [_text(condition) for join in tree.find_all(exp.Join) for condition in conditions(join.args.get("on"))]
    filters = [
        _text(condition)
        for select in selects
        for name in ("where", "having")
        for condition in conditions(select.args.get(name))
    ]
    filters += [node.key for node in tree.find_all(exp.SetOperation, exp.Or)]
    grouping = [_text(key) for group in tree.find_all(exp.Group) for key in group.expressions]
    grouping += ["distinct" for select in selects if select.args.get("distinct")]
    order = [_text(key) for keys in tree.find_all(exp.Order) for key in keys.expressions]
    order += [_text(node) for node in tree.find_all(exp.Limit, exp.Offset)]
    outputs = tree.selects
    return _Parts(
        width=0 if any(output.is_star for output in outputs) else len(outputs),
        joins=Counter(joins),
        filters=Counter(filters),
        aggregates=Counter(_text(node) for output in outputs for node in output.find_all(exp.AggFunc)),
        grouping=Counter(grouping),
        order=tuple(order),
        columns=Counter(_text(output.unalias()) for output in outputs),
    )


def _text(node: Expr) -> str:
    """Normalize the spelling of an expression.

    Everything is lower case, without table names, and the sides of a comparison are sorted. A quoted name is spelled
    like a string, because it may be one in SQLite.
    """
    from sqlglot import expressions as exp

    if isinstance(node, exp.Query):
        return "(query)"  # its parts are counted separately
    if isinstance(node, exp.Column):
        return f"'{node.name}'".lower() if node.this.args.get("quoted") else node.name.lower()
    if isinstance(node, exp.Literal):
        return f"'{node.name}'".lower() if node.is_string else node.name
    if isinstance(node, exp.Paren):
        return _text(node.this)
    parts = [_text(value) for _, value in sorted(node.args.items()) for value in _nodes(value)]
    kind = node.key
    if kind in ("eq", "neq"):
        parts.sort()
    if kind in ("gt", "gte"):
        kind, parts = {"gt": "lt", "gte": "lte"}[kind], parts[::-1]
    flags = [name for name, value in sorted(node.args.items()) if value is True and name != "big_int"]
    return f"{kind}({', '.join(parts + flags)})" if parts or flags else f"{kind}:{node.name.lower()}"


def _nodes(value: object) -> list[Expr]:
    from sqlglot import expressions as exp

    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, exp.Expr)]
