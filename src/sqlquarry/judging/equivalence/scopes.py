"""Which column a name means, by SQL's rules of scope and by SQLite's extensions of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlquarry.judging.equivalence.forms import Form, Label
from sqlquarry.judging.equivalence.schema import Column

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ROW_NUMBERS = {"rowid", "oid", "_rowid_"}


class UndecidedError(Exception):
    """No form: the query uses something whose meaning is not modelled, or not certain."""


class OrderMattersError(Exception):
    """The result may depend on the order in which rows are met: only rewritings that keep the plan are allowed."""


class NoSuchNameError(Exception):
    """The query names a table or column that the schema lacks."""


@dataclass(eq=False, slots=True)
class Leaf:
    """One source of rows in FROM: a table, or a derived table that is not merged into the query around it.

    Args:
        form: what it is.
        columns: by name; None where the table is unknown, a `None` value where nothing is known of the column.
        label: its place, assigned when a form is made.
    """

    form: Form
    columns: Mapping[str, Column | None] | None
    label: Label = (0, 0)

    def column(self, name: str) -> Form:
        """The form of one of its columns."""
        return ("col", self.label, name)


@dataclass(eq=False, slots=True)
class Expression:
    """An output of a derived table that was merged into the query around it."""

    tree: Expr
    scope: Scope


Target = tuple[Leaf, str] | Expression


@dataclass(eq=False, slots=True)
class Binding:
    """What an alias in FROM stands for; `outputs` is None where the leaf's columns are unknown."""

    alias: str
    outputs: Mapping[str, Target] | None
    leaf: Leaf | None = None


@dataclass(eq=False, slots=True)
class Scope:
    """The names that one SELECT sees.

    Args:
        outer: the query around it, whose names a correlated subquery sees too.
        depth: 1 for the outermost SELECT.
        bindings: its sources, in order.
        shared: columns named in USING or by NATURAL -> the binding that an unqualified name means.
        aliases: names given to outputs.
        ctes: names of WITH clauses that are seen here.
    """

    outer: Scope | None
    depth: int
    bindings: list[Binding] = field(default_factory=list)
    shared: dict[str, Binding] = field(default_factory=dict)
    aliases: dict[str, Expr] = field(default_factory=dict)
    ctes: Mapping[str, Any] = field(default_factory=dict)

    def output_names(self) -> Iterator[Iterable[str]]:
        """The names of each source of this query and of those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield from (binding.outputs for binding in scope.bindings if binding.outputs is not None)
            scope = scope.outer

    def qualified(self, alias: str, name: str) -> Target:
        """The column `alias.name`.

        Raises:
            NoSuchNameError: no source has this alias, or it lacks the column.
        """
        scope: Scope | None = self
        while scope is not None:
            for binding in scope.bindings:
                if binding.alias == alias:
                    return _of(binding, name)
            scope = scope.outer
        raise NoSuchNameError(f"no table or alias {alias!r}")

    def unqualified(self, name: str, *, aliases: bool) -> Target | None:
        """The column `name` of the innermost query that has one; None where none has.

        Args:
            name: folded to its canonical case.
            aliases: an output's name counts too, where no source has the name (SQLite allows that in every clause but
                the list of outputs; others in GROUP BY, HAVING and ORDER BY).

        Raises:
            UndecidedError: several sources have it, or may have it.
        """
        scope: Scope | None = self
        while scope is not None:
            if name in scope.shared:
                return _of(scope.shared[name], name)
            known = [b for b in scope.bindings if b.outputs is not None and name in b.outputs]
            unknown = [b for b in scope.bindings if b.outputs is None]
            if len(known) == 1 and not unknown:
                return _of(known[0], name)
            if len(scope.bindings) == 1 and unknown and scope.outer is None and not (aliases and name in scope.aliases):
                return _of(unknown[0], name)
            if known or unknown:
                raise UndecidedError(f"column {name!r} may belong to several tables")
            if aliases and name in scope.aliases:
                return Expression(scope.aliases[name], scope)
            if name in _ROW_NUMBERS:
                raise UndecidedError(f"the row's number {name}")
            scope = scope.outer
        return None


def _of(binding: Binding, name: str) -> Target:
    if binding.outputs is None:
        assert binding.leaf is not None  # noqa: S101 - only unknown tables have no outputs
        return binding.leaf, name
    if name not in binding.outputs:
        if name in _ROW_NUMBERS:
            raise UndecidedError(f"the row's number {name}")
        raise NoSuchNameError(f"no column {binding.alias}.{name}")
    return binding.outputs[name]
