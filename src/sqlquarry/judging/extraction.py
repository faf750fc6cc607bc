"""Find the SQL in what a model answered."""

from __future__ import annotations

import re

from sqlquarry.judging.parsing import parse

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_TAGGED = re.compile(r"\[SQL\](.*?)(?:\[/SQL\]|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"```[ \t]*(?:[\w+-]+[ \t]*\n|\n|sql(?:ite)?\b)?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<\|[\w ]{2,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|\[/?SQL\]|<(?:end|start)_of_turn>")
_WITH = r"WITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^()]*\)\s*)?AS\b"
_STATEMENT = re.compile(
    rf"(?:\(\s*)*(?:SELECT\b|{_WITH}|VALUES\s*\(|(?:INSERT|REPLACE)\s+(?:OR|INTO)\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b|"
    r"(?:CREATE|DROP|ALTER)\s+(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL|TABLE|VIEW|INDEX|TRIGGER)\b|"
    r"(?:PRAGMA|ATTACH|DETACH|VACUUM|EXPLAIN)\b)",
    re.IGNORECASE,
)
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
_QUOTED_OR_END = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|;", re.DOTALL)


def extract_sql(text: str, *, dialect: str = "sqlite") -> str:
    """The first SQL statement in a model's answer, without code fence, tags, prose or semicolon; "" if there is none.

    SQL that stands alone comes back unchanged but for outer white space and the semicolon. Prose after a statement
    that has no semicolon is cut only where the whole does not parse and what stands before the prose does.

    Args:
        text: the answer, as it came.
        dialect: the SQL dialect, by sqlglot's name.
    """
    text = _REASONING.sub("", text)
    if tagged := _TAGGED.search(text):
        text = tagged[1]
    if blocks := _FENCED.findall(text):
        text = next((block for block in blocks if _READS.match(_query_in(block, dialect))), blocks[0])
    text = next((part for part in _SPECIAL_TOKEN.split(text) if part.strip()), "")
    return _without_prose(_first_statement(_query_in(text, dialect)), dialect)


def _query_in(text: str, dialect: str) -> str:
    """The text from where its query begins."""
    text = text.strip()
    if _STATEMENT.match(text) and not _PROSE_AFTER.match(text):
        return text
    for found in _QUERY.finditer(text):
        start = found.start(found.lastgroup or 0)
        if _PROSE_AFTER.match(text, start):
            continue
        if start and text[start - 1] == "`":  # inline code: up to the last backtick of the line
            line = text[start:].split("\n", 1)[0]
            return line[: line.rfind("`")] if "`" in line else text[start:]
        return text[start:]
    prose = _LOWER_CASE.search(text)
    if prose and parse(_without_prose(_first_statement(prose[0]), dialect), dialect) is not None:
        return prose[0]
    return ""


def _first_statement(sql: str) -> str:
    for found in _QUOTED_OR_END.finditer(sql):
        if found[0] == ";":
            return sql[: found.start()].strip()
    return sql.strip()


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
