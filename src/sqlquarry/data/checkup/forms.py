"""Compute the forms by which records are compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlquarry.data.normal_form import query_form, question_form, schema_form
from sqlquarry.records import Record

_WORD = re.compile(r"\w+")


class Asked(NamedTuple):
    """What is asked about what. It is equal for records whose question, notes and schema differ only in spelling.

    `Records.split` keeps such records together on all levels that look at questions.
    """

    schema: str
    dialect: str
    question: frozenset[str]
    notes: frozenset[str]


class Forms(NamedTuple):
    """The forms of one record.

    Args:
        asked: the forms of what a model sees.
        wording: the words of the question in order, because "more A than B" is not "more B than A".
        golds: the forms of all gold queries, with their literals.
    """

    asked: Asked
    wording: str
    golds: frozenset[str]


def forms_of(records: Iterable[Record]) -> Iterator[Forms]:
    """Yield the forms of each record."""
    schemas: dict[str, str] = {}
    for record in records:
        if (schema := schemas.get(record.schema)) is None:
            schema = schemas[record.schema] = schema_form(record.schema)
        notes = question_form(record.notes, values=True) if record.notes else frozenset[str]()
        asked = Asked(schema, record.dialect, question_form(record.question, values=True), notes)
        golds = record.golds if record.alternatives else (record.sql,)  # the property is slow
        wording = " ".join(_WORD.findall(record.question.lower()))
        forms = frozenset(query_form(sql, record.schema, literals=True) for sql in golds if sql is not None)
        yield Forms(asked, wording, forms)
