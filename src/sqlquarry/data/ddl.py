"""Separate the CREATE TABLE statements in a text from the words around them."""

from __future__ import annotations

import re
from typing import NamedTuple

_TABLE = r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|EXTERNAL|UNLOGGED|VIRTUAL)\s+)*TABLE\b"
_FIRST = re.compile(rf"(?<![\w'\"`]){_TABLE}", re.IGNORECASE)
_SPACE = r"(?:\s|;|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
_OTHER = (
    r"(?:INSERT\s+INTO|ALTER\s+TABLE|DROP\s+TABLE|COMMENT\s+ON|CREATE\s+(?:UNIQUE\s+)?(?:INDEX|VIEW|TYPE|SCHEMA))\b"
)
_NEXT = re.compile(rf"{_SPACE}(?:({_TABLE})|{_OTHER})", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|[();]|\n[ \t]*\r?\n", re.DOTALL)
# Options after the columns of a table, such as ENGINE=InnoDB or WITHOUT ROWID, up to a semicolon on the same line.
_OPTIONS = re.compile(r"[^\n;?]{0,200};")


class Parted(NamedTuple):
    """A text in three parts. The schema has all CREATE TABLE statements of the text, and statements between them."""

    before: str
    schema: str
    after: str


def part_schema(text: str) -> Parted | None:
    """Separate the schema from the text before and after it.

    Returns:
        None if the text has no CREATE TABLE statement, or has words between such statements.
    """
    first = _FIRST.search(text)
    if first is None:
        return None
    start, end = first.start(), _end_of_statement(text, first.end(), is_table=True)
    while following := _NEXT.match(text, end):
        end = _end_of_statement(text, following.end(), is_table=following[1] is not None)
    return None if _FIRST.search(text, end) else Parted(text[:start], text[start:end].strip(), text[end:])


def has_table(text: str) -> bool:
    """Return whether the text contains a CREATE TABLE statement."""
    return _FIRST.search(text) is not None


def _end_of_statement(text: str, start: int, *, is_table: bool) -> int:
    """Return the end of a statement: its semicolon, a blank line, or the bracket that closes a table's columns."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if token[0] == "(":
            depth += 1
        elif token[0] == ")":
            depth -= 1
            if is_table and depth <= 0:
                options = _OPTIONS.match(text, token.end())
                return options.end() if options and not _FIRST.search(options[0]) else token.end()
        elif depth <= 0 and (token[0] == ";" or not token[0].strip()):
            return token.end() if token[0] == ";" else token.start()
    return len(text)
