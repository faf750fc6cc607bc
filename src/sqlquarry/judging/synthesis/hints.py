"""What queries say about the data that would tell them apart: values, dates, joined columns, group sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.judging.synthesis.dates import PartCondition, read_date
from sqlquarry.judging.synthesis.names import Names, Place, Value, literal_value, read_query
from sqlquarry.judging.synthesis.schema import Schema

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select

_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


_DATE_FUNCTIONS = {"DATE": "%Y-%m-%d", "TIME": "%H:%M:%S", "DATETIME": "%Y-%m-%d %H:%M:%S"}
_NUMBERS_OF_DATES = ("JULIANDAY", "UNIXEPOCH")
_PARTS_BY_POSITION = {(1, 4): "%Y", (6, 2): "%m", (9, 2): "%d", (1, 7): "%Y-%m", (1, 10): "%Y-%m-%d", (6, 5): "%m-%d"}
_DATE_KINDS = ("date", "time", "datetime")


class Crowd(NamedTuple):
    """A number that the rows of a group are compared with, in a query on these tables grouped by these columns."""

    size: int
    tables: tuple[str, ...]
    keys: tuple[Place, ...]


@dataclass(slots=True)
class Hints:
    """Gathered from any number of queries.

    Args:
        conditions: column -> comparisons with constants, as (operator, value); "like" takes a pattern.
        numeric: columns that are summed, averaged or compared with numbers: text in them must read as a number.
        signed: columns that the queries expect to be negative: under ABS, or compared with a negative number.
        fractional: columns that are rounded.
        padded: columns that are trimmed.
        optional: columns that the queries expect to be NULL.
        repeated: columns that one table's rows are grouped by or taken DISTINCT of.
        dates: columns that hold dates or times by what is asked of them, whatever their type: "date" or "datetime".
        parts: column -> comparisons of part of its date.
        counts: numbers that row counts are compared with, and limits.
        crowds: the same for the rows of one group.
        dependents: columns returned beside a GROUP BY of others, with these: (table, keys, dependents).
    """

    conditions: dict[Place, dict[tuple[str, Value], None]] = field(default_factory=dict)
    numeric: set[Place] = field(default_factory=set)
    signed: set[Place] = field(default_factory=set)
    fractional: set[Place] = field(default_factory=set)
    padded: set[Place] = field(default_factory=set)
    optional: set[Place] = field(default_factory=set)
    repeated: set[Place] = field(default_factory=set)
    dates: dict[Place, str] = field(default_factory=dict)
    parts: dict[Place, dict[PartCondition, None]] = field(default_factory=dict)
    counts: set[int] = field(default_factory=set)
    crowds: dict[Crowd, None] = field(default_factory=dict)
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

    def parts_of(self, place: Place) -> list[PartCondition]:
        """The comparisons of part of a date, of every column of the same domain."""
        leader = self.domain(place)
        return [item for other, items in self.parts.items() if self.domain(other) == leader for item in items]

    def date_kind(self, place: Place) -> str | None:
        """What the domain's columns hold by what is asked of them: "datetime" rather than "date"; None if neither."""
        kinds = {kind for other, kind in self.dates.items() if self.domain(other) == self.domain(place)}
        return max(kinds, default=None, key=("date", "time", "datetime").index)

    def marks(self, marked: set[Place], place: Place) -> bool:
        """Whether any column of the domain is in a set."""
        leader = self.domain(place)
        return any(self.domain(other) == leader for other in marked)


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
        elif isinstance(node, exp.Like | exp.ILike):
            _compare(node.this, "like", node.expression, names, hints)
        elif isinstance(node, exp.Glob):
            _compare(node.this, "like", _as_like(node.expression), names, hints)
        elif isinstance(node, exp.Between):
            _compare(node.this, ">=", node.args["low"], names, hints)
            _compare(node.this, "<=", node.args["high"], names, hints)
        elif isinstance(node, exp.In):
            for item in (*node.expressions, *filter(None, [node.args.get("query")])):
                _compare(node.this, "=", item, names, hints)
        elif isinstance(node, exp.Limit | exp.Offset) and isinstance(value := literal_value(node.expression), int):
            hints.counts.add(value)
        elif isinstance(node, exp.SetOperation):
            for left, right in zip(node.left.selects, node.right.selects, strict=False):
                _share(left, right, names, hints)
        else:
            _read_use(node, names, hints)
    for select in tree.find_all(exp.Select):  # last, because it asks which columns are joined
        _depend(select, names, hints)
        _gather_crowds(select, names, hints)
        _gather_repeated(select, names, hints)


