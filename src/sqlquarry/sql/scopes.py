"""Resolves names to columns by SQL's scope rules and SQLite's extensions of them.

Two builders fill the scopes: `equivalence.blocks`, which merges derived tables into the query around them, and
`sql.resolver`, which does not change queries. sqlglot's `qualify` is used only for PostgreSQL. For SQLite it refuses
row numbers and text in double quotes, which occurs in a fifth of Spider's queries. It also cannot report that a name is
ambiguous, and it takes five times as long as building a complete canonical form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.sql.schema import Column, Table

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

_ROW_NUMBERS = {"rowid", "oid", "_rowid_"}


class UndecidedError(Exception):
    """The query uses something that is not modeled or whose meaning is uncertain."""


class NoSuchNameError(Exception):
    """The query names a table or column that the schema lacks."""


@dataclass(eq=False, slots=True)
class RowSource:
    """One source of rows in FROM: a table, or a derived table that is not merged into the query around it.

    Args:
        form: the source as part of a canonical form. It is ("table", folded name) for a table.
        columns: the columns by name, or None if the table is unknown. A value is None if the column is unknown.
        table: the table in the schema, or None for a derived or unknown table.
        label: the depth of its SELECT and its position there, which are set when a canonical form is built.
    """

    form: tuple[object, ...]
    columns: Mapping[str, Column | None] | None
    table: Table | None = None
    label: tuple[int, int] = (0, 0)


StoredColumn = tuple[RowSource, str]


@dataclass(eq=False, slots=True)
class DerivedColumn:
    """An output of a derived table: its expression and the scope of that expression."""

    tree: Expr
    scope: Scope


Target = StoredColumn | DerivedColumn


class Cte(NamedTuple):
    """One name of a WITH clause: its query, its column names if given, and the WITH names that its query can use."""

    query: Expr
    columns: tuple[str, ...]
    ctes: Mapping[str, Cte]


@dataclass(eq=False, slots=True)
class Binding:
    """An alias in FROM with its columns by name. `outputs` is None if the columns of `source` are unknown."""

    alias: str
    outputs: Mapping[str, Target] | None
    source: RowSource | None = None


@dataclass(eq=False, slots=True)
class Scope:
    """The names that one SELECT can use.

    Args:
        outer: the scope of the query around it, whose names a correlated subquery can also use.
        depth: nesting depth, 1 for the outermost SELECT.
        bindings: its sources, in order.
        shared: column of USING or NATURAL -> the binding to which the unqualified name refers.
        aliases: output expressions by their alias.
        ctes: the names of WITH clauses that it can use.
    """

    outer: Scope | None
    depth: int
    bindings: list[Binding] = field(default_factory=list)
    shared: dict[str, Binding] = field(default_factory=dict)
    aliases: dict[str, Expr] = field(default_factory=dict)
    ctes: Mapping[str, Cte] = field(default_factory=dict)

    def output_names(self) -> Iterator[Iterable[str]]:
        """Yield the column names of each source of this query and of the queries around it."""
        scope: Scope | None = self
        while scope is not None:
            yield from (binding.outputs for binding in scope.bindings if binding.outputs is not None)
            scope = scope.outer

    def qualified(self, alias: str, name: str) -> Target:
        """Return the column `alias.name`.

        Raises:
            NoSuchNameError: no source has this alias, or the source lacks the column.
        """
        scope: Scope | None = self
        while scope is not None:
            for binding in scope.bindings:
                if binding.alias == alias:
                    return _of(binding, name)
            scope = scope.outer
        raise NoSuchNameError(f"FROM has no table or alias {alias!r}")

    def unqualified(self, name: str, *, aliases: bool) -> Target | None:
        """Return the column `name` of the innermost query that has it, or None if no query has it.

        Args:
            name: the name in its canonical case.
            aliases: whether the name of an output counts too if no source has the name. SQLite allows this in every
                clause except the list of outputs. Other databases allow it in GROUP BY, HAVING and ORDER BY.

        Raises:
            UndecidedError: several sources have the column, or may have it.
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
                raise UndecidedError(f"{name} is the number of a row")
            scope = scope.outer
        return None

    def candidates(self, name: str, alias: str = "") -> Iterator[Target]:
        """Yield every column to which a name may refer, starting with the innermost query.

        Args:
            name: the name in its canonical case.
            alias: the alias of the source, or "" if the name is not qualified.
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
            raise UndecidedError(f"{name} is the number of a row")
        raise NoSuchNameError(f"{binding.alias} has no column {name!r}")
    return binding.outputs[name]
