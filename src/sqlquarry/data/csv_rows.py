"""Read rows from CSV files, including those of Excel with semicolons or tabs and empty columns or rows at the end."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock

from sqlquarry.data import rows
from sqlquarry.data.row_reader import RowReader
from sqlquarry.data.rows import SourceRow
from sqlquarry.errors import RecordError

_DELIMITERS = (",", ";", "\t", "|")
_STATED = re.compile(r"sep=([,;|:\t])\s*", re.IGNORECASE)  # Excel can write this as the first line.
_field_limit = Lock()  # Guards `csv.field_size_limit`, which is global, while it is raised.


def csv_rows(file: io.BufferedIOBase, reader: RowReader) -> Iterator[SourceRow]:
    """Yield the rows of a CSV file. The delimiter is the one that gives known columns."""
    header: Sequence[str] = ()
    for number, fields in _fields(file, reader):
        if isinstance(fields, RecordError):
            yield SourceRow("line", number, fields)
        elif any(fields) and header:
            yield SourceRow("line", number, _columns(header, fields))
        elif any(fields):
            header = fields
            names = [name.strip() for name in header if name.strip()]
            if len(set(names)) < len(names):
                yield SourceRow("line", number, RecordError(f"the header has a column twice: {', '.join(names)}"))
                return


def _columns(header: Sequence[str], fields: Sequence[str]) -> Mapping[str, object] | RecordError:
    if any(name.strip() for name in header[len(fields) :]) or any(fields[len(header) :]):
        return RecordError(
            f"has {len(fields)} fields, but the header has {len(header)}. Quote fields that contain the delimiter"
        )
    columns: dict[str, object] = {}
    # Header and row may each have empty fields at the end.
    for index, (name, field) in enumerate(zip(header, fields, strict=False)):
        if name.strip():
            # CSV cannot distinguish an empty text from a missing one, nor the text 1.0 from an id that pandas wrote as
            # a float.
            is_float_id = field.endswith(".0") and name.strip().lower() in ("id", "question_id")
            columns[name] = field[:-2] if is_float_id and field[:-2].isdecimal() else field or None
        elif field and not (index == 0 and field.isdecimal()):  # pandas writes its index in the first column.
            return RecordError(f"the field {field!r:.40} has no column name in the header")
    return columns


def _fields(file: io.BufferedIOBase, reader: RowReader) -> Iterator[tuple[int, list[str] | RecordError]]:
    """Yield each row's fields with the number of its first line. No rows follow an error."""
    lines = _text_lines(file)
    read: list[str] = []  # all lines up to the first one that is not blank
    number = 1
    try:
        for line in lines:
            read.append(line)
            if line.strip():
                break
        stated = _STATED.fullmatch(read[-1]) if read else None
        if stated:
            read[-1] = "\n"
        delimiter = stated[1] if stated else _delimiter(read[-1] if read else "", reader)
        table = csv.reader(itertools.chain(read, lines), delimiter=delimiter, strict=True)
        while (fields := _next(table)) is not None:
            yield number, fields
            number = table.line_num + 1  # A quoted field may span several lines.
    except (csv.Error, RecordError) as error:
        # An open quote swallows the rest of the file, so nothing after it can be trusted.
        is_old = "new-line character" in str(error)  # The advice in csv's own message would not help.
        why = 'lines end with carriage returns alone. Save the file as "CSV UTF-8"' if is_old else error
        yield number, RecordError(f"not CSV from here on: {why}")


def _next(table: Iterator[list[str]]) -> list[str] | None:
    # The limit is shared by the process, so it is raised only while one row is read.
    with _field_limit:
        usual = csv.field_size_limit(rows.MAX_LINE_BYTES)
        try:
            return next(table, None)
        finally:
            csv.field_size_limit(usual)


def _delimiter(header: str, reader: RowReader) -> str:
    """Return the first delimiter that gives known columns, or else the one that gives the most columns."""
    columns = {delimiter: next(csv.reader([header], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    fitting = (delimiter for delimiter in _DELIMITERS if reader.fits(columns[delimiter]))
    return next(fitting, max(_DELIMITERS, key=lambda delimiter: len(columns[delimiter])))


def _text_lines(file: io.BufferedIOBase) -> Iterator[str]:
    for number, line in rows.lines(file):
        if isinstance(line, RecordError):
            raise RecordError(f"line {number} is {line}")
        yield line
