"""What a query means, as nested tuples: two queries with equal forms return equal rows on any database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

from sqlquarry.judging.sql.scopes import StoredColumn

# A tag, then names, numbers, flags and more forms: what follows depends on the tag.
Form = tuple[Any, ...]
TRUE: Form = ("true",)


class OrderMattersError(Exception):
    """The result may depend on the order in which rows are met: only rewritings that keep the plan are allowed."""


class CanonicalQuery(NamedTuple):
    """What a query means.

    Args:
        body: its form without ORDER BY; for a SELECT, a `CanonicalSelect`.
        order: its ORDER BY, one form per key.
        names: of its outputs; None if their number is unknown.
    """

    body: Form
    order: tuple[Form, ...]
    names: tuple[str, ...] | None


class CanonicalSelect(NamedTuple):
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


def column_form(column: StoredColumn) -> Form:
    """Return the form of a column of one source."""
    source, name = column
    return ("col", source.label, name)


def is_form(value: object) -> TypeGuard[Form]:
    """Whether part of a form is a form itself."""
    return isinstance(value, tuple) and bool(value)


def many(connective: str, forms: list[Form], keep_plan: bool) -> Form:
    """Join conditions by AND or OR: flat, and in lexical order without repetition if the plan need not be kept."""
    flat = [part for form in forms for part in (form[1:] if form and form[0] == connective else (form,)) if part]
    if connective == "and":
        flat = [form for form in flat if form != TRUE]
    if not keep_plan:
        flat = sorted(set(flat), key=repr)
    if not flat:
        return TRUE
    return flat[0] if len(flat) == 1 else (connective, *flat)


def as_set(form: Form) -> Form:
    """Return a subquery of which only the set of rows counts."""
    return form._replace(distinct=False) if isinstance(form, CanonicalSelect) else form


def walk(form: object) -> Iterator[Form]:
    """Yield the form and every form within it."""
    if is_form(form):
        yield form
        for part in form:
            yield from walk(part)


def has_aggregate(form: object) -> bool:
    """Whether there is an aggregate of this query, not of one within it, anywhere in the form."""
    if not is_form(form) or form[0] == "select":
        return False
    return form[0] == "aggregate" or any(map(has_aggregate, form))
