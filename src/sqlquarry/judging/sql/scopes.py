"""Which column a name means, by SQL's rules of scope and by SQLite's extensions of them.

Scopes are filled by two builders: `equivalence.blocks`, which merges derived tables into the query around them, and
`sql.resolver`, which leaves queries as they are. Only PostgreSQL's names are left to sqlglot's `qualify`. For SQLite,
`qualify` refuses text in double quotes (a fifth of Spider's queries have it) and row numbers, it cannot say that a name
is not certain, and it takes five times as long as a whole canonical form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.judging.sql.schema import Column, Table

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ROW_NUMBERS = {"rowid", "oid", "_rowid_"}


class UndecidedError(Exception):
    """The query uses something whose meaning is not modeled, or not certain."""


class NoSuchNameError(Exception):
    """The query names a table or column that the schema lacks."""


@dataclass(eq=False, slots=True)
class RowSource:
    """One source of rows in FROM: a table, or a derived table that is not merged into the query around it.

    Args:
        form: what it is, as part of a canonical form; ("table", folded name) for a table.
        columns: by name. None if the table is unknown; a value is None if nothing is known of the column.
        table: as the schema declares it; None for a derived or unknown table.
        label: depth of its SELECT and its place there, assigned when a canonical form is made.
    """

    form: tuple[object, ...]
    columns: Mapping[str, Column | None] | None
    table: Table | None = None
    label: tuple[int, int] = (0, 0)


StoredColumn = tuple[RowSource, str]


@dataclass(eq=False, slots=True)
class DerivedColumn:
    """An output of a derived table: its expression, and the names which that sees."""

    tree: Expr
    scope: Scope


Target = StoredColumn | DerivedColumn


class Cte(NamedTuple):
    """One name of a WITH clause: the query, the names of its columns if given, and the names that it sees itself."""

    query: Expr
    columns: tuple[str, ...]
    ctes: Mapping[str, Cte]


@dataclass(eq=False, slots=True)
class Binding:
    """An alias in FROM with its columns by name; `outputs` is None if the columns of `source` are unknown."""

    alias: str
    outputs: Mapping[str, Target] | None
    source: RowSource | None = None


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
    ctes: Mapping[str, Cte] = field(default_factory=dict)

    def output_names(self) -> Iterator[Iterable[str]]:
        """Yield the names of each source of this query and of those around it."""
        scope: Scope | None = self
        while scope is not None:
            yield from (binding.outputs for binding in scope.bindings if binding.outputs is not None)
            scope = scope.outer

    def qualified(self, alias: str, name: str) -> Target:
        """Return the column `alias.name`.

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
        """Return the column `name` of the innermost query that has one; None if none has.

        Args:
            name: folded to its canonical case.
            aliases: an output's name counts too if no source has the name (SQLite allows that in every clause but
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
                return DerivedColumn(scope.aliases[name], scope)
            if name in _ROW_NUMBERS:
                raise UndecidedError(f"the row's number {name}")
            scope = scope.outer
        return None

    def candidates(self, name: str, alias: str = "") -> Iterator[Target]:
        """Yield every column that the name may mean, those of the innermost query first; ambiguity does not matter.

        Args:
            name: folded to its canonical case.
            alias: of the source; "" if the name is not qualified.
        """
        scope: Scope | None = self
        while scope is not None:
            for binding in scope.bindings:
                if alias in ("", binding.alias) and binding.outputs is not None and name in binding.outputs:
                    yield binding.outputs[name]
            scope = scope.outer


def _of(binding: Binding, name: str) -> Target:
    if binding.outputs is None:
        assert binding.source is not None  # noqa: S101 - only unknown tables have no outputs
        return binding.source, name
    if name not in binding.outputs:
        if name in _ROW_NUMBERS:
            raise UndecidedError(f"the row's number {name}")
        raise NoSuchNameError(f"no column {binding.alias}.{name}")
    return binding.outputs[name]
