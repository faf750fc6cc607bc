"""Read rows from JSON files in pieces: JSON Lines, an array, an object around an array, or objects in sequence."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from json import JSONDecodeError

from sqlquarry.data import rows
from sqlquarry.data.rows import SourceRow
from sqlquarry.errors import MetadataError, RecordError
from sqlquarry.files.metadata import parse_json, parse_next

# Keys under which an object may contain the rows, as in {"version": 1, "data": […]}.
_WRAPPERS = ("data", "records", "rows", "examples", "items", "train", "validation", "dev", "test")
_PIECE_BYTES = 2**16
_INK = re.compile(r"[^ \t\n\r]")


def json_rows(file: io.BufferedIOBase) -> Iterator[SourceRow]:
    """Yield the rows of a JSON file in any layout, whatever its file extension."""
    text = _Text(file)
    try:
        layout, wrapper = _layout(text)
    except (MetadataError, RecordError, JSONDecodeError):
        layout, wrapper = "lines", ""  # The reader of lines reports where the error is.
    if layout == "array":
        yield from _reported(text, _array(text, wrapper), "a JSON array")
        return
    file.seek(0)
    if layout == "values":
        text = _Text(file)
        yield from _reported(text, _values(text), "JSON objects")
    else:
        yield from _lines(file)


def _lines(file: io.BufferedIOBase) -> Iterator[SourceRow]:
    for number, line in rows.lines(file):
        if isinstance(line, RecordError):
            yield SourceRow("line", number, line)
        elif line.strip():
            text = line.rstrip("\r\n")  # The column of an error at the end belongs to this line, not to the next.
            try:
                yield SourceRow("line", number, rows.as_object(parse_json(text, "it", lenient=True)))
            except MetadataError as error:
                yield SourceRow("line", number, RecordError(f"not a JSON object on one line ({rows.cause_of(error)})"))


def _layout(text: _Text) -> tuple[str, str]:
    """Return the layout of a file and the key that contains the rows.

    The layout is "array" (then the text has been read up to its opening bracket), "values" if the first object spans
    several lines, or "lines" otherwise.
    """
    start = text.peek()
    if start in ("[", "{"):
        text.take(start)
    if start != "{":
        return ("array" if start == "[" else "lines"), ""
    first_line, names = text.line, set()
    while text.peek() == '"':
        key = text.value()
        text.take(":")
        if key in _WRAPPERS and text.peek() == "[" and "question" not in names:
            text.take("[")
            return ("array" if text.peek() in ("{", "]") else "lines"), str(key)
        names.add(str(key).strip().lower())
        text.value()
        if text.peek() != ",":
            break
        text.take(",")
    text.take("}")
    return ("values" if text.line > first_line else "lines"), ""


def _array(text: _Text, wrapper: str) -> Iterator[SourceRow]:
    number = 0
    while text.peek() != "]":
        if number:
            text.take(",")
        number += 1
        yield SourceRow("element", number, rows.as_object(text.value()))
    text.take("]")
    if wrapper:
        while text.peek() == ",":
            text.take(",")
            key = text.value()
            text.take(":")
            if key in _WRAPPERS and text.peek() == "[":
                raise RecordError(f"has two lists of rows, {wrapper!r} and {key!r}. Write each to a separate file")
            text.value()
        text.take("}")
    text.take("")


def _values(text: _Text) -> Iterator[SourceRow]:
    number = 0
    while text.peek():
        number += 1
        yield SourceRow("element", number, rows.as_object(text.value()))


def _reported(text: _Text, found: Iterator[SourceRow], what: str) -> Iterator[SourceRow]:
    """Yield the rows up to the first error, then a row that says where it is. Nothing after it can be trusted."""
    try:
        yield from found
    except JSONDecodeError as error:
        line, column = text.place_of(error)
        yield SourceRow("line", line, RecordError(f"not {what} ({error.msg} at column {column})"))
    except MetadataError as error:
        yield SourceRow("line", text.line, RecordError(f"not {what} ({rows.cause_of(error)})"))
    except RecordError as error:
        yield SourceRow("line", text.line, error)


class _Text:
    """The text of a file, read in pieces. Only the value that is being parsed is in memory."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._position, self._is_whole = "", 0, False
        self._lines, self._column = 1, 0  # the position in the file at which `_text` starts

    @property
    def line(self) -> int:
        """Number of the current line."""
        return self._lines + self._text.count("\n", 0, self._position)

    def place_of(self, error: JSONDecodeError) -> tuple[int, int]:
        """Return the line and column of an error in the file."""
        return self._lines + error.lineno - 1, error.colno + (self._column if error.lineno == 1 else 0)

    def peek(self) -> str:
        """Return the next character that is not white space, or "" at the end of the file."""
        while not (found := _INK.search(self._text, self._position)):
            self._position = len(self._text)
            if not self._read():
                return ""
        self._position = found.start()
        return found[0]

    def take(self, character: str) -> None:
        """Read this character, or the end of the file if it is ""."""
        if self.peek() != character:
            wanted = f"Expecting {character!r}" if character else "Extra data"
            raise JSONDecodeError(wanted, self._text, self._position)
        self._position += len(character)

    def value(self) -> object:
        """Read a JSON value."""
        self.peek()
        while True:
            if len(self._text) - self._position > rows.MAX_LINE_BYTES:
                raise rows.too_long()
            try:
                value, end = parse_next(self._text, self._position, "it")
            except JSONDecodeError:
                if not self._read():
                    raise
            else:
                if end < len(self._text) or not self._read():  # A number may continue in the next piece.
                    self._position = end
                    return value

    def _read(self) -> bool:
        """Read the next piece and return whether there was one.

        A piece is as long as the text so far, so that a long value is parsed only a few times.
        """
        if self._is_whole:
            return False
        done = self._text[: self._position]
        self._lines += (ended := done.count("\n"))
        self._column = len(done) - done.rfind("\n") - 1 if ended else self._column + len(done)
        self._text, self._position = self._text[self._position :], 0
        piece = self._file.read(max(_PIECE_BYTES, len(self._text)))
        self._is_whole = not piece
        try:
            self._text += self._decoder.decode(piece, final=self._is_whole)
        except UnicodeDecodeError as error:
            self._is_whole = True
            self._lines += self._text.count("\n") + error.object.count(b"\n", 0, error.start)
            self._text = ""
            raise rows.not_utf8(error) from error
        return True
