"""Canonical forms of queries as nested tuples. Queries with equal forms return equal rows on any database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

from sqlquarry.sql.scopes import StoredColumn

# A tag, followed by names, numbers, flags and other forms, depending on the tag.
Form = tuple[Any, ...]
TRUE: Form = ("true",)


class OrderMattersError(Exception):
    """The result may depend on the order in which rows are visited, so all rewritings must keep the query plan."""


class CanonicalQuery(NamedTuple):
    """The canonical form of a query.

    Args:
        body: the form without ORDER BY. For a SELECT it is a `CanonicalSelect`.
        order: the forms of the ORDER BY keys.
        names: the names of the outputs, or None if their number is unknown.
    """

    body: Form
    order: tuple[Form, ...]
    names: tuple[str, ...] | None


class CanonicalSelect(NamedTuple):
    """The form of one SELECT. It is a tuple so that it can be part of other forms."""

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


def column_form(column: StoredColumn) -> Form:
    """Return the form of a stored column."""
    source, name = column
    return ("col", source.label, name)


def is_form(value: object) -> TypeGuard[Form]:
    """Return whether part of a form is itself a form."""
    return isinstance(value, tuple) and bool(value)


def many(connective: str, forms: list[Form], keep_plan: bool) -> Form:
    """Join conditions by AND or OR into a flat form, sorted and without repetitions unless the plan must be kept."""
    flat = [part for form in forms for part in (form[1:] if form and form[0] == connective else (form,)) if part]
    if connective == "and":
        flat = [form for form in flat if form != TRUE]
    if not keep_plan:
        flat = sorted(set(flat), key=repr)
    if not flat:
        return TRUE
    return flat[0] if len(flat) == 1 else (connective, *flat)


def as_set(form: Form) -> Form:
    """Return the form of a subquery whose duplicate rows do not matter."""
    return form._replace(distinct=False) if isinstance(form, CanonicalSelect) else form


def walk(form: object) -> Iterator[Form]:
    """Yield the form and every form within it."""
    if is_form(form):
        yield form
        for part in form:
            yield from walk(part)


def has_aggregate(form: object) -> bool:
    """Return whether the form contains an aggregate outside its subqueries."""
    if not is_form(form) or form[0] == "select":
        return False
    return form[0] == "aggregate" or any(map(has_aggregate, form))
