"""Turns FROM and its joins into one flat block of sources and conditions, with simple derived tables merged into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.judging.equivalence.forms import Form
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.scopes import (
    Binding,
    Cte,
    DerivedColumn,
    NoSuchNameError,
    RowSource,
    Scope,
    StoredColumn,
    Target,
    UndecidedError,
)
from sqlquarry.sql.syntax import conjuncts

if TYPE_CHECKING:
    from sqlglot.expressions import Expr


class ScopedCondition(NamedTuple):
    """A condition and the scope in which its names are resolved."""

    tree: Expr
    scope: Scope


@dataclass(eq=False, slots=True)
class Block:
    """The sources and conditions of one SELECT.

    Args:
        scope: the names that its clauses can use.
        sources: its sources, in the order of FROM.
        conditions: the conditions of WHERE, and also those of ON if all joins are inner joins.
        outer_joins: the side and the ON conditions of each source if any join is an outer join. Otherwise empty.
        merged: all outputs of the derived tables that were merged into this block, even if nothing uses them.
        pairs: columns that must be equal because the query of an IN was merged into this block.
        repeats: whether rows may repeat, so that DISTINCT has an effect. False only if this is certain.
    """

    scope: Scope
    sources: list[RowSource] = field(default_factory=list)
    conditions: list[ScopedCondition] = field(default_factory=list)
    outer_joins: list[tuple[str, list[ScopedCondition]]] = field(default_factory=list)
    merged: list[DerivedColumn] = field(default_factory=list)
    pairs: list[tuple[StoredColumn, StoredColumn]] = field(default_factory=list)
    repeats: bool = True


_REJECT_NULL = {"eq", "neq", "lt", "lte", "gt", "gte", "in"}  # conditions that are never true for NULL
Derive = Callable[["Expr", Scope | None, Mapping[str, Cte]], tuple[Form, tuple[str, ...]]]


class BlockBuilder:
    """A builder of blocks.

    Args:
        schema: the tables.
        fold: returns the canonical spelling of an identifier.
        merge: whether derived tables may be merged into the query around them.
        derive: returns the form and the column names of a derived table that cannot be merged.
        dialect: the SQL dialect, by sqlglot's name.
    """

    def __init__(
        self, schema: Schema, fold: Callable[[Expr], str], *, merge: bool, derive: Derive, dialect: str
    ) -> None:
        self.schema, self.fold, self.merge, self.derive, self.dialect = schema, fold, merge, derive, dialect

    def build(self, select: Expr, outer: Scope | None, ctes: Mapping[str, Cte], *, as_set: bool = False) -> Block:
        """Return the block of one SELECT.

        Args:
            select: the SELECT.
            outer: the scope of the query around it.
            ctes: the names of WITH clauses that it can use.
            as_set: whether duplicate rows do not matter.

        Raises:
            UndecidedError: the query has a source or join that is not modeled.
            NoSuchNameError: the query uses a table that the schema lacks.
        """
        block = Block(Scope(outer, outer.depth + 1 if outer else 1, ctes=ctes))
        joins: Sequence[Expr] = select.args.get("joins") or ()
        has_outer = any(join.args.get("side") for join in joins)
        first = select.args.get("from_")
        if first is not None:
            self._add(block, first.this, ctes, merge=self.merge and not has_outer)
            block.outer_joins += [("", [])] if has_outer else []
        for join in joins:
            side = _side(join)
            self._add(block, join.this, ctes, merge=self.merge and not has_outer)
            conditions = [ScopedCondition(tree, block.scope) for tree in self._joined_on(block, join, side)]
            if has_outer:
                block.outer_joins.append((side, conditions))
            else:
                block.conditions += conditions
        if where := select.args.get("where"):
            block.conditions += [ScopedCondition(tree, block.scope) for tree in conjuncts(where.this)]
        for output in select.expressions:
            if output.args.get("alias") is not None and output.key == "alias":
                block.scope.aliases.setdefault(self.fold(output.args["alias"]), output.this)
        if self.merge and not has_outer:
            block.repeats = not (_has_plain_rows(select) and self._has_keys(select, block))
            if any(condition.tree.key in ("in", "exists") for condition in block.conditions):
                self._merge_subqueries(block, as_set=as_set or not block.repeats or _drops_repetition(select))
        aliases = [binding.alias for binding in block.scope.bindings]
        if len(set(aliases)) < len(aliases):
            raise UndecidedError("two tables in one FROM have the same name")
        return block

    def _add(self, block: Block, item: Expr, ctes: Mapping[str, Cte], *, merge: bool) -> None:
        _refuse_other_arguments(item, {"this", "alias"})
        alias = item.args.get("alias")
        columns = tuple(self.fold(column) for column in alias.args.get("columns") or ()) if alias is not None else ()
        name = self.fold(alias.this) if alias is not None and alias.this is not None else ""
        if item.key == "subquery":
            self._add_derived(block, name, Cte(item.this, columns, ctes), merge=merge)
            return
        if item.key != "table" or item.this.key != "identifier" or columns:
            raise UndecidedError(f"{item.key} in FROM is not supported")
        table = self.fold(item.this)
        if table in ctes:
            self._add_derived(block, name or table, ctes[table], merge=merge, tag="derived" if self.merge else "named")
            return
        known = self.schema.tables.get(table)
        if known is None and self.schema.tables and not table.startswith(("sqlite_", "pragma_")):
            raise NoSuchNameError(f"the schema has no table {table!r}")
        source = RowSource(("table", table), known.columns if known else None, known)
        outputs = {column: (source, column) for column in known.columns} if known else None
        block.sources.append(source)
        block.scope.bindings.append(Binding(name or table, outputs, source))

    def _add_derived(self, block: Block, alias: str, cte: Cte, *, merge: bool, tag: str = "derived") -> None:
        query = cte.query
        while query.key == "subquery" and not query.args.get("alias"):
            _refuse_other_arguments(query, {"this"})
            query = query.this
        outputs: dict[str, Target]
        if merge and _is_simple(query):
            inner = self.build(query, block.scope.outer, cte.ctes)
            targets = self._outputs(query, inner.scope)
            names = cte.columns or tuple(name for name, _ in targets)
            outputs = dict(zip(names, (target for _, target in targets), strict=False))
            block.sources += inner.sources
            block.conditions += inner.conditions
            block.pairs += inner.pairs
            block.merged += [*inner.merged, *(target for _, target in targets if isinstance(target, DerivedColumn))]
        else:
            form, own_names = self.derive(query, block.scope.outer, cte.ctes)
            names = cte.columns or own_names
            source = RowSource((tag, form), {str(place): None for place in range(len(names))})
            outputs = {name: (source, str(place)) for place, name in enumerate(names)}
            block.sources.append(source)
        if len(outputs) < len(names):
            raise UndecidedError("two columns of a derived table have the same name")
        block.scope.bindings.append(Binding(alias, outputs))

    def _has_keys(self, select: Expr, block: Block) -> bool:
        """Return whether every row contains a key of each table, so that no two rows are the same."""
        if not block.sources or not all(map(_keys, block.sources)):
            return False
        shown: list[Target | None] = []
        for tree in select.expressions:
            if tree.is_star:
                shown += [
                    target
                    for found in starred(tree, block.scope, self.fold)
                    for target in (found.outputs or {}).values()
                ]
            else:
                shown.append(stored_column(tree.unalias(), block.scope, self.fold))
        never_null = [
            stored_column(side, condition.scope, self.fold)
            for condition in block.conditions
            if condition.tree.key in _REJECT_NULL
            for side in (condition.tree.this, condition.tree.args.get("expression"))
            if side is not None
        ]

        def is_shown_key(source: RowSource, key: Iterable[str]) -> bool:
            for name in key:
                column = (source.columns or {}).get(name)
                filled = (column is not None and column.not_null) or (source, name) in never_null
                if not filled or (source, name) not in shown:
                    return False
            return True

        return all(any(is_shown_key(source, key) for key in _keys(source)) for source in block.sources)

    def _merge_subqueries(self, block: Block, *, as_set: bool) -> None:
        """Turn IN and EXISTS into joins.

        For a set of rows this is always right. Otherwise a key must ensure that at most one row matches.
        """
        kept = []
        for condition in block.conditions:
            merged = None
            if condition.tree.key == "in" and condition.tree.args.get("query") is not None:
                merged = self._merged_membership(block, condition, as_set=as_set)
            elif condition.tree.key == "exists" and as_set and _is_simple(condition.tree.this):
                merged = self._inner(block, condition.tree.this, condition.scope, as_set=True)
            if merged is None:
                kept.append(condition)
                continue
            block.sources += merged.sources
            kept += merged.conditions
            block.merged += merged.merged
            block.pairs += merged.pairs
        block.conditions = kept

    def _inner(self, block: Block, select: Expr, scope: Scope, *, as_set: bool) -> Block:
        inner = self.build(select, scope, scope.ctes, as_set=as_set)
        inner.scope.depth = block.scope.depth
        return inner

    def _merged_membership(self, block: Block, condition: ScopedCondition, *, as_set: bool) -> Block | None:
        tree, query = condition.tree, condition.tree.args["query"]
        while query.key == "subquery" and not any(value for name, value in query.args.items() if name != "this"):
            query = query.this
        if any(value for name, value in tree.args.items() if name not in ("this", "query")):
            return None
        if not _is_simple(query, distinct=True) or len(query.expressions) != 1:
            return None
        inner = self._inner(block, query, condition.scope, as_set=as_set)
        left = stored_column(tree.this, condition.scope, self.fold)
        right = stored_column(query.expressions[0].unalias(), inner.scope, self.fold)
        if left is None or right is None or left[0] not in block.sources or not self.same_type(left, right):
            return None
        one_table = len(inner.scope.bindings) == 1 and inner.scope.bindings[0].source is right[0]
        is_key = frozenset([right[1]]) in _keys(right[0])
        if not as_set and not (one_table and is_key):
            return None
        inner.pairs.append((left, right))
        return inner

    def same_type(self, first: StoredColumn, second: StoredColumn) -> bool:
        """Return whether equal values of the two columns are always identical."""
        columns = [(source.columns or {}).get(name) for source, name in (first, second)]
        kinds = [None if column is None else column.affinity for column in columns]
        # Without a type, 1 = 1.0, but 1 / 2 differs from 1.0 / 2. Other databases have collations and padding.
        typed = kinds[0] not in (None, "BLOB") if self.dialect == "sqlite" else kinds[0] == "INTEGER"
        return typed and kinds[0] == kinds[1]

    def _outputs(self, select: Expr, scope: Scope) -> list[tuple[str, Target]]:
        found: list[tuple[str, Target]] = []
        for place, output in enumerate(select.expressions):
            if output.is_star:
                for binding in starred(output, scope, self.fold):
                    if binding.outputs is None:
                        raise UndecidedError("* selects from a table whose columns are unknown")
                    found += binding.outputs.items()
            else:
                found.append((output_name(output, place, self.fold), DerivedColumn(output.unalias(), scope)))
        return found

    def _joined_on(self, block: Block, join: Expr, side: str) -> list[Expr]:
        from sqlglot import expressions as exp

        *before, right = block.scope.bindings
        names = [self.fold(name) for name in join.args.get("using") or ()]
        if join.args.get("method") == "NATURAL":
            known = [binding.outputs for binding in (*before, right)]
            if any(outputs is None for outputs in known):
                raise UndecidedError("NATURAL JOIN uses a table whose columns are unknown")
            names = [name for name in known[-1] or () if any(name in (outputs or ()) for outputs in known[:-1])]
        elif join.args.get("method"):
            raise UndecidedError(f"{join.args['method']} JOIN is not supported")
        conditions: list[Expr] = []
        for name in names:
            holders = [binding for binding in before if binding.outputs is not None and name in binding.outputs]
            left = block.scope.shared.get(name) or (holders[0] if len(holders) == 1 else None)
            if left is None or side not in ("", "LEFT") or right.outputs is None:
                raise UndecidedError(f"column {name!r} in USING cannot be resolved")
            block.scope.shared[name] = left
            pair = [exp.column(name, table=binding.alias, quoted=True) for binding in (left, right)]
            conditions.append(exp.EQ(this=pair[0], expression=pair[1]))
        on = join.args.get("on")
        return conditions + (conjuncts(on) if on is not None else [])


def starred(output: Expr, scope: Scope, fold: Callable[[Expr], str]) -> list[Binding]:
    """Return the sources that `*` or `alias.*` refers to."""
    star = output if output.key == "star" else output.this
    if any(star.args.values()) or scope.shared:
        raise UndecidedError("* has options, or selects from tables that are joined by USING")
    if output.key == "star":
        return scope.bindings
    wanted = fold(output.args["table"])
    if found := [binding for binding in scope.bindings if binding.alias == wanted]:
        return found
    raise NoSuchNameError(f"FROM has no table or alias {wanted!r}")


def output_name(output: Expr, place: int, fold: Callable[[Expr], str]) -> str:
    """Return the name by which the outer query can use an output, or "#" and its position if it has none."""
    if output.key == "alias":
        return fold(output.args["alias"])
    while output.key == "paren":
        output = output.this
    return fold(output.this) if output.key == "column" else f"#{place}"


def _side(join: Expr) -> str:
    _refuse_other_arguments(join, {"this", "side", "kind", "method", "on", "using"})
    if join.args.get("kind") not in (None, "", "INNER", "CROSS", "OUTER"):
        raise UndecidedError(f"{join.args['kind']} JOIN is not supported")
    side: str = join.args.get("side") or ""
    return side


def _refuse_other_arguments(tree: Expr, modeled: set[str]) -> None:
    if other := [name for name, value in tree.args.items() if value and name not in modeled]:
        raise UndecidedError(f"{tree.key} with {', '.join(other)} is not supported")


def _keys(source: RowSource) -> Sequence[frozenset[str]]:
    return source.table.keys if source.table else ()


_SIMPLE_OUTPUT = ("alias", "column", "literal", "null", "paren", "add", "sub", "mul", "neg", "identifier", "star")
_SIMPLE_SELECT = {"expressions", "from_", "joins", "where", "order"}


def stored_column(tree: Expr, scope: Scope, fold: Callable[[Expr], str]) -> StoredColumn | None:
    """Return the stored column that an expression refers to, or None if it is not a column or its name is ambiguous."""
    if tree.key != "column" or tree.this.key != "identifier" or tree.args.get("db"):
        return None
    name, table = fold(tree.this), tree.args.get("table")
    try:
        target = scope.qualified(fold(table), name) if table is not None else scope.unqualified(name, aliases=False)
    except (UndecidedError, NoSuchNameError):
        return None
    if isinstance(target, DerivedColumn):
        return stored_column(target.tree, target.scope, fold)
    return target


def _has_plain_rows(select: Expr) -> bool:
    """Return whether a SELECT returns exactly one row for each row of its sources."""
    return not any(
        select.args.get(name) for name in ("distinct", "group", "having", "order", "limit", "offset")
    ) and all(node.key in _SIMPLE_OUTPUT for output in select.expressions for node in output.walk())


def _drops_repetition(select: Expr) -> bool:
    """Return whether a SELECT removes duplicate rows, by DISTINCT or by GROUP BY of all outputs."""
    if any(select.args.get(name) for name in ("having", "limit", "offset")):
        return False
    if any(node.key not in _SIMPLE_OUTPUT for output in select.expressions for node in output.walk()):
        return False
    if (group := select.args.get("group")) is None:
        return select.args.get("distinct") is not None and not select.args["distinct"].args.get("on")
    if any(value for name, value in group.args.items() if name != "expressions"):
        return False
    return set(group.expressions) == {output.unalias() for output in select.expressions}


def _is_simple(query: Expr, *, distinct: bool = False) -> bool:
    """Return whether a query is a SELECT of plain outputs that returns one row for each row of its sources."""
    parts = {*_SIMPLE_SELECT, "distinct"} if distinct else _SIMPLE_SELECT
    if query.key != "select" or any(value and name not in parts for name, value in query.args.items()):
        return False
    if distinct and query.args.get("distinct") and query.args["distinct"].args.get("on"):
        return False
    if query.args.get("from_") is None or any(join.args.get("side") for join in query.args.get("joins") or ()):
        return False
    return all(node.key in _SIMPLE_OUTPUT for output in query.expressions for node in output.walk())
