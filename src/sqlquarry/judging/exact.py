"""Compare predicted and gold SQL token by token."""

from __future__ import annotations

from sqlquarry.answers import Judgement
from sqlquarry.extras import require
from sqlquarry.options import check_options
from sqlquarry.records import Record
from sqlquarry.sql.parsing import tokens


@check_options()
class ExactGrader:
    """A grader that accepts predictions with the same tokens as the gold SQL.

    Differences in white space, comments, the case of keywords and functions, the quoting of names, `!=` for `<>`, `==`
    for `=` and trailing semicolons are ignored. Literals and the case of names must match, because many records write
    strings in double quotes.

    Args:
        name: the grader's name in reports.

    Raises:
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(self, *, name: str = "exact") -> None:
        require("judge", "ExactGrader")
        self.name = name

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Compare prediction and gold SQL. A record without gold SQL is unjudged."""
        if record.sql is None:
            return Judgement(self.name, "unjudged", "the record has no gold SQL")
        if not predicted_sql:
            return Judgement(self.name, "wrong", "no SQL in the answer")
        if _same_text(record.sql, predicted_sql, record.dialect):
            return Judgement(self.name, "correct", "same text")
        return Judgement(self.name, "wrong", "different text")


def _same_text(gold: str, predicted: str, dialect: str) -> bool:
    mine, theirs = tokens(gold, dialect), tokens(predicted, dialect)
    if mine is None or theirs is None:  # a quote is not closed, so there are no tokens to compare
        return gold.split() == predicted.split()
    return len(mine) == len(theirs) and all(a.same_as(b) for a, b in zip(mine, theirs, strict=True))
