"""Checks by types whether PostgreSQL certainly accepts a query.

sqlglot parses more than PostgreSQL runs: functions of other databases, comparisons between types, aliases in HAVING,
columns that GROUP BY leaves out. Only constructs that are listed here pass, so some queries that PostgreSQL would run
are refused. For the type rules see https://www.postgresql.org/docs/current/typeconv.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from sqlquarry.judging.equivalence.grouping import aggregates_elsewhere, grouping_refusal, unnamed_derived
from sqlquarry.sql.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Expr
    from sqlglot.schema import MappingSchema

_FAMILIES = {
    "number": {"INT", "BIGINT", "SMALLINT", "DECIMAL", "DOUBLE", "FLOAT", "SERIAL", "BIGSERIAL", "SMALLSERIAL"},
    "text": {"TEXT", "VARCHAR", "CHAR"},
    "date": {"DATE"},
    "timestamp": {"TIMESTAMP", "TIMESTAMPTZ"},
    "truth": {"BOOLEAN"},
    "null": {"NULL"},
    "uuid": {"UUID"},
}
_FAMILY_OF = {kind: family for family, kinds in _FAMILIES.items() for kind in kinds}
_COMPARISONS = {"eq", "neq", "lt", "lte", "gt", "gte", "like", "ilike", "between", "in", "nullsafeeq", "nullsafeneq"}
_STRUCTURE = {
    "select", "from", "table", "tablealias", "join", "where", "group", "having", "order", "ordered", "limit", "offset",
    "alias", "identifier", "column", "star", "literal", "null", "boolean", "paren", "subquery", "exists", "distinct",
    "with", "cte", "union", "except", "intersect", "neg", "cast", "datatype", "datatypeparam", "case", "if",
}  # fmt: skip
_NUMBERS, _TEXTS, _TRUTHS = frozenset({"number"}), frozenset({"text"}), frozenset({"truth"})
# Functions and operators -> the type families that each operand may have.
_OPERANDS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "sum", "avg", "abs", "neg"), _NUMBERS),
    **dict.fromkeys(("lower", "upper", "length", "dpipe", "like", "ilike"), _TEXTS),
    **dict.fromkeys(("and", "or", "not"), _TRUTHS),
    **dict.fromkeys(("min", "max"), _NUMBERS | _TEXTS | {"date", "timestamp"}),
}
_ISO = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])([ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?)?")


def typed_refusal(tree: Expr, schema: Schema) -> str | None:
    """Explain why PostgreSQL may refuse the query, or None if it certainly accepts it.

    Without a schema, only the syntax is checked.
    """
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.annotate_types import annotate_types
    from sqlglot.optimizer.qualify import qualify

    if reason := _syntax(tree):
        return reason
    if not schema.tables:
        return None
    mapping = _mapping(schema)
    try:
        found = qualify(
            tree.copy(), schema=mapping, dialect="postgres", expand_alias_refs=False, quote_identifiers=False
        )
        found = annotate_types(found, schema=mapping, dialect="postgres")
    except (SqlglotError, RecursionError, KeyError, ValueError) as error:
        return str(error).partition(". Line")[0]
    return next((reason for node in found.walk() if (reason := _refusal(node))), None)


@lru_cache(maxsize=64)
def _mapping(schema: Schema) -> MappingSchema:
    from sqlglot.schema import MappingSchema

    tables: dict[str, object] = {
        f'"{name}"': {f'"{column}"': table.columns[column].declared or "UNKNOWN" for column in table.columns}
        for name, table in schema.tables.items()
    }
    return MappingSchema(tables, dialect="postgres")


def _syntax(tree: Expr) -> str | None:
    """Explain why PostgreSQL may refuse the query for reasons other than types, such as an alias in WHERE."""
    from sqlglot import expressions as exp

    if reason := unnamed_derived(tree):
        return reason
    for part in tree.find_all(exp.Limit, exp.Offset):
        if not isinstance(part.expression, exp.Literal) or not part.expression.name.isdigit():
            return "LIMIT or OFFSET is not a whole number"
    if reason := aggregates_elsewhere(tree):
        return reason
    for select in tree.find_all(exp.Select):
        columns = {column.name.lower() for column in select.selects if isinstance(column, exp.Column)}
        aliases = {output.alias.lower() for output in select.selects if isinstance(output, exp.Alias)} - columns
        for clause in (select.args.get("having"), select.args.get("where")):
            for column in clause.find_all(exp.Column) if clause is not None else ():
                if not column.table and column.name.lower() in aliases:
                    return f"WHERE or HAVING uses the alias {column.name}, which may not be a column"
        if reason := grouping_refusal(select, aliases=False):
            return reason
    return None


def _condition(node: Expr) -> str | None:
    return None if _family(node.this) == "truth" else f"a condition has the type {node.this.type}"


def _join(node: Expr) -> str | None:
    on = node.args.get("on")
    return None if on is None or _family(on) == "truth" else "a join condition is not Boolean"


def _operands(node: Expr) -> str | None:
    parts = [part for name, part in node.args.items() if name in ("this", "expression") and hasattr(part, "key")]
    for operand in parts:
        inner = operand.expressions[0] if operand.key == "distinct" else operand
        if _family(inner) not in _OPERANDS[node.key] or node.args.get("expressions"):
            return f"{node.key} is applied to a value of type {inner.type}"
    return None


def _set_operation(node: Expr) -> str | None:
    left, right = node.this.selects, node.expression.selects
    if len(left) != len(right):
        return "the queries of a set operation have different numbers of columns"
    unknown = next((f"{node.key} is applied to {side}" for side in left if _family(side) is None), None)
    pairs = zip(left, right, strict=True)
    return unknown or next((reason for pair in pairs if (reason := _alike(node, list(pair)))), None)


def _case(node: Expr) -> str | None:
    default = node.args.get("default")
    branches = [branch.args["true"] for branch in node.args.get("ifs") or ()]
    return _alike(node, [*branches, *([default] if default is not None else [])])


def _cast(node: Expr) -> str | None:
    known = _family(node) not in (None, "truth", "uuid") and _family(node.this) is not None
    return None if known else f"a cast to {node.args['to']} may fail"


def _is_null(node: Expr) -> str | None:
    return None if node.expression.key == "null" else "IS is used with a value other than NULL"


def _compared_rows(node: Expr) -> str | None:
    """Explain why GROUP BY or DISTINCT may fail: some types, such as JSON, XML and POINT, cannot be compared."""
    if node.key == "group":
        return next((reason for key in node.expressions if (reason := _as_key(key))), None)
    if node.args.get("distinct"):
        return next((f"DISTINCT applies to {output}" for output in node.expressions if _family(output) is None), None)
    return None


def _as_key(key: Expr) -> str | None:
    if key.key == "null" or (key.key == "literal" and not key.name.isdigit()):
        return "a key of GROUP BY or ORDER BY is a constant"
    number = key.key == "literal"
    outputs = getattr(key.parent_select, "selects", [])
    if number and 0 < int(key.name) <= len(outputs):
        return _as_key(outputs[int(key.name) - 1].unalias()) if outputs[int(key.name) - 1].key != "literal" else None
    return None if not number and _family(key) is not None else f"the values of the key {key} may not be comparable"


def _compared(node: Expr) -> str | None:
    sides: list[Expr] = [node.this]
    if node.key == "between":
        sides += [node.args["low"], node.args["high"]]
    elif node.key == "in":
        query = node.args.get("query")
        sides += [*node.expressions, *(query.this.selects if query is not None and query.key == "subquery" else ())]
        if query is not None and len(sides) != 2 + len(node.expressions):
            return "the query of IN has several columns"
    else:
        sides.append(node.expression)
    return _alike(node, sides)


def _alike(node: Expr, sides: list[Expr]) -> str | None:
    families = {_family(side) for side in sides} - {"null"}
    literals = [side for side in sides if side.key == "literal" and side.args.get("is_string")]
    if len(families) == 2 and families in ({"date", "text"}, {"timestamp", "text"}):
        others = [side for side in sides if _family(side) == "text" and side not in literals]
        if not others and all(_ISO.fullmatch(literal.name) for literal in literals):
            return None
    if (len(families) <= 1 and None not in families) or families == {"date", "timestamp"}:
        return None
    return f"{node.key} compares different types: {', '.join(sorted(str(side.type) for side in sides))}"


def _family(node: Expr) -> str | None:
    if node.key in ("paren", "alias", "distinct") and getattr(node, "this", None) is not None:
        return _family(node.this)
    if node.key in ("exists", "in", "between", "is", "like", "ilike", "not", "and", "or", *_COMPARISONS):
        return "truth"
    if node.key == "column" and not node.args.get("table"):  # an output's alias
        select = node.parent_select
        found = [output for output in getattr(select, "selects", []) if output.alias == node.name]
        return _family(found[0].unalias()) if found and found[0].key == "alias" and found[0].this != node else None
    if node.key == "subquery":
        selects = node.this.selects if hasattr(node.this, "selects") else []
        return _family(selects[0]) if len(selects) == 1 else None
    kind = getattr(node.type, "this", None)
    return _FAMILY_OF.get(getattr(kind, "name", ""))


# Kind of node -> the check that explains why PostgreSQL may refuse such a node.
_CHECKS: dict[str, Callable[[Expr], str | None]] = {
    **dict.fromkeys(("eq", "neq", "lt", "lte", "gt", "gte", "nullsafeeq", "nullsafeneq", "between", "in"), _compared),
    **dict.fromkeys(("where", "having"), _condition),
    "join": _join,
    **dict.fromkeys(("group", "select"), _compared_rows),
    "ordered": lambda node: _as_key(node.this),
    "coalesce": lambda node: _alike(node, [node.this, *node.expressions]),
    **dict.fromkeys(("union", "except", "intersect"), _set_operation),
    "case": _case,
    "cast": _cast,
    "is": _is_null,
    "count": lambda _: None,
}


def _refusal(node: Expr) -> str | None:
    """Explain why PostgreSQL may refuse a node. The parts of the node are checked separately."""
    if check := _CHECKS.get(node.key):
        return check(node)
    if node.key in _OPERANDS:
        return _operands(node)
    return None if node.key in _STRUCTURE else f"PostgreSQL may not accept {node.key}"
