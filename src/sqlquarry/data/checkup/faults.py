"""Find faults in the texts of records: broken encodings, invisible characters, markup, and answers in markup."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.fields import Field, distinct_texts
from sqlquarry.data.checkup.findings import Check, Finding, Kind, findings_about, short
from sqlquarry.data.checkup.mojibake import mojibake
from sqlquarry.text import visible

KINDS = (
    Kind(
        "mojibake",
        "warning",
        "A text was decoded with the wrong encoding",
        "Read the source as UTF-8, or repair the text. A user would never write these characters.",
    ),
    Kind(
        "replacement-character",
        "warning",
        "A text has lost characters",
        "Read the source again with its real encoding. A program wrote U+FFFD where it could not decode it.",
    ),
    Kind(
        "invisible-character",
        "warning",
        "A text has characters that nobody can see",
        "Remove them. A query with an invisible character fails or finds nothing, and a reader cannot see why.",
    ),
    Kind(
        "html",
        "note",
        "A question or note has HTML",
        "Convert it to plain text, unless your users ask in HTML.",
    ),
    Kind(
        "wrapped-answer",
        "error",
        "A gold query is wrapped in markup",
        "Remove code fences, tags and labels. A model would learn to write them, and no database can run them.",
    ),
    Kind(
        "single-word-question",
        "note",
        "A question is a single word",
        "Check that the question was read from the right column and is complete.",
    ),
    Kind(
        "schema-without-table",
        "warning",
        "A schema has no CREATE TABLE",
        "Check that the schema was read from the right column, and write it as CREATE TABLE statements.",
    ),
    Kind(
        "answer-in-question",
        "error",
        "A question contains its gold query",
        "Remove the query from the question. Otherwise the model learns to copy instead of to answer.",
    ),
    Kind(
        "mixed-style",
        "warning",
        "Some gold queries are written in another style",
        "Write all queries in one style. A model cannot know which one to use, and learns the difference as noise.",
    ),
)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,6}|#x[0-9a-f]{1,5});", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|b|i|u|p|br|div|em|font|h[1-6]|hr|img|li|ol|span|strong|su[bp]|table|td|th|tr|ul)(?:\s[^<>]{0,200})?/?>",
    re.IGNORECASE,
)
_WRAPPING = re.compile(r"```|\[/?SQL\]|</?(?:sql|answer|query)>|^\s*(?:SQL|answer|query)\s*:", re.IGNORECASE)
_CREATE = re.compile(r"\bCREATE\b[^;(]{0,200}?\b(?:TABLE|VIEW)\b", re.IGNORECASE)
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
_COMMENT = re.compile(r"--|/\*")
_ESCAPE = re.compile(r"\\u\{[0-9a-f]+\}")  # as `visible` writes it
_SHORTEST_QUERY = 15  # A shorter one, such as SELECT 1, could be in a question by chance.


def text_faults(checked: Checked) -> Iterator[Finding]:
    """Find faults that a text shows by itself. Each distinct text is searched once."""
    for field, text, positions in distinct_texts(checked.records):
        for kind, fields, find in _FAULTS:
            if field in fields and (fault := find(text)):
                yield from findings_about(kind, positions, f"{fault} in the {field}" if len(fields) > 1 else fault)


def answers_in_questions(checked: Checked) -> Iterator[Finding]:
    """Find questions that contain one of their gold queries, in any case and spacing."""
    for position, record in enumerate(checked.records):
        question = record.question.lower()
        if "select" in question:
            question = " ".join(question.split())
            for sql in record.golds:
                query = " ".join(sql.lower().rstrip("; \n").split())
                if len(query) >= _SHORTEST_QUERY and query in question:
                    yield Finding("answer-in-question", (position,), short(record.question))
                    break


def mixed_styles(checked: Checked) -> Iterator[Finding]:
    """Find gold queries with a final semicolon, a comment or lower-case keywords, if that is rarer than the opposite.

    If it is not rarer, the queries without it are found.
    """
    golds = [(position, record.sql) for position, record in enumerate(checked.records) if record.sql is not None]
    for style, opposite, has in _STYLES:
        groups: dict[bool, list[int]] = {True: [], False: []}
        for position, sql in golds:
            groups[has(sql)].append(position)
        is_rarer = len(groups[True]) <= len(groups[False])
        if fewer := groups[is_rarer]:
            detail = f"{len(fewer):,} of {len(golds):,} queries {style if is_rarer else opposite}"
            yield from findings_about("mixed-style", fewer, detail)


CHECKS: tuple[Check, ...] = (text_faults, answers_in_questions, mixed_styles)


def _mojibake(text: str) -> str:
    return f"{found!r}" if (found := mojibake(text)) else ""


def _replacement(text: str) -> str:
    place = text.find("\ufffd")
    return repr(text[max(0, place - 15) : place + 15]) if place >= 0 else ""


def _invisible(text: str) -> str:
    """Return the first invisible character as an escape. A carriage return before a line feed is a line end."""
    if text.isascii() and text.isprintable():
        return ""
    found = _ESCAPE.search(visible(text))
    return found[0] if found and found[0] not in text else ""


def _html(text: str) -> str:
    found = _ENTITY.search(text) or _TAG.search(text)
    return short(found[0]) if found else ""


def _wrapping(text: str) -> str:
    found = _WRAPPING.search(text)
    return f"{found[0].strip()} around {short(text)}" if found else ""


def _single_word(text: str) -> str:
    # Scripts without spaces write a whole sentence as one word.
    return short(text) if text.isascii() and len(text.split()) == 1 else ""


def _without_table(text: str) -> str:
    return "" if _CREATE.search(text) else short(text)


_ALL: tuple[Field, ...] = ("question", "schema", "sql", "notes")
_FAULTS: tuple[tuple[str, tuple[Field, ...], Callable[[str], str]], ...] = (
    ("mojibake", _ALL, _mojibake),
    ("replacement-character", _ALL, _replacement),
    ("invisible-character", _ALL, _invisible),
    ("html", ("question", "notes"), _html),
    ("wrapped-answer", ("sql",), _wrapping),
    ("single-word-question", ("question",), _single_word),
    ("schema-without-table", ("schema",), _without_table),
)


def _has_comment(sql: str) -> bool:
    return ("--" in sql or "/*" in sql) and bool(_COMMENT.search(_QUOTED.sub("", sql)))


# What some queries do, the opposite, and how to recognize it.
_STYLES: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("end with a semicolon", "do not end with a semicolon", lambda sql: sql.rstrip().endswith(";")),
    ("have comments", "have no comments", _has_comment),
    ("begin with a lower-case keyword", "begin with an upper-case keyword", lambda sql: sql.lstrip()[:1].islower()),
)
