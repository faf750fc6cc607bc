"""Finds differences between queries that are certain because a database on which their results differ must exist."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from sqlquarry.judging.equivalence.forms import CanonicalQuery, CanonicalSelect, Form
from sqlquarry.sql.schema import Column, Schema

_COMPARISONS = ("=", "<>", "<", "<=")
_SIMPLE_AGGREGATES = ("count", "sum", "avg", "min", "max")

_Filter = tuple[Form, str, Form]  # column, operator, literal


class _Conditions(NamedTuple):
    """The join conditions and the filters of a SELECT."""

    joins: tuple[Form, ...]
    filters: frozenset[_Filter]


def certain_difference(  # noqa: PLR0911 - one per case
    gold: CanonicalQuery, predicted: CanonicalQuery, schema: Schema
) -> str | None:
    """Explain why the queries differ on some database of the schema, or return None if this is uncertain."""
    if gold.names is None or predicted.names is None:
        return None
    if len(gold.names) != len(predicted.names):
        return f"{len(predicted.names)} columns instead of {len(gold.names)}"
    mine, theirs = gold.body, predicted.body
    if not isinstance(mine, CanonicalSelect) or not isinstance(theirs, CanonicalSelect):
        return None
    if not (_has_free_values(schema) and _is_plain(mine) and _is_plain(theirs)):
        return None
    if mine.sources != theirs.sources or mine.group != theirs.group:
        return None
    first, second = _conditions(mine, schema), _conditions(theirs, schema)
    if first is None or second is None or first.joins != second.joins:
        return None
    if first.filters != second.filters:
        one_row_always = mine.group is None and any(map(_is_aggregate, (*mine.outputs, *theirs.outputs)))
        is_unclear = one_row_always and mine.outputs != theirs.outputs
        return None if is_unclear else _other_filter(first.filters, second.filters)
    return _other_result(gold, predicted, schema, {column for column, _, _ in first.filters})


def _has_free_values(schema: Schema) -> bool:
    """Return whether every column can contain any value of its type."""
    if schema.mentions("CHECK") or schema.mentions("ENUM"):
        return False
    return not any(column.generated for table in schema.tables.values() for column in table.columns.values())


def _other_result(gold: CanonicalQuery, predicted: CanonicalQuery, schema: Schema, filtered: set[Form]) -> str | None:
    """Describe the difference in outputs, DISTINCT or order between two queries that read the same rows."""
    mine, theirs = gold.body, predicted.body
    if not isinstance(mine, CanonicalSelect) or not isinstance(theirs, CanonicalSelect) or mine.group is not None:
        return None
    if mine.outputs != theirs.outputs:
        return _other_outputs(mine, theirs, filtered, schema)
    if mine.distinct != theirs.distinct and not schema.mentions("PRIMARY KEY") and not schema.mentions("UNIQUE"):
        return "DISTINCT is missing" if mine.distinct else "the prediction adds DISTINCT"
    return _other_direction(gold.order, predicted.order, filtered, mine.outputs)


def _is_plain(select: CanonicalSelect) -> bool:
    """Return whether a SELECT only inner-joins different tables and returns columns or aggregates of columns."""
    if select.joins or select.having or select.slice or len(set(select.sources)) < len(select.sources):
        return False
    if any(source[0] != "table" for source in select.sources):
        return False
    return all(_is_column(form) or _is_aggregate(form) for form in select.outputs)


def _is_column(form: Form) -> bool:
    return bool(form[0] == "col")


def _is_aggregate(form: Form) -> bool:
    if form[0] != "aggregate" or form[1] not in _SIMPLE_AGGREGATES:
        return False
    return form[2] == "rows" or (isinstance(form[2], tuple) and _is_column(form[2]))


def _conditions(select: CanonicalSelect, schema: Schema) -> _Conditions | None:
    """Return the join conditions and the filters, or None if there is any other condition.

    Each column may have one filter at most, so that one row can satisfy all filters.
    """
    where = select.where
    parts = where[1:] if where[0] == "and" else () if where == ("true",) else (where,)
    joins = tuple(part for part in parts if part[0] == "same")
    filters = []
    for part in parts:
        if part[0] == "same":
            continue
        if part[0] not in _COMPARISONS:
            return None
        operator, left, right = part
        if _is_column(left) and right[0] in ("number", "text"):
            filters.append((left, operator, right))
        elif _is_column(right) and left[0] in ("number", "text"):
            filters.append((right, {"<": ">", "<=": ">="}.get(operator, operator), left))
        else:
            return None
    if len({column for column, _, _ in filters}) < len(filters):
        return None
    if not all(_can_hold(_column(column, select, schema), literal, schema) for column, _, literal in filters):
        return None
    return _Conditions(joins, frozenset(filters))


def _column(form: Form, select: CanonicalSelect, schema: Schema) -> Column | None:
    (_, place), name = form[1:]
    table = schema.tables.get(select.sources[place][1])
    return table.columns.get(name) if table else None


def _can_hold(column: Column | None, literal: Form, schema: Schema) -> bool:
    """Return whether the column can certainly contain the literal and also other text or the next numbers.

    Dates, times, intervals and JSON may be equal although their text differs, so a text literal needs a text column.
    """
    if column is None:
        return False
    if literal[0] == "text":
        declared = re.fullmatch(
            r"(?:TEXT|CLOB|N?(?:VAR)?CHAR(?:ACTER)?(?: VARYING)?)(?:\((\d+)\))?", column.declared, re.IGNORECASE
        )
        fits = declared is not None and (schema.ddl or len(literal[1]) <= int(declared[1] or len(literal[1])))
        return bool(column.affinity == "TEXT" and literal[1].isascii() and fits)
    if schema.ddl:  # SQLite's numbers have one range
        return column.affinity in ("INTEGER", "REAL", "NUMERIC")
    return column.affinity == "INTEGER" and literal[1].isdigit() and 0 < int(literal[1]) <= 100


def _other_filter(mine: frozenset[_Filter], theirs: frozenset[_Filter]) -> str | None:
    """Describe a filter that only one of the queries has.

    A database with one row per table that passes the filters of only one query shows the difference. One result has an
    additional row, or a value instead of NULL.
    """
    for ours, others in ((mine, theirs), (theirs, mine)):
        kept = {column: (operator, literal) for column, operator, literal in ours}
        for column, operator, literal in sorted(others, key=repr):  # the same reason on every run
            if column not in kept or _can_pass_only_first(kept[column], (operator, literal)):
                return f"different filter: {column[2]} {operator} {literal[1]}"
    return None


def _can_pass_only_first(first: tuple[str, Form], second: tuple[str, Form]) -> bool:
    """Return whether some value certainly passes the first filter but not the second, whatever the column's type."""
    (operator, literal), (other, limit) = first, second
    if literal[0] != limit[0]:
        return False
    same = literal == limit
    # A collation may ignore case and spaces. Numbers are compared only if both are plain digits.
    if literal[0] == "text":
        differ = (
            literal[1].strip().casefold() != limit[1].strip().casefold()
            and not _numeric(literal[1])
            and not _numeric(limit[1])
        )
    else:
        differ = literal[1].isdigit() and limit[1].isdigit() and int(literal[1]) != int(limit[1])
    if operator == "=":
        return (other == "=" and differ) or (same and other in ("<>", "<", ">"))
    if literal[0] != "number" or not literal[1].isdigit() or not limit[1].isdigit():
        return False
    value, bound = int(literal[1]), int(limit[1])
    passes = {"<>": [value + 1, value - 1], "<": [value - 1], "<=": [value], ">": [value + 1], ">=": [value]}[operator]
    tests = {
        "=": lambda x: x == bound,
        "<>": lambda x: x != bound,
        "<": lambda x: x < bound,
        "<=": lambda x: x <= bound,
        ">": lambda x: x > bound,
        ">=": lambda x: x >= bound,
    }
    return any(not tests[other](x) for x in passes)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _other_outputs(mine: CanonicalSelect, theirs: CanonicalSelect, filtered: set[Form], schema: Schema) -> str | None:
    """Describe a different output column or aggregate.

    One row with different values in every column shows a different column. Two rows that contain 1 and 3 show a
    different aggregate.
    """
    wanted = Counter(mine.outputs) - Counter(theirs.outputs)
    given = Counter(theirs.outputs) - Counter(mine.outputs)
    if (
        sum(wanted.values()) != 1
        or sum(given.values()) != 1
        or len(set(mine.outputs) | set(theirs.outputs)) <= len(mine.outputs)
    ):
        return None
    (gold,), (predicted,) = wanted, given
    if _is_column(gold) and _is_column(predicted) and not {gold, predicted} & filtered:
        return f"different column: {predicted[2]} instead of {gold[2]}"
    if (
        not (_is_aggregate(gold) and _is_aggregate(predicted))
        or gold[2] != predicted[2]
        or gold[2] == "rows"
        or filtered
    ):
        return None
    column = _column(gold[2], mine, schema)
    numeric = column is not None and column.affinity in ("INTEGER", "REAL", "NUMERIC")
    return f"different aggregate: {predicted[1]} instead of {gold[1]}" if numeric else None


def _other_direction(gold: Form, predicted: Form, filtered: set[Form], outputs: Form) -> str | None:
    """Describe a reversed sort order, which two rows with different values in every column show."""
    if not gold or not predicted or not all(map(_is_column, outputs)) or not set(outputs) - filtered:
        return None
    (key, descending, _), (other, other_descending, _) = gold[0], predicted[0]
    if key == other and _is_column(key) and key not in filtered and descending != other_descending:
        return f"ORDER BY {key[2]} has the opposite direction"
    return None
