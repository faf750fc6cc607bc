"""Helpers for the readers of all formats: numbered rows, lines of bounded length, and errors about bad bytes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from typing import NamedTuple

from sqlquarry.errors import MetadataError, RecordError

# A schema of ten thousand tables takes a few MiB. Longer lines are damaged, or meant to exhaust the memory.
MAX_LINE_BYTES = 64 * 2**20
# Limit for files that must be read completely (gzipped Parquet). All others are read in pieces and may be larger.
MAX_WHOLE_BYTES = 2**30
BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TooLargeError(Exception):
    """A file that must be read completely is too large. The message continues a sentence that starts with its name."""


class SourceRow(NamedTuple):
    """One row with its position, such as ("line", 12). If the row cannot be read, `columns` is the error.

    Errors are part of the stream instead of ending it, so that all bad rows are reported at once.
    """

    unit: str
    number: int
    columns: Mapping[str, object] | RecordError


def lines(file: io.BufferedIOBase) -> Iterator[tuple[int, str | RecordError]]:
    """Yield a file's lines with their numbers. A line that is too long or not UTF-8 becomes an error."""
    # Split bytes, not text, because text lines would also end at U+2028, which JSON allows inside a string.
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            # The rest is not read, because it may have any length.
            yield number, too_long()
            return
        try:
            yield number, (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            yield number, not_utf8(error)
            if number == 1 and line.startswith(_UTF16):
                return  # Every other line would fail too.


def whole(file: io.BufferedIOBase, how: str) -> bytes:
    """Read a complete file.

    Raises:
        TooLargeError: the file is larger than `MAX_WHOLE_BYTES`.
    """
    content = file.read(MAX_WHOLE_BYTES + 1)
    if len(content) > MAX_WHOLE_BYTES:
        raise TooLargeError(f"has more than {MAX_WHOLE_BYTES:,} bytes, which is too large to read {how}.")
    return content


def too_long() -> RecordError:
    """Return the error for a line or a value that is too long."""
    return RecordError(f"longer than {MAX_LINE_BYTES:,} bytes, so nothing after it was read")


def not_utf8(error: UnicodeDecodeError) -> RecordError:
    """Return the error for a file that is not UTF-8. It contains the bad byte and a way to fix the file."""
    if error.start == 0 and error.object.startswith(_UTF16):
        return RecordError('not UTF-8 but UTF-16 (Excel\'s "Unicode Text"). Save the file as "CSV UTF-8"')
    return RecordError(f"not UTF-8 (byte 0x{error.object[error.start]:02x}). Save the file as UTF-8")


def as_object(value: object) -> Mapping[str, object] | RecordError:
    """Return the value as columns, or an error if it is not an object."""
    if isinstance(value, dict):
        return value
    return RecordError(f"is a {type(value).__name__}, but must be a JSON object with named columns")


def cause_of(error: MetadataError) -> str:
    """Return the message of an error in a row, without the line number, which would be relative to the row."""
    cause = error.__cause__
    if isinstance(cause, JSONDecodeError):
        return f"{cause.msg} at column {cause.colno}"
    return str(error).removeprefix("it ")
