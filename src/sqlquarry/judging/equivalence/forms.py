"""What a query means, as nested tuples: two queries with equal forms return equal rows on any database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Form = tuple[Any, ...]
Label = tuple[int, int]  # of a source of rows: depth of the SELECT, place of the source in it
TRUE: Form = ("true",)


def many(connective: str, forms: list[Form], keep_plan: bool) -> Form:
    """AND or OR of conditions: flat, and in lexical order without repetition where the plan need not be kept."""
    flat = [part for form in forms for part in (form[1:] if form and form[0] == connective else (form,)) if part]
    if connective == "and":
        flat = [form for form in flat if form != TRUE]
    if not keep_plan:
        flat = sorted(set(flat), key=repr)
    if not flat:
        return TRUE
    return flat[0] if len(flat) == 1 else (connective, *flat)


def as_set(form: Any) -> Form:
    """A subquery of which only the set of rows counts."""
    rows: Form = form._replace(distinct=False) if form[0] == "select" else form
    return rows


def walk(form: Any) -> Iterator[Form]:
    """The form and every form within it."""
    if isinstance(form, tuple) and form:
        yield form
        for part in form:
            yield from walk(part)


def has_aggregate(form: Any) -> bool:
    """Whether an aggregate of this query, not of one within it, stands anywhere in the form."""
    if not isinstance(form, tuple) or not form or form[0] == "select":
        return False
    return form[0] == "aggregate" or any(map(has_aggregate, form))
