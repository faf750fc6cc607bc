"""One file -> its rows with their places: JSON Lines, JSON arrays, CSV and Parquet, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sqlquarry.errors import DataError, RecordError
from sqlquarry.extras import require

_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row and its place ("line", 12); a row that cannot be read is the error that says why.

    Errors stand in the stream, rather than ending it, so that all bad rows are reported at once.
    """

    unit: str
    number: int
    columns: Mapping[str, object] | RecordError


def file_format(name: str) -> tuple[str, str] | None:
    """A file's stem and format: ``"a.jsonl.gz"`` -> ``("a", ".jsonl")``; None where it is none of `FORMATS`."""
    path = Path(name.removesuffix(".gz"))
    return (path.stem, path.suffix) if path.suffix in _READERS else None


def file_rows(path: Path, suffix: str, name: str) -> Iterator[Row]:
    """The rows of a file in one of `FORMATS`, gzipped where `path` ends in ``.gz``; errors call it `name`.

    Raises:
        DataError: the file cannot be read, or is cut off or not gzip although its name says so.
        MissingExtraError: Parquet without pyarrow.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from _READERS[suffix](file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is cut off or is not gzip: {error}. Get the file again.") from error
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from error


def _jsonl_rows(file: io.BufferedIOBase) -> Iterator[Row]:
    for number, line in _lines(file):
        if isinstance(line, RecordError):
            yield Row("line", number, line)
        elif line.strip():
            try:
                yield Row("line", number, _object(json.loads(line)))
            except (ValueError, RecursionError) as error:
                yield Row("line", number, RecordError(f"not a JSON object on one line ({_without_place(error)})"))


def _json_rows(file: io.BufferedIOBase) -> Iterator[Row]:
    content = file.read().removeprefix(_BOM)
    # Many ".json" files, the Hugging Face hub's among them, hold JSON Lines.
    if not content.lstrip().startswith(b"["):
        yield from _jsonl_rows(io.BytesIO(content))
        return
    try:
        elements = json.loads(content.decode())
    except UnicodeDecodeError as error:
        yield Row("line", content.count(b"\n", 0, error.start) + 1, _not_utf8(error))
    except (ValueError, RecursionError) as error:
        yield Row("line", getattr(error, "lineno", 1), RecordError(f"not a JSON array ({_without_place(error)})"))
    else:
        yield from (Row("element", number, _object(element)) for number, element in enumerate(elements, 1))


def _csv_rows(file: io.BufferedIOBase) -> Iterator[Row]:
    reader = csv.reader(_csv_lines(file), strict=True)
    header: list[str] = []
    start = 1
    try:
        for fields in reader:
            # A quoted field may span lines: the row begins after the last line of the row before.
            number, start = start, reader.line_num + 1
            if not fields:
                continue
            if not header:
                header = fields
                if len(set(header)) < len(header):
                    yield Row("line", number, RecordError(f"the header names a column twice: {', '.join(header)}"))
                    return
            elif len(fields) != len(header):
                problem = RecordError(f"{len(fields)} fields, where the header has {len(header)}")
                yield Row("line", number, problem)
            else:
                # CSV cannot tell an empty text from none.
                yield Row("line", number, {name: field or None for name, field in zip(header, fields, strict=True)})
    except (csv.Error, RecordError) as error:
        # An open quote swallows what follows, so nothing after it can be trusted.
        yield Row("line", start, RecordError(f"not CSV from here on: {error}"))


def _csv_lines(file: io.BufferedIOBase) -> Iterator[str]:
    for number, line in _lines(file):
        if isinstance(line, RecordError):
            raise RecordError(f"line {number} is {line}")
        yield line


def _parquet_rows(file: io.BufferedIOBase) -> Iterator[Row]:
    require("parquet", "reading Parquet")
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        # Parquet is read from its end, which a gzip stream reaches only by reading everything anyway.
        for batch in ParquetFile(io.BytesIO(file.read())).iter_batches(batch_size=4096):
            for columns in batch.to_pylist():
                number += 1
                yield Row("row", number, columns)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        yield Row("row", number + 1, RecordError(f"not Parquet from here on: {error}"))


_READERS: Mapping[str, Callable[[io.BufferedIOBase], Iterator[Row]]] = {
    ".json": _json_rows,
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
FORMATS = ", ".join(_READERS)


def _lines(file: io.BufferedIOBase) -> Iterator[tuple[int, str | RecordError]]:
    # Bytes end a line at "\n" alone; text would also end it at U+2028, which JSON allows inside a string.
    for number, line in enumerate(file, 1):
        try:
            yield number, (line.removeprefix(_BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            yield number, _not_utf8(error)


def _not_utf8(error: UnicodeDecodeError) -> RecordError:
    return RecordError(f"not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8")


def _without_place(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _object(value: object) -> Mapping[str, object] | RecordError:
    return (
        value
        if isinstance(value, dict)
        else RecordError(f"a {type(value).__name__}, but must be an object with named columns")
    )
