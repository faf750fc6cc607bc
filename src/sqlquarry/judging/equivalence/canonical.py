"""Builds the canonical form of a query. Queries with equal forms have equal results on every database of the schema.

Each rewriting is valid under three-valued logic, with NULLs and duplicates, and for SQLite's types. The result may
depend on the order in which the database visits rows if the query has LIMIT, bare columns in a grouped query,
group_concat, window functions or a collation. In that case no rewriting is applied that could change the query plan.
Only names are resolved and comparisons are turned around.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from sqlquarry.judging.equivalence.blocks import Block, BlockBuilder, output_name, starred
from sqlquarry.judging.equivalence.expressions import ExpressionForms
from sqlquarry.judging.equivalence.forms import (
    TRUE,
    CanonicalQuery,
    CanonicalSelect,
    Form,
    OrderMattersError,
    as_set,
    has_aggregate,
    is_form,
    many,
    walk,
)
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.scopes import Cte, RowSource, Scope, StoredColumn, UndecidedError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_MOST_LABELINGS = 120  # orders to try for sources that look alike, as in self-joins
_EXTREMES = (("aggregate", "min"), ("aggregate", "max"))
_SET_OPERATIONS = ("union", "intersect", "except")
_SELECT_PARTS = {
    "expressions", "distinct", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "with_",
}  # fmt: skip


def canonical_form(tree: Expr, schema: Schema, dialect: str, *, keep_plan: bool, quoted_text: bool) -> CanonicalQuery:
    """Return the canonical form of one query.

    Args:
        tree: a SELECT or a set operation.
        schema: the tables. If it has none, every table and column that the query names is assumed to exist.
        dialect: the SQL dialect, by sqlglot's name.
        keep_plan: whether to avoid rewritings that could change the order in which rows are visited.
        quoted_text: whether an unknown name in quotes is a string. In SQLite this holds for double quotes only.

    Raises:
        OrderMattersError: the result may depend on the order in which rows are visited, and `keep_plan` is False.
        UndecidedError: the query uses something that is not modeled.
        NoSuchNameError: the query names a table or column that the schema lacks.
    """
    forms = _Canonicalizer(schema, dialect, keep_plan=keep_plan, quoted_text=quoted_text)
    return forms.query(tree, None, {}, top=True)


class _Canonicalizer(ExpressionForms):
    def __init__(self, schema: Schema, dialect: str, *, keep_plan: bool, quoted_text: bool) -> None:
        super().__init__(schema, dialect, keep_plan=keep_plan, quoted_text=quoted_text)
        self._blocks = BlockBuilder(schema, self.fold, merge=not keep_plan, derive=self._derived, dialect=dialect)

    def same_type(self, first: StoredColumn, second: StoredColumn) -> bool:
        return self._blocks.same_type(first, second)

    def subquery(self, tree: Expr, scope: Scope, *, keep_plan: bool = False) -> CanonicalSelect | Form:
        if not keep_plan or self.keep_plan:
            try:
                return self.query(tree, scope, scope.ctes).body
            except OrderMattersError:
                if self.keep_plan:
                    raise
        # A query in an expression has its own plan, so only the form of that query must preserve the order of rows.
        self.keep_plan, self._blocks.merge = True, False
        try:
            return ("planned", self.query(tree, scope, scope.ctes).body)
        finally:
            self.keep_plan, self._blocks.merge = False, True

    def query(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool = False) -> CanonicalQuery:
        while tree.key in ("subquery", "paren"):
            if any(value for name, value in tree.args.items() if name not in ("this", "alias")):
                raise UndecidedError("a query in parentheses is followed by other clauses")
            tree = tree.this
        if (with_ := tree.args.get("with_")) is not None:
            ctes = self._with_ctes(with_, ctes)
        if tree.key == "select":
            return self._select(tree, outer, ctes, top=top)
        if tree.key in _SET_OPERATIONS:
            return self._compound(tree, outer, ctes, top=top)
        raise UndecidedError(f"{tree.key} statements are not supported")

    def _with_ctes(self, with_: Expr, ctes: Mapping[str, Cte]) -> Mapping[str, Cte]:
        """Return the names of WITH clauses that a query can use, including its own."""
        from sqlglot import expressions as exp

        if with_.args.get("recursive"):
            raise UndecidedError("WITH RECURSIVE is not supported")
        names = [self.fold(cte.args["alias"].this) for cte in with_.expressions]
        for place, cte in enumerate(with_.expressions):
            seen = {table.name.lower() for table in cte.this.find_all(exp.Table)}
            if seen & {name.lower() for name in names[place:]}:  # SQLite recurses without RECURSIVE
                raise UndecidedError("queries in WITH refer to themselves or to later ones")
            columns = tuple(self.fold(column) for column in cte.args["alias"].args.get("columns") or ())
            ctes = {**ctes, names[place]: Cte(cte.this, columns, ctes)}
        return ctes

    def _derived(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte]) -> tuple[Form, tuple[str, ...]]:
        query = self.query(tree, outer, ctes)
        if query.names is None:
            raise UndecidedError("* selects from a table whose columns are unknown")
        return query.body, query.names

    def _compound(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool) -> CanonicalQuery:
        if any(tree.args.get(name) for name in ("by_name", "side", "kind", "on", "match")):
            raise UndecidedError("set operations that match columns by name are not supported")
        kind, distinct = tree.key, bool(tree.args.get("distinct"))
        sides = []
        for side in (tree.this, tree.expression):
            other = side.key in _SET_OPERATIONS and (side.key, bool(side.args.get("distinct"))) != (kind, distinct)
            if other:  # dialects differ in which one they apply first
                raise UndecidedError("the query combines different set operations")
            sides.append(self.query(side, outer, ctes))
        left, right = sides[0].names, sides[1].names
        if left is None or right is None or len(left) != len(right):
            raise UndecidedError("the queries of a set operation have different or unknown numbers of columns")
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
        return CanonicalQuery(_in_any_order(body) if top and not self.keep_plan else body, keys, left)

    def _compound_key(self, term: Expr, names: tuple[str, ...]) -> Form:
        key = term.this
        if key.key == "literal" and key.name.isdigit() and 1 <= int(key.name) <= len(names):
            place = int(key.name) - 1
        elif key.key == "column" and not key.args.get("table") and self.fold(key.this) in names:
            place = names.index(self.fold(key.this))
        else:
            raise UndecidedError("an ORDER BY key of a set operation is not one of its columns")
        return _key(term, ("output", place))

    def _slice(self, tree: Expr, scope: Scope) -> Form:
        limit, offset = tree.args.get("limit"), tree.args.get("offset")
        if limit is None and offset is None:
            return ()
        if not self.keep_plan:
            raise OrderMattersError
        if limit is not None and limit.key != "limit":
            raise UndecidedError("FETCH is not supported")
        return tuple(None if part is None else self.value(part.expression, scope) for part in (limit, offset))

    def _select(self, tree: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, top: bool) -> CanonicalQuery:
        if other := [name for name, value in tree.args.items() if value and name not in _SELECT_PARTS]:
            raise UndecidedError(f"SELECT with {', '.join(other)} is not supported")
        block = self._blocks.build(tree, outer, ctes)
        saved = self.same, self.depth, self.nullable
        queries = []
        try:
            for sources in self._labelings(block):
                for place, source in enumerate(sources):
                    source.label = (block.scope.depth, place)
                self.same, self.depth, self.nullable = dict(saved[0]), block.scope.depth, bool(block.outer_joins)
                queries.append(self._labeled(tree, block, sources, top=top))
        finally:
            self.same, self.depth, self.nullable = saved
        return min(queries, key=lambda query: repr(query[:2]))

    def _labelings(self, block: Block) -> Iterator[list[RowSource]]:
        """Yield every order of the sources in which different sources are sorted.

        The order of inner joins has no meaning, so sources that look alike may occur in any order.
        """
        if self.keep_plan or block.outer_joins:
            yield block.sources
            return
        counts = Counter(source.form for source in block.sources)
        if math.prod(map(math.factorial, counts.values())) > _MOST_LABELINGS:
            raise UndecidedError("a table is joined with itself too many times")
        groups = [[source for source in block.sources if source.form == form] for form in sorted(counts, key=repr)]
        for orders in itertools.product(*(itertools.permutations(group) for group in groups)):
            yield [source for order in orders for source in order]

    def _labeled(self, tree: Expr, block: Block, sources: list[RowSource], *, top: bool) -> CanonicalQuery:
        """Return the form of a SELECT whose sources are in the given order."""
        scope = block.scope
        where = self._where(block)
        joins = tuple(
            (side, many("and", [self.truth(*one) for one in on], self.keep_plan)) for side, on in block.outer_joins
        )
        outputs, names = self._outputs(tree, scope)
        group = self._group(tree, scope, outputs)
        having_tree = tree.args.get("having")
        having = self.truth(having_tree.this, scope) if having_tree is not None else ()
        order = self._order(tree, scope, outputs)
        is_aggregated = any(map(has_aggregate, (*outputs, having, *order)))
        if (group is not None or is_aggregated) and not self.keep_plan:
            for form in (*outputs, having, *order):
                if _has_bare_column(form, group or (), scope.depth):
                    raise OrderMattersError
        distinct = _has_distinct(tree) or not block.repeats
        if not self.keep_plan:
            plain = not is_aggregated and not having
            distinct, group = _without_repetition(distinct, group, outputs, order, plain=plain)
        if top and self._may_sort_outputs((outputs, having, order), distinct=distinct):
            outputs = tuple(sorted(outputs, key=repr))  # results are compared under any order of columns
        body = CanonicalSelect(
            "select",
            distinct,
            outputs,
            tuple(source.form for source in sources),
            joins,
            where,
            group,
            having,
            self._slice(tree, scope),
            order if self.keep_plan else (),  # without LIMIT, the order of a subquery has no meaning
        )
        is_wrapper = not order and not self.keep_plan
        return CanonicalQuery(_unwrapped(body, (scope.depth, 0), top=top) if is_wrapper else body, order, names)

    def _where(self, block: Block) -> Form:
        self.aliases_used = False
        where = self.conditions(block)
        if self.aliases_used and self.dialect != "sqlite":
            raise UndecidedError("WHERE uses the alias of an output")
        for output in block.merged:  # an unknown name is an error even in an output that nothing uses
            self.target(output)
        return where

    def _may_sort_outputs(self, form: Form, *, distinct: bool) -> bool:
        """Return whether the order of the outputs has no effect.

        The order may decide from which row SQLite takes a bare column, and which of several equal rows DISTINCT keeps.
        """
        several = [part for part in walk(form) if part[:2] in _EXTREMES]
        return not (self.keep_plan and (distinct or len(several) > 1))

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
                    assert binding.source is not None  # noqa: S101 - only unknown tables have no outputs
                    forms.append(("star", binding.source.label))
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
            raise UndecidedError("GROUP BY with ROLLUP, CUBE or similar options is not supported")
        return tuple(self._numbered(key, outputs) or self.value(key, scope) for key in group.expressions)

    def _order(self, tree: Expr, scope: Scope, outputs: Form) -> tuple[Form, ...]:
        order = tree.args.get("order")
        terms = order.expressions if order is not None else ()
        return tuple(_key(term, self._order_key(term.this, scope, outputs)) for term in terms)

    def _order_key(self, key: Expr, scope: Scope, outputs: Form) -> Form:
        form = self._numbered(key, outputs)
        if form is not None:
            return form
        is_name = key.key == "column" and not key.args.get("table")
        if is_name and self.fold(key.this) in scope.aliases:
            return self.value(scope.aliases[self.fold(key.this)], scope, aliases=False)
        self.aliases_used = False
        form = self.value(key, scope)
        if self.aliases_used and not self.keep_plan:  # no sort key with an alias in an expression can be appended
            raise OrderMattersError
        return form

    @staticmethod
    def _numbered(key: Expr, outputs: Form) -> Form | None:
        """Return the output that a key such as ``ORDER BY 2`` refers to, or None for any other key."""
        if key.key != "literal" or key.args.get("is_string"):
            return None
        if (
            not key.name.isdigit()
            or not 1 <= int(key.name) <= len(outputs)
            or any(form[0] == "star" for form in outputs)
        ):
            raise UndecidedError(f"the key {key.name} of GROUP BY or ORDER BY is not the number of an output")
        found: Form = outputs[int(key.name) - 1]
        return found


def _unwrapped(select: CanonicalSelect, label: Form, *, top: bool) -> Form:
    """Return the inner query of `SELECT * FROM (query)`, or the SELECT itself if it does anything else."""
    if len(select.sources) != 1 or select.sources[0][0] != "derived":
        return select
    everything = tuple(("col", label, str(place)) for place in range(len(select.outputs)))
    if select != CanonicalSelect("select", False, everything, select.sources, (), TRUE, None, (), (), ()):
        return select
    inner: Form = select.sources[0][1]
    if not top:
        return inner
    if isinstance(inner, CanonicalSelect):
        return inner._replace(outputs=tuple(sorted(inner.outputs, key=repr)))
    return _in_any_order(inner)


def _in_any_order(body: Form) -> Form:
    """Return a set operation with its operands in canonical order.

    Within another query the operands must keep their order, because the first one determines how values compare.
    """
    tag, operands, *rest = body
    if tag.startswith("except"):
        return body
    return (tag, tuple(sorted(set(operands) if tag.endswith("distinct") else operands, key=repr)), *rest)


def _key(term: Expr, form: Form) -> Form:
    if term.key != "ordered" or term.args.get("with_fill"):
        raise UndecidedError("an ORDER BY key has options")
    return form, bool(term.args.get("desc")), bool(term.args.get("nulls_first"))


def _has_distinct(tree: Expr) -> bool:
    distinct = tree.args.get("distinct")
    if distinct is not None and distinct.args.get("on"):
        raise UndecidedError("DISTINCT ON is not supported")
    return distinct is not None


def _without_repetition(
    distinct: bool, group: Form | None, outputs: Form, order: tuple[Form, ...], *, plain: bool
) -> tuple[bool, Form | None]:
    """Return DISTINCT and the keys of GROUP BY in their canonical spelling.

    `SELECT DISTINCT a` and `SELECT a … GROUP BY a` are the same, and DISTINCT has no effect if all rows differ anyway.
    """
    if group is not None and plain and set(group) == set(outputs):
        distinct, group = True, None
    elif group is not None and set(group) <= set(outputs):
        distinct = False
    elif distinct and group is None and outputs and all(form[0] == "aggregate" for form in outputs):
        distinct = False  # a single row
    if distinct and any(key[0] not in outputs for key in order):
        raise OrderMattersError
    return distinct, None if group is None else tuple(sorted(set(group), key=repr))


def _has_bare_column(form: object, keys: Iterable[Form], depth: int) -> bool:
    """Return whether a form has a column that is neither a key nor in an aggregate, so that its row is undetermined."""
    if not is_form(form) or form in keys:
        return False
    if form[0] == "aggregate" and not any(part[0] == "col" and part[1][0] > depth for part in walk(form)):
        return False  # an aggregate of this query. One in a subquery may still use a column of this query.
    if form[0] in ("col", "star"):
        return bool(form[1][0] == depth)
    return any(_has_bare_column(part, keys, depth) for part in form)
