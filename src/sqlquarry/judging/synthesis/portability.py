"""Finds constructs in queries of other dialects that cannot be judged on synthesized databases, which run SQLite.

There are two kinds: constructs that the dialect refuses although SQLite accepts them, and constructs that SQLite does
not support or interprets differently. Only constructs that are known to be the same pass. The reason describes the
first one that is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from sqlquarry.sql.parsing import parse
from sqlquarry.sql.resolver import ColumnResolver
from sqlquarry.sql.schema import Place, Schema
from sqlquarry.sql.syntax import aggregates, literal_value

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Functions that SQLite and the dialects have under the same name, with the same results on the generated rows.
_COMMON_FUNCTIONS = _words_of(
    "count sum avg min max coalesce nullif abs round upper lower length trim ltrim rtrim substring substr replace cast "
    "row_number rank dense_rank lag lead first_value last_value ntile exists"
)
_MORE_FUNCTIONS: Mapping[str, frozenset[str]] = {
    "postgres": _words_of("concat left right position strpos string_agg greatest least extract date_part date"),
    "duckdb": _words_of("concat left right ifnull strpos string_agg extract year month day date"),
    "mysql": _words_of(
        "concat left right locate ifnull if year month day dayofmonth extract group_concat ucase lcase date"
    ),
}
# Words that may precede a parenthesis without being a function.
_NO_FUNCTIONS = _words_of(
    "select from where and or not in as on over using values join by having when then else union all except intersect "
    "case between like ilike is distinct filter any some with recursive exists lateral limit offset partition order "
    "interval group set null varchar char character numeric decimal text bpchar float nvarchar end"
)
_ALIAS_IN_HAVING = ("mysql", "duckdb", "snowflake", "bigquery", "databricks", "spark", "hive", "clickhouse")
_ALIAS_IN_WHERE = ("duckdb", "snowflake", "clickhouse", "databricks")
_TWO_EQUAL_SIGNS = ("duckdb", "clickhouse", "spark", "databricks", "hive")
_AFTER_LISTS = ("from", "where", "group", "order", "having", "limit", ")")
_TRAILING_COMMAS = ("duckdb", "bigquery", "snowflake", "databricks", "clickhouse")
_DIVIDES_BY_ZERO = ("mysql", "doris", "starrocks", "duckdb", "clickhouse", "hive", "spark")  # no error
_LIMIT_WITH_COMMA = ("mysql", "clickhouse", "doris", "starrocks")
_LIKE_MYSQL = ("mysql", "doris", "starrocks")
_WITHOUT_POSTGRES_SIGNS = (*_LIKE_MYSQL, "tsql", "oracle", "bigquery", "presto", "trino", "athena", "hive")
# Words that sqlglot reads in every dialect -> the dialects that refuse them.
_REFUSED_WORDS = {
    "::": _WITHOUT_POSTGRES_SIGNS,
    "ilike": _WITHOUT_POSTGRES_SIGNS,
    "filter": (*_LIKE_MYSQL, "tsql", "oracle", "bigquery", "snowflake", "redshift", "hive"),
    "full": _LIKE_MYSQL,
    "nulls": (*_LIKE_MYSQL, "tsql"),
    "limit": ("tsql", "oracle"),
}
# Types that sqlglot reads in a CAST of every dialect.
_REFUSED_TYPES = {
    "postgres": _words_of("string tinyint mediumint datetime nvarchar clob blob number unsigned signed int64 float64"),
    "mysql": _words_of("string int integer bigint smallint tinyint text varchar boolean bool numeric real timestamp"),
}
_FOLDS_TO_LOWER = ("postgres", "redshift", "materialize", "risingwave")
# Kinds of nodes that may pass: clauses, literals, comparisons and the functions above. All others are refused.
_PLAIN_NODES = _words_of(
    "Select From Join Where Group Having Order Ordered Limit Offset Fetch LimitOptions Distinct Subquery With CTE "
    "Union Except Intersect Table TableAlias Alias Column Identifier Star Literal Null Boolean Paren Tuple Var "
    "DataType DataTypeParam EQ NEQ GT GTE LT LTE Is In Between Like ILike Not And Or Add Sub Mul Div Mod Neg DPipe "
    "Case If Exists NullSafeEQ NullSafeNEQ Cast Count Sum Avg Min Max Coalesce Nullif Abs Round Upper Lower Length "
    "Trim Substring Replace Concat Left Right StrPosition GroupConcat Greatest Least Extract Year Month Day "
    "DayOfMonth Date Window WindowSpec Filter RowNumber Rank DenseRank Lag Lead FirstValue LastValue Ntile "
    "TsOrDsToDate IntDiv"
)
_NAMES_OF_NODES = {
    "RegexpLike": "a regular expression (~)",
    "RegexpILike": "a regular expression (~*)",
    "SimilarTo": "SIMILAR TO",
    "TimestampTrunc": "DATE_TRUNC",
    "DateTrunc": "DATE_TRUNC",
    "Any": "ANY",
    "All": "ALL",
    "Interval": "INTERVAL",
    "AtTimeZone": "AT TIME ZONE",
    "Array": "ARRAY",
    "Bracket": "a subscript",
    "CurrentDate": "CURRENT_DATE",
    "CurrentTimestamp": "CURRENT_TIMESTAMP",
    "GroupingSets": "GROUPING SETS",
    "TableSample": "TABLESAMPLE",
    "WithinGroup": "WITHIN GROUP",
}
_EXTRACTED = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE")
_NUMBERS = ("integer", "real")


def foreign_construct(sql: str, tree: Expr, dialect: str, schema: Schema, golds: Sequence[str]) -> str | None:
    """Describe the first construct in a query that cannot be judged, or return None if all of them can.

    The case of names matters only if the golds use the stored case. Otherwise some tool has quoted the schema's names.
    """
    resolver = ColumnResolver(schema)
    reasons = chain(
        _words(sql, tree, dialect),
        _nodes(tree, dialect),
        _clauses(tree, resolver, dialect),
        _types(tree, resolver, dialect),
        _divisions(tree, golds, dialect) if dialect not in _DIVIDES_BY_ZERO else (),
        _folded_names(tree, schema) if dialect in _FOLDS_TO_LOWER and _mind_capitals(golds, dialect, schema) else (),
    )
    return next(reasons, None)


def _words(sql: str, tree: Expr, dialect: str) -> Iterator[str]:
    """Yield reasons that only the text shows, because sqlglot accepts more than the dialect does."""
    import sqlglot
    from sqlglot import expressions as exp

    quoted = ("IDENTIFIER", "STRING", "NATIONAL_STRING", "RAW_STRING")
    tokens = sqlglot.tokenize(sql, read=dialect)
    words = ["''" if token.token_type.name in quoted else token.text.lower() for token in tokens]
    own = {node.alias_or_name.lower() for node in tree.find_all(exp.CTE, exp.TableAlias, exp.Table)}
    known = _COMMON_FUNCTIONS | _MORE_FUNCTIONS.get(dialect, frozenset()) | _NO_FUNCTIONS | own
    casts = tree.find(exp.Cast) is not None
    for before, word, after, later in zip(["", *words], words, [*words[1:], ""], [*words[2:], "", ""], strict=False):
        if dialect in _REFUSED_WORDS.get(word, ()) or (word == "==" and dialect not in _TWO_EQUAL_SIGNS):
            yield f"{dialect} refuses {word.upper()}"
        if word == "," and after in _AFTER_LISTS and dialect not in _TRAILING_COMMAS:
            yield f"{dialect} refuses a comma before {after.upper()}"
        if word == "limit" and later == "," and dialect not in _LIMIT_WITH_COMMA:
            yield f"{dialect} refuses LIMIT with a comma"
        if after == "(" and word.isidentifier() and word not in known:
            yield f"the function {word.upper()} is not supported"
        is_double = dialect == "postgres" and word == "double" and after != "precision"
        if casts and before in ("as", "::") and (word in _REFUSED_TYPES.get(dialect, ()) or is_double):
            yield f"{dialect} refuses the type {word.upper()} in a CAST"


def _nodes(tree: Expr, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    for node in tree.walk():
        kind = type(node).__name__
        if kind not in _PLAIN_NODES:
            shown = _NAMES_OF_NODES.get(kind) or (node.sql_name() if isinstance(node, exp.Func) else node.sql(dialect))
            yield f"{shown[:60]} is not supported"
        elif isinstance(node, exp.Extract) and node.this.name.upper() not in _EXTRACTED:
            yield f"EXTRACT of {node.this.name.upper()} is not supported"
        elif isinstance(node, exp.Like | exp.ILike) and not isinstance(literal_value(node.expression), str):
            yield "LIKE with a pattern that is not a text literal is not supported"
        elif isinstance(node, exp.Like) and "\\" in str(literal_value(node.expression)):
            yield "LIKE with a backslash is not supported"
        elif isinstance(node, exp.Left | exp.Right) and not isinstance(literal_value(node.expression), int):
            yield f"{kind.upper()} with a length that is not a number is not supported"
        elif isinstance(node, exp.Max | exp.Min) and node.expressions:
            yield f"{dialect} refuses {kind.upper()} with several arguments"
        elif isinstance(node, exp.Distinct) and node.args.get("on"):
            yield "DISTINCT ON is not supported"
        elif isinstance(node, exp.Group) and any(node.args.get(key) for key in ("rollup", "cube", "grouping_sets")):
            yield "GROUPING SETS, ROLLUP and CUBE are not supported"


def _clauses(tree: Expr, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    """Yield reasons for names that SQLite resolves and choices that it makes but that other databases refuse."""
    from sqlglot import expressions as exp

    for select in tree.find_all(exp.Select):
        yield from _aliases_in_conditions(select, resolver, dialect)
        yield from _ungrouped_columns(select, resolver, dialect)
        if select.args.get("having") and not select.args.get("group") and not any(map(aggregates, select.selects)):
            yield f"{dialect} refuses HAVING without GROUP BY"
        if dialect == "postgres" and select.args.get("distinct") and select.args.get("order"):
            yield from _unselected_order_keys(select, dialect)


def _aliases_in_conditions(select: Select, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    aliases = {item.alias.lower() for item in select.selects if isinstance(item, exp.Alias)}
    for clause, allowed in (("having", _ALIAS_IN_HAVING), ("where", _ALIAS_IN_WHERE)):
        if dialect in allowed or not select.args.get(clause):
            continue
        for column in select.args[clause].find_all(exp.Column):
            mine = column.find_ancestor(exp.Select) is select
            if mine and not column.table and column.name.lower() in aliases and resolver.place(column) is None:
                yield f"{dialect} refuses the alias {column.name} in {clause.upper()}"


def _ungrouped_columns(select: Select, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    columns = [column for key in resolver.group_keys(select) for column in key.find_all(exp.Column)]
    keys = {place for column in columns if (place := resolver.place(column))}
    for column in resolver.bare_columns(select):
        place = resolver.place(column)
        if place and not any(_is_primary_key(resolver.schema, key) for key in keys if key[0] == place[0]):
            yield f"{dialect} refuses the column {column.name}, which is neither grouped by nor aggregated"


def _unselected_order_keys(select: Select, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    shown = {item.unalias().sql().lower() for item in select.selects}
    shown |= {item.alias_or_name.lower() for item in select.selects}
    for term in select.args["order"].expressions:
        key = term.this
        if not isinstance(key, exp.Literal) and not {key.sql().lower(), key.name.lower()} & shown:
            yield f"{dialect} refuses DISTINCT with ORDER BY {key.sql(dialect)}, which is not selected"


def _is_primary_key(schema: Schema, place: Place) -> bool:
    column = schema.column(place)
    return column.unique and column.required


def _types(tree: Expr, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    """Yield reasons for types that the dialect does not compare, or compares differently from SQLite."""
    from sqlglot import expressions as exp

    compared = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
    calculated = (exp.Sum, exp.Avg, exp.Abs, exp.Round, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)
    for node in tree.walk():
        if isinstance(node, compared):
            yield from _mismatch(node.this, node.expression, resolver, dialect)
            yield from _mismatch(node.expression, node.this, resolver, dialect)
        elif isinstance(node, exp.In | exp.Between):
            for item in (*node.expressions, node.args.get("low"), node.args.get("high")):
                yield from _mismatch(node.this, item, resolver, dialect)
        elif isinstance(node, calculated):
            others = [operand for operand in _operands(node) if _kind(operand, resolver) in ("text", "boolean")]
            yield from (f"{operand.sql(dialect)} is used in a calculation but is not a number" for operand in others)
        elif isinstance(node, exp.Like | exp.ILike) and _kind(node.this, resolver) not in (None, "text"):
            yield f"LIKE is used on {node.this.sql(dialect)}, which is not text"
        elif isinstance(node, exp.Cast):
            yield from _cast(node, resolver, dialect)
        elif isinstance(node, exp.Where | exp.Having | exp.And | exp.Or | exp.Not) and dialect != "mysql":
            yield from _values_as_conditions(node, resolver, dialect)


def _operands(node: Expr) -> list[Expr]:
    return [operand for operand in (node.this, node.args.get("expression")) if operand is not None]


def _values_as_conditions(node: Expr, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    for operand in _operands(node):
        if isinstance(operand, exp.Literal) or _kind(operand, resolver) in (*_NUMBERS, "text"):
            yield f"{dialect} refuses {operand.sql(dialect)} as a condition"


def _kind(node: Expr, resolver: ColumnResolver) -> str | None:
    """Return the kind of a column, or None for any other node."""
    from sqlglot import expressions as exp

    if not isinstance(node, exp.Column) or (place := resolver.place(node)) is None:
        return None
    return resolver.schema.column(place).kind


def _mismatch(column: Expr, other: Expr | None, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    """Yield a reason if the dialect does not compare the types of a column and a literal as SQLite does."""
    kind, value = _kind(column, resolver), literal_value(other)
    if other is None or kind is None or value is None:
        return
    shown = f"{column.sql(dialect)} is compared with {other.sql(dialect)}"
    if type(other).__name__ == "Boolean":
        if kind not in ("boolean", *_NUMBERS) or (kind in _NUMBERS and dialect != "mysql"):
            yield f"{shown}, which has a different type"
    elif isinstance(value, str):
        if kind in _NUMBERS and not re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", value):
            yield f"{shown}, which has a different type"
    elif kind == "text" or (kind not in _NUMBERS and not (kind == "boolean" and dialect in ("mysql", "duckdb"))):
        yield f"{shown}, which has a different type"


def _cast(node: Expr, resolver: ColumnResolver, dialect: str) -> Iterator[str]:
    from sqlglot import expressions as exp

    to = node.args["to"]
    source, literal = _kind(node.this, resolver), literal_value(node.this)
    shown = node.sql(dialect)
    if to.this in exp.DataType.NUMERIC_TYPES and (source == "text" or isinstance(literal, str)):
        yield f"{shown} fails for text that is not a number"
    elif to.this in exp.DataType.TEXT_TYPES and (
        (source not in ("text", "integer") and literal is None) or to.expressions
    ):
        yield f"{shown} formats values differently from SQLite"
    elif to.this in exp.DataType.REAL_TYPES and to.expressions and literal is None:
        yield f"{shown} rounds its value, unlike SQLite"
    elif (
        (to.this in exp.DataType.TEMPORAL_TYPES and source not in ("date", "datetime") and not isinstance(literal, str))
        or to.this == exp.DataType.Type.BOOLEAN
        or to.this not in (*exp.DataType.NUMERIC_TYPES, *exp.DataType.TEXT_TYPES, *exp.DataType.TEMPORAL_TYPES)
    ):
        yield f"{shown} is not supported"


def _divisions(tree: Expr, golds: Sequence[str], dialect: str) -> Iterator[str]:
    """Yield reasons for divisions by a column, which fail for 0 unlike in SQLite, unless the golds also have them."""
    from sqlglot import expressions as exp

    def unguarded(query: Expr) -> list[Expr]:
        return [node for node in query.find_all(exp.Div, exp.Mod) if isinstance(node.expression, exp.Column)]

    known = any(unguarded(gold) for sql in golds if (gold := parse(sql, dialect)))
    for node in unguarded(tree) if not known else ():
        yield f"{node.sql(dialect)} fails if it divides by 0"


def _mind_capitals(golds: Sequence[str], dialect: str, schema: Schema) -> bool:
    trees = [tree for gold in golds if (tree := parse(gold, dialect))]
    return not any(reason for tree in trees for reason in _folded_names(tree, schema))


def _folded_names(tree: Expr, schema: Schema) -> Iterator[str]:
    """Yield reasons for names whose case differs from the stored name: in PostgreSQL abc does not match "Abc"."""
    from sqlglot import expressions as exp

    quoted = {name for statement in schema.ddl for name in re.findall(r'"([^"]+)"', statement)}
    written = [table.name for table in schema.tables.values()]
    written += [column.name for table in schema.tables.values() for column in table.columns.values()]
    stored = {name if name in quoted else name.lower() for name in written}
    known = {name.lower() for name in stored}
    aliases = {alias.alias for alias in tree.find_all(exp.Alias, exp.TableAlias, exp.CTE)}
    for node in tree.find_all(exp.Identifier):
        name = node.name if node.args.get("quoted") else node.name.lower()
        if name.lower() in known and name not in stored and name.lower() not in {alias.lower() for alias in aliases}:
            yield f"{node.sql('postgres')} does not exist, because the stored name is in a different case"
