"""Builds the canonical forms of expressions and conditions, with names resolved and equivalent spellings unified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlquarry.judging.equivalence.blocks import Block
from sqlquarry.judging.equivalence.forms import (
    TRUE,
    CanonicalSelect,
    Form,
    OrderMattersError,
    as_set,
    column_form,
    has_aggregate,
    many,
    walk,
)
from sqlquarry.judging.equivalence.operators import (
    ARITHMETIC,
    COMPARISONS,
    PREDICATES,
    UNSTEADY,
    depends_on_order,
    is_list_of_literals,
    refuse_unclear_precedence,
)
from sqlquarry.sql.identifiers import fold
from sqlquarry.sql.schema import Schema
from sqlquarry.sql.scopes import DerivedColumn, NoSuchNameError, Scope, StoredColumn, Target, UndecidedError

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_TURNED = {">": "<", ">=": "<="}
_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
# In these dialects any two numbers can be compared, so NOT a < b is a >= b. SQLite has no NaN, and the others sort it.
_TOTAL_ORDER = {"sqlite", "postgres", "duckdb", "mysql"}


class ExpressionForms:
    """A builder of canonical forms for the expressions in one query.

    Attributes:
        same: column -> the column that represents all columns which the conditions of the current SELECT make equal.
        depth: nesting depth of the current SELECT.
        nullable: whether the current SELECT has outer joins, so that any column may be NULL.
        aliases_used: whether the last expression used the alias of an output.
    """

    def __init__(self, schema: Schema, dialect: str, *, keep_plan: bool, quoted_text: bool) -> None:
        self.schema, self.dialect, self.keep_plan, self.quoted_text = schema, dialect, keep_plan, quoted_text
        self.same: dict[Form, Form] = {}
        self.depth, self.nullable, self.aliases_used = 0, False, False

    def same_type(self, first: StoredColumn, second: StoredColumn) -> bool:
        """Return whether equal values of the two columns are always identical."""
        raise NotImplementedError

    def subquery(self, tree: Expr, scope: Scope, *, keep_plan: bool = False) -> Form:
        """Return the form of a query within an expression.

        The result is ("planned", form) if only the same query plan returns the same rows.
        """
        raise NotImplementedError

    def fold(self, identifier: Expr) -> str:
        """Return the canonical spelling of an identifier."""
        if identifier.key != "identifier":
            raise UndecidedError(f"{identifier.key} is used as a name")
        return fold(identifier, self.dialect)

    def conditions(self, block: Block) -> Form:
        """Return the form of WHERE and the inner joins.

        From then on, columns that must be equal are treated as one column.
        """
        classes: dict[Form, set[Form]] = {}
        rest, pairs = [], list(block.pairs)
        for condition in block.conditions:
            if self.keep_plan or block.outer_joins:
                pair = None
            else:
                pair = self._joined_columns(condition.tree, condition.scope)
            if pair is None:
                rest.append(condition)
            else:
                pairs.append(pair)
        for pair in pairs:
            one, other = (column_form(column) for column in pair)
            members = classes.get(one, {one}) | classes.get(other, {other})
            classes |= dict.fromkeys(members, members)
        self.same |= {column: min(members) for column, members in classes.items()}
        joined: list[Form] = [
            ("same", *sorted(members)) for column, members in classes.items() if column == min(members)
        ]
        return many("and", joined + [self.truth(tree, scope) for tree, scope in rest], self.keep_plan)

    def _joined_columns(self, tree: Expr, scope: Scope) -> tuple[StoredColumn, StoredColumn] | None:
        """Return the two columns of an equality that makes them identical, or None for any other condition."""
        if tree.key != "eq" or tree.this.key != "column" or tree.expression.key != "column":
            return None
        found = []
        for side in (tree.this, tree.expression):
            target = self._resolve(side, scope, aliases=False)
            while isinstance(target, DerivedColumn) and target.tree.key == "column":
                target = self._resolve(target.tree, target.scope, aliases=False)
            if not isinstance(target, tuple) or target[0].label[0] != self.depth:
                return None
            found.append(target)
        if found[0] == found[1] or not self.same_type(found[0], found[1]):
            return None
        return found[0], found[1]

    def truth(self, tree: Expr, scope: Scope, *, negated: bool = False) -> Form:
        """Return the form of a condition, without distinguishing false from NULL."""
        kind = tree.key
        if kind == "paren":
            return self.truth(tree.this, scope, negated=negated)
        if kind == "not" and self.keep_plan:  # `NOT a > 1` may not use the index that `a <= 1` uses
            return ("not", self.truth(tree.this, scope))
        if kind == "not":
            return self.truth(tree.this, scope, negated=not negated)
        if kind in ("and", "or"):
            sides = [self.truth(side, scope, negated=negated) for side in (tree.this, tree.expression)]
            return many({"and": "or", "or": "and"}[kind] if negated else kind, sides, self.keep_plan)
        form = self._comparisons(tree, scope, negated=negated)
        if form is None:
            form = ("not", self.value(tree, scope)) if negated else self.value(tree, scope)
        return form

    def _comparisons(self, tree: Expr, scope: Scope, *, negated: bool) -> Form | None:
        """Return a comparison, BETWEEN or IN as simple comparisons, or None if this is not possible.

        The opposite of a comparison is certain only if any two numbers can be compared.
        """
        kind, is_certain = tree.key, not negated or self.dialect in _TOTAL_ORDER
        if kind in COMPARISONS and (is_certain or kind in ("eq", "neq")):
            operator = COMPARISONS[kind]
            return self._comparison(_OPPOSITE[operator] if negated else operator, tree.this, tree.expression, scope)
        if self.keep_plan:
            return None
        if kind == "between" and is_certain and not tree.args.get("symmetric"):
            signs, connective = (("<", ">"), "or") if negated else ((">=", "<="), "and")
            ends = zip(signs, (tree.args["low"], tree.args["high"]), strict=True)
            bounds = [self._comparison(sign, tree.this, end, scope) for sign, end in ends]
            return many(connective, bounds, self.keep_plan)
        if kind == "in" and is_list_of_literals(tree):
            operator, connective = ("<>", "and") if negated else ("=", "or")
            items = [self._comparison(operator, tree.this, item, scope) for item in tree.expressions]
            return many(connective, items, self.keep_plan)
        return None

    def _comparison(self, operator: str, left: Expr, right: Expr, scope: Scope) -> Form:
        for side in (left, right):
            if side.key in PREDICATES:  # dialects read `a = b LIKE c` in different ways
                raise UndecidedError("a comparison of a comparison without parentheses")
        a, b = self.value(left, scope), self.value(right, scope)
        if operator in _TURNED:
            operator, a, b = _TURNED[operator], b, a
        if operator in ("=", "<>") and repr(b) < repr(a):
            a, b = b, a
        if operator == "=" and a == b and a[0] == "number":
            return TRUE
        if operator == "<":  # a count is a whole number
            if _is_whole(a) and b[:2] == ("aggregate", "count"):
                return ("<=", ("number", str(int(a[1]) + 1)), b)
            if _is_whole(b) and a[:2] == ("aggregate", "count"):
                return ("<=", a, ("number", str(int(b[1]) - 1)))
        return (operator, a, b)

    def value(self, tree: Expr, scope: Scope, *, aliases: bool = True) -> Form:  # noqa: PLR0911 - one per kind
        """Return the form of an expression whose value matters."""
        kind = tree.key
        if kind == "column":
            return self._column(tree, scope, aliases=aliases)
        if kind == "literal":
            return ("text" if tree.args.get("is_string") else "number", tree.name)
        if kind == "null":
            return ("null",)
        if kind == "paren":
            return self._parenthesis(tree, scope, aliases=aliases)
        if self._is_condition(tree):
            return self._condition_value(tree, scope)
        if kind == "subquery":
            return self._scalar(tree, scope)
        if kind == "exists":
            return ("exists", self._existence(self.subquery(tree.this, scope)))
        if kind == "in" and not tree.expressions:
            return self._membership(tree, scope)
        if kind == "count":
            return self._count(tree, scope)
        return self._general(tree, scope, aliases=aliases)

    def _is_condition(self, tree: Expr) -> bool:
        if tree.key in COMPARISONS:
            return True
        connected = tree.key in ("and", "or", "not", "between") or (tree.key == "in" and is_list_of_literals(tree))
        return connected and not self.keep_plan

    def _condition_value(self, tree: Expr, scope: Scope) -> Form:
        form = self.truth(tree, scope)
        if form[0] not in ("and", "or", "not", *_OPPOSITE):  # `x AND x` is 0 or 1, `x` may be 5
            raise UndecidedError("a condition is used as a value")
        return form

    def _column(self, tree: Expr, scope: Scope, *, aliases: bool) -> Form:
        target = self._resolve(tree, scope, aliases=aliases)
        if target is None:
            return ("text", tree.name)  # SQLite reads "text" as a string if no column has that name
        return self.target(target)

    def target(self, target: Target) -> Form:
        """Return the form of the column that a name refers to."""
        if isinstance(target, DerivedColumn):
            return self.value(target.tree, target.scope, aliases=False)
        form = column_form(target)
        return self.same.get(form, form)

    def _resolve(self, tree: Expr, scope: Scope, *, aliases: bool) -> Target | None:
        if tree.args.get("db") or tree.args.get("catalog") or tree.this.key != "identifier":
            raise UndecidedError("a column is qualified by its database, or * is used as a value")
        name = self.fold(tree.this)
        if tree.args.get("table"):
            return scope.qualified(self.fold(tree.args["table"]), name)
        target = scope.unqualified(name, aliases=aliases)
        by_alias = isinstance(target, DerivedColumn) and scope.aliases.get(name) is target.tree
        self.aliases_used |= by_alias
        if aliases and self.dialect != "sqlite" and name in scope.aliases and not by_alias:
            alias = scope.aliases[name]
            if alias.key != "column" or self.fold(alias.this) != name:
                raise UndecidedError(f"{name!r} is an output and a column")  # dialects choose different ones
        if target is not None:
            return target
        if self.dialect == "sqlite" and tree.this.args.get("quoted") and self.schema.tables:
            if any(output.startswith("#") for outputs in scope.output_names() for output in outputs):
                raise UndecidedError(f"the quoted name {name!r} may refer to an unnamed output such as max(a)")
            if self.quoted_text:
                return None
            raise UndecidedError(f"the quoted name {name!r} is neither a column nor certain to be text")
        raise NoSuchNameError(f"no table in FROM has a column {name!r}")

    def _parenthesis(self, tree: Expr, scope: Scope, *, aliases: bool) -> Form:
        inner, parent = tree.this, tree.parent
        while inner.key == "paren":
            inner = inner.this
        form = self.value(inner, scope, aliases=aliases)
        # sqlglot and the database may differ in precedence. Parentheses are left out only if they matter to neither.
        if inner.key in ("column", "literal", "null", "subquery", "count", "neg") or parent is None:
            return form
        if parent.key in ("select", "alias", "ordered", "group", "and", "or", "not", "where", "having", "join"):
            return form
        return form if inner.key in ARITHMETIC and parent.key in COMPARISONS else ("parenthesis", form)

    def _scalar(self, tree: Expr, scope: Scope) -> Form:
        """Return the form of a query that is used as a value, which is its first row."""
        rows = self.subquery(tree, scope)
        one_row = isinstance(rows, CanonicalSelect) and rows.group is None and has_aggregate(rows.outputs)
        if not one_row and not self.keep_plan and rows[0] != "planned":
            rows = self.subquery(tree, scope, keep_plan=True)
        return ("scalar", rows)

    def _membership(self, tree: Expr, scope: Scope) -> Form:
        if tree.args.get("query") is None:
            raise UndecidedError("IN has neither a list nor a query")
        if any(value for name, value in tree.args.items() if name not in ("this", "query")):
            raise UndecidedError("IN has options")
        if tree.this.key in PREDICATES:
            raise UndecidedError("a comparison of a comparison without parentheses")
        rows = self.subquery(tree.args["query"], scope)
        return ("in", self.value(tree.this, scope), rows if self.keep_plan else as_set(rows))

    def _existence(self, rows: Form) -> Form:
        """Return the form of a query in EXISTS, for which the values in its rows do not matter."""
        if self.keep_plan or not isinstance(rows, CanonicalSelect):
            return rows
        grouped = rows.group is not None or rows.having or has_aggregate(rows.outputs)
        return rows if grouped else rows._replace(outputs=(), distinct=False)

    def _count(self, tree: Expr, scope: Scope) -> Form:
        counted = tree.this
        if tree.args.get("expressions") or counted is None:
            raise UndecidedError("COUNT has several expressions")
        if counted.key == "star" or (counted.key == "literal" and not self.keep_plan):
            return ("aggregate", "count", "rows")
        if counted.key == "column" and not self.nullable and not self.keep_plan and self._never_null(counted, scope):
            return ("aggregate", "count", "rows")
        values = self._general(counted, scope) if counted.key == "distinct" else self.value(counted, scope)
        return self._own("count", values)

    def _never_null(self, tree: Expr, scope: Scope) -> bool:
        if tree.this.key != "identifier":
            return False
        target = self._resolve(tree, scope, aliases=True)
        if not isinstance(target, tuple) or target[0].label[0] != self.depth:
            return False
        column = (target[0].columns or {}).get(target[1])
        return column is not None and column.not_null

    def _own(self, name: str, argument: Form) -> Form:
        """Return the form of an aggregate that belongs to the current SELECT, not to an outer one."""
        depths = {form[1][0] for form in walk(argument) if form[0] == "col"}
        if depths and max(depths) < self.depth:
            raise UndecidedError("an aggregate uses only columns of an outer query")
        return ("aggregate", name, argument)

    def _general(self, tree: Expr, scope: Scope, *, aliases: bool = True) -> Form:
        """Return the form of an expression without special rules: its kind and the forms of its parts."""
        from sqlglot import expressions as exp

        kind = tree.key
        if kind in ("parameter", "placeholder", "star", "alias", "aliases", "lambda", "tuple"):
            raise UndecidedError(f"{kind} is not supported")
        if isinstance(tree, exp.Func) and UNSTEADY.search(f"{kind} {tree.name}"):
            raise UndecidedError("a function may return another value each time")
        if depends_on_order(tree) and not self.keep_plan:
            raise OrderMattersError
        if kind in ("var", "anonymous"):
            return (kind, tree.name.upper(), *(self._part(tree.args.get("expressions") or [], scope, aliases=aliases)))
        refuse_unclear_precedence(tree)
        parts = {
            name: self._part(part, scope, aliases=aliases)
            for name, part in sorted(tree.args.items())
            if part not in (None, False, [])
        }
        if isinstance(tree, exp.AggFunc):
            return self._aggregate(tree, parts, scope)
        if kind in ("add", "mul") and not self.keep_plan:
            return (kind, *sorted((parts["this"], parts["expression"]), key=repr))
        return (kind, *parts.items())

    def _aggregate(self, tree: Expr, parts: dict[str, Form], scope: Scope) -> Form:
        only_argument = set(parts) == {"this"}
        is_distinct = only_argument and tree.this.key == "distinct" and len(tree.this.expressions) == 1
        if is_distinct and tree.key in ("min", "max"):
            parts = {"this": self.value(tree.this.expressions[0], scope)}
        return self._own(tree.key, parts["this"] if only_argument else tuple(parts.items()))

    def _part(self, part: object, scope: Scope, *, aliases: bool) -> Form:
        from sqlglot import expressions as exp

        if isinstance(part, list):
            return tuple(self._part(item, scope, aliases=aliases) for item in part)
        if isinstance(part, exp.Query):
            return self._scalar(part, scope)
        if isinstance(part, exp.Identifier):
            raise UndecidedError("a name is not the name of a column")
        if isinstance(part, exp.Expr):
            return self.value(part, scope, aliases=aliases)
        return ("constant", repr(part))


def _is_whole(form: Form) -> bool:
    return form[0] == "number" and form[1].isdigit() and len(form[1]) < 16
