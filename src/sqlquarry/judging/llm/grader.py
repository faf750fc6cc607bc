"""A grader that asks language models, counts their votes and adds up their cost."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeGuard

from sqlquarry.answers import Judgement, TextGenerator
from sqlquarry.errors import ConfigError, JudgeFailedError, JudgingError
from sqlquarry.extras import require
from sqlquarry.judging.llm.forms import StructuredGenerator
from sqlquarry.judging.llm.judge_model import JudgeModel, JudgeUsage, Reply
from sqlquarry.judging.llm.prompt_rubric import PUBLISHED, PromptRubric
from sqlquarry.judging.llm.prompts import Question, question
from sqlquarry.judging.llm.rubric import STRICT, Rubric
from sqlquarry.judging.llm.votes import Vote, decide
from sqlquarry.judging.storable import storable
from sqlquarry.options import check_options
from sqlquarry.records import Record

AnyJudge = TextGenerator | StructuredGenerator
Price = Sequence[float]  # US dollars for tokens read and for tokens written
_RUBRICS: Mapping[str, Rubric | PromptRubric] = {rubric.name: rubric for rubric in (STRICT, PUBLISHED)}


@check_options()
class LLMGrader:
    """A grader that asks language models. Use `calibrate` before you trust its accuracy.

    Args:
        judge: a generator such as ``FoundationModel(model_id, temperature=0.0)``, or a list of generators that vote. A
            verdict needs more than half of all votes. Unreadable, inconsistent and failed votes count for neither side.
        rubric: "strict" (correct or wrong, with the mistake), "published" (the published workflow's prompt, 0 to 100,
            which a candidate can address), or your own `Rubric` or `PromptRubric`.
        repeats: number of votes of each judge. At temperature 0 all votes would be the same, and newer models do not
            support temperature 0.
        swap: show gold and prediction in both orders. A vote counts only if both orders give the same verdict. The
            order in a `PromptRubric` is fixed.
        passing_score: the lowest score that counts as correct. "auto" uses that of the rubric.
        name: the grader's name in reports.
        usd_per_million_tokens: US dollars per million tokens read and written, as one pair for all judges or a list
            with a pair for each. None if they are unknown. The cost is then unknown, too.

    Raises:
        ConfigError: an option is out of range.
        JudgingError: a judge lacks the method that the rubric needs, or the passing score does not fit the rubric.
        MissingExtraError: the extra `judge` is not installed.
    """

    def __init__(
        self,
        judge: AnyJudge | Sequence[AnyJudge],
        *,
        rubric: str | Rubric | PromptRubric = "strict",
        repeats: int = 1,
        swap: bool = False,
        passing_score: float | Literal["auto"] = "auto",
        name: str = "llm",
        usd_per_million_tokens: Price | Sequence[Price] | None = None,
    ) -> None:
        require("judge", "LLMGrader")
        judges = list(judge) if isinstance(judge, Sequence) else [judge]
        prices = _prices(usd_per_million_tokens, len(judges))
        bad = [] if judges else ["judge is empty, but it must have at least one generator"]
        chosen = _RUBRICS.get(rubric) if isinstance(rubric, str) else rubric
        if chosen is None:
            known = ", ".join(map(repr, _RUBRICS))
            bad.append(f"rubric is {rubric!r}, but it must be {known}, a Rubric or a PromptRubric")
        if swap and isinstance(chosen, PromptRubric):
            bad.append(f"swap is True, but the order of the queries in the prompt of {chosen.name!r} is fixed")
        if repeats < 1:
            bad.append(f"repeats is {repeats}, but it must be at least 1")
        if prices is None and usd_per_million_tokens is not None:
            bad.append(
                f"usd_per_million_tokens is {usd_per_million_tokens!r}, but it must be (read, written) or a list with "
                "one such pair per judge"
            )
        if bad or chosen is None:
            raise ConfigError("LLMGrader: " + "; ".join(bad))
        self.rubric = chosen if passing_score == "auto" else dataclasses.replace(chosen, passing_score=passing_score)
        self.name, self._repeats, self._swap = name, repeats, swap
        self._judges = [JudgeModel(one, self.rubric) for one in judges]
        self._prices = prices

    def fingerprint(self, record: Record) -> str | None:  # noqa: ARG002 - `SQLJudge` calls it for each record
        """Return all that a verdict depends on except record and prediction, or None if a judge has no fingerprint."""
        models = [judge.fingerprint for judge in self._judges]
        if None in models:
            return None
        return json.dumps([models, storable(self.rubric), self._repeats, self._swap])

    @property
    def usage(self) -> JudgeUsage:
        """Requests and tokens of all judges so far."""
        return sum((judge.usage for judge in self._judges), JudgeUsage())

    @property
    def cost_usd(self) -> float | None:
        """US dollars so far by the given prices, or None without prices. Cached tokens count at full price."""
        if self._prices is None:
            return None
        return sum(judge.usage.usd(price) for judge, price in zip(self._judges, self._prices, strict=True))

    def grade(self, record: Record, predicted_sql: str) -> Judgement:
        """Judge one prediction.

        Raises:
            JudgeFailedError: as in `grade_all`.
        """
        return self.grade_all([record], [predicted_sql])[0]

    def grade_all(self, records: Sequence[Record], predicted_sqls: Sequence[str]) -> list[Judgement]:
        """Judge many predictions in order. Each judge gets its questions as one batch.

        An unreadable reply is asked for once more, except in batch jobs. If that reply is unreadable, too, or a request
        fails, the vote does not count. A record without a majority of all votes is unjudged.

        Raises:
            JudgingError: the numbers of records and predictions differ.
            JudgeFailedError: a judge failed several times in a row. The error's `partial` has the finished judgements.
            ConfigError: the generator cannot run this request, such as a batch job with too few records.
        """
        if len(records) != len(predicted_sqls):
            raise JudgingError(
                f"there are {len(records)} records, but {len(predicted_sqls)} predictions. Give one per record."
            )
        finished = [self._without_asking(record, sql) for record, sql in zip(records, predicted_sqls, strict=True)]
        asked = [place for place, judgement in enumerate(finished) if judgement is None]
        shown = [self._shown(records[i], predicted_sqls[i]) for i in asked]
        # All questions about a record are adjacent. The orders of a vote come before its repeats.
        questions = [one for pair in shown for _ in range(self._repeats) for one in pair]
        outcomes: list[list[Reply | None]] = [[None] * len(questions) for _ in self._judges]
        failure: JudgeFailedError | None = None
        try:
            for judge, of_judge in zip(self._judges, outcomes, strict=True):
                judge.ask(questions, of_judge)
        except JudgeFailedError as error:
            failure = error
        orders = 2 if self._swap else 1
        width = self._repeats * orders
        for turn, place in enumerate(asked):
            votes = self._votes([of_judge[turn * width : (turn + 1) * width] for of_judge in outcomes], orders)
            if votes:
                finished[place] = decide(self.name, votes, self._common_details, is_graded=self.rubric.is_graded)
        if failure is not None:
            failure.partial = tuple(finished)
            raise failure
        return [judgement for judgement in finished if judgement is not None]

    def _shown(self, record: Record, candidate: str) -> list[Question]:
        """Return the question about a record in each order of the queries."""
        if isinstance(self.rubric, PromptRubric):
            return [self.rubric.question(record, candidate)]
        orders = (False, True) if self._swap else (False,)
        return [question(record, candidate, candidate_first=order) for order in orders]

    def _votes(self, outcomes: Sequence[Sequence[Reply | None]], orders: int) -> list[Vote]:
        """Return the votes on one record, or an empty list if an answer is still missing."""
        votes = []
        for judge, of_judge in zip(self._judges, outcomes, strict=True):
            known = [outcome for outcome in of_judge if outcome is not None]
            if len(known) < len(of_judge):
                return []
            votes += [
                Vote(judge.model, tuple(known[start : start + orders]), self.rubric.passing_score)
                for start in range(0, len(known), orders)
            ]
        return votes

    @property
    def _common_details(self) -> dict[str, object]:
        return {"kind": "llm", "model": ", ".join(judge.model for judge in self._judges), "rubric": self.rubric.name}

    def _without_asking(self, record: Record, predicted_sql: str) -> Judgement | None:
        details = {**self._common_details, "score": None, "votes": []}
        if record.sql is None:
            return Judgement(self.name, "unjudged", "the record has no gold SQL", details)
        if not predicted_sql:
            # Without this score, a model would raise its mean by not answering.
            details["score"] = 0 if self.rubric.is_graded else None
            return Judgement(self.name, "wrong", "no SQL in the answer", details)
        return None


def _prices(given: object, judges: int) -> list[Price] | None:
    """Return one price for each judge, or None if there are no prices or they are invalid."""
    if _is_price(given):
        return [given] * judges
    if isinstance(given, list | tuple) and len(given) == judges and all(map(_is_price, given)):
        return list(given)
    return None


def _is_price(value: object) -> TypeGuard[Price]:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(part, int | float) and part >= 0 for part in value)
    )
