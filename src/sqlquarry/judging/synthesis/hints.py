"""What queries say about the data that would tell them apart: values, joined columns, group sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlquarry.judging.synthesis.names import Names, Place, Value, literal_value, read_query
from sqlquarry.judging.synthesis.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select

_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(slots=True)
class Hints:
    """Gathered from any number of queries.

    Args:
        conditions: column -> comparisons with constants, as (operator, value); "like" takes a pattern.
        numeric: columns that are summed, averaged or compared with numbers: text in them must read as a number.
        counts: numbers that row counts are compared with, and limits.
        dependents: columns returned beside a GROUP BY of others, with these: (table, keys, dependents).
    """

    conditions: dict[Place, dict[tuple[str, Value], None]] = field(default_factory=dict)
    numeric: set[Place] = field(default_factory=set)
    counts: set[int] = field(default_factory=set)
    dependents: dict[tuple[str, tuple[str, ...], tuple[str, ...]], None] = field(default_factory=dict)
    _leader: dict[Place, Place] = field(default_factory=dict)

    def domain(self, place: Place) -> Place:
        """One column that stands for all those compared with this one, which therefore share values."""
        while (leader := self._leader.get(place, place)) != place:
            place = leader
        return place

    def join(self, a: Place, b: Place) -> None:
        """Let two columns share their values."""
        a, b = self.domain(a), self.domain(b)
        if a != b:
            self._leader[max(a, b)] = min(a, b)

    def of_domain(self, place: Place) -> list[tuple[str, Value]]:
        """The comparisons of every column of the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.conditions.items() if self.domain(other) == leader for item in items]

    def is_numeric(self, place: Place) -> bool:
        """Whether any column of the domain is used as a number."""
        leader = self.domain(place)
        return any(self.domain(other) == leader for other in self.numeric)


def gather(queries: Iterable[str], schema: Schema) -> Hints:
    """Read the hints out of SQLite queries; those that sqlglot cannot read say nothing."""
    hints = Hints()
    for table in schema.tables.values():
        for key in table.foreign_keys:
            for child, target in zip(key.columns, key.targets, strict=True):
                hints.join((table.name.lower(), child.lower()), (key.table, target.lower()))
    checks = (check for statement in schema.ddl for check in _checks(statement))
    for sql in (*checks, *queries):
        if found := read_query(sql, schema):
            _read(*found, hints)
    return hints


def _checks(statement: str) -> Iterator[str]:
    """Each CHECK of a CREATE TABLE, as a query on the table."""
    if "CHECK" not in statement.upper():
        return
    from sqlglot import expressions as exp

    from sqlquarry.judging.parsing import parse

    tree = parse(statement, "sqlite")
    table = tree.find(exp.Table) if tree else None
    if tree is None or table is None:
        return
    for check in tree.find_all(exp.CheckColumnConstraint):
        yield f"SELECT 1 FROM {table.sql(dialect='sqlite')} WHERE {check.this.sql(dialect='sqlite')}"


def _read(tree: Expr, names: Names, hints: Hints) -> None:
    from sqlglot import expressions as exp

    signs: dict[type, str] = {
        exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=", exp.Is: "=",
    }  # fmt: skip
    for node in tree.walk():
        if type(node) in signs:
            _compare(node.this, signs[type(node)], node.expression, names, hints)
        elif isinstance(node, exp.Like | exp.ILike | exp.Glob):
            _compare(node.this, "like", node.expression, names, hints)
        elif isinstance(node, exp.Between):
            _compare(node.this, ">=", node.args["low"], names, hints)
            _compare(node.this, "<=", node.args["high"], names, hints)
        elif isinstance(node, exp.In):
            for item in node.expressions:
                _compare(node.this, "=", item, names, hints)
            if query := node.args.get("query"):
                _compare(node.this, "=", query, names, hints)
        elif isinstance(node, exp.Sum | exp.Avg | exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Mod):
            hints.numeric.update(_places(node, names))
        elif isinstance(node, exp.Limit | exp.Offset) and isinstance(value := literal_value(node.expression), int):
            hints.counts.add(value)
        elif isinstance(node, exp.SetOperation):
            for left, right in zip(node.left.selects, node.right.selects, strict=False):
                _share(left, right, names, hints)
    for select in tree.find_all(exp.Select):  # last, because it asks which columns are joined
        _depend(select, names, hints)


def _compare(left: Expr, sign: str, right: Expr, names: Names, hints: Hints) -> None:
    from sqlglot import expressions as exp

    if _constant(left) is not None and sign in _FLIPPED:
        left, sign, right = right, _FLIPPED[sign], left
    value = _constant(right)
    if value is None:
        _share(left, right, names, hints)
        return
    places = list(_places(left, names))
    for place in places:
        hints.conditions.setdefault(place, {})[sign, value] = None
        if not isinstance(value, str):
            hints.numeric.add(place)
    counted = left.find(exp.Count)
    if isinstance(value, int) and (counted or not places):
        hints.counts.add(value)


def _constant(node: Expr) -> Value | None:
    """The value of a literal, also within functions that see no column, as in LOWER('x') or DATE('2020-01-01')."""
    from sqlglot import expressions as exp

    if (value := literal_value(node)) is not None or node.find(exp.Column, exp.Query):
        return value
    literal = node.find(exp.Literal)
    return literal_value(literal) if literal else None


def _share(left: Expr, right: Expr, names: Names, hints: Hints) -> None:
    """Columns that are compared, or meet in a set operation or subquery, need values in common."""
    mine, theirs = _single_place(left, names), _single_place(right, names)
    if mine and theirs:
        hints.join(mine, theirs)


def _single_place(node: Expr, names: Names) -> Place | None:
    from sqlglot import expressions as exp

    if isinstance(node, exp.Subquery):
        node = node.this
    if isinstance(node, exp.Query):
        if len(node.selects) != 1:
            return None
        node = node.selects[0]
    places = set(_places(node, names)) if not isinstance(node.unalias(), exp.Count) else set()
    return places.pop() if len(places) == 1 else None


def _places(node: Expr, names: Names) -> Iterator[Place]:
    from sqlglot import expressions as exp

    for column in node.find_all(exp.Column):
        if place := names.place(column):
            yield place


def _depend(select: Select, names: Names, hints: Hints) -> None:
    """Note the columns that GROUP BY leaves bare: the query has one answer only if they depend on the group."""
    group = select.args.get("group")
    keys = {place for key in (group.expressions if group else ()) for place in _places(key, names)}
    domains = {hints.domain(key) for key in keys}
    bare: dict[str, set[str]] = {}
    for column in names.bare_columns(select):
        if place := names.place(column):
            bare.setdefault(place[0], set()).add(place[1])
    for name, dependents in bare.items():
        columns = (column.name.lower() for column in names.schema.tables[name].columns)
        known = tuple(c for c in columns if hints.domain((name, c)) in domains and c not in dependents)
        if known:
            hints.dependents[name, known, tuple(sorted(dependents))] = None
