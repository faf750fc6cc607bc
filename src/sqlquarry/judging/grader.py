"""The protocol that every grader implements."""

from __future__ import annotations

from typing import Protocol

from sqlquarry.answers import Judgement
from sqlquarry.records import Record


class Grader(Protocol):
    """An object that decides whether a predicted query answers a record.

    A grader is called from several threads. It may also have these members:

    - ``grade_all(records, predicted)`` judges a batch at once.
    - ``fingerprint(record)`` returns a text that changes with everything that a verdict depends on, except record and
      prediction. Verdicts of a grader without it are not reused.
    - ``cost_usd`` is the cost of the grader so far.

    Reports show the mean of the scores from 0 to 100 that are in ``details["score"]`` of its judgements.
    """

    @property
    def name(self) -> str:
        """The grader's name in reports, unique within a judge."""
        ...

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge one prediction. `predicted_sql` is "" if the answer contains no SQL."""
        ...
