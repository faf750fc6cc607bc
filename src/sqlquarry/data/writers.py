"""Write records as JSON Lines, as conversations and as Parquet. A file is written completely or not at all."""

from __future__ import annotations

import io
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.data.objects import s3_uri, upload
from sqlquarry.data.split import FIELDS
from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.extras import require
from sqlquarry.files.writing import write_atomically
from sqlquarry.records import Record

if TYPE_CHECKING:
    import boto3

    from sqlquarry.prompt import PromptFormatter

_BATCH_ROWS = 10_000
# Fields that conversations keep next to the messages, if they differ from these values. The id is always kept, because
# a row without one gets the number of its line.
_BESIDE_MESSAGES = {"alternatives": (), "database": None, "dialect": "sqlite", "id": "", "notes": ""}


def write_file(path: str | Path, endings: Sequence[str], parts: Iterable[bytes], session: boto3.Session | None) -> None:
    """Write parts of a file, locally or to S3, and compress them if the name ends in ``.gz``.

    Raises:
        ConfigError: `path` has another ending.
        DataError: the object cannot be written to S3.
        MissingExtraError: `path` is on S3, but boto3 is not installed.
    """
    name = s3_uri(path) or str(path)
    if not name.endswith(tuple(endings)):
        raise ConfigError(f"{name} must end in {' or '.join(endings)}, so that load_records recognizes its format")
    write_parts(path, _gzipped(parts) if name.endswith(".gz") else parts, session)


def write_parts(path: str | Path, parts: Iterable[bytes], session: boto3.Session | None) -> None:
    """Write parts of a file of any name, locally or to S3.

    Raises:
        DataError: the object cannot be written to S3.
        MissingExtraError: `path` is on S3, but boto3 is not installed.
    """
    if uri := s3_uri(path):
        upload(uri, parts, session)
    else:
        write_atomically(Path(path).expanduser(), parts)


def json_line(record: Record) -> bytes:
    """Return a record as one line of JSON."""
    # Empty values of the newer fields are left out, so that the digest is the same as in versions without them.
    values = ((name, getattr(record, name)) for name in FIELDS)
    return _line({name: value for name, value in values if value or name not in ("alternatives", "notes")})


def message_line(record: Record, formatter: PromptFormatter) -> bytes:
    """Return a record as one line of JSON with its messages."""
    more = {name: value for name in _BESIDE_MESSAGES if (value := getattr(record, name)) != _BESIDE_MESSAGES[name]}
    return _line({"messages": formatter.messages(record), **more})


def parquet_parts(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the parts of a Parquet file with one column per field.

    Raises:
        RecordError: a text has a lone surrogate, which Parquet cannot store.
        MissingExtraError: pyarrow is not installed.
    """
    require("parquet", "writing Parquet")
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, pa.list_(pa.string()) if name == "alternatives" else pa.string()) for name in FIELDS])
    sink = _Sink()
    with ParquetWriter(sink, schema) as writer:
        remaining = iter(records)
        while batch := list(itertools.islice(remaining, _BATCH_ROWS)):
            try:
                table = pa.table({name: [getattr(record, name) for record in batch] for name in FIELDS}, schema=schema)
            except UnicodeEncodeError as error:
                raise RecordError(
                    f"a text has half of a surrogate pair, which Parquet cannot store: {error}. Use to_jsonl."
                ) from error
            writer.write_table(table)
            yield sink.take()
    yield sink.take()


def dataset_of(records: Iterable[Record]) -> Any:  # datasets has no types
    """Return the records as a `datasets.Dataset` with one column per field.

    Raises:
        MissingExtraError: datasets is not installed.
    """
    require("hub", "making a datasets.Dataset")
    import datasets

    text = datasets.Value("string")
    features = {name: datasets.Sequence(text) if name == "alternatives" else text for name in FIELDS}
    columns: dict[str, list[object]] = {name: [] for name in FIELDS}
    for record in records:
        for name, values in columns.items():
            values.append(getattr(record, name))
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


class _Sink(io.RawIOBase):
    """A file that keeps what is written to it until somebody takes it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:  # any buffer
        part = bytes(data)
        self._parts.append(part)
        self._position += len(part)
        return len(part)

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def _line(columns: dict[str, object]) -> bytes:
    # UTF-8 cannot encode lone surrogates. Python's escape for them is also a valid JSON escape.
    return json.dumps(columns, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _gzipped(parts: Iterable[bytes]) -> Iterator[bytes]:
    # Like gzip.compress(…, mtime=0), so that the same records always give the same bytes.
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()
