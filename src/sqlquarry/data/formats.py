"""One file -> its rows with their places: JSON Lines, JSON arrays, CSV and Parquet, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import NamedTuple

from sqlquarry.errors import DataError, MetadataError, RecordError
from sqlquarry.extras import require
from sqlquarry.metadata import parse_json

# A schema of ten thousand tables takes a few MiB. What is longer is damaged, or made to fill the memory.
MAX_LINE_BYTES = 64 * 2**20
# What must be read whole (a JSON array, gzipped Parquet); JSON Lines and Parquet are read in pieces and may be larger.
MAX_WHOLE_BYTES = 2**30
# gzip makes text 5 to 20 times smaller, and never more than 1,032 times.
_MAX_RATIO = 200
_MAX_UNPACKED_BYTES = 2**30  # whatever the ratio
_BOM = b"\xef\xbb\xbf"


class _TooLargeError(Exception):
    """A file that must be read whole is too large; the message follows its name."""


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
        DataError: the file cannot be read, is cut off or not gzip although its name says so, or is too large to be
            read whole, or once unpacked.
        MissingExtraError: Parquet without pyarrow.
    """
    packed = path.suffix == ".gz"
    try:
        longest = max(_MAX_UNPACKED_BYTES, _MAX_RATIO * path.stat().st_size)
        with gzip.open(path) if packed else path.open("rb") as file:
            for row in _READERS[suffix](file):
                if packed and file.tell() > longest:
                    raise DataError(f"{name} unpacks to more than {longest:,} bytes. Unpack it, and give the result.")
                yield row
    except _TooLargeError as error:
        raise DataError(f"{name} {error}") from error
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
                yield Row("line", number, _object(parse_json(line, "it", lenient=True)))
            except MetadataError as error:
                yield Row("line", number, RecordError(f"not a JSON object on one line ({_cause(error)})"))


def _json_rows(file: io.BufferedIOBase) -> Iterator[Row]:
    # Many ".json" files, the Hugging Face hub's among them, hold JSON Lines.
    start = next(
        (text for part in iter(lambda: file.read(4096), b"") if (text := part.removeprefix(_BOM).lstrip())), b""
    )
    file.seek(0)
    if not start.startswith(b"["):
        yield from _jsonl_rows(file)
        return
    content = _whole(file, "as a JSON array. Write it as JSON Lines").removeprefix(_BOM)
    try:
        elements = parse_json(content.decode(), "it", lenient=True, max_values=len(content))
    except UnicodeDecodeError as error:
        yield Row("line", content.count(b"\n", 0, error.start) + 1, _not_utf8(error))
    except MetadataError as error:
        line = getattr(error.__cause__, "lineno", 1)
        yield Row("line", line, RecordError(f"not a JSON array ({_cause(error)})"))
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
        packed = isinstance(file, gzip.GzipFile)
        source = io.BytesIO(_whole(file, "as gzipped Parquet. Unpack it")) if packed else file
        for batch in ParquetFile(source).iter_batches(batch_size=4096):
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
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            # What follows is not read: it may be any length.
            yield number, RecordError(f"longer than {MAX_LINE_BYTES:,} bytes; nothing after it was read")
            return
        try:
            yield number, (line.removeprefix(_BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            yield number, _not_utf8(error)


def _not_utf8(error: UnicodeDecodeError) -> RecordError:
    return RecordError(f"not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8")


def _whole(file: io.BufferedIOBase, how: str) -> bytes:
    content = file.read(MAX_WHOLE_BYTES + 1)
    if len(content) > MAX_WHOLE_BYTES:
        raise _TooLargeError(f"has more than {MAX_WHOLE_BYTES:,} bytes, too many to be read {how}.")
    return content


def _cause(error: MetadataError) -> str:
    """What is wrong with a row, without the line number that counts from the row's own beginning."""
    cause = error.__cause__
    return (
        f"{cause.msg} at column {cause.colno}" if isinstance(cause, JSONDecodeError) else str(error).removeprefix("it ")
    )


def _object(value: object) -> Mapping[str, object] | RecordError:
    return (
        value
        if isinstance(value, dict)
        else RecordError(f"a {type(value).__name__}, but must be an object with named columns")
    )