def _read_use(node: Expr, names: Names, hints: Hints) -> None:
    """Note what a function or operator expects of the columns in it."""
    from sqlglot import expressions as exp

    if isinstance(node, exp.Sum | exp.Avg | exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Mod):
        hints.numeric.update(_numbers(node, names))
        return
    counts_column = isinstance(node, exp.Count) and isinstance(node.this, exp.Column)
    for expecting, marked in (
        (isinstance(node, exp.Coalesce | exp.Nullif) or counts_column, hints.optional),
        (isinstance(node, exp.Abs | exp.Sign | exp.Neg), hints.signed),
        (isinstance(node, exp.Round | exp.Cast), hints.fractional),
        (isinstance(node, exp.Trim), hints.padded),
    ):
        if expecting:
            marked.update(_places(node.this, names))
    if isinstance(node, exp.Func) and (found := _date_part(node, names, hints)):
        hints.dates[found[0]] = _kind_of_part(found[1], hints.dates.get(found[0]))


def _compare(left: Expr, sign: str, right: Expr, names: Names, hints: Hints) -> None:
    from sqlglot import expressions as exp

    if _constant(left) is not None and sign in _FLIPPED:
        left, sign, right = right, _FLIPPED[sign], left
    if isinstance(right, exp.Null):
        hints.optional.update(_places(left, names))
        return
    value = _constant(right)
    if value is None:
        _share(left, right, names, hints)
        return
    if found := _date_part(left, names, hints):
        place, part = found
        hints.dates[place] = _kind_of_part(part, hints.dates.get(place))
        if part:
            hints.parts.setdefault(place, {})[PartCondition(part, sign, value)] = None
        return
    places = list(_places(left, names))
    if left.find(exp.Count) and isinstance(value, int):
        hints.counts.add(value)
        return
    for place in places:
        declared = names.schema.tables[place[0]].column(place[1])
        if (
            declared
            and declared.kind in _DATE_KINDS
            and not isinstance(left, exp.Column)
            and not isinstance(value, str)
        ):
            continue  # a number that a date was turned into says nothing about the date
        hints.conditions.setdefault(place, {})[sign, value] = None
        if not isinstance(value, str):
            hints.numeric.add(place)
            if value < 0:
                hints.signed.add(place)
        elif sign != "like" and (date := read_date(value)):
            hints.dates[place] = _kind_of_part(date[1].pattern, hints.dates.get(place))
    if isinstance(value, int) and not places:
        hints.counts.add(value)


def _kind_of_part(part: str, known: str | None) -> str:
    """What a column must hold so that the part says something."""
    has_time, has_date = any(sign in part for sign in ("%H", "%M", "%S")), any(sign in part for sign in ("%Y", "%d"))
    kind = ("datetime" if has_date else "time") if has_time else "date"
    return kind if known in (None, kind) else "datetime"


