"""Grade predictions: every grader on every record, in one pass."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from sqlquarry.artifacts import Generation, Judgement, Record, TextGenerator
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.extraction import extract_sql
from sqlquarry.judging.report import Entry, Report


class Grader(Protocol):
    """Anything that can say whether one predicted query answers one record."""

    @property
    def name(self) -> str:
        """The grader's name in reports; unique within a judge."""
        ...

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge one prediction; `predicted_sql` is "" where the answer held no SQL."""
        ...


class SQLJudge:
    """Grade predicted SQL and report accuracies with error bars.

    Args:
        graders: at least one, with different names; the first gives the headline.

    Raises:
        JudgingError: there is no grader, or two have the same name.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(self, graders: Sequence[Grader]) -> None:
        require("judge", "SQLJudge")
        if not graders:
            raise JudgingError("SQLJudge needs at least one grader, for example ExecutionGrader('databases/')")
        counts = Counter(grader.name for grader in graders)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise JudgingError(f"several graders are named {', '.join(twice)}. Pass name=... to tell them apart.")
        self.graders = tuple(graders)

    def judge(self, records: Sequence[Record], predictions: Sequence[str] | Sequence[Generation]) -> Report:
        """Grade one answer per record; SQL is found in it with `extract_sql`.

        Args:
            records: the questions with their gold SQL.
            predictions: the answers, in the same order: text, or generations (those cut at the token limit are graded
                too, and flagged).

        Raises:
            JudgingError: there are no records, not as many predictions, or one is neither text nor a generation.
        """
        if not records:
            raise JudgingError("there are no records to judge")
        if len(records) != len(predictions):
            raise JudgingError(
                f"{len(records)} records, but {len(predictions)} predictions. Give one prediction per record, in order."
            )
        for i, prediction in enumerate(predictions):
            if not isinstance(prediction, str | Generation):
                raise JudgingError(f"prediction {i} is a {type(prediction).__name__}, not text or a Generation")
        entries = [self._entry(records[i], predictions[i]) for i in _with_progress(range(len(records)))]
        return Report(tuple(grader.name for grader in self.graders), tuple(entries))

    def evaluate(self, generator: TextGenerator, records: Sequence[Record]) -> Report:
        """Let `generator` answer all records, without showing it their gold SQL, and grade the answers.

        Raises:
            JudgingError: there are no records, or the generator gave another number of answers.
        """
        if not records:
            raise JudgingError("there are no records to judge")
        return self.judge(records, generator.generate([dataclasses.replace(record, sql=None) for record in records]))

    def _entry(self, record: Record, prediction: str | Generation) -> Entry:
        answer = prediction if isinstance(prediction, Generation) else Generation(prediction)
        sql = extract_sql(answer.text, dialect=record.dialect)
        judgements = tuple(grader.grade(record, sql) for grader in self.graders)
        return Entry(record, answer.text, sql, answer.stop_reason == "length", judgements)


def _with_progress(places: Sequence[int]) -> Iterable[int]:
    if not sys.stderr.isatty():
        return places
    from rich.console import Console
    from rich.progress import track

    return track(places, "Judging", console=Console(stderr=True), transient=True)
