"""Grade predictions: every grader on every record, in batches that survive a kill and stop at a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from sqlquarry.artifacts import Generation, Judgement, Record, TextGenerator
from sqlquarry.errors import ConfigError, JudgeFailedError, JudgingError, SQLQuarryError
from sqlquarry.extras import require
from sqlquarry.judging.extraction import ANSWER_LIMIT, extract_sql
from sqlquarry.judging.journal import Journal, content_key
from sqlquarry.judging.report import Entry, Report
from sqlquarry.options import check_options
from sqlquarry.progress.bar import ProgressBar


class Grader(Protocol):
    """Anything that can say whether one predicted query answers one record.

    Optional: ``grade_all(records, predicted)`` for graders that work in batches; ``fingerprint(record)``, a text that
    changes with all that a verdict depends on beside record and prediction, without which verdicts are not reused;
    ``cost_usd``, what the grader has cost so far. A grader is called from several threads.
    """

    @property
    def name(self) -> str:
        """The grader's name in reports; unique within a judge."""
        ...

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge one prediction; `predicted_sql` is "" where the answer held no SQL."""
        ...


@check_options()
class SQLJudge:
    """Grade predicted SQL and report accuracies with error bars.

    With a journal nothing is judged or asked twice: a killed run is continued by the same call, and equal predictions
    of later runs take the verdicts that are there. Unjudged records are tried again. Answers are reused where the
    generator has a ``fingerprint`` (`ImportedModel`, `LocalModel` and `FoundationModel` have).

    Args:
        graders: at least one, with different names; the first gives the headline.
        journal: a file that keeps verdicts and answers; None keeps none.
        budget_usd: stop before the batch that would start above it; needs graders or a generator that know their cost.
        concurrency: records graded at a time.
        batch_size: records answered, graded and noted before the next; what a kill can lose of a generator's answers.

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
        numbers = {"concurrency": concurrency, "batch_size": batch_size}
        bad = [f"{name} is {value}, but must be at least 1" for name, value in numbers.items() if value < 1]
        if budget_usd is not None and not budget_usd > 0:
            bad.append(f"budget_usd is {budget_usd}, but must be above 0")
        if bad:
            raise ConfigError("SQLJudge: " + "; ".join(bad))
        self.graders = tuple(graders)
        self.journal, self.budget_usd = journal, budget_usd
        self.concurrency, self.batch_size = concurrency, batch_size

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

    def evaluate(self, generator: TextGenerator, records: Sequence[Record]) -> Report:
        """Let `generator` answer all records, without showing it their gold SQL, and grade the answers.

        Raises:
            JudgingError: there are no records, the generator has no `generate`, or it gave another number of answers.
            SQLQuarryError: whatever the generator raises; with a journal, its answers so far are kept.
        """
        if not callable(getattr(generator, "generate", None)):
            raise JudgingError(
                f"generator is {generator!r:.80}, but must have a method generate, as LocalModel and ImportedModel do. "
                "For answers that are there already, call judge(records, predictions)."
            )

        def answers(journal: Journal | None, places: slice) -> Sequence[Generation]:
            return _answered(generator, records[places], journal)

        return self._run(records, answers, (*self.graders, generator))

    def _run(
        self,
        records: Sequence[Record],
        answers: Callable[[Journal | None, slice], Sequence[Generation]],
        spenders: Sequence[object],
    ) -> Report:
        if not records:
            raise JudgingError("there are no records to judge")
        started, before = time.monotonic(), _cost_usd(spenders)
        entries: list[Entry] = []
        about: dict[str, Any] = {}
        with contextlib.ExitStack() as stack:
            journal = Journal(self.journal) if self.journal is not None else None
            if journal:
                stack.callback(journal.close)
            pool = stack.enter_context(ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge"))
            bar = stack.enter_context(ProgressBar("judging", len(records)))
            for start in range(0, len(records), self.batch_size):
                spent = _cost_usd(spenders) - before
                if self.budget_usd is not None and spent >= self.budget_usd:
                    about["stopped"] = f"{spent:.2f} USD spent of a budget of {self.budget_usd:.2f} USD"
                    break
                batch = slice(start, start + self.batch_size)
                given = answers(journal, batch)
                entries += self._entries(
                    records[batch], given, journal, pool, lambda: bar.advance(1 / len(self.graders))
                )
                cost = _cost_usd(spenders) - before
                bar.update(len(entries), note=f"{cost:.2f} USD" if cost else "")
        about |= {
            "left": len(records) - len(entries),
            "cost_usd": round(_cost_usd(spenders) - before, 6),
            "seconds": round(time.monotonic() - started, 3),
        }
        return Report(tuple(grader.name for grader in self.graders), tuple(entries), about)

    def _entries(
        self,
        records: Sequence[Record],
        answers: Sequence[Generation],
        journal: Journal | None,
        pool: ThreadPoolExecutor,
        advance: Callable[[], None],
    ) -> list[Entry]:
        if len(records) != len(answers):
            raise JudgingError(f"the generator gave {len(answers)} answers to {len(records)} records, not one for each")
        predicted = [extract_sql(answers[i].text, dialect=records[i].dialect) for i in range(len(records))]
        too_long = {
            i: f"the answer has {len(answer.text):,} characters; at most {ANSWER_LIMIT:,} are read"
            for i, answer in enumerate(answers)
            if len(answer.text) > ANSWER_LIMIT
        }
        graded = functools.partial(_graded, journal=journal, pool=pool, advance=advance)
        columns = [graded(grader, records, predicted, too_long) for grader in self.graders]
        return [
            Entry(records[i], answers[i].text, predicted[i], answers[i].stop_reason == "length", judgements)
            for i, judgements in enumerate(zip(*columns, strict=True))
        ]


def _graded(
    grader: Grader,
    records: Sequence[Record],
    predicted: Sequence[str],
    refused: Mapping[int, str],
    *,
    journal: Journal | None,
    pool: ThreadPoolExecutor,
    advance: Callable[[], None],
) -> list[Judgement]:
    """Return one grader's verdicts: those of the journal, then the missing ones, each noted as it comes.

    `refused` says by place why an answer is not graded at all; `advance` is called once for each verdict.
    """
    keys = [_verdict_key(grader, records[i], predicted[i]) if journal else None for i in range(len(records))]
    found = {i: Judgement(**known) for i, key in enumerate(keys) if journal and key and (known := journal.get(key))}
    found |= {i: Judgement(grader.name, "unjudged", reason) for i, reason in refused.items()}
    missing = [i for i in range(len(records)) if i not in found]
    for _ in found:
        advance()

    def note(place: int, judgement: Judgement) -> None:
        found[place] = judgement
        advance()
        key = keys[place]
        if journal and key and judgement.verdict != "unjudged":
            journal.add(key, dataclasses.asdict(judgement))

    grade_all = getattr(grader, "grade_all", None)
    if grade_all is not None and missing:
        try:
            verdicts = grade_all([records[i] for i in missing], [predicted[i] for i in missing])
        except JudgeFailedError as error:
            for place, verdict in zip(missing, error.partial, strict=False):  # it may be empty
                if verdict is not None:
                    note(place, verdict)
            raise
        for place, verdict in zip(missing, verdicts, strict=True):
            note(place, verdict)
    elif missing:
        list(pool.map(lambda place: note(place, grader.grade(records[place], predicted[place])), missing))
    return [found[i] for i in range(len(records))]


def _verdict_key(grader: Grader, record: Record, predicted_sql: str) -> str | None:
    fingerprint = getattr(grader, "fingerprint", None)
    depends_on = fingerprint(record) if fingerprint else None
    if depends_on is None:
        return None
    return content_key("verdict", grader.name, depends_on, _content(record), predicted_sql)


def _answered(generator: TextGenerator, records: Sequence[Record], journal: Journal | None) -> list[Generation]:
    """The answers of one batch; those of the journal are not asked for again."""
    fingerprint = getattr(generator, "fingerprint", None)
    if journal is None or fingerprint is None:
        return generator.generate([record.asked for record in records])
    keys = [content_key("answer", fingerprint, _content(record.asked)) for record in records]
    missing = [i for i, key in enumerate(keys) if journal.get(key) is None]

    def note(answers: Sequence[Generation | None]) -> None:
        for place, answer in zip(missing, answers, strict=False):  # `partial` may be empty
            if answer is not None:
                journal.add(keys[place], dataclasses.asdict(answer))

    try:
        if missing:
            answers = generator.generate([records[i].asked for i in missing])
            if len(answers) != len(missing):
                raise JudgingError(f"the generator gave {len(answers)} answers to {len(missing)} records")
            note(answers)
    except SQLQuarryError as error:
        note(getattr(error, "partial", ()))
        raise
    known = [journal.get(key) for key in keys]
    return [
        # An infinite one is text in the journal.
        Generation(**value | {"logprobs": value["logprobs"] and tuple(map(float, value["logprobs"]))})
        for value in known
        if value
    ]


def _content(record: Record) -> dict[str, Any]:
    # The id is a place in a file: the same question elsewhere has the same verdict.
    return {name: value for name, value in dataclasses.asdict(record).items() if name != "id"}


def _cost_usd(spenders: Sequence[object]) -> float:
    costs = (
        getattr(one, "cost_usd", None) or getattr(getattr(one, "usage", None), "cost_usd", None) for one in spenders
    )
    return float(sum(cost for cost in costs if cost))
