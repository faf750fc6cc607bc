"""Build the prompt of one vote from a record and a candidate, fenced by tags and without invisible characters."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sqlquarry.judging.llm.rubric import NO_MISTAKE, Rubric
from sqlquarry.records import Record, noted_question
from sqlquarry.text import visible

_RUNS_COMMENTS = frozenset({"mysql", "doris", "singlestore", "starrocks"})


class Question(NamedTuple):
    """One question to a judge.

    Args:
        text: the record and the candidate.
        code: the suffix of all tags in this prompt and in its answer.
    """

    text: str
    code: str


def question(record: Record, candidate: str, *, candidate_first: bool = False) -> Question:
    """Return the data of one prompt, with each part between tags that its content cannot imitate.

    The code of the tags is a hash of the content, including the candidate, so the author of a candidate cannot predict
    it. The same record always has the same prompt, so batches and caches recognize it.
    """
    parts = [("question", noted_question(record)), ("schema", record.schema), ("dialect", record.dialect)]
    queries = [("reference", without_comments(gold, record.dialect)) for gold in record.golds]
    shown = ("candidate", without_comments(candidate, record.dialect))
    parts += [shown, *queries] if candidate_first else [*queries, shown]
    parts = [(name, visible(text).strip()) for name, text in parts]
    code = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in parts).encode()).hexdigest()[:12]
    return Question("\n\n".join(f"<{name}-{code}>\n{text}\n</{name}-{code}>" for name, text in parts), code)


def tag_instructions(rubric: Rubric, code: str) -> str:
    """Return instructions to answer with tags that end in the prompt's code, for models without structured output."""
    mistakes = f"<mistake-{code}>{' | '.join((NO_MISTAKE, *rubric.mistakes))}</mistake-{code}>\n"
    verdicts = [str(verdict) for verdict in rubric.scores]
    shown = " | ".join(verdicts) if len(verdicts) <= 10 else f"one of {verdicts[0]} … {verdicts[-1]}"
    return (
        "End your answer with exactly these tags, the verdict last and nothing after it:\n"
        f"<reason-{code}>one or two sentences</reason-{code}>\n"
        f"{mistakes if rubric.mistakes else ''}"
        f"<verdict-{code}>{shown}</verdict-{code}>"
    )


def without_comments(sql: str, dialect: str) -> str:
    """Return the query without comments and hints. They cannot change its rows, but they could address the judge.

    MySQL runs the content of ``/*! … */``, so it is kept. If a quote is not closed, sqlglot finds no tokens, and it is
    unknown which text is quoted. Everything that could be a comment is then removed, also in quotes.
    """
    import sqlglot
    from sqlglot.errors import SqlglotError

    known = sqlglot.Dialect.get(dialect) is not None
    # In SQLite the end of the text closes a comment.
    for text in (sql, f"{sql}*/"):
        try:
            tokens = sqlglot.tokenize(text, read=dialect if known else None)
            break
        except SqlglotError:
            continue
    else:
        return _without_possible_comments(sql)
    kept, end, hint_end = "", 0, 0
    for token in tokens:
        if token.token_type.name == "HINT":
            close = text.find("*/", token.start)
            hint_end = len(text) if close < 0 else close + 2
        if token.start < hint_end:
            continue
        # The text between two tokens is white space, comments and hints.
        gap = text[end : token.start]
        kept += gap if not gap.strip() or (dialect in _RUNS_COMMENTS and "/*!" in gap) else " "
        kept, end = kept + text[token.start : token.end + 1], token.end + 1
    rest = text[end:]
    return (kept + rest if dialect in _RUNS_COMMENTS and "/*!" in rest else kept).strip()


def _without_possible_comments(sql: str) -> str:
    """Return the text without anything that may be a comment in any dialect, in or outside of quotes.

    Each start of a comment counts, regardless of the text before it. Comments may be nested. A comment without an end
    extends to the end of the text.
    """
    ends = _nested_ends(sql)
    kept: list[str] = []
    left_out_to = 0
    for place, character in enumerate(sql):
        if sql.startswith("/*", place):
            left_out_to = max(left_out_to, ends[place + 2])
        elif sql.startswith("{#", place):
            left_out_to = max(left_out_to, _end_of("#}", sql, place))
        elif sql.startswith(("--", "#", "//"), place):
            left_out_to = max(left_out_to, _end_of("\n", sql, place))
        if place >= left_out_to:
            kept.append(character)
        elif kept[-1:] != [" "]:
            kept.append(" ")
    return "".join(kept).strip()


def _nested_ends(sql: str) -> list[int]:
    """Return the end of a nested comment for each position at which it may contain text."""
    ends = [len(sql)] * (len(sql) + 1)
    for place in range(len(sql) - 1, -1, -1):
        if sql.startswith("*/", place):
            ends[place] = place + 2
        elif sql.startswith("/*", place):
            ends[place] = ends[ends[place + 2]]
        else:
            ends[place] = ends[place + 1]
    return ends


def _end_of(sign: str, sql: str, place: int) -> int:
    """Return the end of the next `sign`, or of the text if there is none."""
    found = sql.find(sign, place)
    return len(sql) if found < 0 else found + len(sign)
