"""Separate the literals, quoted names and comments of SQL from the rest, also if the SQL cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

_QUOTED = r'"(?:[^"]|"")*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\[\]\n]*\]'
_COMMENT = r"--[^\n]*|/\*.*?(?:\*/|\Z)"
_DOLLARS = r"(\$\w*\$).*?(?:\1|\Z)"


def outside_of_quotes(sql: str, dialect: str, change: Callable[[str], str]) -> str:
    """Return the SQL with a change to everything but literals, names in quotes and comments."""
    pieces, end = [], 0
    for found in quotes_of(dialect).finditer(sql):
        pieces += [change(sql[end : found.start()]), found[0]]
        end = found.end()
    return "".join((*pieces, change(sql[end:])))


def quoted_parts(sql: str, dialect: str) -> Iterator[str]:
    """Yield the literals, names in quotes and comments."""
    return (found[0] for found in quotes_of(dialect).finditer(sql))


@lru_cache(maxsize=64)
def quotes_of(dialect: str) -> re.Pattern[str]:
    """Return a pattern of the texts in a dialect whose characters are not SQL. An open quote extends to the end."""
    from sqlglot import Dialect

    found = Dialect.get(dialect) or Dialect
    has_backslash = "\\" in found.tokenizer_class.STRING_ESCAPES
    inner = r"[^'\\]|\\.|''" if has_backslash else "[^']|''"
    quoted = _QUOTED.replace('[^"]', r'[^"\\]|\\.') if has_backslash else _QUOTED
    return re.compile(rf"{_DOLLARS}|'(?:{inner})*(?:'|\Z)|{quoted}|{_COMMENT}", re.DOTALL)
