"""What readers of all formats share: rows with their places, lines of bounded length, and bytes that are not text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from json import JSONDecodeError
from typing import NamedTuple

from sqlquarry.errors import MetadataError, RecordError

# A schema of ten thousand tables takes a few MiB. What is longer is damaged, or made to fill the memory.
MAX_LINE_BYTES = 64 * 2**20
# What must be read whole (gzipped Parquet); all else is read in pieces and may be larger.
MAX_WHOLE_BYTES = 2**30
BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class TooLargeError(Exception):
    """A file that must be read whole is too large; the message follows its name."""


class SourceRow(NamedTuple):
    """One row and its place ("line", 12); a row that cannot be read is the error that says why.

    Errors are part of the stream, rather than ending it, so that all bad rows are reported at once.
    """

    unit: str
    number: int
    columns: Mapping[str, object] | RecordError


def lines(file: io.BufferedIOBase) -> Iterator[tuple[int, str | RecordError]]:
    """Read a file's lines with their numbers; a line that is too long or not UTF-8 is an error."""
    # Bytes end a line at "\n" alone; text would also end it at U+2028, which JSON allows inside a string.
    for number in itertools.count(1):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            # What follows is not read: it may be any length.
            yield number, too_long()
            return
        try:
            yield number, (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            yield number, not_utf8(error)
            if number == 1 and line.startswith(_UTF16):
                return  # every line would be


def whole(file: io.BufferedIOBase, how: str) -> bytes:
    """Read a file whole.

    Raises:
        TooLargeError: it is larger than `MAX_WHOLE_BYTES`.
    """
    content = file.read(MAX_WHOLE_BYTES + 1)
    if len(content) > MAX_WHOLE_BYTES:
        raise TooLargeError(f"has more than {MAX_WHOLE_BYTES:,} bytes, too many to be read {how}.")
    return content


def too_long() -> RecordError:
    """Say that a line or a value is too long."""
    return RecordError(f"longer than {MAX_LINE_BYTES:,} bytes; nothing after it was read")


def not_utf8(error: UnicodeDecodeError) -> RecordError:
    """Say which byte is not UTF-8, and what the file may be instead."""
    if error.start == 0 and error.object.startswith(_UTF16):
        return RecordError('not UTF-8 but UTF-16, Excel\'s "Unicode Text"; save the file as "CSV UTF-8"')
    return RecordError(f"not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8")


def as_object(value: object) -> Mapping[str, object] | RecordError:
    """Return the value as columns, or say that it is not an object."""
    if isinstance(value, dict):
        return value
    return RecordError(f"a {type(value).__name__}, but must be an object with named columns")


def cause_of(error: MetadataError) -> str:
    """Say what is wrong with a row, without the line number that counts from the row's own beginning."""
    cause = error.__cause__
    if isinstance(cause, JSONDecodeError):
        return f"{cause.msg} at column {cause.colno}"
    return str(error).removeprefix("it ")
