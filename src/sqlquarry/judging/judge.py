"""Run every grader on every record, in batches that can be resumed after a kill and that stop at a budget."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.batches import answer_batch, grade_batch
from sqlquarry.judging.extraction import ANSWER_LIMIT, extract_sql
from sqlquarry.judging.grader import Grader
from sqlquarry.judging.journal import Journal
from sqlquarry.judging.report import Report, ReportEntry, ReportInfo
from sqlquarry.options import check_options, check_rules
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.records import Record

_Answers = Callable[[Journal | None, slice], Sequence[Generation]]


@check_options()
class SQLJudge:
    """A judge that grades predicted SQL and reports accuracies with confidence intervals.

    With a journal, the same call resumes a killed run, and later runs reuse answers and verdicts. Verdicts are reused
    if the grader has a ``fingerprint``. Unjudged records are tried again. Answers are reused if the model has a
    ``fingerprint``, as `ImportedModel`, `LocalModel` and `FoundationModel` do.

    Args:
        graders: at least one, with different names. The first one gives the headline.
        journal: a file that stores verdicts and answers. None stores none.
        budget_usd: start no further batch once this much is spent. It counts the cost that graders and model report.
        concurrency: number of records graded at a time.
        batch_size: number of records answered, graded and stored before the next batch starts. A kill loses at most
            the model's answers to one batch.

    Raises:
        JudgingError: there is no grader, or two graders have the same name.
        ConfigError: an option is out of range.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        graders: Sequence[Grader],
        *,
        journal: str | Path | None = None,
        budget_usd: float | None = None,
        concurrency: int = 4,
        batch_size: int = 128,
    ) -> None:
        require("judge", "SQLJudge")
        if not graders:
            raise JudgingError("graders is empty. Pass at least one grader, for example ExecutionGrader('databases/').")
        counts = Counter(grader.name for grader in graders)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise JudgingError(f"several graders have the name {', '.join(twice)}. Pass name=... to give each its own.")
        self.graders = tuple(graders)
        self.journal, self.budget_usd = journal, budget_usd
        self.concurrency, self.batch_size = concurrency, batch_size
        check_rules(
            self,
            {
                "concurrency": (concurrency >= 1, "at least 1"),
                "batch_size": (batch_size >= 1, "at least 1"),
                "budget_usd": (budget_usd is None or budget_usd > 0, "above 0"),
            },
        )

    def judge(self, records: Sequence[Record], predictions: Sequence[str] | Sequence[Generation]) -> Report:
        """Grade one answer per record, after extracting its SQL with `extract_sql`.

        Args:
            records: the questions with their gold SQL.
            predictions: the answers in the same order, as text or generations. Generations that were cut at the token
                limit are graded too, and flagged.

        Raises:
            JudgingError: there are no records, the number of predictions differs, a prediction is neither text nor a
                generation, or the journal cannot be used.
        """
        if len(records) != len(predictions):
            raise JudgingError(
                f"there are {len(records)} records, but {len(predictions)} predictions. Give one per record, in order."
            )
        if any(isinstance(item, Record) for item in predictions):
            raise JudgingError("predictions contains records. Pass the records first and the predictions second.")
        for i, prediction in enumerate(predictions):
            if not isinstance(prediction, str | Generation):
                raise JudgingError(f"prediction {i} is a {type(prediction).__name__}. Pass text or a Generation.")
        answers = [item if isinstance(item, Generation) else Generation(item) for item in predictions]
        return self._run(records, lambda _, places: answers[places], self.graders)

    def evaluate(self, records: Sequence[Record], model: TextGenerator) -> Report:
        """Let `model` answer all records and grade the answers. The model does not see the gold SQL.

        Args:
            records: the questions with their gold SQL.
            model: any object with ``generate(records) -> list[Generation]``.

        Raises:
            JudgingError: there are no records, the model has no `generate`, it returned a different number of answers,
                or the journal cannot be used.
            SQLQuarryError: the model failed. The journal, if there is one, has the answers so far.
        """
        if not callable(getattr(model, "generate", None)):
            raise JudgingError(
                f"model is {model!r:.80}, which has no method generate. Pass the records first and then a model, "
                "such as LocalModel or ImportedModel. If you already have answers, call judge(records, predictions)."
            )

        def answers(journal: Journal | None, places: slice) -> Sequence[Generation]:
            return answer_batch(model, records[places], journal)

        return self._run(records, answers, (*self.graders, model))

    def _run(self, records: Sequence[Record], answers: _Answers, spenders: Sequence[object]) -> Report:
        if not records:
            raise JudgingError("records is empty. Give at least one record to judge.")
        started, before = time.monotonic(), _cost_usd(spenders)
        entries: list[ReportEntry] = []
        stopped = ""
        with contextlib.ExitStack() as stack:
            journal = Journal(self.journal) if self.journal is not None else None
            if journal:
                stack.callback(journal.close)
            pool = stack.enter_context(ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge"))
            bar = stack.enter_context(ProgressBar("judging", len(records)))
            for start in range(0, len(records), self.batch_size):
                spent = _cost_usd(spenders) - before
                if self.budget_usd is not None and spent >= self.budget_usd:
                    stopped = f"{spent:.2f} USD spent of a budget of {self.budget_usd:.2f} USD"
                    break
                batch = slice(start, start + self.batch_size)
                given = answers(journal, batch)
                entries += self._entries(
                    records[batch], given, journal, pool, lambda: bar.advance(1 / len(self.graders))
                )
                cost = _cost_usd(spenders) - before
                bar.update(len(entries), note=f"{cost:.2f} USD" if cost else "")
        info = ReportInfo(
            duration_s=round(time.monotonic() - started, 3),
            cost_usd=round(_cost_usd(spenders) - before, 6),
            stopped=stopped,
            records_left=len(records) - len(entries),
        )
        return Report([grader.name for grader in self.graders], entries, info)

    def _entries(
        self,
        records: Sequence[Record],
        answers: Sequence[Generation],
        journal: Journal | None,
        pool: Executor,
        advance: Callable[[], None],
    ) -> list[ReportEntry]:
        if len(records) != len(answers):
            raise JudgingError(
                f"the model returned {len(answers)} answers for {len(records)} records. "
                "Its generate must return one per record."
            )
        predicted = [extract_sql(answers[i].text, dialect=records[i].dialect) for i in range(len(records))]
        too_long = {
            i: f"the answer has {len(answer.text):,} characters, but the limit is {ANSWER_LIMIT:,}"
            for i, answer in enumerate(answers)
            if len(answer.text) > ANSWER_LIMIT
        }
        grade = functools.partial(grade_batch, journal=journal, pool=pool, advance=advance)
        columns = [grade(grader, records, predicted, too_long) for grader in self.graders]
        return [
            ReportEntry(records[i], answers[i].text, predicted[i], answers[i].stop_reason == "length", judgements)
            for i, judgements in enumerate(zip(*columns, strict=True))
        ]


def _cost_usd(spenders: Sequence[object]) -> float:
    costs = (
        getattr(one, "cost_usd", None) or getattr(getattr(one, "usage", None), "cost_usd", None) for one in spenders
    )
    return float(sum(cost for cost in costs if cost))
