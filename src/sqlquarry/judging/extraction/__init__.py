"""Find the SQL in what a model answered.

An answer is read as a small grammar, from the outside in:

    answer    = [thinking] turn          `markup`: what was thought and other turns are dropped
    turn      = statement ...            the answer begins with SQL
              | tags | code blocks | JSON | text      in this order of preference; each holds a turn again
    text      = prose statement prose    `statement`: where it begins and ends; `prose`: what is English, not SQL

Every step is linear in the length of the answer. The parser, which is not, is asked a bounded number of times about a
bounded number of characters (`statement.Parser`).
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlquarry.judging.extraction.markup import Part, first_turn, json_parts, marked_parts, turn_of, unmarked
from sqlquarry.judging.extraction.statement import Parser, begins_with_sql, reads, statement_in

ANSWER_LIMIT = 200_000
_NESTED = 3  # a tag around a code block around JSON


def extract_sql(text: str, *, dialect: str = "sqlite") -> str:
    """Return the SQL statement in a model's answer, without markup, prose or semicolon, or "" if there is none.

    An answer that begins with SQL is taken up to its end: a semicolon, code fence, closing tag or special token outside
    quotes and comments. Otherwise tags (``[SQL]``, ``<sql>``, ``<answer>``), code blocks and JSON are preferred to the
    text around them, in this order. Of several the first that holds a query counts, unless the text before a later one
    calls it corrected or final. What a model thinks (``<think>`` and the like) is not part of its answer.

    Prose after a statement is cut off only if the statement reads as SQL without it and the rest reads as prose, so a
    misspelt clause stays and fails on the database.

    Args:
        text: the answer, as it came; only its first 200,000 characters are searched.
        dialect: the SQL dialect, by sqlglot's name; it decides which quotes and comments there are.
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
    """Return the first query, or the last that is announced as corrected or final; without any, a statement."""
    queries = [(part, sql) for part, sql in found if reads(sql)]
    final = [sql for part, sql in queries[1:] if part.is_final]
    return next((sql for sql in (*final[-1:], *(sql for _, sql in queries), *(sql for _, sql in found)) if sql), "")


def _if_reads(sql: str) -> str:
    return sql if reads(sql) else ""
