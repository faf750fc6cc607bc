"""`load_records`: from a file, an S3 object or a Hugging Face data set to records, with every bad row named."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from sqlquarry.artifacts import Record
from sqlquarry.aws import aws_client, transfer_config
from sqlquarry.data.formats import FORMATS, Row, file_format, file_rows
from sqlquarry.data.records import Records
from sqlquarry.data.shapes import KNOWN_SHAPES, record_from_row
from sqlquarry.errors import ConfigError, DataError, RecordError
from sqlquarry.extras import require

_SHOWN_PROBLEMS = 10
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def load_records(source: str | Path, *, limit: int | None = None) -> Records:
    """Read question/schema/SQL records; duplicates are kept, and nothing is dropped.

    The columns say what the rows are: ours (question, schema, and optionally sql, database, dialect, id),
    sql-create-context and the WikiSQL data made in its form (question, context, answer), Spider (question, query,
    db_id, and schema or tables) or BIRD (question, SQL, db_id, schema; the evidence is appended to the question in
    parentheses). A record without an id is called ``<file stem>:<line>``.

    Args:
        source: a file (.json, .jsonl, .ndjson, .csv, .parquet; each also .gz) in UTF-8, the ``s3://bucket/key`` of
            one, or the id of a Hugging Face data set, whose "train" split is read.
        limit: read only the first rows; the rows after them are not looked at.

    Raises:
        RecordError: bad rows; the message counts all and names the first 10 by line, array element or table row.
        DataError: the source cannot be found or read, or holds no records.
        ConfigError: `limit` is below 1.
        MissingExtraError: reading Parquet, S3 or the hub without its extra.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, but must be at least 1; leave it out to read everything")
    name = str(source)
    if name.startswith("s3://"):
        with _downloaded(name) as path:
            return _records_of_file(path, name, limit)
    path = Path(source)
    if path.is_file():
        return _records_of_file(path, name, limit)
    if isinstance(source, str) and file_format(name) is None and _HUB_ID.fullmatch(name) and not path.exists():
        return _records(_hub_rows(name), name, name.rpartition("/")[2], limit)
    raise DataError(f"{name} is {'a directory: name one file' if path.is_dir() else 'not there: check the path'}")


def _records_of_file(path: Path, name: str, limit: int | None) -> Records:
    stem, suffix = _known_format(name)
    return _records(file_rows(path, suffix, name), name, stem, limit)


def _known_format(name: str) -> tuple[str, str]:
    found = file_format(name)
    if found is None:
        raise DataError(f"{name} is of no known format: its name must end in one of {FORMATS}, with or without .gz")
    return found


def _records(rows: Iterable[Row], name: str, stem: str, limit: int | None) -> Records:
    records: list[Record] = []
    problems: list[str] = []
    for unit, number, columns in itertools.islice(rows, limit):
        try:
            if isinstance(columns, RecordError):
                raise columns
            records.append(record_from_row(columns, default_id=f"{stem}:{number}"))
        except RecordError as error:
            problems.append(f"  {unit} {number}: {error}")
    if problems:
        more = f"\n  … and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise RecordError(
            f"{name}: {len(problems)} bad of {len(problems) + len(records)} rows\n"
            + "\n".join(problems[:_SHOWN_PROBLEMS])
            + f"{more}\nMend or remove them. Known columns: {KNOWN_SHAPES}."
        )
    if not records:
        raise DataError(f"{name} holds no records. Check that it was written to its end.")
    return Records(records)


@contextmanager
def _downloaded(uri: str) -> Iterator[Path]:
    """The S3 object as a temporary file of the same name."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise DataError(f"{uri} is not of the form s3://bucket/key")
    _known_format(uri)
    require("aws", f"reading {uri}")
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    with tempfile.TemporaryDirectory(prefix="sqlquarry-") as directory:
        path = Path(directory) / PurePosixPath(key).name
        try:
            aws_client("s3").download_file(bucket, key, str(path), Config=transfer_config())
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise DataError(
                f"{uri} cannot be read: {error}. Check bucket, key and region, and that the credentials allow "
                "s3:GetObject."
            ) from error
        yield path


def _hub_rows(name: str) -> Iterator[Row]:
    require("hub", f"there is no file {name!r}, and reading it as a Hugging Face data set")
    import datasets

    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(name, split="train")
    except Exception as error:  # datasets passes on the errors of every library below it
        raise DataError(
            f"there is no file {name!r}, and it could not be read as a Hugging Face data set "
            f"({type(error).__name__}: {error}). Check path, id and network; a private data set needs HF_TOKEN; "
            "or download its file and give the path."
        ) from error
    for number, columns in enumerate(rows, 1):
        yield Row("row", number, columns)
