"""Find the SQL in what a model answered."""

from __future__ import annotations

import json
import re

from sqlquarry.judging.parsing import parse

_TAGGED = re.compile(r"\[SQL\](.*?)(?:\[/SQL\]|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[ \t]*(?:[\w+-]+[ \t]*\n|\n|sql(?:ite)?\b)?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_SPECIAL = r"<\|[\w ]{2,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|\[/SQL\]|<(?:end|start)_of_turn>"
_SPECIAL_TOKEN = re.compile(_SPECIAL)
_MARKED = re.compile(rf"```|\[SQL\]|{_SPECIAL}", re.IGNORECASE)
_NAME = r"(?:\w+|\"[^\"]+\"|`[^`]+`|\[[^\]]+\])"
_WITH = rf"WITH\s+(?:RECURSIVE\s+)?{_NAME}\s*(?:\([^()]*\)\s*)?AS\b"
_STATEMENT = re.compile(
    rf"(?:\(\s*)*(?:SELECT\b|{_WITH}|VALUES\s*\(|(?:INSERT|REPLACE)\s+(?:OR|INTO)\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b|"
    r"(?:CREATE|DROP|ALTER)\s+(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL|TABLE|VIEW|INDEX|TRIGGER)\b|"
    r"(?:PRAGMA|ATTACH|DETACH|VACUUM|EXPLAIN)\b)",
    re.IGNORECASE,
)
_LEADING_COMMENTS = re.compile(r"(?:\s+|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
_READS = re.compile(r"\W*(?:SELECT|WITH)\b", re.IGNORECASE)
# A query begins a line, or follows a colon or backtick, or is in capitals; "the SELECT statement" is prose.
_QUERY = re.compile(
    rf"(?:^[ \t>]*|[:`][ \t]*)(?P<start>\(*(?i:SELECT\b|{_WITH}))|(?P<capitals>\bSELECT\b|\b{_WITH})", re.MULTILINE
)
_PROSE_AFTER = re.compile(
    r"(?:SELECT|WITH)[`\"']?\s*(?:$|(?:statements?|quer(?:y|ies)|clauses?|keywords?|commands?|operators?|to|the|and|is|from)\b)",
    re.IGNORECASE,
)
_LOWER_CASE = re.compile(r"\bselect\b.*\bfrom\b.*", re.DOTALL | re.IGNORECASE)
_SQL_LINE = re.compile(
    r"\s*(?:[(),=<|]|(?:SELECT|FROM|WHERE|GROUP|ORDER|HAVING|LIMIT|OFFSET|JOIN|LEFT|RIGHT|INNER|OUTER|FULL|CROSS|NATURAL|ON|USING|"
    r"UNION|INTERSECT|EXCEPT|AND|OR|NOT|IN|CASE|WHEN|THEN|ELSE|END|AS|WITH|WINDOW|VALUES|SET)\b)",
    re.IGNORECASE,
)
# What may hold a semicolon comes first, so that the end found is outside of it.
_QUOTED_OR_END = re.compile(
    rf"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]+`|--[^\n]*|/\*.*?\*/|(?P<end>;|```|{_SPECIAL})", re.DOTALL
)


def extract_sql(text: str, *, dialect: str = "sqlite") -> str:
    """The first SQL statement in a model's answer, without code fence, tags, prose or semicolon; "" if there is none.

    An answer that begins with SQL is taken up to its end: a semicolon, code fence or special token outside quotes and
    comments. Else what stands in ``[SQL]`` tags, in a code block or in a JSON object is preferred to text around it.
    Prose after a statement without semicolon is cut only where the whole does not parse and what stands before the
    prose does. What a model thinks (up to ``</think>``) is no answer.

    Args:
        text: the answer, as it came.
        dialect: the SQL dialect, by sqlglot's name.
    """
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    while leading := re.match(rf"\s*(?:{_SPECIAL})", text):
        text = text[leading.end() :]
    if not _begins_with_sql(text, dialect):
        if tagged := _TAGGED.search(text):
            text = tagged[1]
        if blocks := _FENCED.findall(text):
            text = next((block for block in blocks if _READS.match(_query_in(block, dialect))), blocks[0])
        text = _value_of_json(text)
        text = next((part for part in _SPECIAL_TOKEN.split(text) if part.strip()), "")
    return _without_prose(_first_statement(_query_in(text, dialect)), dialect)


def _begins_with_sql(text: str, dialect: str) -> bool:
    """Whether the answer is SQL from its first word on; "Select all rows:" before a code block is not."""
    text = _without_comments(text)
    if not _STATEMENT.match(text):
        return False
    return not _MARKED.search(text) or parse(_first_statement(text), dialect) is not None


def _value_of_json(text: str) -> str:
    """The SQL in a JSON object such as ``{"sql": "SELECT 1"}``; other text is left as it is."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    values = content.values() if isinstance(content, dict) else ()
    return next((value for value in values if isinstance(value, str) and _STATEMENT.match(value.lstrip())), text)


def _query_in(text: str, dialect: str) -> str:
    """The text from where its query begins."""
    text = _without_comments(text)
    if _STATEMENT.match(text) and not _PROSE_AFTER.match(text):
        return text
    for found in _QUERY.finditer(text):
        start = found.start(found.lastgroup or 0)
        if _PROSE_AFTER.match(text, start):
            continue
        return _unquoted(text[start:], text[start - 1 : start], dialect)
    prose = _LOWER_CASE.search(text)
    if prose and parse(_without_prose(_first_statement(prose[0]), dialect), dialect) is not None:
        return prose[0]
    return ""


def _without_comments(text: str) -> str:
    """The text without the comments before a statement; where no statement follows, the query may stand in them."""
    text = text.strip()
    comments = _LEADING_COMMENTS.match(text)
    return text[comments.end() :] if comments and _STATEMENT.match(text, comments.end()) else text


def _unquoted(query: str, quote: str, dialect: str) -> str:
    """The query up to the mark that closes `quote`, which may also stand within the query."""
    line = query.split("\n", 1)[0]
    ends = [place for place, sign in enumerate(line) if sign == quote] if quote in ("`", "'", '"') else []
    if not ends:
        return query
    return next((line[:end] for end in ends if parse(_first_statement(line[:end]), dialect)), line[: ends[-1]])


def _first_statement(sql: str) -> str:
    end = next((found.start() for found in _QUOTED_OR_END.finditer(sql) if found["end"]), None)
    return sql[:end].strip()


def _without_prose(sql: str, dialect: str) -> str:
    lines = sql.splitlines(keepends=True)
    if len(lines) == 1 or parse(sql, dialect) is not None:
        return sql
    for end in range(len(lines) - 1, 0, -1):
        if lines[end].strip() and not _SQL_LINE.match(lines[end]):
            shorter = "".join(lines[:end]).strip()
            if parse(shorter, dialect) is not None:
                return shorter
    return sql
