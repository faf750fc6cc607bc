"""Text equality after making white space, keyword case and quoting uniform."""

from __future__ import annotations

from sqlquarry.artifacts import Judgement, Record
from sqlquarry.extras import require
from sqlquarry.judging.parsing import canonical, collapsed


class ExactGrader:
    """Correct if the prediction is the gold SQL up to white space, keyword case, quoting and a trailing semicolon.

    String literals and the case of identifiers stay: in many records double quotes hold strings. A statement that
    sqlglot cannot read in the record's dialect is compared with white space and case made uniform outside quotes.

    Args:
        name: the grader's name in reports.

    Raises:
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(self, *, name: str = "exact") -> None:
        require("judge", "ExactGrader")
        self.name = name

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Compare the texts; unjudged where the record has no gold SQL."""
        if record.sql is None:
            return Judgement(self.name, "unjudged", "the record has no gold SQL")
        if not predicted_sql:
            return Judgement(self.name, "wrong", "no SQL in the answer")
        gold, predicted = canonical(record.sql, record.dialect), canonical(predicted_sql, record.dialect)
        if gold is None or predicted is None:
            gold, predicted = collapsed(record.sql), collapsed(predicted_sql)
        if gold == predicted:
            return Judgement(self.name, "correct", "same text")
        return Judgement(self.name, "wrong", "another text", {"gold": gold, "predicted": predicted})
