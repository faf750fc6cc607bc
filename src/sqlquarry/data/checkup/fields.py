"""Go through the texts of records, each distinct text once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from sqlquarry.records import Record

Field = Literal["question", "schema", "sql", "notes"]


class FieldText(NamedTuple):
    """One distinct text of a field.

    Args:
        field: the field. The queries in `alternatives` count as "sql".
        text: the text.
        positions: the records that have it, in order.
    """

    field: Field
    text: str
    positions: list[int]


def distinct_texts(records: Sequence[Record]) -> Iterator[FieldText]:
    """Yield each distinct text of questions, schemas, queries and notes, in the order of fields and records."""
    fields: dict[Field, dict[str, list[int]]] = {"question": {}, "schema": {}, "sql": {}, "notes": {}}
    for position, record in enumerate(records):
        texts: list[tuple[Field, str]] = [("question", record.question), ("schema", record.schema)]
        texts += [("sql", sql) for sql in dict.fromkeys(record.golds)]
        if record.notes:
            texts.append(("notes", record.notes))
        for field, text in texts:
            fields[field].setdefault(text, []).append(position)
    for field, places in fields.items():
        for text, positions in places.items():
            yield FieldText(field, text, positions)
