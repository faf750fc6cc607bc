"""Grade predictions: every grader on every record, in batches that survive a kill and stop at a budget."""

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
    """Grade predicted SQL and report accuracies with error bars.

    With a journal nothing is judged or asked twice: the same call resumes a killed run, and equal predictions of later
    runs take the verdicts that are there. Unjudged records are tried again. Answers are reused if the model has a
    ``fingerprint`` (`ImportedModel`, `LocalModel` and `FoundationModel` have).

    Args:
        graders: at least one, with different names; the first gives the headline.
        journal: a file that keeps verdicts and answers; None keeps none.
        budget_usd: stop before the batch that would start above it; needs graders or a model that know their cost.
        concurrency: records graded at a time.
        batch_size: records answered, graded and noted before the next; what a kill can lose of a model's answers.

    Raises:
        JudgingError: there is no grader, two have the same name, or the journal cannot be used.
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
            raise JudgingError("SQLJudge needs at least one grader, for example ExecutionGrader('databases/')")
        counts = Counter(grader.name for grader in graders)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise JudgingError(f"several graders are named {', '.join(twice)}. Pass name=... to tell them apart.")
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
        """Grade one answer per record; SQL is found in it with `extract_sql`.

        Args:
            records: the questions with their gold SQL.
            predictions: the answers, in the same order: text, or generations (those cut at the token limit are graded
                too, and flagged).

        Raises:
            JudgingError: there are no records, not as many predictions, or one is neither text nor a generation.
        """
        if len(records) != len(predictions):
            raise JudgingError(
                f"{len(records)} records, but {len(predictions)} predictions. Give one prediction per record, in order."
            )
        if any(isinstance(item, Record) for item in predictions):
            raise JudgingError("predictions holds records. Give the records first and the predictions second.")
        for i, prediction in enumerate(predictions):
            if not isinstance(prediction, str | Generation):
                raise JudgingError(f"prediction {i} is a {type(prediction).__name__}, not text or a Generation")
        answers = [item if isinstance(item, Generation) else Generation(item) for item in predictions]
        return self._run(records, lambda _, places: answers[places], self.graders)

    def evaluate(self, records: Sequence[Record], model: TextGenerator) -> Report:
        """Let `model` answer all records, without showing it their gold SQL, and grade the answers.

        Args:
            records: the questions with their gold SQL.
            model: anything with ``generate(records) -> list[Generation]``.

        Raises:
            JudgingError: there are no records, the model has no `generate`, or it gave another number of answers.
            SQLQuarryError: whatever the model raises; with a journal, its answers so far are kept.
        """
        if not callable(getattr(model, "generate", None)):
            raise JudgingError(
                f"model is {model!r:.80}, but must have a method generate, as LocalModel and ImportedModel do. Give "
                "the records first and the model second. If the answers are there already, call "
                "judge(records, predictions)."
            )

        def answers(journal: Journal | None, places: slice) -> Sequence[Generation]:
            return answer_batch(model, records[places], journal)

        return self._run(records, answers, (*self.graders, model))

    def _run(self, records: Sequence[Record], answers: _Answers, spenders: Sequence[object]) -> Report:
        if not records:
            raise JudgingError("there are no records to judge")
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
            raise JudgingError(f"the model gave {len(answers)} answers to {len(records)} records, not one for each")
        predicted = [extract_sql(answers[i].text, dialect=records[i].dialect) for i in range(len(records))]
        too_long = {
            i: f"the answer has {len(answer.text):,} characters; at most {ANSWER_LIMIT:,} are read"
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
