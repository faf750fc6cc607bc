"""Quote the names of tables and columns in SQL that this library writes."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words that SQLite refuses as a plain name (found by trying all of https://sqlite.org/lang_keywords.html in 3.40), and
# words that are reserved in standard SQL.
_RESERVED = frozenset(
    """add all alter and as asc autoincrement between by case cast check collate column commit constraint create cross
    current_date current_time current_timestamp default deferrable delete desc distinct drop else end escape except
    exists foreign from full grant group having if in index inner insert intersect into is isnull join left like limit
    natural not nothing notnull null offset on or order outer primary raise references returning right select set table
    then to transaction union unique update user using values when where with""".split()  # noqa: SIM905 - a text of words is easier to read and to change
)


def quoted(name: str) -> str:
    """Return a name as an SQL identifier, in double quotes only if it needs them."""
    if _PLAIN.fullmatch(name) and name.lower() not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
