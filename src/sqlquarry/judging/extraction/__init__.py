"""Extract the SQL from a model's answer.

An answer is parsed with a small grammar, from the outside in:

    answer    = [thinking] turn          `markup` drops the model's thoughts and other turns
    turn      = statement ...            the answer begins with SQL
              | tags | code blocks | JSON | text      in this order of preference, and each contains a turn again
    text      = prose statement prose    `statement` finds its ends, and `prose` distinguishes English from SQL

Every step takes linear time in the length of the answer. The SQL parser does not, so the number of its calls and of the
characters that it parses is limited (`statement.Parser`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlquarry.judging.extraction.markup import Part, first_turn, json_parts, marked_parts, turn_of, unmarked
from sqlquarry.judging.extraction.statement import Parser, begins_with_sql, reads, statement_in

ANSWER_LIMIT = 200_000
_NESTED = 3  # levels: a tag around a code block around JSON


def extract_sql(text: str, *, dialect: str = "sqlite") -> str:
    """Return the SQL statement in a model's answer, without markup, prose or semicolon, or "" if there is none.

    If the answer begins with SQL, the statement ends at a semicolon, code fence, closing tag or special token outside
    of quotes and comments. Otherwise tags (``[SQL]``, ``<sql>``, ``<answer>``), code blocks and JSON are searched
    before the text around them, in this order. The first one with a query is used, unless the text before a later one
    calls it corrected or final. Thoughts of a model (such as ``<think>``) are not part of its answer.

    Prose after a statement is cut off only if the statement parses without it and the rest looks like prose. So a
    misspelled clause stays and fails on the database.

    Args:
        text: the complete answer. Only its first 200,000 characters are searched.
        dialect: sqlglot's name of the SQL dialect, which decides what quotes and comments look like.
    """
    return _in_turn(turn_of(text[:ANSWER_LIMIT]), Parser(dialect), _NESTED)


def _in_turn(text: str, parser: Parser, nested: int) -> str:
    if begins_with_sql(text, parser):
        return statement_in(text, parser)
    text = first_turn(text)
    if nested:
        for parts in (*marked_parts(text), json_parts(text)):
            if found := _best([(part, _in_turn(part.text, parser, nested - 1)) for part in parts]):
                if reads(found):
                    return found
                return _if_reads(statement_in(unmarked(text), parser)) or found
    return statement_in(text, parser)


def _best(found: Sequence[tuple[Part, str]]) -> str:
    """Return the last query that is announced as corrected or final, otherwise the first query or statement."""
    queries = [(part, sql) for part, sql in found if reads(sql)]
    final = [sql for part, sql in queries[1:] if part.is_final]
    return next((sql for sql in (*final[-1:], *(sql for _, sql in queries), *(sql for _, sql in found)) if sql), "")


def _if_reads(sql: str) -> str:
    return sql if reads(sql) else ""
