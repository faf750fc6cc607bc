"""The canonical form of a query: equal forms mean equal results on every database of the schema.

Each rewriting holds under three-valued logic, with NULLs and duplicates, and for SQLite's types. Where the result may
depend on the order in which rows are met (LIMIT, bare columns of a grouped query, group_concat, window functions, a
collation), none is made that could change the plan: only names are resolved and comparisons turned.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlquarry.judging.equivalence.blocks import (
    Block,
    BlockBuilder,
    Cte,
    StoredColumn,
    output_name,
    starred,
)
from sqlquarry.judging.equivalence.expressions import ExpressionForms
from sqlquarry.judging.equivalence.forms import TRUE, Form, as_set, has_aggregate, many, walk
from sqlquarry.judging.equivalence.schema import Schema
from sqlquarry.judging.equivalence.scopes import OrderMattersError, Scope, UndecidedError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_MOST_LABELLINGS = 120  # orders of sources that look alike (self-joins) that are tried
_EXTREMES = (("aggregate", "min"), ("aggregate", "max"))
_SET_OPERATIONS = ("union", "intersect", "except")
_SELECT_PARTS = {
    "expressions", "distinct", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "with_",
}  # fmt: skip


class Query(NamedTuple):
    """What a query means.

    Args:
        body: its form without ORDER BY; for a SELECT, the fields of `Select`.
        order: its ORDER BY, one form per key.
        names: of its outputs; None where their number is unknown.
    """

    body: Form
    order: tuple[Form, ...]
    names: tuple[str, ...] | None


class Select(NamedTuple):
    """The form of one SELECT; a tuple, so that it nests in other forms."""

    tag: str
    distinct: bool
    outputs: Form
    sources: Form
    joins: Form
    where: Form
    group: Form | None
    having: Form
    slice: Form
    order: Form


def canonical(tree: Expr, schema: Schema, dialect: str, *, keep_plan: bool, quoted_text: bool) -> Query:
    """The canonical form of one query.

    Args:
        tree: a SELECT or a set operation.
        schema: the tables; without any, tables and columns are taken as they are named.
        dialect: the SQL dialect, by sqlglot's name.
        keep_plan: make no rewriting that could change the order in which rows are met.
        quoted_text: a quoted name that nothing has is a string, as in SQLite for double quotes only.

    Raises:
        OrderMattersError: the result may depend on that order, but not `keep_plan`.
        UndecidedError: the query uses something that is not modelled.
        NoSuchNameError: the query names a table or column that the schema lacks.
    """
    forms = _Canonicaliser(schema, dialect, keep_plan=keep_plan, quoted_text=quoted_text)
    return forms.query(tree, None, {}, top=True)


class _Canonicaliser(ExpressionForms):
    def __init__(self, schema: Schema, dialect: str, *, keep_plan: bool, quoted_text: bool) -> None:
        super().__init__(schema, dialect, keep_plan=keep_plan, quoted_text=quoted_text)
        self._blocks = BlockBuilder(schema, self.fold, merge=not keep_plan, derive=self._derived, dialect=dialect)

    def same_type(self, first: StoredColumn, second: StoredColumn) -> bool:
        return self._blocks.same_type(first, second)

    def subquery(self, tree: Expr, scope: Scope, *, keep_plan: bool = False) -> Select | Form:
        if not keep_plan or self.keep_plan:
            try:
                return self.query(tree, scope, scope.ctes).body
            except OrderMattersError:
                if self.keep_plan:
                    raise
        # A query in an expression has a plan of its own, so only its own text must keep the order of rows.
        self.keep_plan, self._blocks.merge = True, False
        try:
            return ("planned", self.query(tree, scope, scope.ctes).body)
        finally:
            self.keep_plan, self._blocks.merge = False, True

    def query(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool = False) -> Query:
        from sqlglot import expressions as exp

        while tree.key in ("subquery", "paren"):
            if any(value for name, value in tree.args.items() if name not in ("this", "alias")):
                raise UndecidedError("clauses outside a parenthesis")
            tree = tree.this
        if (with_ := tree.args.get("with_")) is not None:
            if with_.args.get("recursive"):
                raise UndecidedError("WITH RECURSIVE")
            names = [self.fold(cte.args["alias"].this) for cte in with_.expressions]
            for place, cte in enumerate(with_.expressions):
                seen = {table.name.lower() for table in cte.this.find_all(exp.Table)}
                if seen & {name.lower() for name in names[place:]}:  # SQLite recurses without RECURSIVE
                    raise UndecidedError("WITH whose queries name each other")
                columns = tuple(self.fold(column) for column in cte.args["alias"].args.get("columns") or ())
                ctes = {**ctes, names[place]: Cte(cte.this, columns, ctes)}
        if tree.key == "select":
            return self._select(tree, outer, ctes, top=top)
        if tree.key in _SET_OPERATIONS:
            return self._compound(tree, outer, ctes, top=top)
        raise UndecidedError(f"a {tree.key} statement")

    def _derived(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte]) -> tuple[Form, tuple[str, ...]]:
        query = self.query(tree, outer, ctes)
        if query.names is None:
            raise UndecidedError("* of a table whose columns are unknown")
        return query.body, query.names

    def _compound(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool) -> Query:
        if any(tree.args.get(name) for name in ("by_name", "side", "kind", "on", "match")):
            raise UndecidedError("a set operation by name")
        kind, distinct = tree.key, bool(tree.args.get("distinct"))
        sides = []
        for side in (tree.this, tree.expression):
            other = side.key in _SET_OPERATIONS and (side.key, bool(side.args.get("distinct"))) != (kind, distinct)
            if other:  # dialects differ in which one comes first
                raise UndecidedError("different set operations in one query")
            sides.append(self.query(side, outer, ctes))
        left, right = sides[0].names, sides[1].names
        if left is None or right is None or len(left) != len(right):
            raise UndecidedError("a set operation on queries whose columns do not match")
        tag = f"{kind} {'distinct' if distinct else 'all'}"
        operands: list[Form] = []
        for query in sides:
            operands += query.body[1] if query.body[0] == tag and kind != "except" else [query.body]
        if distinct and not self.keep_plan:
            operands = [as_set(operand) for operand in operands]
        order = tree.args.get("order")
        if order is not None and not self.keep_plan:
            raise OrderMattersError
        keys = tuple(self._compound_key(term, left) for term in order.expressions) if order else ()
        body = (tag, tuple(operands), keys, self._slice(tree, Scope(None, 0)))
        return Query(_in_any_order(body) if top and not self.keep_plan else body, keys, left)

    def _compound_key(self, term: Expr, names: tuple[str, ...]) -> Form:
        key = term.this
        if key.key == "literal" and key.name.isdigit() and 1 <= int(key.name) <= len(names):
            place = int(key.name) - 1
        elif key.key == "column" and not key.args.get("table") and self.fold(key.this) in names:
            place = names.index(self.fold(key.this))
        else:
            raise UndecidedError("an ORDER BY key of a set operation that is not one of its columns")
        return _key(term, ("output", place))

    def _slice(self, tree: Expr, scope: Scope) -> Form:
        limit, offset = tree.args.get("limit"), tree.args.get("offset")
        if limit is None and offset is None:
            return ()
        if not self.keep_plan:
            raise OrderMattersError
        if limit is not None and limit.key != "limit":
            raise UndecidedError("FETCH")
        return tuple(None if part is None else self.value(part.expression, scope) for part in (limit, offset))

    def _select(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool) -> Query:
        if other := [name for name, value in tree.args.items() if value and name not in _SELECT_PARTS]:
            raise UndecidedError(f"SELECT with {', '.join(other)}")
        block = self._blocks.build(tree, outer, ctes)
        queries = []
        for leaves in self._labellings(block):
            for place, leaf in enumerate(leaves):
                leaf.label = (block.scope.depth, place)
            queries.append(self._labelled(tree, block, leaves, top=top))
        return min(queries, key=lambda query: repr(query[:2]))

    def _labellings(self, block: Block) -> Iterator[list[Any]]:
        """Every order of the sources in which those that differ are sorted; the order of inner joins means nothing."""
        if self.keep_plan or block.outer_joins:
            yield block.leaves
            return
        counts = Counter(leaf.form for leaf in block.leaves)
        if math.prod(map(math.factorial, counts.values())) > _MOST_LABELLINGS:
            raise UndecidedError("a table that is joined with itself too often")
        groups = [[leaf for leaf in block.leaves if leaf.form == form] for form in sorted(counts, key=repr)]
        for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
            yield [leaf for order in orders for leaf in order]

    def _labelled(self, tree: Expr, block: Block, leaves: list[Any], *, top: bool) -> Query:
        scope = block.scope
        saved = self.same, self.depth, self.nullable
        self.same, self.depth, self.nullable = dict(self.same), scope.depth, bool(block.outer_joins)
        try:
            self.aliases_used = False
            where = self.conditions(block)
            if self.aliases_used and self.dialect != "sqlite":
                raise UndecidedError("an output's alias in WHERE")
            for output in block.merged:  # an unknown name is an error even if nothing uses the output
                self.target(output)
            joins = tuple(
                (side, many("and", [self.truth(*one) for one in on], self.keep_plan)) for side, on in block.outer_joins
            )
            outputs, names = self._outputs(tree, scope)
            group = self._group(tree, scope, outputs)
            having_tree = tree.args.get("having")
            having = self.truth(having_tree.this, scope) if having_tree is not None else ()
            order = self._order(tree, scope, outputs)
            aggregates = any(map(has_aggregate, (*outputs, having, *order)))
            if (group is not None or aggregates) and not self.keep_plan:
                for form in (*outputs, having, *order):
                    if _has_bare_column(form, group or (), scope.depth):
                        raise OrderMattersError
            distinct = tree.args.get("distinct") is not None
            if distinct and tree.args["distinct"].args.get("on"):
                raise UndecidedError("DISTINCT ON")
            distinct = distinct or not block.repeats
            if not self.keep_plan:
                distinct, group = _without_repetition(distinct, group, outputs, plain=not aggregates and not having)
                if distinct and any(key[0] not in outputs for key in order):
                    raise OrderMattersError
                group = None if group is None else tuple(sorted(set(group), key=repr))
            several = [form for form in walk((outputs, having, order)) if form[:2] in _EXTREMES]
            # Distinct rows, and which row a bare column is of, may depend on the order of the outputs.
            if top and not (self.keep_plan and (distinct or len(several) > 1)):
                outputs = tuple(sorted(outputs, key=repr))  # results are compared under any order of columns
            sources = tuple(leaf.form for leaf in leaves)
            kept_order = order if self.keep_plan else ()  # without LIMIT, the order of a subquery means nothing
            body = Select(
                "select", distinct, outputs, sources, joins, where, group, having, self._slice(tree, scope), kept_order
            )
            if not order and not self.keep_plan:
                body = _unwrapped(body, (scope.depth, 0), top=top)
            return Query(body, order, names)
        finally:
            self.same, self.depth, self.nullable = saved

    def _outputs(self, tree: Expr, scope: Scope) -> tuple[Form, tuple[str, ...] | None]:
        forms: list[Form] = []
        names: list[str] | None = []
        for place, output in enumerate(tree.expressions):
            if not output.is_star:
                forms.append(self.value(output.unalias(), scope, aliases=False))
                if names is not None:
                    names.append(output_name(output, place, self.fold))
                continue
            for binding in starred(output, scope, self.fold):
                if binding.outputs is None:
                    assert binding.leaf is not None  # noqa: S101 - only unknown tables have no outputs
                    forms.append(("star", binding.leaf.label))
                    names = None
                else:
                    forms += [self.target(target) for target in binding.outputs.values()]
                    names = None if names is None else names + list(binding.outputs)
        return tuple(forms), None if names is None else tuple(names)

    def _group(self, tree: Expr, scope: Scope, outputs: Form) -> Form | None:
        group = tree.args.get("group")
        if group is None:
            return None
        if any(value for name, value in group.args.items() if name != "expressions"):
            raise UndecidedError("GROUP BY with ROLLUP, CUBE or the like")
        return tuple(self._numbered(key, outputs) or self.value(key, scope) for key in group.expressions)

    def _order(self, tree: Expr, scope: Scope, outputs: Form) -> tuple[Form, ...]:
        order = tree.args.get("order")
        keys = []
        for term in order.expressions if order is not None else ():
            key = term.this
            form = self._numbered(key, outputs)
            if (
                form is None
                and key.key == "column"
                and not key.args.get("table")
                and self.fold(key.this) in scope.aliases
            ):
                form = self.value(scope.aliases[self.fold(key.this)], scope, aliases=False)
            elif form is None:
                self.aliases_used = False
                form = self.value(key, scope)
                if (
                    self.aliases_used and not self.keep_plan
                ):  # an alias within an expression, which judging cannot append
                    raise OrderMattersError
            keys.append(_key(term, form))
        return tuple(keys)

    @staticmethod
    def _numbered(key: Expr, outputs: Form) -> Form | None:
        """The output that a key such as ``ORDER BY 2`` names."""
        if key.key != "literal" or key.args.get("is_string"):
            return None
        if (
            not key.name.isdigit()
            or not 1 <= int(key.name) <= len(outputs)
            or any(form[0] == "star" for form in outputs)
        ):
            raise UndecidedError(f"the key {key.name}")
        found: Form = outputs[int(key.name) - 1]
        return found


def _unwrapped(select: Select, label: Form, *, top: bool) -> Any:
    """The query in `SELECT * FROM (query)`."""
    if len(select.sources) != 1 or select.sources[0][0] != "derived":
        return select
    everything = tuple(("col", label, str(place)) for place in range(len(select.outputs)))
    if select != Select("select", False, everything, select.sources, (), TRUE, None, (), (), ()):
        return select
    inner = select.sources[0][1]
    if not top:
        return inner
    if isinstance(inner, Select):
        return inner._replace(outputs=tuple(sorted(inner.outputs, key=repr)))
    return _in_any_order(inner)


def _in_any_order(body: Form) -> Form:
    """A set operation whose operands may be exchanged; within another query, the first one says how values compare."""
    tag, operands, *rest = body
    if tag.startswith("except"):
        return body
    return (tag, tuple(sorted(set(operands) if tag.endswith("distinct") else operands, key=repr)), *rest)


def _key(term: Expr, form: Form) -> Form:
    if term.key != "ordered" or term.args.get("with_fill"):
        raise UndecidedError("an ORDER BY key with options")
    return form, bool(term.args.get("desc")), bool(term.args.get("nulls_first"))


def _without_repetition(distinct: bool, group: Form | None, outputs: Form, *, plain: bool) -> tuple[bool, Form | None]:
    """One spelling for `SELECT DISTINCT a` and `SELECT a … GROUP BY a`, and no DISTINCT where rows differ anyway."""
    if group is not None and plain and set(group) == set(outputs):
        return True, None
    if group is not None and set(group) <= set(outputs):
        return False, group
    if distinct and group is None and outputs and all(form[0] == "aggregate" for form in outputs):
        return False, group  # a single row
    return distinct, group


def _has_bare_column(form: Any, keys: Iterable[Form], depth: int) -> bool:
    """Whether a grouped query shows a column that is no key and in no aggregate: of which row is not said."""
    if not isinstance(form, tuple) or not form or form in keys:
        return False
    if form[0] == "aggregate" and not any(part[0] == "col" and part[1][0] > depth for part in walk(form)):
        return False  # of this query; one of a subquery may still use a column of this query
    if form[0] in ("col", "star"):
        return bool(form[1][0] == depth)
    return any(_has_bare_column(part, keys, depth) for part in form)