def _date_part(node: Expr, names: Names, hints: Hints) -> tuple[Place, str] | None:
    """The column and the format of strftime that a date function shows of it; "" for one that counts days."""
    from sqlglot import expressions as exp

    while isinstance(node, exp.Cast | exp.Paren | exp.Add | exp.Sub):  # CAST(strftime('%Y', d) AS INTEGER) + 0
        node = node.this
    part: Value | None = None
    if isinstance(node, exp.TimeToStr):
        part = literal_value(node.args["format"])
    elif isinstance(node, exp.Date):
        part = _DATE_FUNCTIONS["DATE"]
    elif isinstance(node, exp.Anonymous) and (name := node.name.upper()) in (*_DATE_FUNCTIONS, *_NUMBERS_OF_DATES):
        part = _DATE_FUNCTIONS.get(name, "")
    elif isinstance(node, exp.Anonymous) and node.name.upper() == "STRFTIME" and node.expressions:
        part = literal_value(node.expressions[0])
    elif isinstance(node, exp.Substring):
        start, length = literal_value(node.args.get("start")), literal_value(node.args.get("length"))
        part = _PARTS_BY_POSITION.get((start, length)) if isinstance(start, int) and isinstance(length, int) else None
    places = set(_places(node, names))
    if not isinstance(part, str) or len(places) != 1:
        return None
    place = places.pop()
    if isinstance(node, exp.Substring):  # of any text: only where something else says that it is a date
        column = names.schema.tables[place[0]].column(place[1])
        if place not in hints.dates and (column is None or column.kind not in _DATE_KINDS):
            return None
    return place, part


def _numbers(node: Expr, names: Names) -> Iterator[Place]:
    """The columns that are reckoned with themselves; the difference of two dates makes no number of a date."""
    from sqlglot import expressions as exp

    for column in node.find_all(exp.Column):
        place = names.place(column)
        declared = names.schema.tables[place[0]].column(place[1]) if place else None
        outer = column.parent
        while outer is not node and not isinstance(outer, exp.TimeToStr | exp.Anonymous | exp.Date | exp.Length):
            outer = outer.parent if outer else node
        if place and declared and outer is node and declared.kind not in _DATE_KINDS:
            yield place


def _gather_crowds(select: Select, names: Names, hints: Hints) -> None:
    """Note how many rows a group needs, for HAVING COUNT(*) > 50 and (SELECT COUNT(*) …) > 50."""
    from sqlglot import expressions as exp

    outer = select.parent.parent if isinstance(select.parent, exp.Subquery) else None
    clauses = [select.args.get("having"), outer if isinstance(outer, exp.Predicate) else None]
    counts = {
        value
        for clause in clauses
        if clause is not None and (clause is not outer or select.find(exp.Count))
        for literal in clause.find_all(exp.Literal)
        if isinstance(value := literal_value(literal), int) and clause.find(exp.Count)
    }
    if not counts:
        return
    keys = {place for key in names.group_keys(select) for place in _places(key, names)}
    where = select.args.get("where")
    tables = {table.name.lower() for table in select.find_all(exp.Table)} & set(names.schema.tables)
    for equal in where.find_all(exp.EQ) if where and not keys else ():  # the key of a correlated subquery
        keys |= {place for place in _places(equal, names) if place[0] in tables and _constant(equal.expression) is None}
    for count in counts:
        hints.crowds[Crowd(count, tuple(sorted(tables)), tuple(sorted(keys)))] = None


def _gather_repeated(select: Select, names: Names, hints: Hints) -> None:
    """Note columns of one table that are grouped by, or taken DISTINCT of: whoever asks that expects repetitions."""
    from sqlglot import expressions as exp

    if select.args.get("joins"):
        return
    group = select.args.get("group")
    expected = list(group.expressions if group else ())
    expected += select.selects if select.args.get("distinct") else ()
    expected += [node for item in select.selects for node in item.find_all(exp.Distinct)]
    places = [set(_places(node, names)) for node in expected]
    if len(places) == 1 or not group:
        hints.repeated.update(place for found in places for place in found)


def _as_like(pattern: Expr) -> Expr:
    """The pattern of a GLOB as LIKE says it."""
    from sqlglot import expressions as exp

    signs = {"*": "%", "?": "_"}
    parts = re.findall(r"\[.\]|.", str(literal_value(pattern) or ""), re.DOTALL)
    return exp.Literal.string("".join(part[1] if len(part) > 1 else signs.get(part, part) for part in parts))


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
    keys = {place for key in names.group_keys(select) for place in _places(key, names)}
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
