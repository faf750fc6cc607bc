"""Reads hints about the data from queries. See `Hints`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sqlquarry.judging.synthesis.dates import DATE_KINDS, DateKind, PartCondition, read_date
from sqlquarry.judging.synthesis.hints import GroupSize, Hints
from sqlquarry.sql.parsing import parse
from sqlquarry.sql.resolver import ColumnResolver, read_query
from sqlquarry.sql.schema import Place, Schema
from sqlquarry.sql.syntax import Value, literal_value

if TYPE_CHECKING:
    from sqlglot.expressions import Expr, Select

_SIGNS = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "is": "="}  # by kind of node
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DATE_FUNCTIONS = {"DATE": "%Y-%m-%d", "TIME": "%H:%M:%S", "DATETIME": "%Y-%m-%d %H:%M:%S"}
_NUMBERS_OF_DATES = ("JULIANDAY", "UNIXEPOCH")
_PARTS_BY_POSITION = {(1, 4): "%Y", (6, 2): "%m", (9, 2): "%d", (1, 7): "%Y-%m", (1, 10): "%Y-%m-%d", (6, 5): "%m-%d"}


def gather_hints(queries: Iterable[str], schema: Schema) -> Hints:
    """Read the hints from SQLite queries and from the CHECKs of a schema. Queries that cannot be parsed are skipped."""
    hints = Hints()
    for table in schema.tables.values():
        for key in table.foreign_keys:
            for child, target in zip(key.columns, key.targets, strict=True):
                hints.join((table.name.lower(), child), (key.table, target))
    checks = (check for statement in schema.ddl for check in _checks(statement))
    for sql in (*checks, *queries):
        if found := read_query(sql, schema):
            tree, resolver = found
            _HintReader(resolver, hints).read(tree)
    return hints


def _checks(statement: str) -> Iterator[str]:
    """Yield each CHECK of a CREATE TABLE as a query on the table."""
    if "CHECK" not in statement.upper():
        return
    from sqlglot import expressions as exp

    tree = parse(statement, "sqlite")
    table = tree.find(exp.Table) if tree else None
    if tree is None or table is None:
        return
    for check in tree.find_all(exp.CheckColumnConstraint):
        yield f"SELECT 1 FROM {table.sql(dialect='sqlite')} WHERE {check.this.sql(dialect='sqlite')}"


class _HintReader:
    """A reader that adds the hints of one query."""

    def __init__(self, resolver: ColumnResolver, hints: Hints) -> None:
        self.resolver, self.schema, self.hints = resolver, resolver.schema, hints

    def read(self, tree: Expr) -> None:
        from sqlglot import expressions as exp

        for node in tree.walk():
            if compared := _comparisons(node):
                for left, sign, right in compared:
                    self._compare(left, sign, right)
            elif isinstance(node, exp.Limit | exp.Offset):
                if isinstance(value := literal_value(node.expression), int):
                    self.hints.counts.add(value)
            elif isinstance(node, exp.SetOperation):
                for first, second in zip(node.left.selects, node.right.selects, strict=False):
                    self._share(first, second)
            else:
                self._read_use(node)
        for select in tree.find_all(exp.Select):  # last, because this needs the joined columns
            self._note_dependents(select)
            self._note_group_sizes(select)
            self._note_repeated(select)

    def _read_use(self, node: Expr) -> None:
        """Note the hints that a function or operator gives about its columns."""
        from sqlglot import expressions as exp

        if isinstance(node, exp.Sum | exp.Avg | exp.Add | exp.Sub | exp.Mul | exp.Div | exp.Mod):
            self.hints.numeric.update(self._numbers(node))
            return
        counts_column = isinstance(node, exp.Count) and isinstance(node.this, exp.Column)
        for expecting, marked in (
            (isinstance(node, exp.Coalesce | exp.Nullif) or counts_column, self.hints.optional),
            (isinstance(node, exp.Abs | exp.Sign | exp.Neg), self.hints.signed),
            (isinstance(node, exp.Round | exp.Cast), self.hints.fractional),
            (isinstance(node, exp.Trim), self.hints.padded),
        ):
            if expecting:
                marked.update(self._places(node.this))
        if isinstance(node, exp.Func) and (found := self._date_part(node)):
            self._note_date(*found)

    def _compare(self, left: Expr, sign: str, right: Expr) -> None:
        from sqlglot import expressions as exp

        if _constant(left) is not None and sign in _FLIPPED:
            left, sign, right = right, _FLIPPED[sign], left
        value = _constant(right)
        if isinstance(right, exp.Null):
            self.hints.optional.update(self._places(left))
        elif value is None:
            self._share(left, right)
        elif found := self._date_part(left):
            place, part = found
            self._note_date(place, part)
            if part:
                self.hints.parts.setdefault(place, {})[PartCondition(part, sign, value)] = None
        elif isinstance(value, int) and left.find(exp.Count):
            self.hints.counts.add(value)
        else:
            self._note_values(left, sign, value)

    def _note_values(self, left: Expr, sign: str, value: Value) -> None:
        """Note that an expression is compared with a constant, for every column in the expression."""
        from sqlglot import expressions as exp

        places = list(self._places(left))
        for place in places:
            of_date = self.schema.column(place).kind in DATE_KINDS and not isinstance(left, exp.Column)
            if of_date and not isinstance(value, str):
                continue  # a number that is computed from a date says nothing about the date itself
            self.hints.conditions.setdefault(place, {})[sign, value] = None
            if not isinstance(value, str):
                self.hints.numeric.add(place)
                if value < 0:
                    self.hints.signed.add(place)
            elif sign != "like" and (date := read_date(value)):
                self._note_date(place, date[1].pattern)
        if isinstance(value, int) and not places:
            self.hints.counts.add(value)

    def _note_date(self, place: Place, part: str) -> None:
        self.hints.dates[place] = _kind_of_part(part, self.hints.dates.get(place))

    def _date_part(self, node: Expr) -> tuple[Place, str] | None:
        """Return the column of a date function and the strftime format of its result, which is "" if it counts days."""
        from sqlglot import expressions as exp

        while isinstance(node, exp.Cast | exp.Paren | exp.Add | exp.Sub):  # CAST(strftime('%Y', d) AS INTEGER) + 0
            node = node.this
        part = _part_shown(node)
        places = set(self._places(node))
        if not isinstance(part, str) or len(places) != 1:
            return None
        place = places.pop()
        is_date = place in self.hints.dates or self.schema.column(place).kind in DATE_KINDS
        # SUBSTR applies to any text, so something else must show that the text is a date.
        return None if isinstance(node, exp.Substring) and not is_date else (place, part)

    def _numbers(self, node: Expr) -> Iterator[Place]:
        """Yield the columns that must be numbers because a query calculates with them. Dates are not among them."""
        from sqlglot import expressions as exp

        for column in node.find_all(exp.Column):
            place = self.resolver.place(column)
            outer = column.parent
            while outer is not node and not isinstance(outer, exp.TimeToStr | exp.Anonymous | exp.Date | exp.Length):
                outer = outer.parent if outer else node
            if place and outer is node and self.schema.column(place).kind not in DATE_KINDS:
                yield place

    def _note_group_sizes(self, select: Select) -> None:
        """Note the number of rows that a group needs for HAVING COUNT(*) > 50 and (SELECT COUNT(*) …) > 50."""
        from sqlglot import expressions as exp

        counts = _counts_of_rows(select)
        if not counts:
            return
        keys = {place for key in self.resolver.group_keys(select) for place in self._places(key)}
        where = select.args.get("where")
        tables = {table.name.lower() for table in select.find_all(exp.Table)} & set(self.schema.tables)
        for equal in where.find_all(exp.EQ) if where and not keys else ():  # keys of a correlated subquery
            keys |= {
                place for place in self._places(equal) if place[0] in tables and _constant(equal.expression) is None
            }
        for count in counts:
            self.hints.group_sizes[GroupSize(count, tuple(sorted(tables)), tuple(sorted(keys)))] = None

    def _note_repeated(self, select: Select) -> None:
        """Note the columns of one table that a query groups by or uses in DISTINCT. Their values should repeat."""
        from sqlglot import expressions as exp

        if select.args.get("joins"):
            return
        group = select.args.get("group")
        expected = list(group.expressions if group else ())
        expected += select.selects if select.args.get("distinct") else ()
        expected += [node for item in select.selects for node in item.find_all(exp.Distinct)]
        places = [set(self._places(node)) for node in expected]
        if len(places) == 1 or not group:
            self.hints.repeated.update(place for found in places for place in found)

    def _note_dependents(self, select: Select) -> None:
        """Note the columns that GROUP BY leaves bare. The query has one answer only if the group determines them."""
        keys = {place for key in self.resolver.group_keys(select) for place in self._places(key)}
        domains = {self.hints.domain(key) for key in keys}
        bare: dict[str, set[str]] = {}
        for column in self.resolver.bare_columns(select):
            if place := self.resolver.place(column):
                bare.setdefault(place[0], set()).add(place[1])
        for name, dependents in bare.items():
            columns = self.schema.tables[name].columns
            known = tuple(c for c in columns if self.hints.domain((name, c)) in domains and c not in dependents)
            if known:
                self.hints.dependents[name, known, tuple(sorted(dependents))] = None

    def _share(self, left: Expr, right: Expr) -> None:
        """Note that two columns share values because a comparison, set operation or subquery connects them."""
        mine, theirs = self._single_place(left), self._single_place(right)
        if mine and theirs:
            self.hints.join(mine, theirs)

    def _single_place(self, node: Expr) -> Place | None:
        from sqlglot import expressions as exp

        if isinstance(node, exp.Subquery):
            node = node.this
        if isinstance(node, exp.Query):
            if len(node.selects) != 1:
                return None
            node = node.selects[0]
        places = set(self._places(node)) if not isinstance(node.unalias(), exp.Count) else set()
        return places.pop() if len(places) == 1 else None

    def _places(self, node: Expr) -> Iterator[Place]:
        from sqlglot import expressions as exp

        for column in node.find_all(exp.Column):
            if place := self.resolver.place(column):
                yield place


def _comparisons(node: Expr) -> list[tuple[Expr, str, Expr]]:
    """Return the comparisons of a predicate as (left, operator, right). The right side of "like" is a pattern."""
    from sqlglot import expressions as exp

    if sign := _SIGNS.get(node.key):
        return [(node.this, sign, node.expression)]
    if isinstance(node, exp.Like | exp.ILike):
        return [(node.this, "like", node.expression)]
    if isinstance(node, exp.Glob):
        return [(node.this, "like", _as_like(node.expression))]
    if isinstance(node, exp.Between):
        return [(node.this, ">=", node.args["low"]), (node.this, "<=", node.args["high"])]
    if isinstance(node, exp.In):
        query = node.args.get("query")
        return [(node.this, "=", item) for item in (*node.expressions, *([query] if query else ()))]
    return []


def _part_shown(node: Expr) -> Value | None:
    """Return the strftime format of the result of a function: "" if it counts days, None if it is not a date."""
    from sqlglot import expressions as exp

    if isinstance(node, exp.TimeToStr):
        return literal_value(node.args["format"])
    if isinstance(node, exp.Date):
        return _DATE_FUNCTIONS["DATE"]
    if isinstance(node, exp.Substring):
        start, length = literal_value(node.args.get("start")), literal_value(node.args.get("length"))
        return _PARTS_BY_POSITION.get((start, length)) if isinstance(start, int) and isinstance(length, int) else None
    name = node.name.upper() if isinstance(node, exp.Anonymous) else ""
    if name in (*_DATE_FUNCTIONS, *_NUMBERS_OF_DATES):
        return _DATE_FUNCTIONS.get(name, "")
    return literal_value(node.expressions[0]) if name == "STRFTIME" and node.expressions else None


def _kind_of_part(part: str, known: DateKind | None) -> DateKind:
    """Return the kind of date that a column must contain for the part to exist in it."""
    has_time, has_date = any(sign in part for sign in ("%H", "%M", "%S")), any(sign in part for sign in ("%Y", "%d"))
    kind: DateKind = ("datetime" if has_date else "time") if has_time else "date"
    return kind if known in (None, kind) else "datetime"


def _counts_of_rows(select: Select) -> set[int]:
    """Return the numbers with which COUNT is compared in HAVING or around a subquery."""
    from sqlglot import expressions as exp

    outer = select.parent.parent if isinstance(select.parent, exp.Subquery) else None
    clauses = [select.args.get("having"), outer if isinstance(outer, exp.Predicate) else None]
    return {
        value
        for clause in clauses
        if clause is not None and (clause is not outer or select.find(exp.Count))
        for literal in clause.find_all(exp.Literal)
        if isinstance(value := literal_value(literal), int) and clause.find(exp.Count)
    }


def _as_like(pattern: Expr) -> Expr:
    """Return the pattern of a GLOB as a pattern of LIKE."""
    from sqlglot import expressions as exp

    signs = {"*": "%", "?": "_"}
    parts = re.findall(r"\[.\]|.", str(literal_value(pattern) or ""), re.DOTALL)
    return exp.Literal.string("".join(part[1] if len(part) > 1 else signs.get(part, part) for part in parts))


def _constant(node: Expr) -> Value | None:
    """Return the value of a literal, even inside functions without columns, as in LOWER('x') or DATE('2020-01-01')."""
    from sqlglot import expressions as exp

    if (value := literal_value(node)) is not None or node.find(exp.Column, exp.Query):
        return value
    literal = node.find(exp.Literal)
    return literal_value(literal) if literal else None
