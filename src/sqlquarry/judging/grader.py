"""The protocol of graders, for those that come with the library and those of users."""

from __future__ import annotations

from typing import Protocol

from sqlquarry.answers import Judgement
from sqlquarry.records import Record


class Grader(Protocol):
    """Anything that can say whether one predicted query answers one record.

    Optional: ``grade_all(records, predicted)`` for graders that work in batches; ``fingerprint(record)``, a text that
    changes with all that a verdict depends on except record and prediction, without which verdicts are not reused;
    ``cost_usd``, what the grader has cost so far. A grader is called from several threads.
    """

    @property
    def name(self) -> str:
        """The grader's name in reports; unique within a judge."""
        ...

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge one prediction; `predicted_sql` is "" if the answer held no SQL."""
        ...
