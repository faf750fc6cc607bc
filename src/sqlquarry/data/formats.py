"""Read the rows of a file in any known format: JSON Lines, JSON arrays, CSV and Parquet, also gzipped."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sqlquarry.data.csv_rows import csv_rows
from sqlquarry.data.json_rows import json_rows
from sqlquarry.data.parquet_rows import parquet_rows
from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow, TooLargeError
from sqlquarry.errors import DataError

# gzip makes text 5 to 20 times smaller. Its limit is a factor of 1,032.
_MAX_RATIO = 200
_MAX_UNPACKED_BYTES = 2**30  # Files up to this size are allowed at any ratio.
_READERS: Mapping[str, Callable[[io.BufferedIOBase, RowReader], Iterator[SourceRow]]] = {
    ".json": lambda file, _: json_rows(file),
    ".jsonl": lambda file, _: json_rows(file),
    ".ndjson": lambda file, _: json_rows(file),
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
FORMATS = ", ".join(_READERS)


def file_format(name: str) -> tuple[str, str] | None:
    """Return a file's stem and format, such as ``("A", ".jsonl")`` for ``"A.JSONL.gz"``, or None if it is unknown."""
    path = Path(name[:-3] if name.lower().endswith(".gz") else name)
    return (path.stem, path.suffix.lower()) if path.suffix.lower() in _READERS else None


def file_rows(path: Path, suffix: str, name: str, reader: RowReader) -> Iterator[SourceRow]:
    """Yield the rows of a file in one of `FORMATS`. Unpack it if `path` ends in ``.gz``. Messages call it `name`.

    Raises:
        DataError: the file cannot be read, is cut off, is not gzip although its name ends in ``.gz``, or is too large
            when it is unpacked.
        MissingExtraError: the file is Parquet, but pyarrow is not installed.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        longest = max(_MAX_UNPACKED_BYTES, _MAX_RATIO * path.stat().st_size)
        with gzip.open(path) if packed else path.open("rb") as file:
            for row in _READERS[suffix](file, reader):
                if packed and file.tell() > longest:
                    raise DataError(
                        f"{name} unpacks to more than {longest:,} bytes. Unpack it yourself and load the result."
                    )
                yield row
    except TooLargeError as error:
        raise DataError(f"{name} {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is cut off or is not gzip: {error}. Get a new copy of the file.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from error
