"""Finds the choices that a query leaves to the database system, which may give it several right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.results.ordering import KeyedQuery, with_order_keys
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.resolver import ColumnResolver, read_query
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.syntax import aggregates, break_ties, literal_value

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select


def other_choices(sql: str, schema: Schema) -> list[str]:
    """Return variants of an SQLite query that make the choices which it leaves open. Empty if it leaves none.

    One variant takes rows that tie at a LIMIT in ascending order of their values, the other in descending order. For
    columns that GROUP BY leaves bare, they take the smallest and the largest value. If the variants return the same as
    the query, the choice does not matter on these rows.
    """
    found = read_query(sql, schema)
    if found is None:
        return []
    texts = [_chosen(found[0].copy(), found[1], largest=largest) for largest in (False, True)]
    return [text for text in texts if text != found[0].sql(dialect="sqlite")]


class Cut(NamedTuple):
    """An ORDER BY with a LIMIT: the query without the limit, and the positions of the rows where it cuts."""

    keyed: KeyedQuery
    places: tuple[int, ...]

    def parts_a_tie(self, rows: Sequence[tuple[object, ...]]) -> bool:
        """Return whether the cut is between two rows that tie, even if the rows are equal."""
        keys = [row[-self.keyed.keys :] for row in rows]
        return any(0 < place < len(keys) and keys[place - 1] == keys[place] for place in self.places)


def cuts_of(sql: str) -> list[Cut]:
    """Return the simple cuts of an SQLite query and its subqueries. Those of correlated subqueries fail when run."""
    from sqlglot import expressions as exp

    tree = parse(sql, "sqlite")
    selects = list(tree.find_all(exp.Select)) if tree and "limit" in sql.lower() else []
    return [cut for select in selects if (cut := _cut_of(select))]


def _cut_of(tree: Select) -> Cut | None:
    if not tree.args.get("limit") or not tree.args.get("order"):
        return None
    offset = literal_value(tree.args["offset"].expression) if tree.args.get("offset") else 0
    limit = literal_value(tree.args["limit"].expression)
    if not isinstance(offset, int) or not isinstance(limit, int):
        return None
    whole = tree.copy()
    whole.set("limit", None)
    whole.set("offset", None)
    keyed = with_order_keys(whole.sql(dialect="sqlite"), "sqlite")
    return Cut(keyed, (offset, offset + limit)) if keyed else None


def _chosen(tree: Expr, resolver: ColumnResolver, *, largest: bool) -> str:
    from sqlglot import expressions as exp

    for query in list(tree.find_all(exp.Select, exp.SetOperation)):
        if query.args.get("limit") and not any(item.is_star for item in query.selects):
            break_ties(query, largest=largest)
    aggregate = exp.Max if largest else exp.Min
    for select in list(tree.find_all(exp.Select)):
        reducing = aggregates(select)
        extremes = [node for node in reducing if isinstance(node, exp.Max | exp.Min)]
        # With a single MAX or MIN, SQLite takes bare columns from that row (https://sqlite.org/lang_select.html).
        if len(extremes) == 1 and len(reducing) == 1:
            continue
        for column in resolver.bare_columns(select):
            column.replace(aggregate(this=column.copy()))
    return tree.sql(dialect="sqlite")
