"""Repair characters in the texts of records: wrong encodings, invisible characters, entities and white space."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sqlquarry.data.checkup.mojibake import decoded
from sqlquarry.data.checkup.repairs.literals import outside_of_quotes, quoted_parts
from sqlquarry.data.checkup.repairs.rule import RepairRule
from sqlquarry.records import Record

# A byte order mark, zero-width space, word joiner and soft hyphen. Joiners stay, because emoji and scripts need them.
_INVISIBLE = re.compile("[\ufeff\u200b\u2060\u00ad]")
# White space of typesetting: no-break, figure, thin and ideographic spaces. Line and paragraph separators too.
_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LINE_END = re.compile("\r\n?|[\u2028\u2029\x0b\x0c\x85]")
_ENTITY = re.compile(r"&(?:[a-z][a-z0-9]{1,30}|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_MOST_LEVELS = 5  # of &amp;amp;gt;


def _unescaped(text: str) -> str:
    for _ in range(_MOST_LEVELS):
        text, old = _ENTITY.sub(lambda found: html.unescape(found[0]), text), text
        if text == old:
            break
    return text


def _spaced(text: str) -> str:
    return _LINE_END.sub("\n", _SPACE.sub(" ", text))


def _visible(text: str) -> str:
    return _INVISIBLE.sub("", text)


def _changed(change: Callable[[str], str], record: Record) -> Record | None:
    """Change question and notes, and schema and golds outside of quotes.

    Nothing is changed if a gold has such characters in quotes, because the values of its database may have them too.
    """
    texts = (record.question, record.notes, record.schema, *record.golds)
    if all(change(text) == text for text in texts):
        return None
    quoted = (part for sql in record.golds for part in quoted_parts(sql, record.dialect))
    if any(change(part) != part for part in quoted):
        return None
    return _rewritten(record, change, lambda sql: outside_of_quotes(sql, record.dialect, change))


def _stripped(record: Record) -> Record | None:
    return _rewritten(record, str.strip, str.strip)


def _rewritten(record: Record, text: Callable[[str], str], sql: Callable[[str], str]) -> Record | None:
    """Change question and notes by `text`, schema and golds by `sql`. Return None if they stay the same."""
    golds = [sql(gold) for gold in record.golds]
    found = replace(
        record,
        question=text(record.question),
        notes=text(record.notes),
        schema=sql(record.schema),
        sql=golds[0] if golds else None,
        alternatives=golds[1:],
    )
    return None if found == record else found


_IN_QUOTES = "The record stays if a gold has such a text in quotes, because the values of its database may have it too."

RULES = (
    RepairRule(
        "invisible-characters",
        "Byte order marks, zero-width spaces and soft hyphens are removed",
        f"Nobody can see them. {_IN_QUOTES}",
        partial(_changed, _visible),
    ),
    RepairRule(
        "mojibake",
        "UTF-8 that was read as Windows-1252 or Latin-1 is decoded, as in CafÃ©",
        f"The whole text must reverse exactly. {_IN_QUOTES}",
        partial(_changed, decoded),
    ),
    RepairRule(
        "html-entities",
        "HTML entities such as &gt; are replaced by their characters",
        f"They mean the same to a reader, and they are not SQL. {_IN_QUOTES}",
        partial(_changed, _unescaped),
    ),
    RepairRule(
        "special-spaces",
        "No-break and other special spaces become spaces, and special line ends become line feeds",
        f"They look the same, but SQL does not accept them. {_IN_QUOTES}",
        partial(_changed, _spaced),
    ),
    RepairRule(
        "outer-white-space",
        "White space at the start and end of texts is removed",
        "It is not part of a question, a schema or a query.",
        _stripped,
    ),
)
