"""Check what is given to `train` and `plan`: records in any form, counts and places."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.files.locations import located
from sqlquarry.inputs import option_problems
from sqlquarry.records import Record


def as_records(given: object, name: str) -> Sequence[Record]:
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


def check_counts(**counts: object) -> None:
    """Check that these arguments are whole numbers of at least 1.

    Raises:
        ConfigError: some are not.
    """
    if bad := option_problems(counts, {}):
        raise ConfigError("; ".join(bad))


def check_apart(checkpoint_dir: str | Path | None, output: Path) -> None:
    """Check that checkpoints, which are removed in the end, are not among the files that are the adapter's.

    Raises:
        ConfigError: they are.
    """
    place = located(checkpoint_dir) if checkpoint_dir else None
    if not isinstance(place, Path) or not place.resolve().is_relative_to(output.resolve()):
        return
    below = place.resolve().relative_to(output.resolve()).parts
    if not any(part.startswith(".") for part in below):
        raise ConfigError(
            f"checkpoint_dir is {place}, which is in output_dir, whose files are the adapter's. Leave it out, which "
            f"puts checkpoints into {output / '.checkpoints'}, or give another directory."
        )
