"""Records as they are given to `train` and `plan`: anything that holds `Record`s, and a clear error for the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import Record
from sqlquarry.errors import RecordError


def as_records(given: Any, name: str) -> Sequence[Record]:
    """Return the records; those of a generator or another iterable are read into a list once.

    Args:
        given: what a caller passed.
        name: the argument, for messages.

    Raises:
        RecordError: it is not an iterable, or holds something else than records; the message says what to pass.
    """
    if isinstance(given, str | Path):
        raise RecordError(
            f"{name} is {str(given)!r}, but must be records. Read the file first: load_records({str(given)!r})."
        )
    if isinstance(given, Record):
        raise RecordError(f"{name} is a single Record, but must be a list of records: [record].")
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise RecordError(f"{name} is a {type(given).__name__}, but must be records, as load_records returns them.")
    records = given if isinstance(given, Sequence) else list(given)
    for place, record in enumerate(records):
        if not isinstance(record, Record):
            how = "Record(**row) makes one of a dict" if isinstance(record, Mapping) else "load_records reads files"
            raise RecordError(
                f"element {place} of {name} is {record!r:.80}, a {type(record).__name__} and not a Record: {how}."
            )
    return records
