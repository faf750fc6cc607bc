"""Check the arguments of `train` and `plan`: records, counts and directories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.files.locations import S3Location, located
from sqlquarry.inputs import option_problems
from sqlquarry.records import Record


def as_records(given: object, name: str) -> Sequence[Record]:
    """Return the records. A generator or another iterable is read into a list.

    Args:
        given: the value that a caller passed.
        name: name of the argument, for messages.

    Raises:
        RecordError: the value is not an iterable, or not all of its elements are records.
    """
    if isinstance(given, str | Path):
        raise RecordError(
            f"{name} is {str(given)!r}, but must be records. Load the file first: load_records({str(given)!r})."
        )
    if isinstance(given, Record):
        raise RecordError(f"{name} is a single Record, but must be a list of records. Pass [record].")
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise RecordError(f"{name} is a {type(given).__name__}, but must be records, as load_records returns them.")
    records = given if isinstance(given, Sequence) else list(given)
    for index, record in enumerate(records):
        if not isinstance(record, Record):
            how = (
                "Convert a dict with Record(**row)"
                if isinstance(record, Mapping)
                else "Use load_records to load records from files"
            )
            raise RecordError(
                f"element {index} of {name} is {record!r:.80}, a {type(record).__name__} and not a Record. {how}."
            )
    return records


def check_counts(**counts: object) -> None:
    """Check that all arguments are whole numbers of at least 1.

    Raises:
        ConfigError: an argument is not. The message lists all such arguments.
    """
    if bad := option_problems(counts, {}):
        raise ConfigError("; ".join(bad))


def check_checkpoint_dir(checkpoint_dir: str | Path | None, output: Path, backend: str) -> None:
    """Check that `checkpoint_dir` is not in `output_dir`, because checkpoints are removed when the run is finished.

    A hidden directory such as ``.checkpoints`` is allowed.

    Raises:
        ConfigError: `checkpoint_dir` is in `output_dir`, or in S3 although `backend` is "trl".
    """
    location = located(checkpoint_dir) if checkpoint_dir else None
    if isinstance(location, S3Location) and backend == "trl":
        raise ConfigError(
            f"checkpoint_dir is {location}, but TRL's trainer writes its checkpoints only to directories. Use a "
            'directory, or set backend="sqlquarry".'
        )
    if not isinstance(location, Path) or not location.resolve().is_relative_to(output.resolve()):
        return
    below = location.resolve().relative_to(output.resolve()).parts
    if not any(part.startswith(".") for part in below):
        raise ConfigError(
            f"checkpoint_dir {location} is in output_dir, which is for the adapter's files only. Leave it out to use "
            f"{output / '.checkpoints'}, or use another directory."
        )
